"""Where did the cameras stand? Overlapping ground pictures tell it better than GPS and compass.

A placement is a row (east, north, heading, pitch, roll), angles in degrees as in `bevgen.Pose`.
Panoramas come in as level views, BEVs drawn as if heading, pitch and roll were 0: on flat ground
any other pose is a homography of that picture, so nothing has to be projected again.

Inside, lengths are in camera heights: pictures of flat ground cannot tell a larger world seen by a
higher camera, and so the result for another height is the same picture, scaled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from bevgen import Pose
from bevgen.errors import InputError

Array = NDArray[np.float64]
Picture = NDArray[np.float32]

TURNS = np.arange(-20.0, 20.1, 2.0)  # degrees tried around the compass heading
SHIFT = 4.0  # metres tried around the GPS position, in any direction
NEAR = 0.75  # heights around the nadir that show whoever carries the camera
MIN_OVERLAP = 1.6  # square heights of common ground below which two frames say nothing


@dataclass(frozen=True, slots=True)
class Level:
    """One step from coarse to fine: what is compared. Lengths are in camera heights.

    Attributes
    ----------
    resolution
        Per pixel of the comparison.
    blur, surround
        Detail between these two sizes counts.
    far
        Distance from the camera; beyond, panoramas are too coarse and the ground not flat enough.
    tilt
        What one (squared) degree of pitch or roll costs, per compared pixel: keeps the tilt small
        where pictures hardly show it.
    """

    resolution: float
    blur: float
    surround: float
    far: float
    tilt: float


SEARCH = Level(0.05, 0.08, 0.32, 3.2, 0.0)
REFINE = (
    Level(0.05, 0.16, 0.64, 2.6, 2e-4),
    Level(0.05, 0.08, 0.32, 3.4, 1e-4),
    Level(0.025, 0.042, 0.26, 4.2, 2e-5),
)

# Half of a numeric derivative's step, and the step below which a refinement has settled.
_DERIVATIVE = np.array([0.01, 0.01, 0.2, 0.2, 0.2])
_SETTLED = np.array([0.0005, 0.0005, 0.01, 0.01, 0.01])
_ROBUST = 0.5  # differences of detail (about unit variance) beyond this count less and less


@dataclass(frozen=True, slots=True, eq=False)
class LevelViews:
    """BEVs of several panoramas, drawn with heading, pitch and roll 0.

    Attributes
    ----------
    images : (N, S, S) float32
        Grey values.
    seen : (N, S, S) bool
        What the panoramas show.
    resolution
        Camera heights per pixel; S times this should be at least 12.
    """

    images: Picture
    seen: NDArray[np.bool_]
    resolution: float


@dataclass(frozen=True, slots=True)
class _Window:
    """A north-up square of ground on which views are compared: its centre and its pixels."""

    east: float
    north: float
    size: int
    resolution: float


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """The ground that each pair (i, j) of frames shows: indices into the window's pixels."""

    views: LevelViews
    window: _Window
    pairs: dict[tuple[int, int], NDArray[np.intp]]


def register(views: LevelViews, guess: Array, height: float) -> Array:
    """Place cameras so that their pictures of the ground agree.

    Each frame is first searched for around its predecessor, by shift and turn alone; then all
    placements are refined together, pitch and roll included, by minimising the difference of
    fine detail wherever two frames show the same ground.

    Parameters
    ----------
    views
        At least two frames in the order of the drive; neighbours share ground.
    guess : (N, 5)
        East and north in metres, heading, pitch and roll in degrees; good to a few metres and
        20 degrees of heading.
    height
        Metres of all cameras above the ground.

    Returns
    -------
    (N, 5) float64
        Pictures only tell how frames stand to each other, so the mean of position and heading
        stays that of ``guess``. Pitch and roll are against the ground, not against gravity.

    Raises
    ------
    InputError
        If two neighbours share no ground.
    """
    start = guess / [height, height, 1, 1, 1]
    detail = _detail(views, SEARCH)
    placements = start.copy()
    for i in range(len(start) - 1):
        east, north, turn = _search(detail, i, i + 1, start, height)
        turned = placements[i, 2] - start[i, 2]
        placements[i + 1, :2] = placements[i, :2] + _turn(np.array([east, north]), turned)
        placements[i + 1, 2] = start[i + 1, 2] + turned + turn
    for level in REFINE:
        placements = _refine(_compare(views, placements, level), level, placements, start[:, 3:])
    return _keep_mean(placements, start) * [height, height, 1, 1, 1]


def correlations(views: LevelViews, placements: Array, height: float) -> Array:
    """Correlate each frame with its predecessor, over the ground that both show.

    Parameters
    ----------
    views
        N frames.
    placements : (N, 5)
        Where they stand; metres and degrees.
    height
        Metres of all cameras above the ground.

    Returns
    -------
    (N - 1,) float64
        Pearson correlation, -1 to 1, of the detail that the last step of `register` compares: of
        0.04 to 0.26 camera heights, between 0.75 and 4.2 heights from both cameras. NaN where two
        frames share too little.
    """
    placements = placements / [height, height, 1, 1, 1]
    comparison = _compare(views, placements, REFINE[-1])
    drawn = _draw_all(comparison, placements)
    result = np.full(len(placements) - 1, np.nan)
    for (i, j), where in comparison.pairs.items():
        if j == i + 1:
            result[i] = np.corrcoef(drawn[i][where], drawn[j][where])[0, 1]
    return result


