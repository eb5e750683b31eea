"""Which height, heading and horizon pairs agree on best, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from bevgen.calibration.agreement import (
    ARRANGEMENTS,
    FEWER,
    SHARPNESS,
    Array,
    Evidence,
    Heading,
    Trials,
    chance_of,
    compare,
    peak,
    top,
)
from bevgen.calibration.horizon import find_horizon_error
from bevgen.calibration.rings import AZIMUTHS, STEP, Spectrum, View, is_cut
from bevgen.errors import InputError
from bevgen.terminal import counted

MIN_PAIRS = 8
HORIZONS = np.arange(-14.0, 14.1)  # degrees around the horizon that was told
LEAST = np.array([0.25, 0.5, 0.5])  # steps of horizon, ratio and heading on each side of a value
FAR_OFF = np.arange(-12.0, 12.1, 4.0)  # degrees, to tell whether it is far from there
FEW = 24  # views are enough for that
NEARBY = 3.5  # degrees that `find_horizon_error` sees to
BESIDE = 0.5  # degrees: so far off, the horizon moves the height by some 4 per cent
CLEAR, WEAK = 10.0, 6.0  # strengths from which a result counts
WIDE_HEIGHT = 0.1  # part of the height, from which on its interval is wide
WIDE_HEADING, WIDE_HORIZON = 10.0, 2.0  # degrees


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
    by_ratio, by_heading : float64
        Agreement at the best of all other values, over `ratios`, and over `AZIMUTHS` headings from
        0 up; of one element where there was no search.
    by_horizon : (D,) float64
        Agreement over `horizons`, each at the height and heading that are best for it.
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
    doubts
        What makes the verdict weak: sentences that begin with the figure they are about.
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
    doubts: tuple[str, ...] = ()

    @property
    def horizon_is_off(self) -> bool:
        """Whether `horizon_error` is clearly not 0; the height is wrong then, the verdict weak."""
        error = self.horizon_error
        if error is None:
            return False
        if abs(error.value) > NEARBY and error.low * error.high > 0:
            return True
        # Six deviations: blurred far ground, where tilts are not known, is no horizon.
        return abs(error.value) > max(BESIDE, 1.5 * (error.high - error.low))


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
            f"too few to tell what is chance: {counted(len(views), 'pair')}; take {MIN_PAIRS} or"
            " more, 50 is good"
        )
    trials = Trials(lowest, math.ceil(math.log(highest / lowest) / STEP) + 1)
    tiles = [trials.tile_spectrum(view) for view in views]
    degrees, arrangements = (HORIZONS, FEWER) if horizon else (np.zeros(1), ARRANGEMENTS)
    unit = chance_of(trials, views, tiles)
    evidence = []
    for step, h in enumerate(degrees.tolist()):
        one = compare(trials, views, tiles, heading, unit, h, arrangements)
        evidence.append(one.evidence())
        on_progress(step + 1, len(degrees))
    found = _conclude(trials, evidence, degrees)
    if horizon or found.verdict == "not found":
        return found
    error = _horizon_error(trials, views, tiles, found, heading)
    return _judged(replace(found, horizon_error=error))


def _horizon_error(
    trials: Trials,
    views: Sequence[View],
    tiles: Sequence[Spectrum],
    found: Calibration,
    heading: Heading,
) -> Estimate:
    """Find how far off the horizon is: by all that agrees where it is much, else by near and far.

    Much is only where panoramas are cut: whole ones have their horizon half way up.
    """
    if heading == "per-image":
        headings = [find_heading(view, found).heading for view in views]
    else:
        offset = found.heading.value if found.heading is not None else 0.0
        headings = [view.pose.heading + offset for view in views]
    if is_cut(views[0].lens.vertical_fov):
        few = [
            replace(view, pose=replace(view.pose, heading=own))
            for view, own in zip(views[:FEW], headings, strict=False)
        ]
        unit = chance_of(trials, few, tiles[:FEW])
        evidence = [
            compare(trials, few, tiles[:FEW], "known", unit, h, 2).evidence()
            for h in FAR_OFF.tolist()
        ]
        far = _conclude(trials, evidence, FAR_OFF).horizon
        if far is not None and abs(far.value) > NEARBY and far.low * far.high > 0:
            return far
    return Estimate(*find_horizon_error(views, headings, found.ratio.value))


def _conclude(trials: Trials, evidence: Sequence[Evidence], degrees: Array) -> Calibration:
    """Find the best of all values, how far resampling moves it, and what it is worth."""
    tops = np.array([top(one.pooled) for one in evidence])
    best_at = peak(tops)
    resampled = np.stack([one.resampled for one in evidence], axis=1)
    moved = np.array([peak(tops) for tops in resampled]) - best_at
    around = evidence[0].pooled.shape[1]
    if around > 1:
        moved[:, 2] = (moved[:, 2] + around / 2) % around - around / 2
    # Cells are as fine as pictures are compared: no interval is narrower than one.
    low, high = np.percentile(moved, [2.5, 97.5], axis=0)
    low, high = np.minimum(low, -LEAST), np.maximum(high, LEAST)

    def ratio(step: float) -> float:
        return trials.lowest * math.exp(STEP * step)

    def angle(cell: float) -> float:
        return (cell * 360 / AZIMUTHS + 180) % 360 - 180

    def estimate(axis: int, value: float, per_step: float) -> Estimate:
        ends = (value + float(end[axis]) * per_step for end in (low, high))
        return Estimate(value, *ends)

    d = int(tops[:, 0].argmax())
    own = evidence[d]
    k, a = (int(i) for i in np.unravel_index(own.pooled.argmax(), own.pooled.shape))
    unit = float(own.spread[k])
    chance = np.max([one.chance for one in evidence], axis=0) / unit
    best = float(own.pooled[k, a]) / unit
    # Of a dozen values the deviation is itself uncertain; that of a maximum is never tiny.
    strength = (best - float(chance.mean())) / max(float(chance.std(ddof=1)), 0.3)
    tilt = float(degrees[1] - degrees[0]) if len(degrees) > 1 else 0.0
    found = Calibration(
        ratio=Estimate(*(ratio(best_at[1] + off) for off in (0.0, low[1], high[1]))),
        heading=estimate(2, angle(float(best_at[2])), 360 / AZIMUTHS) if around > 1 else None,
        horizon=estimate(0, float(degrees[0] + best_at[0] * tilt), tilt) if tilt else None,
        verdict="clear",
        strength=strength,
        by_pair=own.by_pair / unit,
        ratios=trials.lowest * np.exp(STEP * np.arange(trials.count)),
        by_ratio=own.pooled[:, a].astype(np.float64) / unit,
        by_heading=own.pooled[k].astype(np.float64) / unit,
        horizons=degrees,
        by_horizon=tops[:, 0] / unit,
        chance=float(chance.mean()),
        background=(float(own.mean[k]), float(own.deviation[k])),
    )
    return _judged(found)


def _judged(found: Calibration) -> Calibration:
    """Decide the verdict, and say what keeps it from being clear."""
    if found.strength < WEAK:
        return replace(found, verdict="not found", doubts=())
    doubts = tuple(_doubts(found))
    return replace(found, verdict="weak" if doubts else "clear", doubts=doubts)


def _doubts(found: Calibration) -> Iterator[str]:
    """Give a sentence for each figure that is not sure."""
    if found.strength < CLEAR:
        yield (
            f"all: pairs agree by {found.strength:.1f} standard deviations more than wrong pairs,"
            f" {CLEAR:.0f} are clear; add pairs (--sample)"
        )
    ratio, ratios = found.ratio, found.ratios
    part = (ratio.high - ratio.low) / ratio.value
    if part > WIDE_HEIGHT:
        yield (
            f"height: its interval is {part:.0%} of it wide, more than {WIDE_HEIGHT:.0%}; add pairs"
            " (--sample)"
        )
    if not ratios[0] * math.exp(STEP) <= ratio.value <= ratios[-1] * math.exp(-STEP):
        yield (
            f"height: {ratio.value:.1f} pixels of the tile are at the end of what was tried,"
            f" {ratios[0]:.1f} to {ratios[-1]:.1f}; check --resolution and --reference"
        )
    for name, angle, limit in (
        ("heading", found.heading, WIDE_HEADING),
        ("horizon", found.horizon, WIDE_HORIZON),
    ):
        if angle is not None and angle.high - angle.low > limit:
            yield (
                f"{name}: its interval is {angle.high - angle.low:.1f} degrees wide, more than"
                f" {limit:g}; add pairs (--sample)"
            )
    if found.horizon is not None and abs(found.horizon.value) > found.horizons[-1] - 1:
        yield (
            f"horizon: {abs(found.horizon.value):.1f} degrees off is the last that was tried; give"
            " a better --vertical-fov"
        )
    error = found.horizon_error
    if error is not None and found.horizon_is_off:
        yield (
            "height: near and far ground disagree on it, as they do where the horizon lies"
            f" {abs(error.value):.1f} degrees {'higher' if error.value > 0 else 'lower'} than told"
        )


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
