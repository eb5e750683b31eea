"""Where pictures are taken, which split a place belongs to, and which tiles show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import EARTH_E2, EARTH_RADIUS, Pose
from pipelines.citymaker.streets import Street
from pipelines.citymaker.styles import DISTRICTS, ORIGIN, District

APART = 13.0
"""Metres wished between places; fewer where streets are short, but never under LEAST_APART."""
LEAST_APART = 5.0
DISTRICTS_APART = 5000.0
"""Metres from one district's centre to the next one's, eastwards."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A strip of a district with the places of one split: metres from the district's centre."""

    split: str
    count: int
    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a panorama is taken.

    ``x`` and ``y`` are metres from the district's centre, ``later`` and ``gain`` belong to
    `pipelines.citymaker.styles.light_of`.
    """

    id: str
    district: str
    split: str
    x: float
    y: float
    pose: Pose
    later: float
    gain: float


@dataclass(frozen=True, slots=True)
class Tile:
    """A satellite and map tile: its centre, in metres from the district's centre."""

    id: str
    district: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A place and a tile that shows it.

    The camera is at row ``size / 2 + d_row`` and column ``size / 2 - d_col`` of the tile, with
    pixel corners at integers, as in VIGOR's lists. ``role`` is positive or semi.
    """

    place: Place
    tile: Tile
    role: str
    d_row: float
    d_col: float


def zones_of(
    district: District, counts: dict[str, int], apart: float, seed: int, ample: float = 1.0
) -> tuple[tuple[float, float], list[Zone]]:
    """Divide a district into strips, one per split, far enough from each other.

    Parameters
    ----------
    district
        Decides how much ground a place needs.
    counts
        Places wished per split; splits without places get no strip.
    apart
        Metres between the strips: so far that no tile of one shows ground of a tile of another.
    seed
        Decides which way the strips run and in which order they lie.
    ample
        How many times the ground to take that places need on average.

    Returns
    -------
    half : (float, float)
        Half the size of all strips together, east and north.
    zones
        The strips.
    """
    rng = np.random.default_rng([seed, sum(map(ord, district.name)), 3])
    splits = [split for split, count in counts.items() if count]
    order = [splits[k] for k in rng.permutation(len(splits))]
    density = sum(1 / spacing for spacing in district.spacing) * (1 - district.missing)
    areas = [counts[split] * APART * 1.5 * ample / density for split in order]
    long = max(math.sqrt(sum(areas)), 1.2 * max(district.spacing))
    widths = [max(area / long, 12.0 * ample) for area in areas]
    total = sum(widths) + apart * (len(order) - 1)
    upright = rng.uniform() < 0.5
    zones, start = [], -total / 2
    for split, width in zip(order, widths, strict=True):
        box = (start, -long / 2, start + width, long / 2)
        if upright:
            box = (box[1], box[0], box[3], box[2])
        zones.append(Zone(split, counts[split], *box))
        start += width + apart
    half = (total / 2, long / 2)
    return (half[1], half[0]) if upright else half, zones


def choose_places(
    district: District,
    streets: list[Street],
    zones: list[Zone],
    seed: int,
    *,
    tilt: float = 0.0,
    any_heading: bool = False,
) -> list[Place]:
    """Choose places on the lanes of streets, no two within LEAST_APART metres.

    Parameters
    ----------
    district, streets, zones
        Where.
    seed
        Decides which.
    tilt
        Standard deviation of pitch and roll in degrees.
    any_heading
        Look anywhere with the centre column, not north.

    Raises
    ------
    InputError
        If a zone has not enough streets.
    """
    rng = np.random.default_rng([seed, sum(map(ord, district.name)), 4])
    candidates = lane_points(streets, rng)
    places: list[Place] = []
    for zone in zones:
        inside = (candidates > (zone.west, zone.south)) & (candidates < (zone.east, zone.north))
        points = spread(candidates[inside.all(axis=1)], zone.count)
        if len(points) < zone.count:
            raise InputError(
                f"the streets of {district.name} have room for {len(points)} places only where"
                f" {zone.count} are wanted for {zone.split}: choose another seed"
            )
        for x, y in points:
            places.append(
                Place(
                    f"{district.name}-{len(places):05d}",
                    district.name,
                    zone.split,
                    round(float(x), 3),
                    round(float(y), 3),
                    Pose(
                        height=round(2.0 + float(np.clip(rng.normal(0, 0.03), -0.08, 0.08)), 3),
                        heading=round(rng.uniform(0, 360), 2) % 360 if any_heading else 0.0,
                        pitch=round(float(np.clip(rng.normal(), -2.5, 2.5)) * tilt, 2) + 0.0,
                        roll=round(float(np.clip(rng.normal(), -2.5, 2.5)) * tilt, 2) + 0.0,
                    ),
                    later=round(rng.uniform(-1.5, 1.5), 2),
                    gain=round(rng.uniform(0.88, 1.12), 3),
                )
            )
    return places


def lane_points(streets: list[Street], rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (N, 2) on lanes, about one per metre and street, in random order."""
    points = [np.empty((0, 2))]
    for street in streets:
        along = np.arange(rng.uniform(0, 1), street.length, 1.0)
        side = np.where(rng.uniform(size=len(along)) < 0.5, -1.0, 1.0)
        across = side * street.kind.half_width * rng.uniform(0.15, 0.5, len(along))
        middle = street.at(along)
        left = np.stack([-middle[:, 3], middle[:, 2]], axis=1)
        points.append(middle[:, :2] + across[:, None] * left)
    return rng.permutation(np.concatenate(points))


