"""Where the curves of the report lie on their drawings; ``templates/charts.html`` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bevgen.drawing import round_length

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 460, 280  # user units; the page scales them
LEFT, TOP, FLOOR = 40, 28, 242  # of the field that the axes enclose
BUCKETS = 240  # of a raw curve: more could not be seen


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
    step = round_length(1.99 * (high - low) / count) if high > low else 1.0
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


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
class LineChart:
    """Curves, placed on a drawing of `WIDTH` x `HEIGHT`.

    Attributes
    ----------
    title
        Said to those who cannot see it.
    x_title, y_title
        Of the axes.
    width
        Of the field that the axes enclose.
    rows, columns : list of (place, text)
        Lines of the grid and ticks.
    level : (end, row, text), optional
        A dashed horizontal line.
    curves : list of (CSS classes, points as SVG wants them)
    dots : list of (CSS classes, column, row, tooltip)
    labels : list of (column, row, name, last value)
        At the ends of curves.
    """

    title: str
    x_title: str
    y_title: str
    width: int
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    level: tuple[float, float, str] | None
    curves: list[tuple[str, str]]
    dots: list[tuple[str, float, float, str]]
    labels: list[tuple[float, float, str, str]]
    size: tuple[int, int] = (WIDTH, HEIGHT)
    left: int = LEFT
    top: int = TOP
    floor: int = FLOOR


def line_chart(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    level: tuple[str, float] | None = None,
) -> LineChart:
    """Place curves on axes.

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
    LineChart
    """
    named = [s for s in series if s.dots and s.points]
    width = WIDTH - LEFT - (78 if named else 16)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + width * x.place(point[0]), TOP + (FLOOR - TOP) * (1 - y.place(point[1]))

    curves = [(s.tone, " ".join("{:.1f},{:.1f}".format(*at(p)) for p in s.points)) for s in series]
    dots = [
        (s.tone, *at(p), f"{s.name} {p[1]:.1f}{s.unit} at {p[0]:g}")
        for s in named
        for p in s.points
    ]
    ends = [at(s.points[-1]) for s in named]
    rows = apart([row for _, row in ends], 15)
    return LineChart(
        title,
        x.title,
        y.title,
        width,
        rows=[(at((x.low, value))[1], f"{value:g}") for value in y.ticks()],
        columns=[
            (at((value, y.low))[0], f"{value:,.0f}" if value >= 1000 else f"{value:g}")
            for value in x.ticks()
        ],
        level=(*at((x.high, level[1])), level[0]) if level is not None else None,
        curves=[(tone, points) for tone, points in curves if points],
        dots=dots,
        labels=[
            (column, row, s.name, f"{s.points[-1][1]:.0f}")
            for s, (column, _), row in zip(named, ends, rows, strict=True)
        ],
    )


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


def share_within(values: Iterable[float], limits: Sequence[float]) -> list[tuple[float, float]]:
    """Return (limit, per cent of values at most that) for each limit."""
    ordered = np.sort(np.fromiter(values, np.float64))
    counts = np.searchsorted(ordered, limits, side="right")
    return [(float(k), 100.0 * int(n) / len(ordered)) for k, n in zip(limits, counts, strict=True)]
