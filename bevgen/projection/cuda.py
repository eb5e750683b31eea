"""Projection on an NVIDIA GPU, from device memory to device memory; imported only when asked for.

Where poses are shared, or differ by a heading, lookups are planned on the CPU, sent once and kept
on the device. A pose of its own for each image needs none: the kernel finds its points itself.
"""

# Numba's kernels are launched as kernel[blocks, threads](...), which type checkers do not know.
# pyright: reportIndexIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import config, cuda
from numpy.typing import NDArray

from bevgen.errors import BevgenError, DeviceError, InputError
from bevgen.geometry import Pose
from bevgen.projection.cuda_kernels import IMAGES, THREADS, TILE, Format, hiding_of, kernels_of
from bevgen.projection.lookup import SUBPIXEL
from bevgen.projection.planning import FOUR_SAMPLES, Planner, cameras_of, model_of

if TYPE_CHECKING:
    from bevgen.projection.masking import Mask

SIMULATED = bool(getattr(config, "ENABLE_CUDASIM", False))
WORDS, PACKED = np.dtype(np.uint64), np.dtype(np.uint32)
"""What bytes are read as, and written as, where they can be; see `Format`."""
Scaling = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Mean and standard deviation of each channel."""


@cache
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
def named_failures() -> Iterator[None]:
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


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array in a GPU's memory.

    Attributes
    ----------
    shape, dtype
        As NumPy's.
    contiguous
        Whether it is C-contiguous.
    start
        Where it begins, as kernels take it: an address; in the simulator the array itself, flat.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    contiguous: bool
    start: Any


def as_device_array(array: Any) -> DeviceArray:
    """Describe an array on the device, such as a torch tensor, to kernels.

    What it needs beyond a glance, Numba does: it waits for the stream of arrays that name one.
    """
    if SIMULATED:
        contiguous = array.is_c_contiguous()
        return DeviceArray(tuple(array.shape), array.dtype, contiguous, array.reshape(-1))
    require_gpu()
    interface, contiguous = array.__cuda_array_interface__, True
    if any(interface.get(name) is not None for name in ("mask", "strides", "stream")):
        contiguous = cuda.as_cuda_array(array).is_c_contiguous()
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    return DeviceArray(shape, dtype, contiguous, interface["data"][0])


def to_host(array: Any) -> NDArray[Any]:
    """Copy an array from the device."""
    require_gpu()
    return (array if SIMULATED else cuda.as_cuda_array(array)).copy_to_host()


def new(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return an array on the device, its content undefined."""
    return cuda.device_array(shape, dtype)


@named_failures()
@cuda.require_context
def sample(
    panoramas: DeviceArray,
    planner: Planner,
    poses: NDArray[np.float64],
    bevs: DeviceArray,
    scaling: Scaling | None = None,
) -> None:
    """Project a batch from device memory to device memory; nothing is waited for.

    Parameters
    ----------
    panoramas : (N, H, W, C) uint8 or float32, C-contiguous
    planner
        What makes the lookups.
    poses : (N, 4) float64
        Height, heading, pitch and roll of each image.
    bevs : (N, size, size, C), or with a scaling (N, C, size, size), written
    scaling
        Store ``(value / 255 - mean) / std``, channels apart, instead of the values.
    """
    _, height, width, channels = panoramas.shape
    source = Source(panoramas, 0, height * width)
    launch(source, channels, planner, poses, bevs, scaling, _own_queue())


@named_failures()
@cuda.require_context
def hide(
    mask: Mask,
    planner: Planner,
    poses: NDArray[np.float64],
    bevs: DeviceArray,
    scaling: Scaling | None = None,
) -> Any:
    """Make black what a mask hides of BEVs as `sample` writes them; nothing is waited for.

    The mask is projected as one panorama that all poses share.

    Returns
    -------
    (N, size, size) bool on the device
        What is hidden.
    """
    count, size, queue = len(poses), planner.grid.size, _own_queue()
    channels = math.prod(bevs.shape) // (count * size**2)
    parts, hidden = (new((count, size, size), np.dtype(kind)) for kind in (np.float32, np.bool_))
    shared = as_device_array(_hidden_pixels(mask, planner.view.height, planner.view.width))
    launch(Source(shared, 0, 0), 1, planner, poses, as_device_array(parts), None, queue)
    hiding_of(bevs.dtype).launch(
        (math.ceil(size**2 / THREADS), count, 1), queue.stream,
        _start(parts), size**2, channels, scaling is not None,
        _start(_scaling(_frozen(scaling), channels)), _start(hidden), bevs.start,
    )  # fmt: skip
    return hidden


