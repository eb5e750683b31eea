"""Folders of good and damaged files, converted by the real command: what happened to each."""

import json

import numpy as np

from bevgen import ShardSet
from tests.helpers.image_files import encoded, scene
from tests.helpers.runs import SMALL, bevgen


def run_convert(folder, out, *options):
    """Run `bevgen convert` to its end; its report, None where it printed none."""
    where = ("--in", folder, "--out", out)
    done = bevgen("convert", *where, *SMALL, "--json", *options, expect=None, timeout=1200)
    assert done.returncode in (0, 1, 3), done.stderr
    return json.loads(done.stdout) if done.stdout else None


def fates(out):
    """Source -> None for a stored image, the reason for one skipped."""
    with ShardSet(out) as shards:
        stored = dict.fromkeys(shards.sources)
        return stored | {failure.source: failure.reason for failure in shards.failures}


FORMATS = {
    "jpeg": {"quality": 85},
    "png": {},
    "webp": {"lossless": True},
    "tiff": {"compression": "tiff_deflate"},
}


def valid_files():
    """One sound file of each format: ending -> bytes."""
    return {name: encoded(scene(), name, **options) for name, options in FORMATS.items()}


def damaged(data, random):
    """Cut, flip, blank, double or mix the bytes of a file."""
    data = bytearray(data)
    way = random.integers(5)
    if way == 0:
        return bytes(data[: random.integers(len(data))])
    start = int(random.integers(len(data)))
    length = int(min(2 ** random.integers(0, 10), len(data) - start))
    if way == 1:
        for place in random.integers(0, len(data), random.integers(1, 20)):
            data[place] ^= int(random.integers(1, 256))
    elif way == 2:
        data[start : start + length] = bytes(length)
    elif way == 3:
        data[start:start] = data[start : start + length]
    else:
        data[start : start + length] = random.bytes(length)
    return bytes(data)


def damaged_folder(folder, count, seed):
    """Write ``count`` damaged files among some good ones; the names of the good ones."""
    random = np.random.default_rng(seed)
    files = valid_files()
    good = []
    for number in range(count):
        name = list(files)[number % len(files)]
        (folder / f"bad-{number:05d}.{name}").write_bytes(damaged(files[name], random))
        if number % 10 == 0:
            good.append(f"good-{number:05d}.{name}")
            (folder / good[-1]).write_bytes(files[name])
    return good
