"""`georetrieval confidence`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from georetrieval.cli import COMMANDS, options


@click.command("confidence", help=COMMANDS["confidence"])
@click.argument("photos", nargs=-1, required=True, type=options.PATH, metavar="PHOTO...")
@click.option(
    "--index", "where", type=options.PATH, required=True, metavar="INDEX", help="What to fit."
)
@options.index_run
@click.option(
    "--poses",
    type=options.PATH,
    metavar="CSV",
    help="Where and in which direction the photos were taken; overrides their metadata.",
)
@click.option(
    "--split",
    default=None,
    metavar="NAME",
    help="Only photos of this split of the run's pairs: one that training did not see.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0.5, 0.99),
    default=0.9,
    show_default=True,
    help="Share of places that the prediction set is to hold.",
)
@options.device
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    photos: tuple[Path, ...],
    where: Path,
    run: Path | None,
    poses: Path | None,
    split: str | None,
    coverage: float,
    device: str,
    quiet: bool,
) -> int:
    """Fit how sure an index's answers are, on photos of known places."""
    from rich.console import Console
    from rich.progress import Progress

    from georetrieval.data.dataset import Dataset
    from georetrieval.errors import SettingsError
    from georetrieval.localization import Locator, find_photos, fit_index
    from georetrieval.run import Run
    from georetrieval.training.processes import join_processes

    # Without the model that is there: it may be the damaged one that this is to replace.
    locator = Locator(where, run=run, device=join_processes(device).device, confidence={})
    ids = None
    if split is not None:
        model = Run.at(run or locator.index.run)
        branch = next(iter(model.checkpoints()))
        with Dataset(model.read_settings().data) as dataset:
            if dataset.pairs_path is None:
                raise SettingsError(f"--split: the data of {model} has no pairs that name splits")
            ids = set(dataset.pairs(branch, split).ids)
    asked = list(find_photos(photos, poses, ids=ids))
    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("fitting", total=len(asked))
        values = fit_index(
            locator,
            asked,
            coverage=coverage,
            on_skip=lambda path, reason: click.echo(f"skipped {path}: {reason}", err=True),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    click.echo(json.dumps(values, indent=2))
    return 0
