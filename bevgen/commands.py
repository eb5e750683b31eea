"""What the command lines of both packages share: commands imported when called, and exit codes.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, with more failures than --max-failures;
130 interrupted.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from bevgen import terminal

EXIT_FAILED, EXIT_USAGE, EXIT_FAILURES, EXIT_INTERRUPTED = 1, 2, 3, 130
CONTEXT = {"help_option_names": ["-h", "--help"]}


class _GivenPath(click.Path):
    """A path that was given: an empty one, as of a variable that is not set, would be here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty path; make others what is wanted."""
        if value == "":
            self.fail("it is empty; the folder that you are in is named .", param, ctx)
        return super().convert(value, param, ctx)


PATH = _GivenPath(path_type=Path)
TYPED = _GivenPath()
"""A path or a name, as text."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called, so that help is instant.

    Parameters
    ----------
    package
        Where the modules are, each of the command's name with its function ``command``.
    about
        A line of help for each command, in the order of use.
    """

    def __init__(self, *args: Any, package: str, about: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.package, self.about = package, about

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of use."""
        return list(self.about)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.about:
            return None
        return importlib.import_module(f"{self.package}.{cmd_name.replace('-', '_')}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.about.items()))


def run(
    group: click.Group,
    args: Sequence[str] | None,
    name: str,
    *,
    usage: tuple[type[Exception], ...],
    failed: tuple[type[Exception], ...],
) -> NoReturn:
    """Run a command line and exit.

    Parameters
    ----------
    group
        What to run.
    args
        Its words; None for those of the process.
    name
        Of the program.
    usage
        Errors that mean wrong usage.
    failed
        Errors that mean that something failed; looked at second.
    """
    terminal.prepare()
    try:
        _check_environment()
        code = group.main(args, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    except usage as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_USAGE
    except BrokenPipeError:  # the reader of stdout has seen enough
        terminal.drop_output()
        code = EXIT_FAILED
    except failed as error:
        click.echo(f"Error: {_sentence(error)}", err=True)
        code = EXIT_FAILED
    gc.freeze()  # the interpreter would look through all modules once more: a second with torch
    sys.exit(code)


@contextmanager
def importing() -> Iterator[None]:
    """Import without looking for garbage: what modules make stays, and looking takes a third."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _check_environment() -> None:
    """Refuse what would end Numba's import in a traceback, though no code of ours uses it."""
    threads = os.environ.get("NUMBA_NUM_THREADS")
    if threads is not None and not (threads.strip().isdecimal() and int(threads) > 0):
        raise click.UsageError(
            f"NUMBA_NUM_THREADS in the environment is {threads!r}: it must be 1 or more, or unset"
        )


def _sentence(error: Exception) -> str:
    """Say what the system refused, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
