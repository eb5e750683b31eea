"""A tiny world in shards: places whose three views are fixed transforms of one colour pattern."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevgen.shards import Row, ShardHeader, begin_shard, finish_shard
from georetrieval.config import Settings

SIDE = 32  # pixels of the squares; panoramas are 32 x 64


def write_shards(
    path: Path,
    kind: str,
    ids: Sequence[str],
    images: NDArray[np.uint8],
    positions: NDArray[np.float64] | None = None,
    **settings: float,
) -> Path:
    """Write images as one finished shard."""
    digest = hashlib.sha256(images.tobytes() + "\n".join(ids).encode()).hexdigest()
    header = ShardHeader(kind, images.shape[1:], {"kind": kind, **settings}, digest)
    partial = begin_shard(path, len(ids), header)
    rows = []
    for slot, name in enumerate(ids):
        crc, _ = partial.write(slot, images[slot], None)
        columns: dict[str, float] = {}
        if positions is not None:
            columns = {"latitude": positions[slot, 0], "longitude": positions[slot, 1]}
        rows.append(Row(slot, name, f"{name}.png", slot, crc, None, columns))
    finish_shard(partial, rows, [])
    return path


def polar(squares: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Unroll squares around their centre: columns clockwise from north in the centre column."""
    azimuth = (np.arange(2 * SIDE) + 0.5) / (2 * SIDE) * 2 * np.pi - np.pi
    radius = (np.arange(SIDE) + 0.5)[::-1, None] / 2
    row = (SIDE / 2 - radius * np.cos(azimuth)).astype(int).clip(0, SIDE - 1)
    column = (SIDE / 2 + radius * np.sin(azimuth)).astype(int).clip(0, SIDE - 1)
    return squares[:, row, column]


@dataclass(frozen=True)
class World:
    """A folder with panorama.h5, bev.h5, satellite.h5 and pairs.csv."""

    root: Path
    ids: list[str]
    splits: list[str]
    positions: NDArray[np.float64]

    def write_pairs(self, references: Sequence[str] | None = None, name: str = "pairs.csv") -> Path:
        """Pair each query with a reference; None with its own."""
        path = self.root / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["query", "reference", "split"])
            writer.writerows(zip(self.ids, references or self.ids, self.splits, strict=True))
        return path


def make_world(root: Path, *, train: int = 64, val: int = 16, test: int = 16) -> World:
    """Draw places; their ids carry no order."""
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    count = train + val + test
    coarse = random.integers(0, 256, (count, 4, 4, 3))
    satellite = coarse.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2).astype(np.uint8)
    noise = random.integers(-8, 9, satellite.shape)
    bev = (satellite[..., [2, 0, 1]] * 0.8 + 20 + noise).clip(0, 255).astype(np.uint8)
    panorama = 255 - polar(satellite)
    ids = [f"p{k:03d}" for k in random.permutation(count)]
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    positions = np.stack(
        [48 + random.uniform(0, 0.01, count), 11 + random.uniform(0, 0.01, count)], axis=1
    )
    for kind, images in (("panorama", panorama), ("bev", bev), ("satellite", satellite)):
        write_shards(root / f"{kind}.h5", kind, ids, images, positions)
    world = World(root, ids, splits, positions)
    world.write_pairs()
    return world


def tiny_settings(*branches: str, **changes: object) -> Settings:
    """Settings that train in seconds: a tiny ConvNeXt, one learning rate, hardly any change.

    ``changes`` are ``section__key=value`` for the branches, or ``key=value`` for the run.
    """
    branch: dict[str, dict[str, object]] = {
        "encoder": {"name": "test_convnext2", "pretrained": False},
        "sampling": {"batch_size": 16, "pool": 8, "take": 4, "mine_every": 2},
        "augment": dict.fromkeys(
            ("turn", "compression", "photometric", "blur_or_sharpen", "dropout"), 0
        ),
        "optim": {"epochs": 4, "precision": "float32", "warmup_epochs": 0.5},
    }
    top: dict[str, object] = {"evaluate_every": 2}
    for key, value in changes.items():
        section, double, last = key.partition("__")
        if double:
            branch.setdefault(section, {})[last] = value
        else:
            top[section] = value
    chosen = {
        name: branch if name in (branches or ("bev",)) else False for name in ("panorama", "bev")
    }
    return Settings.model_validate({**top, **chosen})
