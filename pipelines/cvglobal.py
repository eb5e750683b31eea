"""CVGlobal, from the downloaded folder to the tables of recall.

    python -m pipelines.cvglobal --root CVGlobal/ --out cvglobal-out/
    python -m pipelines.cvglobal --root CVGlobal/ --out cvglobal-out/ --reference map
    python -m pipelines.cvglobal --root CVGlobal/ --out cvglobal-out/ --test-city Munich
    python -m pipelines.cvglobal --root CVGlobal/ --out cvglobal-out/ --test-since 2022-01

The first trains and tests by the published lists, street to satellite; the others are street to
map, cross-region and cross-temporal. All use the same shards. Every step is a command that can be
typed as it is printed, runs alone (``--step``), and goes on where it stopped. The folder as it must
lie, sizes and published numbers: docs/datasets.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from bevgen.errors import InputError
from bevgen.images.metadata import info_from_name
from bevgen.tables import Pair
from pipelines import commands, datasets, heights, steps
from pipelines.commands import Bev, Images, Size
from pipelines.datasets import Dataset, Folders, Image
from pipelines.heights import Cameras

LISTS = {"train": "train.csv", "test": "val.csv"}
FOLDERS = ("splits_csv", "splits")
# As published for CVACT: 20.48 camera heights across, stored at the network's size. Where a city's
# calibration is sure, as wide as its tiles, whose metres nobody has measured: both of one scale.
BEV = Bev(preset="cvglobal", size=384, resolution=0.13333)
WIDTH = 384 * 0.13333
SIZES: dict[str, Size] = {"panorama": (384, 768), "satellite": 384, "map": 384}
STEPS = ("check", "poses", "calibrate", "convert", "pack", "neighbours", "train", "evaluate")
MAP = "map"  # folder of a city beside those of its panoramas and satellite tiles
ENDINGS = (".jpg", ".png", ".jpeg")
# A line of a list: names have commas in them, and not everybody quotes.
LINE = re.compile(r"(.+?\.(?:jpg|jpeg|png)),(.+?\.(?:jpg|jpeg|png))(?:,.*)?", re.IGNORECASE)
# lat,lon_YYYY-MM_panorama id_dHEADING_zZOOM.jpg, read from both ends.
NAME = re.compile(r"-?\d+\.\d+,-?\d+\.\d+_(\d{4}-\d{2})_.+_d-?\d+_z\d+\.\w+")


@dataclass(frozen=True, slots=True)
class Protocol:
    """Which queries train and which test; the published lists where nothing is said.

    Attributes
    ----------
    cities
        All of these cities tests, the others train.
    since
        YYYY-MM. Of the published lists those test that were taken in this month or later, and
        those train that were taken before.
    """

    cities: tuple[str, ...] = ()
    since: str = ""

    @property
    def name(self) -> str:
        """Ending of the files' names."""
        return "-".join(["", *self.cities, *([self.since] if self.since else [])])

    @property
    def pairs(self) -> str:
        """File of pairs."""
        return f"pairs{self.name}.csv"

    def split(self, listed: str, city: str, month: str) -> str | None:
        """Return the split of a query; None leaves it out."""
        if self.cities:
            return "test" if city in self.cities else "train"
        if self.since:
            late = bool(month) and month >= self.since
            return listed if late == (listed == "test") else None
        return listed


class Paths:
    """Finds the files of lists, whose paths are absolute or relative, on some machine or this."""

    def __init__(self, root: Path) -> None:
        self.root, self.folders = root, Folders(root)
        self.skipped = 0  # leading parts of the last path, which belong to another machine

    def find(self, text: str) -> str | None:
        """Return the path relative to the root: the longest end of it that is there."""
        path = PurePosixPath(text.replace("\\", "/"))
        if path.is_relative_to(self.root.as_posix()):
            path = path.relative_to(self.root.as_posix())
        parts = path.parts
        for skip in (self.skipped, *range(len(parts))):
            file = "/".join(parts[skip:])
            if file and not file.startswith("/") and self.folders.has(file):
                self.skipped = skip
                return file
        return None

    def map_of(self, satellite: str) -> str | None:
        """Return the map tile that lies beside a satellite tile's folder under its name."""
        path = PurePosixPath(satellite)
        for ending in (path.suffix, *ENDINGS):
            file = (path.parent.parent / MAP / path.stem).as_posix() + ending
            if self.folders.has(file):
                return file
        return None


