"""`bevgen convert`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bevgen.cli import COMMANDS, options


@click.command("convert", help=COMMANDS["convert"])
@options.input_folder("panoramas (JPEG, PNG, WebP, TIFF)")
@options.output("The HDF5 file to write; large ones get a folder of shards beside it.")
@options.geometry
@options.inputs
@click.option(
    "--decoder", type=click.Choice(["auto", "rows", "pillow"]), default="auto", show_default=True,
    help="rows decodes of plain JPEG files only the rows that are needed; the pixels are the same."
    "  auto does so as soon as that has been compiled, in the background from 100 images on.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="cuda projects on a GPU; auto is the CPU.",
)  # fmt: skip
@options.running
def command(root: Path, out: Path, bev: options.BevOptions, **run: Any) -> int:
    """Turn a folder of panoramas into bird's-eye views."""
    from bevgen.cli.running import run_command

    with _without_scipy_linalg():
        return run_command(root, out, bev.settings, **run)


@contextmanager
def _without_scipy_linalg() -> Iterator[None]:
    """Spare the start a quarter of its time.

    Where SciPy is installed, Numba imports scipy.linalg only to learn whether compiled code could
    call BLAS. Ours never does; Numba takes a failed import for a no.
    """
    if "scipy.linalg" in sys.modules:
        yield
        return
    sys.modules["scipy.linalg"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules["scipy.linalg"]
