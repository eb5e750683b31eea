"""Rows 9 to 11: recall, neighbours on the map, batches of an epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from georetrieval.data.neighbours import geographic_neighbours
from georetrieval.retrieval import int8
from georetrieval.retrieval.ranking import rank_references
from georetrieval.training.sampling import plan_batches
from tests.benchmarks import published
from tests.benchmarks.frame import Contest, NotHereError, Row, Setup, Way


def unit_vectors(count: int, dimensions: int, seed: int) -> torch.Tensor:
    """Random unit vectors."""
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dimensions, generator=random))


def embeddings(queries: int, references: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Query k belongs to reference k and is about as near to it as trained models bring them."""
    gallery = unit_vectors(references, 1024, 0)
    near = torch.nn.functional.normalize(gallery[:queries] + unit_vectors(queries, 1024, 1))
    return near.to(device), gallery.to(device)


def recall(setup: Setup) -> Mapping[str, Way]:
    count = setup.pick(20_000, 200)
    queries, gallery = embeddings(count, count, setup.device)
    positive = np.arange(count)
    for search in (rank_references, published.recalls):
        search(queries[:100], gallery[:100], positive[:100])  # what is loaded once does not count
    ways = {
        "georetrieval": Way(lambda: rank_references(queries, gallery, positive, top=1)),
        "georetrieval, and the five best": Way(lambda: rank_references(queries, gallery, positive)),
        "published scoring": Way(lambda: published.recalls(queries, gallery, positive)),
    }
    if setup.device == "cpu":

        def without_int8() -> None:
            """Search as where bytes are not multiplied fast, or not right."""
            levels, int8.levels = int8.levels, lambda _: 0
            try:
                rank_references(queries, gallery, positive, top=1)
            finally:
                int8.levels = levels

        ways["georetrieval, without int8"] = Way(without_int8)
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(1024)
        index.add(gallery.numpy())
        # As many as R@1% needs.
        ways["faiss Flat, the best 1 %"] = Way(lambda: index.search(queries.numpy(), count // 100))
    return ways


def free_memory() -> float:
    """Bytes that programs may still take; without end where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return math.inf
    return 1024.0 * int(re.findall(r"MemAvailable:\s*(\d+)", text)[0])


def neighbours(setup: Setup) -> Mapping[str, Way]:
    count, pool = setup.pick(35_532, 300), setup.pick(128, 8)
    needed = 12 * count**2  # the dense matrix, and what sorting it takes
    if needed > free_memory():
        raise NotHereError(f"its peer needs {needed / 1e9:.0f} GB of free memory")
    # As many places as CVACT trains on, in a city of its size.
    positions = np.random.default_rng(0).uniform([-35.4, 149.0], [-35.2, 149.2], (count, 2))
    for search in (geographic_neighbours, published.near_on_map):
        search(positions[:100], 8)  # imports are not what is measured
    return {
        "georetrieval": Way(lambda: geographic_neighbours(positions, pool)),
        "published dense matrix": Way(lambda: published.near_on_map(positions, pool)),
    }


def million(setup: Setup) -> Mapping[str, Way]:
    """The matrix of all distances would be 8 TB, so ours has no peer here."""
    count, pool = setup.pick(1_000_000, 1000), setup.pick(128, 8)
    # As densely as the smaller contest's places.
    positions = np.random.default_rng(0).uniform([-35.8, 148.5], [-34.74, 149.56], (count, 2))
    geographic_neighbours(positions[:100], 8)
    return {"georetrieval": Way(lambda: geographic_neighbours(positions, pool))}


def lookalikes(count: int, pool: int) -> NDArray[np.int32]:
    """Neighbours of places by similarity in a small space."""
    from scipy.spatial import KDTree

    places = np.random.default_rng(0).normal(size=(count, 3))
    return KDTree(places).query(places, k=pool + 1)[1][:, 1:].astype(np.int32)


def batches(setup: Setup) -> Mapping[str, Way]:
    count, pool = setup.pick(52_609, 500), setup.pick(128, 16)
    take, size = pool // 2, pool
    near, classes = lookalikes(count, pool), np.arange(count)
    as_lists = near.tolist()

    def ours() -> None:
        plan_batches(classes, near, batch_size=size, take=take, seed=0)

    return {
        "georetrieval": Way(ours),
        "published shuffle": Way(lambda: published.shuffle(as_lists, size, take)),
    }


CONTESTS = [
    Contest(
        "recall",
        "ranks of 20,000 queries in 20,000 references of 1,024 dimensions",
        "evaluation",
        recall,
        [
            Row("9", "recall", "georetrieval", "published scoring", 4, 8, memory=0.1),
            Row("9b", "recall", "georetrieval, and the five best", "published scoring"),
            Row("9c", "recall", "georetrieval, without int8", "published scoring"),
            Row("9d", "recall", "georetrieval", "faiss Flat, the best 1 %"),
        ],
        memory=True,
        warm_up=False,
    ),
    Contest(
        "neighbours",
        "the 128 nearest of 35,532 places on the map",
        "search",
        neighbours,
        [
            Row(
                "10",
                "geographic neighbours",
                "georetrieval",
                "published dense matrix",
                20,
                50,
                memory=0.01,
            )
        ],
        memory=True,
        warm_up=False,
    ),
    Contest(
        "neighbours-million",
        "the 128 nearest of 1,000,000 places on the map",
        "search",
        million,
        [Row("10b", "a million places", "georetrieval")],
        memory=True,
        rounds=1,
        warm_up=False,
    ),
    Contest(
        "batches",
        "one epoch's batches of 128 for 52,609 places from similarity neighbours",
        "epoch",
        batches,
        [Row("11", "batches of an epoch", "georetrieval", "published shuffle", 20, 100)],
    ),
]
