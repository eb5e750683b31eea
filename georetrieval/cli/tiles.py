"""`georetrieval tiles`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from bevgen.commands import EXIT_INTERRUPTED, TYPED
from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options
from georetrieval.errors import MapError


@click.command("tiles", help=COMMANDS["tiles"])
@click.option(
    "--source",
    type=TYPED,
    required=True,
    metavar="MAP",
    help="GeoTIFF, COG or VRT, a folder of them, an .mbtiles file, or files of a web map such as"
    ' "xyz/{z}/{x}/{y}.png".',
)
@click.option(
    "-o", "--out", type=options.PATH, required=True, metavar="FILE", help="The shards to write."
)
@click.option("--resolution", type=float, default=0.2, show_default=True, help="Metres per pixel.")
@click.option("--size", type=int, default=384, show_default=True, help="Pixels on a side.")
@click.option(
    "--step", type=float, default=25.0, show_default=True, help="Metres between tiles' centres."
)
@click.option(
    "--area",
    type=options.PATH,
    metavar="GEOJSON",
    help="Only tiles with their centre in these polygons.",
)
@click.option(
    "--kind", type=click.Choice(["satellite", "map"]), default="satellite", show_default=True,
    help="What the map shows.",
)  # fmt: skip
@click.option(
    "--least-data",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Leave out tiles of which the map shows less than this share.",
)
@click.option("--overwrite", is_flag=True, help="Replace what the output holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    source: str,
    out: Path,
    resolution: float,
    size: int,
    step: float,
    area: Path | None,
    kind: str,
    least_data: float,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Cut a map into reference tiles: north up, of one scale on the ground."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    try:
        from bevgen import ShardSet
        from georetrieval.data.tiles import TileSettings, make_tiles
        from georetrieval.data.tiles.making import SHOWS
    except ModuleNotFoundError as error:
        raise MapError(f'cutting maps needs {error.name}: pip install "bevgen[geo]"') from error

    settings = TileSettings(resolution, size, step, kind, least_data)
    console = Console(stderr=True)
    silent = quiet or not console.is_terminal
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            task = progress.add_task("cutting tiles", total=None)

            def on_progress(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            written = make_tiles(
                source, out, settings, area=area, overwrite=overwrite, on_progress=on_progress
            )
    except KeyboardInterrupt:
        again = shlex.join(["georetrieval", *sys.argv[1:]])
        click.echo(f"Interrupted. To go on: {again.replace(' --overwrite', '')}", err=True)
        return EXIT_INTERRUPTED
    if as_json:
        about = {"out": str(out), "tiles": written.rows, "left_out": written.failures}
        click.echo(json.dumps({**about, "made": written.made}))
        return 0
    with ShardSet(out) as shards:
        unread = [one for one in shards.failures if not one.reason.startswith(SHOWS)]
    empty = written.failures - len(unread)
    left = f", {counted(empty, 'place')} with too little data left out" if empty else ""
    click.echo(
        f"{out}: {counted(written.rows, 'tile')} of {size} pixels, {resolution:g} m each,"
        f" {size * resolution:.1f} m across{left}"
    )
    if unread:
        click.echo(
            f"{counted(len(unread), 'place')} could not be cut: {unread[0].reason}\n"
            f"all of them: bevgen info {out} --failures",
            err=True,
        )
    return 0
