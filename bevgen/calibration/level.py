"""Pitch and roll of a panorama from what it shows: what is upright, and the horizon.

An edge that is vertical in the world lies on a great circle through the zenith. Every edge pixel
tells such a circle by its direction and that of its edge; the zenith is where most of them meet.

The horizon is a great circle itself, and the zenith its pole. So is the straight edge of a wall or
a roof, but of that one sees less than half a circle; what goes on for more is the horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import PanoramaView

Floats = NDArray[np.float64]

WIDTH = 2048  # columns of a whole circle in which edges are looked for
LARGEST = 15.0  # degrees of tilt that are looked for
SURE = 1.0  # degrees of standard deviation up to which a result is reported
_ELEVATIONS = (-12.0, 65.0)  # degrees: below are lines on the ground, above pixels say little
_SECTORS = 36  # of azimuth, whose errors count as independent
_FEWEST_SECTORS = 6
_FEWEST = 20  # edges
_WIDTHS = (2.0, 1.0, 0.6)  # degrees within which edges count, from coarse to fine
_SHORTEST, _LONGEST = 8, 40  # pixels of an edge
_STRAIGHT = 0.3  # pixels by which an edge may leave its circle
_FAINTEST = 2.0  # grey levels per pixel
_HORIZON_WIDTH = 512  # columns: railings, waves and haze are finer than their pixels
_HORIZON_WIDTHS = (1.0, 0.5, 0.2)  # degrees, as above
_HORIZON_CLEAR = 0.5  # of a column's strongest edge: clouds and land may outdo it by that
_HORIZON_RAISED = 0.5  # degrees by which heights and haze may move it, up or down
_HORIZON_ERROR = 0.1  # degrees of tilt: far shores, seams of the picture
_HORIZON_PART = 2 / 3  # of a sector's columns, in which it is seen
_HORIZON_SECTORS = 22  # of all, in which it is seen: of a straight wall one sees half of them


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
        As decoded.
    view
        What it shows.

    Returns
    -------
    Tilt
        UNKNOWN where neither enough edges that meet nor the horizon are seen.
    """
    return combine(by_edges(image, view), by_horizon(image, view))


def combine(edges: Tilt, horizon: Tilt) -> Tilt:
    """Weigh both by their variances; where they contradict each other, edges that are sure win."""
    if not (edges.sure and horizon.sure):
        return horizon if horizon.sure else edges
    apart = math.hypot(edges.pitch - horizon.pitch, edges.roll - horizon.roll)
    if apart > 3 * math.hypot(edges.deviation, horizon.deviation):
        return edges
    share = horizon.deviation**2 / (edges.deviation**2 + horizon.deviation**2)
    pitch, roll = (
        share * one + (1 - share) * other
        for one, other in ((edges.pitch, horizon.pitch), (edges.roll, horizon.roll))
    )
    return Tilt(pitch, roll, edges.deviation * math.sqrt(share))


def by_edges(image: NDArray[np.uint8], view: PanoramaView) -> Tilt:
    """Estimate pitch and roll as `find_tilt` does, by vertical edges alone."""
    normals, errors, azimuths = edge_circles(*_shrunk(image, view, WIDTH, "L"))
    if len(normals) < _FEWEST:
        return UNKNOWN
    weights = (math.radians(0.2) / errors) ** 2
    zenith = _vote(normals, weights)
    for width in _WIDTHS:
        zenith = _refine(zenith, normals, weights, math.radians(width))
    deviation = _deviation(zenith, normals, weights, azimuths, math.radians(_WIDTHS[-1]))
    return _tilt(zenith, deviation)


def by_horizon(image: NDArray[np.uint8], view: PanoramaView) -> Tilt:
    """Estimate pitch and roll as `find_tilt` does, by the horizon alone.

    Its points lie across the zenith, as normals of vertical circles do.
    """
    colours, view = _shrunk(image, view, _HORIZON_WIDTH, "RGB")
    points, azimuths, columns = sky_edges(colours, view)
    if len(points) < _FEWEST:
        return UNKNOWN
    zenith, raised = _fit_circle(points)
    # Higher or lower than a great circle all around is the rim of something else.
    if abs(raised) > math.radians(_HORIZON_RAISED):
        return UNKNOWN
    points, width = points - raised * zenith, math.radians(_HORIZON_WIDTHS[-1])
    on = np.abs(points @ zenith) < width
    left, right = view.horizontal_fov
    whole = view.width * 360 / (right - left) / _SECTORS
    _, first = np.unique(columns[on], return_index=True)
    seen = np.bincount(_sector(azimuths[on][first]), minlength=_SECTORS) >= _HORIZON_PART * whole
    if seen.sum() < _HORIZON_SECTORS:
        return UNKNOWN
    scatter = _deviation(zenith, points[on], np.ones(on.sum()), azimuths[on], width)
    # What hides the horizon on one side tilts the circle up to twice as much as it raises it.
    return _tilt(zenith, math.hypot(scatter, math.degrees(raised), _HORIZON_ERROR))


