"""`bevgen preview`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bevgen.cli import COMMANDS, options

if TYPE_CHECKING:
    from PIL.Image import Image

    from bevgen.conversion.products import BevSettings
    from bevgen.geometry import PanoramaView, Pose
    from bevgen.images.panorama import PanoramaInfo
    from bevgen.preview import Caption

ENDINGS = (".png", ".jpg", ".jpeg")


@click.command("preview", help=COMMANDS["preview"])
@click.option(
    "-i", "--in", "path", type=options.FILE, required=True, metavar="PANORAMA",
    help="One panorama (JPEG, PNG, WebP, TIFF).",
)  # fmt: skip
@options.output("The picture to write, .png or .jpg.")
@options.geometry
@options.poses
@options.overwrite
def command(
    path: Path,
    out: Path,
    preset: str | None,
    poses: Path | None,
    overwrite: bool,
    **given: Any,
) -> None:
    """Draw one panorama, its bird's-eye view and mask, to check the settings."""
    from bevgen.conversion.products import BevSettings
    from bevgen.errors import BevgenError, PanoramaError

    _check_output(path, out, overwrite)
    settings = BevSettings.from_preset(preset, **given)
    own = _own(path, poses)
    settings.check(own)
    try:
        sheet, captions = _draw(path, settings, preset, own, given)
    except PanoramaError as error:
        raise PanoramaError(f"{path}: {error}") from error
    quality = {} if out.suffix.lower() == ".png" else {"quality": 92, "subsampling": "4:4:4"}
    try:
        sheet.save(out, **quality)
    except OSError as error:
        raise BevgenError(f"{out} could not be written: {error.strerror or error}") from error
    for caption in captions:
        click.echo(f"{caption.name:18} {caption.value:24} {caption.origin}")
    click.echo(f"{out}: {sheet.width} x {sheet.height} pixels")


def _check_output(path: Path, out: Path, overwrite: bool) -> None:
    """Refuse before any work what would fail or destroy."""
    from bevgen.errors import InputError, RefusedError

    if path.is_dir():
        raise InputError(f"{path} is a folder: name one panorama in it")
    if out.suffix.lower() not in ENDINGS:
        raise InputError(f"{out} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if not out.absolute().parent.is_dir():
        raise RefusedError(f"the folder of {out} does not exist: create it first")
    if out.exists():
        if path.exists() and out.samefile(path):
            raise RefusedError(f"{out} is the panorama itself: name another output")
        if not overwrite:
            raise RefusedError(f"{out} exists: name another output, or add --overwrite")


def _own(path: Path, poses: Path | None) -> PanoramaInfo:
    """Return what poses.csv says of the panorama, whichever folder its paths begin in."""
    from bevgen.errors import InputError
    from bevgen.images.metadata import PanoramaInfo, info_from_row
    from bevgen.tables import read_poses

    if poses is None:
        return PanoramaInfo()
    parts = path.absolute().parts
    rows = read_poses(poses)
    for start in range(len(parts)):  # the longest end of the path
        if (row := rows.get("/".join(parts[start:]))) is not None:
            return info_from_row(row)
    raise InputError(
        f"{poses} has no row whose file is {path.name}, or an end of {path.absolute()}"
    )


def _draw(
    path: Path,
    settings: BevSettings,
    preset: str | None,
    own: PanoramaInfo,
    given: Mapping[str, Any],
) -> tuple[Image, list[Caption]]:
    """Decode and project as `bevgen convert` does, and draw."""
    import numpy as np

    from bevgen.geometry import Pose
    from bevgen.images.panorama import info_from_name, panorama_view, read_image
    from bevgen.preview import draw_preview

    image, file = read_image(path)
    info = file.fallback(info_from_name(path.name))
    picture = settings.picture(image, own, info)
    view = panorama_view(image.shape[:2], info, settings.vertical_fov)
    angles = {} if settings.compat else picture.columns
    height = picture.columns["height"]
    pose = Pose(height, *(angles.get(name, 0.0) for name in ("heading", "pitch", "roll")))
    valid = picture.valid
    if valid is None:
        valid = np.ones((settings.size, settings.size), np.bool_)
    origins = _origins(path, file, settings, preset, own, given)
    captions = _captions(view, pose, settings, own.fallback(info), origins)
    sheet = draw_preview(
        image,
        picture.image,
        valid,
        view=view,
        pose=pose,
        grid=settings.grid,
        title=path.name,
        captions=captions,
    )
    return sheet, captions


def _origins(
    path: Path,
    file: PanoramaInfo,
    settings: BevSettings,
    preset: str | None,
    own: PanoramaInfo,
    given: Mapping[str, Any],
) -> dict[str, str]:
    """Say for each setting and field who spoke first; a default is left out."""
    from bevgen.images.panorama import info_from_name
    from bevgen.presets import PRESETS

    sources: list[tuple[str, Mapping[str, Any]]] = [("poses file", asdict(own)), ("option", given)]
    if preset is not None:
        sources.append((f"preset {preset}", asdict(PRESETS[preset])))
    exif = asdict(_exif(path))
    said = asdict(file)
    from_file = [
        ("EXIF", {field: value for field, value in said.items() if value == exif[field]}),
        ("GPano", said),
        ("file name", asdict(info_from_name(path.name))),
    ]
    origins: dict[str, str] = {}
    for name, values in sources + from_file:
        for field, value in values.items():
            if value is not None:
                origins.setdefault(field, name)
    if settings.compat is not None:  # whatever files say of it, the pose is upright, facing north
        origins |= dict.fromkeys(("heading", "pitch", "roll"), f"compat {settings.compat}")
    return origins


def _exif(path: Path) -> PanoramaInfo:
    """Read what EXIF alone says: `read_image` has merged it with GPano."""
    from PIL import Image as PillowImage

    from bevgen.images.metadata import PanoramaInfo, info_from_exif

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(path) as image:
                return info_from_exif(image.getexif())
    except Exception:  # as in read_image, damaged metadata say nothing
        return PanoramaInfo()


def _captions(
    view: PanoramaView,
    pose: Pose,
    settings: BevSettings,
    info: PanoramaInfo,
    origins: Mapping[str, str],
) -> list[Caption]:
    from bevgen.preview import Caption

    def caption(name: str, field: str, value: str) -> Caption:
        return Caption(name, value, origins.get(field, "default"))

    top, bottom = view.vertical_fov
    left, right = view.horizontal_fov
    captions = [
        caption("camera height", "height", f"{pose.height:g} m"),
        caption("heading", "heading", f"{pose.heading:.4g}°"),
        caption("pitch", "pitch", f"{pose.pitch:.4g}°"),
        caption("roll", "roll", f"{pose.roll:.4g}°"),
        caption("vertical field", "vertical_fov", f"{top:.4g}° to {bottom:.4g}°"),
        caption("size", "size", f"{settings.size} x {settings.size} pixels"),
        caption("resolution", "resolution", f"{settings.resolution:g} m a pixel"),
    ]
    if not view.wraps:
        field = caption("horizontal field", "horizontal_fov", f"{left:.4g}° to {right:.4g}°")
        captions.insert(5, field)
    if settings.compat is not None:
        captions.append(caption("sampling", "compat", f"as {settings.compat}"))
    elif not settings.antialias:
        captions.append(caption("sampling", "antialias", "points"))
    if info.latitude is not None:
        position = f"{info.latitude:.6f}, {info.longitude:.6f}"
        captions.append(caption("position", "latitude", position))
    return captions
