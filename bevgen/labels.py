"""Points clicked in panoramas, as positions on Earth: a table in, GeoJSON out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bevgen.errors import InputError, PanoramaError
from bevgen.geometry import PanoramaView, Pose
from bevgen.ground import LocalPlane, Uncertainty, ground_position
from bevgen.images.decoding import open_image
from bevgen.images.finding import DiskNames
from bevgen.images.metadata import PanoramaInfo, info_from_name, info_from_row
from bevgen.images.view import panorama_view
from bevgen.tables import PoseRow, read_table, respelled, warn_respelled


@dataclass(frozen=True, slots=True)
class Label:
    """A point in a panorama.

    Attributes
    ----------
    file
        The panorama, relative to its folder.
    x, y
        Pixels right of the left and below the upper edge; the first pixel's centre is 0.5, 0.5.
    line
        Where the table says so.
    more
        The table's other columns.
    """

    file: str
    x: float
    y: float
    line: int
    more: dict[str, str]


@dataclass(frozen=True, slots=True)
class PlacedLabels:
    """GeoJSON of the labels that have a place, and the reasons why others have none."""

    geojson: dict[str, Any]
    skipped: list[str]


def read_labels(path: Path) -> list[Label]:
    """Read a table of points: columns ``file``, ``x``, ``y``, and any others, which are kept.

    Raises
    ------
    InputError
        If it cannot be read, a column is missing, or a line cannot be used; the message names it.
    """
    labels = []
    for line, cells in read_table(path, ("file", "x", "y")):
        x, y = (_pixels(cells.pop(name), name, f"{path}, line {line}") for name in ("x", "y"))
        labels.append(Label(str(PurePosixPath(cells.pop("file"))), x, y, line, cells))
    if not labels:
        raise InputError(f"{path} has no points")
    return labels


def _pixels(cell: str, name: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {name} must be a number of pixels, not {cell!r}")
    return value


def place_labels(
    labels: list[Label],
    poses: dict[str, PoseRow],
    folder: Path,
    uncertainty: Uncertainty,
    *,
    height: float = 2.0,
    vertical_fov: tuple[float, float] | None = None,
    min_depression: float = 1.0,
) -> PlacedLabels:
    """Find latitude and longitude of points, and the ellipses that hold them with 95 per cent.

    Parameters
    ----------
    labels
        The points.
    poses
        Rows of poses.csv by file. What a row does not say, the panorama's file may.
    folder
        Of the panoramas: their sizes and metadata are read, not their pixels.
    uncertainty
        Standard deviations, ``click`` in pixels; those of pitch and roll where poses.csv says none.
    height
        Metres of the camera above the ground, where poses.csv does not say it.
    vertical_fov
        Top and bottom of the panoramas in degrees; by default what each file says.
    min_depression
        Degrees below the horizon from where on a point counts.
    """
    features: list[dict[str, Any]] = []
    skipped: list[str] = []
    by_file: dict[str, list[Label]] = {}
    for label in labels:
        by_file.setdefault(label.file, []).append(label)
    names, rows = DiskNames(folder), respelled(by_file, poses)
    warn_respelled("poses.csv", len(rows))
    for file, of_file in by_file.items():
        row = poses.get(rows.get(file, file))
        try:
            view, pose, plane = _camera(names.of(file), row, folder, height, vertical_fov)
        except PanoramaError as error:
            skipped.append(f"{file}: {error}")
            continue
        x, y = np.array([(label.x, label.y) for label in of_file]).T
        sure = uncertainty
        if row and row.tilt_error is not None:
            sure = replace(uncertainty, pitch=row.tilt_error, roll=row.tilt_error)
        points = ground_position(x, y, view, pose, uncertainty=sure, min_depression=min_depression)
        places = zip(
            *plane.to_geographic(points.x, points.y),
            np.hypot(points.x, points.y),
            *points.ellipse(0.95),
            strict=True,
        )
        for label, place in zip(of_file, places, strict=True):
            reason = _outside(label, view) or (
                not np.isfinite(place).all()
                and f"less than {min_depression:g} degrees below the horizon"
            )
            if reason:
                skipped.append(f"{file}, line {label.line}: {label.x:g}, {label.y:g} is {reason}")
            else:
                features.append(_feature(label, *map(float, place)))
    return PlacedLabels({"type": "FeatureCollection", "features": features}, skipped)


def _camera(
    file: str,
    row: PoseRow | None,
    folder: Path,
    height: float,
    vertical_fov: tuple[float, float] | None,
) -> tuple[PanoramaView, Pose, LocalPlane]:
    """View and pose of a panorama, and the plane at its position."""
    try:
        image = open_image(folder / file)
    except (OSError, PanoramaError) as error:
        raise PanoramaError(f"{error} (looked for in {folder})") from error
    own = info_from_row(row).fallback(PanoramaInfo(height=height))
    known = own.fallback(image.info).fallback(info_from_name(file))
    if known.latitude is None or known.longitude is None:
        where = "its row in poses.csv" if row else "poses.csv, which has no row of it,"
        raise PanoramaError(f"no position: neither {where} nor the file says one")
    if known.heading is None:
        raise PanoramaError("no heading: without one, a point could be in any direction")
    pose = Pose(known.height or height, known.heading, known.pitch or 0.0, known.roll or 0.0)
    plane = LocalPlane(known.latitude, known.longitude)
    return panorama_view(image.shape, known, vertical_fov), pose, plane


def _outside(label: Label, view: PanoramaView) -> str:
    """Say that a point is not in its panorama; empty if it is."""
    if 0 <= label.x <= view.width and 0 <= label.y <= view.height:
        return ""
    return f"outside the panorama of {view.width} x {view.height} pixels"


def _feature(
    label: Label,
    latitude: float,
    longitude: float,
    distance: float,
    semi_major: float,
    semi_minor: float,
    angle: float,
) -> dict[str, Any]:
    """GeoJSON of one point."""
    position = {"latitude": round(latitude, 9), "longitude": round(longitude, 9)}
    sure = {"semi_major": semi_major, "semi_minor": semi_minor, "angle": angle}
    properties: dict[str, Any] = {"file": label.file, "x": label.x, "y": label.y, **label.more}
    properties |= position | {"distance": round(distance, 3)}
    properties |= {name: round(value, 3) for name, value in sure.items()}
    properties["angle"] %= 180
    coordinates = [position["longitude"], position["latitude"]]
    geometry = {"type": "Point", "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}
