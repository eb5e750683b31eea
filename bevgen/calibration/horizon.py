"""Tell from near and far ground whether the horizon lies in the row where it was said to be.

Another camera height moves all ground alike over the logarithm of distance. A wrong horizon moves
far ground much and near ground little. So where both are at rest, height and horizon are right; a
wrong one alone leaves a height that looks as clear as a right one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bevgen.calibration.agreement import between, resampling
from bevgen.calibration.rings import (
    NEAR,
    RINGS,
    STEP,
    Spectrum,
    View,
    edge_directions,
    panorama_rings,
    tile_rings,
)

Array = NDArray[np.float64]

REACH = 20  # rings that ground may have moved, each way
DEGREES = np.arange(-40, 41) / 10  # errors of the horizon that are tried
HEIGHTS = np.arange(-16, 17) / 2  # rings by which the height is refitted for each
OTHERS = (1, 5)  # places further in the list are the wrong tiles, which tell what is chance


def find_horizon_error(
    views: Sequence[View], headings: Sequence[float], ratio: float
) -> tuple[float, float, float]:
    """Find how far the vertical field lies too high, by near and far ground.

    Parameters
    ----------
    views
        Whose `View.pose` has the pitch and roll.
    headings
        Of each, degrees.
    ratio
        Camera height in pixels of the tile, as found with the field as it is.

    Returns
    -------
    value, low, high : float
        Degrees to lower the field by, within those of `DEGREES`, and the 95 per cent interval by
        resampling the views.
    """
    edges = [_edges(view, heading, ratio) for view, heading in zip(views, headings, strict=True)]
    count = len(edges)
    wrong = np.mean(
        [
            _agreement(panorama, edges[(i + step) % count][1])
            for i, (panorama, _) in enumerate(edges)
            for step in OTHERS
        ],
        axis=0,
    )
    scores = np.stack([_scores(_agreement(*one) - wrong) for one in edges])
    value = _best(scores.sum(axis=0))
    drawn = (np.tensordot(some.astype(np.float64), scores, axes=1) for some in resampling(count))
    low, high = np.percentile([_best(one) for few in drawn for one in few], [2.5, 97.5])
    return value, float(low), float(high)


def _edges(view: View, heading: float, ratio: float) -> tuple[Spectrum, Spectrum]:
    """Directions of edges in the panorama, north first, and in the tile, `REACH` rings more."""
    turned = replace(view, pose=replace(view.pose, heading=heading))
    nearest = ratio * NEAR * math.exp(-REACH * STEP)
    return (
        edge_directions(*panorama_rings(turned)),
        edge_directions(*tile_rings(view, nearest, RINGS + 2 * REACH)),
    )


def _agreement(panorama: Spectrum, tile: Spectrum) -> Array:
    """Sum of the edges that agree, for each ring moved outwards so far: (RINGS, 2 * REACH + 1)."""
    moved = range(2 * REACH + 1)
    return np.stack(
        [(panorama.conj() * tile[k : k + RINGS]).real.sum(axis=1, dtype=float) for k in moved],
        axis=1,
    )


def _moves() -> Array:
    """Rings by which ground moves outwards, for each error of the horizon: (D, RINGS)."""
    distance = NEAR * np.exp(STEP * np.arange(RINGS))
    below = np.rad2deg(np.arctan(1 / distance)) + DEGREES[:, None]
    # Ground at the horizon and above is nowhere.
    return np.log(1 / np.tan(np.deg2rad(np.maximum(below, 0.1))) / distance) / STEP


def _scores(agreement: Array) -> Array:
    """Agreement of all rings, for each error of the horizon and height: (D, H)."""
    place = _moves()[:, None, :] + HEIGHTS[:, None] + REACH
    inside = (place > 0.5) & (place < 2 * REACH - 0.5)
    nearest = np.clip(np.rint(place), 1, 2 * REACH - 1).astype(np.intp)
    off = place - nearest
    ring = np.arange(RINGS)
    # A quadratic spline smooths alike at and between rings, so that none of both is preferred.
    value = (
        agreement[ring, nearest - 1] * (0.5 * (0.5 - off) ** 2)
        + agreement[ring, nearest] * (0.75 - off**2)
        + agreement[ring, nearest + 1] * (0.5 * (0.5 + off) ** 2)
    )
    return np.where(inside, value, 0).sum(axis=2)


def _best(scores: Array) -> float:
    """Error of the horizon with the highest score at its own height, between those tried."""
    highest = scores.max(axis=1)
    d = int(highest.argmax())
    if not 0 < d < len(DEGREES) - 1:
        return float(DEGREES[d])
    off, _ = between(*highest[d - 1 : d + 2].tolist())
    return float(DEGREES[d] + off * (DEGREES[1] - DEGREES[0]))
