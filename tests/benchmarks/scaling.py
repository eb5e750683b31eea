"""Scaling: conversion by number of images, evaluation by number of references."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from georetrieval.retrieval.ranking import rank_references
from tests.benchmarks.frame import Contest, Setup, Way, child
from tests.benchmarks.retrieval import embeddings


def many_panoramas(folder: Path, count: int) -> Path:
    """Put four tiny panoramas under many names, in folders of a thousand."""
    target = folder / f"panoramas-tiny-{count}"
    if target.is_dir():
        return target
    part = target.with_name(target.name + ".part")
    random = np.random.default_rng(0)
    for k in range(count):
        path = part / f"{k // 1000:03d}" / f"{k:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k % 1000 < 4:  # so that no file has more names than file systems allow
            colours = Image.fromarray(random.integers(0, 256, (4, 8, 3), np.uint8))
            colours.resize((64, 32), Image.Resampling.BICUBIC).save(path)
        else:
            path.hardlink_to(path.with_name(f"{k // 1000 * 1000 + k % 4:06d}.jpg"))
    part.rename(target)
    return target


def conversion(setup: Setup) -> Mapping[str, Way]:
    counts = [20, 40] if setup.tiny else [1000, 10_000] + [100_000] * setup.full
    ways = {}
    for count in counts:
        source = many_panoramas(setup.folder, count)
        out = setup.folder / f"tiny-{count}.h5"
        words = ["-m", "bevgen", "convert", "--in", source, "--out", out, "--height", "2"]
        words += ["--size", "16", "--resolution", "1", "--overwrite", "--quiet"]
        ways[f"{count:,} images"] = Way(partial(child, sys.executable, *words, memory=True), count)
    return ways


def evaluation(setup: Setup) -> Mapping[str, Way]:
    counts = [100, 200] if setup.tiny else [10_000, 30_000, 100_000]
    number = setup.pick(1000, 50)
    queries, gallery = embeddings(number, counts[-1], setup.device)
    return {
        f"{count:,} references": Way(
            partial(rank_references, queries, gallery[:count], np.arange(number)), number
        )
        for count in counts
    }


CONTESTS = [
    Contest(
        "scaling-convert",
        "`bevgen convert` of panoramas of 64x32 to BEVs of 16x16; memory is the process's peak",
        "image",
        conversion,
        rounds=1,
        warm_up=False,
        clock="wall",
    ),
    Contest(
        "scaling-evaluation",
        "ranks of 1,000 queries by number of references of 1,024 dimensions; memory is what comes"
        " on top of the embeddings",
        "query",
        evaluation,
        memory=True,
        rounds=3,
    ),
]
