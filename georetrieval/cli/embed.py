"""`georetrieval embed`."""

from __future__ import annotations

from pathlib import Path

import click

from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options
from georetrieval.errors import SettingsError


@click.command("embed", help=COMMANDS["embed"])
@click.argument("shards", type=options.PATH, metavar="SHARDS")
@click.option(
    "--checkpoint", type=options.PATH, required=True, metavar="FILE", help="A branch's weights."
)
@click.option(
    "-o", "--out", type=options.PATH, required=True, metavar="FILE", help="The .npz file."
)
@click.option(
    "--as",
    "role",
    type=click.Choice(["query", "reference"]),
    help="What the images are to the branch.  [default: as the shards say]",
)
@options.fov
@options.device
def command(
    shards: Path, checkpoint: Path, out: Path, role: str | None, fov: float | None, device: str
) -> None:
    """Embed all images of a shard file with a trained branch."""
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from bevgen import ShardSet, only_writer
    from bevgen.writing import check_output
    from georetrieval.data.dataset import role_of
    from georetrieval.models.checkpoints import load_hashed
    from georetrieval.retrieval.embedding import Embeddings, embed_rows
    from georetrieval.training.processes import join_processes

    check_output(out, overwrite=True, reads=(shards, checkpoint))
    branch, settings, digest, kind = load_hashed(checkpoint)
    where = join_processes(device).device
    images = ShardSet(shards)
    query = (role or role_of(images, kind)) == "query"
    if fov is not None and not query:
        raise SettingsError(f"--fov is for queries: {shards} holds {images.kind} images")
    console = Console(stderr=True)
    silent = not console.is_terminal
    with only_writer(out), Progress(console=console, transient=True, disable=silent) as progress:
        task = progress.add_task("embedding", total=len(images))
        matrix = embed_rows(
            branch.encoder.to(where),
            images,
            np.arange(len(images)),
            settings.query_size if query else settings.reference_size,
            device=where,
            kind=kind if query else None,
            fov=fov or 360.0,
            on_progress=lambda done: progress.update(task, completed=done),
        )
        positions = np.stack([images.columns["latitude"], images.columns["longitude"]], axis=1)
        Embeddings(list(images.ids), matrix.cpu().numpy(), positions, digest).save(out)
    click.echo(f"{out}: {counted(matrix.shape[0], 'embedding')} of {matrix.shape[1]:,} numbers")
