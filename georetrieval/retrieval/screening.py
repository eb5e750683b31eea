"""Search screened by int8, with exact re-ranking of what that leaves in doubt.

How far a vector rounded to bytes is from the true one is known, so no score is further from the
true one than a bound (Cauchy-Schwarz): what is outside of it is certain.
"""

# Numba's scalars are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bevgen.compiling import njit
from georetrieval.retrieval import int8
from georetrieval.retrieval.int8 import Rounded

QUERIES, REFERENCES = 1024, 2048  # multiplied at once: 8 MB of products
MANY = 4096  # references from which on it pays
ROWS = 128  # queries, at least, that are worth a thread
FEW = 512  # queries below which rounding the references takes longer than it saves
CLASSES = 256
# References of those multiplied at once that may be in doubt for a query; with more, or if scores
# hardly differ, multiplying all exactly is faster.
DOUBTS = 1024


class Found(NamedTuple):
    """Result of a search for some queries; see `georetrieval.retrieval.ranking.Ranking`."""

    rank: NDArray[np.integer]
    rank_hit: NDArray[np.integer]
    precision: NDArray[np.float64]
    top: NDArray[np.int64]
    scores: NDArray[np.float32]


def should_screen(queries: Tensor, gallery: Tensor, top: int) -> bool:
    """Whether `search` is the faster way: many vectors, bytes multiplied fast and without error."""
    if gallery.device.type != "cpu" or gallery.dtype != torch.float32:
        return False
    if len(queries) < FEW or len(gallery) < max(MANY, top * CLASSES):
        return False
    return int8.levels(gallery.shape[1]) > 0


