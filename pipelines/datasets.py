"""What the pipelines of the public datasets share: lists as people saved them, and tables.

A pipeline reads a folder into a `Dataset`; the step ``check`` prints it and the step ``poses``
writes it as the tables that the commands of bevgen and georetrieval take.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.tables import Pair, PoseRow, read_text, write_csv, write_pairs, write_poses
from bevgen.terminal import counted

PAIRS = "pairs.csv"
WIDTH = 50  # of the first column that check prints
POOL = 128  # neighbours that the recipes look at


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: its path in the dataset's folder, its id, and what is known of it."""

    file: str
    id: str
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a folder holds of what its lists name.

    Attributes
    ----------
    name
        Of the dataset.
    views
        Images by view, such as ``panorama`` and ``satellite``, each image once.
    pairs
        Rows by the name of the file that they go to, one file for each protocol.
    skipped : list of (id, reason)
        What the lists name and the folder lacks.
    counts : list of (what, found, expected)
        Expected is None where nobody has published it.
    """

    name: str
    views: dict[str, list[Image]]
    pairs: dict[str, list[Pair]]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    counts: list[tuple[str, int, int | None]] = field(default_factory=list)


# --- reading ---


def read_lines(path: Path) -> list[str]:
    """Return a list's lines without the empty ones, whatever ends them, the last one included.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    return [line.strip() for line in lines if line.strip()]


def read_columns(path: Path, least: int) -> list[list[str]]:
    """Return the comma-separated cells of each line of a list without a header.

    Raises
    ------
    InputError
        If the file cannot be read, or a line has fewer than ``least`` cells.
    """
    rows = [[cell.strip() for cell in cells] for cells in csv.reader(read_lines(path))]
    for number, cells in enumerate(rows, 1):
        if len(cells) < least:
            raise InputError(f"{path}, line {number}: expected {least} columns, not {cells}")
    return rows


def first_of(root: Path, names: Iterable[str], what: str) -> Path:
    """Return the first of some paths in a folder that is there.

    Raises
    ------
    InputError
        If none is.
    """
    names = list(names)
    for name in names:
        if (root / name).exists():
            return root / name
    lack = f"has no {what}" if root.is_dir() else "is no folder"
    raise InputError(f"{root} {lack}: expected {' or '.join(names)} in it")


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder, read once: asking for each file would take minutes.

    Hidden ones, such as those that macOS puts beside each file of an archive, are left out.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


class Folders:
    """Tells which files of a dataset are there, each folder being read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, set[str]] = {}

    def has(self, file: str) -> bool:
        """Return whether a path relative to the root is there."""
        folder, _, name = file.rpartition("/")
        if folder not in self.names:
            path = self.root / folder
            self.names[folder] = names_in(path) if path.is_dir() else set()
        return name in self.names[folder]


def is_held_out(name: str, share: float) -> bool:
    """Decide by a reference's id alone whether it validates, so that other lists change nothing."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def hold_out(pairs: Sequence[Pair], share: float) -> list[Pair]:
    """Move the queries of a share of the training references to ``val``.

    They are searched among all training references, as in a test. (The published code keeps the
    weights that did best on the test itself.)
    """
    train = [pair for pair in pairs if pair.split == "train"]
    queries = {p.query for p in train if p.role == "positive" and is_held_out(p.reference, share)}
    if not queries:
        return list(pairs)
    moved = [
        replace(p, split="val") if p.split == "train" and p.query in queries else p for p in pairs
    ]
    return moved + gallery_rows((pair.reference for pair in train), "val")


def gallery_rows(references: Iterable[str], split: str) -> list[Pair]:
    """Say that a split is searched in these references, whether queries of it are there or not."""
    return [Pair("", name, "gallery", split=split) for name in dict.fromkeys(references)]


