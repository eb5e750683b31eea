"""Row 8: batches of BEVs from shards, against JPEG files through OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from bevgen import BevSettings, ShardSet, convert, to_chw
from tests.benchmarks import inputs, published
from tests.benchmarks.frame import Contest, Row, Setup, Way


def bevs(setup: Setup, count: int, side: int) -> tuple[Path, list[Path]]:
    """A shard of BEVs, and the same at 512 pixels as JPEG files of quality 75, as published."""
    source = inputs.panoramas(setup.folder, count, (1664, 832))
    stored, published_files = (
        _converted(source, setup.folder / f"bevs-{count}-{size}.h5", size, 0.06 * 512 / size)
        for size in (side, 512)
    )
    folder = setup.folder / f"bevs-{count}-jpeg"
    folder.mkdir(exist_ok=True)
    files = []
    with ShardSet(published_files) as shards:
        for k in range(count):
            files.append(folder / f"{k:04d}.jpg")
            if not files[-1].exists():
                Image.fromarray(shards[k]).save(files[-1], quality=75)
    return stored, files


def _converted(source: Path, out: Path, size: int, resolution: float) -> Path:
    convert(source, out, BevSettings(height=1.5, size=size, resolution=resolution))
    return out


def loader(setup: Setup) -> Mapping[str, Way]:
    count, side = setup.pick(128, 4), 384
    stored, files = bevs(setup, count, side)
    shards = ShardSet(stored)
    batch = setup.pick(32, 2)
    order = np.random.default_rng(0).permutation(count).reshape(-1, batch)
    pixels = np.empty((batch, side, side, 3), np.uint8)
    planes = np.empty((batch, 3, side, side), np.float32)

    def to_uint8() -> None:
        for rows in order:
            shards.read(rows, out=pixels)

    def to_float32() -> None:
        for rows in order:
            to_chw(shards.read(rows, out=pixels), published.MEAN, published.STD, out=planes)

    def from_jpeg() -> None:
        for rows in order:
            for slot, row in enumerate(rows):
                planes[slot] = published.load_image(files[row], side)

    return {
        "shard to uint8": Way(to_uint8, count),
        "shard to normalized float32": Way(to_float32, count),
        "imread, resize, normalize": Way(from_jpeg, count),
    }


CONTESTS = [
    Contest(
        "loader",
        "BEVs of 384x384 in random order into batches of 32; JPEG files of 512x512, quality 75,"
        " as published",
        "image",
        loader,
        [
            Row("8a", "loader to uint8", "shard to uint8", "imread, resize, normalize", 40, 57),
            Row(
                "8b",
                "loader to float32",
                "shard to normalized float32",
                "imread, resize, normalize",
                12,
                15,
            ),
        ],
    )
]
