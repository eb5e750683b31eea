"""`georetrieval recipes`."""

from __future__ import annotations

import click

from georetrieval.cli import COMMANDS


@click.command("recipes", help=COMMANDS["recipes"])
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the recipes, or show one."""
    from georetrieval.config import load_settings, recipes
    from georetrieval.errors import SettingsError

    known = recipes()
    if name is None:
        for recipe, path in known.items():
            click.echo(f"{recipe:20} {load_settings(path).about}")
        return
    if name not in known:
        raise SettingsError(f"no recipe {name!r}; there are {', '.join(known)}")
    click.echo(known[name].read_text("utf-8"), nl=False)
