"""CVUSA, from the downloaded folder to the table of recall.

    python -m pipelines.cvusa --root CVUSA/ --out cvusa-out/
    python -m pipelines.cvusa --root CVUSA/ --out cvusa-out/ --step check

Every step is a command that can be typed as it is printed, runs alone (``--step``), and goes on
where it stopped. The folder as it must lie, sizes and published numbers: docs/datasets.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import click

from bevgen.errors import InputError
from bevgen.tables import Pair
from pipelines import commands, datasets, steps
from pipelines.commands import Bev, Size
from pipelines.datasets import Dataset, Folders, Image

TRAIN, TEST = "splits/train-19zl.csv", "splits/val-19zl.csv"
POSITIONS = ("split_locations/all.csv", "CVPR_subset/all.csv", "all.csv")
# As published: 512 pixels of 0.06 m seen from 1.5 m are 20.48 camera heights across; here from
# the preset's 2.5 m, and stored at the network's size.
BEV = Bev(preset="cvusa", size=384, resolution=0.13333)
SIZES: dict[str, Size] = {"panorama": (140, 768), "satellite": 384}
STEPS = ("check", "poses", "convert", "pack", "neighbours", "train", "evaluate")

Positions = list[tuple[float, float]]


def read(root: Path, share: float) -> Dataset:
    """Read the split lists and see which files are there; the published val is the test.

    Raises
    ------
    InputError
        If a list is missing or cannot be understood.
    """
    positions = read_positions(root)
    folders = Folders(root)
    skipped: list[tuple[str, str]] = []
    panoramas, satellites, pairs = [], [], []
    taken: set[str] = set()
    for split, name in (("train", TRAIN), ("test", TEST)):
        rows = datasets.read_columns(datasets.first_of(root, [name], "list of a split"), 2)
        for satellite, panorama, *_ in rows:
            place = PurePosixPath(panorama).stem
            if reason := _reason(folders, taken, satellite, panorama):
                skipped.append((place, reason))
                continue
            taken.add(place)
            where = _position(positions, place)
            panoramas.append(Image(panorama, place, *where))
            satellites.append(Image(satellite, place, *where))
            pairs.append(Pair(place, place, split=split))
    counts: list[tuple[str, int, int | None]] = [
        (split, sum(pair.split == split for pair in pairs), expected)
        for split, expected in (("train", 35532), ("test", 8884))
    ]
    return Dataset(
        "CVUSA",
        {"panorama": panoramas, "satellite": satellites},
        {datasets.PAIRS: datasets.hold_out(pairs, share)},
        skipped,
        counts,
    )


def _reason(folders: Folders, taken: set[str], satellite: str, panorama: str) -> str | None:
    place = PurePosixPath(panorama).stem
    if place != PurePosixPath(satellite).stem:
        return "panorama and satellite tile have different ids"
    if place in taken:
        return "listed twice"
    for file, what in ((panorama, "panorama"), (satellite, "satellite tile")):
        if not folders.has(file):
            return f"no {what}"
    return None


def read_positions(root: Path) -> Positions:
    """Read latitude and longitude of each id from the third and fourth column; line n is id n.

    The names of the columns are nowhere stated. All places are in the USA, north of the equator
    and west of Greenwich, so the signs tell which of the two is the longitude.

    Raises
    ------
    InputError
        If the columns hold something else.
    """
    path = next((root / name for name in POSITIONS if (root / name).exists()), None)
    if path is None:
        return []
    positions = []
    for number, cells in enumerate(datasets.read_columns(path, 4), 1):
        try:
            low, high = sorted((float(cells[2]), float(cells[3])))
        except ValueError:
            raise InputError(f"{path}, line {number}: columns 3 and 4 are no numbers") from None
        if not (-180 <= low < 0 <= high <= 90):
            raise InputError(
                f"{path}, line {number}: columns 3 and 4 are no position in the USA: {low}, {high}"
            )
        positions.append((high, low))
    return positions


def _position(positions: Positions, place: str) -> tuple[float, float] | tuple[None, None]:
    number = int(place) if place.isdecimal() else 0
    return positions[number - 1] if 0 < number <= len(positions) else (None, None)


@click.command(help="CVUSA, from the downloaded folder to the table of recall.")
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
    """CVUSA, from the downloaded folder to the table of recall."""
    panoramas = steps.images(root, out, "panorama")
    steps.carry_out(
        {
            "check": lambda: datasets.check(read(root, share)),
            "poses": lambda: datasets.write_tables(read(root, share), out, limit=limit),
            # The preset knows that the horizon is at row 132 of 224.
            "convert": lambda: commands.convert(
                panoramas, out / "bev.h5", replace(BEV, height=height), more=convert_options
            ),
            "pack": lambda: steps.pack(root, out, SIZES),
            "neighbours": lambda: steps.neighbours(out, "cvusa", settings),
            "train": lambda: steps.train(out, "cvusa", out / "run", settings),
            "evaluate": lambda: commands.evaluate(out / "run", "test"),
        },
        chosen,
    )


if __name__ == "__main__":
    main()
