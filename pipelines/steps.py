"""What the steps of the public datasets' pipelines have in common, and the options of all.

Each step prints the commands that it runs, and goes on where an earlier call of it stopped.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click

from bevgen.cli.options import F, all_of
from bevgen.commands import PATH
from bevgen.errors import BevgenError, InputError
from bevgen.tables import Pair, read_pairs, read_poses
from bevgen.terminal import counted
from pipelines import commands
from pipelines.commands import Images, Size
from pipelines.datasets import PAIRS


def images(root: Path, out: Path, view: str) -> Images:
    """Return a view's images, as the step poses has listed them."""
    return Images(root, poses=out / f"{view}.csv", list=out / f"{view}.txt")


def pack(root: Path, out: Path, sizes: Mapping[str, Size], *, to_north: bool = False) -> None:
    """Store each view's images at the network's size; panoramas turned to the north or not."""
    for view, size in sizes.items():
        turned = to_north and view == "panorama"
        shards = out / f"{view}.h5"
        commands.pack(images(root, out, view), shards, kind=view, size=size, turn_to_north=turned)


def neighbours(
    data: Path,
    recipe: str,
    settings: Sequence[str] = (),
    pairs: str = PAIRS,
    positions: Path | None = None,
) -> None:
    """Store which training places are near each other; not where some are unknown.

    ``positions`` is a table in place of the shards' own; ``pairs`` as for `train`.
    """
    if positions is None:
        trained = queries_of(data / pairs, "train")
        if unknown := len(trained - _located(data / "panorama.csv")):
            print(
                f"\nno neighbours: {counted(unknown, 'training place has', 'training places have')}"
                " no position"
            )
            return
    elif not positions.exists():
        raise InputError(f"{positions} does not exist: run the step poses first")
    commands.neighbours(data, recipe=recipe, settings=settings, positions=positions)


def _located(table: Path) -> set[str]:
    """Return the ids of the images whose position is known."""
    return {row.id or row.file for row in read_poses(table).values() if row.latitude is not None}


def train(
    data: Path,
    recipe: str,
    folder: Path,
    settings: Sequence[str],
    pairs: str = PAIRS,
    published: str = "test",
) -> None:
    """Train by a recipe, or go on with what an earlier call began.

    Where ``pairs``, which the recipe or the settings name too, holds no places out, the split
    ``published`` validates, as in the published code.
    """
    if "val" not in splits_of(data / pairs):
        settings = [f"data.validation_split={published}", *settings]
    commands.train(data, folder, recipe=recipe, settings=settings)


def splits_of(path: Path) -> set[str]:
    """Return the splits that a file of pairs has queries of; raises as `queries_of`."""
    return {pair.split or "" for pair in _positives(path)}


def queries_of(path: Path, split: str) -> set[str]:
    """Return the queries of a split.

    Raises
    ------
    InputError
        If the file of pairs is not there.
    """
    return {pair.query for pair in positives_of(path, split)}


def positives_of(path: Path, split: str) -> list[Pair]:
    """Return each query of a split with its tile; raises as `queries_of`."""
    return [pair for pair in _positives(path) if pair.split == split]


def _positives(path: Path) -> Iterator[Pair]:
    if not path.exists():
        raise InputError(f"{path} does not exist: run the step poses first")
    return (pair for pair in read_pairs(path) if pair.role == "positive")


def options(steps: Sequence[str]) -> Callable[[F], F]:
    """Take the options that all pipelines have."""
    return all_of(
        click.option("--root", type=PATH, required=True, help="The dataset's folder."),
        click.option("--out", type=PATH, required=True, help="Folder for all that is made."),
        click.option(
            "--step",
            "chosen",
            multiple=True,
            type=click.Choice(steps),
            help="Do this step alone; may be repeated.  [default: all]",
        ),
        click.option("--limit", type=click.IntRange(2), help="Queries of each split, for a trial."),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe."
        ),
    )


def take_hold_out(default: float) -> Callable[[F], F]:
    """Take ``--hold-out``."""
    return click.option(
        "--hold-out",
        "share",
        type=click.FloatRange(0, 0.5),
        default=default,
        show_default=True,
        help="Part of the training places that chooses the weights; 0: a test does, as was done.",
    )


take_height = click.option(
    "--height",
    type=click.FloatRange(0, min_open=True),
    metavar="METRES",
    help="Of the camera; overrides preset and calibration.  [default: by the step calibrate where"
    " there is one and it is sure, else by the preset]",
)


def _split(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}: {value}") from None
    if any(word.split("=")[0] == "--height" for word in words):
        raise click.BadParameter("the height is an option of its own here: --height METRES")
    return words


take_convert = click.option(
    "--convert",
    "convert_options",
    default="",
    callback=_split,
    metavar="OPTIONS",
    help='More options of bevgen convert, such as "--pitch 0.5"; they override ours.',
)


def carry_out(steps: Mapping[str, Callable[[], None]], chosen: Sequence[str]) -> None:
    """Run the chosen steps in their order, or all; a user's mistake ends with its message."""
    try:
        for name, step in steps.items():
            if name in chosen or not chosen:
                step()
    except (BevgenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
