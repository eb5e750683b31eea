"""`bevgen export`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from bevgen.cli import COMMANDS, options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bevgen.shards import ShardSet

LONGEST_NAME = 255  # bytes of a file name, on nearly every file system


@click.command("export", help=COMMANDS["export"])
@options.shard_file
@options.output("Folder to write to.", metavar="FOLDER")
@click.option(
    "--format",
    "ending",
    type=click.Choice(["png", "jpg"]),
    help="png is lossless; jpg is quality 95, 4:4:4.  [default: png; jpg for ep-bev]",
)
@click.option(
    "--layout",
    type=click.Choice(["ids", "ep-bev"]),
    default="ids",
    show_default=True,
    help="ids: ID.png, with sub-folders where ids have them. ep-bev: JPEG files in one folder, as"
    " the published loaders expect them: with the panorama's own name where that ends in .jpg or"
    " .jpeg, else with .jpg in place of its ending.",
)
@options.overwrite
def command(path: Path, out: Path, ending: str | None, layout: str, overwrite: bool) -> None:
    """Write the images of a shard file as PNG or JPEG files."""
    from bevgen.cli.progress import progress_bar
    from bevgen.errors import BevgenError
    from bevgen.shards import ShardSet

    if layout == "ep-bev" and ending == "png":
        raise click.UsageError("--layout ep-bev writes JPEG files: leave out --format png")
    ending = ending or ("jpg" if layout == "ep-bev" else "png")
    with ShardSet(path) as shards, progress_bar("exporting") as on_progress:
        _check_channels(shards, ending)
        if layout == "ep-bev":
            names = [_jpeg_name(source) for source in shards.sources]
            labels = [f"source {source!r}" for source in shards.sources]
        else:
            names = [PurePosixPath(f"{name}.{ending}") for name in shards.ids]
            labels = [f"id {name!r}" for name in shards.ids]
        other = "ids" if layout == "ep-bev" else "ep-bev"
        _check_names(names, labels, out, other)
        targets = [out / name for name in names]
        _check_folder(out, targets, overwrite)
        for i, target in enumerate(targets):
            try:
                _write(target, shards[i], ending)
            except OSError as error:
                raise BevgenError(
                    f"{labels[i]} could not be written to {target}: {error.strerror or error}"
                ) from error
            on_progress(i + 1, len(targets))
    click.echo(f"{out}: {len(targets):,} images")


def _jpeg_name(source: str) -> PurePosixPath:
    name = PurePosixPath(PurePosixPath(source).name)
    return name if name.suffix.lower() in (".jpg", ".jpeg") else PurePosixPath(f"{name.stem}.jpg")


def _check_channels(shards: ShardSet, ending: str) -> None:
    from bevgen.errors import InputError

    channels = shards.image_shape[2]
    if channels > 4 or (ending == "jpg" and channels not in (1, 3)):
        raise InputError(f"{shards.path}: images of {channels} channels cannot be {ending} files")


def _check_names(names: list[PurePosixPath], labels: list[str], out: Path, other: str) -> None:
    """Refuse names, which come from files, that lead out of the folder, meet, or are too long."""
    from bevgen.errors import InputError

    owner: dict[PurePosixPath, int] = {}
    for i, name in enumerate(names):
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{labels[i]} leads out of {out}: it cannot be a file name")
        if any(len(part.encode("utf-8", "surrogateescape")) > LONGEST_NAME for part in name.parts):
            raise InputError(
                f"{labels[i]} is too long for a file name: choose --layout {other}, or give it a"
                " shorter id in a poses file (columns file, id)"
            )
        first = owner.setdefault(name, i)
        if first != i:
            raise InputError(
                f"{labels[first]} and {labels[i]} would both be written to {name}: choose"
                f" --layout {other}, or give them other ids in a poses file (columns file, id)"
            )
    for i, name in enumerate(names):
        for folder in name.parents:
            if folder in owner:
                raise InputError(
                    f"{labels[owner[folder]]} would be the file {folder} and {labels[i]} needs a"
                    f" folder of that name: choose --layout {other}, or another --format"
                )


def _check_folder(out: Path, targets: Iterable[Path], overwrite: bool) -> None:
    from bevgen.errors import RefusedError

    if out.exists() and not out.is_dir():
        raise RefusedError(f"{out} is a file: name a folder")
    for target in targets:
        if target.is_dir():
            raise RefusedError(f"{target} is a folder: name another folder to write to")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise RefusedError(f"{target} exists: name another folder, or add --overwrite")


def _write(target: Path, image: NDArray[np.uint8], ending: str) -> None:
    """Write one file; its name appears when it is complete."""
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    part = target.with_name(f".bevgen-{os.getpid()}.part")
    try:
        if ending == "png":
            picture.save(part, "PNG")
        else:
            picture.save(part, "JPEG", quality=95, subsampling="4:4:4")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # renamed by now, unless something failed
