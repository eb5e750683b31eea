"""`bevgen info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bevgen.cli import COMMANDS, options

if TYPE_CHECKING:
    from bevgen.shards import ShardSet

LABELS = {
    "image_shape": "image shape",
    "shard_files": "shard files",
    "failures": "skipped",
    "unknown_headings": "heading unknown",
}
# One line a row, one cell a value, whatever file names hold; terminals are sent no commands.
ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {
    ord(character): escape
    for character, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
}


@click.command("info", help=COMMANDS["info"])
@options.shard_file
@click.option("--rows", is_flag=True, help="List every row: id, source and pose, tab-separated.")
@click.option("--failures", is_flag=True, help="List every image skipped: source and reason.")
@options.as_json
def command(path: Path, rows: bool, failures: bool, as_json: bool) -> None:
    """Show what a shard file holds."""
    from bevgen.shards import COLUMNS, ShardSet

    if rows and failures:
        raise click.UsageError("--rows and --failures are two lists: ask for one at a time")
    with ShardSet(path) as shards:
        if rows:
            found = _rows(shards)
        elif failures:
            found = [{"source": f.source, "reason": f.reason} for f in shards.failures]
        else:
            found = _summary(path, shards)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif isinstance(found, dict):
        for key, value in found.items():
            text = _known(value, found["images"]) if key == "known" else _text(value)
            click.echo(f"{LABELS.get(key, key) + ':':18} {text}")
    else:
        if rows:
            click.echo("\t".join(("id", "source", *COLUMNS, "date")))
        for row in found:
            click.echo("\t".join(map(_cell, row.values())))


def _summary(path: Path, shards: ShardSet) -> dict[str, Any]:
    import numpy as np

    from bevgen.shards import COLUMNS, read_header

    header = read_header(shards.path)
    height, width, channels = shards.image_shape
    known = {name: int(np.count_nonzero(~np.isnan(shards.columns[name]))) for name in COLUMNS}
    # Only where a panorama of unknown heading was drawn or turned as if it looked north.
    drawn = shards.kind == "bev" or shards.settings.get("turn_to_north")
    unknown = {"unknown_headings": len(shards) - known["heading"]} if drawn else {}
    return {
        "file": str(path),
        "kind": shards.kind,
        "images": len(shards),
        "image_shape": list(shards.image_shape),
        "bytes": len(shards) * height * width * channels,
        "shard_files": len(header.files) or 1,
        "failures": len(shards.failures),
        "known": known,
        **unknown,
        "settings": dict(shards.settings),
        "plan": header.plan,
    }


def _rows(shards: ShardSet) -> list[dict[str, str | float | None]]:
    """Return a dict per row; what nobody said is None."""
    from bevgen.shards import COLUMNS

    columns: dict[str, list[Any]] = {"id": shards.ids, "source": shards.sources}
    stored = shards.columns
    for name in COLUMNS:
        columns[name] = [None if value != value else value for value in stored[name].tolist()]
    columns["date"] = [date or None for date in stored["date"].tolist()]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _known(counts: dict[str, int], images: int) -> str:
    """Say of how many images each value is known: a bare number would read as the value."""
    shares = (
        f"{name} of {'all' if count == images else f'{count:,}' if count else 'none'}"
        for name, count in counts.items()
    )
    return ", ".join(shares)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {'-' if v is None else v}" for key, v in value.items())
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):  # a byte of a file name that is not utf-8 is escaped too
        return value.translate(ESCAPES).encode("utf-8", "backslashreplace").decode()
    return f"{value:.10g}"
