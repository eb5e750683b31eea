"""The frame: ways to do one piece of work, measured in turns, and judged by targets.

A *contest* prepares several ways to do the same work. Each round runs every way once, in an order
that rotates, so that what else the machine does strikes all alike. A *row* compares two ways: its
ratio is the median over rounds of (time of the peer / our time) within a round.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

MB = 1e6


class NotHereError(Exception):
    """This machine cannot run a contest; says what it lacks."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the user chose.

    Attributes
    ----------
    folder
        For inputs, which are kept, and for outputs.
    tiny
        Sizes that only show that the commands work.
    device
        ``cpu`` or ``cuda``, where a contest knows both.
    full
        Sizes that take many minutes, where a contest has such.
    """

    folder: Path
    tiny: bool = False
    device: str = "cpu"
    full: bool = False

    def pick(self, normal: int, tiny: int) -> int:
        """Choose a size."""
        return tiny if self.tiny else normal


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do the work.

    ``run`` does ``count`` pieces of it; figures are given per piece. It may return the bytes that
    a process it started took at most. ``before`` is done each time before, and not timed.
    """

    run: Callable[[], Any]
    count: int = 1
    before: Callable[[], Any] = lambda: None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: our way against a peer's.

    Attributes
    ----------
    number, what
        As in the table.
    ours, peer
        Names of ways; without a peer the figure is our own median in seconds.
    must, aim
        Times as fast as the peer, at least; without a peer seconds, at most. None: only shown.
    memory
        Share of the peer's extra memory that ours may take at most; without a peer bytes.
    """

    number: str
    what: str
    ours: str
    peer: str | None = None
    must: float | None = None
    aim: float | None = None
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """Work, the ways to do it, and the rows that follow.

    Attributes
    ----------
    name
        For the command line.
    title
        What is measured, with the sizes.
    unit
        What one piece of work is.
    prepare
        Makes the ways, ours first.
    rows
        None, where all ways are simply listed.
    clock
        ``cpu`` takes the lower of the ratios by wall clock and by CPU time (of all threads):
        neither idling nor a second core helps. ``wall`` is for work on several cores or a GPU.
    memory
        Whether to measure also what each way takes, in a process of its own.
    rounds, warm_up
        Rounds, where fewer are enough or all that one can wait for, and whether each way runs
        once before.
    """

    name: str
    title: str
    unit: str
    prepare: Callable[[Setup], Mapping[str, Way]]
    rows: Sequence[Row] = ()
    clock: Literal["cpu", "wall"] = "cpu"
    memory: bool = False
    rounds: int | None = None
    warm_up: bool = True


def measure(contest: Contest, setup: Setup, rounds: int) -> dict[str, Any]:
    """Run a contest.

    Returns
    -------
    dict
        JSON values: for each way lists of seconds per piece, ``wall`` and ``cpu``, and ``bytes``
        or None; for each row its figures.
    """
    ways = dict(contest.prepare(setup))
    if contest.warm_up:
        for way in ways.values():
            way.before()
            way.run()
    found: dict[str, dict[str, Any]] = {
        name: {"wall": [], "cpu": [], "bytes": None} for name in ways
    }
    names = list(ways)
    for turn in range(contest.rounds or rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            ways[name].before()
            wall, cpu, result = _timed(ways[name].run)
            found[name]["wall"].append(wall / ways[name].count)
            found[name]["cpu"].append(cpu / ways[name].count)
            if isinstance(result, int):
                found[name]["bytes"] = max(result, found[name]["bytes"] or 0)
    if contest.memory:
        for name in names:
            found[name]["bytes"] = _peak_elsewhere(contest, name, setup)
    return {
        "name": contest.name,
        "title": contest.title,
        "unit": contest.unit,
        "ways": found,
        "rows": [line for row in contest.rows for line in judge(row, found, contest.clock)],
    }


def judge(row: Row, ways: Mapping[str, dict[str, Any]], clock: str) -> list[dict[str, Any]]:
    """Work out a row's figures, and one more row for its memory; none if a way is lacking."""
    if row.ours not in ways or row.peer not in (None, *ways):
        return []
    ours = ways[row.ours]
    line = {"number": row.number, "what": row.what, "must": row.must, "aim": row.aim}
    if row.peer is None:
        seconds, taken = median(ours["wall"]), ours["bytes"]
        alone = [line | {"kind": "seconds", "ours": seconds, "peer": None, "figure": seconds}]
        if row.memory is not None and taken is not None:
            about = {"number": row.number, "what": "memory of the same", "kind": "bytes"}
            limits = {"must": row.memory, "aim": None}
            alone.append(about | limits | {"ours": taken, "peer": None, "figure": taken})
        return alone
    peer = ways[row.peer]
    ratios = {
        kind: median(p / max(o, 1e-9) for o, p in zip(ours[kind], peer[kind], strict=True))
        for kind in ("wall", "cpu")
    }
    lines: list[dict[str, Any]] = [
        line
        | {
            "kind": "ratio",
            "ours": median(ours["wall"]),
            "peer": median(peer["wall"]),
            "peer_name": row.peer,
            "ratios": ratios,
            "figure": ratios["wall"] if clock == "wall" else min(ratios.values()),
        }
    ]
    if row.memory is not None and ours["bytes"] is not None:
        lines.append(
            {
                "number": row.number,
                "what": "memory of the same",
                "kind": "share",
                "ours": ours["bytes"],
                "peer": peer["bytes"],
                "peer_name": row.peer,
                "must": row.memory,
                "aim": None,
                "figure": ours["bytes"] / max(peer["bytes"], 1),
            }
        )
    return lines


def verdict(line: Mapping[str, Any]) -> str:
    """Say whether a row's target is met."""
    if line["must"] is None:
        return "shown only"
    at_least = line["kind"] == "ratio"

    def reached(target: float | None) -> bool:
        if target is None:
            return False
        return line["figure"] >= target if at_least else line["figure"] <= target

    return "aim met" if reached(line["aim"]) else "met" if reached(line["must"]) else "missed"


def _timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall and CPU seconds, those of children included."""
    before, wall = os.times(), time.perf_counter()
    cpu = time.process_time()
    result = run()
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, os.times()
    children = after.children_user + after.children_system
    children -= before.children_user + before.children_system
    return wall, cpu + children, result


# A process inherits the peak of the one that started it, so a small one stands between.
_BETWEEN = """
import os, sys
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def child(*words: object, memory: bool = False) -> int | None:
    """Run a program to its end; with ``memory``, returns the bytes it took at most."""
    line = [sys.executable, "-I", "-S", "-c", _BETWEEN] * memory + [str(word) for word in words]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    if not memory:
        return None
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def _peak_elsewhere(contest: Contest, way: str, setup: Setup) -> int | None:
    """Bytes that a way takes besides its inputs, measured in a new process; None where unknown."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    words = [sys.executable, "-m", "tests.benchmarks", contest.name, "--peak-of", way]
    words += ["--folder", str(setup.folder), "--device", setup.device]
    words += ["--tiny"] * setup.tiny + ["--full"] * setup.full
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def peak_here(way: Way) -> int:
    """Bytes that a way takes in this process besides what is there before (Linux).

    Pages of mapped files do not count: the system takes them back when it needs them.
    """
    way.before()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # forget the peak so far
    before = _status("VmRSS") - _status("RssFile")
    way.run()
    return max(_status("VmHWM") - _status("RssFile") - before, 0)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
