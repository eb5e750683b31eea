"""`bevgen export`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import click

from bevgen.cli import COMMANDS, options


@click.command("export", help=COMMANDS["export"])
@options.shard_file
@options.output("Folder to write to.", metavar="FOLDER")
@click.option(
    "--format",
    "ending",
    type=click.Choice(["png", "jpg"]),
    default="png",
    show_default=True,
    help="png is lossless; jpg is quality 95, 4:4:4.",
)
@click.option(
    "--layout",
    type=click.Choice(["ids", "ep-bev"]),
    default="ids",
    show_default=True,
    help="ids: ID.png, with sub-folders where ids have them. ep-bev: JPEG files with the"
    " panoramas' own names in one folder, as the published loaders expect them.",
)
@options.overwrite
def command(path: Path, out: Path, ending: str, layout: str, overwrite: bool) -> None:
    """Write the images of a shard file as PNG or JPEG files."""
    from PIL import Image

    from bevgen.cli.progress import progress_bar
    from bevgen.errors import RefusedError
    from bevgen.shards import ShardSet

    with ShardSet(path) as shards, progress_bar("exporting") as on_progress:
        targets = _targets(list(shards.ids), list(shards.sources), out, ending, layout)
        if not overwrite and (old := next((t for t in targets if t.exists()), None)):
            raise RefusedError(f"{old} exists: name another folder, or add --overwrite")
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        for i, target in enumerate(targets):
            image = Image.fromarray(shards[i])
            if target.suffix == ".png":
                image.save(target)
            else:
                image.save(target, "JPEG", quality=95, subsampling="4:4:4")
            on_progress(i + 1, len(targets))
    click.echo(f"{out}: {len(targets):,} images")


def _targets(ids: list[str], sources: list[str], out: Path, ending: str, layout: str) -> list[Path]:
    """Where each image goes; ids come from files and must not lead out of the folder."""
    from bevgen.errors import InputError

    if layout == "ep-bev":
        names = [PurePosixPath(PurePosixPath(source).name) for source in sources]
    else:
        names = [PurePosixPath(f"{name}.{ending}") for name in ids]
    owner: dict[PurePosixPath, int] = {}
    for i, name in enumerate(names):
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"id {ids[i]!r} leads out of {out}: it cannot be a file name")
        if owner.setdefault(name, i) != i:
            raise InputError(
                f"{sources[owner[name]]} and {sources[i]} would both be written to {name}:"
                " choose --layout ids"
            )
    return [out / name for name in names]
