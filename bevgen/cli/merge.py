"""`bevgen merge`."""

from __future__ import annotations

from pathlib import Path

import click

from bevgen.cli import COMMANDS, options
from bevgen.terminal import counted


@click.command("merge", help=COMMANDS["merge"])
@options.shard_file
@options.output("The one file to write.")
@options.overwrite
def command(path: Path, out: Path, overwrite: bool) -> None:
    """Make one portable file of an index and its shards."""
    from bevgen.cli.progress import progress_bar
    from bevgen.shards import merge, read_header

    with progress_bar("merging") as on_progress:
        merge(path, out, overwrite=overwrite, on_progress=on_progress)
    click.echo(f"{out}: {counted(read_header(out).rows, 'image')}")
