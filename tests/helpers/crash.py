"""Kill a run at every step that it takes on disk, one after the other, and let the next one finish.

    python -m tests.helpers.crash '{"before": [...], "change": {...}, "run": {...}}' FOLDER

An audit hook counts what Python does to files below FOLDER: open for writing, rename, remove, make
a folder. Run after run is killed before the first, second, ... of these, without a chance to clean
up, and the same run is started again. Prints how many steps there were and what went wrong.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

from bevgen import ImageSettings, ShardSet, convert, verify
from tests.helpers.runs import tree

RENAMES = frozenset({"os.rename"})
STEPS = RENAMES | {"os.remove", "os.mkdir", "os.rmdir", "open"}
INPUT, OUTPUT, NAME = "in", "out", "o.h5"


def die_before_step(number: int, folder: Path, steps: Set[str] = STEPS) -> None:
    """Kill this process just before it does something to a file, after so many times."""
    left = number

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in steps or not str(values[0]).startswith(str(folder)):
            return
        if event != "open" or (isinstance(values[2], int) and values[2] & 3 != os.O_RDONLY):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)


def run(folder: Path, options: dict[str, Any]) -> None:
    options = dict(options)
    settings = ImageSettings("satellite", options.pop("height", 4), 8)
    options = {"shard_size": 2} | options
    convert(folder / INPUT, folder / OUTPUT / NAME, settings, scheduler="sync", **options)


def in_a_child(folder: Path, options: dict[str, Any], kill_at: int | None) -> int:
    """Return the exit status of a run, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if kill_at is not None:
                die_before_step(kill_at, folder / OUTPUT)
            run(folder, options)
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def change(folder: Path, files: dict[str, str | None]) -> None:
    """Copy files over others below the input folder, or remove them."""
    for name, source in files.items():
        if source is None:
            (folder / INPUT / name).unlink()
        else:
            shutil.copy(folder / source, folder / INPUT / name)


def problems_of(output: Path) -> list[str]:
    """What is wrong with an output that is there; leftovers of the killed run are not."""
    if not output.exists():
        return []
    found = [p for p in verify(output).problems if "left over" not in p and "not part of" not in p]
    with ShardSet(output) as shards:
        _ = [image.sum() for image in shards]
    return found


def main() -> None:
    scenario, root = json.loads(sys.argv[1]), Path(sys.argv[2])
    for name in (
        "dask.callbacks",
        "dask.delayed",
        "dask.multiprocessing",
        "dask.threaded",
    ):  # once, for all children
        importlib.import_module(name)
    start, steady = root / "start", root / "steady"
    if scenario["before"] is not None:
        assert in_a_child(start, scenario["before"], None) == 0
    change(start, scenario["change"])
    shutil.copytree(start, steady)
    assert in_a_child(steady, scenario["run"], None) == 0
    expected = tree(steady / OUTPUT)
    wrong: list[str] = []
    step = 0
    while True:
        folder = root / "killed"
        shutil.copytree(start, folder)
        status = in_a_child(folder, scenario["run"], step)
        if status != -signal.SIGKILL:
            break
        wrong += [f"step {step}, killed: {p}" for p in problems_of(folder / OUTPUT / NAME)]
        if (status := in_a_child(folder, scenario["run"], None)) != 0:
            wrong.append(f"step {step}: the second run ended with {status}")
        found = tree(folder / OUTPUT)
        if found != expected:
            names = {n for n in {*found, *expected} if found.get(n) != expected.get(n)}
            wrong.append(f"step {step}: other files than without the kill: {sorted(names)}")
        shutil.rmtree(folder)
        step += 1
    print(json.dumps({"steps": step, "wrong": wrong, "status": status}))  # noqa: T201


if __name__ == "__main__":
    main()
