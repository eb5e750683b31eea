"""Projection on an NVIDIA GPU, imported only when asked for; the twin of `bevgen.projection.cpu`.

Where poses are shared, or differ by a heading, lookups are planned on the CPU, sent once and kept
on the device. A pose of its own for each image needs none: the kernel finds its points itself.
"""

# Numba's kernels are launched as kernel[blocks, threads](...), which type checkers do not know.
# pyright: reportIndexIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import config, cuda
from numpy.typing import NDArray

from bevgen.errors import BevgenError, DeviceError, InputError
from bevgen.geometry import Pose, needed_rows
from bevgen.projection.cuda_kernels import IMAGES, THREADS, TILE, Format, hide_parts, kernels_of
from bevgen.projection.lookup import SUBPIXEL, Lookup
from bevgen.projection.planning import FOUR_SAMPLES, Planner, model_of

if TYPE_CHECKING:
    from bevgen.projection.masking import Mask

SIMULATED = bool(getattr(config, "ENABLE_CUDASIM", False))
CHUNK_BYTES = 32 << 20  # of panoramas under way to the device at once
Scaling = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Mean and standard deviation of each channel."""


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


@_named_failures()
def sample(
    panoramas: Any,
    planner: Planner,
    poses: NDArray[np.float64],
    bevs: Any,
    scaling: Scaling | None = None,
) -> None:
    """Project a batch from device memory to device memory; nothing is waited for.

    Parameters
    ----------
    panoramas : (N, H, W, C) uint8 or float32, on the device, C-contiguous
    planner
        What makes the lookups.
    poses : (N, 4) float64
        Height, heading, pitch and roll of each image.
    bevs : (N, size, size, C), or with a scaling (N, C, size, size), on the device, written
    scaling
        Store ``(value / 255 - mean) / std``, channels apart, instead of the values.
    """
    source = _Source(panoramas.reshape(-1), 0, panoramas.shape[1] * planner.view.width)
    _sample(source, panoramas.shape[3], planner, poses, bevs.reshape(-1), scaling, 0)


@_named_failures()
def hide(
    mask: Mask,
    planner: Planner,
    poses: NDArray[np.float64],
    bevs: Any,
    scaling: Scaling | None = None,
) -> Any:
    """Make black what a mask hides of BEVs as `sample` writes them; nothing is waited for.

    The mask is projected as one panorama that all poses share.

    Returns
    -------
    (N, size, size) bool on the device
        What is hidden.
    """
    count, size = len(poses), planner.grid.size
    pixels = size**2
    channels = bevs.size // (count * pixels)
    parts = new((count * pixels,), np.dtype(np.float32))
    shared = _Source(_hidden_pixels(mask, planner.view.height, planner.view.width), 0, 0)
    _sample(shared, 1, planner, poses, parts, None, 0)
    hidden = new((count * pixels,), np.dtype(np.bool_))
    _, black = _scale_and_bias(_frozen(scaling), channels)
    blocks = math.ceil(pixels / THREADS), count
    hide_parts[blocks, (THREADS, 1)](
        parts, pixels, channels, scaling is not None, black, hidden, bevs.reshape(-1)
    )
    return hidden.reshape(count, size, size)


@lru_cache(maxsize=4)
def _hidden_pixels(mask: Mask, height: int, width: int) -> Any:
    """Return 1 where a mask hides pixels of panoramas, else 0, (height * width,), on the device."""
    return cuda.to_device((~mask.fitted((height, width))).astype(np.float32).ravel())


class _Source(NamedTuple):
    """Panoramas on the device.

    Attributes
    ----------
    values : (n,)
        Of all of them, one after another.
    skipped, pixels
        Of each panorama: pixels before the first one that is there, and how many are there; 0 if
        all are the same one.
    """

    values: Any
    skipped: int
    pixels: int


def _sample(
    source: _Source,
    channels: int,
    planner: Planner,
    poses: NDArray[np.float64],
    bevs: Any,
    scaling: Scaling | None,
    stream: Any,
) -> None:
    """Launch kernels for runs of images whose poses are alike."""
    values, stride, offset = source.values, source.pixels * channels, source.skipped * channels
    words = channels > 2 and _in_words(values, stride, offset)
    if words:
        values, stride, offset = values.view(np.uint64), stride // 8, offset // 8
    form = Format(channels, words, scaling is not None, bevs.dtype == np.uint8)
    packed, stored_words = form, bevs
    if words and channels == 3 and _can_pack(bevs, planner.grid.size):
        packed, stored_words = form._replace(packed=True), bevs.view(np.uint32)
    stored = _scale_and_bias(_frozen(scaling), channels)
    view, size = planner.view, planner.grid.size
    panorama = view.width, view.height, view.wraps
    tiles = math.ceil(size / TILE[0]), math.ceil(size / TILE[1])
    for start, stop, shared in _runs(planner, poses):
        images = values, stride, -offset, start
        if not shared:
            kernels_of(packed).posed[(*tiles, stop - start), THREADS, stream](
                *images,
                *panorama,
                _cameras(poses[start:stop], stream),
                _model(planner),
                size,
                float(planner.grid.resolution),
                planner.antialias,
                *stored,
                stored_words,
            )
            continue
        shifts = _shifts(planner, poses[start:stop])
        varying = bool((shifts != shifts[0]).any())
        lookup = _on_device(planner.lookup(Pose(float(poses[start, 0])))[0])
        on_device = _shifts_on_device(shifts.tobytes())
        groups = math.ceil(len(shifts) / IMAGES)
        centres = kernels_of(packed._replace(shifting=varying)).centres
        centres[(*tiles, groups), THREADS, stream](
            *images,
            stop,
            *panorama,
            lookup.columns,
            lookup.rows,
            on_device,
            size,
            *stored,
            stored_words,
        )
        if lookup.averaged.size:
            means = kernels_of(form._replace(shifting=varying)).means
            blocks = math.ceil(lookup.averaged.size / THREADS), 1, groups
            means[blocks, THREADS, stream](
                *images, stop, *panorama, *lookup[2:], on_device, size, *stored, bevs
            )


def _runs(planner: Planner, poses: NDArray[np.float64]) -> Iterator[tuple[int, int, bool]]:
    """Yield first and last (exclusive) of images that follow each other and share a lookup.

    Or that share none, as each looks its own way: the third value says which.
    """
    level = (poses[:, 2:] == 0).all(axis=1) & planner.view.wraps
    key = np.where(level | planner.compat, poses[:, 0], -1.0)  # heights are positive
    edges = [0, *(np.flatnonzero(key[1:] != key[:-1]) + 1).tolist(), len(key)]
    for start, stop in pairwise(edges):
        yield start, stop, bool(key[start] > 0)


def _shifts(planner: Planner, poses: NDArray[np.float64]) -> NDArray[np.int32]:
    """Columns to add to a lookup, as `Planner.lookup` returns them."""
    turn = 0 if planner.compat else planner.view.width * SUBPIXEL
    shifts = np.rint(-poses[:, 1] / 360 * turn).astype(np.int64)
    return (shifts % max(turn, 1)).astype(np.int32)


def _in_words(values: Any, stride: int, offset: int) -> bool:
    """Whether panoramas can be read in words of 8 bytes."""
    aligned = stride % 8 == 0 and offset % 8 == 0 and _address(values) % 8 == 0
    return values.dtype == np.uint8 and aligned and stride < 1 << 31


def _can_pack(bevs: Any, size: int) -> bool:
    """Whether BEVs can be stored in words of 4 bytes, by whole warps; the simulator has none."""
    whole = size % TILE[0] == 0 and size % TILE[1] == 0
    return bevs.dtype == np.uint8 and whole and _address(bevs) % 4 == 0 and not SIMULATED


def _address(array: Any) -> int:
    return 0 if SIMULATED else array.device_ctypes_pointer.value


@lru_cache(maxsize=16)
def _shifts_on_device(shifts: bytes) -> Any:
    return cuda.to_device(np.frombuffer(shifts, np.int32).copy())


class DeviceLookup(NamedTuple):
    """A lookup's arrays on the device."""

    columns: Any
    rows: Any
    averaged: Any
    first: Any
    sample_columns: Any
    sample_rows: Any


