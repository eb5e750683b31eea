"""Draw the ground around a camera over azimuth and the logarithm of distance, and find its edges.

Drawn so, another heading is a shift along one axis, and another camera height (or another ground
resolution) a shift along the other. Edges are kept as directions: they survive other light, colours
and seasons, and change with neither shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import PanoramaView, Pose

Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]
Spectrum = NDArray[np.complex64]

AZIMUTHS = 240  # around the circle
STEP = 2 * math.pi / AZIMUTHS  # of the logarithm of distance: cells are square
NEAR, FAR = 0.8, 10.0  # camera heights from the nadir within which ground is compared
RINGS = int(math.log(FAR / NEAR) / STEP) + 1
SMOOTHING = 1.5  # cells by which pictures are smoothed before their edges are taken
SURROUND = 6.0  # cells around an edge, relative to whose mean strength it counts


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A panorama and the tile it lies on, ready to be compared; `bevgen.load_view` makes it.

    Attributes
    ----------
    panorama : (H, W) uint8
        Grey values; about `2 * AZIMUTHS` wide for a whole circle.
    lens
        What part of the sphere the panorama shows.
    pose
        Heading, pitch and roll as far as known, else 0; the height does not matter.
    tile : (h, w) uint8
        Grey values, north up.
    row, column
        The camera in the tile, pixels from its upper left corner.
    use : (H, W) bool, optional
        Which pixels of the panorama show the street; all by default.
    """

    panorama: Grey
    lens: PanoramaView
    pose: Pose
    tile: Grey
    row: float
    column: float
    use: NDArray[np.bool_] | None = None


def is_cut(vertical_fov: tuple[float, float]) -> bool:
    """Whether panoramas are cut above and below, so that the horizon may be in any row."""
    return all(abs(end) != 90 for end in vertical_fov)


# --- the two pictures over azimuth and log distance ---


def panorama_rings(view: View, horizon: float = 0.0) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw the ground that a panorama shows over log distance and azimuth.

    Parameters
    ----------
    view
        Its panorama, lens and pose.
    horizon
        Degrees to lower the vertical field by.

    Returns
    -------
    grey : (RINGS, AZIMUTHS) float32
        Row p lies ``NEAR * exp(p * STEP)`` camera heights away; column a looks
        ``(a + 0.5) * 360 / AZIMUTHS`` degrees clockwise from north (from the centre column, if
        the heading is not known).
    seen : (RINGS, AZIMUTHS) bool
        What the panorama shows.
    """
    distance, azimuth = _cells(math.log(NEAR), RINGS)
    east, north = distance * np.sin(azimuth), distance * np.cos(azimuth)
    axes = view.pose.world_from_camera().astype(np.float32).T
    right, forward, up = (axis[0] * east + axis[1] * north - axis[2] for axis in axes)
    turned = np.rad2deg(np.arctan2(right, forward))
    elevation = np.rad2deg(np.arctan2(up, np.hypot(right, forward))) + np.float32(horizon)
    (top, bottom), (left, end) = view.lens.vertical_fov, view.lens.horizontal_fov
    height, width = view.panorama.shape
    column = (turned - left) / (end - left) * width - 0.5
    row = (top - elevation) / (top - bottom) * height - 0.5
    grey, seen = _sample(view.panorama, row, column, view.lens.wraps)
    if view.use is not None:
        shown = _sample(np.where(view.use, np.uint8(255), np.uint8(0)), row, column,
                        view.lens.wraps)[0]  # fmt: skip
        seen &= shown > 254.5
    return grey, seen


def tile_rings(view: View, nearest: float, rings: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw a tile over log distance from the camera and azimuth.

    Parameters
    ----------
    view
        Its tile, and the camera's place in it.
    nearest
        Pixels of the tile to the first ring.
    rings
        How many.

    Returns
    -------
    grey : (rings, AZIMUTHS) float32
    seen : (rings, AZIMUTHS) bool
        What lies in the tile.
    """
    distance, azimuth = _cells(math.log(nearest), rings)
    row = view.row - distance * np.cos(azimuth) - 0.5
    column = view.column + distance * np.sin(azimuth) - 0.5
    return _sample(view.tile, row, column, wraps=False)


