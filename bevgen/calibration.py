"""Find camera height, heading and horizon by laying panoramas over satellite tiles.

Around the camera both pictures are drawn over azimuth and the logarithm of distance. There another
heading is a shift along one axis, and another camera height (or another ground resolution) a shift
along the other, so that one Fourier transform tries them all. What is compared are the directions
of edges, which survive other light, colours and seasons, and which in these coordinates do not
change with either shift. How much agreement is chance, pairs that do not belong together tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import PanoramaView, Pose

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]
Spectrum = NDArray[np.complex64]
Heading = Literal["known", "common", "per-image"]

MIN_PAIRS = 8
AZIMUTHS = 240  # around the circle
STEP = 2 * math.pi / AZIMUTHS  # of the logarithm of distance: cells are square
NEAR, FAR = 0.8, 10.0  # camera heights from the nadir within which ground is compared
RINGS = int(math.log(FAR / NEAR) / STEP) + 1
SMOOTHING = 1.5  # cells by which pictures are smoothed before their edges are taken
SURROUND = 6.0  # cells around an edge, relative to whose mean strength it counts
ARRANGEMENTS = 12  # of wrong pairs, which tell what chance does
SHARPNESS = 3.0  # how fast belief in a heading grows with its agreement, if each image has its own
HORIZON_COARSE = np.arange(-12.0, 12.1, 3.0)  # degrees around the horizon that was told
FEW = 24  # views are enough for that
HORIZON_FINE = np.arange(-2.0, 2.1, 0.5)  # degrees around the best of those
RESAMPLES = 200
CLEAR, WEAK = 10.0, 6.0  # strengths from which a result counts


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A panorama and the tile it lies on, ready to be compared; `bevgen.pairs.load_view` makes it.

    Attributes
    ----------
    panorama : (H, W) uint8
        Grey values; about `2 * AZIMUTHS` wide for a whole circle.
    lens
        What part of the sphere the panorama shows.
    pose
        Heading, pitch and roll as far as known, else 0; the height does not matter.
    tile : (h, w) uint8
        Grey values, north up.
    row, column
        The camera in the tile, pixels from its upper left corner.
    """

    panorama: Grey
    lens: PanoramaView
    pose: Pose
    tile: Grey
    row: float
    column: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 per cent interval, by resampling the pairs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ImageHeading:
    """The heading found for one panorama, degrees, and how sure that is, 0 to 1."""

    heading: float
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What `calibrate` found.

    Attributes
    ----------
    ratio
        Camera height over ground resolution: the height in pixels of the tile.
    heading
        Degrees to add to the headings that were known; None unless it was asked for.
    horizon
        Degrees to lower the panoramas' vertical field by (the horizon lies higher in the image than
        was told where this is negative); None unless it was asked for.
    verdict
        ``clear``, ``weak`` or ``not found``.
    strength
        How far the agreement of the pairs lies above that of wrong pairs, in standard deviations
        of the latter.
    by_pair : (N,) float64
        Agreement of each pair at the best of all values, in standard deviations of wrong pairs.
    ratios : (K,) float64
        All that were tried.
    by_ratio, by_heading, by_horizon : float64
        Agreement at the best of all other values, over `ratios`, over `AZIMUTHS` headings from 0
        up, and over `horizons`; of one element where there was no search.
    horizons : (D,) float64
        Degrees that were tried, in rising order.
    chance
        The best agreement that wrong pairs reach, on average: what the curves are to be held
        against.
    background
        Mean and standard deviation of the agreement of one wrong pair, as `find_heading` needs it.
    """

    ratio: Estimate
    heading: Estimate | None
    horizon: Estimate | None
    verdict: str
    strength: float
    by_pair: Array
    ratios: Array
    by_ratio: Array
    by_heading: Array
    horizons: Array
    by_horizon: Array
    chance: float
    background: tuple[float, float]


# --- the two pictures over azimuth and log distance ---


def panorama_rings(view: View, horizon: float = 0.0) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw the ground that a panorama shows over log distance and azimuth.

    Parameters
    ----------
    view
        Its panorama, lens and pose.
    horizon
        Degrees to lower the vertical field by.

    Returns
    -------
    grey : (RINGS, AZIMUTHS) float32
        Row p lies ``NEAR * exp(p * STEP)`` camera heights away; column a looks
        ``(a + 0.5) * 360 / AZIMUTHS`` degrees clockwise from north (from the centre column, if
        the heading is not known).
    seen : (RINGS, AZIMUTHS) bool
        What the panorama shows.
    """
    distance, azimuth = _cells(math.log(NEAR), RINGS)
    east, north = distance * np.sin(azimuth), distance * np.cos(azimuth)
    axes = view.pose.world_from_camera().astype(np.float32).T
    right, forward, up = (axis[0] * east + axis[1] * north - axis[2] for axis in axes)
    turned = np.rad2deg(np.arctan2(right, forward))
    elevation = np.rad2deg(np.arctan2(up, np.hypot(right, forward))) + np.float32(horizon)
    (top, bottom), (left, end) = view.lens.vertical_fov, view.lens.horizontal_fov
    height, width = view.panorama.shape
    column = (turned - left) / (end - left) * width - 0.5
    row = (top - elevation) / (top - bottom) * height - 0.5
    return _sample(view.panorama, row, column, view.lens.wraps)


