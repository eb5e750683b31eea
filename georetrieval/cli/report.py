"""`georetrieval report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from georetrieval.cli import COMMANDS, options
from georetrieval.errors import DataError

if TYPE_CHECKING:
    from georetrieval.retrieval.results import Evaluation


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
    from georetrieval.data.dataset import Dataset
    from georetrieval.report import write_report
    from georetrieval.run import Run

    made = Run(run)
    dataset = Dataset(made.read_settings().data, root)
    # The split that is called test is the headline.
    evaluations = {name: _load(path) for name, path in made.evaluations().items()}
    out = out or made.report_path
    write_report(made, dataset, list(evaluations.values()), out, names=list(evaluations))
    count = len(evaluations)
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {count} evaluation{'s' if count != 1 else ''};"
        " open it in a browser"
    )


def _load(path: Path) -> Evaluation:
    from georetrieval.retrieval.results import Evaluation

    try:
        return Evaluation.load(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not an evaluation that this version can read ({error}): delete it, or"
            " evaluate again"
        ) from error
