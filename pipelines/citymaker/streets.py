"""Where a district's streets run, and what lies on them."""

# pyright: reportArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from pipelines.citymaker.compiling import entry
from pipelines.citymaker.scene import (
    SEGMENT_COLUMNS,
    STREET_COLUMNS,
    Floats,
    Ground,
)
from pipelines.citymaker.styles import District, StreetClass

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # no slots: it caches
class Street:
    """A street between two crossings.

    Attributes
    ----------
    points : (N, 2) float64
        Its centre line, in metres.
    kind
        What it is like.
    trims
        Metres at its ends that belong to the crossings.
    zebras
        Whether there is a zebra crossing at its ends.
    parking
        Whether cars park on its left, on its right.
    bike
        0 for none, 1 or 2 for the colour of its bicycle lanes.
    tone
        Brightness of its surface.
    seed
        For its details.
    """

    points: Points
    kind: StreetClass
    trims: tuple[float, float]
    zebras: tuple[bool, bool]
    parking: tuple[bool, bool]
    bike: int
    tone: float
    seed: int

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """Metres along the street at each of its points."""
        steps = np.hypot(*np.diff(self.points, axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @cached_property
    def length(self) -> float:
        """Metres from end to end."""
        return float(self.distances[-1])

    @cached_property
    def directions(self) -> Points:
        """Unit vector along each piece between two points."""
        steps = np.diff(self.points, axis=0)
        return steps / np.hypot(*steps.T)[:, None]

    def at(self, along: NDArray[np.float64] | float, across: float = 0.0) -> Points:
        """Points at metres along, and to the left of, the centre line; with their direction.

        Returns
        -------
        (N, 4) float64
            x, y, and the unit vector along the street.
        """
        along = np.atleast_1d(np.asarray(along, np.float64))
        distances = self.distances
        i = np.clip(np.searchsorted(distances, along, side="right") - 1, 0, len(distances) - 2)
        direction = self.directions[i]
        place = self.points[i] + direction * (along - distances[i])[:, None]
        left = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
        return np.concatenate([place + across * left, direction], axis=1)


def lay_streets(
    district: District, half: tuple[float, float], rng: np.random.Generator
) -> list[Street]:
    """Lay out the streets of a district.

    A grid of crossings, moved and turned; pieces are left out; lines sway. Each line keeps its
    class of street from end to end.

    Parameters
    ----------
    district
        Its style.
    half
        Half the district's size, east and north, in metres; its centre is the origin.
    rng
        Decides everything.
    """
    reach = math.hypot(*half) + max(district.spacing)
    counts = [math.ceil(2 * reach / spacing) + 1 for spacing in district.spacing]
    lines = []
    for count, spacing in zip(counts, district.spacing, strict=True):
        offsets = spacing * (1 + rng.uniform(-0.2, 0.2, count))
        lines.append(np.cumsum(offsets) - offsets.sum() / 2)
    x, y = np.meshgrid(*lines, indexing="ij")
    crossings = np.stack([x, y], axis=-1)
    crossings += rng.uniform(-1, 1, crossings.shape) * district.jitter * np.array(district.spacing)
    angle = rng.uniform(-0.5, 0.5)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    crossings = crossings @ turn.T
    shares = np.array([kind.share for kind in district.streets])
    kinds = [rng.choice(len(shares), count, p=shares / shares.sum()) for count in counts]
    sway = Sway(district.bends, rng)
    pieces: list[tuple[tuple[int, int], tuple[int, int], Points, StreetClass]] = []
    for i in range(counts[0]):
        for j in range(counts[1]):
            for di, dj in ((1, 0), (0, 1)):
                end = (i + di, j + dj)
                missing, bulge = rng.uniform() < district.missing, rng.normal()
                if end[0] >= counts[0] or end[1] >= counts[1] or missing:
                    continue
                line = arc(crossings[i, j], crossings[end], bulge * district.jitter * 0.3)
                line = sway.move(line)
                if (np.abs(line) < half).all(axis=1).any():
                    kind = district.streets[kinds[1][j] if di else kinds[0][i]]
                    pieces.append(((i, j), end, line, kind))
    return join(pieces, rng)


@dataclass(slots=True)
class Sway:
    """A smooth displacement of the plane by up to ``metres``."""

    metres: float
    rng: np.random.Generator
    waves: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        length = self.rng.uniform(120, 260, 6)
        angle = self.rng.uniform(0, 2 * math.pi, 6)
        phase = self.rng.uniform(0, 2 * math.pi, 6)
        k = 2 * math.pi / length
        self.waves = np.stack([k * np.cos(angle), k * np.sin(angle), phase], axis=1)

    def move(self, points: Points) -> Points:
        """Displace points."""
        assert self.waves is not None
        phases = points @ self.waves[:, :2].T + self.waves[:, 2]
        shift = np.stack([np.sin(phases[:, :3]).sum(axis=1), np.sin(phases[:, 3:]).sum(axis=1)], 1)
        return points + self.metres / 1.7 * shift


def arc(start: Points, end: Points, bulge: float) -> Points:
    """Draw a line in steps of about 5 metres, bent to the left by bulge times its length."""
    step = end - start
    count = max(int(np.hypot(*step) / 5), 1)
    t = np.linspace(0, 1, count + 1)[:, None]
    left = np.array([-step[1], step[0]])
    return start + t * step + 2 * t * (1 - t) * bulge * left


def join(
    pieces: list[tuple[tuple[int, int], tuple[int, int], Points, StreetClass]],
    rng: np.random.Generator,
) -> list[Street]:
    """Make streets of pieces, with what their crossings ask for."""
    meeting: dict[tuple[int, int], list[float]] = {}
    for start, end, _, kind in pieces:
        meeting.setdefault(start, []).append(kind.half_width)
        meeting.setdefault(end, []).append(kind.half_width)
    streets = []
    for start, end, line, kind in pieces:
        trims, zebras = [], []
        for node in (start, end):
            others = list(meeting[node])
            others.remove(kind.half_width)
            crossing = len(others) >= 2
            trims.append(max(others) + 2.0 if crossing else 0.0)
            zebras.append(bool(crossing and rng.uniform() < kind.zebra))
        bike = int(rng.integers(1, 3)) if rng.uniform() < kind.bike else 0
        parking = tuple(bool(rng.uniform() < kind.parking) and not bike for _ in range(2))
        streets.append(
            Street(
                straightened(line),
                kind,
                (trims[0], trims[1]),
                (zebras[0], zebras[1]),
                (parking[0], parking[1]),
                bike,
                float(rng.uniform(0.72, 1.35)),
                int(rng.integers(1, 2**20)),
            )
        )
    return streets


def straightened(points: Points) -> Points:
    """Return the same line without points that lie on straight pieces."""
    if len(points) < 3:
        return points
    chord = points[-1] - points[0]
    off = (points - points[0]) @ np.array([-chord[1], chord[0]]) / np.hypot(*chord)
    return points[[0, -1]] if np.abs(off).max() < 0.01 else points


def street_tables(streets: list[Street]) -> tuple[Floats, Floats]:
    """Tables of segments and streets for `pipelines.citymaker.scene.Scene`."""
    segments, rows = [], []
    for number, street in enumerate(streets):
        steps = np.diff(street.points, axis=0)
        lengths = np.hypot(*steps.T)
        distances = street.distances
        for k, (step, length) in enumerate(zip(steps, lengths, strict=True)):
            segments.append(
                [
                    *street.points[k],
                    *(step / length),
                    length,
                    distances[k],
                    number,
                    k == 0,
                    k == len(steps) - 1,
                ]
            )
        kind = street.kind
        rows.append(
            [
                street.length,
                *street.trims,
                *street.zebras,
                kind.surface,
                kind.marking,
                street.tone,
                *street.parking,
                street.bike,
                street.seed,
                kind.half_width,
                kind.pavement,
                kind.paving,
                kind.verge,
            ]
        )
    return (
        np.array(segments, np.float32).reshape(-1, SEGMENT_COLUMNS),
        np.array(rows, np.float32).reshape(-1, STREET_COLUMNS),
    )


def parking_spots(streets: list[Street]) -> NDArray[np.float64]:
    """Places (N, 3) where cars park along streets: x, y, and the car's direction in radians."""
    spots = [np.empty((0, 3))]
    for street in streets:
        begin, end = street.trims[0] + 8, street.length - street.trims[1] - 8
        # The middles of the painted bays, which are counted from the street's start.
        along = (np.arange(math.ceil(begin / 5.8), math.floor(end / 5.8)) + 0.5) * 5.8
        along = along[along + 2.9 < end]
        for parked, side in zip(street.parking, (1, -1), strict=True):
            if parked and len(along):
                p = street.at(along, side * (street.kind.half_width - 1.05))
                angle = np.arctan2(side * -p[:, 3], side * -p[:, 2])
                spots.append(np.stack([p[:, 0], p[:, 1], angle], axis=1))
    return np.concatenate(spots)


def street_details(streets: list[Street], rng: np.random.Generator) -> list[list[float]]:
    """Patches on streets: manhole covers, drains, repairs, stains, arrows."""
    patches: list[list[float]] = []
    for street in streets:
        if street.kind.half_width < 2 or street.length < 8:
            continue
        put = partial(_put, patches, street, rng)
        _cover(street, rng, put)
        if street.kind.surface in (Ground.ASPHALT, Ground.CONCRETE):
            _wear(street, rng, put)
            _point(street, rng, put)
    return patches


def _put(
    patches: list[list[float]],
    street: Street,
    rng: np.random.Generator,
    along: float,
    across: float,
    size: tuple[float, float],
    radius: float,
    what: Ground,
    tone: float = 1.0,
    turn: float = 0.0,
) -> None:
    """Lay one patch on a street, some metres along and across it."""
    x, y, ux, uy = street.at(along, across)[0]
    c, s = math.cos(turn), math.sin(turn)
    c, s = ux * c - uy * s, uy * c + ux * s
    seed = int(rng.integers(1, 2**20))
    patches.append([x, y, c, s, *size, radius, what, tone, seed, 1])


def _cover(street: Street, rng: np.random.Generator, put: Callable[..., None]) -> None:
    """Lay manhole covers and drains."""
    half, length = street.kind.half_width, street.length
    for along in np.arange(rng.uniform(3, 12), length, rng.uniform(14, 26)):
        across = rng.uniform(-0.6, 0.6) * half
        put(along + rng.uniform(-4, 4), across, (0.33, 0.33), 0.33, Ground.MANHOLE)
    for along in np.arange(rng.uniform(5, 15), length - 4, rng.uniform(20, 32)):
        for side in (-1, 1):
            put(along, side * (half - 0.25), (0.25, 0.2), 0.02, Ground.DRAIN)


def _wear(street: Street, rng: np.random.Generator, put: Callable[..., None]) -> None:
    """Lay repairs, trenches and stains."""
    half, length = street.kind.half_width, street.length
    for _ in range(rng.poisson(length / 20)):
        size = (rng.uniform(0.6, 5.0), rng.uniform(0.4, 1.5))
        across = rng.uniform(-0.7, 0.7) * half
        tone = rng.choice([0.62, 0.75, 0.85, 1.25, 1.4])
        put(rng.uniform(0, length), across, size, 0.05, Ground.PATCH, tone)
    for _ in range(rng.poisson(length / 90)):  # a trench across, or along
        tone = rng.choice([0.66, 0.78, 1.3])
        if rng.uniform() < 0.5:
            size = (rng.uniform(0.3, 0.7), half)
            put(rng.uniform(0, length), 0.0, size, 0.02, Ground.PATCH, tone)
        else:
            run = min(rng.uniform(6, 16), length / 2 - 1)
            across = rng.uniform(-0.6, 0.6) * half
            place = rng.uniform(run, length - run)
            curved = len(street.points) > 2
            size = (3.0 if curved else run, 0.35)
            put(place, across, size, 0.02, Ground.PATCH, tone)
    for _ in range(rng.poisson(length / 30)):
        across = rng.uniform(-0.9, 0.9) * half
        put(rng.uniform(0, length), across, (0.7, 0.5), 0.4, Ground.STAIN)


def _point(street: Street, rng: np.random.Generator, put: Callable[..., None]) -> None:
    """Paint arrows before the ends of wide streets."""
    kind, half, length = street.kind, street.kind.half_width, street.length
    if not (kind.marking in (2, 3) or (kind.marking == 1 and half > 4.5)):
        return
    for end in range(2):
        if street.trims[end] and rng.uniform() < 0.7:
            back = street.trims[end] + rng.uniform(8, 12)
            along = back if end == 0 else length - back
            if not 10 < along < length - 10:
                continue
            across = 0.5 * half * (1 if end == 0 else -1)
            put(along, across, (1.8, 0.5), 0.0, Ground.ARROW, 1.0, math.pi if end == 0 else 0.0)


def clearance(
    streets: list[Street], x0: float, y0: float, shape: tuple[int, int], pixel: float
) -> NDArray[np.float32]:
    """Metres from each point of a raster to the nearest street's pavement, up to 60.

    Parameters
    ----------
    streets
        With their widths.
    x0, y0
        South-west corner of the raster; row 0 is the southernmost.
    shape, pixel
        Rows and columns, and metres between them.
    """
    raster = np.full(shape, 60.0, np.float32)
    for street in streets:
        edge = street.kind.half_width + street.kind.pavement
        for a, b in zip(street.points[:-1], street.points[1:], strict=True):
            (ax, ay), (bx, by) = a - (x0, y0), b - (x0, y0)
            near_segment(raster, ax, ay, bx, by, edge, pixel)
    return raster


@entry
def near_segment(
    raster: Floats, ax: float, ay: float, bx: float, by: float, edge: float, pixel: float
) -> None:
    """Lower a raster to the distance from a segment, widened by ``edge`` metres.

    Parameters
    ----------
    raster : (rows, columns) float32, written
    ax, ay, bx, by
        Ends of the segment in metres from the raster's corner.
    edge, pixel
        Metres.
    """
    reach = edge + 40.0
    rows, columns = raster.shape
    dx, dy = bx - ax, by - ay
    square = dx * dx + dy * dy
    for row in range(
        max(int((min(ay, by) - reach) / pixel), 0),
        min(int((max(ay, by) + reach) / pixel) + 1, rows),
    ):
        y = (row + 0.5) * pixel - ay
        for column in range(
            max(int((min(ax, bx) - reach) / pixel), 0),
            min(int((max(ax, bx) + reach) / pixel) + 1, columns),
        ):
            x = (column + 0.5) * pixel - ax
            t = min(max((x * dx + y * dy) / square, 0.0), 1.0)
            px, py = x - t * dx, y - t * dy
            distance = np.float32(math.sqrt(px * px + py * py) - edge)
            if distance < raster[row, column]:
                raster[row, column] = distance
