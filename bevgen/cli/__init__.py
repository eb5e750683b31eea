"""The command `bevgen`: parse, call the library, print. Results go to stdout, talk to stderr.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, with more failures than --max-failures;
130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

import bevgen
from bevgen.errors import BevgenError, InputError

COMMANDS = {
    "convert": "Turn a folder of panoramas into bird's-eye views.",
    "pack": "Store satellite, map, panorama or drone images as shards of one size.",
    "preview": "Draw one panorama, its bird's-eye view and mask, to check the settings.",
    "mask": "Find the camera's car and caps over the nadir, which hide the street.",
    "level": "Find pitch and roll of panoramas from what stands upright in them.",
    "calibrate": "Find camera height, heading and horizon from satellite tiles.",
    "info": "Show what a shard file holds.",
    "verify": "Check every image, checksum and table of a shard file.",
    "merge": "Make one portable file of an index and its shards.",
    "export": "Write the images of a shard file as PNG or JPEG files.",
}
EXIT_FAILED, EXIT_USAGE, EXIT_FAILURES, EXIT_INTERRUPTED = 1, 2, 3, 130


class LazyGroup(click.Group):
    """Imports a command's module when it is called, so that help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"bevgen.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bevgen.__version__, prog_name="bevgen")
def bevgen_command() -> None:
    """Street panoramas to bird's-eye views, in batches, as HDF5 shards.

    bevgen convert --in streetview/ --out bev.h5 --height 2.0
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and exit; see the module for exit codes."""
    try:
        code = bevgen_command.main(args, prog_name="bevgen", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        code = EXIT_USAGE
    except click.ClickException as error:
        error.show()
        code = EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_USAGE
    except BevgenError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_FAILED
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        code = EXIT_FAILED
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_FAILED
    sys.exit(code)
