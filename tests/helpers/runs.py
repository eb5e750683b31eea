"""Runs of the command line as people start them, small panoramas for them, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "bevgen"]
ALL_HELP = """
import click
from {package}.cli import {package}_command as group
for name in ("", *group.list_commands(None)):
    command = group.get_command(None, name) or group
    print(command.get_help(click.Context(command)))
"""
SMALL = ("--size", "32", "--resolution", "0.5")
HANGS = 600.0  # seconds after which a process hangs, on the slowest machine


def panoramas(folder: Path, names: int | Iterable[str], size: tuple[int, int] = (64, 128)) -> Path:
    """Write panoramas, each name with other smooth colours; a number makes p000.png and so on."""
    if isinstance(names, int):
        names = [f"p{k:03d}.png" for k in range(names)]
    for name in names:
        random = np.random.default_rng(list(name.encode()))
        colours = Image.fromarray(random.integers(0, 256, (6, 12, 3), np.uint8))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path)
    return folder


def copies(folder: Path, count: int, size: tuple[int, int] = (64, 128)) -> Path:
    """Put one panorama under many names, p0000.png and so on."""
    first = panoramas(folder, ["p0000.png"], size) / "p0000.png"
    for k in range(1, count):
        (folder / f"p{k:04d}.png").hardlink_to(first)
    return folder


def bevgen(*words: object, expect: int | None = 0, **options: Any) -> subprocess.CompletedProcess:
    """Run `bevgen` to its end; whatever happens, a user sees no traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        **({"capture_output": True, "text": True, "timeout": HANGS, "check": False} | options),
    )
    if done.stderr is not None:
        assert "Traceback" not in done.stderr, done.stderr
    if expect is not None:
        assert done.returncode == expect, done.stdout + done.stderr
    return done


def all_help(package: str, *flags: str) -> str:
    """Return the help of a program and its commands, as an interpreter with these flags has it."""
    words = [sys.executable, *flags, "-c", ALL_HELP.format(package=package)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    """Start `bevgen` in a process group of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        **({"stdout": pipe, "stderr": pipe, "text": True, "start_new_session": True} | options),
    )


def kill_group(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and all that it started, as a terminal or a scheduler does."""
    with suppress(ProcessLookupError):  # it has ended, and was waited for
        os.killpg(process.pid, number)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait for something to happen; False if the process ends before, or hangs."""
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        if condition():
            return True
        if process.poll() is not None:
            return condition()
        time.sleep(0.002)
    return False


def shards_of(out: Path) -> list[Path]:
    """Finished shards in the folder of an output."""
    return sorted(out.with_suffix(".shards").glob("*.h5"))


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder: relative name -> content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def values(path: Path) -> dict[str, Any]:
    """All that an HDF5 file holds, by plain h5py: datasets and attributes, links not followed."""
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[...]
        found.update({f"{name}@{key}": value for key, value in item.attrs.items()})

    with h5py.File(path) as h5:
        found.update({f"@{key}": value for key, value in h5.attrs.items()})
        h5.visititems(visit)
    return found


def assert_same_output(out: Path, expected: Path) -> None:
    """Compare two outputs value by value, then byte by byte; and nothing else may lie there."""
    ours, theirs = [out, *shards_of(out)], [expected, *shards_of(expected)]
    assert [path.name for path in ours[1:]] == [path.name for path in theirs[1:]]
    for a, b in zip(ours, theirs, strict=True):
        found, wanted = values(a), values(b)
        assert found.keys() == wanted.keys()
        for name in wanted:
            if out.name == expected.name or name != "files":
                np.testing.assert_array_equal(found[name], wanted[name], err_msg=f"{a}: {name}")
        if out.name == expected.name:
            assert a.read_bytes() == b.read_bytes(), a
    folder = out.with_suffix(".shards")
    beside = {path.name for path in out.parent.glob(f"{out.name}*")}
    assert beside == {out.name}
    assert set(folder.glob("*")) == set(ours[1:])
