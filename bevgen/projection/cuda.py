"""Projection on an NVIDIA GPU: the bodies of `sampling`, a thread for each BEV pixel.

Imported only when asked for. Lookups are planned on the CPU, sent once and kept on the device. The
same loops run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1).
"""

# Numba's kernels are launched as kernel[blocks, threads](...), which type checkers do not know.
# pyright: reportIndexIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from bevgen.errors import BevgenError, DeviceError, InputError
from bevgen.projection.lookup import HIDDEN, Lookup
from bevgen.projection.sampling import blend, neighbours, shifted

THREADS = 256
CHUNK_BYTES = 16 << 20  # of panoramas under way to the device at once

Planned = Iterator[tuple[Lookup, int]]
"""Lookup and shift of each image, made when they are needed."""


class DeviceLookup(NamedTuple):
    """A lookup's arrays on the device."""

    columns: Any
    rows: Any
    averaged: Any
    first: Any
    sample_columns: Any
    sample_rows: Any


class Storage(NamedTuple):
    """How values are stored: ``value * scale + bias`` in each channel; planes apart if ``planar``.

    ``scale`` and ``bias`` are (C,) float32 on the device.
    """

    scale: Any
    bias: Any
    planar: bool


def require_gpu() -> None:
    """Refuse to go on without a GPU.

    Raises
    ------
    InputError
        If there is none, or its driver or Numba's support for it is missing.
    """
    if not cuda.is_available():
        try:
            cuda.current_context()
            why = "it cannot be used"
        except Exception as error:  # whatever driver and bindings raise
            why = " ".join(str(error).split()).rstrip(":. ")
        raise InputError(
            f"device cuda needs an NVIDIA GPU with its driver, and pip install 'bevgen[cuda]':"
            f" {why}. Use the device cpu"
        )


@contextmanager
def _named_failures() -> Iterator[None]:
    """Say of whatever driver and compiler raise what it means."""
    try:
        yield
    except BevgenError:
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, (AttributeError, ImportError, NameError, TypeError)):
            raise DeviceError(
                f"the code for the GPU cannot be compiled ({type(error).__name__}: {why}): the"
                " versions installed do not fit each other. Install what does by pip install"
                " --upgrade 'bevgen[cuda]', or use the device cpu"
            ) from error
        raise DeviceError(f"the GPU failed ({why}): use the device cpu, or try again") from error


def as_device_array(array: Any) -> Any:
    """Return Numba's view of an array on the device, such as a torch tensor, without a copy."""
    if getattr(array, "__cuda_ndarray__", False):
        return array
    require_gpu()
    return cuda.as_cuda_array(array)


