"""`bevgen ground`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from bevgen.cli import COMMANDS, options
from bevgen.cli.options import F
from bevgen.commands import EXIT_FAILED


def _sure(name: str, default: float, unit: str) -> Callable[[F], F]:
    """Make an option for a standard deviation."""
    return click.option(
        f"--{name}-error", default=default, show_default=True, type=click.FloatRange(min=0),
        help=f"Standard deviation of {name}, {unit}.",
    )  # fmt: skip


@click.command("ground", help=COMMANDS["ground"])
@click.option(
    "--points", type=options.PATH, required=True, metavar="CSV",
    help="Columns file, x, y: pixels right of the left, below the upper edge. Others are kept.",
)  # fmt: skip
@options.poses
@click.option(
    "-i", "--in", "folder", type=options.PATH, metavar="FOLDER",
    help="Of the panoramas.  [default: that of --poses]",
)  # fmt: skip
@options.output("GeoJSON file to write.")
@click.option("--height", default=2.0, show_default=True, help="Camera above the ground, metres.")
@options.vertical_fov
@_sure("height", 0.1, "metres")
@_sure("heading", 3.0, "degrees")
@_sure("pitch", 1.0, "degrees, where --poses has no tilt_error")
@_sure("roll", 1.0, "degrees, where --poses has no tilt_error")
@_sure("position", 3.0, "metres east and north")
@_sure("click", 3.0, "pixels")
@click.option(
    "--min-depression", default=1.0, show_default=True, metavar="DEG",
    help="Skip points less than this below the horizon.",
)  # fmt: skip
@options.overwrite
def command(
    points: Path,
    poses: Path | None,
    folder: Path | None,
    out: Path,
    height: float,
    vertical_fov: tuple[float, float] | None,
    min_depression: float,
    overwrite: bool,
    **errors: float,
) -> int:
    """Find latitude and longitude of points in panoramas, and how sure that is."""
    from bevgen.errors import InputError
    from bevgen.ground import Uncertainty
    from bevgen.labels import place_labels, read_labels
    from bevgen.tables import read_poses
    from bevgen.terminal import counted
    from bevgen.writing import check_output, written_whole

    check_output(out, overwrite=overwrite, reads=(points, poses))
    if folder is None and poses is None:
        raise click.UsageError("say where the panoramas are: --poses, --in or both")
    if folder and not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the one that the panoramas are in")
    placed = place_labels(
        read_labels(points),
        read_poses(poses) if poses else {},
        folder or (poses or points).parent,
        Uncertainty(**{name.removesuffix("_error"): value for name, value in errors.items()}),
        height=height,
        vertical_fov=vertical_fov,
        min_depression=min_depression,
    )
    for reason in placed.skipped:
        click.echo(f"skipped: {reason}", err=True)
    count = len(placed.geojson["features"])
    if not count:
        click.echo(f"Error: none of the points in {points} has a place", err=True)
        return EXIT_FAILED
    with written_whole(out) as part:
        part.write_text(json.dumps(placed.geojson, indent=1, ensure_ascii=False) + "\n", "utf-8")
    left = f", {len(placed.skipped)} skipped" if placed.skipped else ""
    click.echo(f"{out}: {counted(count, 'point')}{left}")
    return 0
