"""Exact search among vectors on disk: all by bytes first, then the few in doubt by floats.

How far a vector rounded to bytes is from the true one is known, so every score by bytes has a
bound (Cauchy-Schwarz), and no reference outside of it needs to be read. A search of one query
among a million vectors of 2,048 numbers reads 2 GB of bytes and a few rows of floats.
"""

# Numba's arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen.compiling import njit

FLOAT_ROUNDING = 2.0**-22
"""Of a sum of float32 products, per product."""
DIRECT = 1 << 24
"""Products up to which multiplying floats at once is as fast as screening."""
QUERIES = 32
"""Queries screened at once: memory is this times 4 bytes for each reference."""

Floats = NDArray[np.float32]
Bytes = NDArray[np.int8]


class Coded(NamedTuple):
    """Vectors as bytes times a step each.

    Attributes
    ----------
    codes : (N, D) int8
    scales : (N, 2) float32
        The step, and the length of what rounding took away, rounded up.
    """

    codes: Bytes
    scales: Floats


class Block(NamedTuple):
    """Some consecutive references: exact vectors (n, D) float32, usually on disk, and codes."""

    vectors: Floats
    coded: Coded


def encode(vectors: Floats) -> Coded:
    """Round (N, D) float32 vectors to bytes."""
    steps = np.maximum(np.abs(vectors).max(axis=1) / 127, 1e-30).astype(np.float32)
    codes = np.rint(vectors / steps[:, None]).astype(np.int8)
    rest = vectors.astype(np.float64) - codes * steps[:, None].astype(np.float64)
    errors = np.linalg.norm(rest, axis=1) * 1.0001
    return Coded(codes, np.stack([steps, errors.astype(np.float32)], axis=1))


def nearest(
    queries: Floats,
    blocks: Sequence[Block],
    top: int,
    *,
    among: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.int64], Floats]:
    """Find the references of the highest dot products.

    Parameters
    ----------
    queries : (Q, D) float32
    blocks
        The references.
    top
        How many; fewer come back where there are not as many.
    among : (N,) bool, optional
        Which references count.
    threads
        For screening.

    Returns
    -------
    rows : (Q, K) int64
        Best first; of equal scores the first reference first. -1 where there is none.
    scores : (Q, K) float32
        -inf where there is none.
    """
    count = sum(len(block.coded.codes) for block in blocks)
    allowed = count if among is None else int(among.sum())
    top = min(top, allowed)
    rows = np.full((len(queries), top), -1, np.int64)
    scores = np.full((len(queries), top), -np.inf, np.float32)
    if not top or not len(queries):
        return rows, scores
    direct = queries.size * allowed <= DIRECT
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            if direct:
                found = _all(queries[part], blocks, among)
            else:
                found = _screened(queries[part], blocks, top, among, pool)
            for k, (row, score) in enumerate(found, start):
                rows[k], scores[k] = _ranked(queries[k], blocks, row, score, top)
    return rows, scores


def _ranked(
    query: Floats, blocks: Sequence[Block], rows: NDArray[np.int64], scores: Floats, top: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Order the best by sums that are the same wherever a vector lies and whatever multiplies."""
    least = np.partition(scores, len(scores) - top)[len(scores) - top]
    rounding = np.linalg.norm(query) * len(query) * FLOAT_ROUNDING
    rows = rows[scores >= least - rounding]
    exact = (gather(blocks, rows) * query.astype(np.float64)).sum(axis=1)
    order = np.lexsort((rows, -exact))[:top]
    return rows[order], exact[order]


def gather(blocks: Sequence[Block], rows: NDArray[np.int64]) -> Floats:
    """Read the exact vectors (n, D) of some rows."""
    first = _first_rows(blocks)
    out = np.empty((len(rows), blocks[0].vectors.shape[1]), np.float32)
    where = np.searchsorted(first, rows, side="right") - 1
    for number in np.unique(where):
        own = where == number
        out[own] = blocks[number].vectors[rows[own] - first[number]]
    return out


def _first_rows(blocks: Sequence[Block]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(block.coded.codes) for block in blocks)])[:-1]


Scored = list[tuple[NDArray[np.int64], Floats]]


def _all(queries: Floats, blocks: Sequence[Block], among: NDArray[np.bool_] | None) -> Scored:
    """Score all references exactly."""
    if among is None:
        vectors = np.concatenate([block.vectors for block in blocks])
        rows = np.arange(len(vectors))
    else:
        rows = np.flatnonzero(among)
        vectors = gather(blocks, rows)
    return [(rows, scores) for scores in queries @ vectors.T]


def _screened(
    queries: Floats,
    blocks: Sequence[Block],
    top: int,
    among: NDArray[np.bool_] | None,
    pool: ThreadPoolExecutor,
) -> Scored:
    """Score exactly what may be among the best by the bounds."""
    own = encode(queries)
    first = _first_rows(blocks)
    count = int(first[-1]) + len(blocks[-1].coded.codes)
    rough = np.empty((len(queries), count), np.float32)
    errors = np.empty(count, np.float32)

    def look(number: int) -> None:
        coded, start = blocks[number].coded, first[number]
        part = slice(start, start + len(coded.codes))
        errors[part] = coded.scales[:, 1]
        scan(coded.codes, coded.scales, own.codes, own.scales, rough[:, part])

    list(pool.map(look, range(len(blocks))))
    # |q.r - q'.r'| <= |q| |r - r'| + |q - q'| |r'|, with vectors of length 1.
    lengths = np.linalg.norm(queries, axis=1) * 1.0001
    found: Scored = []
    for query, scores, length, lost in zip(queries, rough, lengths, own.scales[:, 1], strict=True):
        slack = lost * (1.0001 + errors) + length * queries.shape[1] * FLOAT_ROUNDING
        bound = (length * errors + slack).astype(np.float32)
        if among is not None:
            scores[~among] = -np.inf
        least = np.partition(scores - bound, count - top)[count - top]
        rows = np.flatnonzero(scores + bound >= least)
        found.append((rows, gather(blocks, rows) @ query))
    return found


@njit(cache=True, fastmath={"contract"})
def scan(codes: Bytes, scales: Floats, queries: Bytes, steps: Floats, out: Floats) -> None:
    """Write the scores by bytes of each query (Q) and each reference (N) into out (Q, N)."""
    for j in range(codes.shape[0]):
        line, step = codes[j], scales[j, 0]
        for i in range(queries.shape[0]):
            query = queries[i]
            total = np.int32(0)
            for d in range(line.shape[0]):
                total += np.int32(np.int16(line[d]) * np.int16(query[d]))
            out[i, j] = np.float32(total) * step * steps[i, 0]