@lru_cache(maxsize=4)
def _hidden_pixels(mask: Mask, height: int, width: int) -> Any:
    """Return 1 where a mask hides pixels of panoramas, else 0, (height * width,), on the device."""
    return cuda.to_device((~mask.fitted((height, width))).astype(np.float32).ravel())


class Queue:
    """A stream, and memory for what differs between the images of a launch.

    What is sent overwrites what was sent before, after the kernels that read it: the stream keeps
    their order. So one thread alone may use it.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._room: Any = None

    def send(self, values: NDArray[Any]) -> Any:
        """Return where values lie on the device for the kernels that are launched next."""
        if SIMULATED:
            return cuda.to_device(values.ravel())
        if self._room is None or self._room.nbytes < values.nbytes:
            self._room = cuda.device_array(2 * values.nbytes, np.uint8)
        # As an array's own `copy_to_device` does, in a tenth of the time.
        cuda.cudadrv.driver.host_to_device(self._room, values, values.nbytes, self.stream)
        return _start(self._room)


_own = threading.local()


def _own_queue() -> Queue:
    """Return this thread's queue of the stream that all wait for."""
    if not hasattr(_own, "queue"):
        _own.queue = Queue(0 if SIMULATED else cuda.default_stream())
    return _own.queue


class Source(NamedTuple):
    """Panoramas on the device.

    Attributes
    ----------
    values
        Of all of them, one after another.
    skipped, pixels
        Of each panorama: pixels before the first one that is there, and how many are there; 0 if
        all are the same one.
    """

    values: DeviceArray
    skipped: int
    pixels: int


def launch(
    source: Source,
    channels: int,
    planner: Planner,
    poses: NDArray[np.float64],
    bevs: DeviceArray,
    scaling: Scaling | None,
    queue: Queue,
) -> None:
    """Launch kernels for runs of images whose poses are alike."""
    values, stride, offset = source.values, source.pixels * channels, source.skipped * channels
    view, size, planar = planner.view, planner.grid.size, scaling is not None
    read, written = values.dtype, bevs.dtype
    if channels > 2 and _in_words(values, stride, offset):
        read, stride, offset = WORDS, stride // 8, offset // 8
    packed = PACKED if read == WORDS and channels == 3 and _can_pack(bevs, size) else written
    panoramas = values.start.view(read) if SIMULATED else values.start, stride, -offset
    stored = size, _start(_scaling(_frozen(scaling), channels)), bevs.start
    tiles = math.ceil(size / TILE[0]), math.ceil(size / TILE[1])
    for start, stop, level, each in _runs(planner, poses.tobytes()):
        shifting = isinstance(each, np.ndarray)
        own = queue.send(each) if shifting else each
        if level is None:
            kernels_of(Format(channels, read, packed, planar)).posed.launch(
                (*tiles, stop - start), queue.stream,
                *panoramas, start, view.width, view.height, view.wraps,
                own, _start(_model(planner)), planner.antialias, *stored,
            )  # fmt: skip
            continue
        lookup = _on_device(planner, level)
        images = *panoramas, start, stop, view.width, view.height
        groups = math.ceil((stop - start) / IMAGES)
        kernels_of(Format(channels, read, packed, planar, shifting)).centres.launch(
            (*tiles, groups), queue.stream, *images, lookup.points, own, *stored
        )
        if lookup.averaged_pixels:
            kernels_of(Format(channels, read, written, planar, shifting)).means.launch(
                (math.ceil(lookup.averaged_pixels / THREADS), 1, groups), queue.stream,
                *images, lookup.averaged, lookup.first, lookup.samples, lookup.averaged_pixels,
                own, *stored,
            )  # fmt: skip


class DeviceLookup(NamedTuple):
    """A lookup on the device: where its arrays begin, and the arrays.

    Attributes
    ----------
    points : (2, size * size) int32
        Columns, rows.
    averaged, first
        As of a `Lookup`.
    samples : (2, samples) int32
        Columns, rows.
    """

    points: Any
    averaged: Any
    first: Any
    samples: Any
    averaged_pixels: int
    arrays: tuple[Any, ...]


