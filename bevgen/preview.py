"""Draw a panorama, its bird's-eye view and the mask on one sheet, to judge settings by eye.

The same lines on the ground (circles around the camera, the edge of the bird's-eye view, the
direction of the camera's front) are drawn into both pictures, so that one sees what goes where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bevgen.calibration.level import LEAST_ROLL, compare_rolls, find_tilt
from bevgen.conversion.products import Bev, Picture, PreparedBev
from bevgen.conversion.settings import BevSettings
from bevgen.drawing import (
    FAINT,
    INK,
    PAPER,
    RULE,
    WHITE,
    draw_north_arrow,
    draw_scale_bar,
    fitted,
    font,
    round_length,
    write_on_picture,
)
from bevgen.errors import InputError
from bevgen.geometry import FULL_SPHERE, BevGrid, PanoramaView, Pose
from bevgen.images.decoding import read_image
from bevgen.images.metadata import GPANO, POSES_FILE, PanoramaInfo, info_from_name, info_from_row
from bevgen.tables import read_poses

Box = tuple[int, int, int, int]
Points = NDArray[np.float64]
Colour = tuple[int, int, int]

SHEET = (1912, 932)
# Where the parts lie on the sheet: left, upper, right, lower. The panorama's box is the whole
# sphere, 360 by 180 degrees, centred on the front of the camera.
PANORAMA_BOX: Box = (32, 104, 1056, 616)
BEV_BOX: Box = (1084, 104, 1880, 900)
MASK_BOX: Box = (32, 692, 240, 900)

ROLL_SEEN = "roll in the picture"
_SHOWN, _NOT_SHOWN = (226, 232, 236), (44, 48, 56)
_NEAR, _FAR, _EDGE = (255, 196, 46), (72, 208, 255), (255, 112, 180)
_SMOOTH = 3  # lines are drawn this much larger, then shrunk


class Caption(NamedTuple):
    """A line of the legend: ``heading``, ``11.2°``, ``EXIF``. The font is a Latin one."""

    name: str
    value: str
    origin: str


class _Line(NamedTuple):
    """A line in the world: metres east, north and up of the camera (n, 3)."""

    name: str
    points: Points
    colour: Colour


# --- one panorama, as `bevgen convert` makes it ---


def own_info(path: Path, poses: Path) -> PanoramaInfo:
    """Return what poses.csv says of a panorama, whichever folder its paths begin in.

    Raises
    ------
    InputError
        If the table cannot be used, or says nothing of the panorama.
    """
    parts = path.absolute().parts
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    rows = read_poses(poses, ends)
    for end in ends:  # the longest first
        if (row := rows.get(end)) is not None:
            return info_from_row(row)
    raise InputError(
        f"{poses} has no row whose file is {path.name}, or an end of {path.absolute()}"
    )


def preview(
    path: Path, settings: BevSettings, own: PanoramaInfo, origins: Mapping[str, str]
) -> tuple[Image.Image, list[Caption]]:
    """Decode and project a panorama as `bevgen convert` does, and draw the sheet.

    Parameters
    ----------
    path
        The panorama.
    settings
        Of the bird's-eye view.
    own
        What poses.csv says of the panorama.
    origins
        Where each of the settings is from, as of `BevSettings.origins`.

    Returns
    -------
    sheet : PIL.Image.Image
    captions : list of Caption

    Raises
    ------
    PanoramaError
        If the file cannot be used; the message is the reason without its name.
    """
    image, file = read_image(path)
    info = file.fallback(info_from_name(path.name))
    prepared = Bev(settings).prepare((image.shape[0], image.shape[1]), own, info)
    picture = prepared.make(image)
    captions = _captions(prepared, origins)
    captions += _roll_doubt(image, prepared)
    mask = settings.mask
    use = None if mask is None else mask.fitted((image.shape[0], image.shape[1]))
    sheet = draw_preview(
        image if use is None else np.where(use[..., None], image, image // 3),
        picture.image,
        _mask(picture),
        view=prepared.view,
        pose=prepared.pose,
        grid=settings.grid,
        title=path.name,
        captions=captions,
        heading_known=prepared.info.heading is not None,
    )
    return sheet, captions


def _mask(picture: Picture) -> NDArray[np.bool_]:
    if picture.valid is not None:
        return picture.valid
    return np.ones(picture.image.shape[:2], np.bool_)


def _roll_doubt(image: NDArray[np.uint8], prepared: PreparedBev) -> list[Caption]:
    """Say so if the roll that the metadata give fits the picture better the other way round."""
    roll = prepared.info.roll
    if roll is None or prepared.info.origins.get("roll") != GPANO or abs(roll) <= LEAST_ROLL:
        return []
    tilt = find_tilt(image, prepared.view)
    if not compare_rolls([roll], [tilt]).is_turned:
        return []
    return [Caption(ROLL_SEEN, f"{tilt.roll:.2g}°", "turn it: --roll-sign")]


def _captions(prepared: PreparedBev, origins: Mapping[str, str]) -> list[Caption]:
    """Name each value and its origin: files come last, so settings take precedence over them."""
    view, pose, info = prepared.view, prepared.pose, prepared.info
    settings = prepared.product.settings

    def caption(name: str, field: str, value: str) -> Caption:
        said = info.origins.get(field, "default")
        if said != POSES_FILE and not said.startswith("compat"):
            said = origins.get(field, "default" if said == "option" else said)
        return Caption(name, value, said)

    top, bottom = view.vertical_fov
    left, right = view.horizontal_fov
    captions = [
        caption("camera height", "height", f"{pose.height:g} m"),
        caption("heading", "heading", _heading(prepared)),
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


def _heading(prepared: PreparedBev) -> str:
    if prepared.info.heading is None:
        return f"unknown, taken as {prepared.pose.heading:.4g}°"
    return f"{prepared.pose.heading:.4g}°"


# --- the sheet ---


def draw_preview(
    panorama: NDArray[np.uint8],
    bev: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    *,
    view: PanoramaView,
    pose: Pose,
    grid: BevGrid,
    title: str,
    captions: Sequence[Caption],
    heading_known: bool = True,
) -> Image.Image:
    """Draw the sheet: panorama, bird's-eye view (BEV), mask, and the settings behind them.

    Parameters
    ----------
    panorama : (H, W, 3) uint8
        sRGB.
    bev : (size, size, 3) uint8
        Its BEV.
    valid : (size, size) bool
        What of it the panorama shows.
    view, pose, grid
        What the panorama shows, how the camera stood, what the BEV shows.
    title
        Headline, such as the name of the file.
    captions
        Lines of the legend; ten fit.
    heading_known
        Whether anybody says where north is; else no compass is drawn.

    Returns
    -------
    PIL.Image.Image
        RGB of `SHEET` pixels. On the BEV lies a white bar of ``round_length(grid.extent / 5)``
        metres, true to scale.
    """
    sheet = Image.new("RGB", SHEET, PAPER)
    lines = _ground_lines(pose, grid)
    _draw_panorama(sheet, panorama, view, pose, lines, heading_known)
    _draw_bev(sheet, bev, grid, lines, heading_known)
    mask = Image.fromarray(np.where(valid[..., None], _SHOWN, _NOT_SHOWN).astype(np.uint8))
    sheet.paste(mask.resize(_size(MASK_BOX), Image.Resampling.NEAREST), MASK_BOX[:2])
    up = "north up" if heading_known else "heading unknown: front up"
    _write_headlines(sheet, title, view, valid, f"{grid.extent:.4g} x {grid.extent:.4g} m, {up}")
    _write_legend(sheet, lines)
    _write_captions(sheet, captions)
    return sheet


def frame_points(directions: Points, pose: Pose) -> Points:
    """Find where directions of the world lie in `PANORAMA_BOX`.

    Parameters
    ----------
    directions : (n, 3) float64
        East, north and up of the camera, of any length above 0.
    pose
        How the camera stands.

    Returns
    -------
    (n, 2) float64
        Pixels to the right of and below the upper left corner of the box.
    """
    azimuth, elevation = pose.to_angles(directions)
    width, height = _size(PANORAMA_BOX)
    return np.stack([(azimuth / 360 + 0.5) * width, (0.5 - elevation / 180) * height], axis=1)


def _ground_lines(pose: Pose, grid: BevGrid) -> list[_Line]:
    """Two circles around the camera, the edge of the BEV, and a line ahead of the camera."""
    near = round_length(grid.extent / 5)
    circle = _compass(np.linspace(0, 360, 1441))
    ahead = np.linspace(0.01, 1, 200)[:, None] * near * _compass(np.array([pose.heading]))
    side = np.linspace(-1, 1, 721)
    one = np.ones_like(side)
    sides = [(side, one), (one, -side), (-side, -one), (-one, side)]
    edge = np.concatenate([np.stack(xy, axis=1) for xy in sides]) * grid.extent / 2
    flat = [
        ("horizon, and front of the camera", ahead, WHITE),
        (f"{near:g} m", near * circle, _NEAR),
        (f"{2 * near:g} m", 2 * near * circle, _FAR),
        ("edge of the bird's-eye view", edge, _EDGE),
    ]
    return [
        _Line(name, np.column_stack([xy, np.full(len(xy), -pose.height)]), colour)
        for name, xy, colour in flat
    ]


def _compass(degrees: Points) -> Points:
    """East and north (n, 2) of unit length."""
    angle = np.radians(degrees)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _draw_panorama(
    sheet: Image.Image,
    panorama: NDArray[np.uint8],
    view: PanoramaView,
    pose: Pose,
    lines: Sequence[_Line],
    heading_known: bool,
) -> None:
    """Place the image where it lies on the sphere; draw the ground's lines, horizon and compass."""
    width, height = _size(PANORAMA_BOX)
    (top, bottom), (left, right) = view.vertical_fov, view.horizontal_fov
    x, y = round((left + 180) / 360 * width), round((90 - top) / 180 * height)
    shown = (
        max(round((right + 180) / 360 * width) - x, 1),
        max(round((90 - bottom) / 180 * height) - y, 1),
    )
    frame = Image.new("RGB", (width, height), _NOT_SHOWN)
    frame.paste(Image.fromarray(panorama).resize(shown, Image.Resampling.LANCZOS), (x, y))
    horizon = np.column_stack([_compass(np.linspace(0, 360, 1441)), np.zeros(1441)])
    curves = [(frame_points(horizon, pose), WHITE)]
    curves += [(frame_points(line.points, pose), line.colour) for line in lines]
    _draw_curves(frame, curves)
    if heading_known:
        _draw_compass(frame, pose)
    sheet.paste(frame, PANORAMA_BOX[:2])


