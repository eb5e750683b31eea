"""The step calibrate: camera heights from a sample of training pairs, and which heights are used.

`calibrate` runs ``bevgen calibrate`` on panoramas of one camera height over tiles of one scale at
a time, and leaves its result beside the shards. `decide` takes a height from it where it is sure,
and from the preset elsewhere; a height that is given overrides both. What was taken, and why, is
printed and written to ``heights.csv``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from bevgen.errors import InputError
from bevgen.images.finding import default_id
from bevgen.presets import PRESETS
from bevgen.tables import Pair, read_poses, write_csv, write_pairs, write_poses
from pipelines import commands, steps

LEAST = 8  # pairs that bevgen calibrate needs
SURE = "clear"  # the verdict that counts
TURNED = 3.0  # degrees by which headings are off that are worth a word
HEIGHTS = "heights.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cameras:
    """Panoramas of cameras at one height, on tiles of one scale.

    Attributes
    ----------
    name
        Of the dataset, or of one of its cities.
    preset
        Whose height is taken where calibration is not sure.
    tile_metres
        Ground across a tile. Where nobody has measured it, what the BEVs take for it.
    measured
        Whether it is known, so that the heights of other cameras tell something of these.
    """

    name: str
    preset: str
    tile_metres: float
    measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is calibrated, and how.

    Attributes
    ----------
    root, out
        Folders of the dataset, and of what is made.
    cameras
        Tells of a panorama's id by which cameras it was taken.
    pairs
        Files of pairs; a query counts that trains in each of them, so that no test is looked at.
    given
        A height in metres that overrides all.
    heading
        As in ``bevgen calibrate``.
    label_size
        Side in pixels of the tiles that d_row and d_col of the pairs are meant for.
    """

    root: Path
    out: Path
    cameras: Callable[[str], Cameras]
    pairs: Sequence[str]
    given: float | None
    heading: str = "common"
    label_size: int | None = None

    def file(self, cameras: Cameras, ending: str) -> Path:
        """Return the file of this ending that the calibration of some cameras is kept in."""
        return self.out / f"calibration-{cameras.name}{ending}"


@dataclass(frozen=True, slots=True)
class Height:
    """A camera height in metres, where it is from (option, calibration, preset), and why."""

    metres: float
    source: str
    why: str


# --- the step ---


def calibrate(plan: Plan) -> None:
    """Calibrate all cameras that enough training pairs are of; what is there already is kept.

    All protocols use the same BEVs, so where these are there, nothing is calibrated any more.

    Raises
    ------
    InputError
        If there are no tables yet.
    """
    if plan.given is not None:
        print(f"\nno calibration: --height says {plan.given:g} m")
        return
    if (bevs := plan.out / "bev.h5").exists():  # of another protocol, or of a run before
        print(f"\nno calibration: {bevs} is there, with the heights of {plan.out / HEIGHTS}")
        return
    panoramas, tiles = (_files(plan.out / f"{view}.csv") for view in ("panorama", "satellite"))
    for cameras, pairs in _training_pairs(plan, panoramas).items():
        result = plan.file(cameras, ".json")
        if result.exists():
            print(f"\n{result} is there: remove it to calibrate {cameras.name} again")
        elif len(pairs) < LEAST:
            print(
                f"\nno calibration of {cameras.name}: it takes {LEAST} training pairs, there are"
                f" {len(pairs)}"
            )
        else:
            streets, grounds = ([plan.root / files[name] for name in names] for files, names in (
                (panoramas, [pair.query for pair in pairs]),
                (tiles, [pair.reference for pair in pairs]),
            ))  # fmt: skip
            _calibrate(plan, cameras, pairs, streets, grounds)


def _calibrate(
    plan: Plan,
    cameras: Cameras,
    pairs: Sequence[Pair],
    streets: Sequence[Path],
    grounds: Sequence[Path],
) -> None:
    """Write the pairs by the ids that files have by themselves, and run the command on them."""
    root, reference = _common_folder(streets), _common_folder(grounds)
    side = _side(grounds[0])
    shrunk = 1.0 if plan.label_size is None else side / plan.label_size
    rows = [
        replace(
            pair,
            query=default_id(street.relative_to(root).as_posix()),
            reference=default_id(ground.relative_to(reference).as_posix()),
            d_row=None if pair.d_row is None else pair.d_row * shrunk,
            d_col=None if pair.d_col is None else pair.d_col * shrunk,
        )
        for pair, street, ground in zip(pairs, streets, grounds, strict=True)
    ]
    write_pairs(plan.file(cameras, ".csv"), rows)
    commands.calibrate(
        root,
        reference,
        plan.file(cameras, ".png"),
        pairs=plan.file(cameras, ".csv"),
        result=plan.file(cameras, ".json"),
        resolution=round(cameras.tile_metres / side, 6),
        heading=plan.heading,
        why=f"how high the cameras of {cameras.name} are, by a sample of training pairs"
        + (
            ""
            if cameras.measured
            else f" (metres as if a tile were {cameras.tile_metres:.4g} wide)"
        ),
    )


