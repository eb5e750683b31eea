"""CVACT, from the downloaded folder to the tables of recall on CVACT_val and CVACT_test.

    python -m pipelines.cvact --root CVACT/ --out cvact-out/
    python -m pipelines.cvact --root CVACT/ --out cvact-out/ --step check

Every step is a command that can be typed as it is printed, runs alone (``--step``), and goes on
where it stopped. The folder as it must lie, sizes and published numbers: docs/datasets.md. The
published validation set is a test, the split ``cvact-val``; ``val`` is held out of the training
places, to choose the weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.tables import Pair, write_csv
from pipelines import commands, datasets, heights, steps
from pipelines.commands import Bev, Size
from pipelines.datasets import Dataset, Image
from pipelines.heights import Cameras

UTM = "utm.csv"  # neighbours are found on the plane, as published
ZONE = 55  # of UTM, south: Canberra
# As published: 512 pixels of 0.06 m seen from 1.5 m are 20.48 camera heights across; here from
# the preset's 2.8 m, and stored at the network's size.
BEV = Bev(preset="cvact", size=384, resolution=0.14933)
# 1200 pixels of the preset's resolution: not measured, but only height over resolution shows.
CAMERAS = Cameras(name="CVACT", preset="cvact", tile_metres=72.0)
SIZES: dict[str, Size] = {"panorama": (140, 768), "satellite": 384}
STEPS = ("check", "poses", "calibrate", "convert", "pack", "neighbours", "train", "evaluate")
SMALL, TEST = "ANU_data_small", "ANU_data_test"
VAL = "cvact-val"  # the published one
EXPECTED = {"train": 35532, VAL: 8884, "test": 92802}
# Panorama ids are any 22 of [A-Za-z0-9_-], so names are read from their end.
PANORAMA = re.compile(r"(.+)_grdView\.(?:jpg|jpeg|png)", re.IGNORECASE)
SATELLITE = re.compile(r"(.+)_satView\w*\.(?:jpg|jpeg|png)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """What ACT_data.mat says.

    Attributes
    ----------
    ids : list of str
        Panorama ids.
    utm : (N, 2) float64
        Easting and northing, metres.
    latitude, longitude : (N,) float64
        Degrees.
    splits : dict of (M,) int64
        Indices into ``ids`` of train, cvact-val and test, counted from 0.
    """

    ids: list[str]
    utm: NDArray[np.float64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    splits: dict[str, NDArray[np.int64]]


def read_mat(path: Path) -> Lists:
    """Read ids, positions and splits by their names.

    Raises
    ------
    InputError
        If the file is something else.
    """
    from scipy.io import loadmat

    fields = {"train": ("trainSet", "trainInd"), VAL: ("valSet", "valInd")}
    fields["test"] = ("valSetAll", "valInd")
    try:
        mat = loadmat(path)
        ids = [str(name).strip() for name in mat["panoIds"].ravel()]
        utm = np.asarray(mat["utm"], np.float64)
        numbers = {
            split: np.asarray(mat[struct][name][0, 0], np.int64).ravel()
            for split, (struct, name) in fields.items()
        }
    except Exception as error:  # SciPy has many for files that are damaged or something else
        raise InputError(f"{path} is not the ACT_data.mat of CVACT: {error}") from error
    if utm.shape != (len(ids), 2):
        raise InputError(f"{path}: {len(ids)} panoIds, but utm has the shape {utm.shape}")
    for split, values in numbers.items():
        if len(values) and not (values.min() >= 1 and values.max() <= len(ids)):
            raise InputError(f"{path}: {split} has indices outside 1 to {len(ids)}")
    latitude, longitude = datasets.from_utm(utm[:, 0], utm[:, 1], ZONE, south=True)
    splits = {split: values - 1 for split, values in numbers.items()}
    return Lists(ids, utm, latitude, longitude, splits)


def read_lists(root: Path) -> Lists:
    """Read ACT_data.mat; raises as `read_mat`."""
    return read_mat(datasets.first_of(root, ["ACT_data.mat"], "ACT_data.mat"))


def read(root: Path, share: float) -> Dataset:
    """Read the lists and see which files are there.

    Train and cvact-val are those of the .mat in ANU_data_small; val is held out of train. The test
    is all of ANU_data_test that has both images, as in the published code. A panorama may be in
    both folders, so ids begin with ``small/`` or ``test/``.

    Raises
    ------
    InputError
        If the lists or ANU_data_small are missing, or two files have one id.
    """
    lists = read_lists(root)
    where = dict(zip(lists.ids, zip(lists.latitude, lists.longitude, strict=True), strict=True))
    chosen = {
        "train": [lists.ids[k] for k in lists.splits["train"]],
        VAL: [lists.ids[k] for k in lists.splits[VAL]],
    }
    files = {"small": _files(root, SMALL)}
    if (root / TEST).is_dir():
        files["test"] = _files(root, TEST)
        chosen["test"] = sorted({*files["test"][0], *files["test"][1]})
    data = Dataset("CVACT", {"panorama": [], "satellite": []}, {datasets.PAIRS: []})
    for split, names in chosen.items():
        folder = "test" if split == "test" else "small"
        panoramas, satellites = files[folder]
        for name in names:
            place = f"{folder}/{name}"
            if missing := _missing(name, panoramas, satellites):
                data.skipped.append((place, f"{missing} in ANU_data_{folder}"))
                continue
            position = where.get(name, (None, None))
            data.views["panorama"].append(Image(panoramas[name], place, *position))
            data.views["satellite"].append(Image(satellites[name], place, *position))
            data.pairs[datasets.PAIRS].append(Pair(place, place, split=split))
    for split, expected in EXPECTED.items():
        found = sum(pair.split == split for pair in data.pairs[datasets.PAIRS])
        data.counts.append((split, found, expected))
    data.counts.append(("test in ACT_data.mat", len(lists.splits["test"]), EXPECTED["test"]))
    if "test" in chosen:
        test = set(chosen["test"])
        for split, expected in (("train", 0), (VAL, EXPECTED[VAL])):
            data.counts.append(
                (f"test that is also {split}", len(test & set(chosen[split])), expected)
            )
    data.pairs[datasets.PAIRS] = datasets.hold_out(data.pairs[datasets.PAIRS], share)
    return data


def write_tables(root: Path, out: Path, share: float, limit: int | None) -> None:
    """Write the tables, and ``utm.csv`` with each panorama's easting and northing."""
    data, lists = read(root, share), read_lists(root)
    datasets.write_tables(data, out, limit=limit)
    where = dict(zip(lists.ids, lists.utm.tolist(), strict=True))
    places = [image.id for image in data.views["panorama"]]
    rows = [[place, *where[name]] for place in places if (name := place.split("/")[1]) in where]
    write_csv(out / UTM, ["id", "easting", "northing"], rows)


