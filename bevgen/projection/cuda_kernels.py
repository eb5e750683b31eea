"""The kernels of `bevgen.projection.cuda`: the bodies of `planning` and `sampling`, many at a time.

A kernel is made for a format: how many channels, how they are read, how they are written. It takes
arrays by their addresses, which cost the host little to say. Threads of a warp take a small tile of
the BEV, not a line: its points lie together on the panorama whichever way they look, so that one
read serves many. A thread takes the same pixel of several images, and finds its place on the
panorama once.

uint8 panoramas of three or four channels are read in words of 8 bytes, at most two for both
neighbours of a row. The same loops run in Numba's simulator.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
# pyright: reportOperatorIssue=false, reportPrivateImportUsage=false

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, from_dtype, types

from bevgen.compiling import njit
from bevgen.projection.lookup import HIDDEN, SUBPIXEL
from bevgen.projection.planning import (
    Camera,
    CameraModel,
    axis_distances2,
    locate,
    sample_count,
    spread_sample,
    subpixels,
)
from bevgen.projection.sampling import neighbours, shifted

WARP_ACROSS, WARP_DOWN = 8, 4
WARPS_ACROSS, WARPS_DOWN = 4, 2
TILE = WARP_ACROSS * WARPS_ACROSS, WARP_DOWN * WARPS_DOWN
"""BEV pixels of a block: columns, rows."""
THREADS = TILE[0] * TILE[1]
IMAGES = 8
"""Images that one thread takes."""


class Format(NamedTuple):
    """What a kernel is made for.

    Attributes
    ----------
    channels
        1 to 4.
    source
        What panoramas are read as: uint8, float32, or uint64 for bytes in words: of at least three
        channels, each image and the first byte of all aligned to 8 bytes.
    result
        What BEVs are stored as: uint8, float16, float32, or uint32 for four neighbouring pixels of
        three bytes as three words.
    planar
        Whether channels are stored apart, (C, pixels), as ``value * scale + bias``; else (pixels,
        C), as they are.
    shifting
        Whether images differ by a heading.
    """

    channels: int
    source: np.dtype[Any]
    result: np.dtype[Any]
    planar: bool = False
    shifting: bool = False


class Kernel:
    """A kernel, compiled when it is first launched.

    Attributes
    ----------
    body, signature
        The code, and the types of what it takes: integers, flags, and of arrays their addresses;
        in the simulator arrays themselves, flat.
    """

    def __init__(self, body: Callable[..., None], *signature: Any) -> None:
        self.body, self.signature = body, signature
        self._slots = ctypes.c_int64 * len(signature)

    @cached_property
    def _compiled(self) -> Any:
        return cuda.jit(self.signature)(self.body)

    @cached_property
    def _library(self) -> Any:
        """What has the driver's handle, one for each device; None if Numba keeps it elsewhere."""
        try:
            library = next(iter(self._compiled.overloads.values())).library
            int(library.get_cufunc().handle)
        except (AttributeError, StopIteration, TypeError):
            return None
        return library

    def launch(self, blocks: tuple[int, int, int], stream: Any, *arguments: Any) -> None:
        """Launch it on a stream, by blocks of THREADS, in the current context.

        By the driver's own call: Numba's takes the host several times as long.
        """
        if self._library is None:
            self._compiled[blocks, THREADS, stream](*arguments)
            return
        values = self._slots(*arguments)  # what is shorter is read from the first bytes
        first, size = ctypes.addressof(values), ctypes.sizeof(values)
        places = self._slots(*range(first, first + size, 8))
        cuda.cudadrv.driver.driver.cuLaunchKernel(
            int(self._library.get_cufunc().handle), *blocks, THREADS, 1, 1, 0, int(stream),
            ctypes.addressof(places), 0,
        )  # fmt: skip


class Kernels(NamedTuple):
    """The kernels of a format."""

    centres: Kernel
    means: Kernel
    posed: Kernel


@njit(inline="always")
def _tile_pixel():
    """BEV column and row of this thread."""
    thread = cuda.threadIdx.x
    lane, warp = thread % 32, thread // 32
    x = cuda.blockIdx.x * TILE[0] + warp % WARPS_ACROSS * WARP_ACROSS + lane % WARP_ACROSS
    y = cuda.blockIdx.y * TILE[1] + warp // WARPS_ACROSS * WARP_DOWN + lane // WARP_ACROSS
    return x, y


