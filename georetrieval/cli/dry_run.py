"""What `train --dry-run` and `recipes NAME --dry-run` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.terminal import counted

if TYPE_CHECKING:
    from georetrieval.config import BranchName, OptimSettings, Settings
    from georetrieval.training.forecast import Forecast

GB = 1e9


def print_forecast(
    settings: Settings, root: Path | None, branches: Sequence[BranchName] | None, pairs: int | None
) -> None:
    """Print what a run of the settings will do and need, branch by branch."""
    from georetrieval.training.forecast import forecast

    data = settings.data
    click.echo(
        f"heading {data.heading}, field of view {data.fov:g} degrees; nothing is read or written"
        " but the shards' headers and pairs"
    )
    for one in forecast(settings, root, branches=branches, pairs=pairs):
        _print_branch(one, settings.branches()[one.branch].optim)
    click.echo(
        "Memory is an estimate, from a step on tensors without data: a GPU takes somewhat more."
    )


def _print_branch(one: Forecast, optim: OptimSettings) -> None:
    from georetrieval.training.forecast import sparkline

    click.echo(f"\n{one.branch}: {one.encoder}, {one.parameters:,} parameters")
    sizes = ", ".join(f"{role} {h}x{w}" for role, (h, w) in one.sizes.items())
    click.echo(f"  images         {sizes} (height x width in the network)")
    if one.steps is None or one.pairs is None:
        click.echo("  steps          unknown without the data: say how many pairs with --pairs")
    else:
        click.echo(
            f"  steps          {counted(one.pairs, 'pair makes', 'pairs make')}"
            f" {counted(one.steps, 'batch', 'batches')} of {one.batch_size:,} an epoch,"
            f" {one.steps * one.epochs:,} in {counted(one.epochs, 'epoch')}"
        )
    click.echo(
        f"  learning rate  {sparkline(optim)}  up to {optim.learning_rate:g} until epoch"
        f" {optim.warmup_epochs:g}, then to 0 by a cosine"
    )
    if one.obstacle:
        click.echo(f"  weights        CANNOT BE HAD, training would stop: {one.obstacle}")
    memory = one.memory
    click.echo(
        f"  memory         {memory.total / GB:.1f} GB: weights {memory.weights / GB:.2f},"
        f" gradients {memory.gradients / GB:.2f}, AdamW {memory.optimizer / GB:.2f},"
        f" a batch in {optim.precision} {memory.step / GB:.1f} ({memory.pair / GB:.3f} a pair)"
    )
