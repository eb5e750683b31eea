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
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from bevgen.calibration.agreement import (
    SHARPNESS,
    Array,
    Evidence,
    Heading,
    Trials,
    gather,
    peak,
    top,
)
from bevgen.calibration.horizon import find_horizon_error
from bevgen.calibration.rings import AZIMUTHS, STEP, View
from bevgen.errors import InputError

MIN_PAIRS = 8
HORIZON_COARSE = np.arange(-12.0, 12.1, 3.0)  # degrees around the horizon that was told
FEW = 24  # views are enough for that
HORIZON_FINE = np.arange(-2.0, 2.1, 0.5)  # degrees around the best of those
BESIDE = 0.5  # degrees: so far off, the horizon moves the height by some 4 per cent
CLEAR, WEAK = 10.0, 6.0  # strengths from which a result counts


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
        Degrees to lower the panoramas' vertical field by (where this is positive, the horizon lies
        higher in the image than was told); None unless it was asked for.
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
    horizon_error
        Degrees to lower the vertical field by so that near and far ground agree on the height. None
        where nothing, or the horizon itself, was found.
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
    horizon_error: Estimate | None = None

    @property
    def horizon_is_off(self) -> bool:
        """Whether `horizon_error` is clearly not 0; the height is wrong then, the verdict weak."""
        error = self.horizon_error
        # Six deviations: blurred far ground, where tilts are not known, is no horizon.
        return error is not None and abs(error.value) > max(BESIDE, 1.5 * (error.high - error.low))


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
    trials = Trials(lowest, math.ceil(math.log(highest / lowest) / STEP) + 1)
    tiles = [trials.tile_spectrum(view) for view in views]
    degrees = np.zeros(1)
    steps = len(HORIZON_COARSE) + len(HORIZON_FINE) if horizon else 1
    if horizon:
        peaks = []
        for step, h in enumerate(HORIZON_COARSE.tolist()):
            few = gather(trials, views[:FEW], tiles[:FEW], heading, h, 4)
            peaks.append(few.pooled.max())
            on_progress(step + 1, steps)
        degrees = HORIZON_COARSE[int(np.argmax(peaks))] + HORIZON_FINE
    evidence = []
    for step, h in enumerate(degrees.tolist()):
        evidence.append(gather(trials, views, tiles, heading, h))
        on_progress(steps - len(degrees) + step + 1, steps)
    found = _conclude(trials, evidence, degrees)
    if horizon or found.verdict == "not found":
        return found
    found = replace(found, horizon_error=_horizon_error(views, found, heading))
    return replace(found, verdict="weak") if found.horizon_is_off else found


def _horizon_error(views: Sequence[View], found: Calibration, heading: Heading) -> Estimate:
    if heading == "per-image":
        headings = [find_heading(view, found).heading for view in views]
    else:
        offset = found.heading.value if found.heading is not None else 0.0
        headings = [view.pose.heading + offset for view in views]
    return Estimate(*find_horizon_error(views, headings, found.ratio.value))


def _conclude(trials: Trials, evidence: Sequence[Evidence], degrees: Array) -> Calibration:
    """Find the best of all values, how far resampling moves it, and what it is worth."""
    pooled = np.stack([one.pooled for one in evidence])
    best_at = peak(np.array([top(one) for one in pooled]))
    resampled = np.stack([one.resampled for one in evidence], axis=1)
    moved = np.array([peak(tops) for tops in resampled]) - best_at
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

    chance = np.max([one.chance for one in evidence], axis=0)
    best = float(pooled.max())
    # Of a dozen values the deviation is itself uncertain; that of a maximum is never tiny.
    strength = (best - float(chance.mean())) / max(float(chance.std(ddof=1)), 0.3)
    d, k, a = (int(i) for i in np.unravel_index(pooled.argmax(), pooled.shape))
    tilt = float(degrees[1] - degrees[0]) if len(degrees) > 1 else 0.0
    at_end = k in (0, trials.count - 1) or (len(degrees) > 1 and d in (0, len(degrees) - 1))
    return Calibration(
        ratio=Estimate(*(ratio(best_at[1] + off) for off in (0.0, low[1], high[1]))),
        heading=estimate(2, angle(float(best_at[2])), 360 / AZIMUTHS) if around > 1 else None,
        horizon=estimate(0, float(degrees[0] + best_at[0] * tilt), tilt) if tilt else None,
        verdict=_verdict(strength, STEP * float(high[1] - low[1]), at_end),
        strength=strength,
        by_pair=evidence[d].by_pair,
        ratios=trials.lowest * np.exp(STEP * np.arange(trials.count)),
        by_ratio=pooled[d, :, a].astype(np.float64),
        by_heading=pooled[d, k].astype(np.float64),
        horizons=degrees,
        by_horizon=pooled[:, k, a].astype(np.float64),
        chance=float(chance.mean()),
        background=(float(evidence[d].mean[k]), float(evidence[d].deviation[k])),
    )


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
    trial = Trials(calibration.ratio.value, 1)
    horizon = calibration.horizon.value if calibration.horizon else 0.0
    mean, deviation = calibration.background
    spectra = trial.panorama_spectrum(view, horizon), trial.tile_spectrum(view)
    score = (trial.agreement(*spectra) - mean) / deviation
    _, _, cell = top(score)
    likelihood = np.exp(SHARPNESS * (score[0].astype(np.float64) - score.max()))
    off = (np.arange(AZIMUTHS) - cell + AZIMUTHS / 2) % AZIMUTHS - AZIMUTHS / 2
    near = likelihood[np.abs(off) * 360 / AZIMUTHS <= 3].sum()
    nothing = AZIMUTHS * math.exp(SHARPNESS**2 / 2 - SHARPNESS * float(score.max()))
    confidence = float(near / (likelihood.sum() + nothing))
    return ImageHeading((view.pose.heading + cell * 360 / AZIMUTHS) % 360, confidence)