@lru_cache(maxsize=8)
def _on_device(lookup: Lookup) -> DeviceLookup:
    return DeviceLookup._make(
        cuda.to_device(getattr(lookup, name)) for name in DeviceLookup._fields
    )


def _cameras(poses: NDArray[np.float64], stream: Any) -> Any:
    """(n, 10) float64 on the device: `camera_of` each, all at once."""
    angles = np.radians(poses[:, 1:] * (-1, 1, 1))
    (ch, cp, cr), (sh, sp, sr) = np.cos(angles).T, np.sin(angles).T
    zero = np.zeros_like(ch)
    tilted = (cr, zero, sr), (sp * sr, cp, -sp * cr), (-cp * sr, sp, cp * cr)  # Rx(pitch) Ry(roll)
    axes = [(ch * x - sh * y, sh * x + ch * y, z) for x, y, z in zip(*tilted, strict=True)]
    cameras = np.stack([*(value for axis in axes for value in axis), poses[:, 0]], axis=-1)
    return cuda.to_device(np.ascontiguousarray(cameras), stream=stream)


@lru_cache(maxsize=8)
def _model(planner: Planner) -> Any:
    """Return the camera model's numbers on the device, and the square that few samples reach."""
    model = model_of(planner.view)
    footprint = planner.grid.resolution**2 * model.columns_per_radian * model.rows_per_radian
    return cuda.to_device(np.array([*model[2:8], (footprint / FOUR_SAMPLES) ** 2]))