def _tilt(zenith: Floats, deviation: float) -> Tilt:
    """Return the tilt of a camera that sees the zenith there, if it is one that is looked for."""
    pitch, roll = angles_of(zenith)
    return Tilt(pitch, roll, deviation) if math.hypot(pitch, roll) <= LARGEST else UNKNOWN


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
    edge &= strength > max(_FAINTEST, float(np.percentile(strength, 70)))
    low, high = np.radians(_ELEVATIONS)
    edge &= ((elevation > low) & (elevation < high))[:, None]
    rows, columns, labels = _chains(edge, across > 0)
    before, after = (strength[rows, (columns + step) % width] for step in (-1, 1))
    shift = _peak(before, strength[rows, columns], after)
    azimuth = math.radians(left) + (columns + 0.5 + shift) * per_column
    return _circles(_directions(azimuth, elevation[rows]), labels, azimuth, per_row)


def sky_edges(colours: Floats, view: PanoramaView) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Find edges below which it is darker or less blue: where the sky may end.

    Parameters
    ----------
    colours : (H, W, 3)
        Of a panorama that shows ``view``.

    Returns
    -------
    points : (n, 3)
        Unit vectors in camera axes, none far from the horizon of a level camera.
    azimuths : (n,)
        Radians.
    columns : (n,)
        Of the picture.
    """
    _, elevation = view.to_angles(0, np.arange(view.height) + 0.5)
    band = np.flatnonzero(np.abs(elevation) < LARGEST + 2)
    if len(band) < 3:
        return np.empty((0, 3)), np.empty(0), np.empty(0, np.intp)
    down = [_gradient(colours[band, :, k])[1] for k in range(3)]
    strength = -np.min(down, axis=0)
    before, here, after = strength[:-2], strength[1:-1], strength[2:]
    clear = here > np.maximum(_HORIZON_CLEAR * strength.max(axis=0), _FAINTEST)
    rows, columns = np.nonzero(clear & (here >= before) & (here > after))
    shift = _peak(*(part[rows, columns] for part in (before, here, after)))
    azimuth, elevation = np.radians(view.to_angles(columns + 0.5, band[0] + rows + 1.5 + shift))
    return _directions(azimuth, elevation), azimuth, columns


def _peak(before: Floats, here: Floats, after: Floats) -> Floats:
    """Pixels from a maximum to the top of the parabola through it and its neighbours."""
    shift = (after - before) / (2 * np.maximum(2 * here - before - after, 1e-9))
    return np.clip(shift, -0.5, 0.5)


def _directions(azimuth: Floats, elevation: Floats) -> Floats:
    """Return unit vectors (n, 3) in camera axes of angles in radians."""
    flat = np.cos(elevation)
    return np.stack([np.sin(azimuth) * flat, np.cos(azimuth) * flat, np.sin(elevation)], axis=1)


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


def _fit_circle(points: Floats) -> tuple[Floats, float]:
    """Fit a circle that is nearly level: its pole, and radians by which it is above a great one."""
    zenith, raised = _vote(points, np.ones(len(points))), 0.0
    for width in np.radians(_HORIZON_WIDTHS):
        for _ in range(10):
            off = points @ zenith - raised
            root = np.exp(-0.25 * (off / width) ** 2)  # of the weights
            east, north = _tangents(zenith)
            design = np.stack([points @ east, points @ north, -np.ones(len(points))], axis=1)
            step = np.linalg.lstsq(root[:, None] * design, -root * off, rcond=None)[0]
            zenith = zenith + step[0] * east + step[1] * north
            zenith /= np.linalg.norm(zenith)
            raised += float(step[2])
    return zenith, raised


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
    sector = _sector(azimuths)
    filled = np.bincount(sector, counts, _SECTORS) >= 0.3
    if filled.sum() < _FEWEST_SECTORS or np.linalg.eigvalsh(system)[0] <= 0:
        return math.inf
    scores = np.stack(
        [np.bincount(sector, counts * off * design[:, k], _SECTORS) for k in range(2)], axis=1
    )
    inverse = np.linalg.inv(system)
    covariance = inverse @ (scores.T @ scores) @ inverse * filled.sum() / (filled.sum() - 2)
    return math.degrees(math.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def _sector(azimuths: Floats) -> NDArray[np.intp]:
    """Which sector radians lie in."""
    return ((azimuths / (2 * math.pi)) % 1 * _SECTORS).astype(np.intp)


def _tangents(zenith: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors across a direction that is nearly up."""
    east = np.array([zenith[2], 0.0, -zenith[0]])
    east /= np.linalg.norm(east)
    return east, np.cross(zenith, east)


def _shrunk(
    image: NDArray[np.uint8], view: PanoramaView, columns: int, mode: str
) -> tuple[Floats, PanoramaView]:
    """Picture in one of Pillow's modes, of at most so many columns a circle, and what it shows."""
    from PIL import Image

    left, right = view.horizontal_fov
    width = min(view.width, max(16, round(columns * (right - left) / 360)))
    height = max(8, round(view.height * width / view.width))
    picture = Image.fromarray(image).convert(mode).resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(picture, np.float64)
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
