"""The line along which a camera moved, through positions of which some are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

Floats = NDArray[np.float64]

FARTHEST = 2.0
"""A position lies off the line from so many standard deviations on."""
LOOSENING = (8.0, 4.0, 2.0, *[1.0] * 10)
"""How much farther still counts, from round to round: first the many decide, then the exact."""
BLOCK = 256
"""Rows of a matrix of all moments at once."""
SHORTEST = 1e-2
"""Seconds between two frames at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Where a camera was, for each of n moments.

    Attributes
    ----------
    values : (n, C) float64
        East and north in metres, and what else was given.
    metres : (n,) float64
        Standard deviation of the position, each way.
    off : (n,) bool
        Whether the position that was given lies off the line.
    """

    values: Floats
    metres: Floats
    off: NDArray[np.bool_]


def fit_line(
    values: Floats,
    seconds: Floats,
    chances: Floats,
    *,
    slack: float,
    speed: float,
    acceleration: float,
) -> Line:
    """Lay a line through positions, along which velocity changes no more than usual.

    Velocity is a random walk. It begins with the most that can be one movement; then positions
    count by how likely they are and by how near the line they lie (Geman and McClure's weights),
    which is worked out in rounds.

    Parameters
    ----------
    values : (n, C) float64
        East and north in metres, then whatever else is to be known along the line.
    seconds : (n,) float64
        When, not decreasing.
    chances : (n,) float64
        That each position is right.
    slack
        Standard deviation of right positions in metres, each way.
    speed
        Metres per second at most.
    acceleration
        Metres per second by which velocity changes within a second (standard deviation).
    """
    bands = _bending(seconds) / acceleration**2
    weights = chances * _together(values[:, :2], seconds, chances, slack, speed)
    away = np.zeros(len(values))
    line = values
    for loosening in LOOSENING:
        held = weights / slack**2
        line = solveh_banded(_joined(bands, held), held[:, None] * values)
        away = np.linalg.norm((line - values)[:, :2], axis=1) / (FARTHEST * slack)
        weights = chances / (1 + (away / loosening) ** 2) ** 2
    metres = np.sqrt(_inverse_diagonal(_joined(bands, weights / slack**2)))
    return Line(line, metres, np.asarray(away > 1))


def _together(
    places: Floats, seconds: Floats, chances: Floats, slack: float, speed: float
) -> NDArray[np.bool_]:
    """Choose the place that goes with the most others at a speed that is allowed, and those."""

    def go(rows: slice) -> NDArray[np.bool_]:
        metres = np.linalg.norm(places[rows, None] - places, axis=2)
        return metres <= speed * abs(seconds[rows, None] - seconds) + FARTHEST * slack

    parts = [slice(start, start + BLOCK) for start in range(0, len(places), BLOCK)]
    best = int(np.concatenate([go(part) @ chances for part in parts]).argmax())
    return go(slice(best, best + 1))[0]


def _bending(seconds: Floats) -> Floats:
    """Return what a change of velocity costs, as the upper three bands (3, n) of a matrix."""
    gaps = np.maximum(np.diff(seconds), SHORTEST)
    bands = np.zeros((3, len(seconds)))
    if len(seconds) < 3:
        return bands
    before, after = gaps[:-1], gaps[1:]
    middle = np.sqrt((before + after) / 2)  # velocity walks for so long between the two gaps
    row = np.stack([1 / before, -1 / before - 1 / after, 1 / after]) / middle
    for i in range(3):
        for j in range(i, 3):
            bands[2 - (j - i), j : j + row.shape[1]] += row[i] * row[j]
    return bands


def _joined(bands: Floats, weights: Floats) -> Floats:
    # A line that nothing holds, where all positions are off, must stay solvable.
    return bands + np.stack([0 * weights, 0 * weights, weights + 1e-9])


def _inverse_diagonal(bands: Floats) -> Floats:
    """Return the diagonal (n,) of a banded matrix's inverse."""
    count = bands.shape[1]
    found = []
    for start in range(0, count, BLOCK):
        unit = np.eye(count, min(BLOCK, count - start), -start)
        found.append(np.diagonal(solveh_banded(bands, unit), -start))
    return np.concatenate(found)
