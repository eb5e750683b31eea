"""Per-pixel bodies and the loops that run them on the CPU: serial, nogil, compiled at first use.

Everything compiled lives in this one file, because Numba's disk cache does not notice edits in a
callee of another file. Arguments are checked by the callers, never here.

A *lookup* says where on the panorama each BEV pixel looks. ``columns`` and ``rows`` (pixels,) int32
hold one point for each, as a rule all there is to it. Near the nadir, where a BEV pixel covers many
panorama pixels, it is the mean over several points instead (anti-aliasing): pixel ``averaged[m]``
over ``sample_columns`` and ``sample_rows`` from ``first[m]`` to ``first[m + 1]``, all int32.

Points are panorama coordinates with pixel centres at integers, in units of 1/SUBPIXEL pixel: so
quarter turns and shifts are exact. Columns that do not wrap and rows lie within the outermost
pixels' centres, and the row of what the panorama does not show is HIDDEN.

uint8 is interpolated with integers, float32 with floats; the two differ by less than a grey level.
Of uint8 images with three or four channels nearly all pixels take vector instructions: one 8-byte
load for each of two rows covers both neighbours.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from bevgen.projection.compiling import njit

SUBPIXEL_BITS = 12
SUBPIXEL = 1 << SUBPIXEL_BITS
HIDDEN = -1
# Weights of uint8 neighbours are int16 and sum to this, so that a bilinear value takes int32.
ONE_BITS = 14
ONE = 1 << ONE_BITS
# BEV pixels that cover more panorama pixels than this are the mean of four samples, or of eight.
# Reading more costs more than it gains: 4 times as many samples gain 1 dB within 5 m.
FOUR_SAMPLES, EIGHT_SAMPLES = 20.0, 128.0
GOLDEN = 0.6180339887498949
AHEAD = 32
BLOCK = 512  # points whose weights wait in the first-level cache


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


# Where a BEV pixel looks


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def arctan2(y: float, x: float) -> float:
    """Angle of (x, y) in radians, -pi to pi, within 1e-12: without branches, for vector code.

    The first octant is turned by -pi/8, and a polynomial fitted at Chebyshev nodes does the rest.
    """
    size_x, size_y = abs(x), abs(y)
    steep = size_y > size_x
    longer = size_y if steep else size_x
    shorter = size_x if steep else size_y
    along = longer * 0.9238795325112867 + shorter * 0.3826834323650898  # cos, sin of pi/8
    across = shorter * 0.9238795325112867 - longer * 0.3826834323650898
    t = across / (along if along > 0 else 1.0)
    z = t * t
    series = -0.03770164591082783
    series = series * z + 0.0697700007589979
    series = series * z - 0.08993216152080998
    series = series * z + 0.11103534795047523
    series = series * z - 0.14285391252848226
    series = series * z + 0.1999999318872209
    series = series * z - 0.3333333327838304
    series = series * z + 0.9999999999992709
    angle = (math.pi / 8 if along > 0 else 0.0) + t * series
    angle = math.pi / 2 - angle if steep else angle
    angle = math.pi - angle if x < 0 else angle
    return -angle if y < 0 else angle


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def look(x: float, y: float, camera: Camera, lens: Lens) -> tuple[float, float, bool]:
    """Column and row (pixel centres at integers) of ground point (x, y); True if it is shown.

    Rows, and columns that do not wrap, are clamped to the outermost pixels' centres.
    """
    z = -camera.height
    right = camera.right_x * x + camera.right_y * y + camera.right_z * z
    forward = camera.forward_x * x + camera.forward_y * y + camera.forward_z * z
    up = camera.up_x * x + camera.up_y * y + camera.up_z * z
    azimuth = arctan2(right, forward)
    azimuth = azimuth - 2 * math.pi if azimuth >= math.pi else azimuth
    elevation = arctan2(up, math.sqrt(right * right + forward * forward))
    # No rounding may take straight down out of a full sphere.
    elevation = min(max(elevation, -math.pi / 2), math.pi / 2)
    column = (azimuth - lens.left) * lens.columns_per_radian - 0.5
    row = (lens.top - elevation) * lens.rows_per_radian - 0.5
    row = min(max(row, 0.0), lens.height - 1.0)
    shown = (lens.bottom <= elevation) & (elevation <= lens.top)
    if not lens.wraps:
        shown = shown & (lens.left <= azimuth) & (azimuth <= lens.right)
        column = min(max(column, 0.0), lens.width - 1.0)
    return column, row, shown


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def subpixels(coordinate: float) -> int:
    """Nearest lookup unit of a coordinate of -1 or more."""
    return np.int32(np.int32(coordinate * SUBPIXEL + (SUBPIXEL + 0.5)) - SUBPIXEL)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def look_along(
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    camera: Camera,
    lens: Lens,
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> None:
    """Write the lookup points of ground points."""
    for k in range(len(xs)):
        column, row, shown = look(xs[k], ys[k], camera, lens)
        columns[k] = subpixels(column)
        rows[k] = subpixels(row) if shown else HIDDEN


@njit(cache=True, nogil=True)
def plan_points(
    size: int, resolution: float, camera: Camera, lens: Lens
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return ``columns`` and ``rows`` of a lookup: where the centres of all BEV pixels look.

    Parameters
    ----------
    size, resolution
        BEV pixels on each side, metres per pixel.
    camera, lens
        Where from, and how the panorama shows it.
    """
    columns, rows = np.empty(size * size, np.int32), np.empty(size * size, np.int32)
    xs = (np.arange(size) + 0.5 - size / 2) * resolution
    ys = np.empty(size)
    for i in range(size):
        ys[:] = (size / 2 - i - 0.5) * resolution
        row = slice(i * size, (i + 1) * size)
        look_along(xs, ys, camera, lens, columns[row], rows[row])
    return columns, rows