def read_list(path: Path) -> list[tuple[str, str]]:
    """Return the paths of satellite tile and panorama on each line.

    Raises
    ------
    InputError
        If a line does not name two images.
    """
    rows = []
    for number, cells in enumerate(datasets.read_columns(path, 2), 1):
        match = LINE.fullmatch(",".join(cells))
        if match is None:
            raise InputError(f"{path}, line {number}: expected two images, not {','.join(cells)}")
        rows.append((match[1], match[2]))
    return rows


def read(root: Path, share: float, protocol: Protocol) -> Dataset:
    """Read the lists and see which files are there.

    Raises
    ------
    InputError
        If a list is missing, or the protocol leaves nothing to train or to test.
    """
    paths = Paths(root)
    data = Dataset("CVGlobal", {"panorama": [], "satellite": [], "map": []}, {})
    pairs: list[Pair] = []
    seen: set[str] = set()
    for listed, name in LISTS.items():
        path = datasets.first_of(root, [f"{f}/{name}" for f in FOLDERS], "list of a split")
        for satellite, panorama in read_list(path):
            tile, street = paths.find(satellite), paths.find(panorama)
            reason = _reason(panorama, tile, street)
            if tile is None or street is None or reason:
                data.skipped.append((PurePosixPath(panorama).stem, reason or ""))
                continue
            query = street.rpartition(".")[0]
            reference = _tile_id(tile)
            if query not in seen:
                seen.add(query)
                info = info_from_name(street)
                data.views["panorama"].append(Image(street, query, info.latitude, info.longitude))
            if (key := f"tile {reference}") not in seen:
                seen.add(key)
                _add_tile(data, paths, tile, reference)
            match = NAME.fullmatch(PurePosixPath(street).name)
            split = protocol.split(listed, _city(street), match[1] if match else "")
            if split is None:
                data.skipped.append((query, f"not in this protocol's part of {listed}"))
            else:
                pairs.append(Pair(query, reference, split=split))
    _check_protocol(protocol, data, pairs)
    data.pairs[protocol.pairs] = datasets.hold_out(pairs, share)
    data.counts.extend((s, sum(pair.split == s for pair in pairs), None) for s in LISTS)
    data.counts.extend((view, len(images), None) for view, images in data.views.items())
    if not data.views["map"]:
        del data.views["map"]
    return data


def _check_protocol(protocol: Protocol, data: Dataset, pairs: Sequence[Pair]) -> None:
    """Refuse a protocol that leaves nothing to train or test: found out after the training else."""
    cities = {_city(image.file) for image in data.views["panorama"]}
    if unknown := sorted(set(protocol.cities) - cities):
        raise InputError(
            f"no panorama of {' or '.join(unknown)} (--test-city): there are"
            f" {', '.join(sorted(cities))}"
        )
    for split in LISTS:
        if protocol.name and pairs and not any(pair.split == split for pair in pairs):
            option = "--test-city" if protocol.cities else "--test-since"
            raise InputError(
                f"{option} leaves nothing for the split {split}: see --step check without it"
            )


def _reason(panorama: str, tile: str | None, street: str | None) -> str | None:
    if "depthmap" in PurePosixPath(panorama).name:
        return "a depth map, not a panorama"
    if street is None:
        return "no panorama"
    return None if tile else "no satellite tile"


def _city(file: str) -> str:
    """City/modality/name."""
    parts = PurePosixPath(file).parts
    return parts[-3] if len(parts) > 2 else ""


