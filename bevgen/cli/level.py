"""`bevgen level`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bevgen.cli import COMMANDS, options
from bevgen.commands import EXIT_FAILED, EXIT_INTERRUPTED
from bevgen.terminal import counted

if TYPE_CHECKING:
    from bevgen.calibration.level import Tilt
    from bevgen.tables import PoseRow


class Found(NamedTuple):
    """What was found of one panorama; ``reason`` if it could not be used."""

    pitch: float
    roll: float
    deviation: float
    metadata_roll: float | None
    reason: str = ""

    @property
    def tilt(self) -> Tilt:
        """Pitch, roll and their uncertainty."""
        from bevgen.calibration.level import Tilt

        return Tilt(self.pitch, self.roll, self.deviation)


@click.command("level", help=COMMANDS["level"])
@options.input_folder("panoramas (JPEG, PNG, WebP, TIFF)")
@options.output(
    "The poses.csv to write: pitch and roll where the picture is sure of them, and in tilt_error"
    " their standard deviation."
)
@click.option(
    "--poses", type=options.PATH, metavar="CSV",
    help="A poses.csv whose other columns are kept, and whose pitch and roll stay where the picture"
    " is not sure.",
)  # fmt: skip
@options.list_file
@options.vertical_fov
@options.roll_sign
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Threads.  [default: cores]")
@options.overwrite
@options.as_json
def command(
    root: Path,
    out: Path,
    poses: Path | None,
    list_file: Path | None,
    vertical_fov: tuple[float, float] | None,
    roll_sign: str | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Find pitch and roll of panoramas from upright edges or the horizon."""
    from bevgen.calibration.level import compare_rolls
    from bevgen.images.finding import find_images
    from bevgen.locking import only_writer
    from bevgen.tables import POSE_COLUMNS, TILT_ERROR, PoseRow, read_poses, write_poses
    from bevgen.writing import check_output, write_errors

    check_output(out, overwrite=overwrite, reads=(poses,))
    sources = find_images(root, list_file)
    own = read_poses(poses, (source for source, _ in sources)) if poses is not None else {}
    part = out.with_name(out.name + ".part")
    try:
        with only_writer(out), write_errors(part):
            found = _find_all(root, sources, part, vertical_fov, workers)
            rows = [_row(own.get(source, PoseRow(source)), found[source]) for source, _ in sources]
            rows += [row for file, row in own.items() if file not in found]
            write_poses(out, rows, (*POSE_COLUMNS, TILT_ERROR))
            part.unlink(missing_ok=True)
    except KeyboardInterrupt:
        kept = f"What was found is kept in {part}" if part.exists() else "Nothing was found yet"
        click.echo(f"Interrupted. {kept}; continue with:", err=True)
        from bevgen.cli.running import resume_line

        click.echo(f"  {resume_line(None)}", err=True)
        return EXIT_INTERRUPTED
    said = [(f.metadata_roll, f.tilt) for f in found.values() if f.metadata_roll is not None]
    sign = -1.0 if roll_sign == "left-down" else 1.0
    rolls = compare_rolls([sign * roll for roll, _ in said], [tilt for _, tilt in said])
    sure = sum(f.tilt.sure for f in found.values())
    if as_json:
        click.echo(json.dumps([_json(source, found[source]) for source, _ in sources], indent=2))
    else:
        _print(out, found, sure)
    if rolls.is_turned:
        other = "right-down" if roll_sign == "left-down" else "left-down"
        click.echo(
            f"the roll in the metadata of {counted(rolls.count, 'panorama')} fits the pictures"
            f" better the other way round ({rolls.left_down:.1f} instead of {rolls.right_down:.1f}"
            f" degrees off): where it is used, add --roll-sign {other}",
            err=True,
        )
    if all(f.reason for f in found.values()):
        click.echo("Error: none of the panoramas could be used", err=True)
        return EXIT_FAILED
    return 0


def _find_all(
    root: Path,
    sources: list[tuple[str, int]],
    part: Path,
    vertical_fov: tuple[float, float] | None,
    workers: int | None,
) -> dict[str, Found]:
    """Look at all panoramas; what is found goes to ``part`` at once, and is taken from there."""
    from bevgen.cli.progress import progress_bar

    settings = list(vertical_fov or ())
    kept = dict(_read_part(part, settings))
    found = {source: kept[key] for source, size in sources if (key := (source, size)) in kept}
    todo = [(source, size) for source, size in sources if source not in found]
    with (
        progress_bar("levelling") as on_progress,
        part.open("a", encoding="utf-8") as lines,
        ThreadPoolExecutor(workers) as pool,
    ):
        jobs = [(s, z, pool.submit(_find, root / s, s, vertical_fov)) for s, z in todo]
        try:
            for source, size, job in jobs:
                found[source] = one = job.result()
                lines.write(json.dumps([source, size, settings, *one]) + "\n")
                lines.flush()
                if one.reason:
                    click.echo(f"skipped: {source}: {one.reason}", err=True)
                on_progress(len(found), len(sources))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            if not lines.tell():
                part.unlink()  # nothing to go on from
            raise
    return found


def _read_part(part: Path, settings: list[float]) -> Iterator[tuple[tuple[str, int], Found]]:
    """Yield what an interrupted run has found with the same settings; a torn last line is not."""
    if not part.is_file():
        return
    for line in part.read_text("utf-8").splitlines():
        try:
            source, size, its, *values = json.loads(line)
            if its == settings:
                yield (source, size), Found(*values)
        except (ValueError, TypeError):
            continue


def _find(path: Path, source: str, vertical_fov: tuple[float, float] | None) -> Found:
    """Estimate the tilt of one file."""
    from bevgen.calibration.level import find_tilt
    from bevgen.errors import PanoramaError
    from bevgen.images.decoding import read_image
    from bevgen.images.metadata import GPANO, info_from_name
    from bevgen.images.view import panorama_view

    try:
        image, file = read_image(path)
        info = file.fallback(info_from_name(source))
        tilt = find_tilt(image, panorama_view(image.shape[:2], info, vertical_fov))
    except PanoramaError as error:
        return Found(float("nan"), float("nan"), float("inf"), None, str(error))
    roll = file.roll if file.origins.get("roll") == GPANO else None
    return Found(tilt.pitch, tilt.roll, tilt.deviation, roll)


def _row(own: PoseRow, found: Found) -> PoseRow:
    """Write pitch and roll where the picture is sure of them."""
    if not found.tilt.sure:
        return own
    pitch, roll, error = (round(v, 2) for v in (found.pitch, found.roll, found.deviation))
    return replace(own, pitch=pitch, roll=roll, tilt_error=error)


def _print(out: Path, found: dict[str, Found], sure: int) -> None:
    for source, one in list(found.items())[:10]:
        if one.tilt.sure:
            text = f"pitch {one.pitch:+.1f}, roll {one.roll:+.1f}, give or take {one.deviation:.2f}"
        else:
            text = one.reason or "not sure"
        click.echo(f"{source:24} {text}")
    if len(found) > 10:
        click.echo(f"... and {len(found) - 10:,} more: --json lists all")
    click.echo(f"{out}: pitch and roll of {sure:,} of {counted(len(found), 'panorama')}")


def _json(source: str, one: Found) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return round(value, 3) if abs(value) < 360 else None

    return {
        "file": source,
        "sure": one.tilt.sure,
        "pitch": number(one.pitch),
        "roll": number(one.roll),
        "deviation": number(one.deviation),
        "metadata_roll": one.metadata_roll,
        "reason": one.reason or None,
    }
