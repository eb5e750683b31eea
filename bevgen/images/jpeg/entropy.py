"""From compressed bits to coefficients: byte stuffing, Huffman codes, blocks skipped or read."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from bevgen.compiling import njit
from bevgen.images.jpeg.header import Frame
from bevgen.images.jpeg.tables import (
    ADVANCE_SHIFT,
    CODE_SHIFT,
    DROP,
    END,
    LOOK_BITS,
    NO_CODE,
    SIZE_SHIFT,
    SKIP_ADVANCE_SHIFT,
    SKIP_BITS,
    ZIGZAG,
    Tables,
)

# What is read beyond a segment before its end is noticed: a word, and the longest block.
SLACK = 8 + 256


@intrinsic
def _copy_32(typingctx, source, place, target, to):
    """Copy 32 bytes; returns how many of them come before the first 0xFF."""
    signature = types.int64(source, place, target, to)

    def generate(context, b, sig, args):
        piece = ir.VectorType(ir.IntType(8), 32)

        def at(array, place):
            start = context.make_array(sig.args[array])(context, b, args[array]).data
            return b.bitcast(b.gep(start, [args[place]]), piece.as_pointer())

        value = b.load(at(0, 1), align=1)
        b.store(value, at(2, 3), align=1)
        equal = b.icmp_unsigned("==", value, ir.Constant(piece, [0xFF] * 32))
        bits = b.bitcast(equal, ir.IntType(32))
        return b.zext(b.cttz(bits, ir.Constant(ir.IntType(1), 0)), ir.IntType(64))

    return signature, generate


@njit(cache=True)
def unstuff(
    data: NDArray[np.uint8], start: int, scan: NDArray[np.uint8], bounds: NDArray[np.int64]
) -> bool:
    """Copy compressed bytes without byte stuffing and markers.

    Parameters
    ----------
    data : (n,) uint8
    start
        Their offset in ``data``.
    scan : (n - start + SLACK,) uint8, written
    bounds : (segments + 1,) int64, written
        Where in ``scan`` the data between two restart markers begins and ends.

    Returns
    -------
    bool
        Whether the right restart markers, the end marker and no others were met.
    """
    place, written, segment, end = start, 0, 0, len(data)
    bounds[0] = 0
    while True:
        while place + 32 <= end:
            _ = data[place + 31], scan[written + 31]  # the vector code checks no bounds
            clean = _copy_32(data, place, scan, written)
            place += clean
            written += clean
            if clean < 32:
                break
        while place < end and data[place] != 0xFF:
            scan[written] = data[place]
            place += 1
            written += 1
        if place + 2 > end:
            return False
        marker = data[place + 1]
        place += 2
        if marker == 0:
            scan[written] = 0xFF
            written += 1
            continue
        segment += 1
        if segment == len(bounds):
            return False
        bounds[segment] = written
        if marker == 0xD9:
            scan[written : written + SLACK] = 0
            return segment == len(bounds) - 1
        if marker != 0xD0 + (segment - 1) % 8:
            return False


# Bits are read from `word`, `left` of them good (from the top), the next byte being `place`. A
# refill leaves 56 or more: enough for two symbols with their values, of at most 27 and 26 bits.


@njit(forceinline=True)
def refill(scan: NDArray[np.uint8], word: int, left: int, place: int) -> tuple[int, int, int]:
    """Add whole bytes to a word; of the eight reads the compiler makes one load."""
    at = np.uint64(place)
    eight = (
        np.uint64(scan[at]) << 56
        | np.uint64(scan[at + np.uint64(1)]) << 48
        | np.uint64(scan[at + np.uint64(2)]) << 40
        | np.uint64(scan[at + np.uint64(3)]) << 32
        | np.uint64(scan[at + np.uint64(4)]) << 24
        | np.uint64(scan[at + np.uint64(5)]) << 16
        | np.uint64(scan[at + np.uint64(6)]) << 8
        | np.uint64(scan[at + np.uint64(7)])
    )
    return word | eight >> left, left | 56, place + ((63 - left) >> 3)


@njit()
def find_entry(word: int, table: int, tables: Tables) -> int:
    """Entry of a symbol whose code is longer than LOOK_BITS."""
    bits = np.int64(word >> 48)
    for length in range(LOOK_BITS + 1, 17):
        if bits < tables.limits[table, length]:
            place = (bits >> (16 - length)) + tables.offsets[table, length]
            return np.int64(tables.entries[table, place & 255])
    return NO_CODE


@njit(forceinline=True)
def magnitude_after(word: int, entry: int) -> tuple[int, int]:
    """Value of the bits that follow a code: |value|, and -1 if it is negative, else 0.

    A leading 0 means negative, all bits inverted (T.81, F.2.2.1).
    """
    bits = word << np.uint64((entry >> CODE_SHIFT) & 63)
    sign = ~(np.int64(bits) >> 63)
    inverted = np.uint64(np.int64(bits) ^ sign) >> 1
    return np.int64(inverted >> np.uint64(63 - ((entry >> SIZE_SHIFT) & 15))), sign


@njit(forceinline=True)
def skip_block(
    scan: NDArray[np.uint8], word: int, left: int, place: int, component: int, tables: Tables
) -> tuple[int, int, int, int]:
    """Pass the AC symbols of a block; returns the reader's state and the advance in all."""
    k, alike = 0, tables.alike[component]
    while k < 63:
        word, left, place = refill(scan, word, left, place)
        for _ in range(2):
            entry = np.int64(tables.skip[alike, np.int64(word >> (64 - SKIP_BITS))])
            ahead = k + (entry >> SKIP_ADVANCE_SHIFT)
            if entry == 0 or ahead & 127 > 63:  # the block ends before the last of these symbols
                entry = np.int64(tables.look[2 * component + 1, np.int64(word >> (64 - LOOK_BITS))])
                if entry == 0:
                    entry = find_entry(word, 2 * component + 1, tables)
                ahead = k + (entry >> ADVANCE_SHIFT)
            word <<= np.uint64(entry & DROP)
            left -= entry & DROP
            k = ahead
            if k >= 63:
                break
    return word, left, place, k


