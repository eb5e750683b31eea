"""University-1652, from the downloaded folder to the tables of recall and AP, both ways.

    python -m pipelines.university1652 --root University-1652/ --out u1652-out/
    python -m pipelines.university1652 --root University-1652/ --out u1652-out/ --step check

There are no panoramas, so one branch compares drone pictures with satellite tiles. Each direction
has a folder with its queries and references, and is searched with the 250 distractor buildings and
without. Every step is a command that can be typed as it is printed, runs alone (``--step``), and
goes on where it stopped. The folder as it must lie, sizes and published numbers: docs/datasets.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import click

from bevgen.tables import Pair
from pipelines import commands, datasets, steps
from pipelines.datasets import Dataset, Image

DRONE, SATELLITE = "drone-to-satellite", "satellite-to-drone"
# For each direction and split the folders of queries and references.
FOLDERS = {
    DRONE: {
        "train": ("train/drone", "train/satellite"),
        "test": ("test/query_drone", "test/gallery_satellite"),
    },
    SATELLITE: {"test": ("test/query_satellite", "test/gallery_drone")},
}
# Buildings and images as published.
EXPECTED: dict[str, tuple[int, int | None]] = {
    "train/drone": (701, None),
    "train/satellite": (701, 701),
    "test/query_drone": (701, 37855),
    "test/gallery_satellite": (951, 951),
    "test/query_satellite": (701, 701),
    "test/gallery_drone": (951, 51355),
}
ENDINGS = {".jpg", ".jpeg", ".png"}
SIZE = 384
STEPS = ("check", "tables", "pack", "train", "evaluate")

Buildings = dict[str, list[str]]


def find_buildings(root: Path, folder: str) -> tuple[Buildings, list[str]]:
    """Return the files of each building that has any, and the buildings that have none.

    Raises
    ------
    InputError
        If the folder is missing.
    """
    found: Buildings = {}
    empty = []
    for building in sorted(datasets.names_in(root / folder)):
        path = root / folder / building
        if not building.isdecimal() or not path.is_dir():
            continue
        names = sorted(datasets.names_in(path))
        files = [f"{folder}/{building}/{n}" for n in names if Path(n).suffix.lower() in ENDINGS]
        if files:
            found[building] = files
        else:
            empty.append(building)
    return found, empty


def read(root: Path) -> dict[str, Dataset]:
    """Read the folders: a dataset for each direction, of which the first has the training places.

    Raises
    ------
    InputError
        If a folder is missing.
    """
    both = {}
    for direction, splits in FOLDERS.items():
        data = both[direction] = Dataset(f"University-1652, {direction}", {}, {})
        for split, folders in splits.items():
            queries, references = (_buildings(root, folder, data) for folder in folders)
            _add(data, queries, references, split)
    return both


def _buildings(root: Path, folder: str, data: Dataset) -> Buildings:
    """Find a folder's buildings, count them, and set the empty ones aside."""
    found, empty = find_buildings(root, folder)
    data.skipped.extend((f"{folder}/{building}", "an empty folder") for building in empty)
    for what, count, expected in zip(
        ("buildings", "images"),
        (len(found), sum(map(len, found.values()))),
        EXPECTED[folder],
        strict=True,
    ):
        data.counts.append((f"{folder}, {what}", count, expected))
    return found


def _add(data: Dataset, queries: Buildings, references: Buildings, split: str) -> None:
    """Add a split: each query with all references of its building; the others distract."""
    own = {name: files for name, files in queries.items() if name in references}
    data.skipped.extend(
        (_id(file), "no reference of its building")
        for building, files in queries.items()
        if building not in references
        for file in files
    )
    for view, files in (("query", own), ("reference", references)):
        images = (Image(f, _id(f)) for files in files.values() for f in files)
        data.views.setdefault(view, []).extend(images)
    data.pairs.setdefault(datasets.PAIRS, []).extend(
        Pair(_id(query), _id(reference), split=split)
        for building, files in own.items()
        for query in files
        for reference in references[building]
    )


def _id(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


def write_tables(root: Path, out: Path, limit: int | None) -> None:
    """Write the tables of both directions."""
    for name, data in read(root).items():
        datasets.write_tables(data, out / name, limit=limit)


def pack(root: Path, out: Path) -> None:
    """Store the pictures at the network's size."""
    for direction in (DRONE, SATELLITE):
        for view in ("query", "reference"):
            folder = out / direction
            kind = "satellite" if (direction == DRONE) == (view == "reference") else "drone"
            images = steps.images(root, folder, view)
            commands.pack(images, folder / f"{view}.h5", kind=kind, size=SIZE)


def evaluate(out: Path) -> None:
    """Search both ways, with distractors and, as Sample4Geo does, without."""
    for direction in (DRONE, SATELLITE):
        for gallery in ("all", "matched"):
            name = f"{direction}-{gallery}"
            commands.evaluate(out / "run", "test", data=out / direction, gallery=gallery, name=name)


@click.command(help="University-1652, from the downloaded folder to the tables of recall and AP.")
@steps.options(STEPS)
def main(
    root: Path, out: Path, chosen: Sequence[str], limit: int | None, settings: Sequence[str]
) -> None:
    """University-1652, from the downloaded folder to the tables of recall and AP."""

    def check() -> None:
        for data in read(root).values():
            datasets.check(data)

    steps.carry_out(
        {
            "check": check,
            "tables": lambda: write_tables(root, out, limit),
            "pack": lambda: pack(root, out),
            "train": lambda: steps.train(out / DRONE, "university1652", out / "run", settings),
            "evaluate": lambda: evaluate(out),
        },
        chosen,
    )


if __name__ == "__main__":
    main()