def _tile_id(tile: str) -> str:
    """Return one id for the tile of a place in all modalities: without the modality's folder."""
    path = PurePosixPath(tile)
    return (path.parent.parent / path.stem).as_posix()


def _add_tile(data: Dataset, paths: Paths, tile: str, reference: str) -> None:
    info = info_from_name(tile)
    data.views["satellite"].append(Image(tile, reference, info.latitude, info.longitude))
    drawn = paths.map_of(tile)
    if drawn is None:
        data.skipped.append((reference, "no map tile"))
    else:
        data.views["map"].append(Image(drawn, reference, info.latitude, info.longitude))


def cameras(panorama: str) -> Cameras:
    """Tell by its id which city's cameras took a panorama."""
    return Cameras(name=_city(panorama) or "CVGlobal", preset="cvglobal", tile_metres=WIDTH)


def views_of(out: Path) -> dict[str, Size]:
    """Return the views that the tables hold, with their sizes."""
    views = {view: size for view, size in SIZES.items() if (out / f"{view}.csv").exists()}
    if not views:
        raise InputError(f"{out} has no tables yet: run the step poses first")
    return views


@click.command(help="CVGlobal, from the downloaded folder to the tables of recall.")
@steps.options(STEPS)
@click.option("--test-city", "cities", multiple=True, help="Cross-region; may be repeated.")
@click.option("--test-since", "since", default="", metavar="YYYY-MM", help="Cross-temporal.")
@click.option(
    "--reference",
    type=click.Choice(["satellite", "map"]),
    default="satellite",
    show_default=True,
    help="Tiles to train on and to search.",
)
@click.option(
    "--heading",
    type=click.Choice(["name", "unknown"]),
    default="name",
    show_default=True,
    help="Take headings from the files' names, or train and test without.",
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
    cities: tuple[str, ...],
    since: str,
    reference: str,
    heading: str,
    share: float,
    height: float | None,
    convert_options: Sequence[str],
) -> None:
    """CVGlobal, from the downloaded folder to the tables of recall."""
    if cities and since:
        raise click.UsageError("--test-city and --test-since are two protocols: give one")
    if since and not re.fullmatch(r"\d{4}-\d{2}", since):
        raise click.UsageError(f"--test-since takes a month such as 2022-01, not {since!r}")
    protocol = Protocol(cities, since)
    run = out / f"run{protocol.name}{'-map' if reference == 'map' else ''}"
    if protocol.name:
        settings = [f"data.pairs={protocol.pairs}", *settings]
    if reference == "map":
        settings = ["data.reference=map.h5", *settings]
    if heading == "unknown":
        convert_options = ["--heading", "0", *convert_options]
        settings = ["data.heading=unknown", *settings]

    plan = heights.Plan(
        root=root,
        out=out,
        cameras=cameras,
        pairs=[protocol.pairs],
        given=height,
        heading="common" if heading == "name" else "per-image",
    )

    def convert() -> None:
        poses = heights.write_heights(plan, heights.decide(plan))
        panoramas = Images(root, poses=poses, list=out / "panorama.txt")
        commands.convert(panoramas, out / "bev.h5", BEV, more=convert_options)

    steps.carry_out(
        {
            "check": lambda: datasets.check(read(root, share, protocol)),
            "poses": lambda: datasets.write_tables(read(root, share, protocol), out, limit=limit),
            "calibrate": lambda: heights.calibrate(plan),
            "convert": convert,
            "pack": lambda: steps.pack(root, out, views_of(out), to_north=heading == "name"),
            "neighbours": lambda: steps.neighbours(out, "cvglobal", settings, protocol.pairs),
            "train": lambda: steps.train(out, "cvglobal", run, settings, protocol.pairs),
            "evaluate": lambda: commands.evaluate(run, "test"),
        },
        chosen,
    )


if __name__ == "__main__":
    main()
