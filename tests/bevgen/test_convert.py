"""Runs that are killed, interrupted, starved of disk or refused: what stays, and what follows."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bevgen as api
from bevgen import BevSettings, ImageSettings, ShardSet, convert, verify
from bevgen.conversion.job import ShardJob, Work
from bevgen.conversion.output import remove_leftovers
from bevgen.conversion.plan import Plan, plan_run
from bevgen.conversion.report import Watcher
from tests.helpers.image_files import encoded, exif, gpano
from tests.helpers.runs import (
    COMMAND,
    HANGS,
    SMALL,
    assert_same_output,
    bevgen,
    copies,
    kill_group,
    panoramas,
    shards_of,
    start,
    tree,
    wait_until,
)

PACK = ("--kind", "satellite", "--size", "32")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return panoramas(tmp_path / "in", 24)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.h5"


def steady(tmp_path: Path, *words: object) -> Path:
    """Make the same output in another folder without disturbing it."""
    out = tmp_path / "steady" / "o.h5"
    out.parent.mkdir(exist_ok=True)
    bevgen(*words, "--out", out)
    return out


# --- killed ---


def kill_until_done(out: Path, seed: int, *words: object) -> int:
    """Run a command again and again, killed soon after each few new shards; how often it was."""
    random = np.random.default_rng(seed)
    quiet = subprocess.DEVNULL
    for kills in range(50):
        process = start(*words, "--out", out, stdout=quiet, stderr=quiet)
        target = len(shards_of(out)) + int(random.integers(0, 4))
        if wait_until(lambda target=target: len(shards_of(out)) >= target, process):
            time.sleep(random.uniform(0, 0.02 if target else 1))
        kill_group(process)
        if process.wait() == 0:
            return kills
    raise AssertionError("never finished")


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("threads", ("convert", *SMALL, "--vertical-fov", 60, -60)),
        ("processes", ("pack", *PACK)),
        ("sync", ("pack", *PACK)),
    ],
)
def test_killed_at_random_instants_a_run_arrives_at_the_same_values(
    images: Path, out: Path, tmp_path: Path, scheduler: str, words: tuple[object, ...]
) -> None:
    (images / "p005.png").write_bytes(b"broken")
    words = (*words, "--in", images, "--shard-size", 2, "--workers", 2)
    expected, kills = steady(tmp_path, *words), 0
    for seed in range(20):  # a fast machine may be done before it is struck
        kills += kill_until_done(out, seed, *words, "--scheduler", scheduler)
        assert_same_output(out, expected)
        assert verify(out).problems == ()
        if kills >= 2:
            return
        shutil.rmtree(out.parent)
        out.parent.mkdir()
    raise AssertionError("never struck")


def test_killed_while_extending_and_retrying(tmp_path: Path) -> None:
    """A single file becomes an index, the index grows, failures are mended: killed all along."""
    kills = 0
    for seed in range(20):
        kills += killed_while_extending(tmp_path / str(seed), seed)
        if kills >= 3:
            return
    raise AssertionError("hardly ever struck")


def killed_while_extending(folder: Path, first_seed: int) -> int:
    images, out, reference = folder / "in", folder / "out" / "o.h5", folder / "steady" / "o.h5"
    for path in (out, reference):
        path.parent.mkdir(parents=True)
    panoramas(images, [f"a{k:02d}.png" for k in range(12)])
    words = ("pack", "--in", images, *PACK, "--shard-size", 2, "--workers", 2)
    for target in (out, reference):
        bevgen(*words, "--shard-size", 100, "--out", target)
    kills = 0
    for seed, letter in enumerate("bc", 3 * first_seed):
        names = [f"{letter}{k:02d}.png" for k in range(12)]
        panoramas(images, names)
        for name in names[::5]:
            (images / name).write_bytes(b"broken")
        kills += kill_until_done(out, seed, *words, "--extend")
        bevgen(*words, "--extend", "--out", reference)
        assert_same_output(out, reference)
    panoramas(images, ["b00.png", "b05.png", "c10.png"])
    (images / "a03.png").unlink()
    kills += kill_until_done(out, 3 * first_seed + 2, *words, "--extend", "--retry-failed")
    bevgen(*words, "--extend", "--retry-failed", "--out", reference)
    assert_same_output(out, reference)
    with ShardSet(out) as shards:
        assert len(shards) == 33
        assert [f.source for f in shards.failures] == ["b10.png", "c00.png", "c05.png"]
    return kills


def test_unfinished_files_may_go_while_they_are_removed(out: Path) -> None:
    """Those of a cluster's worker that was given up, and is still at it."""
    folder = out.with_suffix(".shards")
    folder.mkdir()
    for k in range(2000):
        (folder / f"{k:05d}.h5.0123abcd.part").touch()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(remove_leftovers, [out, out])) == [None, None]
    assert not any(folder.iterdir())


