"""`bevgen pack`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from bevgen.cli import COMMANDS, options


class ImageSize(click.ParamType):
    """``384`` or ``140x768``: height x width."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
        if match is None:
            self.fail(
                f"{value!r} is neither N nor HEIGHTxWIDTH, such as 384 or 140x768", param, ctx
            )
        return int(match[1]), int(match[2] or match[1])


@click.command("pack", help=COMMANDS["pack"])
@options.input_folder("images (JPEG, PNG, WebP, TIFF)")
@options.output("The HDF5 file to write; large ones get a folder of shards beside it.")
@click.option(
    "--kind",
    type=click.Choice(["satellite", "map", "panorama", "drone"]),
    required=True,
    help="What the images are.",
)
@click.option(
    "--size",
    type=ImageSize(),
    required=True,
    metavar="N|HxW",
    help="Pixels of each stored image, height x width; others are resized (Lanczos).",
)
@click.option(
    "--turn-to-north", is_flag=True,
    help="Roll the columns of whole panoramas by their headings (--poses, file, file name), so that"
    " the centre looks north. One of unknown heading stays as it is.",
)  # fmt: skip
@options.inputs
@options.running
def command(
    root: Path, out: Path, kind: str, size: tuple[int, int], turn_to_north: bool, **run: Any
) -> int:
    """Store satellite, map, panorama or drone images as shards of one size."""
    from bevgen.cli.running import run_command
    from bevgen.conversion.settings import ImageSettings

    return run_command(root, out, lambda: ImageSettings(kind, *size, turn_to_north), **run)
