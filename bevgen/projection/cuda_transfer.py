"""From host memory through a GPU to host memory; the twin of `bevgen.projection.cpu`."""

# Numba's arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from bevgen.geometry import Pose, needed_rows
from bevgen.projection.cuda import (
    Queue,
    Source,
    as_device_array,
    launch,
    named_failures,
    require_gpu,
)
from bevgen.projection.planning import Planner

CHUNK_BYTES = 32 << 20  # of panoramas under way to the device at once


@named_failures()
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
        self.queue = Queue(cuda.stream())
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
        stream = self.queue.stream
        pinned = self.pinned[0][: images.nbytes].view(images.dtype).reshape(images.shape)
        _copy(images, pinned)
        values, results = (
            array[:size].view(images.dtype)
            for array, size in zip(self.device, (images.nbytes, bevs.nbytes), strict=True)
        )
        values.copy_to_device(pinned.reshape(-1), stream=stream)
        width, channels = images.shape[2:]
        source = Source(as_device_array(values), first * width, images.shape[1] * width)
        launch(source, channels, planner, poses, as_device_array(results), None, self.queue)
        fetched = self.pinned[1][: bevs.nbytes].view(bevs.dtype)
        results.copy_to_host(fetched, stream=stream)

        def collect() -> None:
            stream.synchronize()
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


_kept = threading.local()


def _slots(*sizes: int) -> tuple[_Slot, _Slot]:
    """Return this thread's buffers; pinning memory takes long, so they are kept if large enough."""
    if any(size > had for size, had in zip(sizes, getattr(_kept, "sizes", (0, 0)), strict=True)):
        _kept.sizes, _kept.slots = (0, 0), None  # give back before taking
        _kept.slots = _Slot(*sizes), _Slot(*sizes)
        _kept.sizes = sizes
    return _kept.slots
