"""What more cores give: the commands by 1, 2, 4, 8 and 16 threads or processes, where there are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen import ImageSettings, ShardSet, convert, export_images, merge, to_chw, verify
from georetrieval.retrieval.ranking import rank_references
from tests.benchmarks import inputs
from tests.benchmarks.conversion import links, remove, to_shard
from tests.benchmarks.frame import Contest, Setup, Way
from tests.benchmarks.retrieval import embeddings

SHARD = 32
"""Images in a shard: many shards, so that what one thread does at their ends is hidden."""


def counts() -> Iterator[int]:
    """Yield how many threads to try on this machine."""
    yield from (n for n in (1, 2, 4, 8, 16) if n <= (os.cpu_count() or 1))


def commands(setup: Setup) -> Mapping[str, Way]:
    count, times = setup.pick(256, 4), setup.pick(8, 2)
    source = links(inputs.panoramas(setup.folder, count // times, (1664, 832)), times)
    stored, packed = setup.folder / "cores.h5", setup.folder / "cores-packed.h5"
    merged, files = setup.folder / "cores-merged.h5", setup.folder / "cores-files"
    remove(stored)
    to_shard(source, stored, "threads", None, SHARD)
    shards, rows = ShardSet(stored), np.random.default_rng(0).permutation(count)
    ways: dict[str, Way] = {}

    def add(name: str, run: Callable[[], object], *made: Path) -> None:
        ways[name] = Way(run, count, lambda: [cleared(path) for path in made])

    out = setup.folder / "cores-out.h5"
    for scheduler in ("threads", "processes"):
        for n in counts():
            run = partial(to_shard, source, out, scheduler, n, SHARD)
            add(f"convert, {n} {scheduler}", run, out)
    for n in counts():
        settings = ImageSettings("panorama", 256, 512)
        run = partial(convert, source, packed, settings, workers=n, shard_size=SHARD)
        add(f"pack, {n} threads", run, packed)
    for kind in ("png", "jpg"):
        for n in counts():
            run = partial(export_images, shards, files, format=kind, threads=n)
            add(f"export {kind}, {n} threads", run, files)
    read_by(shards, rows[:16], 1)  # compiled before the clock
    for n in counts():
        add(f"read and scale, {n} threads", partial(read_by, shards, rows, n))
    add("merge, always one thread", partial(merge, stored, merged), merged)
    add("verify, always one thread", partial(verify, stored))
    return ways


def cleared(path: Path) -> None:
    """Remove what a way made: a file with its shards, or a folder."""
    shutil.rmtree(path) if path.is_dir() else remove(path)


def read_by(shards: ShardSet, rows: NDArray[np.int64], threads: int) -> None:
    """Read batches of 16 into network input."""
    parts = [rows[k : k + 16] for k in range(0, len(rows), 16)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: to_chw(shards.read(part)), parts))


def evaluation(setup: Setup) -> Mapping[str, Way]:
    count = setup.pick(8000, 200)
    queries, gallery = embeddings(count, count, "cpu")

    def rank(threads: int) -> None:
        torch.set_num_threads(threads)
        try:
            rank_references(queries, gallery, np.arange(count))
        finally:
            torch.set_num_threads(1)

    return {f"{n} threads": Way(partial(rank, n)) for n in counts()}


CONTESTS = [
    Contest(
        "cores",
        f"panoramas of 1664x832 to BEVs of 512x512 in shards of {SHARD}, or packed at 512x256; the"
        " BEVs exported as files, read in batches of 16 and made network input, merged, verified",
        "image",
        commands,
        clock="wall",
        rounds=3,
        warm_up=False,
    ),
    Contest(
        "cores-evaluation",
        "ranks and the five best of 8,000 queries in 8,000 references of 1,024 dimensions",
        "evaluation",
        evaluation,
        clock="wall",
        rounds=3,
    ),
]
