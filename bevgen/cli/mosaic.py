"""`bevgen mosaic`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.cli import COMMANDS, options
from bevgen.terminal import counted

if TYPE_CHECKING:
    from bevgen.mosaic.pictures import Array

ABOVE_0 = options.Finite(min=0, min_open=True)


@click.command("mosaic", help=COMMANDS["mosaic"])
@options.input_folder("panoramas, in the order of their names")
@options.poses
@options.output("GeoTIFF to write; a picture with the same name and .png is written beside it.")
@click.option(
    "--poses-out", type=options.PATH, metavar="CSV", help="Write the refined poses to this file."
)
@click.option(
    "--height", type=ABOVE_0, default=2.0, show_default=True,
    help="Camera above the ground, metres, where --poses does not say it.",
)  # fmt: skip
@click.option(
    "--resolution", type=ABOVE_0, default=0.05, show_default=True, help="Metres per pixel."
)
@options.vertical_fov
@click.option(
    "--mask", "mask_file", type=options.PATH, metavar="PNG",
    help="White where panoramas count, black where they show what carries the camera.",
)  # fmt: skip
@click.option(
    "--position-error", type=ABOVE_0, default=3.0, show_default=True,
    help="Standard deviation of GPS, metres east and north.",
)  # fmt: skip
@click.option(
    "--heading-error", type=ABOVE_0, default=5.0, show_default=True,
    help="Standard deviation of the compass, degrees.",
)  # fmt: skip
@click.option(
    "--register/--no-register", "refine", default=True, show_default=True,
    help="Correct what GPS and compass say by what the pictures show.",
)  # fmt: skip
@options.overwrite
@click.argument("names", nargs=-1)
def command(
    root: Path,
    poses: Path | None,
    out: Path,
    poses_out: Path | None,
    height: float,
    resolution: float,
    vertical_fov: tuple[float, float] | None,
    mask_file: Path | None,
    position_error: float,
    heading_error: float,
    refine: bool,
    overwrite: bool,
    names: tuple[str, ...],
) -> None:
    """Put NAMES, or all panoramas of a folder, together to one map of the street's ground."""
    from bevgen.errors import InputError
    from bevgen.writing import check_output

    picture = out.with_suffix(".png")
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise click.UsageError(f"--out {out} must end in .tif: it will be a GeoTIFF")
    for path in (out, picture, poses_out):
        if path:
            check_output(path, overwrite=overwrite, reads=(poses, mask_file))
    try:
        from bevgen.mosaic import Prior, correlations, gains, level_views, read_sequence, register
        from bevgen.mosaic.writing import lay_out, write_mosaic
    except ModuleNotFoundError as error:
        raise InputError(
            f"a mosaic needs {error.name}, which is not installed: pip install 'bevgen[mosaic]'"
        ) from error
    from bevgen.cli.progress import progress_steps
    from bevgen.images.mask import read_mask
    from bevgen.tables import read_poses, write_poses

    skipped: dict[str, list[str]] = {}

    def skip(name: str, reason: str) -> None:
        skipped.setdefault(reason, []).append(name)

    rows = read_poses(poses) if poses else {}
    mask = read_mask(mask_file) if mask_file else None
    try:
        sequence = read_sequence(
            root, rows, height, names=list(names), vertical_fov=vertical_fov, mask=mask, skip=skip
        )
    finally:
        _say_skipped(skipped)
    lay_out(sequence, sequence.guess, sequence.guess[:, 0], resolution)  # refuses what is too large
    prior = Prior(position_error, heading_error if sequence.knows_headings else 30.0)
    with progress_steps() as watch:
        with _says_how_to_go_on("the same command begins anew"):
            views = level_views(sequence, watch)
            placements, pairs = sequence.guess, [(i, i + 1) for i in range(len(views.images) - 1)]
            if refine:
                placements, pairs = register(views, sequence.guess, sequence.height, prior, watch)
            if poses_out:
                write_poses(poses_out, sequence.rows(placements))
        with _says_how_to_go_on(_drawing_only(poses_out)):
            factors = gains(views, placements, sequence.height, pairs)
            before, after = (
                correlations(views, stand, sequence.height, pairs)
                for stand in (sequence.guess, placements)
            )
            del views
            canvas, claimed = write_mosaic(
                sequence, placements, factors, resolution, out, picture, watch
            )
    _say_how_far(sequence.guess, placements, pairs, before, after)
    click.echo(
        f"{out}: {len(sequence.frames)} frames, {canvas.columns} x {canvas.rows} pixels of"
        f" {resolution:g} m, {claimed:,.0f} square metres of ground known"
    )


@contextmanager
def _says_how_to_go_on(again: str) -> Iterator[None]:
    """Say, when interrupted, what is to be done again."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"nothing was drawn; {again}", err=True)
        raise


def _drawing_only(poses_out: Path | None) -> str:
    """Say how to draw with the poses that were found, if they were kept."""
    if poses_out is None:
        return "the same command begins anew"
    return f"add --poses {poses_out} --no-register, without --poses-out, to draw it only"


def _say_skipped(skipped: dict[str, list[str]]) -> None:
    """Print each reason once, with the first frames that it is true of."""
    for reason, names in skipped.items():
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        click.echo(f"skipped: {', '.join(names[:3])}{more}: {reason}", err=True)


def _say_how_far(
    guess: Array, placements: Array, pairs: list[tuple[int, int]], before: Array, after: Array
) -> None:
    """Print what pictures added to GPS and compass, and which frames hang on GPS alone."""
    import numpy as np

    moved = np.hypot(*(placements - guess)[:, :2].T)
    turned = np.abs(placements - guess)[:, 2]
    shared = int(np.isfinite(after).sum())
    alike = [float(np.nanmedian(v)) if np.isfinite(v).any() else 0.0 for v in (after, before)]
    agree = f"; their pictures agree to {alike[0]:.2f} (by GPS and compass {alike[1]:.2f})"
    said = "no pairs of frames show"
    if shared:
        said = counted(shared, "pair of frames shows", "pairs of frames show")
    click.echo(f"{said} the same ground{agree if shared else ''}")
    click.echo(
        f"moved by {np.median(moved):.2f} m, {moved.max():.2f} at most; turned by"
        f" {np.median(turned):.1f} degrees, {turned.max():.1f} at most"
    )
    held = {k for pair in pairs for k in pair}
    if alone := [k for k in range(len(guess)) if k not in held]:
        click.echo(
            counted(len(alone), "frame shares", "frames share")
            + " no ground with others: it is GPS that says where they stand",
            err=True,
        )