@njit(inline="always")
def _place(column, row, width, height, wraps):
    """Pixels around a point: numbers of the four in the image, and the way to the right and down.

    int32 and float32, said after each step: Numba would compute with 64 bits.
    """
    left, right, upper, lower, a, b = neighbours(column, max(row, 0), width, height, wraps)
    upper, lower = np.int32(upper * width), np.int32(lower * width)
    return (
        np.int32(upper + left),
        np.int32(upper + right),
        np.int32(lower + left),
        np.int32(lower + right),
        np.float32(a) * np.float32(1 / SUBPIXEL),
        np.float32(b) * np.float32(1 / SUBPIXEL),
    )


def _word_reader(channels: int) -> Any:
    """Return a device function: the bilinear values of a place, read in words."""
    size = np.int32(channels)
    one, two = 8 * channels, 16 * channels  # bits of a pixel, and of two
    mask, above_one = np.uint64((1 << one) - 1), np.uint64(one)
    highest, low, step = np.uint64(63), np.uint64(0xFFFFFFFF), np.uint64(1)

    @njit(inline="always")
    def bits(words, base, pixel, count):
        """``count`` bits from a pixel on; those above them are anything."""
        at = np.int32(pixel * size)
        shift = np.int32((at & 7) << 3)
        index = base + (at >> 3)
        more = index + (1 if shift + count > 64 else 0)
        first, second = words[np.uint64(index)], words[np.uint64(more)]  # unsigned: never wraps
        # Shifted by 64, if in two steps, a word is gone.
        return (first >> np.uint64(shift)) | ((second << step) << (highest - np.uint64(shift)))

    @njit(inline="always")
    def pair(words, base, left, right):
        """Bytes of two pixels; at a seam they come from two places."""
        if right == left + 1:
            return bits(words, base, left, two)
        return (bits(words, base, left, one) & mask) | (bits(words, base, right, one) << above_one)

    @njit(inline="always")
    def byte(lower, upper, number):
        word = lower if number < 4 else upper
        return np.float32(np.uint32((word >> np.uint32(8 * (number & 3))) & np.uint32(255)))

    @njit(inline="always")
    def channel(above, above_4, below, below_4, a, b, c):
        left, right = byte(above, above_4, c), byte(above, above_4, c + size)
        upper = left + (right - left) * a
        left, right = byte(below, below_4, c), byte(below, below_4, c + size)
        lower = left + (right - left) * a
        return upper + (lower - upper) * b

    @njit(inline="always")
    def read(words, base, place):
        ul, ur, ll, lr, a, b = place
        above, below = pair(words, base, ul, ur), pair(words, base, ll, lr)
        u0, l0 = np.uint32(above & low), np.uint32(below & low)
        u4, l4 = np.uint32(above >> np.uint64(32)), np.uint32(below >> np.uint64(32))
        fourth = channel(u0, u4, l0, l4, a, b, 3) if size == 4 else np.float32(0)
        return (
            channel(u0, u4, l0, l4, a, b, 0),
            channel(u0, u4, l0, l4, a, b, 1),
            channel(u0, u4, l0, l4, a, b, 2),
            fourth,
        )

    return read


def _value_reader(channels: int) -> Any:
    """Return a device function: the bilinear values of a place, read one by one."""
    size = channels

    @njit(inline="always")
    def value(values, base, pixel, c):
        return np.float32(values[np.uint64(base + pixel * size + c)])

    @njit(inline="always")
    def channel(values, base, place, c):
        ul, ur, ll, lr, a, b = place
        left, right = value(values, base, ul, c), value(values, base, ur, c)
        upper = left + (right - left) * a
        left, right = value(values, base, ll, c), value(values, base, lr, c)
        lower = left + (right - left) * a
        return upper + (lower - upper) * b

    @njit(inline="always")
    def read(values, base, place):
        zero = np.float32(0)
        second = channel(values, base, place, 1) if size > 1 else zero
        third = channel(values, base, place, 2) if size > 2 else zero
        fourth = channel(values, base, place, 3) if size > 3 else zero
        return channel(values, base, place, 0), second, third, fourth

    return read


