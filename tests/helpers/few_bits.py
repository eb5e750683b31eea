"""Vectors whose scores float32 holds exactly, so that they must be the same on all processors.

Usage: python -m tests.helpers.few_bits DIMENSIONS...

Writes the ranks and the best scores of a search, screened whatever the processor is fast at.
"""

import json
import sys

import numpy as np
import torch
from numpy.typing import NDArray

from georetrieval.retrieval import int8
from georetrieval.retrieval.ranking import rank_references


def few_bits(dimensions: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Make queries, a gallery, and the right reference of each query."""
    random = np.random.default_rng(dimensions)
    gallery = random.integers(-7, 8, (5000, dimensions)).astype(np.float32)
    positive = random.integers(0, 5000, 600)
    noise = random.integers(-4, 5, (600, dimensions))
    return gallery[positive] + noise.astype(np.float32), gallery, positive


if __name__ == "__main__":
    int8.has_fast_products = lambda: True
    found = {}
    for dimensions in map(int, sys.argv[1:]):
        queries, gallery, positive = few_bits(dimensions)
        ranking = rank_references(torch.from_numpy(queries), torch.from_numpy(gallery), positive)
        found[dimensions] = ranking.rank.tolist(), ranking.scores.tolist()
    sys.stdout.write(json.dumps(found))
