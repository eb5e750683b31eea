"""The command `bevgen`: parse, call the library, print. Results go to stdout, talk to stderr."""

from __future__ import annotations

from collections.abc import Sequence

import click

from bevgen._version import __version__
from bevgen.commands import CONTEXT, LazyGroup, run
from bevgen.errors import BevgenError, InputError

HELP = """Street panoramas to bird's-eye views, in batches, as HDF5 shards.

bevgen convert --in streetview/ --out bev.h5 --height 2.0
"""
COMMANDS = {
    "convert": "Turn a folder of panoramas into bird's-eye views.",
    "pack": "Store satellite, map, panorama or drone images as shards of one size.",
    "warmup": "Compile what is compiled at the first use, for images of containers.",
    "presets": "List what is known of public datasets, from whom, and how sure it is.",
    "preview": "Draw one panorama, its bird's-eye view and mask, to check the settings.",
    "mask": "Find the camera's car and caps over the nadir, which hide the street.",
    "level": "Find pitch and roll of panoramas from upright edges or the horizon.",
    "calibrate": "Find camera height, heading and horizon from satellite tiles.",
    "ground": "Find latitude and longitude of points in panoramas, and how sure that is.",
    "mosaic": "Put the panoramas of a street together to one map of its ground.",
    "info": "Show what a shard file holds.",
    "verify": "Check every image, checksum and table of a shard file.",
    "merge": "Make one portable file of an index and its shards.",
    "export": "Write the images of a shard file as PNG, JPEG or GeoTIFF files.",
}


@click.group(
    cls=LazyGroup, package="bevgen.cli", about=COMMANDS, help=HELP, context_settings=CONTEXT
)
@click.version_option(__version__, prog_name="bevgen")
def bevgen_command() -> None:
    """Run one of `COMMANDS`."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and exit; see `bevgen.commands` for exit codes."""
    run(bevgen_command, args, "bevgen", usage=(InputError,), failed=(BevgenError, OSError))