@lru_cache(maxsize=8)
def _on_device(planner: Planner, height: float) -> DeviceLookup:
    """Return the lookup of a level camera that looks north."""
    lookup, _ = planner.lookup(Pose(height))
    points = np.concatenate([lookup.columns, lookup.rows])
    samples = np.concatenate([lookup.sample_columns, lookup.sample_rows])
    arrays = tuple(map(cuda.to_device, (points, lookup.averaged, lookup.first, samples)))
    return DeviceLookup(*map(_start, arrays), len(lookup.averaged), arrays)


class _Run(NamedTuple):
    """Images that follow each other and are projected by one launch.

    Attributes
    ----------
    start, stop
        The first, and the one after the last.
    level
        The height of cameras without tilt, which share a lookup; None if each looks its own way.
    each
        Columns to add to the lookup, one number or (n,) int32; without one cameras, (n, 10)
        float64.
    """

    start: int
    stop: int
    level: float | None
    each: int | NDArray[Any]


@lru_cache(maxsize=8)
def _runs(planner: Planner, poses: bytes) -> list[_Run]:
    """Divide images by their poses, (n, 4) float64."""
    rows, runs = np.frombuffer(poses).reshape(-1, 4), []
    own = (rows[:, 2:].any(axis=1) | (not planner.view.wraps)) & (not planner.compat)
    key = np.where(own, -1.0, rows[:, 0])  # heights are positive
    edges = [0, *(np.flatnonzero(key[1:] != key[:-1]) + 1).tolist(), len(key)]
    for start, stop in pairwise(edges):
        if own[start]:
            runs.append(_Run(start, stop, None, cameras_of(rows[start:stop])))
            continue
        shifts = _shifts(planner, rows[start:stop])
        varying = bool((shifts != shifts[0]).any())
        each = shifts if varying else int(shifts[0])
        runs.append(_Run(start, stop, float(key[start]), each))
    return runs


def _shifts(planner: Planner, poses: NDArray[np.float64]) -> NDArray[np.int32]:
    """Columns to add to a lookup, as `Planner.lookup` returns them."""
    turn = 0 if planner.compat else planner.view.width * SUBPIXEL
    shifts = np.rint(-poses[:, 1] / 360 * turn).astype(np.int64)
    return (shifts % max(turn, 1)).astype(np.int32)


def _in_words(values: DeviceArray, stride: int, offset: int) -> bool:
    """Whether panoramas can be read in words of 8 bytes."""
    aligned = stride % 8 == 0 and offset % 8 == 0 and (SIMULATED or values.start % 8 == 0)
    return values.dtype == np.uint8 and aligned and stride < 1 << 31


def _can_pack(bevs: DeviceArray, size: int) -> bool:
    """Whether BEVs can be stored in words of 4 bytes, by whole warps; the simulator has none."""
    whole = size % TILE[0] == 0 and size % TILE[1] == 0
    return not SIMULATED and bevs.dtype == np.uint8 and whole and bevs.start % 4 == 0


def _start(array: Any) -> Any:
    """Where one of Numba's arrays begins, as kernels take it; see `DeviceArray`."""
    return array.reshape(-1) if SIMULATED else array.device_ctypes_pointer.value


@lru_cache(maxsize=8)
def _model(planner: Planner) -> Any:
    """Return what `posed` takes of a camera model, on the device.

    Its numbers, metres per BEV pixel, and the square that few samples reach.
    """
    model, resolution = model_of(planner.view), planner.grid.resolution
    footprint = resolution**2 * model.columns_per_radian * model.rows_per_radian
    return cuda.to_device(np.array([*model[2:8], resolution, (footprint / FOUR_SAMPLES) ** 2]))


def _frozen(scaling: Scaling | None) -> tuple[bytes, bytes] | None:
    return None if scaling is None else (scaling[0].tobytes(), scaling[1].tobytes())


@lru_cache(maxsize=8)
def _scaling(scaling: tuple[bytes, bytes] | None, channels: int) -> Any:
    """Return scale and bias, from 0 to 255 to what is stored: (2, C) float32 on the device."""
    if scaling is None:
        return cuda.to_device(np.repeat(np.float32([1, 0]), channels))
    mean, std = (np.frombuffer(values, np.float32) for values in scaling)
    return cuda.to_device(np.concatenate([1 / (255 * std), -mean / std], dtype=np.float32))