def _detail(views: LevelViews, level: Level) -> LevelViews:
    """Keep detail of one range of sizes, at equal contrast everywhere: light and colour differ."""

    def smooth(image: Picture, size: float) -> Picture:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), size / views.resolution), np.float32)

    def one(image: Picture) -> Picture:
        surround = smooth(image, level.surround)
        contrast = smooth((image - surround) ** 2, level.surround)
        # A contrast of 5 grey levels is noise and stays small.
        detail = (smooth(image, level.blur) - surround) / np.sqrt(contrast + 25)
        return detail.astype(np.float32)

    return replace(views, images=np.stack([one(image) for image in views.images]))


def _draw(image: Picture, resolution: float, placement: Array, window: _Window) -> Picture:
    """Draw a level view (or a mask of one) as it lies in the world if its camera stood there."""
    east, north, heading, pitch, roll = placement.tolist()
    edge = (0.5 - window.size / 2) * window.resolution
    from_camera = [
        [window.resolution, 0, window.east + edge - east],
        [0, -window.resolution, window.north - edge - north],
        [0, 0, -1],
    ]
    # A level camera would see the same ray (right, forward, up) hit the ground at
    # (right, forward) / -up.
    axes = Pose(1.0, heading, pitch, roll).world_from_camera().T
    centre = image.shape[0] / 2 - 0.5
    to_view = np.array([[-1 / resolution, 0, centre], [0, 1 / resolution, centre], [0, 0, 1]])
    drawn = cv2.warpPerspective(
        image,
        to_view @ axes @ np.array(from_camera),
        (window.size, window.size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    return np.asarray(drawn, np.float32)


def _draw_ground(
    views: LevelViews, i: int, far: float, placement: Array, window: _Window
) -> NDArray[np.bool_]:
    """Draw where a view shows ground worth comparing: neither its carrier nor far away."""
    size = views.images.shape[1]
    offset = (np.arange(size) + 0.5 - size / 2) * views.resolution
    distance = np.hypot(offset[None, :], offset[:, None])
    ring = views.seen[i] & (distance > NEAR) & (distance < far)
    return _draw(ring.astype(np.float32), views.resolution, placement, window) > 0.99


def _draw_all(comparison: _Comparison, placements: Array) -> list[Picture]:
    """Draw all views as they lie in the world, each (pixels,)."""
    views, window = comparison.views, comparison.window
    return [
        _draw(image, views.resolution, placement, window).ravel()
        for image, placement in zip(views.images, placements, strict=True)
    ]


def _compare(views: LevelViews, placements: Array, level: Level) -> _Comparison:
    """Find the ground that pairs of frames have in common, if they stand like that."""
    low, high = placements[:, :2].min(axis=0), placements[:, :2].max(axis=0)
    size = round(((high - low).max() + 2 * level.far) / level.resolution)
    east, north = ((low + high) / 2).tolist()
    window = _Window(east, north, size, level.resolution)
    grounds = [
        _draw_ground(views, i, level.far, p, window).ravel() for i, p in enumerate(placements)
    ]
    pairs = {
        (i, j): np.flatnonzero(grounds[i] & grounds[j])
        for i, j in combinations(range(len(grounds)), 2)
    }
    least = MIN_OVERLAP / level.resolution**2
    pairs = {pair: where for pair, where in pairs.items() if where.size > least}
    return _Comparison(_detail(views, level), window, pairs)


def _search(
    detail: LevelViews, i: int, j: int, start: Array, height: float
) -> tuple[float, float, float]:
    """Find frame j around frame i: heights east and north of it, and degrees to turn j by.

    Normalised cross-correlation of masked pictures, all shifts at once by Fourier transform.
    """
    step, n = SEARCH.resolution, round(2 * SEARCH.far / SEARCH.resolution)
    window = _Window(0.0, 0.0, n, step)

    def spectra(k: int, heading: float) -> list[NDArray[np.complex128]]:
        stand = np.array([0, 0, heading, 0, 0])
        ground = _draw_ground(detail, k, SEARCH.far, stand, window)
        image = _draw(detail.images[k], detail.resolution, stand, window) * ground
        return [np.fft.rfft2(a, (2 * n, 2 * n)) for a in (image, image**2, ground)]

    def shifted_sums(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> Array:
        return np.fft.fftshift(np.fft.irfft2(a * b.conj(), (2 * n, 2 * n)))

    shift = (np.arange(2 * n) - n) * step
    east, north = (start[j, :2] - start[i, :2]).tolist()
    allowed = np.hypot(shift[None, :] - east, -shift[:, None] - north) < SHIFT / height
    image, square, ground = spectra(i, start[i, 2])
    best = (0.0, 0.0, 0.0, 0.0)
    for turn in TURNS.tolist():
        other, other_square, other_ground = spectra(j, start[j, 2] + turn)
        energy = shifted_sums(square, other_ground) * shifted_sums(ground, other_square)
        enough = shifted_sums(ground, other_ground) * step**2 > MIN_OVERLAP
        score = shifted_sums(image, other) / np.sqrt(np.maximum(energy, 1e-9))
        score = np.where(allowed & enough, score, -1.0)
        row, column = np.unravel_index(score.argmax(), score.shape)
        best = max(best, (score[row, column], float(shift[column]), float(-shift[row]), turn))
    if best[0] <= 0:
        raise InputError(
            f"frames {i + 1} and {j + 1} share no ground: they are"
            f" {np.hypot(east, north) * height:.1f} m apart, and cameras {height:g} m up may be at"
            f" most {SEARCH.far * 1.7 * height:.0f} m apart"
        )
    return best[1:]


def _refine(
    comparison: _Comparison, level: Level, placements: Array, upright: Array, rounds: int = 40
) -> Array:
    """Let all placements settle together (Levenberg-Marquardt with robust differences).

    The first frame keeps position and heading, as pictures cannot tell where the whole is. Pitch
    and roll are drawn mildly towards ``upright`` (N, 2).
    """
    n = len(placements)
    free = np.r_[3 : 5 * n]
    tilt = level.tilt * sum(where.size for where in comparison.pairs.values())
    drawn, damping = _draw_all(comparison, placements), 1e-3
    cost = _cost(comparison, drawn) + tilt * ((placements[:, 3:] - upright) ** 2).sum()
    for _ in range(rounds):
        matrix, vector = _normal_equations(comparison, drawn, placements)
        matrix[np.diag_indices(5 * n)] += np.tile([0, 0, 0, tilt, tilt], n)
        vector.reshape(n, 5)[:, 3:] -= tilt * (placements[:, 3:] - upright)
        while True:
            step = np.zeros(5 * n)
            damped = matrix + damping * np.diag(np.diag(matrix))
            step[free] = np.linalg.solve(damped[np.ix_(free, free)], vector[free])
            trial = placements + step.reshape(n, 5)
            trial_drawn = _draw_all(comparison, trial)
            trial_cost = _cost(comparison, trial_drawn)
            trial_cost += tilt * ((trial[:, 3:] - upright) ** 2).sum()
            if trial_cost < cost:
                break
            damping *= 4
            if damping > 1e3:
                return placements
        placements, drawn, cost, damping = trial, trial_drawn, trial_cost, damping / 10
        if (np.abs(step.reshape(n, 5)) < _SETTLED).all():
            break
    return placements


def _cost(comparison: _Comparison, drawn: list[Picture]) -> float:
    """Sum of robust squared differences (pseudo-Huber) over all common ground."""
    total = 0.0
    for (i, j), where in comparison.pairs.items():
        r = (drawn[i][where] - drawn[j][where]) / _ROBUST
        total += float((np.sqrt(1 + r**2) - 1).sum(dtype=np.float64)) * 2 * _ROBUST**2
    return total


def _normal_equations(
    comparison: _Comparison, drawn: list[Picture], placements: Array
) -> tuple[Array, Array]:
    """Matrix (5N, 5N) and right side (5N,) of one Gauss-Newton step on `_cost`."""
    n = len(placements)
    plus, minus = (
        [_draw_all(comparison, placements + sign * step) for step in np.diag(_DERIVATIVE)]
        for sign in (1, -1)
    )
    slopes = [
        np.stack([(plus[k][i] - minus[k][i]) / (2 * _DERIVATIVE[k]) for k in range(5)])
        for i in range(n)
    ]
    matrix, vector = np.zeros((5 * n, 5 * n)), np.zeros(5 * n)
    for (i, j), where in comparison.pairs.items():
        r = drawn[i][where] - drawn[j][where]
        jacobian = np.concatenate([slopes[i][:, where], -slopes[j][:, where]])
        weighted = jacobian / np.sqrt(1 + (r / _ROBUST) ** 2)
        at = np.r_[5 * i : 5 * i + 5, 5 * j : 5 * j + 5]
        matrix[np.ix_(at, at)] += weighted @ jacobian.T
        vector[at] -= weighted @ r
    return matrix, vector


def _turn(vectors: Array, degrees: float) -> Array:
    """Turn vectors (..., 2) of east and north clockwise."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return vectors @ np.array([[c, -s], [s, c]])


def _keep_mean(placements: Array, start: Array) -> Array:
    """Move and turn the whole so that the mean position and heading are those of the start."""
    turn = float((start[:, 2] - placements[:, 2]).mean())
    kept = placements.copy()
    kept[:, :2] = _turn(placements[:, :2] - placements[:, :2].mean(axis=0), turn)
    kept[:, :2] += start[:, :2].mean(axis=0)
    kept[:, 2] += turn
    return kept
