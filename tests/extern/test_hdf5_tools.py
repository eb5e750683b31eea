"""Shards as other HDF5 tools see them (Debian: hdf5-tools)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bevgen.errors import ShardError
from bevgen.shards import (
    Failure,
    Row,
    ShardHeader,
    ShardSet,
    begin_shard,
    finish_shard,
    shard_folder,
    verify,
    write_index,
)
from tests.helpers.paths import ROOT
from tests.test_docs import run_page

pytestmark = [
    pytest.mark.extern,
    pytest.mark.skipif(shutil.which("h5dump") is None, reason="hdf5-tools is not installed"),
]

SETTINGS = {"size": 4}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def output(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two shards of two images each, with an index; the second has a failure and masks."""
    path = tmp_path / "bev.h5"
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 5, 3), dtype=np.uint8)
    files = []
    for k in range(2):
        files.append(shard_folder(path) / f"{k:05d}.h5")
        partial = begin_shard(files[-1], 2 + k, ShardHeader("bev", (4, 5, 3), SETTINGS, "ab"))
        rows = []
        for slot in range(2):
            mask = np.arange(20).reshape(4, 5) != slot if k else None
            crcs = partial.write(slot, images[2 * k + slot], mask)
            name = f"pano{2 * k + slot}"
            rows.append(Row(slot, name, f"{name}.jpg", 7, *crcs, {"heading": 90.5}, "2024"))
        finish_shard(partial, rows, [Failure("bad.jpg", 8, "cannot be decoded")] * k)
    write_index(path, files, SETTINGS, "cd")
    return path, images


def dumped_numbers(text: str) -> list[int]:
    """Return the values that h5dump -y prints: without indices, between DATA and its end."""
    data = text.split("DATA {")[1].split("}")[0]
    return [int(number) for number in re.findall(r"\d+", data)]


def test_h5ls_shows_the_index_and_its_shards(output: tuple[Path, np.ndarray]) -> None:
    path, _ = output
    listing = run("h5ls", "-r", "-E", path)
    for expected in (
        r"/ids +Dataset \{4\}",
        r"/failures +Dataset \{1\}",
        r"/first_row +Dataset \{2\}",
        r"/heading +Dataset \{4\}",
        r"/shards/00000 +External Link \{bev\.shards/00000\.h5//\}",
        r"/shards/00000/images +Dataset \{2, 4, 5, 3\}",
        r"/shards/00001 +External Link \{bev\.shards/00001\.h5//\}",
    ):
        assert re.search(expected, listing), listing
    # It marks the other shards as already visited, since their roots have one address.
    assert "images" in run("h5ls", shard_folder(path) / "00001.h5")


def test_h5dump_reads_pixels_and_masks_of_a_shard(output: tuple[Path, np.ndarray]) -> None:
    path, images = output
    shard = shard_folder(path) / "00001.h5"
    pixels = run("h5dump", "-y", "-d", "/images", shard)
    assert "STD_U8LE" in pixels
    assert dumped_numbers(pixels) == images[2:].ravel().tolist()
    mask = dumped_numbers(run("h5dump", "-y", "-d", "/valid", shard))
    assert (
        mask == ShardSet(path).valid(2).ravel().tolist() + ShardSet(path).valid(3).ravel().tolist()
    )


def test_h5dump_reads_pixels_through_the_index(output: tuple[Path, np.ndarray]) -> None:
    path, images = output
    pixels = run("h5dump", "-y", "-d", "/shards/00000/images", path)
    assert dumped_numbers(pixels) == images[:2].ravel().tolist()


def test_h5dump_reads_texts_without_padding(output: tuple[Path, np.ndarray]) -> None:
    path, _ = output
    assert '"pano0", "pano1", "pano2", "pano3"' in run("h5dump", "-y", "-d", "/ids", path)
    failures = run("h5dump", "-y", "-d", "/failures", path)
    assert '"bad.jpg",' in failures
    assert '"cannot be decoded"' in failures
    assert '"{"size":4}"' in run("h5dump", "-a", "/settings", path)
    assert "CONTIGUOUS" in run(
        "h5dump", "-p", "-H", "-d", "/images", shard_folder(path) / "00000.h5"
    )


def test_h5repack_and_its_remedy(output: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, images = output
    shard = shard_folder(path) / "00001.h5"
    packed = tmp_path / "packed.h5"
    run("h5repack", "-l", "images:CHUNK=1x4x5x3", "-f", "images:GZIP=9", shard, packed)
    shutil.move(packed, shard)
    with pytest.raises(ShardError, match="was repacked") as caught:
        ShardSet(path)[3]
    remedy = re.search(r"`(h5repack .*) NEW\.h5`", str(caught.value))
    assert remedy is not None
    run(*remedy[1].split(), packed)  # the temporary folder has no spaces
    shutil.move(packed, shard)
    assert np.array_equal(ShardSet(path).read(range(4)), images)
    assert verify(path).problems == ()


def test_the_page_on_the_format_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "shard-format.md"
    assert run_page(page, tmp_path, monkeypatch) >= 8
