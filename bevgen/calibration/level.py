"""Pitch and roll of a panorama from what it shows: walls, poles and posts are vertical.

An edge that is vertical in the world lies on a great circle through the zenith. Every edge pixel
tells such a circle by its direction and that of its edge; the zenith is where most of them meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import PanoramaView

Floats = NDArray[np.float64]

WIDTH = 2048  # columns of a whole circle that are looked at
LARGEST = 15.0  # degrees of tilt that are looked for
SURE = 1.0  # degrees of standard deviation up to which a result is reported
_ELEVATIONS = (-12.0, 65.0)  # degrees: below are lines on the ground, above pixels say little
_SECTORS = 36  # of azimuth, whose errors count as independent
_FEWEST_SECTORS = 6
_FEWEST = 20  # edges
_WIDTHS = (2.0, 1.0, 0.6)  # degrees within which edges count, from coarse to fine
_SHORTEST, _LONGEST = 8, 40  # pixels of an edge
_STRAIGHT = 0.3  # pixels by which an edge may leave its circle


@dataclass(frozen=True, slots=True)
class Tilt:
    """How a camera stood.

    Attributes
    ----------
    pitch, roll
        Degrees; nose up, right side down.
    deviation
        Standard deviation in degrees, of the worse of both; infinite where nothing was to be seen.
    """

    pitch: float
    roll: float
    deviation: float

    @property
    def sure(self) -> bool:
        """Whether to rely on it."""
        return self.deviation <= SURE


UNKNOWN = Tilt(math.nan, math.nan, math.inf)


def find_tilt(image: NDArray[np.uint8], view: PanoramaView) -> Tilt:
    """Estimate pitch and roll of one panorama.

    Parameters
    ----------
    image : (H, W, 3) uint8
        As decoded; it is shrunk to WIDTH columns.
    view
        What it shows.

    Returns
    -------
    Tilt
        UNKNOWN where there are too few edges, or they do not meet.
    """
    grey, view = _shrunk(image, view)
    normals, errors, azimuths = edge_circles(grey, view)
    if len(normals) < _FEWEST:
        return UNKNOWN
    weights = (math.radians(0.2) / errors) ** 2
    zenith = _vote(normals, weights)
    for width in _WIDTHS:
        zenith = _refine(zenith, normals, weights, math.radians(width))
    deviation = _deviation(zenith, normals, weights, azimuths, math.radians(_WIDTHS[-1]))
    pitch, roll = angles_of(zenith)
    if math.hypot(pitch, roll) > LARGEST:
        return UNKNOWN
    return Tilt(pitch, roll, deviation)


def angles_of(zenith: Floats) -> tuple[float, float]:
    """Pitch and roll in degrees of a camera that sees the zenith there (right, forward, up)."""
    x, y, z = zenith
    return math.degrees(math.asin(min(max(y, -1), 1))), math.degrees(math.atan2(-x, z))


def edge_circles(grey: Floats, view: PanoramaView) -> tuple[Floats, Floats, Floats]:
    """Find straight edges that may be vertical, and the great circle that each lies on.

    Parameters
    ----------
    grey : (H, W)
        Of a panorama that shows ``view``.

    Returns
    -------
    normals : (n, 3)
        Of the circles, unit vectors in camera axes.
    errors : (n,)
        Radians by which the circles may be off, from the edges' lengths.
    azimuths : (n,)
        Radians, where the edges are.
    """
    height, width = grey.shape
    (top, bottom), (left, right) = view.vertical_fov, view.horizontal_fov
    per_row, per_column = math.radians(top - bottom) / height, math.radians(right - left) / width
    elevation = math.radians(top) - (np.arange(height) + 0.5) * per_row
    across, down = _gradient(grey)
    cos = np.maximum(np.cos(elevation), 0.1)[:, None]
    strength = np.abs(across)
    upright = strength / cos > np.abs(down) / math.tan(math.radians(LARGEST + 10))
    edge = upright & _is_ridge(strength, view.wraps)
    edge &= strength > max(2.0, float(np.percentile(strength, 70)))
    low, high = np.radians(_ELEVATIONS)
    edge &= ((elevation > low) & (elevation < high))[:, None]
    rows, columns, labels = _chains(edge, across > 0)
    before, after = (strength[rows, (columns + step) % width] for step in (-1, 1))
    here = strength[rows, columns]
    shift = (after - before) / (2 * np.maximum(2 * here - before - after, 1e-9))
    azimuth = math.radians(left) + (columns + 0.5 + np.clip(shift, -0.5, 0.5)) * per_column
    flat = np.cos(elevation[rows])
    points = np.stack(
        [np.sin(azimuth) * flat, np.cos(azimuth) * flat, np.sin(elevation[rows])], axis=1
    )
    return _circles(points, labels, azimuth, per_row)


def _chains(
    edge: NDArray[np.bool_], bright: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Link edge pixels of one sign from row to row, up to _LONGEST: rows, columns and chains."""
    height, width = edge.shape
    labels = np.full((height, width), -1)
    age, count = np.zeros(int(edge.sum()) + 1, np.intp), 0
    for row in range(height):
        columns = np.flatnonzero(edge[row])
        found = np.full(len(columns), -1)
        if row:
            for step in (0, -1, 1):
                near = (columns + step) % width
                same = (found < 0) & (bright[row - 1, near] == bright[row, columns])
                found = np.where(same, labels[row - 1, near], found)
            found[age[found] >= _LONGEST] = -1  # of -1, the last of all ages, it is 0
        new = found < 0
        found[new] = count + np.arange(new.sum())
        count += int(new.sum())
        age[found] += 1
        labels[row, columns] = found
    rows, columns = np.nonzero(labels >= 0)
    return rows, columns, labels[rows, columns]