def new(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return an array on the device, its content undefined."""
    return cuda.device_array(shape, dtype)


def plain_storage(dtype: np.dtype[Any], channels: int) -> Storage:
    """Return what stores values as they are, (pixels, C), rounded if integers."""
    half = 0.5 if dtype.kind == "u" else 0.0  # a cast cuts off
    scale, bias = np.ones(channels, np.float32), np.full(channels, half, np.float32)
    return Storage(cuda.to_device(scale), cuda.to_device(bias), planar=False)


def network_storage(mean: NDArray[np.float32], std: NDArray[np.float32]) -> Storage:
    """Return what takes 0 to 255 to ``(value / 255 - mean) / std``, (C, pixels)."""
    scale, bias = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return Storage(cuda.to_device(scale), cuda.to_device(bias), planar=True)


@_named_failures()
def sample(
    panoramas: Any, planned: Planned, wraps: bool, bevs: Any, storage: Storage, stream: Any = 0
) -> None:
    """Project a batch from device memory to device memory.

    Parameters
    ----------
    panoramas : (N, H, W, C) uint8 or float32, on the device
    planned
        Lookup and shift of each; neighbours with one lookup are sampled at once.
    wraps
        Whether columns continue at the other edge.
    bevs : (N, pixels, C), or (N, C, pixels) if the storage is planar, on the device, written
    storage
        `plain_storage` or `network_storage`.
    stream
        CUDA stream; nothing is waited for.
    """
    start = 0
    for lookup, run in groupby(planned, key=lambda pair: pair[0]):
        shifts = np.array([shift for _, shift in run], np.int32)
        stop = start + len(shifts)
        _sample_alike(
            panoramas[start:stop],
            _on_device(lookup),
            cuda.to_device(shifts, stream=stream),
            wraps,
            bevs[start:stop],
            storage,
            stream,
        )
        start = stop


@_named_failures()
def sample_from_host(
    images: NDArray[Any], planned: Planned, wraps: bool, bevs: NDArray[Any]
) -> None:
    """Project a batch from host memory to host memory.

    Two chunks are under way at once: while one is computed, the other is copied. Each thread has
    buffers and streams of its own.

    Parameters
    ----------
    images : (N, H, W, C) uint8 or float32
    planned, wraps
        As in `sample`.
    bevs : (N, pixels, C) of the images' dtype, written
    """
    require_gpu()
    largest = max(images[0].nbytes, bevs[0].nbytes)
    count = min(max(CHUNK_BYTES // largest, 1), len(images))
    slots = _slots(count, images.shape[1:], bevs.shape[1:], images.dtype)
    waiting: deque[tuple[_Slot, NDArray[Any]]] = deque()
    for k, start in enumerate(range(0, len(images), count)):
        part = slice(start, start + count)
        if len(waiting) == len(slots):
            _collect(*waiting.popleft())
        slots[k % 2].begin(images[part], islice(planned, len(images[part])), wraps)
        waiting.append((slots[k % 2], bevs[part]))
    while waiting:
        _collect(*waiting.popleft())


@lru_cache(maxsize=8)
def _on_device(lookup: Lookup) -> DeviceLookup:
    return DeviceLookup._make(
        cuda.to_device(getattr(lookup, name)) for name in DeviceLookup._fields
    )


def _sample_alike(
    panoramas: Any,
    lookup: DeviceLookup,
    shifts: Any,
    wraps: bool,
    bevs: Any,
    storage: Storage,
    stream: Any,
) -> None:
    images = len(shifts)

    def grid(count: int) -> tuple[Any, ...]:
        return (math.ceil(count / THREADS), images), THREADS, stream

    _sample_centres[grid(lookup.columns.size)](
        panoramas, lookup.columns, lookup.rows, shifts, wraps, *storage, bevs
    )
    if lookup.averaged.size:
        _sample_means[grid(lookup.averaged.size)](
            panoramas, *lookup[2:], shifts, wraps, *storage, bevs
        )


@cuda.jit
def _sample_centres(panoramas, columns, rows, shifts, wraps, scale, bias, planar, bevs):
    """Write the bilinear value of every BEV pixel's one point, black where it is hidden."""
    pixel, image = cuda.grid(2)
    if pixel >= columns.size:
        return
    _, height, width, channels = panoramas.shape
    column, row = shifted(columns[pixel], shifts[image], width), rows[pixel]
    hidden = row == HIDDEN
    left, right, upper, lower, a, b = neighbours(column, max(row, 0), width, height, wraps)
    for c in range(channels):
        value = np.float32(0.0)
        if not hidden:
            value = blend(panoramas[image], left, right, upper, lower, a, b, c)
        value = value * scale[c] + bias[c]
        if planar:
            bevs[image, c, pixel] = value
        else:
            bevs[image, pixel, c] = value


@cuda.jit
def _sample_means(
    panoramas,
    averaged,
    first,
    sample_columns,
    sample_rows,
    shifts,
    wraps,
    scale,
    bias,
    planar,
    bevs,
):
    """Write the mean bilinear value of the BEV pixels with several points."""
    m, image = cuda.grid(2)
    if m >= averaged.size:
        return
    _, height, width, channels = panoramas.shape
    for c in range(channels):
        total = np.float32(0.0)
        for k in range(first[m], first[m + 1]):
            column = shifted(sample_columns[k], shifts[image], width)
            left, right, upper, lower, a, b = neighbours(
                column, sample_rows[k], width, height, wraps
            )
            total += blend(panoramas[image], left, right, upper, lower, a, b, c)
        value = total / np.float32(first[m + 1] - first[m]) * scale[c] + bias[c]
        if planar:
            bevs[image, c, averaged[m]] = value
        else:
            bevs[image, averaged[m], c] = value


class _Slot:
    """Room for one chunk on its way: pinned host memory, device memory, a stream."""

    def __init__(
        self, count: int, image: tuple[int, ...], bev: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.stream = cuda.stream()
        self.pinned_images = cuda.pinned_array((count, *image), dtype)
        self.pinned_bevs = cuda.pinned_array((count, *bev), dtype)
        self.images = cuda.device_array((count, *image), dtype)
        self.bevs = cuda.device_array((count, *bev), dtype)
        self.storage = plain_storage(dtype, image[-1])

    def begin(self, images: NDArray[Any], planned: Planned, wraps: bool) -> None:
        n = len(images)
        self.pinned_images[:n] = images
        self.images[:n].copy_to_device(self.pinned_images[:n], stream=self.stream)
        sample(self.images[:n], planned, wraps, self.bevs[:n], self.storage, self.stream)
        self.bevs[:n].copy_to_host(self.pinned_bevs[:n], stream=self.stream)


def _collect(slot: _Slot, bevs: NDArray[Any]) -> None:
    slot.stream.synchronize()
    bevs[:] = slot.pinned_bevs[: len(bevs)]


_own = threading.local()


def _slots(
    count: int, image: tuple[int, ...], bev: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[_Slot, _Slot]:
    """Return this thread's buffers; pinning memory takes long, so the last ones are kept."""
    key = count, image, bev, dtype
    if getattr(_own, "key", None) != key:
        _own.key, _own.slots = None, None  # give back before taking
        _own.slots = _Slot(*key), _Slot(*key)
        _own.key = key
    return _own.slots
