"""Which pairs share a batch: neighbours on the map or in the embedding, never two of one class.

A batch's other pairs are its negatives, so a batch of lookalikes teaches more than a random one
(Sample4Geo, ICCV 2023: geographic neighbours first, then dynamic similarity sampling).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen.compiling import njit
from georetrieval.data.neighbours import without_self

# Knuth's linear congruential generator (MMIX), of which the upper half is used: Numba's own costs
# more than all the rest of an epoch's batches.
MULTIPLIER, INCREMENT = np.uint64(6364136223846793005), np.uint64(1442695040888963407)
HALF = np.uint64(32)


def similarity_neighbours(
    queries: torch.Tensor, references: torch.Tensor, count: int, *, chunk: int = 1024
) -> NDArray[np.int32]:
    """Find the pairs whose references look most like each query, the pair itself left out.

    Parameters
    ----------
    queries, references : (P, D) float, row i of one belongs to row i of the other
        Unit vectors, on any device.
    count
        Neighbours wanted; at most P - 1 are returned.
    chunk
        Queries compared at once: memory is chunk x P scores.

    Returns
    -------
    (P, min(count, P - 1)) int32, most similar first
    """
    count = min(count, len(queries) - 1)
    result = np.empty((len(queries), count), np.int32)
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ references.T
        found = scores.topk(count + 1, dim=1).indices.cpu().numpy()
        result[start : start + chunk] = without_self(found, start)
    return result


def plan_batches(
    classes: NDArray[np.int64],
    neighbours: NDArray[np.int32] | None,
    *,
    batch_size: int,
    take: int,
    seed: int,
    multiple: int = 1,
) -> list[NDArray[np.int64]]:
    """Cut an epoch into batches of one size.

    Parameters
    ----------
    classes : (P,) int64
        Pairs of one class never share a batch.
    neighbours : (P, K) int32, optional
        Nearest first; None draws at random.
    batch_size
        Pairs in a batch; where there are fewer classes, as many as they allow.
    take
        Neighbours that follow a drawn pair into its batch: the nearest half of them, the other
        half drawn from the rest.
    seed
        Decides everything; use another for each epoch.
    multiple
        Batch sizes are multiples of it (the number of processes).

    Returns
    -------
    list of (n,) int64
        All of one length, at least 2. Every pair is in one of them; the last batches, for which
        too few pairs or classes are left, are filled up with pairs that were used already. Empty
        where the classes are too few for any batch.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(classes))
    if neighbours is None:
        neighbours = np.empty((len(classes), 0), np.int32)
    different, dense = np.unique(classes, return_inverse=True)
    size = min(batch_size, len(different)) // multiple * multiple
    if size < 2:
        return []
    return _fill(order, neighbours, dense.astype(np.int64), size, take, random.integers(2**63))


@njit(cache=True)
def _fill(order, neighbours, classes, size, take, seed):
    """Put pairs into batches one after another: a drawn pair, its neighbours, the next drawn pair.

    A pair whose class is in the batch already waits for a later one. Of the neighbours, which of
    the farther ones follow is drawn only for the pairs that they follow: few of all.
    """
    state = np.uint64(seed)
    count = len(order)
    pool = neighbours.shape[1]
    others = np.empty(pool, neighbours.dtype)  # those of them not drawn yet, from k on
    used = np.zeros(count, np.bool_)
    last_batch = np.full(classes.max() + 1, -1, np.int64)
    batches = []
    head = 0  # all of order[:head] are used
    again = 0  # where in order the next used pair is drawn
    while head < count:
        batch = len(batches)
        members = np.empty(size, np.int64)
        filled = 0
        cursor = head
        while filled < size and cursor < count:
            pair = order[cursor]
            cursor += 1
            if used[pair] or last_batch[classes[pair]] == batch:
                continue
            used[pair] = True
            last_batch[classes[pair]] = batch
            members[filled] = pair
            filled += 1
            for k in range(min(take, pool)):
                if filled == size:
                    break
                if k == take // 2:
                    others[:] = neighbours[pair]
                if k < take // 2:
                    other = neighbours[pair, k]
                else:
                    state = state * MULTIPLIER + INCREMENT
                    drawn = k + np.int64(((state >> HALF) * np.uint64(pool - k)) >> HALF)
                    other = others[drawn]
                    others[drawn] = others[k]
                if not used[other] and last_batch[classes[other]] != batch:
                    used[other] = True
                    last_batch[classes[other]] = batch
                    members[filled] = other
                    filled += 1
        while filled < size:
            pair = order[again]
            again = (again + 1) % count
            if last_batch[classes[pair]] != batch:
                last_batch[classes[pair]] = batch
                members[filled] = pair
                filled += 1
        batches.append(members)
        while head < count and used[order[head]]:
            head += 1
    return batches
