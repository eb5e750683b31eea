"""The commands as typed calls: each prints the line that does the same, and runs it.

A line runs in a process of its own, as if it were typed. One that fails ends the program with its
exit code; what was done is kept, and the same program goes on from there.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Size = int | tuple[int, int]
"""Of images, in pixels: a square's side, or height and width."""

Value = str | float | Path | bool | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Images:
    """A folder of images.

    Attributes
    ----------
    folder
        Where they lie.
    poses
        A table of their poses and ids.
    list
        A file that names those to take; None takes all.
    """

    folder: Path
    poses: Path | None = None
    list: Path | None = None

    @property
    def words(self) -> Sequence[str]:
        """The options that name them."""
        return options({"in": self.folder, "list": self.list, "poses": self.poses})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bev:
    """What bird's-eye views show; None where the preset or the command decides."""

    preset: str | None = None
    height: float | None = None
    size: int | None = None
    resolution: float | None = None


def options(values: dict[str, Value]) -> list[str]:
    """Spell options: True is a flag, a sequence repeats the option, None and False leave it out."""
    words: list[str] = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words += [word for each in value for word in (flag, each)]
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return words


def run(words: Sequence[str], *, why: str = "", result: Path | None = None) -> None:
    """Print a line and run it.

    Parameters
    ----------
    words
        Begin with ``bevgen``, ``georetrieval`` or ``python``, all of this Python's environment.
    why
        Printed above the line.
    result
        A file that tells what the command found: with it, exit code 1 is a finding too.
    """
    print(f"\n{why}\n$ {shlex.join(words)}" if why else f"\n$ {shlex.join(words)}", flush=True)
    name, *rest = words
    program = Path(sys.executable) if name == "python" else Path(sys.executable).with_name(name)
    try:
        code = subprocess.run([program, *rest], check=False).returncode
    except KeyboardInterrupt:
        code = 130
    if code and not (code == 1 and result is not None and result.exists()):
        print(f"the command above ended with exit code {code}", file=sys.stderr)
        sys.exit(code)


# --- bevgen ---


def preview(panorama: Path, out: Path, bev: Bev, *, why: str = "") -> None:
    """Draw a panorama, its bird's-eye view and the mask on one sheet."""
    values: dict[str, Value] = {"in": panorama, "out": out, **asdict(bev), "overwrite": True}
    run(["bevgen", "preview", *options(values)], why=why)


def calibrate(
    panoramas: Path,
    tiles: Path,
    out: Path,
    *,
    pairs: Path,
    result: Path,
    resolution: float,
    heading: str,
    why: str = "",
) -> None:
    """Find the camera height on a sample of pairs; that nothing is found stands in ``result``."""
    values: dict[str, Value] = {
        "in": panoramas,
        "reference": tiles,
        "pairs": pairs,
        "resolution": resolution,
        "heading": heading,
        "out": out,
        "write_json": result,
        "overwrite": True,
    }
    run(["bevgen", "calibrate", *options(values)], why=why, result=result)


def convert(
    images: Images,
    out: Path,
    bev: Bev,
    *,
    more: Sequence[str] = (),
    quiet: bool = False,
    why: str = "",
) -> None:
    """Turn panoramas into bird's-eye views; ``more`` are words of the command that override."""
    values: dict[str, Value] = {"out": out, **asdict(bev), "quiet": quiet}
    run(["bevgen", "convert", *images.words, *options(values), *more], why=why)


def pack(
    images: Images,
    out: Path,
    *,
    kind: str,
    size: Size,
    turn_to_north: bool = False,
    quiet: bool = False,
    why: str = "",
) -> None:
    """Store images as they are, at one size."""
    values: dict[str, Value] = {
        "out": out,
        "kind": kind,
        "size": str(size) if isinstance(size, int) else "x".join(map(str, size)),
        "turn_to_north": turn_to_north,
        "quiet": quiet,
    }
    run(["bevgen", "pack", *images.words, *options(values)], why=why)


def verify(shards: Path, *, why: str = "") -> None:
    """Check every stored byte."""
    run(["bevgen", "verify", str(shards)], why=why)


