"""`bevgen info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bevgen.cli import COMMANDS, options


@click.command("info", help=COMMANDS["info"])
@options.shard_file
@click.option("--rows", is_flag=True, help="List every row: id, source and pose, tab-separated.")
@click.option("--failures", is_flag=True, help="List every image set aside: source and reason.")
@options.as_json
def command(path: Path, rows: bool, failures: bool, as_json: bool) -> None:
    """Show what a shard file holds."""
    from bevgen.shards import ShardSet

    with ShardSet(path) as shards:
        if failures:
            for failure in shards.failures:
                click.echo(f"{failure.source}\t{failure.reason}")
        elif rows:
            _print_rows(shards)
        elif as_json:
            click.echo(json.dumps(_summary(path, shards), indent=2))
        else:
            for key, value in _summary(path, shards).items():
                click.echo(f"{key + ':':18} {_text(value)}")


def _summary(path: Path, shards: Any) -> dict[str, Any]:
    import numpy as np

    from bevgen.shards import COLUMNS, read_header

    header = read_header(shards.path)
    height, width, channels = shards.image_shape
    return {
        "file": str(path),
        "kind": shards.kind,
        "images": len(shards),
        "image shape": list(shards.image_shape),
        "bytes": len(shards) * height * width * channels,
        "shard files": len(header.files) or 1,
        "set aside": len(shards.failures),
        "known": {name: int(np.count_nonzero(~np.isnan(shards.columns[name]))) for name in COLUMNS},
        "settings": dict(shards.settings),
        "plan": header.plan,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {'-' if v is None else v}" for key, v in value.items())
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print_rows(shards: Any) -> None:
    from bevgen.shards import COLUMNS

    click.echo("\t".join(("id", "source", *COLUMNS, "date")))
    for i, (name, source) in enumerate(zip(shards.ids, shards.sources, strict=True)):
        values = (shards.columns[column][i] for column in COLUMNS)
        cells = ["" if value != value else f"{value:.10g}" for value in values]
        click.echo("\t".join((name, source, *cells, shards.columns["date"][i])))