def _circles(
    points: Floats, labels: NDArray[np.intp], azimuths: Floats, pixel: float
) -> tuple[Floats, Floats, Floats]:
    """Fit a great circle to the points of each chain that is long and straight."""
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.stack(
        [np.bincount(labels, points[:, i] * points[:, j]) for i in range(3) for j in range(3)],
        axis=1,
    ).reshape(-1, 3, 3)
    long = counts >= _SHORTEST
    sums, counts = sums[long], counts[long]
    azimuth = np.arctan2(
        np.bincount(labels, np.sin(azimuths))[long], np.bincount(labels, np.cos(azimuths))[long]
    )
    values, vectors = np.linalg.eigh(sums)
    rest = np.sqrt(np.maximum(values[:, 0], 0) / counts)
    straight = rest < _STRAIGHT * pixel
    noise = np.maximum(rest, 0.1 * pixel)
    errors = np.hypot(noise * np.sqrt(12 / counts**3.0) / pixel, math.radians(0.2))
    return vectors[straight, :, 0], errors[straight], azimuth[straight]


def _gradient(grey: Floats) -> tuple[Floats, Floats]:
    """Slopes per pixel to the right and down, smoothed along and across by a Gaussian."""
    smooth = np.exp(-0.5 * (np.arange(-4, 5) / 1.4) ** 2)
    smooth /= smooth.sum()
    slope = -np.arange(-4, 5) * smooth / (np.arange(-4, 5) ** 2 * smooth).sum()

    def filtered(values: Floats, kernel: Floats, axis: int) -> Floats:
        pad = [(0, 0), (0, 0)]
        pad[axis] = (4, 4)
        padded = np.pad(values, pad, "wrap" if axis else "edge")
        count = values.shape[axis]
        parts = (kernel[8 - k] * np.take(padded, range(k, k + count), axis=axis) for k in range(9))
        return sum(parts)  # pyright: ignore[reportReturnType]

    across = filtered(filtered(grey, smooth, 0), slope, 1)
    down = filtered(filtered(grey, smooth, 1), slope, 0)
    return across, down


def _is_ridge(strength: Floats, wraps: bool) -> NDArray[np.bool_]:
    """Whether a pixel is the strongest of its edge's cross-section, to the left and right."""
    before, after = np.roll(strength, 1, axis=1), np.roll(strength, -1, axis=1)
    ridge = (strength >= before) & (strength >= after)
    if not wraps:
        ridge[:, :4] = ridge[:, -4:] = False
    return ridge


def _vote(normals: Floats, weights: Floats) -> Floats:
    """Take the direction near up, on a grid of half degrees, through which most circles go."""
    steps = np.radians(np.arange(-LARGEST, LARGEST + 0.1, 0.5))
    x, y = (grid.ravel() for grid in np.meshgrid(np.tan(steps), np.tan(steps)))
    zeniths = np.stack([x, y, np.ones_like(x)], axis=1)
    zeniths /= np.linalg.norm(zeniths, axis=1, keepdims=True)
    if len(normals) > 6000:
        chosen = np.random.default_rng(0).choice(len(normals), 6000, replace=False)
        normals, weights = normals[chosen], weights[chosen]
    off = (normals @ zeniths.T).astype(np.float32) / np.float32(math.radians(1.0))
    votes = weights @ np.exp(-0.5 * off**2)
    return zeniths[votes.argmax()]


