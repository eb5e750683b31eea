"""Search among millions: an inverted file with product quantisation (faiss), ranked again exactly.

The file is memory-mapped, so that opening it takes no time and only what is looked at is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevgen import written_whole
from georetrieval.errors import IndexFileError
from georetrieval.retrieval.index.exact import Block, Floats, gather

TRAINING = 65_536
"""Vectors that cells and codes are learnt from, drawn from all."""
PROBES = 48
"""Cells that a search looks into."""


def faiss_module() -> Any:
    """Import faiss.

    Raises
    ------
    IndexFileError
        If it is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise IndexFileError(
            'approximate search needs faiss: pip install "bevgen[index]", or search exactly'
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Approximate:
    """An opened file; safe to share between threads."""

    index: Any

    @classmethod
    def open(cls, path: Path) -> Approximate:
        """Map a file of `build_approximate`.

        Raises
        ------
        IndexFileError
            If it is damaged, or faiss is not installed.
        """
        faiss = faiss_module()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise IndexFileError(
                f"{path} is damaged or missing: run `georetrieval index --approximate` again"
            ) from error
        return cls(index)

    def search(self, queries: Floats, count: int) -> NDArray[np.int64]:
        """Return the rows (Q, count) that are probably the nearest; -1 where there are fewer."""
        faiss = faiss_module()
        options = faiss.SearchParametersIVF(nprobe=PROBES)
        return self.index.search(np.ascontiguousarray(queries), count, params=options)[1]


def build_approximate(
    path: Path,
    blocks: Sequence[Block],
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Learn cells and codes, add all vectors a block at a time, and write the file.

    Parameters
    ----------
    path
        Written whole or not at all.
    blocks
        The references, on disk.
    seed
        Of the vectors to learn from.
    on_progress
        Hears how many vectors are added, of how many.
    """
    faiss = faiss_module()
    sizes = [len(block.vectors) for block in blocks]
    count, dimension = sum(sizes), blocks[0].vectors.shape[1]
    random = np.random.default_rng(seed)
    sample = gather(blocks, np.sort(random.permutation(count)[:TRAINING]))
    cells = int(np.clip(4 * count**0.5, 1, len(sample) // 39 or 1))
    pieces = next(n for n in (128, 64, 32, 16, 8, 4, 2, 1) if dimension % n == 0)
    bits = 8 if len(sample) >= 39 * 256 else 4
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQ(quantizer, dimension, cells, pieces, bits, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 8
    # Few points are no reason for a line on stderr for each piece: what is found is ranked exactly.
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.train(sample)
    done = 0
    for block, size in zip(blocks, sizes, strict=True):
        index.add(np.array(block.vectors))
        done += size
        on_progress(done, count)
    with written_whole(path) as part:
        faiss.write_index(index, str(part))
