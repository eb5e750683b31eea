"""`georetrieval train`."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen import WriteError
from bevgen.commands import EXIT_INTERRUPTED
from georetrieval.cli import COMMANDS, options
from georetrieval.errors import SettingsError

if TYPE_CHECKING:
    from georetrieval.config import BranchName


@click.command("train", help=COMMANDS["train"])
@options.data
@options.recipe
@options.overrides
@click.option(
    "--branch",
    "branches",
    multiple=True,
    type=click.Choice(["panorama", "bev"]),
    help="Train this branch only.",
)
@options.run
@options.device
@options.dry_run
@options.pairs
@click.option("--resume", is_flag=True, help="Continue the run where it stopped.")
@click.option("--tensorboard", is_flag=True, help="Also write figures for TensorBoard.")
@click.option("--wandb", is_flag=True, help="Also send figures to Weights & Biases.")
def command(
    root: Path,
    recipe: str | None,
    overrides: tuple[str, ...],
    branches: tuple[BranchName, ...],
    run: Path,
    device: str,
    dry_run: bool,
    pairs: int | None,
    resume: bool,
    tensorboard: bool,
    wandb: bool,
) -> int:
    """Train the branches of a recipe on a folder of shards."""
    from rich.console import Console
    from rich.logging import RichHandler

    from georetrieval.cli.dry_run import print_forecast
    from georetrieval.cli.training_view import TrainingView
    from georetrieval.run import Run
    from georetrieval.training.loop import train
    from georetrieval.training.processes import join_processes

    console = Console(stderr=True, highlight=False)
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("georetrieval").setLevel(logging.INFO)
    settings = options.recipe_settings(root, recipe, overrides)
    folder = settings.data.root or root
    if dry_run:
        print_forecast(settings, folder, branches or None, pairs)
        return 0
    if pairs is not None:
        raise SettingsError("--pairs goes with --dry-run: training counts them itself")
    processes = join_processes(device)
    try:
        with TrainingView(console, shown=processes.first) as view:
            train(
                settings,
                folder,
                run,
                branches=list(branches) or None,
                resume=resume,
                processes=processes,
                tensorboard=tensorboard,
                wandb=wandb,
                watcher=view,
            )
    except WriteError as error:
        way_on = "continue with" if Run(run).states() else "give"
        resume_flag = " and --resume" if Run(run).states() else ""
        raise WriteError(
            f"{error}. What was saved before is whole: make room or mend the cause, then {way_on}"
            f" the same command{resume_flag}"
        ) from error
    except KeyboardInterrupt:
        if not Run(run).states():
            console.print(
                "Interrupted before there was anything to save: start again by the same command."
            )
            return EXIT_INTERRUPTED
        console.print("Interrupted; the state is saved. Continue with the same command and:")
        console.print("  --resume")
        return EXIT_INTERRUPTED
    if processes.first:
        click.echo(f"{run}: trained. Next: georetrieval evaluate --run {shlex.quote(str(run))}")
    return 0
