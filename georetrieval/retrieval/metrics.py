"""Figures made of ranks and distances, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from georetrieval.retrieval.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


def summarize(
    ranking: Ranking, metres: NDArray[np.float64], *, seed: int = 0, resamples: int = 2000
) -> dict[str, Estimate]:
    """Turn ranks into the field's figures.

    Parameters
    ----------
    ranking
        Of all queries.
    metres : (Q,) float64
        From each query to its best match; NaN where a position is unknown.
    seed, resamples
        Of the bootstrap over queries.

    Returns
    -------
    dict
        ``R@1``, ``R@5``, ``R@10``, ``R@1%``, ``hit rate`` and ``AP`` (mean average precision) in
        per cent; ``median rank`` (1 is best) and ``median metres``. R@1% takes the first gallery
        // 100, as Sample4Geo, EP-BEV and TransGeo do, but at least one; VIGOR's own code takes one
        more, and so does University-1652's, which rounds instead of cutting.
    """
    rank = ranking.rank
    within = {"R@1": 1, "R@5": 5, "R@10": 10, "R@1%": max(ranking.gallery // 100, 1)}
    shares = {name: 100.0 * (rank < k) for name, k in within.items()}
    shares["hit rate"] = 100.0 * (ranking.rank_hit < 1)
    random = np.random.default_rng(seed)
    # The bootstrap in closed form: a share drawn again is binomial, and the median of n draws is
    # the value at the median of n uniform numbers, which is beta-distributed.
    n = len(rank)
    result = {
        name: _estimate(share.mean(), 100 / n * random.binomial(n, share.mean() / 100, resamples))
        for name, share in shares.items()
    }
    result["AP"] = _estimate(
        100 * ranking.precision.mean(), 100 * _drawn_means(ranking.precision, resamples, seed)
    )
    for name, values in (("median rank", rank + 1.0), ("median metres", metres)):
        known = np.sort(values[~np.isnan(values)])
        if len(known):
            half = (len(known) + 1) / 2
            drawn = known[(random.beta(half, half, resamples) * len(known)).astype(int)]
            result[name] = _estimate(np.median(known), drawn)
    return result


def _drawn_means(values: NDArray[np.float64], count: int, seed: int) -> NDArray[np.float64]:
    """Return the means of as many values drawn again: how often each was drawn is multinomial."""
    different, times = np.unique(values, return_counts=True)
    random = np.random.default_rng([seed, 1])
    if len(different) > 1000:  # so many that the mean is normal
        return random.normal(values.mean(), values.std() / len(values) ** 0.5, count)
    drawn = random.multinomial(len(values), times / len(values), count)
    return drawn @ different / len(values)


def _estimate(value: np.floating, drawn: NDArray[np.floating]) -> Estimate:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
