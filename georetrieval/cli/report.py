"""`georetrieval report`."""

from __future__ import annotations

from pathlib import Path

import click

from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options


@click.command("report", help=COMMANDS["report"])
@options.run
@click.option(
    "--data",
    "root",
    type=options.PATH,
    metavar="FOLDER",
    help="Where the shards lie now, if they were moved.",
)
@click.option(
    "-o",
    "--out",
    type=options.PATH,
    metavar="FILE",
    help="The page to write.  [default: report.html in --run]",
)
def command(run: Path, root: Path | None, out: Path | None) -> None:
    """Write a run's curves, figures and matches as one HTML page."""
    from bevgen.writing import check_output
    from georetrieval.data.dataset import Dataset
    from georetrieval.report import write_report
    from georetrieval.run import Run

    if out is not None:
        check_output(out, overwrite=True)
    made = Run(run)
    out = write_report(made, Dataset(made.read_settings().data, root), out=out)
    count = len(made.evaluations())
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {counted(count, 'evaluation')};"
        " open it in a browser"
    )
