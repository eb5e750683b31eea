"""uint8 with integers, in vector code.

Of images with three or four channels nearly all pixels take vector instructions: one 8-byte load
for each of two rows covers both neighbours.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from bevgen.compiling import njit
from bevgen.projection.lookup import HIDDEN, SUBPIXEL, SUBPIXEL_BITS
from bevgen.projection.sampling import neighbours, shifted

# Weights of neighbours are int16 and sum to this, so that a bilinear value takes int32.
ONE_BITS = 14
ONE = 1 << ONE_BITS
AHEAD = 32
BLOCK = 512  # points whose weights wait in the first-level cache


@njit()
def add_bilinear(
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
    """A block of points as the vector code wants them, int32 each.

    Attributes
    ----------
    offsets : (BLOCK + AHEAD,)
        Index of the upper left neighbour's first channel; 0 where vector code cannot be used.
    across : (AHEAD + BLOCK + AHEAD,)
        The same of the points half a turn on, which are in the middle.
    above, below : (BLOCK,)
        Two int16 weights of the upper and of the lower neighbours: that of the left one in the
        lower half, that of the right one in the upper.
    """

    offsets: NDArray[np.int32]
    across: NDArray[np.int32]
    above: NDArray[np.int32]
    below: NDArray[np.int32]


@njit()
def weigh(
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    shape: tuple[int, int, int],
    prepared: Prepared,
) -> int:
    """Prepare at most BLOCK points for vector code; returns how many have to do without it.

    Those are given the offset 0: they lie on the seam, or on the last pixels of all, where 8 bytes
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
    offsets, _, above, below = prepared
    special = np.int32(0)
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
        special = np.int32(special + np.int32(without))
        offsets[k] = keep & offset
        above[k] = rest | np.int32(np.int32(a - both) << 16)
        below[k] = np.int32(b - both) | np.int32(both << 16)
    return special


