"""`bevgen warmup`."""

from __future__ import annotations

import time

import click

from bevgen.cli import COMMANDS


@click.command("warmup", help=COMMANDS["warmup"])
def command() -> None:
    """Compile what conversions need, so that no run has to."""
    import numpy as np

    from bevgen import to_chw
    from bevgen.compiling import cache_folder
    from bevgen.conversion.job import load_kernels

    start = time.monotonic()
    load_kernels("rows", "auto")
    to_chw(np.zeros((1, 1, 1, 3), np.uint8))
    click.echo(f"compiled in {time.monotonic() - start:.1f} s, kept in {cache_folder()}")