def _refine(zenith: Floats, normals: Floats, weights: Floats, width: float) -> Floats:
    """Improve by least squares, reweighted so that what is ``width`` radians off hardly counts."""
    for _ in range(10):
        off = normals @ zenith
        counts = weights * np.exp(-0.5 * (off / width) ** 2)
        east, north = _tangents(zenith)
        design = normals @ np.stack([east, north], axis=1)
        system = design.T @ (counts[:, None] * design)
        step = np.linalg.lstsq(system, -design.T @ (counts * off), rcond=None)[0]
        zenith = zenith + step[0] * east + step[1] * north
        zenith /= np.linalg.norm(zenith)
        if np.abs(step).max() < 1e-6:
            break
    return zenith


def _deviation(
    zenith: Floats, normals: Floats, weights: Floats, azimuths: Floats, width: float
) -> float:
    """Return the standard deviation in degrees; edges of one sector are taken to err together."""
    off = normals @ zenith
    counts = weights * np.exp(-0.5 * (off / width) ** 2)
    design = normals @ np.stack(_tangents(zenith), axis=1)
    # The weights fall where the error grows: this much of the curvature is left.
    curve = counts * (1 - (off / width) ** 2)
    system = design.T @ (curve[:, None] * design)
    sector = ((azimuths / (2 * math.pi)) % 1 * _SECTORS).astype(int)
    filled = np.bincount(sector, counts, _SECTORS) >= 0.3
    if filled.sum() < _FEWEST_SECTORS or np.linalg.eigvalsh(system)[0] <= 0:
        return math.inf
    scores = np.stack(
        [np.bincount(sector, counts * off * design[:, k], _SECTORS) for k in range(2)], axis=1
    )
    inverse = np.linalg.inv(system)
    covariance = inverse @ (scores.T @ scores) @ inverse * filled.sum() / (filled.sum() - 2)
    return math.degrees(math.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def _tangents(zenith: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors across a direction that is nearly up."""
    east = np.array([zenith[2], 0.0, -zenith[0]])
    east /= np.linalg.norm(east)
    return east, np.cross(zenith, east)


def _shrunk(image: NDArray[np.uint8], view: PanoramaView) -> tuple[Floats, PanoramaView]:
    """Grey picture of at most WIDTH columns to the circle, and what it shows."""
    from PIL import Image

    left, right = view.horizontal_fov
    width = min(view.width, max(16, round(WIDTH * (right - left) / 360)))
    height = max(8, round(view.height * width / view.width))
    grey = Image.fromarray(image).convert("L").resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.float64)
    return pixels, PanoramaView(height, width, view.vertical_fov, view.horizontal_fov)


# --- what metadata mean by a roll ---


@dataclass(frozen=True, slots=True)
class RollSign:
    """How the rolls of metadata fit the pictures, as they are and turned.

    Attributes
    ----------
    count
        Panoramas that say a roll of more than LEAST_ROLL degrees, and whose pictures are sure.
    right_down, left_down
        Median error in degrees, if a positive roll means the right or the left side down.
    """

    count: int
    right_down: float
    left_down: float

    @property
    def is_turned(self) -> bool:
        """Whether the pictures say clearly that a positive roll has the left side down."""
        return self.count > 0 and self.left_down + 1.0 < self.right_down


LEAST_ROLL = 1.0


def compare_rolls(said: list[float], tilts: list[Tilt]) -> RollSign:
    """Compare rolls that metadata say, positive with the right side down, with pictures."""
    rolls = np.array(
        [
            (roll, tilt.roll)
            for roll, tilt in zip(said, tilts, strict=True)
            if tilt.sure and abs(roll) > LEAST_ROLL
        ]
    ).reshape(-1, 2)
    if not len(rolls):
        return RollSign(0, math.nan, math.nan)
    right, left = (float(np.median(np.abs(sign * rolls[:, 0] - rolls[:, 1]))) for sign in (1, -1))
    return RollSign(len(rolls), right, left)
