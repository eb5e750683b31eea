"""Exports that are interrupted, meet each other, or meet a disk that folds names."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bevgen import BevgenError, RefusedError, ShardSet, export_images, merge, only_writer
from tests.helpers.paths import ROOT
from tests.helpers.shards import write_shard


def shards(path: Path, names: list[str], shape: tuple[int, int, int] = (16, 16, 3)) -> Path:
    return write_shard(path, [(name, f"{name}.jpg") for name in names], shape)


def test_names_that_the_disk_folds_into_one_are_named(tmp_path: Path) -> None:
    """A linked folder stands for what a disk does that does not tell upper from lower case."""
    path = shards(tmp_path / "bev.h5", ["a/x", "b/x", "c"])
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "b").symlink_to("a")
    with ShardSet(path) as opened, pytest.raises(BevgenError, match="are one file on this disk"):
        export_images(opened, out, threads=1)
    with ShardSet(path) as opened, pytest.raises(BevgenError, match="id 'a/x' and id 'b/x'"):
        export_images(opened, out, overwrite=True, threads=1)


def test_a_killed_export_goes_on(tmp_path: Path) -> None:
    names = [f"{k:04d}" for k in range(300)]
    path, out = shards(tmp_path / "bev.h5", names, (96, 96, 3)), tmp_path / "out"
    words = ["export", str(path), "--out", str(out)]
    script = (
        "import sys; from pathlib import Path; from bevgen.cli import main\n"
        "from tests.helpers.crash import RENAMES, die_before_step\n"
        f"die_before_step(100, Path({str(out)!r}), RENAMES); main(sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    there = len([one for one in out.glob("*.png") if one.stat().st_size])
    assert there == 100
    command = [sys.executable, "-m", "bevgen", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 300 images, {there} of them there already\n"
    with ShardSet(path) as opened:
        for k in (0, 150, 299):
            with Image.open(out / f"{names[k]}.png") as image:
                assert np.array_equal(np.asarray(image), opened[k])
    assert sorted(one.name for one in out.iterdir()) == [f"{name}.png" for name in names]


def test_this_folder_can_be_exported_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shards(tmp_path / "bev.h5", ["a"])
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with ShardSet(path) as opened:
        assert export_images(opened, ".").files == 1
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a.png", "bev.h5", "out"]


def test_two_exports_to_one_folder_are_refused(tmp_path: Path) -> None:
    path, out = shards(tmp_path / "bev.h5", ["a"]), tmp_path / "out"
    with (
        only_writer(out),
        ShardSet(path) as opened,
        pytest.raises(RefusedError, match="another run"),
    ):
        export_images(opened, out)
    with ShardSet(path) as opened:
        assert export_images(opened, out).files == 1


def test_merges_do_not_meet(tmp_path: Path) -> None:
    path, out = shards(tmp_path / "bev.h5", ["a", "b"]), tmp_path / "one.h5"
    with only_writer(out), pytest.raises(RefusedError, match="another run is writing"):
        merge(path, out)
    with only_writer(path), pytest.raises(RefusedError, match="is being written"):
        merge(path, out)
    stray = tmp_path / "one.h5.1.part"
    stray.write_bytes(b"x")
    merge(path, out)
    assert not stray.exists()
    with ShardSet(out) as one:
        assert one.ids == ["a", "b"]


def test_merges_that_start_together_leave_one_whole_file(tmp_path: Path) -> None:
    path, out = shards(tmp_path / "bev.h5", [f"{k}" for k in range(64)]), tmp_path / "one.h5"
    command = [sys.executable, "-m", "bevgen", "merge", str(path), "--out", str(out)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    assert sorted(code for _, code in ends) == [0, 1], ends
    with ShardSet(out) as one, ShardSet(path) as many:
        assert np.array_equal(one.read(range(64)), many.read(range(64)))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bev.h5", "one.h5"]
