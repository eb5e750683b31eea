"""From coefficients to samples: the inverse cosine transform, in vector code."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from bevgen.compiling import njit


def _transform_eight(b: ir.IRBuilder, x: list[Any], shift: int) -> list[Any]:
    """Emit the one-dimensional inverse cosine transform of eight vectors, scaled down by 2**shift.

    Of the published flow graph with 12 multiplications; constants in 13 bits, as libjpeg's.
    """

    def times(value: Any, factor: int) -> Any:
        return b.mul(value, ir.Constant(value.type, [factor] * 8))

    def half(value: Any) -> Any:
        return ir.Constant(value.type, [value] * 8)

    bits = ir.Constant(x[0].type, [13] * 8)
    z1 = times(b.add(x[2], x[6]), 4433)
    t2, t3 = b.add(z1, times(x[6], -15137)), b.add(z1, times(x[2], 6270))
    t0, t1 = b.shl(b.add(x[0], x[4]), bits), b.shl(b.sub(x[0], x[4]), bits)
    rounding = ir.Constant(x[0].type, [1 << (shift - 1)] * 8)
    t0, t1 = b.add(t0, rounding), b.add(t1, rounding)
    even = [b.add(t0, t3), b.add(t1, t2), b.sub(t1, t2), b.sub(t0, t3)]

    z1, z2 = b.add(x[7], x[1]), b.add(x[5], x[3])
    z3, z4 = b.add(x[7], x[3]), b.add(x[5], x[1])
    z5 = times(b.add(z3, z4), 9633)
    z1, z2 = times(z1, -7373), times(z2, -20995)
    z3, z4 = b.add(times(z3, -16069), z5), b.add(times(z4, -3196), z5)
    odd = [
        b.add(times(x[1], 12299), b.add(z1, z4)),
        b.add(times(x[3], 25172), b.add(z2, z3)),
        b.add(times(x[5], 16819), b.add(z2, z4)),
        b.add(times(x[7], 2446), b.add(z1, z3)),
    ]
    down = ir.Constant(x[0].type, [shift] * 8)
    upper = [b.ashr(b.add(e, o), down) for e, o in zip(even, odd, strict=True)]
    lower = [b.ashr(b.sub(e, o), down) for e, o in zip(even, odd, strict=True)]
    return upper + lower[::-1]


def _transpose_eight(b: ir.IRBuilder, x: list[Any]) -> list[Any]:
    """Emit the transpose of eight vectors of eight, in steps that stay in halves of a register."""
    steps = (
        ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15), 1),
        ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15), 2),
        ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15), 4),
    )
    for low, high, apart in steps:
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), 8), mask) for mask in (low, high)]
        y = list(x)
        for i in range(8):
            if not i & apart:
                for mask, to in zip(masks, (i, i | apart), strict=True):
                    y[to] = b.shuffle_vector(x[i], x[i | apart], mask)
        x = y
    return [x[i] for i in (0, 2, 1, 3, 4, 6, 5, 7)]


@intrinsic
def _inverse_dct(typingctx, block, planes, c, row, col):
    """Vector code of `transform`; returns bits above the tenth of samples that are out of range."""
    signature = types.int64(block, planes, c, row, col)

    def generate(context, b, sig, args):
        i8, i32 = ir.IntType(8), ir.IntType(32)
        words, bytes8 = ir.VectorType(i32, 8), ir.VectorType(i8, 8)
        shorts = ir.VectorType(ir.IntType(16), 8)
        source = context.make_array(sig.args[0])(context, b, args[0]).data
        source = b.bitcast(source, shorts.as_pointer())
        rows = []
        for i in range(8):
            at = b.gep(source, [ir.Constant(i32, i)])
            rows.append(b.sext(b.load(at, align=2), words))
            b.store(ir.Constant(shorts, [0] * 8), at, align=2)
        columns = _transpose_eight(b, _transform_eight(b, rows, 11))
        samples = _transpose_eight(b, _transform_eight(b, columns, 18))
        target = context.make_array(sig.args[1])(context, b, args[1])
        apart, stride = (b.extract_value(target.strides, i) for i in range(2))
        start = b.add(b.mul(args[2], apart), b.add(b.mul(args[3], stride), args[4]))
        beyond = ir.Constant(words, [0] * 8)
        zero, most = (ir.Constant(words, [value] * 8) for value in (0, 255))
        for i, sample in enumerate(samples):
            beyond = b.or_(beyond, b.add(sample, ir.Constant(words, [512] * 8)))
            value = b.add(sample, ir.Constant(words, [128] * 8))
            value = b.select(b.icmp_signed("<", value, zero), zero, value)
            value = b.select(b.icmp_signed(">", value, most), most, value)
            offset = b.add(start, b.mul(stride, ir.Constant(stride.type, i)))
            at = b.bitcast(b.gep(target.data, [offset]), bytes8.as_pointer())
            b.store(b.trunc(value, bytes8), at, align=1)
        total = b.extract_element(beyond, ir.Constant(i32, 0))
        for i in range(1, 8):
            total = b.or_(total, b.extract_element(beyond, ir.Constant(i32, i)))
        return b.zext(b.lshr(total, ir.Constant(i32, 10)), ir.IntType(64))

    return signature, generate


@njit(forceinline=True)
def fill(block: NDArray[np.int16], planes: NDArray[np.uint8], c: int, row: int, col: int) -> int:
    """As `transform`, of a block of nothing but DC."""
    level = ((block[0] + 4) >> 3) + 128
    for i in range(8):
        for j in range(8):
            planes[c, row + i, col + j] = min(max(level, 0), 255)
    block[0] = 0
    return (level + 384) >> 10


@njit(forceinline=True)
def transform(
    block: NDArray[np.int16], planes: NDArray[np.uint8], c: int, row: int, col: int
) -> int:
    """Inverse cosine transform of a block to 8 x 8 samples at (row, col); clears the block.

    Returns 0 unless a sample lies so far out of range that libjpeg's versions differ.
    """
    block[63], planes[c, row + 7, col + 7] = block[63], 0  # the vector code checks no bounds
    return _inverse_dct(block, planes, c, row, col)
