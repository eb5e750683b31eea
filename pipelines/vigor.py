"""VIGOR, from the downloaded folder to the tables of recall: same-area and cross-area.

    python -m pipelines.vigor --root VIGOR/ --out vigor-out/
    python -m pipelines.vigor --root VIGOR/ --out vigor-out/ --protocol cross --step train

Every step is a command that can be typed as it is printed, runs alone (``--step``), and goes on
where it stopped. Both protocols use the same shards. The folder as it must lie, sizes and
published numbers: docs/datasets.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from bevgen.errors import InputError
from bevgen.presets import PRESETS
from bevgen.tables import Pair
from bevgen.terminal import counted
from pipelines import commands, datasets, heights, steps
from pipelines.commands import Bev, Images, Size
from pipelines.datasets import Dataset, Folders, Image
from pipelines.heights import Cameras

CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")
CROSS_TRAIN = ("NewYork", "Seattle")
TILES = {"Chicago": 22308, "NewYork": 23279, "SanFrancisco": 24255, "Seattle": 20776}
SAME = {
    "Chicago": (12740, 12739),
    "NewYork": (13885, 13884),
    "SanFrancisco": (14108, 14107),
    "Seattle": (11876, 11875),
}
PANORAMA_NAME = re.compile(r"(.+),(-?[\d.]+),(-?[\d.]+),\.\w+")
TILE_NAME = re.compile(r"(satellite)_(-?[\d.]+)_(-?[\d.]+)\.\w+")
PROTOCOLS = ("same", "cross")
FIELDS = 13  # of a label: panorama, then four tiles with the panorama's place in them
TILE = 640  # pixels
SIZE = 384  # of the stored BEV: the network's
# A BEV is as wide as its tile: of one scale, if the height is right. One output has one resolution,
# Chicago's; as on flat ground only height over resolution counts, each other city gets the height
# that comes to its own resolution.
WIDTH = PRESETS["vigor-chicago"].resolution * TILE
BEV = Bev(preset="vigor-chicago", size=SIZE, resolution=round(WIDTH / SIZE, 6))
SIZES: dict[str, Size] = {"panorama": (384, 768), "satellite": 384}
STEPS = ("check", "poses", "calibrate", "convert", "pack", "neighbours", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class Label:
    """A line of a list: a panorama, its positive tile and three semi-positives.

    ``tiles`` holds (file name, d_row, d_col), the positive first: the camera is at row
    320 + d_row and column 320 - d_col of the 640 x 640 tile.
    """

    panorama: str
    tiles: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class City:
    """A city's folders, relative to the root, and its lists."""

    name: str
    panoramas: str
    satellites: str
    lists: dict[str, Path]


def find_cities(root: Path, labels: str) -> list[City]:
    """Find the cities that are there, in the original layout or Sample4Geo's.

    Parameters
    ----------
    root
        Holds Chicago/panorama and so on, or ground/Chicago and satellite/Chicago.
    labels
        ``corrected``: the lists of splits__corrected or splits_new; ``original``: of splits;
        ``any``: the corrected ones where they are there.

    Raises
    ------
    InputError
        If there is no city, or its lists are missing.
    """
    cities = []
    for name in CITIES:
        for panoramas, satellites in (
            (f"{name}/panorama", f"{name}/satellite"),
            (f"ground/{name}", f"satellite/{name}"),
        ):
            if (root / panoramas).is_dir() and (root / satellites).is_dir():
                cities.append(City(name, panoramas, satellites, _lists(root, name, labels)))
                break
    if not cities:
        raise InputError(
            f"{root} has no city: expected Chicago/panorama and Chicago/satellite, or"
            " ground/Chicago and satellite/Chicago, or those of another city"
        )
    return cities


def _lists(root: Path, city: str, labels: str) -> dict[str, Path]:
    """Return the city's lists by their original name."""
    corrected = [
        f"{folder}/{city}/{{}}{ending}.txt"
        for folder in ("splits__corrected", "splits_new", "splits")
        for ending in ("__corrected", "")
        if (folder, ending) != ("splits", "")
    ]
    original = [f"splits/{city}/{{}}.txt"]
    places = {"corrected": corrected, "original": original, "any": corrected + original}
    found = {}
    for name in ("same_area_balanced_train", "same_area_balanced_test", "pano_label_balanced"):
        what = f"list of the {labels} labels of {city}" if labels != "any" else f"list of {city}"
        found[name] = datasets.first_of(root, [p.format(name) for p in places[labels]], what)
    tiles = [p.format("satellite_list") for p in (*original, *corrected)]
    return found | {"satellite_list": datasets.first_of(root, tiles, "list of tiles")}


