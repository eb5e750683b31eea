"""poses.csv, pairs.csv and other tables: the only code that reads or writes them.

All are UTF-8 text, comma-separated, the first line naming the columns in any order. Blank lines,
spaces around cells, a byte order mark and Windows line endings do not matter; an empty cell says
nothing.
"""

from __future__ import annotations

import csv
import difflib
import logging
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bevgen.errors import InputError
from bevgen.geometry import MAX_HEADING, MAX_HEIGHT
from bevgen.terminal import counted
from bevgen.writing import written_whole

logger = logging.getLogger(__name__)

POSE_COLUMNS = (
    "file", "id", "heading", "pitch", "roll", "height", "latitude", "longitude", "date",
)  # fmt: skip
TILT_ERROR = "tilt_error"
"""A column that poses.csv may have beside those, as `bevgen level` writes it."""
PAIR_COLUMNS = ("query", "reference", "role", "d_row", "d_col", "split")
ROLES = ("positive", "semi", "gallery")
_LIMITS = {
    "heading": MAX_HEADING,
    "pitch": 90.0,
    "roll": 180.0,
    "height": MAX_HEIGHT,
    "latitude": 90.0,
    "longitude": 180.0,
    TILT_ERROR: 180.0,
}
_LARGEST_OFFSET = 1e6  # pixels


@dataclass(frozen=True, slots=True)
class PoseRow:
    """A row of poses.csv: what it says about one image; None where it says nothing.

    Attributes
    ----------
    file
        Path relative to the folder of the images, with forward slashes and without ``./``.
    id
        The image's id; None for the usual one, its path without the ending.
    heading, pitch, roll, height
        Degrees and metres, as in `bevgen.Pose`.
    latitude, longitude
        WGS84 degrees; both or neither.
    date
        Of the capture, in whatever form.
    tilt_error
        Standard deviation of pitch and roll, in degrees.
    """

    file: str
    id: str | None = None
    heading: float | None = None
    pitch: float | None = None
    roll: float | None = None
    height: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    date: str | None = None
    tilt_error: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of pairs.csv: a query and a reference that shows its place.

    Attributes
    ----------
    query, reference
        Ids. The query is empty in the role ``gallery``.
    role
        ``positive``; ``semi`` for a reference that shows the place, but not as its centre;
        ``gallery`` for a reference that is searched though no query is there.
    d_row, d_col
        The camera is ``d_row`` pixels below and ``d_col`` left of the reference's centre, as in
        VIGOR; None where the table does not say.
    split
        None where the table has no such column: the pair belongs to all splits.
    """

    query: str
    reference: str
    role: str = "positive"
    d_row: float | None = None
    d_col: float | None = None
    split: str | None = None


# --- poses ---


def read_poses(path: Path | str, files: Iterable[str] = ()) -> dict[str, PoseRow]:
    """Read poses.csv: ``file`` and any other of `POSE_COLUMNS`, and `TILT_ERROR`.

    Parameters
    ----------
    path
        The table.
    files
        Paths of the files that it is about. A row goes to the one of them whose name is the same
        but for how accented letters are composed, and that is said.

    Returns
    -------
    dict
        `PoseRow` by file.

    Raises
    ------
    InputError
        If the file cannot be read, or a line in it cannot be used; the message names the line.
    """
    rows: dict[str, PoseRow] = {}
    lines: dict[str, int] = {}
    for line, cells in read_table(Path(path), ("file",), (*POSE_COLUMNS, TILT_ERROR)):
        where = f"{path}, line {line}"
        row = _pose_row(cells, where)
        if row.file in rows:
            raise InputError(
                f"{where}: {row.file} has a row on line {lines[row.file]} already; keep one of them"
            )
        rows[row.file], lines[row.file] = row, line
    same = respelled(rows, files)
    warn_respelled(path, len(same))
    return {same.get(name, name): row for name, row in rows.items()} if same else rows


def write_poses(
    path: Path | str, rows: Iterable[PoseRow], columns: Sequence[str] = POSE_COLUMNS
) -> int:
    """Write poses.csv, whole or not at all, and return how many rows it has.

    Parameters
    ----------
    path
        Is replaced if it exists.
    rows
        Taken one by one.
    columns
        Those to write, of the same.
    """
    return write_csv(path, columns, ([getattr(row, name) for name in columns] for row in rows))


def _pose_row(cells: dict[str, str], where: str) -> PoseRow:
    """Check and convert one row's cells."""
    if not cells["file"]:
        raise InputError(f"{where}: no file; name the panorama, relative to the folder")
    numbers: dict[str, float] = {}
    for name, limit in _LIMITS.items():
        if not (cell := cells.get(name, "")):
            continue
        number = _number(cell)
        if number is None:
            raise InputError(
                f"{where}: {name} must be a number such as 12.5, not {cell!r}; leave the cell"
                f" empty if it is unknown"
            )
        if name == "height" and not 0 < number <= limit:
            raise InputError(
                f"{where}: height must be above 0 and at most {limit:g} metres, not {cell}"
            )
        if name == TILT_ERROR and number < 0:
            raise InputError(f"{where}: {name} is a standard deviation, 0 or more, not {cell}")
        if abs(number) > limit:
            raise InputError(f"{where}: {name} must be -{limit:g} to {limit:g}, not {cell}")
        numbers[name] = number
    if ("latitude" in numbers) != ("longitude" in numbers):
        raise InputError(f"{where}: latitude and longitude go together; give both or neither")
    texts = {name: cells.get(name, "") for name in ("id", "date")}
    for name, text in texts.items():
        if not text.isprintable():
            raise InputError(f"{where}: {name} {text!r} has characters that cannot be printed")
    return PoseRow(
        str(PurePosixPath(cells["file"])), texts["id"] or None, date=texts["date"] or None,
        **numbers,
    )  # fmt: skip


