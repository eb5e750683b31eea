"""`georetrieval report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from georetrieval.cli import COMMANDS, options
from georetrieval.errors import DataError

if TYPE_CHECKING:
    from georetrieval.retrieval.evaluation import Evaluation

PREFIX = "evaluation-"


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
    from georetrieval.report import write_report

    data = options.run_settings(run).data
    # The split that is called test is the headline.
    paths = sorted(
        run.glob(f"{PREFIX}*.json"), key=lambda path: (path.stem != f"{PREFIX}test", path.stem)
    )
    evaluations = [_load(path) for path in paths]
    names = [path.stem.removeprefix(PREFIX) for path in paths]
    out = out or run / "report.html"
    write_report(run, root or data.root or Path(), data, evaluations, out, names=names)
    count = len(paths)
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {count} evaluation{'s' if count != 1 else ''};"
        " open it in a browser"
    )


def _load(path: Path) -> Evaluation:
    from georetrieval.retrieval.evaluation import Evaluation

    try:
        return Evaluation.load(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not an evaluation that this version can read ({error}): delete it, or"
            " evaluate again"
        ) from error
