"""Inputs like the datasets': photographic panoramas of their sizes, made from real ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.paths import STREET

CVACT_BYTES = 262 * 1024  # a usual CVACT file: 1664x832, quality 90, 4:2:0


def panoramas(
    folder: Path,
    count: int,
    size: tuple[int, int],
    *,
    quality: int = 90,
    like: tuple[tuple[int, int], int, int] = ((1664, 832), 90, CVACT_BYTES),
) -> Path:
    """Write JPEG panoramas into a sub-folder, unless they are there already.

    Their detail is such that at the size and quality of ``like`` a file has its bytes; so sharper
    or smaller images come out with as many bits a pixel as the datasets'. Each is turned by
    another angle, so no two files are equal.
    """
    width, height = size
    target = folder / f"panoramas-{width}x{height}-q{quality}-{count}"
    if target.is_dir():
        return target
    part = target.with_name(target.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    sources = [
        _with_detail(Image.open(path).convert("RGB"), *like)
        for path in sorted(STREET.glob("*.jpg"))
    ]
    for k in range(count):
        image = sources[k % len(sources)].resize(size, Image.Resampling.LANCZOS)
        turned = np.roll(np.asarray(image), k * width // count, axis=1)
        Image.fromarray(turned).save(part / f"p{k:04d}.jpg", quality=quality, subsampling="4:2:0")
    part.rename(target)
    return target


def _with_detail(
    image: Image.Image, size: tuple[int, int], quality: int, wanted: int
) -> Image.Image:
    """Shrink an image until, brought back to ``size``, its file has the wanted bytes."""
    low, high = 0.2, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        small = image.resize(
            (int(size[0] * middle), int(size[1] * middle)), Image.Resampling.LANCZOS
        )
        file = io.BytesIO()
        small.resize(size, Image.Resampling.LANCZOS).save(
            file, "JPEG", quality=quality, subsampling="4:2:0"
        )
        low, high = (middle, high) if file.tell() < wanted else (low, middle)
    return small
