"""`georetrieval serve`."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import click

from bevgen.commands import importing
from bevgen.terminal import counted
from georetrieval.cli import COMMANDS, options
from georetrieval.errors import IndexFileError, SettingsError

LOCAL = ("127.0.0.1", "localhost", "::1")


def as_in_urls(name: str) -> str:
    """Write the name or address of a host as URLs do, IPv6 in brackets.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        if not re.fullmatch(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*", name):
            raise SettingsError(
                "--allow-host takes a name or an address alone, such as map.example.org, not"
                f" {name!r}"
            ) from None
        return name
    return f"[{address}]" if address.version == 6 else str(address)


@click.command("serve", help=COMMANDS["serve"])
@click.option(
    "--index", "where", type=options.PATH, required=True, metavar="INDEX", help="Where to look."
)
@options.index_run
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Where to listen; 0 for any that is free.",
)
@click.option(
    "--host",
    default=LOCAL[0],
    show_default=True,
    metavar="ADDRESS",
    help="Of this computer; others than its own let others in.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name under which others reach the page; may be repeated.",
)
@click.option(
    "--max-megabytes", type=click.IntRange(1), default=64, show_default=True, help="Of a photo."
)
@options.device
def command(
    where: Path,
    run: Path | None,
    port: int,
    host: str,
    allow_host: tuple[str, ...],
    max_megabytes: int,
    device: str,
) -> None:
    """Show a page on which photos are located."""
    with importing():
        try:
            import uvicorn

            from georetrieval.serve import create_app, listen
        except ModuleNotFoundError as error:
            raise SettingsError(
                f'the page needs {error.name}: pip install "bevgen[serve]"'
            ) from error
        from georetrieval.localization import Locator
        from georetrieval.training.processes import join_processes

    if host not in LOCAL and not allow_host:
        raise SettingsError(
            f"--host {host} lets others in: say with --allow-host under which name or address they"
            " reach this computer"
        )
    names = [as_in_urls(name) for name in (*allow_host, *LOCAL)]
    with listen(host, port) as listening:
        locator = Locator(where, run=run, device=join_processes(device).device)
        if not len(locator.index):
            raise IndexFileError(f"{where} holds no tiles any more: add some with index --add")
        app = create_app(locator, hosts=names, max_bytes=max_megabytes * 1_000_000)
        shown = names[0] if allow_host else as_in_urls(host)
        address = f"http://{shown}:{listening.getsockname()[1]}"
        tiles = counted(len(locator.index), "tile")
        click.echo(f"{address} shows {tiles}; stop it with Ctrl-C")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])
