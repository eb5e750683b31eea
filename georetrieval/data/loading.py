"""Batches of pairs, read ahead of their use.

Nothing here knows of models; tensors leave as uint8, as they lie in the shards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import ShardSet
from georetrieval.data.pairs import Pairs

Part = TypeVar("Part")
Loaded = TypeVar("Loaded")


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

        yield from read_ahead(load, batches, self.threads)


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
    yield from read_ahead(lambda chunk: read_rows(shards, chunk), chunks, threads)


def read_ahead(
    load: Callable[[Part], Loaded], parts: Sequence[Part], threads: int
) -> Iterator[Loaded]:
    """Yield what ``load`` makes of each part, in order, while threads load the next ones."""
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
