"""Rows 1 to 4: what `bevgen convert` does, JPEG files to a shard, against EP-BEV.py and others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image

from bevgen import BevSettings, convert
from tests.benchmarks import inputs, published
from tests.benchmarks.frame import Contest, Row, Setup, Way

SETTINGS = BevSettings(height=1.5, size=512, resolution=0.06)


def to_shard(
    source: Path, out: Path, scheduler: str, workers: int | None, shard_size: int = 256
) -> None:
    options = {"scheduler": scheduler, "workers": workers, "shard_size": shard_size}
    report = convert(source, out, SETTINGS, **options, decoder="rows")
    if report.failures:
        raise RuntimeError(f"images were skipped: {report.reasons}")


def to_jpeg_files(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        published.ep_bev(path, target / path.name)


def remove(target: Path) -> None:
    for folder in (target, target.with_suffix(".shards")):
        if folder.is_dir():
            shutil.rmtree(folder)
    target.unlink(missing_ok=True)


def links(source: Path, times: int) -> Path:
    """Return a folder that holds each file so many times."""
    folder = source.with_name(f"{source.name}-times-{times}")
    folder.mkdir(exist_ok=True)
    for path in source.iterdir():
        for k in range(times):
            target = folder / f"{k}-{path.name}"
            if not target.exists():
                target.symlink_to(path.absolute())
    return folder


def only_decode(source: Path) -> None:
    for path in sorted(source.iterdir()):
        with Image.open(path) as image:
            image.load()


def by_opencv(source: Path, out: Path, maps: tuple[np.ndarray, np.ndarray]) -> None:
    """What one would write by hand: imread, remap with fixed-point maps, h5py."""
    paths = sorted(source.iterdir())
    with h5py.File(out, "w") as file:
        images = file.create_dataset("images", (len(paths), 512, 512, 3), np.uint8)
        for k, path in enumerate(paths):
            panorama = np.asarray(cv2.imread(str(path)))
            images[k] = cv2.remap(panorama, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def prepare(
    setup: Setup, size: tuple[int, int], quality: int, *, others: bool = False
) -> Mapping[str, Way]:
    count = setup.pick(256, 4)  # a whole shard of the default size
    source = links(inputs.panoramas(setup.folder, count // 4, size, quality=quality), 4)
    out = setup.folder / f"{source.name}-out"

    def way(run: Callable[..., None], target: Path | None, *parts: object) -> Way:
        # Everyone writes new files; what removing the old ones takes is not the work.
        if target is None:
            return Way(partial(run, source, *parts), count)
        return Way(partial(run, source, target, *parts), count, partial(remove, target))

    ways = {
        "bevgen": way(to_shard, out.with_suffix(".h5"), "sync", None),
        "EP-BEV.py": way(to_jpeg_files, out),
    }
    if others:
        u, v = (part.numpy() for part in published.ep_bev_map(*size))
        maps = cv2.convertMaps(u - 0.5, v - 0.5, cv2.CV_16SC2)
        ways["Pillow merely decoding"] = way(only_decode, None)
        ways["imread, remap, h5py"] = way(by_opencv, out.with_suffix(".cv2.h5"), maps)
    return ways


def threads(setup: Setup) -> Mapping[str, Way]:
    count = setup.pick(1024, 4)  # four shards: one is completed while the next is filled
    times = setup.pick(16, 2)
    source = links(inputs.panoramas(setup.folder, count // times, (1664, 832)), times)
    ways: dict[str, Way] = {}
    for n in (2, 1):
        out = setup.folder / f"threads-{n}.h5"
        run = partial(to_shard, source, out, "threads", n)
        ways[f"{n} thread{'s' * (n > 1)}"] = Way(run, count, partial(remove, out))
    return ways


CONTESTS = [
    Contest(
        "convert",
        "JPEG panoramas of 1664x832, quality 90, 4:2:0, about 262 KiB, to BEVs of 512x512",
        "image",
        partial(prepare, size=(1664, 832), quality=90, others=True),
        [
            Row("1", "convert", "bevgen", "EP-BEV.py", 12, 15),
            Row("2", "convert", "bevgen", "Pillow merely decoding", 1.5, 1.8),
        ],
    ),
    Contest(
        "convert-2048",
        "the same from 2048x1024, as in VIGOR",
        "image",
        partial(prepare, size=(2048, 1024), quality=90),
        [Row("3a", "convert, 2048x1024", "bevgen", "EP-BEV.py", 10, 13)],
    ),
    Contest(
        "convert-q95",
        "the same from 1664x832 of quality 95",
        "image",
        partial(prepare, size=(1664, 832), quality=95),
        [Row("3b", "convert, quality 95", "bevgen", "EP-BEV.py", 9, 11)],
    ),
    Contest(
        "threads",
        "convert with two threads and with one",
        "image",
        threads,
        [Row("4", "convert, two threads", "2 threads", "1 thread", 1.75, 1.9)],
        clock="wall",
    ),
]
