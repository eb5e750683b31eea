"""Drawings of the report as inline SVG: curves, and the plan of where queries were and went.

Colours are CSS classes, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 460, 280  # user units; the page scales them
LEFT, TOP, BOTTOM = 40, 28, 38
PLOT = HEIGHT - TOP - BOTTOM
BUCKETS = 240  # of a raw curve: more could not be seen
METRES_PER_DEGREE = 6371008.8 * math.pi / 180


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes
    ----------
    name
        For tooltips, and written at the curve's end if the chart labels its curves.
    tone
        CSS classes that give colour and stroke.
    points : sequence of (x, y)
        In ascending x.
    unit
        After a value, such as " %".
    dots
        Draw each point, with its value as a tooltip.
    """

    name: str
    tone: str
    points: Points = field(repr=False)
    unit: str = ""
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis spans, and its title; ``log`` for a decimal logarithm."""

    title: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 to 1 within the axis."""
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        if self.log:
            value = math.log10(max(value, 1e-12))
        return min(max((value - low) / (high - low or 1.0), 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if not self.log:
            return round_ticks(self.low, self.high)
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if self.high < 1000 * self.low else (1,)
        steps = (factor * 10.0**power for power in range(low, high + 1) for factor in factors)
        return [step for step in steps if self.low <= step * (1 + 1e-9) and step <= self.high]


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` multiples of 1, 2 or 5 times a power of ten from low to high."""
    step = round_length((high - low) / count) if high > low else 1.0
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def round_length(value: float) -> float:
    """Return the least of 1, 2 or 5 times a power of ten that is not below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)


def smooth(points: Points) -> list[tuple[float, float]]:
    """Return the moving mean over a twentieth of the points, centred, so that it does not lag."""
    if len(points) < 3:
        return list(points)
    x, y = np.asarray(points, np.float64).T
    half = max(1, len(points) // 40)
    total = np.concatenate([[0.0], np.cumsum(y)])
    centre = np.arange(len(y))
    first, last = np.maximum(centre - half, 0), np.minimum(centre + half + 1, len(y))
    mean = (total[last] - total[first]) / (last - first)
    keep = np.unique(np.linspace(0, len(y) - 1, BUCKETS).round().astype(int))
    return [(float(x[k]), float(mean[k])) for k in keep]


def thin(points: Points) -> list[tuple[float, float]]:
    """Return the least and the greatest point of each of many stretches: what an eye can see."""
    if len(points) <= 2 * BUCKETS:
        return list(points)
    kept: list[tuple[float, float]] = []
    for part in np.array_split(np.asarray(points, np.float64), BUCKETS):
        for row in sorted({int(part[:, 1].argmin()), int(part[:, 1].argmax())}):
            kept.append((float(part[row, 0]), float(part[row, 1])))
    return kept


@dataclass(frozen=True, slots=True)
class _Frame:
    """A chart's axes on the drawing."""

    x: Axis
    y: Axis
    width: int

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return column and row of a point."""
        column = LEFT + self.width * self.x.place(point[0])
        return column, TOP + PLOT * (1 - self.y.place(point[1]))

    def draw(self) -> str:
        """Draw grid, ticks and titles."""
        parts = []
        for value in self.y.ticks():
            row = self.at((self.x.low, value))[1]
            parts.append(f'<path class="grid" d="M{LEFT} {row:.1f}h{self.width}"/>')
            parts.append(f'<text class="end" x="{LEFT - 7}" y="{row + 4:.1f}">{value:g}</text>')
        for value in self.x.ticks():
            column = self.at((value, self.y.low))[0]
            text = f"{value:,.0f}" if value >= 1000 else f"{value:g}"
            parts.append(f'<path class="tick" d="M{column:.1f} {TOP + PLOT}v4"/>')
            parts.append(f'<text class="mid" x="{column:.1f}" y="{TOP + PLOT + 18}">{text}</text>')
        middle = LEFT + self.width / 2
        return (
            f'{"".join(parts)}<path class="axis" d="M{LEFT} {TOP + PLOT}h{self.width}"/>'
            f'<text class="mid" x="{middle}" y="{HEIGHT - 4}">{escape(self.x.title)}</text>'
            f'<text x="4" y="12">{escape(self.y.title)}</text>'
        )


def line_chart(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    level: tuple[str, float] | None = None,
) -> str:
    """Draw curves.

    Parameters
    ----------
    title
        Said to those who cannot see it.
    x, y
        Axes.
    series
        Curves; those with ``dots`` are named at their ends.
    level
        Name and value of a dashed horizontal line.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    named = [s for s in series if s.dots and s.points]
    frame = _Frame(x, y, WIDTH - LEFT - (78 if named else 16))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">{frame.draw()}'
    ]
    if level is not None:
        end, row = frame.at((x.high, level[1]))
        parts.append(f'<path class="level" d="M{LEFT} {row:.1f}H{end}"/>')
        parts.append(f'<text class="end" x="{end}" y="{row - 5:.1f}">{escape(level[0])}</text>')
    for one in series:
        line = " ".join("{:.1f},{:.1f}".format(*frame.at(p)) for p in one.points)
        parts.append(f'<polyline class="{one.tone}" points="{line}"/>' if line else "")
    for one in named:
        for point in one.points:
            column, row = frame.at(point)
            parts.append(
                f'<circle class="{one.tone} dot" cx="{column:.1f}" cy="{row:.1f}" r="3"><title>'
                f"{escape(one.name)} {point[1]:.1f}{one.unit} at {point[0]:g}</title></circle>"
            )
    ends = [frame.at(one.points[-1]) for one in named]
    rows = apart([row for _, row in ends], 15)
    for one, (column, _), row in zip(named, ends, rows, strict=True):
        text = f"{escape(one.name)} <tspan>{one.points[-1][1]:.0f}</tspan>"
        parts.append(f'<text class="label" x="{column + 8:.1f}" y="{row + 4:.1f}">{text}</text>')
    return "".join(parts) + "</svg>"


def apart(places: Sequence[float], distance: float) -> list[float]:
    """Return places moved up or down until neighbours keep a distance, in the order given."""
    order = np.argsort(places, kind="stable")
    moved = np.asarray(places, np.float64)[order]
    for _ in range(50):
        for i in range(len(moved) - 1):
            overlap = distance - (moved[i + 1] - moved[i])
            if overlap > 1e-6:
                moved[i] -= overlap / 2
                moved[i + 1] += overlap / 2
    result = np.empty_like(moved)
    result[order] = moved
    return result.tolist()


@dataclass(frozen=True, slots=True)
class Found:
    """A query on the plan: where it is, where it was thought to be, and what to say of it."""

    here: tuple[float, float]
    there: tuple[float, float] | None
    hit: bool
    text: str


def plan(
    title: str, tiles: Sequence[tuple[float, float]], layers: Sequence[Sequence[Found]]
) -> str:
    """Draw references and queries seen from above, north up, with a line for each error.

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
    str
        An ``<svg>`` element.
    """
    places = [*tiles]
    for layer in layers:
        places += [p for found in layer for p in (found.here, found.there) if p is not None]
    width, margin = 640, 26
    metres = _Metres(np.asarray(places, np.float64), width - 2 * margin)
    height = metres.height + 2 * margin + 26  # the scale bar stands below

    def at(place: tuple[float, float]) -> tuple[float, float]:
        column, row = metres.place(place)
        return margin + column, margin + row

    crowd = max(len(tiles), *(len(layer) for layer in layers), 1)
    radius = min(max(0.3 * math.sqrt(width * metres.height / crowd), 2.2), 5.0)
    squares = "".join("M{:.1f} {:.1f}h0".format(*at(place)) for place in tiles)
    parts = [
        f'<svg class="plan" viewBox="0 0 {width} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">',
        f'<path class="squares" stroke-width="{2.4 * radius:.1f}" d="{squares}"/>',
    ]
    for number, layer in enumerate(layers):
        shown = "layer" if number == len(layers) - 1 else "layer off"
        parts.append(f'<g class="{shown}">')
        # Misses are what one looks for: hits must not cover them.
        for found in sorted(layer, key=lambda f: not f.hit):
            parts.append(_query(found, at, radius))
        parts.append("</g>")
    parts.append(_scale_bar(metres, margin, height))
    parts.append(
        f'<g class="north" transform="translate({width - margin},{height - 34:.0f})">'
        '<path d="M0 -12L7 10L0 5L-7 10Z"/><text class="mid" y="26">N</text></g>'
    )
    return "".join(parts) + "</svg>"


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


def _query(found: Found, at, radius: float) -> str:
    x, y = at(found.here)
    title = f"<title>{escape(found.text)}</title>"
    kind = "hit" if found.hit else "miss"
    line = ""
    if not found.hit and found.there is not None:
        to_x, to_y = at(found.there)
        line = f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>'
    return (
        f'<g class="{kind}">{title}{line}<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/></g>'
    )


def _scale_bar(metres: _Metres, left: float, height: float) -> str:
    length = round_length(metres.metres / 5)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    row = height - 14
    return (
        f'<g class="scale"><path d="M{left} {row - 5:.1f}v5h{length * metres.scale:.1f}v-5"/>'
        f'<text x="{left + 6}" y="{row - 6:.1f}">{text}</text></g>'
    )


def share_within(values: Iterable[float], limits: Sequence[float]) -> list[tuple[float, float]]:
    """Return (limit, per cent of values at most that) for each limit."""
    ordered = np.sort(np.fromiter(values, np.float64))
    counts = np.searchsorted(ordered, limits, side="right")
    return [(float(k), 100.0 * int(n) / len(ordered)) for k, n in zip(limits, counts, strict=True)]