def _draw_compass(frame: Image.Image, pose: Pose) -> None:
    """Mark the four directions on the horizon of a panorama."""
    width = frame.width
    draw = ImageDraw.Draw(frame)
    marks = np.column_stack([_compass(np.array([0.0, 90.0, 180.0, 270.0])), np.zeros(4)])
    for letter, (column, row) in zip("NESW", frame_points(marks, pose), strict=True):
        column = min(max(column, 16), width - 16)  # at the seam, keep the letter whole
        draw.line([(column, row - 9), (column, row + 9)], WHITE, 3)
        write_on_picture(draw, (column, row - 14), letter, 34, "ms")


def _draw_bev(
    sheet: Image.Image,
    bev: NDArray[np.uint8],
    grid: BevGrid,
    lines: Sequence[_Line],
    heading_known: bool,
) -> None:
    """Draw the BEV with the ground's lines, a scale bar and an arrow to the north, if known."""
    width, height = _size(BEV_BOX)
    picture = Image.fromarray(bev).resize((width, height), Image.Resampling.LANCZOS)
    scale = np.array([width, -height]) / grid.extent
    centre = np.array([width, height]) / 2
    _draw_curves(picture, [(line.points[:, :2] * scale + centre, line.colour) for line in lines])
    draw_scale_bar(picture, grid.extent)
    if heading_known:
        draw_north_arrow(picture)
    else:
        at = (width - 20, 44)
        write_on_picture(ImageDraw.Draw(picture), at, "heading unknown", 38, "rm")
    sheet.paste(picture, BEV_BOX[:2])


