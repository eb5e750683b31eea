"""`bevgen verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bevgen.cli import COMMANDS, options
from bevgen.commands import EXIT_FAILED
from bevgen.terminal import counted


@click.command("verify", help=COMMANDS["verify"])
@options.shard_file
@options.as_json
def command(path: Path, as_json: bool) -> int:
    """Check every image, checksum and table of a shard file."""
    from bevgen.cli.progress import progress_bar
    from bevgen.shards import verify

    with progress_bar("verifying") as on_progress:
        report = verify(path, on_progress=on_progress)
    if as_json:
        result = {"rows": report.rows, "shards": report.shards, "problems": list(report.problems)}
        click.echo(json.dumps(result, indent=2))
    elif report.shards:
        for problem in report.problems:
            click.echo(problem)
    if not report.shards:  # there is no such file, or none that could be looked into
        click.echo(f"Error: {report.problems[0]}", err=True)
        return EXIT_FAILED
    if report.problems:
        click.echo(f"Error: {path} is damaged (problems: {len(report.problems)})", err=True)
        return EXIT_FAILED
    if not as_json:
        sound = counted(report.rows, "image is sound", "images are sound")
        every = "all " if report.rows > 1 else ""
        click.echo(f"{path}: {every}{sound} (shard files: {report.shards:,})")
    return 0
