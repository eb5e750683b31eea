"""The command `georetrieval`: parse, call the library, print. Results to stdout, talk to stderr.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but a photo was skipped or its place not found
(`locate`); 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import georetrieval
from bevgen import BevgenError, InputError
from bevgen.commands import CONTEXT, EXIT_USAGE, LazyGroup, run
from georetrieval.errors import GeoretrievalError, SettingsError

HELP = """Find where a street panorama was taken, by matching it to satellite tiles.

georetrieval train --data city/
"""
COMMANDS = {
    "train": "Train the branches of a recipe on a folder of shards.",
    "evaluate": "Search a split with each branch and with both; print and keep the figures.",
    "report": "Write a run's curves, figures and matches as one HTML page.",
    "embed": "Embed all images of a shard file with a trained branch.",
    "recipes": "List the recipes, show one, or say what training by it takes.",
    "neighbours": "Store which places are near each other, for training's first batches.",
    "import-weights": "Read weights that Sample4Geo or EP-BEV published into a run.",
    "tiles": "Cut a map (GeoTIFF, XYZ, MBTiles) into reference tiles.",
    "index": "Make an index of reference tiles that photos are located in.",
    "confidence": "Fit how sure an index's answers are, on photos of known places.",
    "locate": "Find where panoramas were taken.",
    "serve": "Show a page on which photos are located.",
    "export": "Write a branch's encoder for other software, as safetensors or ONNX.",
}
EXIT_NOT_FOUND = 3


@click.group(
    cls=LazyGroup, package="georetrieval.cli", about=COMMANDS, help=HELP, context_settings=CONTEXT
)
@click.version_option(georetrieval.__version__, prog_name="georetrieval")
def georetrieval_command() -> None:
    """Run one of `COMMANDS`."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and exit; see `bevgen.commands` for exit codes."""
    try:
        run(
            georetrieval_command,
            args,
            "georetrieval",
            usage=(SettingsError, InputError),
            failed=(GeoretrievalError, BevgenError, OSError),
        )
    except ModuleNotFoundError as error:  # bevgen was installed alone: this command came with it
        if (error.name or "").partition(".")[0] in ("", "bevgen", "georetrieval"):
            raise
        needed = f'georetrieval needs {error.name}: pip install "bevgen[georetrieval]"'
        click.echo(f"Error: {needed}", err=True)
        sys.exit(EXIT_USAGE)
