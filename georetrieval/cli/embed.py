"""`georetrieval embed`."""

from __future__ import annotations

from pathlib import Path

import click

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
@options.fov
@options.device
def command(shards: Path, checkpoint: Path, out: Path, fov: float | None, device: str) -> None:
    """Embed all images of a shard file with a trained branch."""
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from bevgen import ShardSet
    from georetrieval.models.checkpoints import checkpoint_hash, load_branch
    from georetrieval.retrieval.embedding import Embeddings, embed_rows
    from georetrieval.training.processes import join_processes

    branch, settings, kind = load_branch(checkpoint)
    where = join_processes(device).device
    images = ShardSet(shards)
    query = images.kind == kind
    if fov is not None and not query:
        raise SettingsError(f"--fov is for queries: {shards} holds {images.kind} images")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("embedding", total=len(images))
        matrix = embed_rows(
            branch.encoder.to(where),
            images,
            np.arange(len(images)),
            settings.query_size if query else settings.reference_size,
            device=where,
            kind=("panorama" if kind == "panorama" else "bev") if query else None,
            fov=fov or 360.0,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    positions = np.stack([images.columns["latitude"], images.columns["longitude"]], axis=1)
    Embeddings(list(images.ids), matrix.cpu().numpy(), positions, checkpoint_hash(checkpoint)).save(
        out
    )
    click.echo(f"{out}: {matrix.shape[0]:,} embeddings of {matrix.shape[1]:,} numbers")