@njit(cache=True, nogil=True, error_model="numpy")
def axis_distances2(x: float, y: float, camera: Camera) -> tuple[float, float]:
    """Squared distances of ground point (x, y): to the camera's vertical axis, to the camera."""
    distance2 = x * x + y * y + camera.height * camera.height
    up = camera.up_x * x + camera.up_y * y - camera.up_z * camera.height
    return max(distance2 - up * up, 1e-12), distance2


@njit(cache=True, nogil=True, error_model="numpy")
def sample_count(x: float, y: float, resolution: float, camera: Camera, lens: Lens) -> int:
    """How many panorama points the mean over the BEV pixel at (x, y) takes: 1, 4 or 8.

    The pixel's footprint is ``resolution / rho`` radians of azimuth (rho: distance from the
    camera's vertical axis) by ``resolution * height / distance^2`` of elevation.
    """
    rho2, distance2 = axis_distances2(x, y, camera)
    columns = lens.columns_per_radian * resolution / math.sqrt(rho2)
    rows = lens.rows_per_radian * resolution * camera.height / distance2
    columns = min(columns, float(lens.width))
    area = columns * rows
    return 8 if area > EIGHT_SAMPLES else 4 if area > FOUR_SAMPLES else 1


@njit(cache=True, nogil=True, error_model="numpy")
def count_samples(
    size: int,
    resolution: float,
    camera: Camera,
    lens: Lens,
    rows: NDArray[np.int32],
    counts: NDArray[np.uint8],
) -> None:
    """Write `sample_count` of the shown pixels that need several samples, 0 of the others."""
    # Whether columns * rows > FOUR_SAMPLES, which few reach, the squares can tell.
    footprint = lens.columns_per_radian * resolution * lens.rows_per_radian * resolution
    bound = (footprint * camera.height / FOUR_SAMPLES) ** 2
    for i in range(size):
        y = (size / 2 - i - 0.5) * resolution
        row_counts, row_rows = counts[i * size : (i + 1) * size], rows[i * size : (i + 1) * size]
        some = 0
        for j in range(size):
            x = (j + 0.5 - size / 2) * resolution
            rho2, distance2 = axis_distances2(x, y, camera)
            near = (rho2 * distance2 * distance2 < bound) & (row_rows[j] != HIDDEN)
            row_counts[j] = near
            some += near
        for j in range(size if some else 0):
            if row_counts[j]:
                x = (j + 0.5 - size / 2) * resolution
                count = sample_count(x, y, resolution, camera, lens)
                row_counts[j] = count if count > 1 else 0