def limited(pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
    """Keep the first queries of each split with their references, and as many other references."""
    if limit is None:
        return list(pairs)
    seen: dict[tuple[str, str], set[str]] = {}
    kept = []
    for pair in pairs:
        some = seen.setdefault((pair.split or "", "gallery" if not pair.query else "query"), set())
        name = pair.query or pair.reference
        if name in some or len(some) < limit:
            some.add(name)
            kept.append(pair)
    return kept


# --- check and poses ---


def check(data: Dataset) -> None:
    """Print what is there, what is missing and what was skipped."""
    print(f"\n{data.name}\n{'':{WIDTH}}{'found':>10}{'expected':>10}")
    for what, found, expected in data.counts:
        known = "" if expected is None else f"{expected:,}"
        print(f"{what:{WIDTH}}{found:>10,}{known:>10}".rstrip())
    for reason, count in Counter(reason for _, reason in data.skipped).most_common():
        example = next(name for name, why in data.skipped if why == reason)
        print(f"{'skipped: ' + reason:{WIDTH}}{count:>10,}  such as {example}")
    for file, pairs in data.pairs.items():
        splits = _queries(pairs)
        for split, queries in splits.items():
            if split != "train" and (shared := len(queries & splits.get("train", set()))):
                print(f"{file}: also trained on: {counted(shared, 'query', 'queries')} of {split}")
    _check_positions(data.views.get("panorama", []))


def _check_positions(images: Sequence[Image]) -> None:
    """Print how far neighbours are: wrong columns or units show here."""
    from georetrieval.data.neighbours import geographic_neighbours
    from georetrieval.data.positions import distances  # imports torch: late, for the other steps

    known = [(i.latitude, i.longitude) for i in images if i.latitude is not None]
    if missing := len(images) - len(known):
        print(
            f"no position of {missing:,} of {counted(len(images), 'panorama')}: the first batches"
            " will be drawn at random"
        )
    places = np.unique(np.array(known, np.float64).reshape(-1, 2), axis=0)
    if len(places) < 2:
        return
    near = geographic_neighbours(places, POOL)
    for rank in (1, near.shape[1]):
        metres = np.median(distances(places, places[near[:, rank - 1]]))
        print(f"{f'metres to neighbour {rank}, median':{WIDTH}}{metres:>10,.0f}")


def _queries(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.role == "positive":
            splits.setdefault(pair.split or "", set()).add(pair.query)
    return splits


def write_tables(data: Dataset, out: Path, *, limit: int | None = None) -> None:
    """Write the tables that the commands take.

    For each view ``VIEW.txt`` (for ``--list``) and ``VIEW.csv`` (for ``--poses``), the files of
    pairs, and ``skipped.csv`` (id, reason).

    Parameters
    ----------
    data
        What to write.
    out
        The folder.
    limit
        Only so many queries of each split, for a trial.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "skipped.csv", ["id", "reason"], data.skipped)
    used: set[str] = set()
    for name, rows in data.pairs.items():
        kept = limited(rows, limit)
        used.update(value for pair in kept for value in (pair.query, pair.reference))
        write_pairs(out / name, kept)
        counts = {split: len(queries) for split, queries in _queries(kept).items()}
        print(f"{out / name}: {', '.join(f'{k} {v:,}' for k, v in counts.items())}")
    for view, images in data.views.items():
        chosen = images if limit is None else [image for image in images if image.id in used]
        if not chosen:
            raise InputError(f"{data.name}: nothing is left of view {view}; see --step check")
        (out / f"{view}.txt").write_text("".join(f"{i.file}\n" for i in chosen), "utf-8")
        columns = ["file", "id", "latitude", "longitude"]
        write_poses(out / f"{view}.csv", map(_row, chosen), columns)
        print(f"{out / view}.csv: {counted(len(chosen), 'image')}")


def _row(image: Image) -> PoseRow:
    return PoseRow(image.file, image.id, latitude=image.latitude, longitude=image.longitude)


# --- positions ---


def from_utm(
    easting: NDArray[np.float64], northing: NDArray[np.float64], zone: int, *, south: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn UTM coordinates into latitude and longitude.

    Parameters
    ----------
    easting, northing : float64
        Metres, with the false easting of 500 km and, in the south, the false northing of 10,000 km.
    zone
        1 to 60.
    south
        Southern hemisphere.

    Returns
    -------
    latitude, longitude : float64
        Degrees of WGS84.

    Raises
    ------
    InputError
        If pyproj is not installed.
    """
    try:
        from pyproj import Transformer
    except ImportError:
        raise InputError("positions in UTM need pyproj: pip install 'bevgen[geo]'") from None
    code = (32700 if south else 32600) + zone  # of EPSG
    longitude, latitude = Transformer.from_crs(code, 4326, always_xy=True).transform(
        easting, northing
    )
    return latitude, longitude
