"""`bevgen presets`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from bevgen.cli import COMMANDS, options
from bevgen.presets import CONFIDENCE, PRESETS, Preset

UNITS = {
    "height": "m",
    "resolution": "m per pixel",
    "satellite": "m per pixel",
    "heading": "degrees",
    "vertical_fov": "degrees",
    "compat": "",
}


@click.command("presets", help=COMMANDS["presets"])
@click.argument("names", metavar="[NAME]...", type=click.Choice(list(PRESETS)), nargs=-1)
@options.as_json
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List the presets: each number, how sure it is, and where it is from."""
    chosen = {name: PRESETS[name] for name in names or PRESETS}
    if as_json:
        click.echo(
            json.dumps({name: _to_json(preset) for name, preset in chosen.items()}, indent=2)
        )
        return
    for name, preset in chosen.items():
        click.echo(f"{name}: {preset.size} x {preset.size} pixels")
        for key, source in preset.sources.items():
            said = f"{_value(getattr(preset, key))} {UNITS[key]}".strip()
            click.echo(f"  {key:13} {said:22} {source.confidence}: {source.text}")
    click.echo()
    for word, meaning in CONFIDENCE.items():
        click.echo(f"{word}: {meaning}")
    click.echo("bevgen calibrate finds height over resolution from your own panoramas and tiles.")


def _value(value: Any) -> str:
    if value is None:
        return "per panorama,"
    if isinstance(value, tuple):
        return " ".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _to_json(preset: Preset) -> dict[str, Any]:
    numbers = {
        key: {"value": getattr(preset, key), **asdict(source)}
        for key, source in preset.sources.items()
    }
    return {"size": preset.size, **numbers}
