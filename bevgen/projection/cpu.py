"""Projection on the CPU: one thread, GIL released; the twin of `cuda_transfer`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import Pose
from bevgen.projection.planning import Planner
from bevgen.projection.sampling import sample_float32
from bevgen.projection.sampling_uint8 import sample_uint8


def sample_from_host(
    images: NDArray[Any], planner: Planner, poses: NDArray[np.float64], bevs: NDArray[Any]
) -> None:
    """Project a batch from host memory to host memory.

    Parameters
    ----------
    images : (N, H, W, C) uint8 or float32
        C-contiguous.
    planner
        What makes the lookups.
    poses : (N, 4) float64
        Height, heading, pitch and roll of each image.
    bevs : (N, pixels, C) of the images' dtype, written
    """
    fast = images.dtype == np.uint8
    if fast and not hasattr(sample_uint8, "py_func"):
        raise InputError("NUMBA_DISABLE_JIT is set, but uint8 needs compiled code: unset it")
    images = images.view()
    images.flags.writeable = False  # one compiled kernel for read-only and writable arrays
    for image, pose, bev in zip(images, poses.tolist(), bevs, strict=True):
        lookup, shift = planner.lookup(Pose(*pose))
        points = (
            lookup.columns,
            lookup.rows,
            lookup.averaged,
            lookup.first,
            lookup.sample_columns,
            lookup.sample_rows,
            shift,
            planner.view.wraps,
        )
        if fast:
            sample_uint8(image, *points, lookup.mirrored, bev)
        else:
            sample_float32(image, *points, bev)