def _frozen(scaling: Scaling | None) -> tuple[bytes, bytes] | None:
    return None if scaling is None else (scaling[0].tobytes(), scaling[1].tobytes())


@lru_cache(maxsize=8)
def _scale_and_bias(scaling: tuple[bytes, bytes] | None, channels: int) -> tuple[Any, Any]:
    """Return what takes 0 to 255 to what is stored, (C,) float32 each, on the device."""
    scale, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if scaling is not None:
        mean, std = (np.frombuffer(values, np.float32) for values in scaling)
        scale, bias = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return cuda.to_device(scale), cuda.to_device(bias)


@_named_failures()
def sample_from_host(
    images: NDArray[Any], planner: Planner, poses: NDArray[np.float64], bevs: NDArray[Any]
) -> None:
    """Project a batch from host memory to host memory; see `bevgen.projection.cpu`.

    Two chunks are under way at once: while one is computed, the other is copied, by several
    threads, of the panoramas only the rows that are looked at. Each calling thread has buffers and
    streams of its own.
    """
    require_gpu()
    first, last = _rows(planner, poses)
    needed = images[:, first:last]
    count = min(max(CHUNK_BYTES // max(needed[0].nbytes, bevs[0].nbytes), 1), len(images))
    slots = _slots(count * needed[0].nbytes, count * bevs[0].nbytes)
    waiting: Callable[[], None] | None = None
    for k, start in enumerate(range(0, len(images), count)):
        part = slice(start, start + count)
        collect = slots[k % 2].begin(needed[part], first, planner, poses[part], bevs[part])
        if waiting is not None:
            waiting()
        waiting = collect
    if waiting is not None:
        waiting()


def _rows(planner: Planner, poses: NDArray[np.float64]) -> tuple[int, int]:
    """Rows of the panoramas that are sent: multiples of eight, which keeps words aligned."""
    height = planner.view.height
    if (poses != poses[0]).any():
        return 0, height
    first, last = needed_rows(planner.grid, planner.view, Pose(*poses[0].tolist()))
    first, last = first // 8 * 8, min(-(-last // 8) * 8, height)
    return (first, last) if first < last else (0, height)


class _Slot:
    """Room for one chunk on its way: pinned host memory, device memory, a stream."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.stream = cuda.stream()
        self.pinned = [cuda.pinned_array(size, np.uint8) for size in (incoming, outgoing)]
        self.device = [cuda.device_array(size, np.uint8) for size in (incoming, outgoing)]

    def begin(
        self,
        images: NDArray[Any],
        first: int,
        planner: Planner,
        poses: NDArray[np.float64],
        bevs: NDArray[Any],
    ) -> Callable[[], None]:
        """Send images, whose first row is row ``first``; returns what fetches the BEVs."""
        pinned = self.pinned[0][: images.nbytes].view(images.dtype).reshape(images.shape)
        _copy(images, pinned)
        values, results = (
            array[:size].view(images.dtype)
            for array, size in zip(self.device, (images.nbytes, bevs.nbytes), strict=True)
        )
        values.copy_to_device(pinned.reshape(-1), stream=self.stream)
        width, channels = images.shape[2:]
        source = _Source(values, first * width, images.shape[1] * width)
        _sample(source, channels, planner, poses, results, None, self.stream)
        fetched = self.pinned[1][: bevs.nbytes].view(bevs.dtype)
        results.copy_to_host(fetched, stream=self.stream)

        def collect() -> None:
            self.stream.synchronize()
            _copy(fetched.reshape(bevs.shape), bevs)

        return collect


def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy images; one core alone copies at a fraction of the bus's speed."""
    if len(source) == 1:
        target[:] = source
    else:
        list(_pool().map(np.copyto, target, source))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "bevgen-copy")


_own = threading.local()


def _slots(*sizes: int) -> tuple[_Slot, _Slot]:
    """Return this thread's buffers; pinning memory takes long, so they are kept if large enough."""
    if any(size > had for size, had in zip(sizes, getattr(_own, "sizes", (0, 0)), strict=True)):
        _own.sizes, _own.slots = (0, 0), None  # give back before taking
        _own.slots = _Slot(*sizes), _Slot(*sizes)
        _own.sizes = sizes
    return _own.slots
