"""Shards joined into pairs of a query and its reference, and read in batches.

Queries (panoramas or BEVs) and references (satellite or map tiles) meet by id, or as `pairs.csv`
says. Nothing here knows of models; tensors leave as uint8, as they lie in the shards.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import InputError, ShardSet, read_pairs
from georetrieval.errors import DataError, SplitError

log = logging.getLogger(__name__)

Part = TypeVar("Part")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Queries of one split, each with its reference.

    Attributes
    ----------
    ids : list of str
        Of the queries.
    queries : (P,) int64
        Rows in the query shards.
    references : (P,) int64
        Rows in the reference shards: the right one, the first of several.
    others : list of (O_i,) int64
        Rows of the further right ones; empty for most datasets.
    semi : list of (S_i,) int64
        Rows of the references that show the place too, but not as their centre.
    gallery : (R,) int64, ascending
        Rows of the references that the split is searched in.
    positions : (P, 2) float64
        Latitude and longitude in degrees, NaN where unknown.
    """

    ids: list[str]
    queries: NDArray[np.int64]
    references: NDArray[np.int64]
    others: list[NDArray[np.int64]]
    semi: list[NDArray[np.int64]]
    gallery: NDArray[np.int64]
    positions: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, ids: Sequence[str]) -> Pairs:
        """Return the pairs of some queries, in that order; the gallery stays."""
        place = {name: k for k, name in enumerate(self.ids)}
        keep = [place[name] for name in ids]
        return replace(
            self,
            ids=list(ids),
            queries=self.queries[keep],
            references=self.references[keep],
            others=[self.others[k] for k in keep],
            semi=[self.semi[k] for k in keep],
            positions=self.positions[keep],
        )

    def each(self) -> Pairs:
        """Return a pair for each right reference of each query, to train on; the gallery stays."""
        if not any(len(rows) for rows in self.others):
            return self
        counts = [1 + len(rows) for rows in self.others]
        keep = np.repeat(np.arange(len(self)), counts)
        rows = [
            np.r_[first, more] for first, more in zip(self.references, self.others, strict=True)
        ]
        return replace(
            self.only([self.ids[k] for k in keep]),
            references=np.concatenate(rows),
            others=[np.empty(0, np.int64)] * len(keep),
        )

    def matched(self) -> Pairs:
        """Return the same pairs with a gallery of right references only, without distractors."""
        gallery = np.unique(np.concatenate([self.references, *self.others]))
        semi = [rows[np.isin(rows, gallery)] for rows in self.semi]
        return replace(self, gallery=gallery, semi=semi)

    def classes(self) -> NDArray[np.int64]:
        """Return (P,) int64: pairs of one class are no negatives for each other.

        They share a query or a reference, or are joined by a chain of pairs that do.
        """
        if len(np.unique(self.queries)) == len(self.queries):
            return self.references
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        first = int(self.queries.max()) + 1
        ends = self.queries, first + self.references
        size = int(ends[1].max()) + 1
        graph = coo_array((np.ones(len(self)), ends), shape=(size, size))
        return connected_components(graph, directed=False)[1][self.queries].astype(np.int64)


