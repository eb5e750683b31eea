"""`georetrieval neighbours`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options


@click.command("neighbours", help=COMMANDS["neighbours"])
@options.data
@options.recipe
@options.overrides
@click.option("--split", metavar="NAME", help="Of the pairs.  [default: the training split]")
@click.option(
    "--pool",
    type=click.IntRange(min=1),
    metavar="N",
    help="Neighbours of each place.  [default: what the recipe looks at]",
)
@click.option(
    "--positions",
    type=options.PATH,
    metavar="FILE.csv",
    help="Columns id, latitude, longitude, or id, easting, northing in metres (straight distances,"
    " for UTM).  [default: the positions in the shards]",
)
def command(
    root: Path,
    recipe: str | None,
    overrides: tuple[str, ...],
    split: str | None,
    pool: int | None,
    positions: Path | None,
) -> None:
    """Store which places are near each other, for training's first batches."""
    import numpy as np

    from georetrieval.data.dataset import Dataset
    from georetrieval.data.neighbours import store_neighbours

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = options.recipe_settings(root, recipe, overrides)
    dataset = Dataset(settings.data, settings.data.root or root)
    path, found = store_neighbours(settings, dataset, split=split, pool=pool, positions=positions)
    places, count = found.rows.shape
    text = f"{path}: {counted(count, 'neighbour')} of each of {counted(places, 'place')}"
    if count:
        near, far = (float(np.median(found.metres[:, rank])) for rank in (0, count - 1))
        text += f"; the nearest at {near:,.0f} m, the last at {far:,.0f} m, by the median"
    click.echo(text)
