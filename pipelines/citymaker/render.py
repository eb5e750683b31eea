"""Pictures of a scene: panorama, satellite tile and map tile, as uint8 arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import BevGrid, Pose
from pipelines.citymaker.mapping import draw_map
from pipelines.citymaker.rig import Rig, mount
from pipelines.citymaker.scene import Floats, Light, Scene
from pipelines.citymaker.shade import shade
from pipelines.citymaker.trace import trace

Image = NDArray[np.uint8]

ABOVE = 300.0
"""Metres above the ground from which satellite tiles look straight down."""


def panorama(
    scene: Scene,
    light: Light,
    x: float,
    y: float,
    pose: Pose,
    width: int,
    *,
    smooth: bool = True,
    car: Scene | None = None,
) -> Image:
    """Take an equirectangular panorama.

    Parameters
    ----------
    scene, light
        What there is on a date.
    x, y
        Metres east and north in the district.
    pose
        How the camera stands, with the conventions of `bevgen.geometry`.
    width
        Pixels; the height is half of it.
    smooth
        Take four rays instead of one where neighbouring pixels show different things.
    car
        The camera's own car, from `pipelines.citymaker.rig.build_car`.

    Returns
    -------
    (width / 2, width, 3) uint8
    """
    height = width // 2
    matrix = pose.world_from_camera()

    def rays(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Floats:
        azimuth = (columns / width - 0.5) * 2 * math.pi
        elevation = (0.5 - rows / height) * math.pi
        flat = np.cos(elevation)
        axes = (np.sin(azimuth) * flat, np.cos(azimuth) * flat, np.sin(elevation))
        out = np.empty((*np.broadcast(*axes).shape, 6), np.float32)
        out[..., 0], out[..., 1], out[..., 2] = x, y, pose.height
        for k in range(3):
            out[..., 3 + k] = sum(matrix[k, m] * axes[m] for m in range(3))
        return out

    rig = None if car is None else mount(car, light, pose)
    shape, spread = (height, width), 2 * math.pi / width
    return picture(scene, light, rays, shape, spread, 0.0, True, smooth, rig)


def satellite(
    scene: Scene,
    light: Light,
    x: float,
    y: float,
    grid: BevGrid,
    *,
    smooth: bool = True,
    lean: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """Take a north-up tile from above, centred on (x, y).

    Parameters
    ----------
    scene, light
        What there is on a date.
    x, y
        Metres east and north in the district.
    grid
        Of the ground.
    smooth
        As in `panorama`.
    lean
        Metres east and north by which the satellite is off the vertical, per metre of its height:
        the ground stays where it is, and what stands on it leans the other way.

    Returns
    -------
    (size, size, 3) uint8
    """
    east, north = grid.ground()

    def rays(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Floats:
        out = np.zeros((*np.broadcast(rows, columns).shape, 6), np.float32)
        out[..., 0] = x + east[0] + (columns - 0.5) * grid.resolution
        out[..., 1] = y + north[0] - (rows - 0.5) * grid.resolution
        out[..., 2], out[..., 5] = ABOVE, -1.0
        if any(lean):
            length = math.hypot(*lean, 1.0)
            for k in range(2):
                out[..., k] += lean[k] * ABOVE
                out[..., 3 + k] = -lean[k] / length
            out[..., 5] = -1.0 / length
        return out

    shape = (grid.size, grid.size)
    return picture(scene, light, rays, shape, 0.0, grid.resolution, False, smooth)


def map_tile(scene: Scene, x: float, y: float, grid: BevGrid) -> Image:
    """Draw a north-up map tile, centred on (x, y): (size, size, 3) uint8."""
    out = np.empty((grid.size, grid.size, 3), np.float32)
    half = grid.extent / 2
    draw_map(scene, x - half, y + half, grid.resolution, out)
    return to_bytes(out)


def picture(scene, light, rays, shape, spread, least, wraps, smooth, rig=None) -> Image:
    """Follow one ray through each pixel's centre, and three more where things meet."""
    rows, columns = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None, :] + 0.5
    first = rays(rows, columns).reshape(-1, 6)
    colours, things, lit = look(scene, light, first, spread, least, rig)
    if smooth:
        label = things[:, 0] * 32 + things[:, 1] * 2 + (lit > 0.5)
        mixed = np.flatnonzero(edges(label.reshape(shape), wraps))
        r, c = np.divmod(mixed, shape[1])
        offsets = np.array([[-0.25, -0.25], [-0.25, 0.25], [0.25, -0.25], [0.25, 0.25]])
        more = rays((r + 0.5)[:, None] + offsets[:, 0], (c + 0.5)[:, None] + offsets[:, 1]).reshape(
            -1, 6
        )
        fine, _, _ = look(scene, light, more, spread / 2, least / 2, rig)
        colours[mixed] = fine.reshape(-1, 4, 3).mean(axis=1)
    return to_bytes(colours.reshape(*shape, 3))


def look(
    scene: Scene,
    light: Light,
    rays: Floats,
    spread: float,
    least: float,
    rig: Rig | None = None,
) -> tuple[Floats, NDArray[np.int32], Floats]:
    """Colours (N, 3) that rays see, the things (N, 2) they meet, and how sunlit they are (N,)."""
    things = np.empty((len(rays), 2), np.int32)
    hits = np.empty((len(rays), 5), np.float32)
    colours = np.empty((len(rays), 3), np.float32)
    trace(scene, light, rays, things, hits)
    shade(scene, light, rays, float(spread), float(least), things, hits, colours)
    if rig is not None:
        below = np.flatnonzero(rays[:, 5] < 0.2)
        over, own, lit = look(rig.scene, rig.light, rig.rays(rays[below]), spread, least)
        of_car = own[:, 0] >= 0
        below = below[of_car]
        colours[below], hits[below, 4] = over[of_car], lit[of_car]
        things[below, 0] = own[of_car, 0] + len(scene.solids) + len(scene.crowns)
        things[below, 1] = own[of_car, 1]
    return colours, things, hits[:, 4]


def edges(label: NDArray[np.int32], wraps: bool) -> NDArray[np.bool_]:
    """Find pixels (H, W) that have another label than one beside them."""
    differs = np.zeros(label.shape, bool)
    down = label[1:] != label[:-1]
    differs[1:] |= down
    differs[:-1] |= down
    across = label[:, 1:] != label[:, :-1]
    differs[:, 1:] |= across
    differs[:, :-1] |= across
    if wraps:
        seam = label[:, 0] != label[:, -1]
        differs[:, 0] |= seam
        differs[:, -1] |= seam
    return differs


def to_bytes(values: Floats) -> Image:
    """Round display values to bytes."""
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
