"""From stored pixels to network input: uint8 (n, H, W, C) to float32 (n, C, H, W), in one pass.

For training loops that feed a CPU; for a GPU send the uint8 pixels, a quarter of the bytes, and
convert them there. Numba is imported by the first call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevgen.errors import InputError


def to_chw(
    images: NDArray[np.uint8],
    mean: ArrayLike = 0.0,
    std: ArrayLike = 1.0,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Scale pixels to 0 to 1, normalize them, and put channels first.

    Parameters
    ----------
    images : (n, H, W, C) uint8
        Such as `ShardSet.read` gives.
    mean, std : scalar or (C,) float
        Subtracted, then divided by; in units of 0 to 1. Left out, the result is 0 to 1.
    out : (n, C, H, W) float32, optional
        Where to write; C-contiguous. A new array is made by default.

    Returns
    -------
    ndarray
        ``out``, or the new array: float32 (n, C, H, W), computed as
        ``(images / 255 - mean) / std`` in float32. Safe in several threads at once; releases the
        GIL.

    Raises
    ------
    InputError
        If an array has not the shape or dtype, or a ``std`` is not above 0.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise InputError(
            f"images must be uint8 (n, height, width, channels), not {images.dtype} of shape"
            f" {images.shape}"
        )
    n, height, width, channels = images.shape
    shape = (n, channels, height, width)
    centre, spread = (v[:, None] for v in mean_and_std(channels, mean, std))
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.dtype != np.float32 or out.shape != shape or not out.flags.c_contiguous:
        raise InputError(
            f"out must be a C-contiguous float32 array of {shape}, not {out.dtype} of {out.shape}"
        )
    elif not out.flags.writeable:
        raise InputError("out must be writeable")
    # Of each value there are 256: looking them up is faster than computing them, and exact.
    values = (np.arange(256, dtype=np.float32) / np.float32(255) - centre) / spread
    images = images.view()
    images.flags.writeable = False  # one compiled kernel for read-only and writable arrays
    _kernel()(images, values, out)
    return out


def mean_and_std(
    channels: int, mean: ArrayLike, std: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both as (channels,) float32.

    Raises
    ------
    InputError
        If they have another shape, or a ``std`` is not above 0.
    """
    centre, spread = np.empty((2, channels), np.float32)
    try:
        centre[:], spread[:] = (np.asarray(value, np.float32) for value in (mean, std))
    except ValueError:
        raise InputError(
            f"mean and std must be numbers, or {channels} numbers: one for each channel"
        ) from None
    if not ((np.isfinite(centre) & np.isfinite(spread)).all() and spread.min() > 0):
        raise InputError("mean must be finite, and std finite and above 0")
    return centre, spread


@cache
def _kernel() -> Callable[..., Any]:
    from bevgen.compiling import njit

    return njit(cache=True)(_look_up)


def _look_up(images, values, out):
    """Fill ``out`` (n, C, H, W) from ``values`` (C, 256); row by row, so that a row stays near."""
    n, height, width, channels = images.shape
    for k in range(n):
        for i in range(height):
            for c in range(channels):
                for j in range(width):
                    out[k, c, i, j] = values[c, images[k, i, j, c]]
