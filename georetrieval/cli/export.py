"""`georetrieval export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options
from georetrieval.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from georetrieval.config import BranchName


@click.command("export", help=COMMANDS["export"])
@click.argument("run", type=options.PATH, metavar="RUN")
@click.option(
    "--branch", type=click.Choice(["panorama", "bev"]), required=True, help="Which encoder."
)
@click.option(
    "--to",
    "out",
    type=options.PATH,
    required=True,
    metavar="FILE",
    help="A .safetensors file, with the tensors' names of timm; or an .onnx graph.",
)
@click.option(
    "--input-size",
    type=options.SIZE,
    help="Of an ONNX graph's images.  [default: the branch's, if it is one for both]",
)
def command(run: Path, branch: BranchName, out: Path, input_size: tuple[int, int] | None) -> None:
    """Write a branch's encoder for other software, as safetensors or ONNX."""
    from bevgen.writing import check_output
    from georetrieval.models.exchange import TOLERANCE, export_onnx, export_safetensors
    from georetrieval.run import Run

    check_output(out, overwrite=True)
    checkpoint = Run(run).checkpoint(branch)
    if not checkpoint.exists():
        raise CheckpointError(f"{run} holds no weights of the branch {branch}: train it first")
    if out.suffix == ".safetensors":
        if input_size:
            raise SettingsError("--input-size is for .onnx; tensors take images of any size")
        if out.resolve() == checkpoint.resolve():
            raise SettingsError(f"--to {out} is the checkpoint itself: name another file")
        count = export_safetensors(checkpoint, out)
        click.echo(f"{out}: {counted(count, 'tensor')}, {out.stat().st_size / 1e6:.1f} MB")
    elif out.suffix == ".onnx":
        size = input_size or _own_size(checkpoint)
        difference = export_onnx(checkpoint, out, size)
        click.echo(
            f"{out}: images (batch, 3, {size[0]}, {size[1]}), RGB in 0 to 1;"
            f" {out.stat().st_size / 1e6:.1f} MB"
        )
        click.echo(
            f"ONNX Runtime gives the same embeddings: largest difference {difference:.1e}"
            f" (allowed: {TOLERANCE:g})"
        )
    else:
        raise SettingsError(f"--to {out}: the file's name must end in .safetensors or .onnx")


def _own_size(checkpoint: Path) -> tuple[int, int]:
    from georetrieval.models.checkpoints import load_branch

    _, encoder, _ = load_branch(checkpoint)
    sizes = {encoder.query_size, encoder.reference_size}
    size = sizes.pop()
    if sizes or size is None:
        raise SettingsError(
            "the branch's queries and references differ in size: say which the graph takes with"
            " --input-size, such as 384x384"
        )
    return size
