"""Pictures of the ground that are compared: level views, their detail, and how they lie in a plane.

Lengths are in camera heights: pictures of flat ground cannot tell a larger world seen by a higher
camera. A placement is a row (east, north, heading, pitch, roll), angles in degrees as in
`bevgen.Pose`. On flat ground any pose is a homography of the level view, the BEV drawn as if
heading, pitch and roll were 0: so nothing has to be projected again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import Pose
from bevgen.mosaic.cores import on_all_cores

Array = NDArray[np.float64]
Picture = NDArray[np.float32]

NEAR = 0.75  # heights around the nadir that show whoever carries the camera
_STEPS = 40  # of detail, in bytes: the differences are kept small for thousands of frames


@dataclass(frozen=True, slots=True)
class Level:
    """One step from coarse to fine: what is compared. Lengths are in camera heights.

    Attributes
    ----------
    resolution
        Per pixel of the comparison.
    blur, surround
        Detail between these two sizes counts.
    far
        Distance from the camera; beyond, panoramas are too coarse and the ground not flat enough.
    tilt
        What one (squared) degree of pitch or roll costs, per compared pixel: keeps the tilt small
        where pictures hardly show it.
    """

    resolution: float
    blur: float
    surround: float
    far: float
    tilt: float


@dataclass(frozen=True, slots=True, eq=False)
class LevelViews:
    """BEVs of several panoramas, drawn with heading, pitch and roll 0.

    Attributes
    ----------
    images : (N, S, S) uint8
        Grey values.
    seen : (N, S, S) bool, or None
        What the panoramas show; everything if None.
    resolution
        Camera heights per pixel; S times this should be at least 10.
    """

    images: NDArray[np.uint8]
    seen: NDArray[np.bool_] | None
    resolution: float


@dataclass(frozen=True, slots=True)
class Window:
    """A north-up square of ground on which views are compared: its centre and its pixels."""

    east: float
    north: float
    size: int
    resolution: float


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """What is compared at one level.

    Attributes
    ----------
    images : (N, S, S) uint8
        Detail of about unit variance, 40 steps to the unit, 128 for 0.
    grounds : (N or 1, S, S) uint8
        255 where a view shows ground worth comparing: neither its carrier nor far away.
    resolution
        Of the views.
    level
        The step that it is for.
    """

    images: NDArray[np.uint8]
    grounds: NDArray[np.uint8]
    resolution: float
    level: Level

    @classmethod
    def of(cls, views: LevelViews, level: Level) -> Details:
        """Keep detail of one range of sizes, at equal contrast: light and colour differ."""
        size = views.images.shape[1]
        offset = (np.arange(size) + 0.5 - size / 2) * views.resolution
        distance = np.hypot(offset[None, :], offset[:, None])
        ring = (distance > NEAR) & (distance < level.far)
        grounds = ring[None] if views.seen is None else views.seen & ring
        images = np.empty_like(views.images)

        def fill(k: int) -> None:
            images[k] = _detail(views.images[k].astype(np.float32), views.resolution, level)

        for _ in on_all_cores(fill, range(len(images))):
            pass
        return cls(images, grounds.astype(np.uint8) * 255, views.resolution, level)

    def picture(self, i: int) -> Picture:
        """Detail (S, S) of a view."""
        return (self.images[i].astype(np.float32) - 128) / _STEPS

    def draw(self, picture: Picture, placement: Array, window: Window) -> Picture:
        """Draw a view's picture as it lies (size, size) if its camera stood there."""
        return draw(picture, self.resolution, placement, window)

    def draw_ground(self, i: int, placement: Array, window: Window) -> NDArray[np.bool_]:
        """Draw where (size, size) a view shows ground worth comparing."""
        ground = self.grounds[i % len(self.grounds)]
        return draw(ground, self.resolution, placement, window) > 252


def _detail(image: Picture, resolution: float, level: Level) -> NDArray[np.uint8]:
    def smooth(picture: Picture, size: float) -> Picture:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), size / resolution), np.float32)

    surround = smooth(image, level.surround)
    contrast = smooth((image - surround) ** 2, level.surround)
    # A contrast of 5 grey levels is noise and stays small.
    detail = (smooth(image, level.blur) - surround) / np.sqrt(contrast + 25)
    return np.clip(np.rint(detail * _STEPS + 128), 0, 255).astype(np.uint8)


def draw(image: NDArray[Any], resolution: float, placement: Array, window: Window) -> NDArray[Any]:
    """Draw a level view (or a mask of one) as it lies in the world if its camera stood there."""
    east, north, heading, pitch, roll = placement.tolist()
    edge = (0.5 - window.size / 2) * window.resolution
    from_camera = [
        [window.resolution, 0, window.east + edge - east],
        [0, -window.resolution, window.north - edge - north],
        [0, 0, -1],
    ]
    # A level camera would see the same ray (right, forward, up) hit the ground at
    # (right, forward) / -up.
    axes = Pose(1.0, heading, pitch, roll).world_from_camera().T
    centre = image.shape[0] / 2 - 0.5
    to_view = np.array([[-1 / resolution, 0, centre], [0, 1 / resolution, centre], [0, 0, 1]])
    return cv2.warpPerspective(
        image,
        to_view @ axes @ np.array(from_camera),
        (window.size, window.size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )


def turned(vectors: Array, degrees: Array | float) -> Array:
    """Turn vectors (..., 2) of east and north clockwise."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([c * x + s * y, c * y - s * x], axis=-1)