def search(
    queries: Tensor,
    gallery: Rounded,
    positive: NDArray[np.int64],
    semi: Sequence[NDArray[np.int64]] | None,
    top: int,
) -> Found | None:
    """Search some queries, where bytes are multiplied without error.

    Parameters
    ----------
    queries : (n, D) float32
        `QUERIES` of them at a time.
    gallery
        At least ``top * CLASSES`` references.
    positive : (n,) int64
        The right reference of each.
    semi : n arrays of int64, optional
        References that do not count in the hit rate.
    top
        How many of the best to return.

    Returns
    -------
    Found or None
        None where too much is in doubt: scores hardly differ.
    """
    own, n = Rounded.of(queries, gallery.levels), len(queries)
    right = exact_scores(own, gallery, np.arange(n), positive)
    state = begin(own, gallery, right, top)
    if top == 1:  # the best is at least as good as the right one
        state.top[:, 0], state.scores[:, 0] = positive, right
    # Each thread has some of the queries.
    count = max(min(torch.get_num_threads(), n // ROWS), 1)
    shares = [slice(n * k // count, n * (k + 1) // count) for k in range(count)]
    with ThreadPoolExecutor(count) as pool:
        for start in range(0, len(gallery.exact), REFERENCES):
            some = gallery.bytes[start : start + REFERENCES]
            products = int8.multiply_bytes(own.bytes, some, gallery.levels).numpy()
            work = partial(compare, own, gallery, positive, products, start, state)
            if not all(pool.map(work, shares)):
                return None
    rank = state.above
    hit = rank
    if semi is not None:
        semi_row, semi_column = places([np.unique(names) for names in semi])
        near = exact_scores(own, gallery, semi_row, semi_column) >= right[semi_row]
        near &= semi_column != positive[semi_row]
        hit = rank - np.bincount(semi_row[near], minlength=n)
    precision = np.where(rank == 0, 1.0, 0.5 / (rank + 1))  # of a single right reference
    return Found(rank, hit, precision, state.top, state.scores)


def exact_scores(
    queries: Rounded, gallery: Rounded, row: NDArray[np.integer], column: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return the scores (m,) of some pairs of a query and a reference."""
    scores = np.empty(len(row), np.float32)
    score_exactly(
        queries.exact, gallery.exact, row.astype(np.int64), column.astype(np.int64), scores
    )
    return scores


def places(
    lists: Sequence[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of what a list for each row names."""
    row = np.repeat(np.arange(len(lists)), [len(names) for names in lists])
    return row, np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64)


class Screening(NamedTuple):
    """What `screen` goes by, and what it leaves to `rerank`.

    Attributes
    ----------
    right : (n,) float32
        Exact scores of the right references.
    bound : (n,) float32
        How far a score by bytes may be from the exact one.
    steps, lengths : (n,) float32, float64
        The queries' own; scores by bytes are in units of the steps.
    above : (n,) int64, written
        How many of the references so far score at least as high as the right one.
    top, scores : (n, K) int64, float32, written
        The best so far, best first, and their exact scores.
    left : (n,) int64, written by `screen`
        References that need exact scores: in doubt, or perhaps among the best.
    column, rough : (n, DOUBTS) int32, float32, written by `screen`
        Which, and their scores by bytes.
    """

    right: NDArray[np.float32]
    bound: NDArray[np.float32]
    steps: NDArray[np.float32]
    lengths: NDArray[np.float64]
    above: NDArray[np.int64]
    top: NDArray[np.int64]
    scores: NDArray[np.float32]
    left: NDArray[np.int64]
    column: NDArray[np.int32]
    rough: NDArray[np.float32]


def begin(own: Rounded, gallery: Rounded, right: NDArray[np.float32], top: int) -> Screening:
    """Work out the bounds for some queries, before any reference is screened."""
    n, dimensions = own.exact.shape
    longest = (gallery.lengths + gallery.errors).max()
    # What rounding to bytes may change, and then what float32 does in sums of products.
    bound = own.lengths * gallery.errors.max() + own.errors * longest
    bound = (bound + own.lengths * longest * dimensions * 2.0**-22).clip(max=1e38)
    return Screening(
        right,
        bound.astype(np.float32),
        own.steps,
        own.lengths,
        np.zeros(n, np.int64),
        np.full((n, top), -1, np.int64),
        np.full((n, top), -np.inf, np.float32),
        np.empty(n, np.int64),
        np.empty((n, DOUBTS), np.int32),
        np.empty((n, DOUBTS), np.float32),
    )


def compare(
    own: Rounded,
    gallery: Rounded,
    positive: NDArray[np.int64],
    products: NDArray[np.float32],
    first: int,
    state: Screening,
    rows: slice,
) -> bool:
    """Compare some of the queries with the references from ``first`` on; False as of `screen`."""
    some = Screening(*(values[rows] for values in state))
    part = slice(first, first + products.shape[1])
    if not screen(products[rows], gallery.steps[part], some):
        return False
    errors, worst = gallery.errors[part], gallery.errors.max()
    rerank(own.exact[rows], gallery.exact[part], errors, worst, positive[rows], first, some)
    return True


@njit(cache=True, fastmath={"contract"})
def screen(products: NDArray[np.float32], steps: NDArray[np.float32], state: Screening) -> bool:
    """Screen the products with some references; False if too much is left in doubt.

    References are in classes, by their number modulo CLASSES: vector code finds the highest score
    of each, and the classes are passed over in which it is too low.
    """
    references, best = products.shape[1], np.empty(state.top.shape[1], np.float32)
    peaks = np.empty(CLASSES, np.float32)
    for i in range(len(products)):
        line, step, bound = products[i], state.steps[i], state.bound[i]
        peaks[:] = best[:] = -np.inf
        for start in range(0, references, CLASSES):
            raise_peaks(line[start : start + CLASSES], steps[start : start + CLASSES], peaks)
        for peak in peaks:
            if peak > best[-1]:
                insert(peak, best)
        low, high = (state.right[i] - bound) / step, (state.right[i] + bound) / step
        # As many as are wanted score as high as the last of the best, now or before.
        floor = max(best[-1] - 2 * bound / step, (state.scores[i, -1] - bound) / step)
        least, count = min(floor, low), 0
        for k in range(CLASSES):
            if peaks[k] < least:
                continue
            for j in range(k, references, CLASSES):
                rough = line[j] * steps[j]
                if rough < least:
                    continue
                state.above[i] += rough > high
                if rough >= floor or rough <= high:
                    if count == DOUBTS:
                        return False
                    state.column[i, count], state.rough[i, count] = j, rough
                    count += 1
        state.left[i] = count
    return True


@njit(cache=True, fastmath={"contract"})
def rerank(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    errors: NDArray[np.float64],
    worst: float,
    positive: NDArray[np.int64],
    first: int,
    state: Screening,
) -> None:
    """Score exactly what `screen` left of the references from number ``first`` on.

    Parameters
    ----------
    queries : (n, D) float32
    gallery : (m, D) float32
    errors, worst
        What rounding took from these references, and from the worst of all.
    positive : (n,) int64
        The right references.
    first, state
        Number of the first reference; read and written.
    """
    best = np.empty(state.top.shape[1], np.float32)
    for i in range(len(queries)):
        step, bound, scores = state.steps[i], state.bound[i], state.scores[i]
        count = state.left[i]
        column, rough = state.column[i, :count], state.rough[i, :count]
        low, high = (state.right[i] - bound) / step, (state.right[i] + bound) / step
        known = scores[-1]  # that high score as many as are wanted
        if known == -np.inf and count >= len(best):
            best[:] = -np.inf
            for m in range(count):
                if rough[m] > best[-1]:
                    insert(rough[m], best)
            known = np.float32(np.inf)
            for m in range(count):
                if rough[m] >= best[-1]:
                    known = min(known, dot(queries[i], gallery[column[m]]))
        floor = (known - bound) / step
        for m in range(count):
            # `bound` is that of the reference that rounding changed most.
            spare = state.lengths[i] * (worst - errors[column[m]]) / step
            doubtful = low + spare <= rough[m] <= high
            if not (doubtful or rough[m] >= floor + spare):
                continue
            score, number = dot(queries[i], gallery[column[m]]), first + column[m]
            if doubtful and score >= state.right[i] and number != positive[i]:
                state.above[i] += 1
            for k in range(len(scores)):
                if score > scores[k]:
                    scores[k], score = score, scores[k]
                    state.top[i, k], number = number, state.top[i, k]
            floor = max(floor, (scores[-1] - bound) / step)


@njit(cache=True)
def raise_peaks(
    line: NDArray[np.float32], steps: NDArray[np.float32], peaks: NDArray[np.float32]
) -> None:
    """Keep the higher of each peak and a score."""
    for k in range(len(line)):
        score = line[k] * steps[k]
        peaks[k] = score if score > peaks[k] else peaks[k]


@njit(cache=True)
def insert(score: float, best: NDArray[np.float32]) -> None:
    """Put a score into its place among the best, of which the last one goes."""
    for k in range(len(best)):
        if score > best[k]:
            best[k], score = score, best[k]


@njit(cache=True, fastmath=True)
def score_exactly(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:
    """Write the exact scores of some pairs."""
    for m in range(len(row)):
        scores[m] = dot(queries[row[m]], gallery[column[m]])


@njit(cache=True, fastmath=True)
def dot(query: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Score of a pair."""
    total = np.float32(0)
    for d in range(len(query)):
        total += query[d] * reference[d]
    return total
