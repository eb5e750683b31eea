"""What convert and pack say, where they say it, and the code with which they exit."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bevgen.cli import COMMANDS, main
from tests.helpers.runs import COMMAND, HANGS, SMALL, bevgen, panoramas, start, tree, wait_until

MAP = ("--kind", "map", "--size", "8")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images, of which two are broken."""
    images = panoramas(tmp_path / "in", 12)
    (images / "p003.png").write_bytes(b"broken")
    (images / "p007.png").write_bytes(b"")
    return images


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.h5"


# --- help ---

HEAVY = ("numba", "torch", "dask", "distributed", "h5py", "rich", "PIL", "scipy", "llvmlite")


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=lambda w: " ".join(w))
def test_help_imports_nothing_that_takes_time(words: list[str]) -> None:
    script = (
        "import atexit, sys; from bevgen.cli import main\n"
        f"heavy = lambda: [name for name in {HEAVY} if name in sys.modules]\n"
        "atexit.register(lambda: print(*heavy(), file=sys.stderr))\n"
        f"main({[*words, '--help']})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: bevgen")
    assert done.stderr == "\n"


def test_the_package_imports_nothing_that_takes_time() -> None:
    script = f"import bevgen, sys; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"


# --- wrong usage ---


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "Missing option '-i' / '--in'"),
        (("--in", "IN"), "Missing option '-o' / '--out'"),
        (("--in", "IN", "--out", "OUT", "--heigth", 2), "No such option.*--heigth.*--height"),
        (("--in", "IN", "--out", "OUT", "--height", "tall"), "'tall' is not a valid float"),
        (("--in", "IN", "--out", "OUT", "--height", -2), "height"),
        (("--in", "IN", "--out", "OUT", "--height", "nan"), "height"),
        (("--in", "IN", "--out", "OUT", "--size", 0), "size"),
        (("--in", "IN", "--out", "OUT", "--resolution", 0), "resolution"),
        (("--in", "IN", "--out", "OUT", "--vertical-fov", 10, 20), "10.*20"),
        (("--in", "IN", "--out", "OUT", "--preset", "cvat"), "'cvat' is not one of"),
        (("--in", "IN", "--out", "OUT", "--workers", 0), "workers must be at least 1"),
        (("--in", "IN", "--out", "OUT", "--shard-size", 0), "shard size must be at least 1"),
        (("--in", "IN", "--out", "OUT", "--scheduler", "thread"), "scheduler must be threads"),
        (("--in", "IN", "--out", "OUT", "--scheduler", "thread", "--dry-run"), "scheduler must"),
        (("--in", "IN", "--out", "OUT", "--max-failures", "few"), "neither a number.*nor a perc"),
        (("--in", "IN", "--out", "OUT", "--max-failures", "-1"), "neither a number"),
        (("--in", "IN", "--out", "OUT", "--max-failures", "nan"), "neither a number"),
        (("--in", "IN", "--out", "OUT", "--max-failures", "inf%"), "neither a number"),
        (("--in", "IN", "--out", "OUT", "--overwrite", "--extend"), "--overwrite starts anew"),
        (("--in", "nowhere", "--out", "OUT"), "nowhere does not exist"),
        (("--in", "nowhere", "--out", "OUT", "--dry-run"), "nowhere does not exist"),
        (("--in", "IN/p000.png", "--out", "OUT"), "p000.png is not a folder"),
        (("--in", "empty", "--out", "OUT"), "no images .* in empty"),
        (("--in", "IN", "--out", "o.hdf5"), r"must end in \.h5"),
        (("--in", "IN", "--out", "OUT", "--list", "no.txt"), "no.txt cannot be read"),
        (("--in", "IN", "--out", "OUT", "--list", "empty"), "empty cannot be read"),
        (("--in", "IN", "--out", "OUT", "--list", "list.txt"), "of 1 file that list.txt names"),
        (("--in", "IN", "--out", "OUT", "--poses", "no.csv"), "no.csv cannot be read"),
        (("--in", "IN", "--out", "OUT", "--poses", "list.txt"), "list.txt, line 1"),
        (("--in", "IN", "--out", "OUT", "--poses", "other.csv"), "files are not in|is not in"),
    ],
)
def test_wrong_usage(
    images: Path,
    out: Path,
    words: tuple[object, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = images.parent
    (folder / "empty").mkdir()
    (folder / "list.txt").write_text("missing.png\n")
    (folder / "other.csv").write_text("file,heading\nmissing.png,3\n")
    before = tree(folder)
    named = [str(word).replace("IN", "in").replace("OUT", "out/o.h5") for word in words]
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as caught:
        main(["convert", *named])
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert said.out == ""
    assert re.search(reason, said.err, re.DOTALL), said.err
    assert "Error: " in said.err
    assert tree(folder) == before


@pytest.mark.parametrize("size", ["384x", "x8", "8x8x8", "-3", "8.5", "0", "9000"])
def test_wrong_sizes(
    images: Path, out: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--in", str(images), "--out", str(out), "--kind", "map", "--size", size]
    with pytest.raises(SystemExit) as caught:
        main(["pack", *words])
    assert caught.value.code == 2
    assert re.search("such as 384 or 140x768|must be 1 to 8192", capsys.readouterr().err)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_refusals(images: Path, out: Path, more: tuple[str, ...]) -> None:
    words = ("pack", "--in", images, *MAP, *more)
    done = bevgen(*words, "--out", out.parent / "missing" / "o.h5", expect=1)
    assert "does not exist: create it first" in done.stderr
    done = bevgen(*words, "--out", out.parent, expect=1)
    assert f"Error: {out.parent} is a folder: name a file, such as" in done.stderr
    out.write_text("mine")
    done = bevgen(*words, "--out", out, expect=1)
    assert f"Error: {out} exists and is not a finished output of bevgen" in done.stderr
    assert tree(out.parent) == {"o.h5": b"mine"}


# --- what is said where ---


def test_a_run_tells_what_it_will_do_and_what_it_did(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "with a space.h5"
    words = ("convert", "--in", images, "--out", out, "--size", 40, "--resolution", 0.25)
    done = bevgen(*words, "--shard-size", 5)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"12 images from {images}"
    assert lines[1] == f"to {out}: 40x40 pixels at 0.25 m a pixel, 10.0 m across"
    assert re.fullmatch(r"3 shards, 63\.7 kB of disk needed, [\d.]+ [kMGT]B free", lines[2])
    assert re.fullmatch(
        rf"{re.escape(str(out))}: 10 stored, 2 skipped in [\d.]+ s \([\d.]+ images/s\)", lines[3]
    )
    assert re.fullmatch(r"an image took: decode .* ms, project .* ms, write .* ms", lines[4])
    assert lines[5].startswith("10 images have no heading and are taken to look north")
    assert lines[6] == "10 images have no position"
    assert lines[7].startswith("  1 x ")
    assert lines[8].startswith("  1 x ")
    assert {"p003.png", "p007.png"} == {line[-9:-1] for line in lines[7:9]}
    assert lines[9] == f"all of them: bevgen info '{out}' --failures"  # can be copied
    assert len(lines) == 10
    done = bevgen(*words)
    assert (done.stdout, done.stderr) == ("", f"{out} is complete: nothing to do\n")


def test_a_dry_run_writes_nothing(images: Path, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in images.parent.rglob("*")}
    done = bevgen("convert", "--in", images, "--out", out, *SMALL, "--dry-run")
    assert done.stdout == ""
    assert "12 images from" in done.stderr
    done = bevgen("convert", "--in", images, "--out", out, *SMALL, "--dry-run", "--json", "-q")
    assert done.stderr == ""
    plan = json.loads(done.stdout)
    assert (plan["images"], plan["kept"], plan["shards"], plan["complete"]) == (12, 0, 1, False)
    assert plan["bytes"] == 12 * (32 * 32 * 3 + 512)
    assert plan["settings"]["resolution"] == 0.5
    assert before == {path: path.stat().st_mtime_ns for path in images.parent.rglob("*")}


def test_json_goes_to_stdout_and_talk_to_stderr(images: Path, out: Path) -> None:
    words = ("pack", "--in", images, "--out", out, *MAP, "--json")
    done = bevgen(*words, "--verbose")
    report = json.loads(done.stdout)
    assert (report["rows"], report["failures"], report["shards"]) == (10, 2, 1)
    assert {reason["count"] for reason in report["reasons"]} == {1}
    assert set(report["stage_seconds"]) == {"decode", "project", "write"}
    assert "p003.png: skipped: " in done.stderr
    assert "10 stored, 2 skipped" in done.stderr
    report = json.loads(bevgen(*words).stdout)
    assert (report["rows"], report["all_rows"], report["all_failures"]) == (0, 10, 2)


def test_quiet_runs_are_silent_but_for_errors(images: Path, out: Path) -> None:
    words = ("pack", "--in", images, "--out", out, *MAP, "-q")
    done = bevgen(*words)
    assert (done.stdout, done.stderr) == ("", "")
    done = bevgen(*words, "--size", 9, expect=1)
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    done = bevgen(*words, "--max-failures", 1, expect=3)
    assert done.stderr.startswith("Error: 2 of 12 images were skipped")


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_verbose_runs_name_what_is_skipped(images: Path, out: Path, scheduler: str) -> None:
    words = ("pack", "--in", images, "--out", out, *MAP, "--scheduler", scheduler)
    done = bevgen(*words, "--verbose")
    assert "p003.png: skipped: not an image" in done.stderr
    assert "p007.png: skipped: empty file\n" in done.stderr


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    """Brackets are no markup, colons no emoji, and long paths are not broken into lines."""
    folder = tmp_path / "[bold]a[" / "b] :smile: [x][" / ("long " * 20).strip()
    images = panoramas(folder / "in", ["[red]x[.png", "y.png"])
    (images / "y.png").write_bytes(b"")
    done = bevgen("pack", "--in", images, "--out", folder / "o.h5", *MAP, "--verbose")
    assert f"2 images from {images}\n" in done.stderr
    assert f"to {folder / 'o.h5'}: 8x8 pixels\n" in done.stderr
    assert f"{folder / 'o.h5'}: 1 stored, 1 skipped" in done.stderr


def test_a_terminal_shows_a_bar(images: Path, out: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("pack", "--in", images, "--out", out, *MAP, "--shard-size", 2)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = start(*words, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    process.communicate()
    assert process.returncode == 0
    assert b"12/12" in shown
    assert b"2 skipped" in shown
    assert b"10 stored, 2 skipped" in shown


def test_a_log_gets_lines(images: Path, out: Path) -> None:
    """Where there is no terminal; the time between lines is set to nothing."""
    code = (
        "import sys, bevgen.cli.progress as p; from bevgen.cli import main;"
        "p.ProgressLines.__init__.__defaults__ = (0.0,); main(sys.argv[1:])"
    )
    words = [str(word) for word in ("pack", "--in", images, "--out", out, *MAP)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("o.h5: ")]
    assert len(lines) == 12
    assert re.fullmatch(r"o\.h5: 12/12, [\d.]+/s, 0\.0 min left, 2 skipped", lines[-1])
    assert "/12, " not in bevgen(*words, "--overwrite").stderr  # over too soon for a line


def test_a_reader_that_leaves_is_no_error_to_talk_about(images: Path, out: Path) -> None:
    bevgen("pack", "--in", images, "--out", out, *MAP)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "info", str(out), "--rows"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_interrupt_before_anything_was_changed(images: Path, out: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "list"
    os.mkfifo(fifo)
    words = ("pack", "--in", images, "--out", out, *MAP, "--list", fifo, "--overwrite")
    process = start(*words)
    lock = out.with_name("o.h5.lock")
    assert wait_until(lambda: lock.exists() and lock.stat().st_size > 0, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert stderr.splitlines()[0] == "Interrupted. Nothing was changed; continue with:"
    assert stderr.splitlines()[1].endswith("--overwrite")
    assert list(out.parent.iterdir()) == []


# --- failures ---


@pytest.mark.parametrize(
    ("limit", "code"),
    [("2", 0), ("1", 3), ("0", 3), ("17%", 0), ("16.6%", 3), ("0%", 3), ("100%", 0), (" 2 ", 0)],
)
def test_more_failures_than_wanted(images: Path, out: Path, limit: str, code: int) -> None:
    words = ("pack", "--in", images, "--out", out, *MAP, "--max-failures", limit)
    for _ in range(2):  # the second one has nothing to do, and says the same
        done = bevgen(*words, expect=code)
        assert ("Error: 2 of 12 images were skipped" in done.stderr) is (code == 3)


def test_no_image_at_all(tmp_path: Path, out: Path) -> None:
    images = tmp_path / "in"
    images.mkdir()
    for name in ("a.jpg", "b.png"):
        (images / name).write_bytes(b"broken")
    for _ in range(2):
        done = bevgen("pack", "--in", images, "--out", out, *MAP, expect=1)
        assert "Error: no image could be used (of 2)" in done.stderr
    panoramas(images, ["b.png"])
    bevgen("pack", "--in", images, "--out", out, *MAP, "--retry-failed")
