"""Where the right reference ranks. Ties count against the model.

Memory is bounded: scores are compared some queries at a time and never kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from georetrieval.errors import DataError
from georetrieval.retrieval import int8
from georetrieval.retrieval.int8 import Rounded
from georetrieval.retrieval.screening import QUERIES, Found, places, search, should_screen


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Result of a search for every query.

    Attributes
    ----------
    rank : (Q,) int64
        References that score at least as high as the right one, itself left out: 0 is a hit.
        Of several right ones the best counts, and none of the others stands in its way.
    rank_hit : (Q,) int64
        The same with semi-positives left out (VIGOR's hit rate).
    precision : (Q,) float64
        Average precision, 0 to 1; see `average_precision`.
    top : (Q, K) int64
        Gallery indices of the best, best first.
    scores : (Q, K) float32
        Their scores.
    gallery
        References searched.
    """

    rank: NDArray[np.int64]
    rank_hit: NDArray[np.int64]
    precision: NDArray[np.float64]
    top: NDArray[np.int64]
    scores: NDArray[np.float32]
    gallery: int

    def store(self, part: slice, found: Found) -> None:
        """Write the result of some of the queries."""
        for name, values in found._asdict().items():
            getattr(self, name)[part] = values


def rank_references(
    queries: Tensor,
    gallery: Tensor,
    positive: NDArray[np.int64],
    semi: Sequence[NDArray[np.int64]] | None = None,
    *,
    others: Sequence[NDArray[np.int64]] | None = None,
    top: int = 5,
    chunk: int = 256,
) -> Ranking:
    """Search each query in a gallery.

    Parameters
    ----------
    queries : (Q, D) float
    gallery : (R, D) float
        On the same device; scores are dot products.
    positive : (Q,) int64
        Gallery index of the right reference.
    semi : Q arrays of int64, optional
        Gallery indices of semi-positives.
    others : Q arrays of int64, optional
        Gallery indices of further right references; empty for most datasets.
    top
        How many of the best to keep, at most R.
    chunk
        Queries at once, where all scores are computed: memory is chunk x R of them.

    Returns
    -------
    Ranking

    Raises
    ------
    DataError
        If a score is not finite.

    Notes
    -----
    On processors that multiply bytes fast, large galleries are screened first: see
    `georetrieval.retrieval.screening`. Ranks are the same.
    """
    _check_finite(queries, gallery)
    if others is not None and not any(map(len, others)):
        others = None
    count, top = len(queries), min(top, len(gallery))
    result = Ranking(
        rank=np.empty(count, np.int64),
        rank_hit=np.empty(count, np.int64),
        precision=np.empty(count, np.float64),
        top=np.empty((count, top), np.int64),
        scores=np.empty((count, top), np.float32),
        gallery=len(gallery),
    )
    rounded = (
        Rounded.of(gallery, int8.levels(gallery.shape[1]))
        if others is None and should_screen(queries, gallery, top)
        else None
    )
    # Written over for each chunk: tensors kept from chunk to chunk would break up the heap.
    buffer = gallery.new_empty((min(chunk, count), len(gallery))) if rounded is None else None
    for part in _parts(range(count), chunk if rounded is None else QUERIES):
        found = None
        if rounded is not None:
            found = search(queries[part], rounded, positive[part], _of(semi, part), top)
        if found is not None:
            result.store(part, found)
            continue
        if buffer is None:
            buffer = gallery.new_empty((chunk, len(gallery)))
        for some in _parts(range(part.start, part.stop), chunk):
            lists = _of(semi, some), _of(others, some)
            result.store(
                some, _compare(queries[some], gallery, positive[some], *lists, top, buffer)
            )
    return result


def _parts(numbers: range, size: int) -> Iterator[slice]:
    """Cut a range into slices."""
    for start in numbers[::size]:
        yield slice(start, min(start + size, numbers.stop))


def _of(
    lists: Sequence[NDArray[np.int64]] | None, part: slice
) -> Sequence[NDArray[np.int64]] | None:
    return None if lists is None else lists[part]


def _compare(
    queries: Tensor,
    gallery: Tensor,
    positive: NDArray[np.int64],
    semi: Sequence[NDArray[np.int64]] | None,
    others: Sequence[NDArray[np.int64]] | None,
    top: int,
    buffer: Tensor,
) -> Found:
    """Search some queries by all scores; arguments as in `rank_references`, of these queries."""
    scores = torch.matmul(queries, gallery.T, out=buffer[: len(queries)])
    rows = torch.arange(len(scores), device=scores.device)
    target = torch.as_tensor(positive, device=scores.device)
    row, column = _places(others, scores.device)
    right = scores[rows, target].scatter_reduce(0, row, scores[row, column], "amax")
    above = scores >= right[:, None]
    above[rows, target] = False
    above[row, column] = False
    rank = hit = above.sum(1, dtype=torch.int32)  # twice as fast as int64
    if semi is not None:
        above[_places(semi, scores.device)] = False
        hit = above.sum(1, dtype=torch.int32)
    precision = average_precision(scores, target, row, column, rank)
    value, index = scores.topk(top, dim=1)
    return Found(*(v.cpu().numpy() for v in (rank, hit, precision, index, value.float())))


def _check_finite(queries: Tensor, gallery: Tensor) -> None:
    """Refuse vectors whose scores may not be finite.

    No score is above the product of two lengths, so the (Q, R) scores need not be looked at.
    """
    longest = [
        torch.linalg.vector_norm(v, dim=1, dtype=torch.promote_types(v.dtype, torch.float32)).max()
        for v in (queries, gallery)
    ]
    if not torch.isfinite(longest[0] * longest[1]):
        raise DataError(
            "scores are not finite: the embeddings hold NaN or infinity, so the model has"
            " diverged; lower the learning rate or use precision float32"
        )


def _places(
    lists: Sequence[NDArray[np.int64]] | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return rows and columns of what the queries' lists name."""
    row, column = places(lists or ())
    return torch.from_numpy(row).to(device), torch.from_numpy(column).to(device)


def average_precision(
    scores: Tensor, target: Tensor, row: Tensor, column: Tensor, rank: Tensor
) -> Tensor:
    """Average the precision over the right references, by the trapezoidal rule.

    With the right references at ranks r_0 < r_1 < ... (0 is first) it is the mean over i of
    ``(i / r_i + (i + 1) / (r_i + 1)) / 2``, where ``i / r_i`` is 1 at r_i = 0: the measure of
    University-1652. Ties count against the model: a wrong reference comes before every right one
    that it equals.

    Parameters
    ----------
    scores : (n, R) float
    target : (n,) int64
        Columns of the first right references.
    row, column : (m,) int64
        Places of the further ones; no place twice.
    rank : (n,) int64
        Of the best right reference, as in `Ranking`.

    Returns
    -------
    (n,) float64
    """
    # The closed form for a single right reference.
    result = torch.where(rank == 0, 1.0, 0.5 / (rank.double() + 1))
    for query in row.unique():
        right = torch.cat([target[query][None], column[row == query]])
        found = scores[query, right].sort(descending=True).values
        wrong = scores[query].clone()
        wrong[right] = -math.inf
        # How many wrong ones score at least as high as each right one.
        before = len(wrong) - torch.searchsorted(wrong.sort().values, found)
        i = torch.arange(len(right), device=scores.device, dtype=torch.float64)
        r = i + before
        old = torch.where(r == 0, 1.0, i / r.clamp(min=1))
        result[query] = ((old + (i + 1) / (r + 1)) / 2).mean()
    return result
