"""`georetrieval recipes`."""

from __future__ import annotations

import click

from georetrieval.cli import COMMANDS, options
from georetrieval.errors import SettingsError


@click.command("recipes", help=COMMANDS["recipes"])
@click.argument("name", required=False)
@options.dry_run
@options.pairs
def command(name: str | None, dry_run: bool, pairs: int | None) -> None:
    """List the recipes, show one, or say what training by it takes."""
    from georetrieval.cli.dry_run import print_forecast
    from georetrieval.config import load_settings, recipes

    if (dry_run and name is None) or (pairs is not None and not dry_run):
        raise SettingsError("say the recipe: georetrieval recipes NAME --dry-run [--pairs N]")
    known = recipes()
    if name is None:
        for recipe, path in known.items():
            click.echo(f"{recipe:20} {load_settings(path).about}")
        return
    if name not in known:
        raise SettingsError(f"no recipe {name!r}; there are {', '.join(known)}")
    if not dry_run:
        click.echo(known[name].read_text("utf-8"), nl=False)
        return
    settings = load_settings(known[name])
    click.echo(settings.about)
    print_forecast(settings, None, None, pairs)
