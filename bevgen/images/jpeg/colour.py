"""From samples to pixels: chroma enlarged, colours converted, a row at a time."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from bevgen.compiling import njit
from bevgen.images.jpeg.header import Frame

# Numba computes with 64 bits unless told after each step; of narrow numbers LLVM makes vectors.


@njit()
def widen(
    sums: NDArray[np.int16], n: int, before: int, after: int, wide: NDArray[np.uint8]
) -> None:
    """Double n > 1 chroma values, four times too large, to 2 n bytes.

    The triangle filter: 3/4 of the nearest value, 1/4 of the next; `before` and `after` round.
    """
    three, four = np.int16(3), np.int16(4)
    to_left, to_right = np.int16(before), np.int16(after)
    for i in range(1, n - 1):
        near = np.int16(sums[i] * three)
        wide[2 * i] = np.int16(np.int16(near + np.int16(sums[i - 1] + to_left)) >> four)
        wide[2 * i + 1] = np.int16(np.int16(near + np.int16(sums[i + 1] + to_right)) >> four)
    wide[0] = (sums[0] * 4 + before) >> 4
    wide[1] = (sums[0] * 3 + sums[1] + after) >> 4
    wide[2 * n - 2] = (sums[n - 1] * 3 + sums[n - 2] + before) >> 4
    wide[2 * n - 1] = (sums[n - 1] * 4 + after) >> 4


@intrinsic
def _colour_sixteen(typingctx, luma, blue, red, rgb, x):
    """Vector code of `colour` for the 16 pixels from column ``x``."""
    signature = types.void(luma, blue, red, rgb, x)

    def generate(context, b, sig, args):
        bytes16, words = ir.VectorType(ir.IntType(8), 16), ir.VectorType(ir.IntType(16), 16)
        longs = ir.VectorType(ir.IntType(32), 16)

        def constant(value, kind=words):
            return ir.Constant(kind, [value] * 16)

        def at(array, place, kind):
            start = context.make_array(sig.args[array])(context, b, args[array]).data
            return b.bitcast(b.gep(start, [place]), kind.as_pointer())

        def scaled(value, factor):  # value * factor / 2**16, rounded, of a value doubled before
            product = b.mul(b.sext(value, longs), constant(factor, longs))
            high = b.trunc(b.ashr(product, constant(16, longs)), words)
            return b.ashr(b.add(high, constant(1)), constant(1))

        y, cb, cr = (b.zext(b.load(at(i, args[4], bytes16), align=1), words) for i in range(3))
        cb, cr = b.sub(cb, constant(128)), b.sub(cr, constant(128))
        twice_cb, twice_cr = b.add(cb, cb), b.add(cr, cr)
        # 1.402 and 1.772 as 1 + 0.402 and 2 - 0.228, 0.714 as 1 - 0.286, to fit in 16 bits.
        r = b.add(b.add(y, cr), scaled(twice_cr, 26345))
        blue_ = b.add(b.add(y, twice_cb), scaled(twice_cb, -14942))
        g = b.add(
            b.mul(b.sext(cb, longs), constant(-22554, longs)),
            b.mul(b.sext(cr, longs), constant(18734, longs)),
        )
        g = b.ashr(b.add(g, constant(1 << 15, longs)), constant(16, longs))
        g = b.add(b.sub(y, cr), b.trunc(g, words))
        channels = []
        for value in (r, g, blue_):
            value = b.select(b.icmp_signed("<", value, constant(0)), constant(0), value)
            value = b.select(b.icmp_signed(">", value, constant(255)), constant(255), value)
            channels.append(b.trunc(value, bytes16))
        index = ir.IntType(32)
        both = ir.Constant(ir.VectorType(index, 32), list(range(32)))
        mixed = ir.Constant(
            ir.VectorType(index, 48), [16 * c + i for i in range(16) for c in range(3)]
        )
        red_green = b.shuffle_vector(channels[0], channels[1], both)
        blue_only = b.shuffle_vector(channels[2], channels[2], both)
        pixels = b.shuffle_vector(red_green, blue_only, mixed)
        place = b.mul(args[4], ir.Constant(args[4].type, 3))
        b.store(pixels, at(3, place, pixels.type), align=1)
        return context.get_dummy_value()

    return signature, generate


@njit()
def colour(
    luma: NDArray[np.uint8], blue: NDArray[np.uint8], red: NDArray[np.uint8], rgb: NDArray[np.uint8]
) -> None:
    """Convert a row of YCbCr to (W * 3,) RGB by the JFIF equations, in 16 bits after the point."""
    width = len(rgb) // 3
    done = width & ~15
    if done:  # the vector code checks no bounds
        _ = luma[done - 1], blue[done - 1], red[done - 1], rgb[3 * done - 1]
    for x in range(0, done, 16):
        _colour_sixteen(luma, blue, red, rgb, x)
    for x in range(done, width):
        y, cb, cr = np.int64(luma[x]), blue[x] - 128, red[x] - 128
        r = y + ((91881 * cr + 32768) >> 16)
        g = y + ((-22554 * cb - 46802 * cr + 32768) >> 16)
        b = y + ((116130 * cb + 32768) >> 16)
        rgb[3 * x] = min(max(r, 0), 255)
        rgb[3 * x + 1] = min(max(g, 0), 255)
        rgb[3 * x + 2] = min(max(b, 0), 255)


@njit()
def draw_row(
    planes: NDArray[np.uint8],
    frame: Frame,
    y: int,
    top: int,
    wide: NDArray[np.uint8],
    sums: NDArray[np.int16],
    rgb: NDArray[np.uint8],
) -> None:
    """Write pixel row ``y``; ``top`` is the first row of the MCU row that `planes` begins with."""
    luma = planes[0, y - top + 1]
    if frame.components == 1:
        for x in range(frame.width):
            rgb[3 * x] = rgb[3 * x + 1] = rgb[3 * x + 2] = luma[x]
        return
    height, width = -(-frame.height // frame.down), -(-frame.width // frame.across)
    smooth = frame.across == 1 or width > 2  # libjpeg repeats the samples of tiny images
    near = other = y // frame.down
    if frame.down == 2 and smooth:
        other = min(max(near - 1 + 2 * (y % 2), 0), height - 1)
    above = top // frame.down - 1
    for c in range(2):
        here, there = planes[c + 1, near - above], planes[c + 1, other - above]
        if not smooth:
            for x in range(width):
                wide[c, 2 * x] = wide[c, 2 * x + 1] = here[x]
        elif frame.across == 2:
            if frame.down == 2:
                for x in range(width):
                    sums[x] = here[x] * 3 + there[x]
                widen(sums, width, 8, 7, wide[c])
            else:
                for x in range(width):
                    sums[x] = here[x] * 4
                widen(sums, width, 4, 8, wide[c])
        elif frame.down == 2:
            for x in range(width):
                wide[c, x] = (here[x] * 3 + there[x] + 1 + y % 2) >> 2
        else:
            for x in range(width):
                wide[c, x] = here[x]
    colour(luma, wide[0], wide[1], rgb)