@njit()
def turn_half(
    columns: NDArray[np.int32], shift: int, shape: tuple[int, int, int], prepared: Prepared
) -> int:
    """Place the points that `weigh` prepared half a turn on: same weights, other columns.

    Returns how many have to do without vector code.
    """
    height, width, channels = np.int32(shape[0]), np.int32(shape[1]), np.int32(shape[2])
    turn, limit = np.int32(width * SUBPIXEL), np.int32(width * SUBPIXEL - SUBPIXEL // 2)
    half, last = np.int32(width // 2), np.int32(width // 2 - 1)
    way = np.int32(half * channels)
    last_offset = np.int32(height * width * channels - row_step(shape) - 8)
    offsets, across = prepared.offsets, prepared.across
    special = np.int32(0)
    for k in range(len(columns)):
        column = np.int32(columns[k] + shift)
        column = np.int32(column - turn) if column >= limit else column
        left = np.int32(column >> SUBPIXEL_BITS)
        offset = np.int32(offsets[k] + way) if left < half else np.int32(offsets[k] - way)
        without = (offsets[k] == 0) | (left == last) | (offset > last_offset)
        special = np.int32(special + np.int32(without))
        across[AHEAD + k] = np.int32(0) if without else offset
    return special


@njit()
def without_vectors(offsets: NDArray[np.int32], start: int, stop: int) -> bool:
    """Whether a point of these has to do without vector code."""
    for k in range(start, stop):  # noqa: SIM110 (Numba knows no generators here)
        if offsets[k] == 0:
            return True
    return False


@njit()
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


def _bilinear(builder: Any, arguments: Any, k: int, channels: int) -> Any:
    """4 x int32: bilinear values of a prepared point, times ONE; lanes beyond C hold anything."""
    panorama, step, offsets, above, below = arguments
    offset = builder.load(_at(builder, offsets, k, _INT))
    address = builder.add(panorama, builder.sext(offset, panorama.type))
    upper, lower = (builder.load(_at(builder, pairs, k, _INT)) for pairs in (above, below))
    return builder.add(
        _weighted_row(builder, address, upper, channels),
        _weighted_row(builder, builder.add(address, step), lower, channels),
    )


def _prefetch(builder: Any, arguments: Any, ahead: int) -> None:
    """Ask for the panorama's bytes of a point some way ahead, which come from far."""
    _, panorama, step, offsets = arguments[:4]
    pointer = _BYTE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    offset = builder.load(_at(builder, offsets, ahead, _INT))
    address = builder.add(panorama, builder.sext(offset, panorama.type))
    for row in (address, builder.add(address, step)):
        builder.call(prefetch, [builder.inttoptr(row, pointer), _INT(0), _INT(3), _INT(1)])


_ADDRESSES = (types.uintp, types.intp, types.uintp, types.uintp, types.uintp, types.uintp)


@intrinsic(prefer_literal=True)
def write_four(_: Any, channels: Any, panorama, step, offsets, above, below, bev, way) -> Any:
    """Write four BEV pixels of 3 or 4 channels (a literal) at ``bev``; the others are addresses.

    Points follow each other forwards or, where ``way`` (a literal) is -1, backwards.
    """

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        number, wide = channels.literal_value, ir.Constant(_INTS, [ONE_BITS] * 4)
        half, pixels = ir.Constant(_INTS, [ONE // 2] * 4), []
        _prefetch(builder, arguments, way.literal_value * AHEAD)
        for k in range(4):
            values = _bilinear(builder, arguments[1:6], way.literal_value * k, number)
            pixels.append(builder.lshr(builder.add(values, half), wide))
        pairs = [builder.shuffle_vector(*pixels[k : k + 2], _mask(*range(8))) for k in (0, 2)]
        values = builder.shuffle_vector(*pairs, _mask(*range(16)))
        values = builder.trunc(values, ir.VectorType(_BYTE, 16))
        lanes = _mask(*(4 * k + c for k in range(4) for c in range(number)))
        values = builder.shuffle_vector(values, values, lanes)
        builder.store(values, builder.inttoptr(arguments[6], values.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(channels, *_ADDRESSES, way), generate


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
                _prefetch(builder, at, AHEAD + n)
                value = _bilinear(builder, at[1:], n, number)
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


@njit()
def write_centres(
    panorama: NDArray[np.uint8],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    prepared: Prepared,
    bev: NDArray[np.uint8],
    opposite: NDArray[np.uint8],
) -> None:
    """Write the bilinear values of at most BLOCK BEV pixels' points, 0 where hidden.

    ``opposite`` are as many BEV pixels half a turn on, in reverse, or none.
    """
    width, channels = panorama.shape[1], panorama.shape[2]
    step, source, count = row_step(panorama.shape), panorama.ctypes.data, len(columns)
    offsets, across, above, below = prepared
    at, upper, lower = offsets.ctypes.data, above.ctypes.data, below.ctypes.data
    far, turned = across[AHEAD:].ctypes.data, len(opposite) > 0
    target, reverse = bev.ctypes.data, opposite.ctypes.data
    special, whole = count, 0
    if takes_vectors(panorama):
        special, whole = weigh(columns, rows, shift, panorama.shape, prepared), count // 4 * 4
        for k in range(0, whole, 4):
            pixel, skip = target + k * channels, 4 * k
            if channels == 3:
                write_four(3, source, step, at + skip, upper + skip, lower + skip, pixel, 1)
            else:
                write_four(4, source, step, at + skip, upper + skip, lower + skip, pixel, 1)
        special += count - whole
    offsets[whole:count] = 0
    if special:
        write_singly(panorama, columns, rows, shift, wraps, offsets, bev)
    if not turned:
        return
    half = (shift + width // 2 * SUBPIXEL) % (width * SUBPIXEL)
    special = count
    if whole:
        special = turn_half(columns, shift, panorama.shape, prepared) + count - whole
        for k in range(0, whole, 4):
            pixel, skip = reverse + (count - 4 - k) * channels, 4 * (k + 3)
            if channels == 3:
                write_four(3, source, step, far + skip, upper + skip, lower + skip, pixel, -1)
            else:
                write_four(4, source, step, far + skip, upper + skip, lower + skip, pixel, -1)
    across[AHEAD + whole : AHEAD + count] = 0
    if special:
        write_singly(panorama, columns, rows, half, wraps, across[AHEAD:], opposite[::-1])


@njit()
def write_singly(
    panorama: NDArray[np.uint8],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    offsets: NDArray[np.int32],
    bev: NDArray[np.uint8],
) -> None:
    """Write the points that have to do without vector code."""
    width, channels = panorama.shape[1], panorama.shape[2]
    sums = np.empty(4, np.int32)
    for k in range(len(columns)):
        if offsets[k] == 0:
            sums[:] = 0
            if rows[k] != HIDDEN:
                add_bilinear(panorama, shifted(columns[k], shift, width), rows[k], wraps, sums)
            for c in range(channels):
                bev[k, c] = (sums[c] + ONE // 2) >> ONE_BITS


@njit()
def write_means(
    panorama: NDArray[np.uint8],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    sample_columns: NDArray[np.int32],
    sample_rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    mirrored: bool,
    prepared: Prepared,
    bev: NDArray[np.uint8],
) -> int:
    """Write the means of BEV pixels with several points, as many as fit BLOCK; how many those are.

    ``averaged`` (pixels,) and ``first`` (pixels + 1,) are parts of a lookup, ``bev`` all of it.
    Where ``mirrored``, those half a turn on are written too.
    """
    start, pixels = first[0], 1
    while pixels < len(averaged) and first[pixels + 1] - start <= BLOCK:
        pixels += 1
    averaged, first = averaged[:pixels], first[: pixels + 1]
    columns, rows = sample_columns[start : first[pixels]], sample_rows[start : first[pixels]]
    offsets, across = prepared.offsets, prepared.across[AHEAD:]
    vectors, special = takes_vectors(panorama), len(columns)
    if vectors:
        special = weigh(columns, rows, shift, panorama.shape, prepared)
    else:
        offsets[: len(columns)] = 0
    write_block(
        panorama, averaged, first, columns, rows, shift, wraps, False, offsets, special, prepared,
        bev,
    )  # fmt: skip
    if mirrored:
        width = panorama.shape[1]
        half = (shift + width // 2 * SUBPIXEL) % (width * SUBPIXEL)
        if vectors:
            special = turn_half(columns, shift, panorama.shape, prepared)
        else:
            across[: len(columns)] = 0
        write_block(
            panorama, averaged, first, columns, rows, half, wraps, True, across, special, prepared,
            bev,
        )  # fmt: skip
    return pixels


@njit()
def write_block(
    panorama: NDArray[np.uint8],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    opposite: bool,
    offsets: NDArray[np.int32],
    special: int,
    prepared: Prepared,
    bev: NDArray[np.uint8],
) -> None:
    """Write the means of prepared points, ``special`` of which have to do without vector code.

    To the pixels ``averaged``, or where ``opposite`` to those half a turn on.
    """
    channels, width, start = panorama.shape[2], panorama.shape[1], first[0]
    step, source, target = row_step(panorama.shape), panorama.ctypes.data, bev.ctypes.data
    at = offsets.ctypes.data
    upper, lower = prepared.above.ctypes.data, prepared.below.ctypes.data
    sums = np.empty(4 if special else 0, np.int32)
    for m in range(len(averaged)):
        begin, end = first[m] - start, first[m + 1] - start
        number = len(bev) - 1 - averaged[m] if opposite else averaged[m]
        pixel, skip = target + number * channels, 4 * begin
        if special and without_vectors(offsets, begin, end):
            sums[:] = 0
            for k in range(begin, end):
                add_bilinear(panorama, shifted(columns[k], shift, width), rows[k], wraps, sums)
            scale = np.float32(1 / ONE) / np.float32(end - begin)
            for c in range(channels):
                bev[number, c] = int(np.float32(sums[c]) * scale + np.float32(0.5))
        elif channels == 3:
            write_mean(3, source, step, at + skip, upper + skip, lower + skip, pixel, end - begin)
        else:
            write_mean(4, source, step, at + skip, upper + skip, lower + skip, pixel, end - begin)


@njit()
def takes_vectors(panorama: NDArray[np.uint8]) -> bool:
    """Whether vector code can read this panorama."""
    return panorama.shape[2] >= 3 and row_step(panorama.shape) + 8 <= panorama.size < 1 << 31


@njit(cache=True)
def sample_uint8(
    panorama: NDArray[np.uint8],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    averaged: NDArray[np.int32],
    first: NDArray[np.int32],
    sample_columns: NDArray[np.int32],
    sample_rows: NDArray[np.int32],
    shift: int,
    wraps: bool,
    mirrored: bool,
    bev: NDArray[np.uint8],
) -> None:
    """Do to uint8 what `sample_float32` does, rounded.

    ``mirrored`` as in `Lookup`: then the second half takes its weights from the first.
    """
    prepared = Prepared(
        np.zeros(BLOCK + AHEAD, np.int32),
        np.zeros(AHEAD + BLOCK + AHEAD, np.int32),
        np.zeros(BLOCK, np.int32),
        np.zeros(BLOCK, np.int32),
    )
    turn, count = np.int32(shift), len(columns)
    m, stop = 0, count // 2 if mirrored else count
    for start in range(0, stop, BLOCK):
        end = min(start + BLOCK, stop)
        block = slice(start, end)
        opposite = bev[count - end : count - start] if mirrored else bev[:0]
        write_centres(
            panorama, columns[block], rows[block], turn, wraps, prepared, bev[block], opposite
        )
        # At once, while their part of the panorama is in the cache.
        after = m
        while after < len(averaged) and averaged[after] < end:
            after += 1
        while m < after:
            m += write_means(
                panorama,
                averaged[m:after],
                first[m : after + 1],
                sample_columns,
                sample_rows,
                turn,
                wraps,
                mirrored,
                prepared,
                bev,
            )
