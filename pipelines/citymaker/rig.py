"""What a camera carries into all of its pictures: the car below it, and a cap over its nadir.

Both stand still in the camera's frame. The car is drawn by the kernels of the city, in axes that
are right, forward and up of the camera, on a ground NOMINAL metres below it.
"""

from __future__ import annotations

import math
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import Pose
from pipelines.citymaker.scene import (
    CELL,
    COS,
    CROWN_COLUMNS,
    CX,
    CY,
    HX,
    HY,
    PATCH_COLUMNS,
    SEGMENT_COLUMNS,
    SIN,
    SOLID_COLUMNS,
    STREET_COLUMNS,
    TOP,
    Floats,
    Ground,
    Light,
    Scene,
    Solid,
    list_by_cell,
    turned_boxes,
)
from pipelines.citymaker.site import solid
from pipelines.citymaker.styles import satellite_light
from pipelines.citymaker.world import CAR_PAINTS, car

CAPS = ("black", "white", "logo", "blur")
CAP_DEGREES = 25.0
"""From the nadir to a cap's rim."""
NOMINAL = 2.0


class Rig(NamedTuple):
    """A car in the camera's axes, the light as it falls there, and the camera's rotation."""

    scene: Scene
    light: Light
    world_from_camera: NDArray[np.float64]

    def rays(self, rays: Floats) -> Floats:
        """Turn rays (N, 6) of the world, all from the camera, to the camera's axes."""
        own = np.zeros_like(rays)
        own[:, 2] = NOMINAL
        own[:, 3:] = rays[:, 3:] @ self.world_from_camera
        return own


def build_car(seed: int) -> Scene:
    """Make the scene of a car whose roof carries the camera on a mast, and nothing else."""
    rng = np.random.default_rng([seed, 13])
    paint = CAR_PAINTS[rng.integers(len(CAR_PAINTS))]
    dark, grey = (0.03, 0.03, 0.035), (0.25, 0.25, 0.27)
    rows = car(0.0, 0.25, 0.0, 1.0, paint, 0.3)
    roof = max(row[TOP] for row in rows)
    for y in (-0.35, 0.35):  # the bars of a roof rack
        rows.append(solid(0, y, 1, 0, (0.62, 0.03), (roof, roof + 0.07, roof + 0.07), Solid.LAMP,
                          dark, dark))  # fmt: skip
    plate = (roof + 0.07, roof + 0.1, roof + 0.1)
    rows.append(solid(0, 0, 1, 0, (0.2, 0.38), plate, Solid.LAMP, grey, grey))
    mast = (roof + 0.1, NOMINAL - 0.12, NOMINAL - 0.12)
    rows.append(solid(0, 0, 1, 0, (0.04, 0.04), mast, Solid.LAMP, dark, dark, round_=True))
    solids = np.array(rows, np.float32).reshape(-1, SOLID_COLUMNS)
    boxes = turned_boxes(*solids[:, [CX, CY, COS, SIN, HX, HY]].astype(np.float64).T)
    first, items = list_by_cell(boxes, -CELL, -CELL, 2, 2)
    tops = solids[:, TOP].copy()
    nothing = np.zeros(5, np.int32), np.empty(0, np.int32)
    return Scene(
        -CELL,
        -CELL,
        2,
        2,
        float(tops.max()),
        int(Ground.ASPHALT),
        seed,
        solids,
        np.empty((0, CROWN_COLUMNS), np.float32),
        first,
        items,
        np.full(4, tops.max(), np.float32),
        tops,
        np.empty((0, SEGMENT_COLUMNS), np.float32),
        np.empty((0, STREET_COLUMNS), np.float32),
        *nothing,
        np.empty((0, PATCH_COLUMNS), np.float32),
        *nothing,
        np.full((12, 12), 0.9, np.float32),
    )


