"""Files appear whole or not at all, and errors in writing say which file, why, and no more."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from bevgen import (
    BevgenError,
    RefusedError,
    WriteError,
    only_writer,
    write_poses,
    written_whole,
)
from bevgen.locking import is_written
from bevgen.tables import PoseRow
from bevgen.writing import check_output, write_errors, write_picture
from tests.helpers.runs import bevgen
from tests.helpers.shards import write_shard


def test_two_writers_of_one_file_never_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with written_whole(path) as first:
        first.write_bytes(b"first" * 1000)
        with written_whole(path) as second:
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" * 1000
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_that_a_library_put_in_place_of_ours_is_for_those_that_ours_is_for(
    tmp_path: Path,
) -> None:
    """Some write beside it, for their owner alone, and rename."""
    plain, path = tmp_path / "plain", tmp_path / "file"
    plain.touch()
    with written_whole(path) as part:
        other = tmp_path / "other"
        other.touch(0o600)
        other.replace(part)
    assert path.stat().st_mode == plain.stat().st_mode


def test_writers_that_come_and_go_never_hold_one_output_together(tmp_path: Path) -> None:
    """Whoever opens the lock just before its owner removes it has to take it anew."""
    out, inside = tmp_path / "out", tmp_path / "inside"

    def come_and_go(_: int) -> int:
        held = 0
        for _ in range(3_000):
            with suppress(RefusedError), only_writer(out):
                inside.touch(exist_ok=False)
                inside.unlink()
                held += 1
        return held

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come_and_go, range(4))) > 100


def test_who_asks_whether_an_output_is_written_keeps_no_writer_from_it(tmp_path: Path) -> None:
    out, ended = tmp_path / "out", Event()

    def ask() -> None:
        while not ended.is_set():
            is_written(out)

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for _ in range(2_000):
                with only_writer(out):
                    assert is_written(out)
        finally:
            ended.set()
        for one in asking:
            one.result()
    assert not is_written(out)


def test_what_killed_writers_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a[1].csv"
    script = (
        "import sys, time; from pathlib import Path; from bevgen import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); print(part.name, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        left = tmp_path / writer.stdout.readline().strip()
        others = [tmp_path / "a[1].csv.part", tmp_path / "a1.csv.0123abcd.part"]
        for other in others:
            other.touch()
        for each in (left, *others):
            os.utime(each, (0, 0))
        with written_whole(path) as part:
            part.write_text("first")
        assert left.read_text() == "half"  # slow, but alive
        writer.kill()
    with written_whole(path) as part:
        part.write_text("second")
    assert path.read_text() == "second"
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    # What is quite new may just have been put there by a library.
    left.touch()
    with written_whole(path):
        assert left.exists()


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with (
        pytest.raises(WriteError, match="file could not be written: the disk is full"),
        written_whole(path),
    ):
        raise OSError(errno.ENOSPC, "No space")
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EDQUOT, "Quota"), "the disk is full"),
        (OSError(errno.EACCES, "no"), "Permission denied"),
        (RuntimeError("unable to extend file properly, errno = 28, error"), "the disk is full"),
        (OSError("Error while serializing: I/O error: (os error 27)"), "File too large"),
        (OSError("3072 requested and 992 written"), "the disk took only a part of it"),
        (OSError("unexpected pos 95296 vs 95184"), "the disk took only a part of it"),
    ],
)
def test_errors_of_libraries_become_reasons(error: Exception, why: str) -> None:
    with pytest.raises(WriteError) as caught, write_errors(Path("o"), "Try again"):
        raise error
    assert str(caught.value) == f"o could not be written: {why}. Try again"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), RefusedError("no"), ValueError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, write_errors(Path("o")):
        raise error
    assert caught.value is error


def test_places_are_looked_at_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    check_output(tmp_path / "there", overwrite=True)
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "create it first")):
        with pytest.raises(RefusedError, match=why):
            check_output(path, overwrite=True)
    with pytest.raises(RefusedError, match="exists: name another"):
        check_output(tmp_path / "there", overwrite=False)


def test_a_merge_on_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "bev.h5", [(str(k), f"{k}.jpg") for k in range(64)])
    bevgen("merge", path, "--out", tmp_path / "whole.h5")

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    out = tmp_path / "one.h5"
    done = bevgen("merge", path, "--out", out, expect=1, preexec_fn=no_large_files)
    assert done.stderr == f"Error: {out} could not be written: File too large\n"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["bev.h5", "whole.h5"]


def test_pictures_and_tables_are_written_whole(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for name, kind in (("a.png", "PNG"), ("b.jpg", "JPEG")):
        write_picture(noise, tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
    with pytest.raises(BevgenError, match="could not be written: No such file or directory"):
        write_picture(noise, tmp_path / "no" / "a.png")
    with pytest.raises(WriteError, match="could not be written: No such file or directory"):
        write_poses(tmp_path / "no" / "poses.csv", [PoseRow("a.jpg", heading=1.0)])