def labels_taken(root: Path, city: City) -> str:
    """Say whether the city's labels are the corrected or the original ones, and where they lie."""
    found: dict[str, list[str]] = {}
    for name, path in city.lists.items():
        if name != "satellite_list":
            place = path.relative_to(root)
            kind = "original" if place == Path("splits", city.name, f"{name}.txt") else "corrected"
            found.setdefault(f"{kind}, in {place.parent}", []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{' and '.join(names)} {kind}" for kind, names in found.items())


def check(root: Path, share: float, labels: str) -> None:
    """Print what is there, and which labels were taken."""
    datasets.check(read(root, share, labels))
    for city in find_cities(root, labels):
        print(f"labels of {city.name}: {labels_taken(root, city)}")


def read_labels(path: Path) -> list[Label]:
    """Read a list of panoramas with their tiles.

    Raises
    ------
    InputError
        If a line is no label.
    """
    labels = []
    for number, line in enumerate(datasets.read_lines(path), 1):
        cells = line.split()
        try:
            if len(cells) != FIELDS:
                raise ValueError(f"{counted(len(cells), 'field')}")
            tiles = tuple(
                (cells[k], float(cells[k + 1]), float(cells[k + 2])) for k in range(1, FIELDS, 3)
            )
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: expected a panorama and four tiles with two offsets"
                f" each ({error})"
            ) from None
        labels.append(Label(cells[0], tiles))
    return labels


def _position(pattern: re.Pattern[str], name: str) -> tuple[str, float, float]:
    """Return what a file name says: id, latitude, longitude."""
    match = pattern.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is not named as VIGOR's images are, with its position")
    return match[1], float(match[2]), float(match[3])


class Reading:
    """A city's lists turned into images and pairs; what is missing is skipped."""

    def __init__(self, root: Path, city: City, data: Dataset) -> None:
        self.city, self.data, self.folders = city, data, Folders(root)
        self.tiles: dict[str, str] = {}  # file name -> id
        self.panoramas: dict[str, str | None] = {}
        for name in dict.fromkeys(datasets.read_lines(city.lists["satellite_list"])):
            self._add_tile(name)

    def _add_tile(self, name: str) -> None:
        place = f"{self.city.name}/{PurePosixPath(name).stem}"
        file = f"{self.city.satellites}/{name}"
        if not self.folders.has(file):
            self.data.skipped.append((place, "no satellite tile"))
            return
        self.data.views["satellite"].append(Image(file, place, *_position(TILE_NAME, name)[1:]))
        self.tiles[name] = place

    def _add_panorama(self, name: str) -> str | None:
        """Return the panorama's id; None if it is missing. Lists overlap: each is added once."""
        if name not in self.panoramas:
            own, latitude, longitude = _position(PANORAMA_NAME, name)
            place: str | None = f"{self.city.name}/{own}"
            file = f"{self.city.panoramas}/{name}"
            if self.folders.has(file):
                image = Image(file, place, latitude, longitude)
                self.data.views["panorama"].append(image)
            else:
                self.data.skipped.append((place, "no panorama"))
                place = None
            self.panoramas[name] = place
        return self.panoramas[name]

    def pairs(self, name: str, split: str) -> list[Pair]:
        """Return the rows of one of the city's lists."""
        rows = []
        for label in read_labels(self.city.lists[name]):
            query = self._add_panorama(label.panorama)
            if query is None:
                continue
            if label.tiles[0][0] not in self.tiles:
                self.data.skipped.append((query, f"its tile is missing ({name})"))
                continue
            for k, (tile, d_row, d_col) in enumerate(label.tiles):
                if tile in self.tiles:
                    role = "semi" if k else "positive"
                    rows.append(Pair(query, self.tiles[tile], role, d_row, d_col, split))
        return rows


