"""`georetrieval index`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bevgen.commands import EXIT_FAILED
from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options

if TYPE_CHECKING:
    from georetrieval.retrieval.index import Index


@click.command("index", help=COMMANDS["index"])
@click.option(
    "-o", "--out", type=options.PATH, required=True, metavar="INDEX", help="The index: a folder."
)
@options.run
@click.option(
    "--references",
    type=options.PATH,
    multiple=True,
    metavar="FILE",
    help="Shards of satellite or map tiles with positions; may be repeated.",
)
@click.option("--add", is_flag=True, help="Add --references to an index that is there.")
@click.option(
    "--remove",
    type=options.PATH,
    metavar="FILE",
    help="Take out the tiles whose ids the file lists, one a line.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Of the panorama branch's similarity; the rest is the BEV branch's.",
)
@click.option(
    "--resolution",
    type=click.FloatRange(0, min_open=True),
    metavar="M",
    help="Metres per pixel of the stored tiles, where --references do not say it.",
)
@click.option(
    "--approximate/--exact",
    default=None,
    help="How to search.  [default: exactly up to a million tiles]",
)
@click.option("--overwrite", is_flag=True, help="Replace the index that is there.")
@click.option("--verify", is_flag=True, help="Check every byte of the index that is there.")
@options.device
@click.option("--json", "as_json", is_flag=True, help="Print what the index holds as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool, **given: Any) -> int:
    """Make an index of reference tiles, add to it, remove from it, or check it."""
    from georetrieval.retrieval.index import Index

    out: Path = given["out"]
    said = context.get_parameter_source("run") is not click.core.ParameterSource.DEFAULT
    if given["verify"]:
        damaged = Index(out).verify()
        for line in damaged:
            click.echo(line)
        click.echo(f"{out}: {len(damaged)} damaged" if damaged else f"{out} is sound")
        return EXIT_FAILED if damaged else 0
    index = _change(said=said, **given)
    header = index.header
    if as_json:
        about = {
            "index": str(out),
            "tiles": len(index),
            "removed": len(header.removed),
            "kind": header.tiles.kind,
            "size": header.tiles.size,
            "resolution": header.tiles.resolution,
            "dimension": header.model.dimension,
            "checkpoints": header.model.checkpoints,
            "run": str(index.run),
            "approximate": bool(header.approximate),
        }
        click.echo(json.dumps(about, indent=2))
        return 0
    scale = f" of {header.tiles.resolution:g} m a pixel" if header.tiles.resolution else ""
    way = "approximately" if header.approximate else "exactly"
    click.echo(
        f"{out}: {counted(len(index), f'{header.tiles.kind} tile')}{scale}, vectors of"
        f" {header.model.dimension:,} numbers, searched {way}"
    )
    return 0


def _change(
    *,
    out: Path,
    run: Path,
    said: bool,
    references: tuple[Path, ...],
    add: bool,
    remove: Path | None,
    weight: float,
    resolution: float | None,
    approximate: bool | None,
    overwrite: bool,
    device: str,
    **_: Any,
) -> Index:
    """Do what the options ask for."""
    from rich.console import Console
    from rich.progress import Progress

    from georetrieval.errors import DataError, SettingsError
    from georetrieval.retrieval.index import Index, add_references, build_index, remove_tiles
    from georetrieval.training.processes import join_processes

    if remove is not None:
        try:
            ids = [line for line in remove.read_text("utf-8-sig").splitlines() if line]
        except UnicodeDecodeError as error:
            raise DataError(f"{remove} is no text in UTF-8: {error}") from error
        index = remove_tiles(out, ids)
        if not references:
            return index
    if not references and approximate is None:
        if out.exists():
            return Index(out)
        raise SettingsError("name the tiles with --references, such as satellite.h5")
    where = join_processes(device).device
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def on_progress(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total)
            progress.update(tasks[title], completed=done)

        if add or not references:
            return add_references(
                out,
                references,
                run=run if said else None,
                resolution=resolution,
                approximate=approximate,
                device=where,
                on_progress=on_progress,
            )
        return build_index(
            run,
            references,
            out,
            weight=weight,
            resolution=resolution,
            approximate=approximate,
            overwrite=overwrite,
            device=where,
            on_progress=on_progress,
        )
