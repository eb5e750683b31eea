"""Shards written directly, without images to convert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bevgen.shards import Failure, Row, ShardHeader, begin_shard, finish_shard

SETTINGS = {"size": 16}
SHAPE = (16, 16, 3)


def picture(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return smooth colours, of which JPEG keeps most."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, shape[2]))
    along = np.linspace(0, 1, shape[0])[:, None, None]
    rows = corners[0] * (1 - along) + corners[1] * along
    return np.broadcast_to(rows[:, :1], shape).astype(np.uint8)


def write_shard(
    path: Path, rows: Sequence[tuple[str, str]], shape: tuple[int, int, int] = SHAPE
) -> Path:
    """Write a shard of rows (id, source), the first of which has a pose, and one failure."""
    partial = begin_shard(path, len(rows) + 1, ShardHeader("bev", shape, SETTINGS, "ab"))
    made = []
    for slot, (name, source) in enumerate(rows):
        crcs = partial.write(slot, picture(slot, shape), None)
        columns = {} if slot else {"heading": 90.5, "latitude": 47.123456789}
        made.append(Row(slot, name, source, 7, *crcs, columns, "" if slot else "2024-05-01"))
    finish_shard(partial, made, [Failure("bad\tone.jpg", 8, "cannot be decoded")])
    return path
