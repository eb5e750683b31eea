"""Row 15: one query searched for in an index of a million tiles, exactly and by faiss."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from georetrieval.retrieval.index.approximate import (
    Approximate,
    build_approximate,
    faiss_module,
)
from georetrieval.retrieval.index.exact import Block, Coded, encode, gather, nearest
from georetrieval.retrieval.index.files import PART_ROWS
from georetrieval.retrieval.index.opening import SHORT_LIST
from tests.benchmarks.frame import Contest, Row, Setup, Way

DIMENSIONS, LATENT = 2048, 64
TRIED = 256
"""Queries by which the recall of faiss is known."""
LOST = 0.01
"""Share of the right ones that faiss may lose of those that the exact search finds."""

Floats = NDArray[np.float32]


def vectors(part: int, rows: int) -> Floats:
    """Unit vectors that lie near a space of 64 dimensions, as those of trained models do."""
    spread = np.random.default_rng(0).normal(size=(LATENT, DIMENSIONS)).astype(np.float32)
    random = np.random.default_rng([0, part])
    found = random.standard_normal((rows, LATENT), np.float32) @ (spread / LATENT**0.5)
    found += 0.2 * random.standard_normal((rows, DIMENSIONS), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def blocks_of(folder: Path, count: int) -> list[Block]:
    """Open the blocks of an index, of the size of its parts; write those that are not there."""
    blocks = []
    for k, start in enumerate(range(0, count, PART_ROWS)):
        names = [folder / f"{k}-{what}.npy" for what in ("vectors", "codes", "scales")]
        if not names[-1].exists():
            part = vectors(k, min(PART_ROWS, count - start))
            for name, values in zip(names, (part, *encode(part)), strict=True):
                np.save(name, values)
        exact, codes, scales = (np.load(name, mmap_mode="r") for name in names)
        blocks.append(Block(exact, Coded(codes, scales)))
    return blocks


def approximate_of(folder: Path, blocks: list[Block]) -> Approximate:
    """Open what faiss searches, which all cores make in some minutes where it is not there."""
    path = folder / "approximate.faiss"
    if not path.exists():
        faiss_module().omp_set_num_threads(os.cpu_count() or 1)
        build_approximate(path, blocks)
        faiss_module().omp_set_num_threads(1)
    return Approximate.open(path)


def million(setup: Setup) -> Mapping[str, Way]:
    """Query k belongs to reference k and is about as near to it as trained models bring them."""
    count = setup.pick(1_000_000, 4000)
    folder = setup.folder / f"index-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    blocks = blocks_of(folder, count)
    approximate = approximate_of(folder, blocks)
    chosen = np.sort(np.random.default_rng(1).permutation(count)[:TRIED])
    noise = np.random.default_rng(2).standard_normal((TRIED, DIMENSIONS), np.float32)
    queries = gather(blocks, chosen) + noise / DIMENSIONS**0.5
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)

    def exactly(part: Floats) -> NDArray[np.int64]:
        return nearest(part, blocks, 5, threads=2)[0]

    def roughly(part: Floats) -> NDArray[np.int64]:
        found = []
        for query, rows in zip(part, approximate.search(part, SHORT_LIST), strict=True):
            names = np.sort(rows[rows >= 0])
            found.append(names[np.argsort(-(gather(blocks, names) @ query))[:5]])
        return np.array(found)

    right = {
        name: float((search(queries)[:, 0] == chosen).mean())
        for name, search in (("exact", exactly), ("faiss", roughly))
    }
    click.echo(f"recall@1 of {TRIED} queries: {right}", err=True)
    if right["exact"] - right["faiss"] > LOST:
        raise ValueError(f"faiss loses too much: {right}")
    turn = iter(range(10**9))

    def one() -> Floats:
        """Take another query each time, so that none finds its rows in memory."""
        return queries[next(turn) % TRIED][None]

    return {
        "exact": Way(lambda: exactly(one())),
        "faiss, ranked exactly": Way(lambda: roughly(one())),
    }


CONTESTS = [
    Contest(
        "index-million",
        "one query in an index of 1,000,000 references of 2,048 dimensions",
        "search",
        million,
        [
            Row("15", "one of a million, exactly", "exact", None, 2, 0.5, memory=1e9),
            Row("15b", "the same by faiss", "faiss, ranked exactly", None, 0.1, 0.03),
        ],
        clock="wall",
        memory=True,
        rounds=15,
    ),
]