@njit()
def skip_mcus(
    scan: NDArray[np.uint8],
    end: int,
    mcus: int,
    frame: Frame,
    tables: Tables,
    state: NDArray[np.int64],
) -> bool:
    """Pass MCUs between two restart markers.

    Parameters
    ----------
    scan
        As `unstuff` wrote it.
    end
        Where in ``scan`` these data end.
    mcus
        How many to pass.
    state : (6,) int64, read and written
        word, left, place, and the last DC value of each component.

    Returns
    -------
    bool
        False if the data is damaged.
    """
    word, left, place = np.uint64(state[0]), state[1], state[2]
    # DC as in `read_mcus`: in a function of both, Numba counts references to all tables each time.
    for _ in range(mcus):
        for c in range(frame.components):
            for _ in range(1 if c else frame.across * frame.down):
                if place > end + 8:
                    return False
                word, left, place = refill(scan, word, left, place)
                entry = np.int64(tables.look[2 * c, np.int64(word >> (64 - LOOK_BITS))])
                if entry == 0:
                    entry = find_entry(word, 2 * c, tables)
                if entry == NO_CODE:
                    return False
                size, sign = magnitude_after(word, entry)
                state[3 + c] += (size ^ sign) - sign
                word <<= np.uint64(entry & DROP)
                left -= entry & DROP
                word, left, place, k = skip_block(scan, word, left, place, c, tables)
                if 63 < k < END:
                    return False
    state[0], state[1], state[2] = np.int64(word), left, place
    return True


@njit(forceinline=True)
def read_block(
    scan: NDArray[np.uint8],
    word: int,
    left: int,
    place: int,
    component: int,
    tables: Tables,
    steps: NDArray[np.int32],
    block: NDArray[np.int16],
) -> tuple[int, int, int, int, int]:
    """Read the AC symbols of a block.

    Returns the reader's state, the advance in all, and the sum of absolute coefficients.
    """
    k = total = 0
    while k < 63:
        word, left, place = refill(scan, word, left, place)
        for _ in range(2):
            entry = np.int64(tables.look[2 * component + 1, np.int64(word >> (64 - LOOK_BITS))])
            if entry == 0:
                entry = find_entry(word, 2 * component + 1, tables)
            k += entry >> ADVANCE_SHIFT
            at = np.uint64(k)
            size, sign = magnitude_after(word, entry)
            size *= steps[component, at]
            total += size
            block[np.uint64(ZIGZAG[at])] = (size ^ sign) - sign
            word <<= np.uint64(entry & DROP)
            left -= entry & DROP
            if k >= 63:
                break
    return word, left, place, k, total