def mount(scene: Scene, light: Light, pose: Pose) -> Rig:
    """Set a car under a camera: the sun goes round it as the camera turns and tilts."""
    matrix = pose.world_from_camera()
    x, y, z = (float(v) for v in np.array([light.sun_x, light.sun_y, light.sun_z]) @ matrix)
    return Rig(scene, light._replace(sun_x=x, sun_y=y, sun_z=z), matrix)


def put_cap(picture: NDArray[np.uint8], cap: str) -> NDArray[np.uint8]:
    """Cover the disc around the nadir of a panorama (H, W, 3), a whole sphere.

    Parameters
    ----------
    picture
        The panorama.
    cap
        ``black`` or ``white``; ``logo``, a badge; ``blur``, the rim's colours drawn out to the
        nadir, where they run into each other.
    """
    height, width, _ = picture.shape
    first, part = divmod((180 - CAP_DEGREES) / 180 * height, 1)
    first = int(first)
    cover = np.ones(height - first)
    cover[0] -= part
    if cap == "blur":
        colours = _stretched(picture[first - 2 : first].mean(axis=0), height - first)
    else:
        colours = _badge(height - first, width) if cap == "logo" else np.zeros((1, 1, 3))
        colours = colours + (255.0 if cap == "white" else 0.0)
    out = picture.astype(np.float64)
    weight = cover[:, None, None]
    out[first:] = out[first:] * (1 - weight) + np.minimum(colours, 255) * weight
    return (out + 0.5).astype(np.uint8)


def _stretched(rim: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Draw the colours (W, 3) of the rim down over rows, ever more blurred along the rim."""
    width = len(rim)
    frequency = np.fft.rfftfreq(width)[None, :, None]
    down = np.linspace(0, 1, rows)[:, None, None]
    sigma = width * (0.01 + 0.3 * down**2)
    smooth = np.exp(-2 * (np.pi * frequency * sigma) ** 2)
    return np.fft.irfft(np.fft.rfft(rim, axis=0)[None] * smooth, width, axis=1).clip(0, 255)


def _badge(rows: int, width: int) -> NDArray[np.float64]:
    """Draw a badge (rows, width, 3) of a dark disc, a pale ring, and a star of five points."""
    radius = 1 - (np.arange(rows) + 0.5)[:, None] / rows
    azimuth = (np.arange(width) + 0.5)[None, :] / width * 2 * math.pi
    star = radius * (1 + 0.45 * np.cos(5 * azimuth)) < 0.42
    ring = np.abs(radius - 0.78) < 0.05
    out = np.empty((rows, width, 3))
    out[:] = (24, 62, 110)
    out[star] = (240, 196, 40)
    out[np.broadcast_to(ring, star.shape)] = (236, 238, 242)
    return out


def hidden(scene: Scene | None, cap: str, width: int) -> NDArray[np.bool_]:
    """Tell which pixels of a panorama (W / 2, W) car and cap hide: the truth for masks."""
    from pipelines.citymaker.trace import trace

    height = width // 2
    out = np.zeros((height, width), bool)
    if scene is not None:
        azimuth = ((np.arange(width) + 0.5) / width - 0.5)[None, :] * 2 * math.pi
        elevation = (0.5 - (np.arange(height) + 0.5) / height)[:, None] * math.pi
        rays = np.zeros((height, width, 6), np.float32)
        rays[..., 2] = NOMINAL
        rays[..., 3] = np.sin(azimuth) * np.cos(elevation)
        rays[..., 4] = np.cos(azimuth) * np.cos(elevation)
        rays[..., 5] = np.sin(elevation)
        things = np.empty((height * width, 2), np.int32)
        hits = np.empty((height * width, 5), np.float32)
        trace(scene, satellite_light(date(2023, 6, 21)), rays.reshape(-1, 6), things, hits)
        out |= (things[:, 0] >= 0).reshape(out.shape)
    if cap:
        centre = 180 * (np.arange(height) + 0.5) / height
        out[centre > 180 - CAP_DEGREES] = True
    return out