def _training_pairs(plan: Plan, panoramas: Iterable[str]) -> dict[Cameras, list[Pair]]:
    """Return the pairs by cameras, of all cameras that took a panorama."""
    found: dict[Cameras, list[Pair]] = {plan.cameras(name): [] for name in panoramas}
    train = [steps.positives_of(plan.out / name, "train") for name in plan.pairs]
    everywhere = set.intersection(*({pair.query for pair in pairs} for pairs in train))
    for pair in train[0]:
        if pair.query in everywhere:
            found[plan.cameras(pair.query)].append(pair)
    return found


def _files(table: Path) -> dict[str, str]:
    """Return the file of each id."""
    if not table.exists():
        raise InputError(f"{table} does not exist: run the step poses first")
    return {row.id or row.file: row.file for row in read_poses(table).values()}


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in files]))


def _side(tile: Path) -> int:
    """Return the width of a tile in pixels."""
    try:
        with Image.open(tile) as image:
            return image.width
    except OSError as error:
        raise InputError(f"{tile} cannot be read: {error}") from error


# --- what comes of it ---


def decide(plan: Plan) -> dict[Cameras, Height]:
    """Decide for each camera which height is used; print and write it.

    Raises
    ------
    InputError
        If there are no tables yet, or a result cannot be read.
    """
    everyone = list(dict.fromkeys(map(plan.cameras, _files(plan.out / "panorama.csv"))))
    results = {cameras: _result(plan.file(cameras, ".json")) for cameras in everyone}
    sure = {
        cameras.name: result["height"]["value"]
        for cameras, result in results.items()
        if cameras.measured and result is not None and result["verdict"] == SURE
    }
    decided = {}
    for cameras in everyone:
        decided[cameras] = (
            Height(plan.given, "option", "--height")
            if plan.given is not None
            else _height(plan, cameras, results[cameras], sure)
        )
        height = decided[cameras]
        print(f"camera height of {cameras.name}: {height.metres:g} m, {height.why}")
        _say_turned(plan, cameras, results[cameras])
    rows = ([c.name, h.metres, h.source, h.why] for c, h in decided.items())
    write_csv(plan.out / HEIGHTS, ["cameras", "height", "source", "why"], rows)
    return decided


def _height(
    plan: Plan, cameras: Cameras, result: dict[str, Any] | None, sure: dict[str, float]
) -> Height:
    """Decide it for some cameras: by their own result, by others', or by the preset."""
    file = plan.file(cameras, ".json").name
    if result is not None and result["verdict"] == SURE:
        metres, low, high = (round(result["height"][key], 3) for key in ("value", "low", "high"))
        why = f"by {file}: {low:g} to {high:g}, {SURE} on {result['pairs']} pairs"
        return Height(metres, "calibration", why)
    why = "no calibration" if result is None else f"{file}: {result['verdict']}"
    if cameras.measured and sure:
        mean = sum(sure.values()) / len(sure)
        return Height(round(mean, 3), "calibration", f"as found in {' and '.join(sure)} ({why})")
    preset = PRESETS[cameras.preset]
    confidence = preset.sources["height"].confidence
    return Height(preset.height, "preset", f"by preset {cameras.preset}, {confidence} ({why})")


def _result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text("utf-8"))
        _ = result["verdict"], result["height"]["value"], result["pairs"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove it, and run the step calibrate") from error
    return result


def _say_turned(plan: Plan, cameras: Cameras, result: dict[str, Any] | None) -> None:
    """Say it where all headings are off by one angle: nothing is changed for that."""
    if result is None or result["verdict"] != SURE or "heading" not in result:
        return
    heading = result["heading"]
    if min(abs(heading["low"]), abs(heading["high"])) > TURNED:
        print(
            f"  but its panoramas look {heading['value']:.1f} degrees away from where they are"
            f" taken to look, see {plan.file(cameras, '.png')}; nothing was changed for it"
        )


def write_heights(plan: Plan, heights: dict[Cameras, Height], width: float | None = None) -> Path:
    """Write ``bev.csv``: panorama.csv with each camera's height, for ``bevgen convert --poses``.

    With ``width``, the metres across all BEVs, each camera gets the height by which its BEVs show
    as much ground as its tiles: as only height over resolution counts, another height is another
    resolution.
    """
    path = plan.out / "bev.csv"
    rows = []
    for row in read_poses(plan.out / "panorama.csv").values():
        cameras = plan.cameras(row.id or row.file)
        scale = 1.0 if width is None else width / cameras.tile_metres
        rows.append(replace(row, height=round(heights[cameras].metres * scale, 6)))
    write_poses(path, rows, ["file", "id", "latitude", "longitude", "height"])
    return path
