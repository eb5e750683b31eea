"""What a situation is, where it happens, and how it is told.

A situation is something that goes wrong on a user's machine. It happens in a folder of its own, by
processes that are started there as a user starts them, with names relative to it; so what is
printed holds no path of this machine.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

from tests.helpers.paths import ROOT
from tests.helpers.runs import copies, panoramas

SECONDS = 240  # a process that takes longer hangs
COLUMN = 180  # characters that a row shows of what was printed

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
"""Of each process, where it is not set otherwise; PYTHONPATH because each has another folder."""

RECIPE = """\
panorama = false
[bev.encoder]
name = 'test_convnext2'
pretrained = false
[bev.sampling]
batch_size = 8
pool = 8
take = 4
[bev.augment]
turn = 0
[bev.optim]
epochs = 1
precision = 'float32'
"""


class NotHereError(Exception):
    """This machine does not allow to bring the situation about."""


@dataclass(frozen=True)
class Ended:
    """How a process ended, and all that it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class Told:
    """How a situation ended: its processes in order, and what was checked then, in words."""

    ended: tuple[Ended, ...]
    then: str = ""

    @classmethod
    def of(cls, *ended: Ended, then: str = "") -> Told:
        return cls(ended, then)


class Place:
    """The folder of one situation.

    Parameters
    ----------
    folder
        Empty.
    ground
        What situations begin with.
    """

    def __init__(self, folder: Path, ground: Ground | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._ground = ground

    @property
    def ground(self) -> Ground:
        assert self._ground is not None
        return self._ground

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def take(self, *names: str) -> None:
        """Copy files and folders of the ground here."""
        for name in names:
            with self.ground.lock:
                source: Path = getattr(self.ground, name)
            beside = [source.with_suffix(".shards")] if source.suffix == ".h5" else []
            for path in [source, *beside]:
                if path.is_dir():
                    shutil.copytree(path, self / path.name)
                else:
                    shutil.copy(path, self / path.name)

    def start(
        self,
        command: str | Sequence[str],
        *,
        environment: Mapping[str, str | None] | None = None,
        before: Sequence[str] = (),
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.STDOUT,
    ) -> subprocess.Popen[bytes]:
        """Start a command such as ``bevgen info o.h5``; ``before`` are words that run it."""
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if words[0] in ("bevgen", "georetrieval", "dask"):
            words[:1] = [sys.executable, "-m", words[0]]
        elif words[0] == "python":
            words[0] = sys.executable
        there = {**ENVIRONMENT, **os.environ, "PYTHONIOENCODING": "utf-8"}
        changed = {**there, "COLUMNS": None, **(environment or {})}
        return subprocess.Popen(
            [*before, *words],
            cwd=self.folder,
            env={name: value for name, value in changed.items() if value is not None},
            start_new_session=True,
            stdout=stdout,
            stderr=stderr,
        )

    def run(self, command: str | Sequence[str], **options: Any) -> Ended:
        """Run a command to its end."""
        return self.end(self.start(command, **options))

    def end(self, process: subprocess.Popen[bytes]) -> Ended:
        """Wait for a process, and check that no user would see a traceback of it."""
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        text = ((out or b"") + (err or b"")).decode("utf-8", "replace")
        assert "Traceback" not in text, text
        return Ended(process.returncode, text)

    def python(self, script: str, **options: Any) -> Ended:
        """Run a user's script; an error of ours is printed with its class and ends it with 1."""
        indented = "\n".join(f"    {line}" for line in script.strip().splitlines())
        return self.run(["python", "-c", SCRIPT.format(script=indented)], **options)

    def held(self, command: str, lock: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command and stop it, as Ctrl-Z does, when it holds a lock."""
        process = self.start(command, **options)
        self.wait(lambda: (self / lock).exists() and (self / lock).stat().st_size > 0, process)
        os.killpg(process.pid, signal.SIGSTOP)
        return process

    def go_on(self, process: subprocess.Popen[bytes]) -> Ended:
        """Let a process that is stopped run to its end."""
        os.killpg(process.pid, signal.SIGCONT)
        return self.end(process)

    def wait(self, condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        """Wait for something to happen while a process runs."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                ended = self.end(process)
                raise AssertionError(f"ended too early: {ended.code}\n{ended.text}")
            time.sleep(0.002)

    def files(self) -> set[str]:
        """Names of all files, locks and unfinished ones included."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in found}


SCRIPT = """\
import sys
import numpy as np
import bevgen
try:
{script}
except bevgen.BevgenError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


class Ground:
    """Images, shards and a run that situations begin with, made when one first asks for them."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.lock = RLock()
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[Place], Any]) -> Any:
        """Return what is made in a folder of its own when it is first asked for."""
        with self.lock:
            if name not in self._made:
                self._made[name] = make(Place(self.place / name))
            return self._made[name]

    @cached_property
    def images(self) -> Path:
        """Twelve panoramas."""
        return panoramas(self.place / "images", 12)

    @cached_property
    def many(self) -> Path:
        """As many panoramas as a process needs seconds for."""
        return copies(self.place / "many", 300)

    @cached_property
    def bev(self) -> Path:
        """BEVs of the twelve in three shards, without poses."""
        self._done(
            f"bevgen convert -i {self.images.name} -o bev.h5 --size 32 --resolution 0.5"
            " --shard-size 4"
        )
        return self.place / "bev.h5"

    @cached_property
    def world(self) -> Path:
        """Shards of a few places with their recipe."""
        from tests.helpers.world import make_world

        world = make_world(self.place / "world", train=16, val=6, test=6)
        (world.root / "georetrieval.toml").write_text(RECIPE)
        return world.root

    @cached_property
    def run(self) -> Path:
        """A run, trained for an epoch on the world."""
        self._done(f"georetrieval train --data {self.world.name} --run run")
        return self.place / "run"

    @cached_property
    def town(self) -> Path:
        """Photos, tiles, a run and an index of them."""
        from tests.helpers.town import make_town

        make_town(self.place / "town")
        self._done(
            "georetrieval index --run town/run --references town/satellite.h5 -o town/city.index"
        )
        return self.place / "town"

    def _done(self, command: str) -> None:
        ended = self.place.run(command)
        assert ended.code == 0, ended.text


@dataclass(frozen=True)
class Situation:
    """A row of the page.

    Parameters
    ----------
    kind
        Under which heading.
    name
        What the user did, or what happened to him.
    act
        Brings it about.
    codes
        Exit codes that the processes must have, in order.
    says
        Pattern of what must be printed; what it matches is shown.
    """

    kind: str
    name: str
    act: Callable[[Place], Told] = field(repr=False)
    codes: tuple[int, ...]
    says: str

    def happens(self, ground: Ground, folder: Path) -> str:
        """Let it happen, check what did, and return the row of the page.

        Raises
        ------
        AssertionError
            If it is not what is expected.
        """
        told = self.act(Place(folder, ground))
        texts = [one.text.replace(f"{folder}/", "") for one in told.ended]
        codes = tuple(one.code for one in told.ended)
        assert codes == self.codes, f"exit codes {codes}, not {self.codes}:\n{texts}"
        lines = (" ".join(text.split()) for text in texts)  # however wide the terminal was
        found = next(filter(None, (re.search(self.says, line) for line in lines)), None)
        assert found, f"{self.says!r} is not in:\n{texts}"
        ends = ", ".join(map(str, codes))
        said = shown(found[0])
        return f"| {self.name} | {ends} | {f'`{said}`' if said else ''} | {told.then} |"


def shown(text: str) -> str:
    """Shorten what was printed, without what is another one on each machine or in each run."""
    text = re.sub(r"process \d+ on [^\s)]+", "process N on HOST", text)
    text = re.sub(r"\d+\.\d+ ([MG]B)", r"N \1", text)
    text = text.replace("|", "\\|").replace("`", "'")
    return text if len(text) <= COLUMN else text[: COLUMN - 2].rstrip() + " …"


def command(
    kind: str,
    name: str,
    words: str,
    code: int,
    says: str,
    *takes: str,
    prepare: Callable[[Place], object] | None = None,
    then: str = "",
    **options: Any,
) -> Situation:
    """Make a situation of one command in a folder with some of the ground and what is prepared."""

    def act(place: Place) -> Told:
        place.take(*takes)
        if prepare is not None:
            prepare(place)
        return Told.of(place.run(words, **options), then=then)

    return Situation(kind, name, act, (code,), says)
