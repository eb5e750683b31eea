"""How well panoramas agree with their tiles over heights and headings, and what of it is chance.

One Fourier transform tries all heights and headings of a pair. How much agreement is chance, pairs
that do not belong together tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bevgen.calibration.rings import (
    AZIMUTHS,
    NEAR,
    RINGS,
    Floats,
    Spectrum,
    View,
    edge_directions,
    panorama_rings,
    tile_rings,
)

Array = NDArray[np.float64]
Heading = Literal["known", "common", "per-image"]

ARRANGEMENTS = 12  # of wrong pairs, which tell what chance does
FEWER = 6  # where there are many horizons
SHARPNESS = 3.0  # how fast belief in a heading grows with its agreement, if each image has its own
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Trials:
    """The ratios that are tried: so many, from the lowest up, `STEP` apart in their logarithm."""

    lowest: float
    count: int

    @property
    def rings(self) -> int:
        """Rings of a tile, so that a panorama's fit at each ratio."""
        return RINGS + self.count - 1

    def panorama_spectrum(self, view: View, horizon: float) -> Spectrum:
        """Transform a panorama's edges, its vertical field lowered by ``horizon`` degrees."""
        return self._spectrum(*panorama_rings(view, horizon))

    def tile_spectrum(self, view: View) -> Spectrum:
        """Transform a tile's edges."""
        return self._spectrum(*tile_rings(view, self.lowest * NEAR, self.rings))

    def _spectrum(self, grey: Floats, seen: NDArray[np.bool_]) -> Spectrum:
        edges = edge_directions(grey, seen)
        return np.fft.fft2(edges, (self.rings, AZIMUTHS)).astype(np.complex64)

    def agreement(self, panorama: Spectrum, tile: Spectrum) -> Floats:
        """Sum of the edges that agree, for each ratio and heading: (count, AZIMUTHS)."""
        return np.fft.ifft2(panorama.conj() * tile).real[: self.count].astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Agreement of all pairs for one horizon, in the unit of `Compared`.

    Attributes
    ----------
    pooled : (K, A) float32
        Of all pairs together, for each ratio and heading.
    spread : (K,) float64
        Standard deviation of ``pooled`` by chance.
    by_pair : (N,) float64
        Of each pair at the highest of ``pooled``.
    resampled : (RESAMPLES, 3) float64
        The highest values, and where they are (ratio, heading), if other pairs had been drawn.
    chance : (M,) float64
        The highest that arrangements of wrong pairs reach.
    mean, deviation : (K,) float64
        Of the agreement of wrong pairs, as `Trials.agreement` gives it.
    """

    pooled: Floats
    spread: Array
    by_pair: Array
    resampled: Array
    chance: Array
    mean: Array
    deviation: Array


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Agreement of each pair for one horizon, in a unit that is one for all ratios and horizons.

    Chance itself does less where less of the tile or of the panorama is compared. Agreement in its
    standard deviations would be the higher there: heights and horizons would come out too high.

    Attributes
    ----------
    pairs : (N, K, A) float32
        For each ratio and heading; A is 1 where headings are known or each image has its own.
    spread, chance, mean, deviation
        As in `Evidence`.
    """

    pairs: Floats
    spread: Array
    chance: Array
    mean: Array
    deviation: Array

    def evidence(self) -> Evidence:
        """Put the pairs together."""
        pooled = _pool(self.pairs)
        k, a = np.unravel_index(pooled.argmax(), pooled.shape)
        return Evidence(
            pooled=pooled,
            spread=self.spread,
            by_pair=self.pairs[:, k, a].astype(np.float64),
            resampled=_resampled(self.pairs),
            chance=self.chance,
            mean=self.mean,
            deviation=self.deviation,
        )


def chance_of(trials: Trials, views: Sequence[View], tiles: Sequence[Spectrum]) -> float:
    """Return the standard deviation of the agreement of a wrong pair, over all ratios."""
    (order,) = _wrong_orders(len(views), 1)
    total, squares = _sums(
        trials.agreement(trials.panorama_spectrum(view, 0.0), tiles[i])
        for view, i in zip(views, order.tolist(), strict=True)
    )
    mean = total.mean(axis=1) / len(views)
    return math.sqrt(max(0.0, float((squares / len(views) - mean**2).mean()))) + 1e-6


