"""What every BEV pixel shows: the bodies that all devices share, and their loop for float32.

A lookup is applied to pixels: bilinear values, means of several, 0 where the panorama shows
nothing. uint8 is interpolated with integers (`sampling_uint8`), float32 with floats; the two differ
by less than a grey level. Arguments are checked by the callers, never here.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bevgen.compiling import njit
from bevgen.projection.lookup import HIDDEN, SUBPIXEL, SUBPIXEL_BITS


@njit(inline="always")
def shifted(column: int, shift: int, width: int) -> int:
    """Column after a turn of the camera, from half a pixel left of the first pixel's centre."""
    column += shift
    return column - width * SUBPIXEL if column >= width * SUBPIXEL - SUBPIXEL // 2 else column


@njit(inline="always")
def neighbours(
    column: int, row: int, width: int, height: int, wraps: bool
) -> tuple[int, int, int, int, int, int]:
    """Columns and rows of the pixels around a lookup point; its way to the right and lower ones.

    Columns wrap or clamp, rows clamp; the way is in units of 1/SUBPIXEL.
    """
    left, upper = column >> SUBPIXEL_BITS, row >> SUBPIXEL_BITS
    to_right, to_lower = column & (SUBPIXEL - 1), row & (SUBPIXEL - 1)
    right, lower = left + 1, min(upper + 1, height - 1)
    if wraps:
        left = left + width if left < 0 else left
        right = right - width if right >= width else right
    else:
        right = min(right, width - 1)
    return left, right, upper, lower, to_right, to_lower


@njit(inline="always")
def blend(
    panorama: NDArray,
    left: int,
    right: int,
    upper: int,
    lower: int,
    to_right: int,
    to_lower: int,
    channel: int,
) -> float:
    """Bilinear value between four pixels, float32."""
    a = np.float32(to_right) * np.float32(1 / SUBPIXEL)
    b = np.float32(to_lower) * np.float32(1 / SUBPIXEL)
    to_left, to_upper = np.float32(1.0) - a, np.float32(1.0) - b
    above = panorama[upper, left, channel] * to_left + panorama[upper, right, channel] * a
    below = panorama[lower, left, channel] * to_left + panorama[lower, right, channel] * a
    return above * to_upper + below * b


@njit(cache=True)
def sample_float32(
    panorama: NDArray[np.float32],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    sample_columns: NDArray[np.int32],
    sample_rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    bev: NDArray[np.float32],
) -> None:
    """Write the BEV of one panorama: bilinear values, means of several, 0 where it shows nothing.

    Parameters
    ----------
    panorama : (H, W, C) float32
    columns, rows, averaged, first, sample_columns, sample_rows
        The lookup.
    shift
        Added to every column: a turn of the camera, 0 to W * SUBPIXEL - 1; 0 unless ``wraps``.
    wraps
        Whether columns continue at the other edge.
    bev : (pixels, C) float32, written
    """
    height, width, channels = panorama.shape
    for pixel in range(bev.shape[0]):
        if rows[pixel] == HIDDEN:
            bev[pixel] = 0
            continue
        column = shifted(columns[pixel], shift, width)
        left, right, upper, lower, a, b = neighbours(column, rows[pixel], width, height, wraps)
        for c in range(channels):
            bev[pixel, c] = blend(panorama, left, right, upper, lower, a, b, c)
    for m in range(len(averaged)):
        for c in range(channels):
            total = np.float32(0.0)
            for k in range(first[m], first[m + 1]):
                column = shifted(sample_columns[k], shift, width)
                left, right, upper, lower, a, b = neighbours(
                    column, sample_rows[k], width, height, wraps
                )
                total += blend(panorama, left, right, upper, lower, a, b, c)
            bev[averaged[m], c] = total / np.float32(first[m + 1] - first[m])