def _writer(form: Format) -> Any:
    """Return a device function: store four values (those beyond the channels are left out)."""
    channels = form.channels
    half = np.float32(0.5 if form.result in (np.uint8, np.uint32) else 0.0)  # a cast cuts off

    @njit(inline="always")
    def interleaved(bevs, image, pixel, pixels, values, scaling):
        at = np.uint64((image * pixels + pixel) * channels)
        bevs[at] = values[0] + half
        if channels > 1:
            bevs[at + np.uint64(1)] = values[1] + half
        if channels > 2:
            bevs[at + np.uint64(2)] = values[2] + half
        if channels > 3:
            bevs[at + np.uint64(3)] = values[3] + half

    @njit(inline="always")
    def planar(bevs, image, pixel, pixels, values, scaling):
        at = image * channels * pixels + pixel
        bevs[np.uint64(at)] = values[0] * scaling[0] + scaling[channels]
        if channels > 1:
            bevs[np.uint64(at + pixels)] = values[1] * scaling[1] + scaling[channels + 1]
        if channels > 2:
            bevs[np.uint64(at + 2 * pixels)] = values[2] * scaling[2] + scaling[channels + 2]
        if channels > 3:
            bevs[np.uint64(at + 3 * pixels)] = values[3] * scaling[3] + scaling[channels + 3]

    @njit(inline="always")
    def packed(bevs, image, pixel, pixels, values, scaling):
        """Each thread of four passes its bytes to the one before it; three of them store."""
        own = (
            np.uint32(values[0] + half)
            | (np.uint32(values[1] + half) << np.uint32(8))
            | (np.uint32(values[2] + half) << np.uint32(16))
        )
        following = np.uint32(cuda.shfl_down_sync(0xFFFFFFFF, np.int32(own), 1))
        k = cuda.threadIdx.x & 3
        if k < 3:
            word = (own >> np.uint32(8 * k)) | (following << np.uint32(24 - 8 * k))
            bevs[np.uint64((image * pixels + pixel - k) // 4 * 3 + k)] = np.uint32(word)

    return packed if form.result == np.uint32 else planar if form.planar else interleaved


@cache
def kernels_of(form: Format) -> Kernels:
    """Make the kernels of a format."""
    words, shifting = form.source == np.uint64, form.shifting
    read = (_word_reader if words else _value_reader)(form.channels)
    write = _writer(form)

    @njit(inline="always")
    def own_shift(shifts, image):
        return shifts[image]

    @njit(inline="always")
    def shared_shift(shift, image):
        return shift

    shift_of = own_shift if shifting else shared_shift

    def centres(
        panoramas, stride, offset, start, stop, width, height, points, shifts, size, scaling, bevs
    ):
        """Write the bilinear value of every BEV pixel's one point, black where it is hidden."""
        x, y = _tile_pixel()
        if x >= size or y >= size:
            return
        pixel = y * size + x
        column, row = points[pixel], points[size * size + pixel]
        first = start + cuda.blockIdx.z * IMAGES
        shift = shift_of(shifts, first - start)
        place = _place(shifted(column, shift, width), row, width, height, True)
        zero = np.float32(0)
        for image in range(first, min(first + IMAGES, stop)):
            if shifting and shift_of(shifts, image - start) != shift:
                shift = shift_of(shifts, image - start)
                place = _place(shifted(column, shift, width), row, width, height, True)
            values = (zero, zero, zero, zero)
            if row != HIDDEN:
                values = read(panoramas, image * stride + offset, place)
            write(bevs, image, pixel, size * size, values, scaling)

    def means(
        panoramas, stride, offset, start, stop, width, height,
        averaged, first, samples, pixels, shifts, size, scaling, bevs,
    ):  # fmt: skip
        """Write the mean bilinear value of the BEV pixels with several points."""
        m = cuda.grid(1)
        if m >= pixels:
            return
        count = first[pixels]
        share = np.float32(1) / np.float32(first[m + 1] - first[m])
        begin = start + cuda.blockIdx.z * IMAGES
        for image in range(begin, min(begin + IMAGES, stop)):
            shift = shift_of(shifts, image - start)
            v0 = v1 = v2 = v3 = np.float32(0)
            for k in range(first[m], first[m + 1]):
                column = shifted(samples[k], shift, width)
                place = _place(column, samples[count + k], width, height, True)
                w0, w1, w2, w3 = read(panoramas, image * stride + offset, place)
                v0, v1, v2, v3 = v0 + w0, v1 + w1, v2 + w2, v3 + w3
            values = (v0 * share, v1 * share, v2 * share, v3 * share)
            write(bevs, image, averaged[m], size * size, values, scaling)

    def posed(
        panoramas, stride, offset, start, width, height, wraps,
        cameras, model, antialias, size, scaling, bevs,
    ):  # fmt: skip
        """Write BEVs of images with a camera each, whose points are found here."""
        x, y = _tile_pixel()
        if x >= size or y >= size:
            return
        number = cuda.blockIdx.z
        own = number * 10
        camera = Camera(
            cameras[own], cameras[own + 1], cameras[own + 2], cameras[own + 3], cameras[own + 4],
            cameras[own + 5], cameras[own + 6], cameras[own + 7], cameras[own + 8],
            cameras[own + 9],
        )  # fmt: skip
        lens = CameraModel(
            width, height, model[0], model[1], model[2], model[3], model[4], model[5], wraps
        )
        resolution = model[6]
        east, north = (x + 0.5 - size / 2) * resolution, (size / 2 - y - 0.5) * resolution
        column, row, shown = locate(east, north, camera, lens)
        zero = np.float32(0)
        v0 = v1 = v2 = v3 = zero
        base = (start + number) * stride + offset
        if shown:
            count = 1
            if antialias:
                rho2, distance2 = axis_distances2(east, north, camera)
                # Few are as near as this, and the squares can tell.
                if rho2 * distance2 * distance2 < model[7] * camera.height * camera.height:
                    count = sample_count(east, north, resolution, camera, lens)
            for k in range(count):
                own_column, own_row, own_shown = column, row, True
                if count > 1:
                    e, n = spread_sample(k, count, east, north, resolution)
                    own_column, own_row, own_shown = locate(e, n, camera, lens)
                    if not own_shown:
                        own_column, own_row = column, row
                place = _place(subpixels(own_column), subpixels(own_row), width, height, wraps)
                w0, w1, w2, w3 = read(panoramas, base, place)
                v0, v1, v2, v3 = v0 + w0, v1 + w1, v2 + w2, v3 + w3
            share = np.float32(1) / np.float32(count)
            v0, v1, v2, v3 = v0 * share, v1 * share, v2 * share, v3 * share
        write(bevs, start + number, y * size + x, size * size, (v0, v1, v2, v3), scaling)

    source, result = _array_of(form.source), _array_of(form.result)
    ints, floats, doubles = map(_array_of, (np.int32, np.float32, np.float64))
    integer, flag = types.int64, types.boolean
    images, view = (source, integer, integer, integer), (integer, integer)
    stored = integer, floats, result
    shifts = ints if shifting else types.int32
    return Kernels(
        Kernel(centres, *images, integer, *view, ints, shifts, *stored),
        Kernel(means, *images, integer, *view, ints, ints, ints, integer, shifts, *stored),
        Kernel(posed, *images, *view, flag, doubles, doubles, flag, *stored),
    )


@cache
def hiding_of(result: np.dtype[Any]) -> Kernel:
    """Make the kernel that hides parts of BEVs of a dtype."""

    def hide_parts(parts, pixels, channels, planar, scaling, hidden, bevs):
        """Write what black is stored as where a mask's projection is above 0."""
        pixel, image = cuda.grid(2)
        if pixel >= pixels:
            return
        own = image * pixels + pixel
        hidden[own] = parts[own] > 0
        if hidden[own]:
            for c in range(channels):
                at = (image * channels + c) * pixels + pixel if planar else own * channels + c
                bevs[at] = scaling[channels + c]

    floats, sizes = _array_of(np.float32), (types.int64, types.int64)
    arrays = floats, _array_of(np.uint8), _array_of(result)
    return Kernel(hide_parts, floats, *sizes, types.boolean, *arrays)


def _array_of(dtype: Any) -> Any:
    """Type of an array, said by its address."""
    return types.CPointer(from_dtype(np.dtype(dtype)))