def _files(root: Path, folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files of panoramas and tiles by id."""
    streets = datasets.first_of(root, [f"{folder}/streetview"], "panoramas")
    names = [f"{folder}/satview_polish", f"{folder}/satview_correct"]
    tiles = datasets.first_of(root, names, "satellite tiles")
    return _by_id(root, streets, PANORAMA), _by_id(root, tiles, SATELLITE)


def _by_id(root: Path, folder: Path, pattern: re.Pattern[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    inside = folder.relative_to(root).as_posix()
    for name in sorted(datasets.names_in(folder)):
        if match := pattern.fullmatch(name):
            other = found.setdefault(match[1], f"{inside}/{name}")
            if other != f"{inside}/{name}":
                raise InputError(
                    f"{other} and {name} in {root} have one id: move the one that is not to be used"
                )
    return found


def _missing(name: str, panoramas: dict[str, str], satellites: dict[str, str]) -> str | None:
    if name not in panoramas:
        return "no panorama" if name in satellites else "neither image"
    return None if name in satellites else "no satellite tile"


def evaluate(out: Path) -> None:
    """Search cvact-val and, where its images are there, test."""
    for split in (VAL, "test"):
        if split in steps.splits_of(out / datasets.PAIRS):
            commands.evaluate(out / "run", split)


@click.command(
    help="CVACT, from the downloaded folder to the tables of recall on CVACT_val and CVACT_test."
)
@steps.options(STEPS)
@steps.take_hold_out(0.02)
@steps.take_height
@steps.take_convert
def main(
    root: Path,
    out: Path,
    chosen: Sequence[str],
    limit: int | None,
    settings: Sequence[str],
    share: float,
    height: float | None,
    convert_options: Sequence[str],
) -> None:
    """CVACT, from the downloaded folder to the tables of recall on CVACT_val and CVACT_test."""
    plan = heights.Plan(
        root=root, out=out, cameras=lambda _: CAMERAS, pairs=[datasets.PAIRS], given=height
    )

    def convert() -> None:
        bev = replace(BEV, height=heights.decide(plan)[CAMERAS].metres)
        panoramas = steps.images(root, out, "panorama")
        commands.convert(panoramas, out / "bev.h5", bev, more=convert_options)

    steps.carry_out(
        {
            "check": lambda: datasets.check(read(root, share)),
            "poses": lambda: write_tables(root, out, share, limit),
            "calibrate": lambda: heights.calibrate(plan),
            "convert": convert,
            "pack": lambda: steps.pack(root, out, SIZES),
            "neighbours": lambda: steps.neighbours(out, "cvact", settings, positions=out / UTM),
            "train": lambda: steps.train(out, "cvact", out / "run", settings, published=VAL),
            "evaluate": lambda: evaluate(out),
        },
        chosen,
    )


if __name__ == "__main__":
    main()