def info(shards: Path, *, rows: bool = False, why: str = "") -> None:
    """Show what shards hold."""
    run(["bevgen", "info", str(shards), *options({"rows": rows})], why=why)


# --- georetrieval ---


def neighbours(
    data: Path, *, recipe: str, settings: Sequence[str] = (), positions: Path | None = None
) -> None:
    """Store which training places are near each other."""
    values: dict[str, Value] = {
        "data": data,
        "recipe": recipe,
        "set": settings,
        "positions": positions,
    }
    run(["georetrieval", "neighbours", *options(values)])


def train(
    data: Path,
    folder: Path,
    *,
    recipe: str | Path | None = None,
    settings: Sequence[str] = (),
    why: str = "",
) -> None:
    """Train all branches of a recipe, or go on with what an earlier call began."""
    from georetrieval.run import Run  # imports pydantic: late, for bevgen alone

    values: dict[str, Value] = {
        "data": data,
        "run": folder,
        "recipe": recipe,
        "set": settings,
        "resume": bool(Run(folder).states()),
    }
    run(["georetrieval", "train", *options(values)], why=why)


def evaluate(
    folder: Path,
    split: str,
    *,
    data: Path | None = None,
    gallery: str | None = None,
    name: str | None = None,
    why: str = "",
) -> None:
    """Search a split with each branch and with both."""
    values: dict[str, Value] = {
        "run": folder,
        "split": split,
        "data": data,
        "gallery": gallery,
        "name": name,
    }
    run(["georetrieval", "evaluate", *options(values)], why=why)


def report(folder: Path, *, why: str = "") -> None:
    """Put a run on one page."""
    run(["georetrieval", "report", *options({"run": folder})], why=why)


def tiles(
    source: Path, out: Path, *, resolution: float, size: int, step: float, why: str = ""
) -> None:
    """Cut a map into reference tiles."""
    values: dict[str, Value] = {
        "source": source,
        "out": out,
        "resolution": resolution,
        "size": size,
        "step": step,
    }
    run(["georetrieval", "tiles", *options(values)], why=why)


def index(
    folder: Path, references: Path, out: Path, *, resolution: float | None = None, why: str = ""
) -> None:
    """Make an index of reference tiles."""
    values: dict[str, Value] = {
        "run": folder,
        "references": references,
        "out": out,
        "resolution": resolution,
    }
    run(["georetrieval", "index", *options(values)], why=why)


def confidence(
    photos: Sequence[Path], where: Path, *, poses: Path, split: str | None = None, why: str = ""
) -> None:
    """Fit how sure an index's answers are, on photos of known places."""
    values: dict[str, Value] = {"index": where, "poses": poses, "split": split}
    run(["georetrieval", "confidence", *map(str, photos), *options(values)], why=why)


def locate(
    photos: Sequence[Path], where: Path, *, poses: Path | None = None, out: Path, why: str = ""
) -> None:
    """Find where photos were taken, and write it as a table of comma-separated values."""
    values: dict[str, Value] = {"index": where, "poses": poses, "format": "csv", "out": out}
    run(["georetrieval", "locate", *map(str, photos), *options(values)], why=why)


# --- the synthetic city ---


def draw_city(
    out: Path,
    *,
    places: int,
    tile_metres: float,
    tile_size: int,
    seed: int | None = None,
    validation: float | None = None,
    dates: Sequence[str] = (),
    offset: float | None = None,
    heading: str | None = None,
    raster: str | None = None,
    drive: int | None = None,
    drive_frames: int | None = None,
    drive_step: float | None = None,
    why: str = "",
) -> None:
    """Draw a city: a panorama, a satellite tile and a map tile of each place.

    ``raster`` names districts that are drawn as maps too.
    """
    values: dict[str, Value] = {
        "out": out,
        "places": places,
        "seed": seed,
        "validation": validation,
        "date": dates,
        "tile_metres": tile_metres,
        "tile_size": tile_size,
        "offset": offset,
        "heading": heading,
        "raster": raster,
        "drive": drive,
        "drive_frames": drive_frames,
        "drive_step": drive_step,
    }
    run(["python", "-m", "pipelines.city", *options(values)], why=why)