def spread(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Take the first points (count, 2) that keep their distance; fewer if there are not enough."""
    apart, kept = APART, points[:0]
    while apart >= LEAST_APART:
        kept = points[:0]
        for point in points:
            if len(kept) == count:
                return kept
            if not len(kept) or np.hypot(*(kept - point).T).min() >= apart:
                kept = np.concatenate([kept, point[None]])
        apart *= 0.9
    return kept[:count]


def centred_pairs(places: list[Place], seed: int, offset: float, resolution: float) -> list[Pair]:
    """Give each place a tile of its own, up to ``offset`` metres off in both directions."""
    rng = np.random.default_rng([seed, 5])
    pairs = []
    for place in places:
        dx, dy = (round(float(d), 3) for d in rng.uniform(-offset, offset, 2))
        tile = Tile(place.id, place.district, round(place.x + dx, 3), round(place.y + dy, 3))
        pairs.append(_pair(place, tile, "positive", resolution))
    return pairs


def grid_pairs(places: list[Place], metres: float, resolution: float) -> list[Pair]:
    """Give each place the tile of a grid whose centre is nearest, and three semi-positives.

    Neighbouring tiles overlap by half, so a place lies in the central quarter of its positive
    and in the outer part of the semi-positives, as in VIGOR.
    """
    tiles: dict[tuple[str, int, int], Tile] = {}
    pairs = []
    pitch = metres / 2
    for place in places:
        i, j = math.floor(place.x / pitch), math.floor(place.y / pitch)
        around = []
        for key in [(place.district, i + di, j + dj) for di in (0, 1) for dj in (0, 1)]:
            if key not in tiles:
                name = f"{place.district}-x{key[1] + 5000:04d}y{key[2] + 5000:04d}"
                tiles[key] = Tile(name, place.district, key[1] * pitch, key[2] * pitch)
            tile = tiles[key]
            around.append((math.hypot(tile.x - place.x, tile.y - place.y), tile.id, tile))
        for rank, (_, _, tile) in enumerate(sorted(around, key=lambda entry: entry[:2])):
            pairs.append(_pair(place, tile, "semi" if rank else "positive", resolution))
    return pairs


def _pair(place: Place, tile: Tile, role: str, resolution: float) -> Pair:
    """Join a place and a tile."""
    east, north = place.x - tile.x, place.y - tile.y
    return Pair(place, tile, role, 0.0 - north / resolution, 0.0 - east / resolution)


def latitude_longitude(district: str, x: float, y: float) -> tuple[float, float]:
    """Degrees of a point of a district, on the plane that touches the ellipsoid at ORIGIN.

    Parameters
    ----------
    district
        Its name; each has its place, whichever are made.
    x, y
        Metres east and north of its centre.
    """
    east = x + DISTRICTS_APART * list(DISTRICTS).index(district)
    per_latitude, per_longitude = metres_per_degree()
    return ORIGIN[0] + y / per_latitude, ORIGIN[1] + east / per_longitude


def local_metres(
    district: str, latitude: NDArray[Any], longitude: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Metres east and north of a district's centre: what `latitude_longitude` undoes."""
    per_latitude, per_longitude = metres_per_degree()
    east = (longitude - ORIGIN[1]) * per_longitude
    north = (latitude - ORIGIN[0]) * per_latitude
    return east - DISTRICTS_APART * list(DISTRICTS).index(district), north


def metres_per_degree() -> tuple[float, float]:
    """Metres per degree of latitude and of longitude at ORIGIN, on the WGS84 ellipsoid."""
    latitude = math.radians(ORIGIN[0])
    w2 = 1 - EARTH_E2 * math.sin(latitude) ** 2
    meridian = EARTH_RADIUS * (1 - EARTH_E2) / w2**1.5
    parallel = EARTH_RADIUS / math.sqrt(w2) * math.cos(latitude)
    return meridian * math.pi / 180, parallel * math.pi / 180
