"""Per-pixel bodies and the loops that run them on the CPU: serial, nogil, compiled at first use.

Everything compiled lives in this one file, because Numba's disk cache does not notice edits in a
callee of another file. The bodies of the hot loop are inlined by Numba: left to LLVM, the calls
double its time. Arguments are checked by the callers, never here.

A *lookup* lists, for each BEV pixel, the panorama points whose mean is its value: none where the
panorama shows nothing, one as a rule, several near the nadir where a BEV pixel covers many
panorama pixels (anti-aliasing). ``first`` (pixels + 1,) int32 gives each pixel's range in
``columns`` and ``rows`` (points,) int32: panorama coordinates with pixel centres at integers, in
units of 1/SUBPIXEL pixel. Integers make quarter turns and shifts exact.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

SUBPIXEL_BITS = 12
SUBPIXEL = 1 << SUBPIXEL_BITS
# A bilinear sample answers for about this many panorama pixels of a BEV pixel's footprint.
SAMPLE_AREA = 8.0
MAX_SAMPLES = 64
GOLDEN = 0.6180339887498949


class Camera(NamedTuple):
    """Camera axes in the world (rows of camera-from-world) and metres above the ground."""

    right_x: float
    right_y: float
    right_z: float
    forward_x: float
    forward_y: float
    forward_z: float
    up_x: float
    up_y: float
    up_z: float
    height: float


class Lens(NamedTuple):
    """Where azimuth and elevation (radians) lie on the panorama (pixels)."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    columns_per_radian: float
    rows_per_radian: float
    wraps: bool


@njit(cache=True, nogil=True)
def subpixels(coordinate: float) -> int:
    """Nearest lookup unit."""
    return int(math.floor(coordinate * SUBPIXEL + 0.5))  # noqa: RUF046 (Numba's floor is a float)


@njit(cache=True, nogil=True)
def sample_count(x: float, y: float, resolution: float, camera: Camera, lens: Lens) -> int:
    """How many panorama points the mean over the BEV pixel at (x, y) takes, 1 to MAX_SAMPLES.

    The pixel's footprint is ``resolution / rho`` radians of azimuth (rho: distance from the
    camera's vertical axis) by ``resolution * height / distance^2`` of elevation.
    """
    distance2 = x * x + y * y + camera.height * camera.height
    up = camera.up_x * x + camera.up_y * y - camera.up_z * camera.height
    rho2 = max(distance2 - up * up, 1e-12)
    columns = lens.columns_per_radian * resolution / math.sqrt(rho2)
    rows = lens.rows_per_radian * resolution * camera.height / distance2
    columns = min(columns, float(lens.width))
    return int(min(max(math.ceil(columns * rows / SAMPLE_AREA), 1.0), MAX_SAMPLES))


@njit(cache=True, nogil=True)
def look(x: float, y: float, camera: Camera, lens: Lens) -> tuple[float, float, bool]:
    """Column and row (pixel centres at integers) of ground point (x, y); True if it is shown.

    Columns that do not wrap are clamped, so that the loops need not ask.
    """
    z = -camera.height
    right = camera.right_x * x + camera.right_y * y + camera.right_z * z
    forward = camera.forward_x * x + camera.forward_y * y + camera.forward_z * z
    up = camera.up_x * x + camera.up_y * y + camera.up_z * z
    azimuth = math.atan2(right, forward)
    if azimuth >= math.pi:
        azimuth -= 2 * math.pi
    elevation = math.atan2(up, math.sqrt(right * right + forward * forward))
    column = (azimuth - lens.left) * lens.columns_per_radian - 0.5
    row = (lens.top - elevation) * lens.rows_per_radian - 0.5
    shown = lens.bottom <= elevation <= lens.top
    if not lens.wraps:
        shown = shown and lens.left <= azimuth <= lens.right
        column = min(max(column, 0.0), lens.width - 1.0)
    return column, row, shown


@njit(cache=True, nogil=True)
def count_points(size: int, resolution: float, camera: Camera, lens: Lens, antialias: bool) -> int:
    """Upper bound of the points that `build_lookup` writes."""
    if not antialias:
        return size * size
    total = 0
    for i in range(size):
        y = (size / 2 - i - 0.5) * resolution
        for j in range(size):
            x = (j + 0.5 - size / 2) * resolution
            total += sample_count(x, y, resolution, camera, lens)
    return total