# --- pairs ---


def read_pairs(path: Path | str) -> Iterator[Pair]:
    """Read pairs.csv row by row: ``query``, ``reference`` and any other of `PAIR_COLUMNS`.

    Yields
    ------
    Pair
        In the order of the file; an empty role is ``positive``.

    Raises
    ------
    InputError
        If the file cannot be read, or a line in it cannot be used; the message names the line.
    """
    for line, cells in read_table(Path(path), ("query", "reference"), PAIR_COLUMNS):
        query, reference = cells["query"], cells["reference"]
        role = cells.get("role") or "positive"
        if role not in ROLES:
            raise InputError(
                f"{path}, line {line}: role must be one of {', '.join(ROLES)}, not {role!r}"
            )
        if not reference or bool(query) == (role == "gallery"):
            raise InputError(
                f"{path}, line {line}: a row needs a query and a reference; in the role gallery"
                " the reference alone"
            )
        d_row, d_col = (_offset(cells.get(n), n, path, line) for n in ("d_row", "d_col"))
        yield Pair(query, reference, role, d_row, d_col, cells.get("split"))


def write_pairs(path: Path | str, pairs: Iterable[Pair]) -> int:
    """Write pairs.csv, whole or not at all, and return how many rows it has.

    Parameters
    ----------
    path
        Is replaced if it exists.
    pairs
        Taken one by one.
    """
    rows = ([getattr(pair, name) for name in PAIR_COLUMNS] for pair in pairs)
    return write_csv(path, PAIR_COLUMNS, rows)


def _offset(cell: str | None, name: str, path: Path | str, line: int) -> float | None:
    if not cell:
        return None
    value = _number(cell)
    if value is None or abs(value) >= _LARGEST_OFFSET:
        raise InputError(
            f"{path}, line {line}: {name} must be a number of pixels of the tile, not {cell!r}"
        )
    return value


# --- names ---


def respelled(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Find the names that are known but for how their accented letters are composed.

    Some systems and programs decompose letters (Unicode's NFD) that others compose (NFC).

    Parameters
    ----------
    names
        As somebody wrote them.
    known
        As they are.

    Returns
    -------
    dict
        The known name for each of ``names`` that is not known itself, where exactly one is the
        same, and no other of ``names`` is or has become that one.
    """
    names, known = set(names), set(known)
    strangers = sorted(name for name in names - known if not name.isascii())
    if not strangers:
        return {}
    forms: dict[str, list[str]] = {}
    for name in known - names:
        if not name.isascii():
            forms.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    found: dict[str, str] = {}
    for name in strangers:
        same = forms.pop(unicodedata.normalize("NFC", name), [])
        if len(same) == 1:
            found[name] = same[0]
    return found


def warn_respelled(
    where: Path | str, count: int, than: Path | str = "the files themselves"
) -> None:
    """Say that some names of a table were taken for others by `respelled`."""
    if count:
        logger.warning(
            "%s writes the accented letters of %s differently from %s (composed or decomposed"
            " Unicode): taken for the same",
            where,
            counted(count, "name"),
            than,
        )


# --- both ---


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file that the user names, without a byte order mark.

    Raises
    ------
    InputError
        If it cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error


def write_csv(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a table, whole or not at all, and return how many rows it has; None is an empty cell.

    Parameters
    ----------
    path
        Is replaced if it exists.
    columns
        Of the first line.
    rows
        Cells in the order of the columns; taken one by one.
    """
    path = Path(path)
    count = 0
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for count, row in enumerate(rows, start=1):  # noqa: B007
            writer.writerow(row)
    return count


def read_table(
    path: Path, needed: Sequence[str], known: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table row by row.

    Parameters
    ----------
    path
        The table.
    needed
        Columns that it must have.
    known
        Columns that it may have; any if None.

    Yields
    ------
    line
        Its number.
    cells
        By column, without spaces around them.

    Raises
    ------
    InputError
        If the file cannot be read, or a line in it cannot be used; the message names the line.
    """
    columns: list[str] | None = None
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            for row in reader:
                line = reader.line_num
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if columns is None:
                    columns = _header(cells, f"{path}, line {line}", needed, known)
                    continue
                if len(cells) != len(columns):
                    raise InputError(
                        f"{path}, line {line}: {counted(len(cells), 'cell')}, but the first line"
                        f" names {counted(len(columns), 'column')}; quote values that have a"
                        " comma in them"
                    )
                yield line, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {line + 1}: not comma-separated text ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        read_text(path)  # says the line
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from error
    if columns is None:
        raise InputError(
            f"{path} is empty: its first line must name the columns, {' and '.join(needed)} among"
            " them"
        )


def _header(
    cells: list[str], where: str, needed: Sequence[str], known: Sequence[str] | None
) -> list[str]:
    """Names of the columns, checked."""
    for name in cells:
        if known is not None and name not in known:
            near = [column for column in known if name and column.startswith(name.lower())]
            near = near or difflib.get_close_matches(name.lower(), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            if len(cells) == 1 and re.search(r"[;\t]", name):
                advice = "separate the columns by commas"
            raise InputError(f"{where}: unknown column {name!r}; {advice}")
        if cells.count(name) > 1:
            raise InputError(f"{where}: column {name} twice; keep one of them")
    for name in needed:
        if name not in cells:
            raise InputError(f"{where}: no column {name}; {_NEEDED[name]}")
    return cells


_NEEDED = {
    "file": "it says which panorama a row is about, relative to the folder",
    "x": "it has the point's pixels right of the panorama's left edge",
    "y": "it has the point's pixels below the panorama's upper edge",
    "query": "it has the id of what is searched for",
    "reference": "it has the id of what is found",
}


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