def read(root: Path, share: float, labels: str) -> Dataset:
    """Read all cities' lists and see which files are there.

    Raises
    ------
    InputError
        If nothing is there, or a list cannot be understood.
    """
    data = Dataset("VIGOR", {"panorama": [], "satellite": []}, {})
    readings = [Reading(root, city, data) for city in find_cities(root, labels)]
    same: list[Pair] = []
    cross: list[Pair] = []
    for reading in readings:
        name = reading.city.name
        expected = SAME[name]
        for split, count in zip(("train", "test"), expected, strict=True):
            rows = reading.pairs(f"same_area_balanced_{split}", split)
            data.counts.append((f"{name}, same-area {split}", len({r.query for r in rows}), count))
            same += rows
        rows = reading.pairs("pano_label_balanced", "train" if name in CROSS_TRAIN else "test")
        data.counts.append((f"{name}, cross-area", len({r.query for r in rows}), sum(expected)))
        data.counts.append((f"{name}, tiles", len(reading.tiles), TILES[name]))
        cross += rows
    tiles = {r.city.name: list(r.tiles.values()) for r in readings}
    data.counts.extend((f"{name}, tiles", 0, TILES[name]) for name in CITIES if name not in tiles)
    data.pairs["pairs-same.csv"] = _protocol(same, share, tiles.values(), tiles.values())
    if {pair.split for pair in cross} == {"train", "test"}:
        data.pairs["pairs-cross.csv"] = _protocol(
            cross,
            share,
            [own for name, own in tiles.items() if name in CROSS_TRAIN],
            [own for name, own in tiles.items() if name not in CROSS_TRAIN],
        )
    return data


def _protocol(
    pairs: list[Pair], share: float, train: Iterable[list[str]], test: Iterable[list[str]]
) -> list[Pair]:
    """Add that val and test are searched in all tiles of their cities, whoever names them."""
    rows = [pair for pair in datasets.hold_out(pairs, share) if pair.role != "gallery"]
    for split, cities in (("val", train), ("test", test)):
        rows += datasets.gallery_rows((tile for own in cities for tile in own), split)
    return rows


def cameras(panorama: str) -> Cameras:
    """Tell by its id which city's cameras took a panorama."""
    city = panorama.split("/")[0]
    preset = f"vigor-{city.lower()}"
    metres = PRESETS[preset].resolution * TILE
    return Cameras(name=city, preset=preset, tile_metres=metres, measured=True)


@click.command(
    help="VIGOR, from the downloaded folder to the tables of recall: same-area and cross-area."
)
@steps.options(STEPS)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(PROTOCOLS),
    default=PROTOCOLS,
    show_default=True,
    help="To train and evaluate; may be repeated.",
)
@click.option(
    "--labels",
    type=click.Choice(["any", "corrected", "original"]),
    default="any",
    show_default=True,
    help="Any takes the corrected lists where they are there.",
)
@steps.take_hold_out(0.02)
@steps.take_height
@steps.take_convert
def main(
    root: Path,
    out: Path,
    chosen: Sequence[str],
    limit: int | None,
    settings: Sequence[str],
    protocols: Sequence[str],
    labels: str,
    share: float,
    height: float | None,
    convert_options: Sequence[str],
) -> None:
    """VIGOR, from the downloaded folder to the tables of recall: same-area and cross-area."""

    def trained() -> list[str]:
        if (out / "pairs-cross.csv").exists() or "cross" not in protocols:
            return list(protocols)
        print("cross-area is left out: it needs cities of both sides")
        return [name for name in protocols if name != "cross"]

    def neighbours() -> None:
        for name in trained():
            steps.neighbours(out, f"vigor-{name}", settings, f"pairs-{name}.csv")

    def train() -> None:
        for name in trained():
            run, pairs = out / f"run-{name}", f"pairs-{name}.csv"
            steps.train(out, f"vigor-{name}", run, settings, pairs)

    def evaluate() -> None:
        for name in protocols:
            if (out / f"run-{name}").exists():
                commands.evaluate(out / f"run-{name}", "test")

    def plan() -> heights.Plan:
        tables = [f"pairs-{name}.csv" for name in trained() or ["same"]]
        return heights.Plan(
            root=root, out=out, cameras=cameras, pairs=tables, given=height, label_size=TILE
        )

    def convert() -> None:
        what = plan()
        poses = heights.write_heights(what, heights.decide(what), WIDTH)
        panoramas = Images(root, poses=poses, list=out / "panorama.txt")
        commands.convert(panoramas, out / "bev.h5", BEV, more=convert_options)

    steps.carry_out(
        {
            "check": lambda: check(root, share, labels),
            "poses": lambda: datasets.write_tables(read(root, share, labels), out, limit=limit),
            "calibrate": lambda: heights.calibrate(plan()),
            "convert": convert,
            "pack": lambda: steps.pack(root, out, SIZES),
            "neighbours": neighbours,
            "train": train,
            "evaluate": evaluate,
        },
        chosen,
    )


if __name__ == "__main__":
    main()
