"""`bevgen calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.cli import COMMANDS, options
from bevgen.commands import EXIT_FAILED
from bevgen.terminal import counted

if TYPE_CHECKING:
    from bevgen.calibration import Heading

EPILOG = "Exit code 1 if nothing was found; the picture is drawn all the same."


@click.command("calibrate", help=COMMANDS["calibrate"], epilog=EPILOG)
@options.input_folder("panoramas (JPEG, PNG, WebP, TIFF)")
@click.option(
    "--reference",
    type=options.PATH,
    required=True,
    metavar="FOLDER",
    help="Folder of satellite tiles, north up, all of one size and scale.",
)
@options.output("The picture to write, .png or .jpg.")
@click.option(
    "--pairs",
    "pairs_file",
    type=options.PATH,
    metavar="CSV",
    help="Columns query, reference and any of role, d_row, d_col, split (the camera is d_row pixels"
    " below and d_col left of the tile's centre).  [default: equal ids pair, camera in the centre]",
)
@click.option(
    "--resolution",
    type=float,
    metavar="METRES",
    help="Metres per pixel of the tiles.  [default: unknown, the height comes in pixels of the"
    " tile]",
)
@click.option(
    "--poses",
    type=options.PATH,
    metavar="CSV",
    help="What is known of the panoramas: file and any of id, heading, pitch, roll.",
)
@click.option(
    "--sample",
    "count",
    type=click.IntRange(8),
    default=50,
    show_default=True,
    metavar="N",
    help="Compare so many pairs; each takes about 2 MB of memory.",
)
@click.option(
    "--heading",
    "mode",
    type=click.Choice(["known", "common", "per-image"]),
    default="common",
    show_default=True,
    help="known: right as they are. common: all off by one angle, to be found. per-image: not"
    " known of any.",
)
@options.vertical_fov
@click.option(
    "--horizon",
    is_flag=True,
    help="Find the row of the horizon, too: up to 14 degrees from where the vertical field has it.",
)
@click.option(
    "--write-poses",
    "poses_out",
    type=options.PATH,
    metavar="CSV",
    help="Write the headings of all pairs, not only of the sample, for bevgen convert --poses.",
)
@click.option(
    "--write-json",
    "json_out",
    type=options.PATH,
    metavar="FILE",
    help="Write what --json prints to a file, too; also where nothing was found.",
)
@options.mask
@options.overwrite
@options.as_json
def command(
    root: Path,
    reference: Path,
    out: Path,
    pairs_file: Path | None,
    resolution: float | None,
    poses: Path | None,
    count: int,
    mode: Heading,
    vertical_fov: tuple[float, float] | None,
    horizon: bool,
    poses_out: Path | None,
    json_out: Path | None,
    mask: Path | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Find camera height, heading and horizon by laying panoramas over satellite tiles."""
    from bevgen.calibration import choose, find_pairs
    from bevgen.calibration.headings import write_headings
    from bevgen.calibration.report import calibrate_sample
    from bevgen.calibration.sample import read_sample
    from bevgen.calibration.sheet import draw_report
    from bevgen.cli.progress import progress_bar
    from bevgen.images.mask import read_mask
    from bevgen.writing import check_output, write_picture, written_whole

    _check(out, poses_out, mode, resolution)
    for path in (out, poses_out, json_out):
        if path is not None:
            check_output(path, overwrite=overwrite, reads=(poses, pairs_file, mask))
    pairs = find_pairs(root, reference, pairs_file=pairs_file, poses=poses)
    with progress_bar("reading") as on_progress:
        sample = read_sample(
            choose(pairs, count), heading=mode, vertical_fov=vertical_fov, horizon=horizon,
            mask=None if mask is None else read_mask(mask),
            on_skip=_say_skipped, on_progress=on_progress,
        )  # fmt: skip
    with progress_bar("comparing") as on_progress:
        report = calibrate_sample(sample, resolution=resolution, on_progress=on_progress)
    write_picture(draw_report(report), out)
    result = json.dumps(report.to_json(), indent=2)
    if json_out is not None:
        with written_whole(json_out) as part:
            part.write_text(result + "\n", "utf-8")
    lines = report.lines()
    if report.found.verdict != "not found":
        if poses_out is not None:
            with progress_bar("headings") as on_progress:
                written = write_headings(
                    poses_out, pairs, report, on_skip=_say_skipped, on_progress=on_progress
                )
            lines += _written(poses_out, written, len(pairs))
        lines += report.next_steps(root, poses, poses_out)
    click.echo(result if as_json else "\n".join(lines))
    if report.found.verdict != "not found":
        return 0
    click.echo(
        f"Error: panoramas agree with their own tiles no better than with others, see {out};"
        " do they belong together, and is the camera where the tile's centre (or --pairs) has"
        f" it? Try {'--heading per-image, or ' if mode != 'per-image' else ''}"
        f"{'' if horizon else '--horizon if panoramas are cut, or '}a larger --sample",
        err=True,
    )
    return EXIT_FAILED


def _say_skipped(reason: str) -> None:
    click.echo(f"skipped: {reason}", err=True)


def _written(path: Path, written: int, pairs: int) -> list[str]:
    lines = [f"{path}: headings of {written:,} of {counted(pairs, 'panorama')}"]
    if written < pairs:
        lines.append(
            "to convert, leave out the others (--list), or they are drawn by what their files say,"
            " or as if they looked north"
        )
    return lines


def _check(out: Path, poses_out: Path | None, mode: Heading, resolution: float | None) -> None:
    """Refuse before any work what would fail."""
    from bevgen.errors import InputError
    from bevgen.geometry import BevGrid

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{out} must end in .png, .jpg or .jpeg")
    if resolution is not None:
        BevGrid(resolution=resolution)
    if poses_out is not None and mode == "known":
        raise InputError("--write-poses writes headings that were found: leave out --heading known")