@njit(cache=True, nogil=True)
def build_lookup(
    size: int,
    resolution: float,
    camera: Camera,
    lens: Lens,
    antialias: bool,
    first: NDArray[np.int32],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> int:
    """Fill a lookup for one grid, view and pose; returns the number of points written.

    Parameters
    ----------
    size, resolution
        BEV pixels on each side, metres per pixel.
    camera, lens
        Where from, and how the panorama shows it.
    antialias
        Several points for pixels that cover many panorama pixels.
    first : (size * size + 1,) int32, written
    columns, rows : (`count_points`,) int32, written
    """
    n = 0
    for i in range(size):
        y = (size / 2 - i - 0.5) * resolution
        for j in range(size):
            x = (j + 0.5 - size / 2) * resolution
            first[i * size + j] = n
            column, row, shown = look(x, y, camera, lens)
            if not shown:
                continue
            columns[n], rows[n] = subpixels(column), subpixels(row)
            count = sample_count(x, y, resolution, camera, lens) if antialias else 1
            if count == 1:
                n += 1
                continue
            # A rank-1 lattice over the pixel's area, symmetric about its centre and laid along
            # the direction to the camera, so that it turns with the picture.
            r = math.sqrt(x * x + y * y)
            radial_x, radial_y = (x / r, y / r) if r > 0 else (0.0, 1.0)
            for k in range(count):
                turn = (k - (count - 1) / 2) * GOLDEN
                along = (turn - math.floor(turn + 0.5)) * resolution
                across = ((k + 0.5) / count - 0.5) * resolution
                column, row, shown = look(
                    x + along * radial_x + across * radial_y,
                    y + along * radial_y - across * radial_x,
                    camera,
                    lens,
                )
                if shown:
                    columns[n], rows[n] = subpixels(column), subpixels(row)
                    n += 1
            n += n == first[i * size + j]  # of no point shown the centre stays
    first[size * size] = n
    return n


@njit(cache=True, nogil=True, inline="always")
def neighbours(
    column: int, row: int, width: int, height: int, wraps: bool
) -> tuple[int, int, int, int, float, float]:
    """Columns and rows of the pixels around a lookup point, weights of the right and lower ones.

    Columns wrap or clamp, rows clamp.
    """
    left, upper = column >> SUBPIXEL_BITS, row >> SUBPIXEL_BITS
    to_right = np.float32(column & (SUBPIXEL - 1)) * np.float32(1 / SUBPIXEL)
    to_lower = np.float32(row & (SUBPIXEL - 1)) * np.float32(1 / SUBPIXEL)
    right, lower = left + 1, upper + 1
    if wraps:
        if left < 0:
            left += width
        if right >= width:
            right -= width
    else:
        left = min(max(left, 0), width - 1)
        right = min(max(right, 0), width - 1)
    upper = min(max(upper, 0), height - 1)
    lower = min(max(lower, 0), height - 1)
    return left, right, upper, lower, to_right, to_lower


@njit(cache=True, nogil=True, inline="always")
def blend(
    panorama: NDArray,
    left: int,
    right: int,
    upper: int,
    lower: int,
    to_right: float,
    to_lower: float,
    channel: int,
) -> float:
    """Bilinear value between four pixels, float32."""
    to_left = np.float32(1.0) - to_right
    to_upper = np.float32(1.0) - to_lower
    above = panorama[upper, left, channel] * to_left + panorama[upper, right, channel] * to_right
    below = panorama[lower, left, channel] * to_left + panorama[lower, right, channel] * to_right
    return above * to_upper + below * to_lower


@njit(cache=True, nogil=True, inline="always")
def project_pixel(
    panorama: NDArray,
    first: NDArray[np.int32],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    pixel: int,
    bev: NDArray,
) -> None:
    """Write one BEV pixel; arguments as in `apply_lookup`."""
    height, width, channels = panorama.shape
    turn = width * SUBPIXEL
    limit = turn - SUBPIXEL // 2
    half = np.float32(0.5) if bev.itemsize == 1 else np.float32(0.0)  # rounds integers
    start, stop = first[pixel], first[pixel + 1]
    if stop - start == 1:  # nearly all pixels: the neighbours serve all channels
        column = columns[start] + shift
        if column >= limit:
            column -= turn
        left, right, upper, lower, a, b = neighbours(column, rows[start], width, height, wraps)
        for c in range(channels):
            bev[pixel, c] = blend(panorama, left, right, upper, lower, a, b, c) + half
        return
    for c in range(channels):
        total = np.float32(0.0)
        for k in range(start, stop):
            column = columns[k] + shift
            if column >= limit:
                column -= turn
            left, right, upper, lower, a, b = neighbours(column, rows[k], width, height, wraps)
            total += blend(panorama, left, right, upper, lower, a, b, c)
        bev[pixel, c] = total / np.float32(stop - start) + half if stop > start else 0


@njit(cache=True, nogil=True)
def apply_lookup(
    panorama: NDArray,
    first: NDArray[np.int32],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    bev: NDArray,
) -> None:
    """Write the BEV of one panorama: the mean of each pixel's bilinear samples, 0 without any.

    Parameters
    ----------
    panorama : (H, W, C) uint8 or float32
    first, columns, rows
        The lookup.
    shift
        Added to every column: a turn of the camera, 0 to W * SUBPIXEL - 1; 0 unless ``wraps``.
    wraps
        Whether columns continue at the other edge.
    bev : (pixels, C) of the panorama's dtype, written
    """
    for pixel in range(bev.shape[0]):
        project_pixel(panorama, first, columns, rows, shift, wraps, pixel, bev)
