"""`bevgen export`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from bevgen.cli import COMMANDS, options
from bevgen.commands import EXIT_FAILED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bevgen.geometry import BevGrid
    from bevgen.shards import ShardSet

LONGEST_NAME = 255  # bytes of a file name, on nearly every file system


@click.command("export", help=COMMANDS["export"])
@options.shard_file
@click.option("-o", "--out", type=options.FILE, metavar="FOLDER", help="Folder to write to.")
@click.option(
    "--format",
    "ending",
    type=click.Choice(["png", "jpg", "geotiff"]),
    help="png is lossless; jpg is quality 95, 4:4:4; geotiff is a Cloud Optimized GeoTIFF in the"
    " local UTM zone, with alpha.  [default: png; jpg for ep-bev]",
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
@click.option(
    "--footprints",
    type=options.FILE,
    metavar="GEOJSON",
    help="Write the squares of ground that the BEVs show to this file; --out may be left out then.",
)
@options.overwrite
def command(
    path: Path,
    out: Path | None,
    ending: str | None,
    layout: str,
    footprints: Path | None,
    overwrite: bool,
) -> int:
    """Write the images of a shard file as image files, or where they lie."""
    from bevgen.cli.progress import progress_bar
    from bevgen.errors import RefusedError
    from bevgen.shards import ShardSet

    if out is None and footprints is None:
        raise click.UsageError("nothing to write: add --out FOLDER, --footprints GEOJSON or both")
    if layout == "ep-bev" and ending in ("png", "geotiff"):
        raise click.UsageError(f"--layout ep-bev writes JPEG files: leave out --format {ending}")
    ending = ending or ("jpg" if layout == "ep-bev" else "png")
    if footprints and footprints.exists() and not overwrite:
        raise RefusedError(f"{footprints} exists: name another file, or add --overwrite")
    with ShardSet(path) as shards, progress_bar("exporting") as on_progress:
        done = _export(shards, out, ending, layout, overwrite, on_progress) if out else 0
        placed = _write_footprints(shards, footprints) if footprints else 0
        total = len(shards)
    if out:
        click.echo(f"{out}: {done:,} images")
    if footprints:
        click.echo(f"{footprints}: {placed:,} footprints")
    unplaced = [n for n, wanted in ((done, out), (placed, footprints)) if wanted and n < total]
    return EXIT_FAILED if unplaced and not max(done, placed) else 0


def _export(
    shards: ShardSet,
    out: Path,
    ending: str,
    layout: str,
    overwrite: bool,
    on_progress: Callable[[int, int], None],
) -> int:
    """Write a file for each image, and return how many were written."""
    from bevgen.errors import BevgenError

    _check_channels(shards, ending)
    suffix = "tif" if ending == "geotiff" else ending
    if layout == "ep-bev":
        names = [_jpeg_name(source) for source in shards.sources]
        labels = [f"source {source!r}" for source in shards.sources]
    else:
        names = [PurePosixPath(f"{name}.{suffix}") for name in shards.ids]
        labels = [f"id {name!r}" for name in shards.ids]
    _check_names(names, labels, out, "ids" if layout == "ep-bev" else "ep-bev")
    targets = [out / name for name in names]
    _check_folder(out, targets, overwrite)
    reasons = _unplaced(shards) if ending == "geotiff" else [""] * len(shards)
    for i, target in enumerate(targets):
        if reasons[i]:
            click.echo(f"skipped: {labels[i]}: {reasons[i]}", err=True)
            continue
        try:
            if ending == "geotiff":
                _write_geotiff(target, shards, i)
            else:
                _write(target, shards[i], ending)
        except OSError as error:
            raise BevgenError(
                f"{labels[i]} could not be written to {target}: {error.strerror or error}"
            ) from error
        on_progress(i + 1, len(targets))
    return len(targets) - sum(map(bool, reasons))


def _unplaced(shards: ShardSet) -> list[str]:
    """Why each BEV has no place on a map; empty where it has one."""
    from bevgen.errors import InputError

    if shards.kind != "bev":
        raise InputError(f"{shards.path} holds {shards.kind} images: BEVs alone know their ground")
    reasons = []
    columns = (shards.columns[name].tolist() for name in ("latitude", "longitude", "heading"))
    for latitude, longitude, heading in zip(*columns, strict=True):
        missing = "position" if math.isnan(latitude + longitude) else ""
        missing = missing or ("heading" if math.isnan(heading) else "")
        reasons.append(f"no {missing}; give it in a poses file and convert again" * bool(missing))
    return reasons


def _write_geotiff(target: Path, shards: ShardSet, i: int) -> None:
    from bevgen.georeference import write_geotiff

    target.parent.mkdir(parents=True, exist_ok=True)
    values = {name: column[i].item() for name, column in shards.columns.items()}
    tags = {name: str(value) for name, value in values.items() if value not in ("", math.nan)}
    tags |= {"id": shards.ids[i], "source": shards.sources[i]}
    position = (values["latitude"], values["longitude"])
    write_geotiff(target, shards[i], shards.valid(i), _grid(shards), *position, tags)


def _grid(shards: ShardSet) -> BevGrid:
    from bevgen.geometry import BevGrid

    return BevGrid(shards.settings["size"], shards.settings["resolution"])


def _write_footprints(shards: ShardSet, path: Path) -> int:
    """Write GeoJSON squares, and return how many."""
    from bevgen.georeference import footprint

    features = []
    places = [shards.columns[name].tolist() for name in ("latitude", "longitude")]
    for i, reason in enumerate(_unplaced(shards)):
        if reason:
            click.echo(f"skipped: id {shards.ids[i]!r}: {reason}", err=True)
            continue
        ring = footprint(_grid(shards), places[0][i], places[1][i])
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"id": shards.ids[i], "source": shards.sources[i]},
            }
        )
    collection = {"type": "FeatureCollection", "features": features}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(collection, indent=1, ensure_ascii=False) + "\n", "utf-8")
    part.replace(path)
    return len(features)


def _jpeg_name(source: str) -> PurePosixPath:
    name = PurePosixPath(PurePosixPath(source).name)
    return name if name.suffix.lower() in (".jpg", ".jpeg") else PurePosixPath(f"{name.stem}.jpg")


def _check_channels(shards: ShardSet, ending: str) -> None:
    from bevgen.errors import InputError

    channels = shards.image_shape[2]
    if ending == "geotiff" and channels not in (1, 3):
        raise InputError(f"{shards.path}: images of {channels} channels cannot be GeoTIFF files")
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
