"""Where places are: tables of positions, and how far they lie from each other."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevgen.tables import respelled, warn_respelled
from bevgen.terminal import counted
from georetrieval.errors import DataError

MEAN_RADIUS = 6_371_008.8  # metres, the mean of the ellipsoid's
AXES = {True: ("easting", "northing"), False: ("latitude", "longitude")}


def distances(positions: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle metres between (n, 2) latitudes and longitudes in degrees; NaN stays NaN."""
    (lat1, lon1), (lat2, lon2) = np.deg2rad(positions).T, np.deg2rad(found).T
    half = (
        np.sin((lat2 - lat1) / 2) ** 2
        + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * MEAN_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def read_positions(path: Path, ids: list[str]) -> tuple[NDArray[np.float64], bool]:
    """Read where queries are from a table.

    Parameters
    ----------
    path
        Columns id and either latitude and longitude in degrees, or easting and northing in metres,
        all of one map projection; more columns and other rows do not matter.
    ids
        Of the queries.

    Returns
    -------
    positions : (P, 2) float64
    planar
        True for easting and northing.

    Raises
    ------
    DataError
        If the table cannot be read, or lacks a query.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = set(reader.fieldnames or [])
            kinds = [planar for planar, axes in AXES.items() if header.issuperset(axes)]
            if "id" not in header or len(kinds) != 1:
                raise DataError(
                    f"{path}: columns must be id, and latitude and longitude or easting and"
                    f" northing, not {', '.join(reader.fieldnames or ['(none)'])}"
                )
            planar = kinds[0]
            wanted, found = set(ids), dict[str, tuple[float, float]]()
            rows = [
                (name, row, f"{path}, line {reader.line_num}")
                for row in reader
                if (name := row["id"] or "") in wanted or not name.isascii()
            ]
            same = respelled((name for name, *_ in rows), ids)
            warn_respelled(path, len(same), than="the shards")
            for written, row, where in rows:
                if (name := same.get(written, written)) not in wanted:
                    continue
                place = _place(row, planar, where)
                if found.setdefault(name, place) != place:
                    raise DataError(f"{where}: {name} is elsewhere in a line above")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in ids if name not in found]:
        lacking = f"{len(missing):,} of {counted(len(ids), 'query', 'queries')}"
        raise DataError(f"{path} lacks {lacking}, such as {missing[0]}")
    return np.array([found[name] for name in ids], np.float64), planar


def _place(row: dict[str, str], planar: bool, where: str) -> tuple[float, float]:
    first, second = AXES[planar]
    try:
        place = float(row[first]), float(row[second])
    except (TypeError, ValueError):
        place = np.nan, np.nan
    if not np.isfinite(place).all() or (not planar and abs(place[0]) > 90):
        raise DataError(f"{where}: no {first} and {second}: {row[first]!r}, {row[second]!r}")
    return place