def join(queries: ShardSet, references: ShardSet, pairs: Path | None, split: str | None) -> Pairs:
    """Join queries to references.

    Parameters
    ----------
    queries, references
        The shards.
    pairs
        ``pairs.csv``: columns query, reference (ids) and any of role (positive, semi, or gallery
        with an empty query: searched, though no query is there), d_row, d_col, split; None pairs
        equal ids. A query may have several positive references.
    split
        Which rows of ``pairs`` count; None for all. The gallery holds all references but those
        that only other splits name.

    Raises
    ------
    SplitError
        If the file has no pairs of the split.
    DataError
        If the file cannot be used or nothing is joined.
    """
    query_rows = {name: row for row, name in enumerate(queries.ids)}
    reference_rows = {name: row for row, name in enumerate(references.ids)}
    if pairs is None:
        positive = {name: [name] for name in query_rows if name in reference_rows}
        semi: dict[str, list[str]] = {}
        gallery = np.arange(len(references))
    else:
        positive, semi, hidden = _read_pairs(pairs, split)
        keep = [row for name, row in reference_rows.items() if name not in hidden]
        gallery = np.array(sorted(keep), np.int64)
        # What the shards lack was set aside when they were made.
        named = sum(map(len, positive.values()))
        found = {
            query: [name for name in names if name in reference_rows]
            for query, names in positive.items()
            if query in query_rows
        }
        positive = {query: names for query, names in found.items() if names}
        left = sum(map(len, positive.values()))
        if left < named:
            log.warning(
                "%d of %d pairs of %s are left out: %s or %s has no such row",
                named - left,
                named,
                pairs,
                queries.path,
                references.path,
            )
    if not positive:
        where = f"{pairs}, split {split}" if pairs is not None else "ids"
        raise DataError(
            f"nothing joins {queries.path} to {references.path} by {where}:"
            f" their ids are like {_example(queries)} and {_example(references)}"
        )
    names = list(positive)
    rows = np.array([query_rows[name] for name in names], np.int64)
    targets = [np.array([reference_rows[r] for r in positive[name]], np.int64) for name in names]
    latitude, longitude = (queries.columns[name][rows] for name in ("latitude", "longitude"))
    return Pairs(
        ids=names,
        queries=rows,
        references=np.array([right[0] for right in targets], np.int64),
        others=[right[1:] for right in targets],
        semi=[
            np.array(
                [reference_rows[r] for r in semi.get(name, ()) if r in reference_rows], np.int64
            )
            for name in names
        ],
        gallery=gallery,
        positions=np.stack([latitude, longitude], axis=1),
    )


def _example(shards: ShardSet) -> str:
    return repr(shards.ids[0]) if len(shards) else "(none)"


def _read_pairs(
    path: Path, split: str | None
) -> tuple[dict[str, list[str]], dict[str, list[str]], set[str]]:
    """Return positives, semi-positives, and the references that only other splits name."""
    positive: dict[str, list[str]] = {}
    semi: dict[str, list[str]] = {}
    named: set[str] = set()
    others: set[str] = set()
    try:
        for pair in read_pairs(path):
            if split is not None and pair.split not in (None, split):
                others.add(pair.reference)
                continue
            named.add(pair.reference)
            if pair.role == "gallery":
                continue
            same = (semi if pair.role == "semi" else positive).setdefault(pair.query, [])
            if pair.reference not in same:
                same.append(pair.reference)
    except InputError as error:
        raise DataError(str(error)) from error
    if split is not None and not positive:
        raise SplitError(f"{path} has no pairs of split {split!r}")
    return positive, semi, others - named


class Batch(NamedTuple):
    """Some pairs: which, and their pixels as uint8 (n, H, W, 3)."""

    pairs: NDArray[np.int64]
    query: torch.Tensor
    reference: torch.Tensor


class PairReader:
    """Reads batches of pairs ahead of their use, in threads, in the order asked for."""

    def __init__(
        self, queries: ShardSet, references: ShardSet, pairs: Pairs, *, threads: int = 2
    ) -> None:
        self.queries, self.references, self.pairs = queries, references, pairs
        self.threads = threads

    def read(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield the pairs of each array of indices."""

        def load(indices: NDArray[np.int64]) -> Batch:
            return Batch(
                indices,
                read_rows(self.queries, self.pairs.queries[indices]),
                read_rows(self.references, self.pairs.references[indices]),
            )

        yield from _ahead(load, batches, self.threads)


def read_rows(shards: ShardSet, rows: NDArray[np.int64]) -> torch.Tensor:
    """Read rows as (n, H, W, C) uint8, straight into pinned memory where there is a GPU."""
    images = torch.empty(
        (len(rows), *shards.image_shape), dtype=torch.uint8, pin_memory=torch.cuda.is_available()
    )
    shards.read(rows, out=images.numpy())
    return images


def read_chunks(
    shards: ShardSet, rows: NDArray[np.int64], size: int, *, threads: int = 2
) -> Iterator[torch.Tensor]:
    """Yield rows in order, ``size`` at a time, read ahead."""
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    yield from _ahead(lambda chunk: read_rows(shards, chunk), chunks, threads)


def _ahead(load: Callable[[Part], Loaded], parts: Sequence[Part], threads: int) -> Iterator[Loaded]:
    with ThreadPoolExecutor(threads, "loader") as pool:
        waiting: deque[Future[Loaded]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(load, part))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
