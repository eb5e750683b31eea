"""Check `bevgen mask` and `bevgen level` on panoramas of the city, whose truth is known.

python -m pipelines.camera_check --district suburb --width 1024
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import date

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bevgen.calibration.level import Tilt, find_tilt
from bevgen.calibration.rig import find_hidden
from bevgen.geometry import PanoramaView, Pose
from pipelines.citymaker.dataset import plan, prepare
from pipelines.citymaker.render import panorama
from pipelines.citymaker.rig import CAPS, build_car, hidden, put_cap
from pipelines.citymaker.settings import Settings
from pipelines.citymaker.styles import light_of

Frame = NDArray[np.uint8]


def frames(settings: Settings, car: bool) -> list[tuple[Frame, Pose]]:
    """Panoramas of all places of the first district, as JPEG files of quality 90 show them."""
    district, day = plan(settings)[0], settings.dates[0]
    scene = prepare(settings, district).scenes[day]
    below = build_car(settings.seed) if car else None
    taken = []
    for place in district.places:
        light = light_of(date.fromisoformat(day), settings.seed, place.later, place.gain)
        where = (place.x, place.y, place.pose, settings.panorama_width)
        taken.append((as_jpeg(panorama(scene, light, *where, car=below)), place.pose))
    return taken


def as_jpeg(image: Frame) -> Frame:
    """Return what a JPEG file of quality 90 shows of an image."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=90)
    return np.asarray(Image.open(data))


def found(images: list[Frame]) -> NDArray[np.bool_]:
    """Return which pixels (H, W) of a camera's frames are found to be hidden."""
    return ~find_hidden(images, images[0].shape[:2]).use


def overlap(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & two).sum() / (one | two).sum())


def check_masks(settings: Settings) -> None:
    """Print how well cars and caps are found, and what is found where there is nothing."""
    width = settings.panorama_width
    plain = [image for image, _ in frames(settings, car=False)]
    driven = [image for image, _ in frames(settings, car=True)]
    truth = hidden(build_car(settings.seed), "", width)
    print(f"  car, {len(plain)} frames: {overlap(found(driven), truth):.3f}")
    for cap in CAPS:
        capped, truth = [as_jpeg(put_cap(one, cap)) for one in plain], hidden(None, cap, width)
        worst = min(overlap(found([one]), truth) for one in capped)
        print(f"  cap {cap}: {overlap(found(capped), truth):.3f}, worst single frame {worst:.3f}")
    false = max(found(some).mean() for some in (plain, *([image] for image in plain)))
    print(f"  found where there is nothing: at most {false:.2%}")


def level_errors(taken: Iterable[tuple[Frame, Pose]]) -> tuple[NDArray[np.float64], int]:
    """Degrees between the vertical that sure pictures tell and the true one; count of pictures."""
    off, count = [], 0
    for image, pose in taken:
        count += 1
        tilt = find_tilt(image, PanoramaView(image.shape[0], image.shape[1]))
        if tilt.sure:
            off.append(math.degrees(math.acos(min(1.0, float(zenith(tilt) @ zenith(pose))))))
    return np.array(off), count


def zenith(tilt: Tilt | Pose) -> NDArray[np.float64]:
    """Where a camera sees the zenith: right, forward, up."""
    return Pose(1.0, 0.0, tilt.pitch, tilt.roll).world_from_camera()[2]


@click.command(help="Print how well masks and tilts are found in districts of the city.")
@click.option("--district", "districts", multiple=True, required=True, help="One or more.")
@click.option("--width", default=1024, show_default=True, help="Pixels of the panoramas.")
@click.option("--places", default=8, show_default=True, help="In each district.")
@click.option("--tilt", default=4.0, show_default=True, help="Pitch and roll vary by DEGREES.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another city.")
@click.option("--only", type=click.Choice(["mask", "level"]), help="One of the two checks.")
def main(
    districts: tuple[str, ...], width: int, places: int, tilt: float, seed: int, only: str | None
) -> None:
    """Print how well masks and tilts are found in districts of the city."""
    errors: list[NDArray[np.float64]] = []
    total = 0
    for district in districts:
        print(f"{district}, {width} pixels", flush=True)
        settings = Settings(
            places=places, districts=(district,), cross=(), heading="random", seed=seed, tilt=1.0,
            panorama_width=width, views=("panorama",),
        )  # fmt: skip
        if only != "level":
            check_masks(settings)
        if only != "mask":
            off, count = level_errors(frames(replace(settings, tilt=tilt), car=False))
            errors.append(off)
            total += count
    if errors:
        off = np.concatenate(errors)
        print(
            f"level: sure of {len(off)} of {total}; median error {np.median(off):.2f} degrees,"
            f" 95 of 100 within {np.percentile(off, 95):.2f}"
        )


if __name__ == "__main__":
    main()
