"""Headings to try where none is known, and the best of them between the steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class HeadingSearch:
    """How headings are searched for.

    Attributes
    ----------
    step
        Degrees between two that are tried, at most.
    weights
        Weight of each branch's score in the choice of the heading; others count 0. The BEV decides
        by default: a panorama's embedding hardly changes with its heading. Without any of these
        branches the joined score does.
    """

    step: float = 15.0
    weights: dict[str, float] = field(default_factory=lambda: {"bev": 1.0})

    def headings(self, known: float | None, within: float | None) -> NDArray[np.float64]:
        """Return the headings (R,) to try, the likeliest first.

        Parameters
        ----------
        known
            What is known, in degrees; None for nothing.
        within
            How far the true one may be from it; None for not at all.
        """
        if known is not None and not within:
            return np.array([known % 360])
        start = known or 0.0
        if known is None or within is None or within >= 180:
            count = max(round(360 / self.step), 1)
            return (start + np.arange(count) * 360 / count) % 360
        side = int(np.ceil(within / self.step))
        steps = np.linspace(-within, within, 2 * side + 1)
        return (start + steps[np.argsort(np.abs(steps), kind="stable")]) % 360

    def choose(
        self, scores: NDArray[np.float32], branch_scores: dict[str, NDArray[np.float32]]
    ) -> NDArray[np.int64]:
        """Choose the rotation (K,) of each candidate from scores (R, K)."""
        shares = {n: w for n, w in self.weights.items() if n in branch_scores}
        if shares:
            parts = [weight * branch_scores[name] for name, weight in shares.items()]
            scores = np.sum(parts, axis=0)
        return scores.argmax(axis=0)


def refine(headings: NDArray[np.float64], scores: NDArray[np.float32], best: int) -> float:
    """Return the heading between the steps at which a parabola through three scores is highest.

    Parameters
    ----------
    headings : (R,) float64
        Degrees, in any order.
    scores : (R,) float32
        Of one candidate.
    best
        Which of them was chosen.
    """
    middle = headings[best]
    if len(headings) < 3:
        return float(middle)
    offset = (headings - middle + 180) % 360 - 180
    after = np.where(offset > 1e-6, offset, np.inf)
    before = np.where(offset < -1e-6, offset, -np.inf)
    if not (np.isfinite(after).any() and np.isfinite(before).any()):
        return float(middle)
    right, left = int(after.argmin()), int(before.argmax())
    step = min(offset[right], -offset[left])
    curve = scores[left] + scores[right] - 2 * scores[best]
    if step > 60 or curve >= 0:
        return float(middle)
    shift = 0.5 * (scores[left] - scores[right]) / curve
    return float((middle + np.clip(shift, -0.5, 0.5) * step) % 360)