def _cells(first: float, rings: int) -> tuple[Floats, Floats]:
    """Distances (2 * rings, 1) and azimuths (2 * AZIMUTHS,): four points for each cell."""
    distance = np.exp(first + STEP * (np.arange(2 * rings) - 0.5) / 2)
    azimuth = (np.arange(2 * AZIMUTHS) + 0.5) * (math.pi / AZIMUTHS)
    return distance[:, None].astype(np.float32), azimuth.astype(np.float32)


def _sample(
    image: Grey, row: Floats, column: Floats, wraps: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    """Interpolate between pixels (centres at integers), and average the four points of a cell."""
    height, width = image.shape
    seen = (row >= -0.5) & (row <= height - 0.5)
    if wraps:
        column = np.mod(column, width)
    else:
        seen &= (column >= -0.5) & (column <= width - 0.5)
        column = np.clip(column, 0, width - 1)
    row = np.clip(row, 0, height - 1)
    above, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    down, across = (row - above).astype(np.float32), (column - left).astype(np.float32)
    below = np.minimum(above + 1, height - 1)
    right = (left + 1) % width if wraps else np.minimum(left + 1, width - 1)
    left %= width
    upper = image[above, left] * (1 - across) + image[above, right] * across
    lower = image[below, left] * (1 - across) + image[below, right] * across
    grey = (upper * (1 - down) + lower * down).astype(np.float32)
    return _pooled(grey), _pooled(seen.astype(np.float32)) == 1


def _pooled(points: Floats) -> Floats:
    rings, azimuths = points.shape
    return points.reshape(rings // 2, 2, azimuths // 2, 2).mean(axis=(1, 3))


# --- what is compared ---


def edge_directions(grey: Floats, seen: NDArray[np.bool_]) -> Spectrum:
    """Turn a picture over log distance and azimuth into directions of edges.

    Parameters
    ----------
    grey : (rings, AZIMUTHS) float32
    seen : (rings, AZIMUTHS) bool

    Returns
    -------
    (rings, AZIMUTHS) complex64
        The angle is twice the edge's, so that light beside dark and dark beside light are one; the
        modulus is about 1 where the edge is as strong as those around it, 0 where nothing is seen.
    """
    smooth = _blur(np.where(seen, grey, 0) + 1j * seen, SMOOTHING)
    smooth = smooth.real / np.maximum(smooth.imag, 0.05)
    down = np.zeros_like(smooth)
    down[1:-1] = smooth[2:] - smooth[:-2]
    across = np.roll(smooth, -1, axis=1) - np.roll(smooth, 1, axis=1)
    inside = seen.copy()
    inside[1:] &= seen[:-1]
    inside[:-1] &= seen[1:]
    strength = np.hypot(across, down) * inside
    around = _blur(strength + 1j * inside, SURROUND)
    around = around.real / np.maximum(around.imag, 0.05)
    # A step of one grey level is noise and stays small.
    edges = (across + 1j * down) ** 2 / np.maximum(strength, 1e-6) / (around + 1.0)
    return (edges * inside).astype(np.complex64)


def _blur(cells: NDArray[np.complexfloating], scale: float) -> NDArray[np.complex128]:
    """Smooth by a Gaussian of so many cells: around the circle, and mirrored at near and far."""
    rings = len(cells)
    spectrum = np.fft.fft2(np.concatenate([cells, cells[::-1]]))
    around, outwards = (
        np.exp(-2 * (math.pi * scale * np.fft.fftfreq(n)) ** 2) for n in (AZIMUTHS, 2 * rings)
    )
    return np.fft.ifft2(spectrum * around * outwards[:, None])[:rings]
