"""The command `georetrieval`: parse, call the library, print. Results to stdout, talk to stderr.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but a place was not found (`locate`);
130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

import georetrieval
from bevgen import BevgenError
from georetrieval.errors import GeoretrievalError, SettingsError

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
EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 130


class LazyGroup(click.Group):
    """Imports a command's module when it is called, so that help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"georetrieval.cli.{cmd_name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(georetrieval.__version__, prog_name="georetrieval")
def georetrieval_command() -> None:
    """Find where a street panorama was taken, by matching it to satellite tiles.

    georetrieval train --data city/
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and exit; see the module for exit codes."""
    try:
        code = georetrieval_command.main(args, prog_name="georetrieval", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    except SettingsError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_USAGE
    except (GeoretrievalError, BevgenError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_FAILED
    sys.exit(code)