@njit(cache=True, nogil=True, error_model="numpy")
def spread_samples(
    x: float,
    y: float,
    resolution: float,
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
) -> None:
    """Spread the samples of the BEV pixel at (x, y) over its area.

    A rank-1 lattice, symmetric about the centre and laid along the direction to the camera, so that
    it turns with the picture.
    """
    r = math.sqrt(x * x + y * y)
    radial_x, radial_y = (x / r, y / r) if r > 0 else (0.0, 1.0)
    count = len(xs)
    for k in range(count):
        turn = (k - (count - 1) / 2) * GOLDEN
        along = (turn - math.floor(turn + 0.5)) * resolution
        across = ((k + 0.5) / count - 0.5) * resolution
        xs[k] = x + along * radial_x + across * radial_y
        ys[k] = y + along * radial_y - across * radial_x


@njit(cache=True, nogil=True, error_model="numpy")
def plan_samples(
    size: int,
    resolution: float,
    camera: Camera,
    lens: Lens,
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return ``averaged``, ``first``, ``sample_columns`` and ``sample_rows`` of a lookup.

    Arguments as in `plan_points`, and the ``columns`` and ``rows`` that it returned. The centre
    stands in for samples that the panorama does not show.
    """
    counts = np.empty(size * size, np.uint8)
    count_samples(size, resolution, camera, lens, rows, counts)
    averaged = np.flatnonzero(counts).astype(np.int32)
    first = np.zeros(len(averaged) + 1, np.int32)
    for m in range(len(averaged)):
        first[m + 1] = first[m] + counts[averaged[m]]
    samples = first[len(averaged)]
    xs, ys = np.empty(samples), np.empty(samples)
    for m in range(len(averaged)):
        i, j = divmod(averaged[m], size)
        x, y = (j + 0.5 - size / 2) * resolution, (size / 2 - i - 0.5) * resolution
        run = slice(first[m], first[m + 1])
        spread_samples(x, y, resolution, xs[run], ys[run])
    sample_columns, sample_rows = np.empty(samples, np.int32), np.empty(samples, np.int32)
    look_along(xs, ys, camera, lens, sample_columns, sample_rows)
    for m in range(len(averaged)):
        for n in range(first[m], first[m + 1]):
            if sample_rows[n] == HIDDEN:
                sample_columns[n], sample_rows[n] = columns[averaged[m]], rows[averaged[m]]
    return averaged, first, sample_columns, sample_rows


# What a BEV pixel shows


@njit(cache=True, nogil=True, inline="always")
def turned(column: int, shift: int, width: int) -> int:
    """Column after a turn of the camera, from half a pixel left of the first pixel's centre."""
    column += shift
    return column - width * SUBPIXEL if column >= width * SUBPIXEL - SUBPIXEL // 2 else column


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True)
def apply_to_floats(
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
        column = turned(columns[pixel], shift, width)
        left, right, upper, lower, a, b = neighbours(column, rows[pixel], width, height, wraps)
        for c in range(channels):
            bev[pixel, c] = blend(panorama, left, right, upper, lower, a, b, c)
    for m in range(len(averaged)):
        for c in range(channels):
            total = np.float32(0.0)
            for k in range(first[m], first[m + 1]):
                column = turned(sample_columns[k], shift, width)
                left, right, upper, lower, a, b = neighbours(
                    column, sample_rows[k], width, height, wraps
                )
                total += blend(panorama, left, right, upper, lower, a, b, c)
            bev[averaged[m], c] = total / np.float32(first[m + 1] - first[m])


# The same with integers, for uint8


@njit(cache=True, nogil=True)
def add_point(
    panorama: NDArray[np.uint8], column: int, row: int, wraps: bool, sums: NDArray[np.int32]
) -> None:
    """Add a point's bilinear values, times ONE, to ``sums`` (C,)."""
    height, width, channels = panorama.shape
    left, right, upper, lower, a, b = neighbours(column, row, width, height, wraps)
    both = (a * b + (1 << 2 * SUBPIXEL_BITS - ONE_BITS - 1)) >> 2 * SUBPIXEL_BITS - ONE_BITS
    a, b = a << ONE_BITS - SUBPIXEL_BITS, b << ONE_BITS - SUBPIXEL_BITS
    for c in range(channels):
        sums[c] += (
            panorama[upper, left, c] * (ONE - a - b + both)
            + panorama[upper, right, c] * (a - both)
            + panorama[lower, left, c] * (b - both)
            + panorama[lower, right, c] * both
        )


class Prepared(NamedTuple):
    """A block of points as the vector code wants them, (BLOCK,) int32 each.

    Index of the upper left neighbour's first channel; and, for the upper and the lower neighbours,
    two int16 weights: that of the left one in the lower half, that of the right one in the upper.
    """

    offsets: NDArray[np.int32]
    above: NDArray[np.int32]
    below: NDArray[np.int32]


@njit(cache=True, nogil=True)
def weigh(
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    shape: tuple[int, int, int],
    prepared: Prepared,
) -> int:
    """Prepare at most BLOCK points for vector code; returns how many have to do without it.

    Those are given no weights: they lie on the seam, or on the last pixels of all, where 8 bytes
    would reach beyond the panorama, or are hidden. Numba must be told that all is int32.

    Parameters
    ----------
    columns, rows : (n,) int32
        Part of a lookup.
    shift, shape
        Turn of the camera; H, W, C of the panorama.
    prepared
        Written.
    """
    height, width, channels = np.int32(shape[0]), np.int32(shape[1]), np.int32(shape[2])
    turn, limit = np.int32(width * SUBPIXEL), np.int32(width * SUBPIXEL - SUBPIXEL // 2)
    last_upper, last_left = np.int32(max(height - 2, 0)), np.int32(width - 2)
    last_offset = np.int32(height * width * channels - row_step(shape) - 8)
    round_off = np.int32(1 << 2 * SUBPIXEL_BITS - ONE_BITS - 1)
    offsets, above, below = prepared
    special = 0
    for k in range(len(columns)):
        column = np.int32(columns[k] + shift)
        column = np.int32(column - turn) if column >= limit else column
        left = np.int32(column >> SUBPIXEL_BITS)
        upper = np.int32(min(np.int32(rows[k] >> SUBPIXEL_BITS), last_upper))
        a = np.int32(column - np.int32(left << SUBPIXEL_BITS))
        b = np.int32(rows[k] - np.int32(upper << SUBPIXEL_BITS))
        both = np.int32(np.int32(np.int32(a * b) + round_off) >> 2 * SUBPIXEL_BITS - ONE_BITS)
        a = np.int32(a << ONE_BITS - SUBPIXEL_BITS)
        b = np.int32(b << ONE_BITS - SUBPIXEL_BITS)
        rest = np.int32(np.int32(np.int32(ONE - a) - b) + both)
        offset = np.int32(np.int32(np.int32(upper * width) + left) * channels)
        without = (left < 0) | (left > last_left) | (offset > last_offset) | (rows[k] < 0)
        keep = np.int32(0) if without else np.int32(-1)
        special += without
        offsets[k] = keep & offset
        above[k] = keep & (rest | np.int32(np.int32(a - both) << 16))
        below[k] = keep & (np.int32(b - both) | np.int32(both << 16))
    return special


@njit(cache=True, nogil=True)
def without_weights(prepared: Prepared, start: int, stop: int) -> bool:
    """Whether a point of these has to do without vector code."""
    for k in range(start, stop):  # noqa: SIM110 (Numba knows no generators here)
        if prepared.above[k] == 0 and prepared.below[k] == 0:
            return True
    return False


@njit(cache=True, nogil=True)
def row_step(shape: tuple[int, int, int]) -> int:
    """Bytes from an upper to a lower neighbour; of a single row both are the same."""
    return shape[1] * shape[2] if shape[0] > 1 else 0


_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT = ir.FloatType()
_SHORTS, _INTS = ir.VectorType(_SHORT, 8), ir.VectorType(_INT, 4)
_X86 = binding.get_process_triple().startswith(("x86_64", "amd64"))


def _mask(*lanes: int) -> Any:
    return ir.Constant(ir.VectorType(_INT, len(lanes)), lanes)


def _at(builder: Any, address: Any, index: int, kind: Any) -> Any:
    """Pointer to the entry of that index of an int32 array."""
    moved = builder.add(address, ir.Constant(address.type, 4 * index))
    return builder.inttoptr(moved, kind.as_pointer())


def _weighted_row(builder: Any, address: Any, pair: Any, channels: int) -> Any:
    """4 x int32: left and right pixel at an address, times their weights."""
    eight = ir.VectorType(_BYTE, 8)
    pixels = builder.load(builder.inttoptr(address, eight.as_pointer()), align=1)
    lanes = [lane for c in range(4) for lane in (c, min(channels + c, 7))]
    pixels = builder.zext(builder.shuffle_vector(pixels, pixels, _mask(*lanes)), _SHORTS)
    weights = builder.insert_element(ir.Constant(_INTS, ir.Undefined), pair, _INT(0))
    weights = builder.shuffle_vector(weights, weights, _mask(0, 0, 0, 0))
    weights = builder.bitcast(weights, _SHORTS)
    if _X86:  # one instruction, which LLVM does not find by itself
        kind = ir.FunctionType(_INTS, [_SHORTS, _SHORTS])
        multiply = builder.module.declare_intrinsic("llvm.x86.sse2.pmadd.wd", (), kind)
        return builder.call(multiply, [pixels, weights])
    left, right = (
        builder.mul(
            builder.sext(builder.shuffle_vector(pixels, pixels, half), _INTS),
            builder.sext(builder.shuffle_vector(weights, weights, half), _INTS),
        )
        for half in (_mask(0, 2, 4, 6), _mask(1, 3, 5, 7))
    )
    return builder.add(left, right)


def _weighted_point(builder: Any, arguments: Any, k: int, channels: int) -> Any:
    """4 x int32: bilinear values of a prepared point, times ONE; lanes beyond C hold anything."""
    panorama, step, offsets, above, below = arguments
    offset = builder.load(_at(builder, offsets, k, _INT))
    address = builder.add(panorama, builder.sext(offset, panorama.type))
    upper, lower = (builder.load(_at(builder, pairs, k, _INT)) for pairs in (above, below))
    return builder.add(
        _weighted_row(builder, address, upper, channels),
        _weighted_row(builder, builder.add(address, step), lower, channels),
    )


def _prefetch(builder: Any, arguments: Any, k: int) -> None:
    """Ask for the panorama's bytes of a point some way ahead, which come from far."""
    _, panorama, step, offsets = arguments[:4]
    pointer = _BYTE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    offset = builder.load(_at(builder, offsets, AHEAD + k, _INT))
    address = builder.add(panorama, builder.sext(offset, panorama.type))
    for row in (address, builder.add(address, step)):
        builder.call(prefetch, [builder.inttoptr(row, pointer), _INT(0), _INT(3), _INT(1)])


_ADDRESSES = (types.uintp, types.intp, types.uintp, types.uintp, types.uintp, types.uintp)


@intrinsic(prefer_literal=True)
def write_four(_: Any, channels: Any, panorama, step, offsets, above, below, bev) -> Any:
    """Write four BEV pixels of 3 or 4 channels (a literal) at ``bev``; the others are addresses."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        number, wide = channels.literal_value, ir.Constant(_INTS, [ONE_BITS] * 4)
        half, pixels = ir.Constant(_INTS, [ONE // 2] * 4), []
        _prefetch(builder, arguments, 0)
        for k in range(4):
            values = _weighted_point(builder, arguments[1:6], k, number)
            pixels.append(builder.lshr(builder.add(values, half), wide))
        pairs = [builder.shuffle_vector(*pixels[k : k + 2], _mask(*range(8))) for k in (0, 2)]
        values = builder.shuffle_vector(*pairs, _mask(*range(16)))
        values = builder.trunc(values, ir.VectorType(_BYTE, 16))
        lanes = _mask(*(4 * k + c for k in range(4) for c in range(number)))
        values = builder.shuffle_vector(values, values, lanes)
        builder.store(values, builder.inttoptr(arguments[6], values.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(channels, *_ADDRESSES), generate


@intrinsic(prefer_literal=True)
def write_mean(_: Any, channels: Any, panorama, step, offsets, above, below, bev, count) -> Any:
    """Write one BEV pixel, the mean of ``count`` points, some fours; else as `write_four`."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        number, start, count = channels.literal_value, arguments[3:6], arguments[7]
        sums = cgutils.alloca_once_value(builder, ir.Constant(_INTS, [0] * 4))
        with cgutils.for_range_slice(builder, _LONG(0), count, _LONG(4), inc=True) as (k, _):
            skip = builder.mul(k, _LONG(4))
            at = [*arguments[:3], *(builder.add(address, skip) for address in start)]
            for n in range(4):
                _prefetch(builder, at, n)
                value = _weighted_point(builder, at[1:], n, number)
                builder.store(builder.add(builder.load(sums), value), sums)
        scale = builder.fdiv(_FLOAT(1 / ONE), builder.sitofp(count, _FLOAT))
        floats = ir.VectorType(_FLOAT, 4)
        scales = builder.insert_element(ir.Constant(floats, ir.Undefined), scale, _INT(0))
        scales = builder.shuffle_vector(scales, scales, _mask(0, 0, 0, 0))
        values = builder.fmul(builder.sitofp(builder.load(sums), floats), scales)
        values = builder.fptosi(builder.fadd(values, ir.Constant(floats, [0.5] * 4)), _INTS)
        values = builder.trunc(values, ir.VectorType(_BYTE, 4))
        values = builder.shuffle_vector(values, values, _mask(*range(number)))
        builder.store(values, builder.inttoptr(arguments[6], values.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(channels, *_ADDRESSES, types.intp), generate


@njit(cache=True, nogil=True)
def write_points(
    panorama: NDArray[np.uint8],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    prepared: Prepared,
    bev: NDArray[np.uint8],
) -> None:
    """Write the bilinear values of at most BLOCK BEV pixels' points, 0 where hidden."""
    width, channels = panorama.shape[1], panorama.shape[2]
    step, source, target = row_step(panorama.shape), panorama.ctypes.data, bev.ctypes.data
    offsets, above, below = prepared
    at, upper, lower = offsets.ctypes.data, above.ctypes.data, below.ctypes.data
    count = special = len(columns)
    if takes_vectors(panorama):
        special = weigh(columns, rows, shift, panorama.shape, prepared)
        whole = count // 4 * 4
        for k in range(0, whole, 4):
            pixel, skip = target + k * channels, 4 * k
            if channels == 3:
                write_four(3, source, step, at + skip, upper + skip, lower + skip, pixel)
            else:
                write_four(4, source, step, at + skip, upper + skip, lower + skip, pixel)
        special += count - whole
        above[whole:count] = below[whole:count] = 0
    sums = np.empty(4 if special else 0, np.int32)
    for k in range(count if special else 0):
        if above[k] == 0 and below[k] == 0:
            sums[:] = 0
            if rows[k] != HIDDEN:
                add_point(panorama, turned(columns[k], shift, width), rows[k], wraps, sums)
            for c in range(channels):
                bev[k, c] = (sums[c] + ONE // 2) >> ONE_BITS


@njit(cache=True, nogil=True)
def write_means(
    panorama: NDArray[np.uint8],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    sample_columns: NDArray[np.int32],
    sample_rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    prepared: Prepared,
    bev: NDArray[np.uint8],
) -> int:
    """Write the means of BEV pixels with several points, as many as fit BLOCK; how many those are.

    ``averaged`` (pixels,) and ``first`` (pixels + 1,) are parts of a lookup, ``bev`` all of it.
    """
    width, channels = panorama.shape[1], panorama.shape[2]
    step, source, target = row_step(panorama.shape), panorama.ctypes.data, bev.ctypes.data
    offsets, above, below = prepared
    at, upper, lower = offsets.ctypes.data, above.ctypes.data, below.ctypes.data
    start, pixels = first[0], 1
    while pixels < len(averaged) and first[pixels + 1] - start <= BLOCK:
        pixels += 1
    columns, rows = sample_columns[start : first[pixels]], sample_rows[start : first[pixels]]
    special = len(columns)
    if takes_vectors(panorama):
        special = weigh(columns, rows, shift, panorama.shape, prepared)
    sums = np.empty(4 if special else 0, np.int32)
    for m in range(pixels):
        begin, end = first[m] - start, first[m + 1] - start
        pixel, skip = target + averaged[m] * channels, 4 * begin
        if special and without_weights(prepared, begin, end):
            sums[:] = 0
            for k in range(begin, end):
                add_point(panorama, turned(columns[k], shift, width), rows[k], wraps, sums)
            scale = np.float32(1 / ONE) / np.float32(end - begin)
            for c in range(channels):
                bev[averaged[m], c] = int(np.float32(sums[c]) * scale + np.float32(0.5))
        elif channels == 3:
            write_mean(3, source, step, at + skip, upper + skip, lower + skip, pixel, end - begin)
        else:
            write_mean(4, source, step, at + skip, upper + skip, lower + skip, pixel, end - begin)
    return pixels


@njit(cache=True, nogil=True)
def takes_vectors(panorama: NDArray[np.uint8]) -> bool:
    """Whether vector code can read this panorama."""
    return panorama.shape[2] >= 3 and row_step(panorama.shape) + 8 <= panorama.size < 1 << 31


@njit(cache=True, nogil=True)
def apply_to_bytes(
    panorama: NDArray[np.uint8],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    sample_columns: NDArray[np.int32],
    sample_rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    bev: NDArray[np.uint8],
) -> None:
    """Do to uint8 what `apply_to_floats` does, rounded."""
    # Without weights a point takes the slow way.
    prepared = Prepared(
        np.zeros(BLOCK + AHEAD, np.int32), np.zeros(BLOCK, np.int32), np.zeros(BLOCK, np.int32)
    )
    turn = np.int32(shift)
    m = 0
    for start in range(0, len(columns), BLOCK):
        block = slice(start, start + BLOCK)
        write_points(panorama, columns[block], rows[block], turn, wraps, prepared, bev[block])
        after = m
        while after < len(averaged) and averaged[after] < start + BLOCK:
            after += 1
        while m < after:  # at once, while their part of the panorama is in the cache
            m += write_means(
                panorama,
                averaged[m:after],
                first[m : after + 1],
                sample_columns,
                sample_rows,
                turn,
                wraps,
                prepared,
                bev,
            )