def tile_rings(view: View, nearest: float, rings: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw a tile over log distance from the camera and azimuth.

    Parameters
    ----------
    view
        Its tile, and the camera's place in it.
    nearest
        Pixels of the tile to the first ring.
    rings
        How many.

    Returns
    -------
    grey : (rings, AZIMUTHS) float32
    seen : (rings, AZIMUTHS) bool
        What lies in the tile.
    """
    distance, azimuth = _cells(math.log(nearest), rings)
    row = view.row - distance * np.cos(azimuth) - 0.5
    column = view.column + distance * np.sin(azimuth) - 0.5
    return _sample(view.tile, row, column, wraps=False)


def _cells(first: float, rings: int) -> tuple[Floats, Floats]:
    """Distances (2 * rings, 1) and azimuths (2 * AZIMUTHS,): four points for each cell."""
    distance = np.exp(first + STEP * (np.arange(2 * rings) - 0.5) / 2)
    azimuth = (np.arange(2 * AZIMUTHS) + 0.5) * (math.pi / AZIMUTHS)
    return distance[:, None].astype(np.float32), azimuth.astype(np.float32)


def _sample(
    image: Grey, row: Floats, column: Floats, wraps: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    """Interpolate between pixels (centres at integers), and average the four points of a cell."""
    height, width = image.shape
    seen = (row >= -0.5) & (row <= height - 0.5)
    if wraps:
        column = np.mod(column, width)
    else:
        seen &= (column >= -0.5) & (column <= width - 0.5)
        column = np.clip(column, 0, width - 1)
    row = np.clip(row, 0, height - 1)
    above, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    down, across = (row - above).astype(np.float32), (column - left).astype(np.float32)
    below = np.minimum(above + 1, height - 1)
    right = (left + 1) % width if wraps else np.minimum(left + 1, width - 1)
    left %= width
    upper = image[above, left] * (1 - across) + image[above, right] * across
    lower = image[below, left] * (1 - across) + image[below, right] * across
    grey = (upper * (1 - down) + lower * down).astype(np.float32)
    return _pooled(grey), _pooled(seen.astype(np.float32)) == 1


def _pooled(points: Floats) -> Floats:
    rings, azimuths = points.shape
    return points.reshape(rings // 2, 2, azimuths // 2, 2).mean(axis=(1, 3))


# --- what is compared ---


def edge_directions(grey: Floats, seen: NDArray[np.bool_]) -> Spectrum:
    """Turn a picture over log distance and azimuth into directions of edges.

    Parameters
    ----------
    grey : (rings, AZIMUTHS) float32
    seen : (rings, AZIMUTHS) bool

    Returns
    -------
    (rings, AZIMUTHS) complex64
        The angle is twice the edge's, so that light beside dark and dark beside light are one; the
        modulus is about 1 where the edge is as strong as those around it, 0 where nothing is seen.
    """
    smooth = _blur(np.where(seen, grey, 0) + 1j * seen, SMOOTHING)
    smooth = smooth.real / np.maximum(smooth.imag, 0.05)
    down = np.zeros_like(smooth)
    down[1:-1] = smooth[2:] - smooth[:-2]
    across = np.roll(smooth, -1, axis=1) - np.roll(smooth, 1, axis=1)
    inside = seen.copy()
    inside[1:] &= seen[:-1]
    inside[:-1] &= seen[1:]
    strength = np.hypot(across, down) * inside
    around = _blur(strength + 1j * inside, SURROUND)
    around = around.real / np.maximum(around.imag, 0.05)
    # A step of one grey level is noise and stays small.
    edges = (across + 1j * down) ** 2 / np.maximum(strength, 1e-6) / (around + 1.0)
    return (edges * inside).astype(np.complex64)


def _blur(cells: NDArray[np.complexfloating], scale: float) -> NDArray[np.complex128]:
    """Smooth by a Gaussian of so many cells: around the circle, and mirrored at near and far."""
    rings = len(cells)
    spectrum = np.fft.fft2(np.concatenate([cells, cells[::-1]]))
    around, outwards = (
        np.exp(-2 * (math.pi * scale * np.fft.fftfreq(n)) ** 2) for n in (AZIMUTHS, 2 * rings)
    )
    return np.fft.ifft2(spectrum * around * outwards[:, None])[:rings]


@dataclass(frozen=True, slots=True)
class _Trials:
    """The ratios that are tried: so many, from the lowest up, `STEP` apart in their logarithm."""

    lowest: float
    count: int

    @property
    def rings(self) -> int:
        return RINGS + self.count - 1

    def panorama_spectrum(self, view: View, horizon: float) -> Spectrum:
        return self._spectrum(*panorama_rings(view, horizon))

    def tile_spectrum(self, view: View) -> Spectrum:
        return self._spectrum(*tile_rings(view, self.lowest * NEAR, self.rings))

    def _spectrum(self, grey: Floats, seen: NDArray[np.bool_]) -> Spectrum:
        edges = edge_directions(grey, seen)
        return np.fft.fft2(edges, (self.rings, AZIMUTHS)).astype(np.complex64)

    def agreement(self, panorama: Spectrum, tile: Spectrum) -> Floats:
        """Sum of the edges that agree, for each ratio and heading: (count, AZIMUTHS)."""
        return np.fft.ifft2(panorama.conj() * tile).real[: self.count].astype(np.float32)


# --- what agrees better than chance ---


def calibrate(
    views: Sequence[View],
    *,
    ratios: tuple[float, float],
    heading: Heading = "common",
    horizon: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Find the camera height (in pixels of the tile), and heading and horizon if asked for.

    Parameters
    ----------
    views
        At least `MIN_PAIRS`, of cameras at one height, tiles at one resolution.
    ratios
        Lowest and highest camera height to try, in pixels of the tile.
    heading
        ``known``: as the poses say. ``common``: all are wrong by the same angle. ``per-image``:
        nothing is known; see `find_heading` for each.
    horizon
        Whether to look for the horizon around where the lens has it, up to some 14 degrees off.

    on_progress
        Called with horizons tried and horizons to try.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        If there are too few views, or an argument is out of range.
    """
    lowest, highest = ratios
    if heading not in get_args(Heading):
        raise InputError(f"heading must be known, common or per-image, not {heading!r}")
    if not 0 < lowest < highest < math.inf:
        raise InputError(f"ratios to try must rise from above 0, not {lowest:g} to {highest:g}")
    if len(views) < MIN_PAIRS:
        raise InputError(
            f"{len(views)} pairs are too few to tell what is chance: {MIN_PAIRS} or more, 50 is"
            " good"
        )
    trials = _Trials(lowest, math.ceil(math.log(highest / lowest) / STEP) + 1)
    tiles = [trials.tile_spectrum(view) for view in views]
    degrees = np.zeros(1)
    steps = len(HORIZON_COARSE) + len(HORIZON_FINE) if horizon else 1
    if horizon:
        peaks = []
        for step, h in enumerate(HORIZON_COARSE.tolist()):
            few = _evidence(trials, views[:FEW], tiles[:FEW], heading, h, 4)
            peaks.append(few.pooled.max())
            on_progress(step + 1, steps)
        degrees = HORIZON_COARSE[int(np.argmax(peaks))] + HORIZON_FINE
    evidence = []
    for step, h in enumerate(degrees.tolist()):
        evidence.append(_evidence(trials, views, tiles, heading, h))
        on_progress(steps - len(degrees) + step + 1, steps)
    return _conclude(trials, evidence, degrees, heading)


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """Agreement in standard deviations of chance, for one horizon.

    Attributes
    ----------
    pairs : (N, K, A) float32
        For each pair, ratio and heading; A is 1 where headings are known or each image has its own.
    chance : (M, K, A) float32
        Of arrangements of wrong pairs, pooled.
    mean, deviation : (K,) float64
        Of the agreement of wrong pairs, as `_Trials.agreement` gives it.
    """

    pairs: Floats
    chance: Floats
    mean: Array
    deviation: Array

    @property
    def pooled(self) -> Floats:
        return _pool(self.pairs)


def _pool(pairs: Floats) -> Floats:
    """Sum over pairs; standard deviations again."""
    return pairs.sum(axis=0) / np.float32(math.sqrt(len(pairs)))


def _evidence(
    trials: _Trials,
    views: Sequence[View],
    tiles: Sequence[Spectrum],
    heading: Heading,
    horizon: float,
    arrangements: int = ARRANGEMENTS,
) -> _Evidence:
    """Hold each panorama against its tile and against the tiles of others."""
    panoramas = [trials.panorama_spectrum(view, horizon) for view in views]

    def agreement(order: NDArray[np.intp]) -> Floats:
        return np.stack(
            [trials.agreement(p, tiles[i]) for p, i in zip(panoramas, order.tolist(), strict=True)]
        )

    own = agreement(np.arange(len(views)))
    wrong = np.stack([agreement(order) for order in _wrong_orders(len(views), arrangements)])
    mean, deviation = wrong.mean(axis=(0, 1, 3)), wrong.std(axis=(0, 1, 3)) + 1e-6
    # Where all streets run north, wrong pairs agree at some headings, too: that is chance as well.
    usual = mean[:, None] if heading == "per-image" else wrong.mean(axis=(0, 1))
    own, wrong = ((a - usual) / deviation[:, None] for a in (own, wrong))
    if heading == "known":
        own, wrong = own[..., :1], wrong[..., :1]
    if heading == "per-image":
        own, wrong = _any_heading(own), _any_heading(wrong)
        usual, spread = wrong.mean(axis=(0, 1)), wrong.std(axis=(0, 1)) + 1e-6
        own, wrong = (own - usual) / spread, (wrong - usual) / spread
    chance = np.stack([_pool(arrangement) for arrangement in wrong])
    return _Evidence(own, chance, mean.astype(np.float64), deviation.astype(np.float64))


def _wrong_orders(count: int, arrangements: int) -> list[NDArray[np.intp]]:
    """Give arrangements in which no panorama meets its own tile."""
    order = np.random.default_rng(0).permutation(count)
    place = np.argsort(order)
    return [order[(place + s) % count] for s in range(1, 1 + min(count - 1, arrangements))]


def _any_heading(agreement: Floats) -> Floats:
    """Log likelihood (..., 1) if each heading is as likely as the others: a soft maximum."""
    sharp = SHARPNESS * agreement
    most = sharp.max(axis=-1, keepdims=True)
    return most + np.log(np.exp(sharp - most).mean(axis=-1, keepdims=True))


def _conclude(
    trials: _Trials, evidence: Sequence[_Evidence], degrees: Array, heading: Heading
) -> Calibration:
    """Find the best of all values, how far resampling moves it, and what it is worth."""
    pairs = np.stack([one.pairs for one in evidence], axis=1)
    pooled = _pool(pairs)
    peak = _peak(pooled)
    best_at = peak.tolist()
    moved = _resampled_peaks(pairs) - peak
    around = pooled.shape[2]
    if around > 1:
        moved[:, 2] = (moved[:, 2] + around / 2) % around - around / 2
    # Cells are as fine as pictures are compared: no interval is narrower than one.
    low, high = np.percentile(moved, [2.5, 97.5], axis=0)
    low, high = np.minimum(low, -0.5), np.maximum(high, 0.5)

    def ratio(step: float) -> float:
        return trials.lowest * math.exp(STEP * step)

    def angle(cell: float) -> float:
        return (cell * 360 / AZIMUTHS + 180) % 360 - 180

    def estimate(axis: int, value: float, per_step: float) -> Estimate:
        ends = (value + float(end[axis]) * per_step for end in (low, high))
        return Estimate(value, *ends)

    chance = np.stack([one.chance for one in evidence], axis=1).max(axis=(1, 2, 3))
    best = float(pooled.max())
    # Of a dozen values the deviation is itself uncertain; that of a maximum is never tiny.
    strength = (best - float(chance.mean())) / max(float(chance.std(ddof=1)), 0.3)
    d, k, a = (int(i) for i in np.unravel_index(pooled.argmax(), pooled.shape))
    tilt = float(degrees[1] - degrees[0]) if len(degrees) > 1 else 0.0
    at_end = k in (0, trials.count - 1) or (len(degrees) > 1 and d in (0, len(degrees) - 1))
    return Calibration(
        ratio=Estimate(ratio(peak[1]), ratio(peak[1] + low[1]), ratio(peak[1] + high[1])),
        heading=estimate(2, angle(best_at[2]), 360 / AZIMUTHS) if around > 1 else None,
        horizon=estimate(0, float(degrees[0]) + best_at[0] * tilt, tilt) if tilt else None,
        verdict=_verdict(strength, STEP * float(high[1] - low[1]), at_end),
        strength=strength,
        by_pair=pairs[:, d, k, a].astype(np.float64),
        ratios=trials.lowest * np.exp(STEP * np.arange(trials.count)),
        by_ratio=pooled[d, :, a].astype(np.float64),
        by_heading=pooled[d, k].astype(np.float64),
        horizons=degrees,
        by_horizon=pooled[:, k, a].astype(np.float64),
        chance=float(chance.mean()),
        background=(float(evidence[d].mean[k]), float(evidence[d].deviation[k])),
    )


def _resampled_peaks(pairs: Floats) -> Array:
    """Peaks (RESAMPLES, 3) if other pairs had been drawn: each as often as chance has it."""
    count = len(pairs)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    pooled = (
        np.tensordot(some.astype(np.float32), pairs, axes=1)
        for some in np.array_split(times, RESAMPLES // 10)  # a few at a time: memory
    )
    return np.stack([_peak(one) for few in pooled for one in few])


def _peak(pooled: Floats) -> Array:
    """Place of the highest value along three axes (the last a circle), between cells.

    Another horizon and another height look alike: the peak is a ridge askew to both. So heights and
    headings are settled for each horizon first.
    """
    tops = np.array([_top(one) for one in pooled])
    best = int(tops[:, 0].argmax())
    _, ratio, heading = tops[best].tolist()
    off = 0.0
    if 0 < best < len(tops) - 1:
        off, _ = _between(*tops[best - 1 : best + 2, 0].tolist())
        beside = tops[best + (1 if off > 0 else -1)]
        ratio += abs(off) * (float(beside[1]) - ratio)
    return np.array([best + off, ratio, heading])


def _top(agreement: Floats) -> tuple[float, float, float]:
    """Highest value over ratios and headings, and where it is, between cells."""
    k, a = (int(i) for i in np.unravel_index(agreement.argmax(), agreement.shape))
    last, around = agreement.shape[0] - 1, agreement.shape[1]
    value, ratio, heading = float(agreement[k, a]), float(k), float(a)
    if 0 < k < last:
        off, value = _between(*agreement[k - 1 : k + 2, a].tolist())
        ratio += off
    if around > 1:
        off, _ = _between(*(float(agreement[k, (a + s) % around]) for s in (-1, 0, 1)))
        heading += off
    return value, ratio, heading


def _between(before: float, here: float, after: float) -> tuple[float, float]:
    """Place (of the middle one, -0.5 to 0.5) and height of the parabola through three values."""
    off = 0.5 * (before - after) / min(before - 2 * here + after, -1e-9)
    off = min(max(off, -0.5), 0.5)
    return off, here - 0.25 * (before - after) * off


def _verdict(strength: float, spread: float, at_end: bool) -> str:
    """Say it in words: ``spread`` is the width of the height's interval, relative."""
    if strength < WEAK:
        return "not found"
    return "clear" if strength >= CLEAR and spread < 0.1 and not at_end else "weak"


def find_heading(view: View, calibration: Calibration) -> ImageHeading:
    """Find the heading of one panorama, once height and horizon are known.

    Parameters
    ----------
    view
        Its own heading, if any, is where 0 is.
    calibration
        Of other views of the same cameras and tiles.

    Returns
    -------
    ImageHeading
        The confidence is the part of all likelihood that lies within 3 degrees of the heading,
        the chance that nothing in the picture tells it counted in.
    """
    trial = _Trials(calibration.ratio.value, 1)
    horizon = calibration.horizon.value if calibration.horizon else 0.0
    mean, deviation = calibration.background
    spectra = trial.panorama_spectrum(view, horizon), trial.tile_spectrum(view)
    score = (trial.agreement(*spectra) - mean) / deviation
    cell = _peak(score[None])[2]
    likelihood = np.exp(SHARPNESS * (score[0].astype(np.float64) - score.max()))
    off = (np.arange(AZIMUTHS) - cell + AZIMUTHS / 2) % AZIMUTHS - AZIMUTHS / 2
    near = likelihood[np.abs(off) * 360 / AZIMUTHS <= 3].sum()
    nothing = AZIMUTHS * math.exp(SHARPNESS**2 / 2 - SHARPNESS * float(score.max()))
    confidence = float(near / (likelihood.sum() + nothing))
    return ImageHeading((view.pose.heading + cell * 360 / AZIMUTHS) % 360, confidence)