def compare(
    trials: Trials,
    views: Sequence[View],
    tiles: Sequence[Spectrum],
    heading: Heading,
    unit: float,
    horizon: float = 0.0,
    arrangements: int = ARRANGEMENTS,
) -> Compared:
    """Hold each panorama against its tile and against the tiles of others.

    Parameters
    ----------
    views, tiles
        And their spectra, one each.
    heading
        As in `bevgen.calibrate`.
    unit
        From `chance_of`, one for all horizons.
    horizon
        Degrees to lower the vertical field by.
    arrangements
        Of wrong pairs, at most.
    """
    panoramas = [trials.panorama_spectrum(view, horizon) for view in views]
    orders = _wrong_orders(len(views), arrangements)

    def agreements(order: NDArray[np.intp]) -> Iterator[Floats]:
        # One pair at a time: all wrong pairs together take a megabyte for each view.
        return (
            trials.agreement(p, tiles[i]) for p, i in zip(panoramas, order.tolist(), strict=True)
        )

    wrong = [_sums(agreements(order)) for order in orders]
    count = len(orders) * len(views)
    usual = np.sum([total for total, _ in wrong], axis=0) / count
    mean = usual.mean(axis=1)
    squares = np.sum([square for _, square in wrong], axis=0) / count
    deviation = np.sqrt(np.maximum(squares - mean**2, 0)) + 1e-6
    # Where all streets run north, wrong pairs agree at some headings, too: that is chance as well.
    offset = mean[:, None] if heading == "per-image" else usual

    def standard(agreement: Floats) -> Floats:
        return ((agreement - offset) / unit).astype(np.float32)

    own = agreements(np.arange(len(views)))
    if heading == "per-image":
        pairs = np.stack([_any_heading(standard(one)) for one in own])
        others = [
            np.stack([_any_heading(standard(one)) for one in agreements(order)]) for order in orders
        ]
        level, spread = np.mean(others, axis=(0, 1)), np.std(others, axis=(0, 1))[:, 0] + 1e-6
        pairs = (pairs - level).astype(np.float32)
        chance = [_pool(other - level).max() for other in others]
    else:
        headings = slice(1) if heading == "known" else slice(None)
        pairs = np.stack([standard(one)[:, headings] for one in own])
        spread = deviation / unit
        per = math.sqrt(len(views)) / unit
        chance = [((total / len(views) - usual) * per)[:, headings].max() for total, _ in wrong]
    return Compared(pairs, spread, np.array(chance, np.float64), mean, deviation)


def _sums(agreements: Iterator[Floats]) -> tuple[Array, Array]:
    """Sum over pairs (K, AZIMUTHS), and mean square over headings, summed over pairs (K,)."""
    first = next(agreements).astype(np.float64)
    total, squares = first, (first**2).mean(axis=1)
    for one in agreements:
        total += one
        squares += np.square(one, dtype=np.float64).mean(axis=1)
    return total, squares


def _pool(pairs: Floats) -> Floats:
    """Sum over pairs; standard deviations again."""
    return pairs.sum(axis=0) / np.float32(math.sqrt(len(pairs)))


def _wrong_orders(count: int, arrangements: int) -> list[NDArray[np.intp]]:
    """Give arrangements in which no panorama meets its own tile."""
    order = np.random.default_rng(0).permutation(count)
    place = np.argsort(order)
    return [order[(place + s) % count] for s in range(1, 1 + min(count - 1, arrangements))]


def _any_heading(agreement: Floats) -> Floats:
    """Log likelihood (K, 1) if each heading is as likely as the others: a soft maximum."""
    sharp = SHARPNESS * agreement
    most = sharp.max(axis=-1, keepdims=True)
    return most + np.log(np.exp(sharp - most).mean(axis=-1, keepdims=True))


# --- peaks, between cells ---


def resampling(count: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each of so many pairs is drawn (n, count), `RESAMPLES` times in all."""
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    yield from np.array_split(times, RESAMPLES // 10)  # a few at a time: memory


def _resampled(pairs: Floats) -> Array:
    pooled = (
        np.tensordot(some.astype(np.float32), pairs, axes=1) for some in resampling(len(pairs))
    )
    return np.array([top(one) for few in pooled for one in few])


def top(agreement: Floats) -> tuple[float, float, float]:
    """Return the highest value over ratios and headings (a circle), and where it is."""
    k, a = (int(i) for i in np.unravel_index(agreement.argmax(), agreement.shape))
    last, around = agreement.shape[0] - 1, agreement.shape[1]
    value, ratio, heading = float(agreement[k, a]), float(k), float(a)
    if 0 < k < last:
        off, value = between(*agreement[k - 1 : k + 2, a].tolist())
        ratio += off
    if around > 1:
        off, _ = between(*(float(agreement[k, (a + s) % around]) for s in (-1, 0, 1)))
        heading += off
    return value, ratio, heading


def peak(tops: Array) -> Array:
    """Return the place (horizon, ratio, heading) of the highest value, between cells.

    Parameters
    ----------
    tops : (D, 3) float64
        What `top` says of each horizon. Another horizon and another height look alike: the peak is
        a ridge askew to both, so heights and headings are settled for each horizon first.
    """
    best = int(tops[:, 0].argmax())
    _, ratio, heading = tops[best].tolist()
    off = 0.0
    if 0 < best < len(tops) - 1:
        off, _ = between(*tops[best - 1 : best + 2, 0].tolist())
        beside = tops[best + (1 if off > 0 else -1)]
        ratio += abs(off) * (float(beside[1]) - ratio)
    return np.array([best + off, ratio, heading])


def between(before: float, here: float, after: float) -> tuple[float, float]:
    """Place (of the middle one, -0.5 to 0.5) and height of the parabola through three values."""
    off = 0.5 * (before - after) / min(before - 2 * here + after, -1e-9)
    off = min(max(off, -0.5), 0.5)
    return off, here - 0.25 * (before - after) * off
