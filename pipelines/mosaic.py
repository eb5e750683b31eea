"""One map from a few consecutive street panoramas: project, place, register, put together.

    python -m pipelines.mosaic -i tests/data/street -o mosaic.jpg --height 1.9 2.jpg 3.jpg 4.jpg

GPS is good to a metre or two and a compass to ten degrees, which is enough to begin with; the
printed corrections are what the registration of the ground pictures adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import bevgen
from bevgen.errors import BevgenError, InputError, PanoramaError
from bevgen.images.decoding import read_image
from bevgen.images.finding import find_images
from bevgen.images.view import panorama_view
from pipelines.registration import Array, LevelViews, correlations, register

VIEW_RESOLUTION = 0.025  # camera heights per pixel of the views that are registered
VIEW_SIZE = 512  # pixels
REACH = 10.0  # metres around each camera that the mosaic shows
NADIR = 1.8  # metres around each camera that show its carrier, and
FEATHER = 0.4  # over which the frame fades in from there

ABOVE_0 = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True, slots=True)
class Frame:
    """A panorama and what its metadata say: position and heading in degrees."""

    name: str
    panorama: NDArray[np.uint8]
    vertical_fov: tuple[float, float]
    latitude: float
    longitude: float
    heading: float


@click.command()
@click.option("-i", "--in", "folder", required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--height", required=True, type=ABOVE_0, help="Camera above the ground, in metres.")
@click.option(
    "--resolution", default=0.02, show_default=True, type=ABOVE_0, help="Metres per pixel of --out."
)
@click.option(
    "--register/--no-register",
    "refine",
    default=True,
    show_default=True,
    help="Correct what GPS and compass say by what the pictures show.",
)
@click.argument("names", nargs=-1)
def main(
    folder: Path, out: Path, height: float, resolution: float, refine: bool, names: tuple[str, ...]
) -> None:
    """Make a mosaic of NAMES, or of all panoramas in a folder, in the order of their names."""
    try:
        frames = read_frames(folder, names)
        by_gps = gps_placements(frames)
        views = level_views(frames)
        placements = register(views, by_gps, height) if refine else by_gps
        print_corrections(frames, views, by_gps, placements, height)
        mosaic = composite(frames, placements, height, resolution)
        draw_scale_and_north(mosaic, resolution).save(out, quality=88)
    except (BevgenError, OSError) as error:
        raise click.ClickException(str(error)) from error
    print(f"{out}: {mosaic.shape[1]} x {mosaic.shape[0]} pixels of {resolution:g} m")


def read_frames(folder: Path, names: tuple[str, ...] = ()) -> list[Frame]:
    """Read panoramas with their positions and headings.

    Parameters
    ----------
    folder
        Where they are.
    names
        Which of them, in the order of the drive; all by default, in the order of their names.

    Raises
    ------
    InputError
        If fewer than two are named or found, or one cannot be read or says no position or heading.
    """
    frames = []
    for name in names or [source for source, _ in find_images(folder)]:
        try:
            panorama, info = read_image(folder / name)
            fov = panorama_view(panorama.shape[:2], info, None).vertical_fov
        except PanoramaError as error:
            raise InputError(f"{folder / name} cannot be used: {error}") from error
        if info.latitude is None or info.longitude is None or info.heading is None:
            raise InputError(f"{folder / name} says no position or no heading; leave it out")
        frames.append(Frame(name, panorama, fov, info.latitude, info.longitude, info.heading))
    if len(frames) < 2:
        raise InputError(f"a mosaic takes at least two panoramas, and {folder} gave {len(frames)}")
    return frames


def gps_placements(frames: list[Frame]) -> Array:
    """Put frames into a plane that touches the ellipsoid (WGS84) at their mean position.

    Returns
    -------
    (N, 5) float64
        East and north in metres, heading in degrees, pitch and roll 0.
    """
    latitude, longitude = np.array([[f.latitude, f.longitude] for f in frames]).T
    a, e2 = 6_378_137.0, 6.694_379_990_14e-3
    sin = np.sin(np.deg2rad(latitude.mean()))
    across = a / np.sqrt(1 - e2 * sin**2)  # radius of curvature, east to west
    along = across * (1 - e2) / (1 - e2 * sin**2)  # and north to south
    from_mean = np.deg2rad((longitude - longitude.mean() + 180) % 360 - 180)
    east = across * np.sqrt(1 - sin**2) * from_mean
    north = along * np.deg2rad(latitude - latitude.mean())
    # Unwrapped, so that the mean of 350 and 10 degrees is north.
    heading = np.unwrap([f.heading for f in frames], period=360)
    return np.stack([east, north, heading, 0 * east, 0 * east], axis=1)


def level_views(frames: list[Frame]) -> LevelViews:
    """Project all frames as if they looked north, for `register`."""
    pairs = [
        bevgen.project(
            np.asarray(Image.fromarray(frame.panorama).convert("L")),
            height=1.0,
            resolution=VIEW_RESOLUTION,
            size=VIEW_SIZE,
            vertical_fov=frame.vertical_fov,
            return_valid=True,
        )
        for frame in frames
    ]
    bevs, seen = (np.stack(a) for a in zip(*pairs, strict=True))
    return LevelViews(bevs.astype(np.float32), seen, VIEW_RESOLUTION)


def print_corrections(
    frames: list[Frame], views: LevelViews, before: Array, after: Array, height: float
) -> None:
    """Print what was added to GPS and compass, and how well neighbours agree before and after."""
    print("frame       east m  north m  heading  pitch   roll   correlation with the one before")
    agreement = zip(
        [None, *correlations(views, before, height)],
        [None, *correlations(views, after, height)],
        strict=True,
    )
    for frame, moved, (was, now) in zip(frames, after - before, agreement, strict=True):
        east, north, *angles = moved
        turns = " ".join(f"{angle:+6.2f}°" for angle in angles)
        gain = "" if was is None else f"   {was:.2f} -> {now:.2f}"
        print(f"{frame.name:10} {east:+7.2f}  {north:+7.2f}  {turns}{gain}")


def composite(
    frames: list[Frame], placements: Array, height: float, resolution: float
) -> NDArray[np.uint8]:
    """Put the frames together: everywhere mostly the frame whose camera is nearest.

    Parameters
    ----------
    frames
        N panoramas.
    placements : (N, 5)
        Where their cameras stand.
    height
        Of the cameras, in metres.
    resolution
        Metres per pixel.

    Returns
    -------
    (H, W, 3) uint8
        North up; white where no camera is within 10 m, and at a nadir that no other frame shows.
    """
    low, high = placements[:, :2].min(axis=0) - REACH, placements[:, :2].max(axis=0) + REACH
    columns, rows = np.ceil((high - low) / resolution).astype(int).tolist()
    half = round(REACH / resolution)
    offset = (np.arange(2 * half) + 0.5 - half) * resolution
    distance = np.hypot(offset[None, :], offset[:, None])
    weight = np.clip((distance - NADIR) / FEATHER, 0, 1) * (distance < REACH)
    weight = (weight / distance**4)[..., None]
    total, weights = np.zeros((rows, columns, 3)), np.full((rows, columns, 1), 1e-12)
    for frame, (east, north, heading, pitch, roll) in zip(frames, placements.tolist(), strict=True):
        bev, seen = bevgen.project(
            frame.panorama,
            height=height,
            resolution=resolution,
            size=2 * half,
            heading=heading,
            pitch=pitch,
            roll=roll,
            vertical_fov=frame.vertical_fov,
            return_valid=True,
        )
        # To the nearest pixel: half a pixel is a centimetre.
        left = round((east - low[0]) / resolution) - half
        top = round((high[1] - north) / resolution) - half
        top, left = min(max(top, 0), rows - 2 * half), min(max(left, 0), columns - 2 * half)
        part = np.s_[top : top + 2 * half, left : left + 2 * half]
        total[part] += weight * seen[..., None] * bev
        weights[part] += weight * seen[..., None]
    mosaic = np.where(weights > 1e-9, total / weights, 255)
    return np.rint(mosaic).astype(np.uint8)


def draw_scale_and_north(mosaic: NDArray[np.uint8], resolution: float) -> Image.Image:
    """Draw a bar of 5 metres and an arrow to the north into the lower right corner."""
    image = Image.fromarray(mosaic)
    draw = ImageDraw.Draw(image)
    unit = max(image.width // 60, 8)
    right, bottom = image.width - unit, image.height - unit
    bar = 5 / resolution
    draw.rectangle((right - bar - 5 * unit, bottom - 4 * unit, right, bottom), fill="white")
    base = bottom - unit
    draw.rectangle((right - bar - unit, base - unit / 2, right - unit, base), fill="black")
    font: Any = ImageFont.load_default(size=1.4 * unit)
    middle = right - unit - bar / 2
    draw.text((middle, base - unit), "5 m", fill="black", font=font, anchor="ms")
    north = right - bar - 3 * unit
    draw.polygon(
        [(north, base - 2.6 * unit), (north - 0.7 * unit, base), (north + 0.7 * unit, base)],
        fill="black",
    )
    draw.text((north, base - 0.1 * unit), "N", fill="white", font=font, anchor="ms")
    return image


if __name__ == "__main__":
    main()
