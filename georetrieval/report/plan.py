"""Where queries were and where they were thought to be, on a plan seen from above, north up.

``templates/charts.html`` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bevgen.drawing import round_length
from georetrieval.data.positions import MEAN_RADIUS

WIDTH, MARGIN = 640, 26  # user units; the page scales them
METRES_PER_DEGREE = MEAN_RADIUS * math.pi / 180


@dataclass(frozen=True, slots=True)
class Found:
    """A query on the plan: where it is, where it was thought to be, and what to say of it."""

    here: tuple[float, float]
    there: tuple[float, float] | None
    hit: bool
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A query on the drawing: columns and rows."""

    missed: bool
    text: str
    here: tuple[float, float]
    there: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """References and queries, placed on a drawing.

    Attributes
    ----------
    title
        Said to those who cannot see it.
    height
        Of the drawing; it is `WIDTH` wide.
    radius
        Of a query's dot.
    squares
        References, as an SVG path.
    layers : list of list of Mark
        Queries, once for each method.
    scale_bar : (left, row, length, text)
    north : (column, row)
        Of the arrow.
    """

    title: str
    height: float
    radius: float
    squares: str = field(repr=False)
    layers: list[list[Mark]] = field(repr=False)
    scale_bar: tuple[float, float, float, str]
    north: tuple[float, float]
    width: int = WIDTH


def plan(
    title: str, tiles: Sequence[tuple[float, float]], layers: Sequence[Sequence[Found]]
) -> Plan:
    """Place references and queries, with a line for each error.

    Parameters
    ----------
    title
        Said to those who cannot see it.
    tiles : sequence of (latitude, longitude)
        References, degrees.
    layers
        Queries, once for each method; the last is shown, the others wait for a click.

    Returns
    -------
    Plan
    """
    places = [*tiles]
    for layer in layers:
        places += [p for found in layer for p in (found.here, found.there) if p is not None]
    metres = _Metres(np.asarray(places, np.float64), WIDTH - 2 * MARGIN)
    height = metres.height + 2 * MARGIN + 26  # the scale bar stands below

    def at(place: tuple[float, float]) -> tuple[float, float]:
        column, row = metres.place(place)
        return MARGIN + column, MARGIN + row

    def mark(found: Found) -> Mark:
        there = at(found.there) if not found.hit and found.there is not None else None
        return Mark(not found.hit, found.text, at(found.here), there)

    crowd = max(len(tiles), *(len(layer) for layer in layers), 1)
    length = round_length(metres.metres / 3)
    return Plan(
        title,
        height,
        radius=min(max(0.3 * math.sqrt(WIDTH * metres.height / crowd), 2.2), 5.0),
        squares="".join("M{:.1f} {:.1f}h0".format(*at(place)) for place in tiles),
        # Misses are what one looks for: hits must not cover them.
        layers=[[mark(f) for f in sorted(layer, key=lambda f: not f.hit)] for layer in layers],
        scale_bar=(
            MARGIN,
            height - 14,
            length * metres.scale,
            f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m",
        ),
        north=(WIDTH - MARGIN, height - 34),
    )


class _Metres:
    """Puts latitudes and longitudes on a drawing of a given width, one scale for both axes."""

    def __init__(self, places: NDArray[np.float64], width: float) -> None:
        latitude, longitude = places.T
        self.latitude, self.longitude = float(latitude.mean()), float(longitude[0])
        self.shrink = math.cos(math.radians(self.latitude))
        x, y = np.array([self._local(*place) for place in places]).T
        span_x, span_y = float(np.ptp(x)), float(np.ptp(y))
        # A lone place or a straight street still gets a drawing, not a division by zero.
        self.metres = max(span_x, span_y / 1.1, 1.0)
        self.scale = width / self.metres
        self.height = max(span_y * self.scale, 0.3 * width)
        self.left = (x.min() + x.max() - self.metres) / 2
        self.top = (y.min() + y.max()) / 2 + self.height / self.scale / 2

    def _local(self, latitude: float, longitude: float) -> tuple[float, float]:
        turn = (longitude - self.longitude + 180.0) % 360.0 - 180.0
        x = turn * self.shrink * METRES_PER_DEGREE
        return x, (latitude - self.latitude) * METRES_PER_DEGREE

    def place(self, place: tuple[float, float]) -> tuple[float, float]:
        """Return column and row on the drawing."""
        x, y = self._local(*place)
        return (x - self.left) * self.scale, (self.top - y) * self.scale
