"""Where tiles have their centres: a grid in metres of the ground, and the area that is wanted.

The grid covers the Earth and depends on nothing but the step, so that tiles of two areas, or of an
area that has grown, are the same where they meet. Its rows are ``step`` metres of meridian apart,
counted from the equator; on each row the parallel is divided evenly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Geod

from georetrieval.errors import MapError

GEOD = Geod(ellps="WGS84")
Degrees = NDArray[np.float64]
Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; east may be below west, across the 180th meridian."""


def grid_places(boxes: Sequence[Box], step: float) -> tuple[Degrees, Degrees]:
    """Return latitudes and longitudes of the grid's points within any of the boxes, row by row."""
    found: set[tuple[int, int]] = set()
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    first, last = (_meridian(latitude) / step for latitude in (south, north))
    rows = np.arange(math.ceil(first), math.floor(last) + 1)
    latitudes = _latitudes(rows * step)
    for row, latitude in zip(rows, latitudes, strict=True):
        columns = _columns(latitude, step)
        for west, low, east, high in boxes:
            if low <= latitude <= high:
                span = (east - west) % 360 if east - west < 360 else 360.0
                a = math.ceil((west + 180) / 360 * columns - 0.5)
                b = math.floor((west + span + 180) / 360 * columns - 0.5)
                found.update((int(row), column % columns) for column in range(a, b + 1))
    order = np.array(sorted(found), np.int64).reshape(-1, 2)
    latitude = latitudes[order[:, 0] - rows[0]] if len(order) else np.empty(0)
    counts = np.array([_columns(value, step) for value in latitude])
    return latitude, (order[:, 1] + 0.5) / np.maximum(counts, 1) * 360 - 180


def _meridian(latitude: float) -> float:
    """Metres along the meridian from the equator."""
    return math.copysign(GEOD.inv(0, 0, 0, latitude)[2], latitude)


def _latitudes(metres: NDArray[Any]) -> Degrees:
    """Latitudes that lie so many metres from the equator."""
    zero = np.zeros(len(metres))
    return np.asarray(GEOD.fwd(zero, zero, zero, metres)[1])


def _columns(latitude: float, step: float) -> int:
    """Points on a parallel."""
    w = math.sqrt(1 - GEOD.es * math.sin(math.radians(latitude)) ** 2)
    around = 2 * math.pi * GEOD.a * math.cos(math.radians(latitude)) / w
    return max(round(around / step), 1)


def place_ids(latitude: Degrees, longitude: Degrees) -> list[str]:
    """Name tiles by their centres, to a decimetre."""
    return [f"{a:.6f},{b:.6f}" for a, b in zip(latitude, longitude, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """Polygons in degrees, each a list of rings (n, 2) of longitude and latitude, holes included.

    As GeoJSON asks for, an area across the 180th meridian is cut there.
    """

    polygons: tuple[tuple[Degrees, ...], ...]

    @property
    def boxes(self) -> list[Box]:
        """Bounds of each polygon."""
        outer = [rings[0] for rings in self.polygons]
        return [(*ring.min(axis=0), *ring.max(axis=0)) for ring in outer]

    def contains(self, latitude: Degrees, longitude: Degrees) -> NDArray[np.bool_]:
        """Whether points lie in a polygon and in none of its holes: crossings are counted."""
        inside = np.zeros(len(latitude), bool)
        for rings in self.polygons:
            odd = np.zeros(len(latitude), bool)
            for ring in rings:
                for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if y1 != y2:
                        crosses = (y1 > latitude) != (y2 > latitude)
                        odd ^= crosses & (longitude < (x2 - x1) * (latitude - y1) / (y2 - y1) + x1)
            inside |= odd
        return inside


def read_area(path: Path) -> Area:
    """Read the polygons of a GeoJSON file.

    Raises
    ------
    MapError
        If it has none, or is no GeoJSON.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
        polygons = list(_polygons(content))
        area = Area(tuple(tuple(np.array(r, float)[:, :2] for r in rings) for rings in polygons))
    except OSError as error:
        raise MapError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise MapError(f"{path} is no GeoJSON of polygons: {error}") from error
    if not area.polygons:
        raise MapError(f"{path} holds no polygon: draw the area as a Polygon or MultiPolygon")
    for west, south, east, north in area.boxes:
        if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
            raise MapError(
                f"{path}: coordinates must be degrees, longitude of -180 to 180 first (an area"
                " across the 180th meridian is two polygons), not"
                f" {west:g}, {south:g} to {east:g}, {north:g}"
            )
    return area


def _polygons(content: dict[str, Any]) -> list[Any]:
    """Coordinates of all polygons of a geometry, feature or collection."""
    kind = content["type"]
    if kind == "FeatureCollection":
        return [p for feature in content["features"] for p in _polygons(feature)]
    if kind == "GeometryCollection":
        return [p for geometry in content["geometries"] for p in _polygons(geometry)]
    if kind == "Feature":
        return _polygons(content["geometry"]) if content["geometry"] else []
    if kind == "Polygon":
        return [content["coordinates"]]
    return content["coordinates"] if kind == "MultiPolygon" else []