def _draw_curves(picture: Image.Image, curves: Sequence[tuple[Points, Colour]]) -> None:
    """Draw thin smooth lines with a dark rim; one that leaves at a side goes on at the other."""
    large = (picture.width * _SMOOTH, picture.height * _SMOOTH)
    layer = Image.new("RGBA", large, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    for rim in (True, False):
        for points, colour in curves:
            jumps = np.abs(np.diff(points[:, 0])) > picture.width / 2
            for piece in np.split(points * _SMOOTH, np.flatnonzero(jumps) + 1):
                path = [(float(x), float(y)) for x, y in piece]
                if rim:
                    draw.line(path, (0, 0, 0, 120), 5 * _SMOOTH, joint="curve")
                else:
                    draw.line(path, (*colour, 255), 3 * _SMOOTH, joint="curve")
    small = layer.resize(picture.size, Image.Resampling.BOX)
    picture.paste(small, (0, 0), small)


def _write_headlines(
    sheet: Image.Image,
    title: str,
    view: PanoramaView,
    valid: NDArray[np.bool_],
    of_bev: str,
) -> None:
    draw = ImageDraw.Draw(sheet)
    left = PANORAMA_BOX[0]
    draw.text((left, 44), fitted(title, 34, 1400), INK, font(34), "lm", stroke_width=0.5)
    pixels = f"{view.width} x {view.height} pixels"
    if not (view.wraps and view.vertical_fov == FULL_SPHERE):
        across, up = (abs(a - b) for a, b in (view.horizontal_fov, view.vertical_fov))
        pixels += f", {across:.4g} x {up:.4g} degrees of the sphere"
    parts = [
        (PANORAMA_BOX, "Panorama", pixels),
        (BEV_BOX, "Bird's-eye view", of_bev),
        (MASK_BOX, "Mask", f"{100 * valid.mean():.4g} % seen"),
    ]
    draw.line([(left, 68), (BEV_BOX[2], 68)], RULE, 1)
    for (x, y, _, _), name, value in parts:
        draw.text((x, y - 10), name, INK, font(23), "ls", stroke_width=0.4)
        after = x + font(23).getlength(name) + 14
        draw.text((after, y - 10), value, FAINT, font(20), "ls")


def _write_legend(sheet: Image.Image, lines: Sequence[_Line]) -> None:
    """Name the lines, beneath the panorama."""
    draw = ImageDraw.Draw(sheet)
    x, y = PANORAMA_BOX[0], PANORAMA_BOX[3] + 22
    for line in lines:
        draw.rectangle((x, y - 3, x + 27, y + 3), line.colour, FAINT)
        draw.text((x + 36, y), line.name, FAINT, font(20), "lm")
        x += 36 + font(20).getlength(line.name) + 30


def _write_captions(sheet: Image.Image, captions: Sequence[Caption]) -> None:
    """Write name, value and origin in three columns, beside the mask."""
    draw = ImageDraw.Draw(sheet)
    left, top = MASK_BOX[2] + 40, MASK_BOX[1] + 6
    for k, caption in enumerate(captions):
        y = top + 24 * k
        draw.text((left, y), caption.name, FAINT, font(20), "lm")
        draw.text((left + 190, y), fitted(caption.value, 20, 310), INK, font(20), "lm")
        draw.text((left + 520, y), fitted(caption.origin, 20, 250), FAINT, font(20), "lm")


def _size(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]