def is_running(process: str) -> bool:
    """Whether there is a process, other than one that has ended and that nobody has waited for."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "XZ"


def test_worker_processes_end_with_a_killed_run(images: Path, out: Path) -> None:
    """Otherwise they could write into files that the next run is making."""
    copies(images, 3000)
    words = ("--scheduler", "processes", "--workers", 2)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start("pack", "--in", images, *PACK, "--out", out, *words, **quiet)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("no /proc here that lists the children of a process")
    found: set[str] = set()

    def seen() -> bool:
        found.update(children.read_text().split() if process.poll() is None else ())
        return len(found) >= 3  # two workers and what tracks resources

    assert wait_until(seen, process)
    process.kill()  # the parent alone
    process.wait()
    end = time.monotonic() + HANGS
    while any(map(is_running, found)):
        assert time.monotonic() < end, "workers outlive their parent"
        time.sleep(0.02)


# --- interrupted ---


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, scheduler: str) -> None:
    folder = tmp_path / "it's [old] :smile: data"
    copies(folder / "in", 90)
    out = folder / "o.h5"
    words = ["convert", "--in", "in", "--size", "700", "--shard-size", "10", "--overwrite"]
    more = ("--scheduler", scheduler, "--workers", 2)
    process = start(*words, "--out", "o.h5", *more, cwd=folder)
    assert wait_until(lambda: len(shards_of(out)) >= 2, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not (folder / "o.h5.lock").exists()
    kept = {path: path.stat().st_ino for path in shards_of(out)}
    assert 2 <= len(kept) < 9
    last = stderr.splitlines()[-2:]
    assert last[0] == "Interrupted. Finished shards are kept; continue with:"
    program, *again = shlex.split(last[1])
    assert program == "bevgen"
    assert "--overwrite" not in again  # it would start anew
    bevgen(*again, cwd=folder)
    assert kept.items() <= {path: path.stat().st_ino for path in shards_of(out)}.items()
    assert len(shards_of(out)) == 9
    assert verify(out).problems == ()


def test_an_interrupt_ends_threads_between_two_images(tmp_path: Path) -> None:
    """One shard, in pieces of many images, must not be finished first."""
    images = copies(tmp_path / "in", 900)
    out = tmp_path / "o.h5"
    words = ("convert", "--in", images, "--out", out, "--size", 900, "--shard-size", 1000)
    process = start(*words, "--workers", 2)
    part, image = tmp_path / "o.h5.part", 900 * 900 * 3
    assert wait_until(lambda: part.exists() and 512 * part.stat().st_blocks > 2 * image, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not out.exists()


# --- refused ---


def test_two_runs_on_one_output(images: Path, out: Path) -> None:
    words = ("convert", "--in", images, "--out", out, *SMALL, "--shard-size", 3)
    lock = out.with_name("o.h5.lock")
    first = start(*words)
    try:
        assert wait_until(lambda: lock.exists() and lock.read_text() != "", first)
        kill_group(first, signal.SIGSTOP)
        for more in ((), ("--overwrite",)):
            before = tree(out.parent)
            done = bevgen(*words, *more, expect=1)
            assert f"another run is writing {out} (process {first.pid} on " in done.stderr
            assert "wait for it, or name another output" in done.stderr
            assert tree(out.parent) == before
        bevgen(*words, "--dry-run")
    finally:
        kill_group(first)
        first.communicate()
    assert lock.exists()  # nobody could remove it; the system released it
    bevgen(*words)
    assert not lock.exists()
    assert verify(out).problems == ()


def test_overwriting_replaces_all_and_nothing_else(images: Path, out: Path, tmp_path: Path) -> None:
    bevgen("pack", "--in", images, *PACK, "--out", out, "--shard-size", 2)
    mine = out.with_suffix(".shards") / "notes.txt"
    mine.write_text("mine")
    other = panoramas(tmp_path / "other", 3)
    words = ("pack", "--in", other, "--kind", "map", "--size", 16)
    bevgen(*words, "--out", out, "--overwrite")
    assert tree(out.parent).keys() == {"o.h5", "o.shards/notes.txt"}
    with ShardSet(out) as shards:
        assert (shards.kind, len(shards)) == ("map", 3)
    mine.unlink()
    bevgen(*words, "--out", out, "--overwrite", "--shard-size", 2)
    bevgen(*words, "--out", out, "--overwrite")
    assert tree(out.parent).keys() == {"o.h5"}
    assert not out.with_suffix(".shards").exists()


def test_overwriting_removes_nothing_before_the_run_can_begin(images: Path, out: Path) -> None:
    convert(images, out, ImageSettings("satellite", 8, 8), shard_size=9, scheduler="sync")
    before = tree(out.parent)
    settings = ImageSettings("map", 8, 8)
    wrong: list[dict[str, Any]] = [
        {"scheduler": "nonsense"},
        {"scheduler": str(images.parent / "missing.json")},
        {"poses": images.parent / "missing.csv"},
        {"list_file": images.parent / "missing.txt"},
        {"extend": True},
    ]
    for options in wrong:
        with pytest.raises(api.InputError):
            convert(images, out, settings, overwrite=True, **options)
        assert tree(out.parent) == before


# --- where poses come from ---


def sources_of_heading(folder: Path) -> Path:
    """Write one picture under names and with metadata that tell more and more of its heading."""
    pixels = np.asarray(Image.open(panoramas(folder.parent, ["scene.png"]) / "scene.png"))
    gps = {1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (9.0, 0.0, 0.0), 16: 1, 17: 30.0}
    by_exif = exif(gps=gps, date="2021:07:29 11:16:44")
    by_gpano = gpano(PoseHeadingDegrees=40, PosePitchDegrees=3, PoseRollDegrees=-2)
    name = "40.75,-73.97_2022-08_abcdefghijklmnopqrst{}_d20_z3.jpg"
    folder.mkdir()
    for path, options in {
        "plain.jpg": {},
        name.format("uv"): {},
        name.format("wx"): {"exif": by_exif},
        name.format("yz"): {"exif": by_exif, "xmp": by_gpano},
    }.items():
        (folder / path).write_bytes(encoded(pixels, "jpeg", quality=95, **options))
    return folder


def test_where_poses_come_from(tmp_path: Path) -> None:
    images = sources_of_heading(tmp_path / "in")
    poses = tmp_path / "poses.csv"
    named = "40.75,-73.97_2022-08_abcdefghijklmnopqrstyz_d20_z3"
    poses.write_text(
        "file,id,heading,pitch,height,latitude,longitude,date\n"
        f'"{named}.jpg",all,60,-1,1.5,1,2,2000-01-01\nplain.jpg,,70,,,,,\n'
    )

    def columns(*words: object) -> dict[str, list[Any]]:
        out = tmp_path / "o.h5"
        bevgen("convert", "--in", images, "--out", out, *SMALL, "--overwrite", *words)
        with ShardSet(out) as shards:
            return {"ids": shards.ids, **{k: list(v) for k, v in shards.columns.items()}}

    nan = float("nan")
    said = columns()
    np.testing.assert_equal(said["heading"], [20, 30, 40, nan])
    np.testing.assert_equal(said["pitch"], [nan, nan, 3, nan])
    np.testing.assert_equal(said["roll"], [nan, nan, -2, nan])
    np.testing.assert_equal(said["height"], [2, 2, 2, 2])
    np.testing.assert_equal(said["latitude"], [40.75, 48.5, 48.5, nan])
    np.testing.assert_equal(said["longitude"], [-73.97, 9, 9, nan])
    exact = "2021-07-29T11:16:44"
    assert said["date"] == ["2022-08", exact, exact, ""]

    assert columns("--heading", 50, "--height", 2.5)["heading"] == [50, 50, 50, 50]
    said = columns("--preset", "cvact")
    assert (said["heading"], said["height"]) == ([0, 0, 0, 0], [2.8, 2.8, 2.8, 2.8])
    assert columns("--preset", "cvact", "--heading", 50)["heading"] == [50, 50, 50, 50]

    said = columns("--heading", 50, "--roll", 1, "--height", 2.5, "--poses", poses)
    assert said["heading"] == [50, 50, 60, 70]
    np.testing.assert_equal(said["pitch"], [nan, nan, -1, nan])
    assert said["roll"] == [1, 1, 1, 1]
    assert said["height"] == [2.5, 2.5, 1.5, 2.5]
    np.testing.assert_equal(said["latitude"], [40.75, 48.5, 1, nan])
    assert said["date"] == ["2022-08", exact, "2000-01-01", ""]
    assert said["ids"][2] == "all"


def test_poses_turn_the_pictures(tmp_path: Path) -> None:
    images = panoramas(tmp_path / "in", ["a.png", "b.png", "c.png"])
    shutil.copy(images / "a.png", images / "b.png")
    shutil.copy(images / "a.png", images / "c.png")
    poses = tmp_path / "poses.csv"
    poses.write_text("file,heading,height,pitch\nb.png,90,,\nc.png,12.5,3,4\n")
    out = tmp_path / "o.h5"
    bevgen("convert", "--in", images, "--out", out, *SMALL, "--poses", poses)
    pixels = np.asarray(Image.open(images / "a.png"))
    options = {"size": 32, "resolution": 0.5}
    with ShardSet(out) as shards:
        np.testing.assert_array_equal(shards[0], api.project(pixels, **options))
        # The camera looks east: what was north of it in the picture lies east, to the right.
        np.testing.assert_array_equal(shards[1], np.rot90(shards[0], -1))
        np.testing.assert_array_equal(
            shards[2], api.project(pixels, heading=12.5, height=3.0, pitch=4.0, **options)
        )


# --- too little disk ---


def in_a_namespace(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount file systems for itself, or skip the test."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        allowed = subprocess.run(
            [*unshare, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if allowed.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {allowed.stderr.decode().strip()}")
    return subprocess.run(
        [*unshare, "bash", "-c", script, "bash", *words],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


SMALL_DISK = """
set -u
disk=$1; final=$2; shift 2
mkdir -p "$disk" "$final"
mount -t tmpfs -o size=1m none "$disk"
for size in $SIZES; do
    rm -rf "$disk"/* ; mount -o remount,size=$size "$disk"
    "$@" --out "$disk/o.h5" ; echo "code $?" >&2
    mount -o remount,size=10m "$disk"
    "$@" --out "$disk/o.h5" ; echo "code $?" >&2
    mkdir "$final/$size" && cp -r "$disk"/* "$final/$size"
done
"""


def test_a_full_disk_ends_a_run_that_can_be_continued(tmp_path: Path) -> None:
    images = panoramas(tmp_path / "in", 40, (8, 16))
    words = ["pack", "--in", str(images), "--kind", "map", "--size", "64", "--shard-size", "4"]
    expected = steady(tmp_path, *words)
    enough = 40 * (64 * 64 * 3 + 512)  # to begin, but not for what HDF5 adds to ten shards
    sizes = [str(enough + k * 20_000) for k in (1, 3, 4, 5)]
    final = tmp_path / "final"
    done = in_a_namespace(
        f"SIZES='{' '.join(sizes)}'\n{SMALL_DISK}",
        str(tmp_path / "disk"), str(final), *COMMAND, *words, "-q",
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if not line.startswith("code")]
    codes = [line for line in done.stderr.splitlines() if line.startswith("code")]
    assert set(codes[::2]) <= {"code 0", "code 1"}
    assert len(told) == codes[::2].count("code 1") >= 2
    for line in told:
        assert "could not be written: the disk is full. Finished shards are kept" in line
        assert "run the same command again" in line
    assert codes[1::2] == ["code 0"] * len(sizes)
    for size in sizes:
        assert_same_output(final / size / "o.h5", expected)


def test_a_disk_that_is_too_small_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    images = panoramas(tmp_path / "in", 40, (8, 16))
    words = ["pack", "--in", str(images), "--kind", "map", "-q"]
    script = """
    mkdir -p "$1" && mount -t tmpfs -o size=300k none "$1" && cd "$1" && shift
    "$@" --out o.h5 --size 64 ; echo "code $?" >&2 ; ls -A >&2
    "$@" --out o.h5 --size 8 || exit ; before=$(sha256sum o.h5)
    "$@" --out o.h5 --size 64 --overwrite ; echo "code $?" >&2
    test "$before" = "$(sha256sum o.h5)" && ls -A >&2
    """
    done = in_a_namespace(script, str(tmp_path / "disk"), *COMMAND, *words)
    told, code, again, code_again, left = done.stderr.splitlines()
    assert (again, code, code_again, left) == (told, "code 1", "code 1", "o.h5")
    assert re.fullmatch(r"Error: o\.h5 needs 512 kB and the disk has .* kB free: free some.*", told)


def test_space_that_will_be_freed_counts_as_free(tmp_path: Path) -> None:
    """The disk is filled by the output that is replaced, or by what a killed run left."""
    images = panoramas(tmp_path / "in", 40, (8, 16))
    words = ["pack", "--in", str(images), "--kind", "map", "--size", "64"]
    script = """
    mkdir -p "$1" && mount -t tmpfs -o size=800k none "$1" && cd "$1" && shift
    "$@" --out o.h5 ; echo "code $?" >&2
    "$@" --out o.h5 --overwrite ; echo "code $?" >&2
    mv o.h5 o.h5.part
    "$@" --out o.h5 ; echo "code $?" >&2 ; ls -A >&2
    """
    done = in_a_namespace(script, str(tmp_path / "disk"), *COMMAND, *words, "-q")
    assert done.stderr.splitlines() == ["code 0"] * 3 + ["o.h5"]


def test_other_errors_in_writing_can_be_continued_from_too(
    images: Path, out: Path, tmp_path: Path
) -> None:
    words = ("convert", "--in", images, "--out", out, *SMALL)

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    done = bevgen(*words, expect=1, preexec_fn=no_large_files)
    assert f"{out} could not be written: File too large. Finished" in done.stderr
    bevgen(*words)
    assert_same_output(out, steady(tmp_path, "convert", "--in", images, *SMALL))


def test_a_folder_of_images_that_goes_away_does_not_set_all_of_them_aside(
    images: Path, out: Path
) -> None:
    moved = images.with_name("elsewhere")

    class Unmount(Watcher):
        def planned(self, plan: Plan) -> None:
            images.rename(moved)

    settings = ImageSettings("map", 8, 8)
    with pytest.raises(api.BevgenError, match=r"in is not there any more.*run the same command"):
        convert(images, out, settings, shard_size=5, scheduler="sync", watcher=Unmount())
    moved.rename(images)
    assert convert(images, out, settings, shard_size=5).all_failures == 0


# --- reports ---


def test_a_report_counts_this_run_and_the_output(images: Path, out: Path) -> None:
    for k in range(4):
        (images / f"p00{k}.png").write_bytes(b"broken")
    (images / "p004.png").write_bytes(b"")
    heard: list[tuple[int, int]] = []

    class Listener(Watcher):
        def advanced(self, done: int, failed: int) -> None:
            heard.append((done, failed))

    report = convert(
        images, out, ImageSettings("map", 8, 8), shard_size=5, scheduler="sync", watcher=Listener()
    )
    assert (report.rows, report.failures, report.images, report.shards) == (19, 5, 24, 5)
    assert (report.all_rows, report.all_failures) == (19, 5)
    assert np.sum(heard, axis=0).tolist() == [19, 5]
    count, examples = report.reasons[next(r for r in report.reasons if "not an image" in r)]
    assert (count, examples) == (4, ["p000.png", "p001.png", "p002.png"])
    assert report.reasons["empty file"] == (1, ["p004.png"])
    assert set(report.stage_seconds) == {"decode", "project", "write"}
    assert all(seconds > 0 for seconds in report.stage_seconds.values())
    panoramas(images, ["new.png", "p000.png"])
    report = convert(
        images, out, ImageSettings("map", 8, 8), shard_size=5, extend=True, retry_failed=True
    )
    assert (report.rows, report.failures, report.shards) == (2, 4, 2)
    assert (report.all_rows, report.all_failures) == (21, 4)
    assert json.loads(json.dumps(report.to_json()))["all_rows"] == 21


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_every_way_to_run_makes_the_same_files(
    images: Path, tmp_path: Path, scheduler: str
) -> None:
    settings = BevSettings(size=32, resolution=0.5, vertical_fov=(70.0, -60.0))
    (images / "p007.png").write_bytes(b"broken")
    outputs = {}
    for name in ("sync", scheduler):
        out = tmp_path / name / "o.h5"
        out.parent.mkdir()
        convert(images, out, settings, shard_size=7, scheduler=name)
        outputs[name] = out
    assert_same_output(outputs[scheduler], outputs["sync"])


def test_two_workers_on_one_shard_do_not_spoil_it(images: Path, out: Path) -> None:
    """A cluster gives a worker up that it does not hear of, and another one begins anew."""
    plan = plan_run(images, out, ImageSettings("map", 8, 8))
    (shard,) = plan.todo
    work = Work(images, plan.settings, piece=8, contested=True)
    job = ShardJob(work, out, shard.items or (), plan.header(shard))
    first, *others = job.pieces()
    given_up = job.begin()
    filled = [job.fill(given_up, first)]
    again = job.begin()
    filled += [job.fill(given_up, piece) for piece in others]
    job.finish(given_up, filled)
    assert verify(out).problems == (f"{again.part}: left over from a run that was interrupted;"
                                    " delete it",)  # fmt: skip
    before = out.read_bytes()
    job.finish(again, [job.fill(again, piece) for piece in job.pieces()])
    assert verify(out).problems == ()
    assert out.read_bytes() == before


# --- size ---


def peak_memory(tmp_path: Path, count: int) -> float:
    """MiB that a conversion of so many images takes at most."""
    folder = tmp_path / str(count)
    copies(folder / "in", count)
    words = ["convert", "--in", folder / "in", "--out", folder / "o.h5", *SMALL, "-q"]
    words += ["--workers", 2, "--decoder", "pillow"]  # threads and compiled code take memory, too
    process = subprocess.Popen([*COMMAND, *map(str, words), "--shard-size", "32"])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """1200 images more are 14 MiB of pixels; what stays of each is a name and a number."""
    few, many = peak_memory(tmp_path, 400), peak_memory(tmp_path, 1600)
    assert many - few < 7
