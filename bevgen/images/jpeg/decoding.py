"""The loops over a file: bytes unstuffed, blocks above the rows skipped, the rest decoded.

Byte stuffing is taken out of all compressed data first (`unstuff`); MCUs above the rows are walked
over, several symbols at a time (`skip_mcus`); the rest is decoded one MCU row at a time, in buffers
that stay in the cache (`decode`).
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bevgen.compiling import njit
from bevgen.images.jpeg.colour import draw_row
from bevgen.images.jpeg.cosine import fill, transform
from bevgen.images.jpeg.entropy import (
    SLACK,
    find_entry,
    magnitude_after,
    read_block,
    refill,
    skip_mcus,
    unstuff,
)
from bevgen.images.jpeg.header import Frame, read_header
from bevgen.images.jpeg.tables import (
    DROP,
    END,
    LOOK_BITS,
    NO_CODE,
    Tables,
    build_tables,
    quantiser_steps,
)

# With larger sums of |coefficients| the transform might overflow 32 bits; no image has them.
MAX_SUM = 15000


def decode_rows(
    data: bytes | memoryview, first: int, last: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8] | None:
    """Decode rows ``first`` to ``last`` (exclusive) of a baseline JPEG to RGB.

    Parameters
    ----------
    data
        The whole file.
    first, last
        Rows of pixels; what lies outside of the image is left out.
    out : (H, W, 3) uint8, optional
        Where to write; C-contiguous.

    Returns
    -------
    (H, W, 3) uint8 or None
        All rows of the image, of which the others are not written (without ``out``: whatever the
        memory held). Equal to Pillow's ``convert("RGB")``. None if this decoder is not for the
        file: not Huffman-coded sequential 8-bit greyscale or YCbCr of one scan and of sampling
        4:4:4, 4:2:2, 4:4:0 or 4:2:0, or damaged.

    Notes
    -----
    The file must be whole: all restart markers in order, and an end marker after the compressed
    data; what follows it (photos with a film or a second picture) does not matter. Damage that
    leaves valid codes is seen by no decoder. Not looked for is damage after the last row, and
    before the last restart marker above the rows: libjpeg only warns of it and goes on, so these
    rows are the same.
    """
    if out is not None and not (out.dtype == np.uint8 and out.flags.carray):
        raise ValueError("out must be a writeable C-contiguous uint8 array")
    source = np.frombuffer(data, np.uint8)
    source.flags.writeable = False  # one compiled function for bytes and bytearrays
    header = read_header(source)
    if header is None:
        return None
    frame = header.frame
    mcus = frame.mcus_across * frame.mcus_down
    segments = -(-mcus // frame.interval) if frame.interval else 1
    if segments > len(data):
        return None
    scan = np.empty(len(data) - header.start + SLACK, np.uint8)
    bounds = np.empty(segments + 1, np.int64)
    # Each block takes two bits at least: no small file asks for large memory.
    blocks = mcus * (frame.across * frame.down + frame.components - 1)
    if not unstuff(source, header.start, scan, bounds) or blocks > 4 * bounds[segments]:
        return None
    try:
        tables = build_tables(header.codes)
        quantisers = quantiser_steps(header.quantisers)
    except ValueError:
        return None
    if out is None:
        out = np.empty((frame.height, frame.width, 3), np.uint8)
    elif out.shape != (frame.height, frame.width, 3):
        return None
    first, last = max(first, 0), min(last, frame.height)
    if first < last and not decode(scan, bounds, frame, tables, quantisers, first, last, out):
        return None
    return out


@njit()
def read_mcus(
    scan: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    frame: Frame,
    tables: Tables,
    steps: NDArray[np.int32],
    row: int,
    state: NDArray[np.int64],
    planes: NDArray[np.uint8],
    block: NDArray[np.int16],
) -> bool:
    """Read and transform one row of MCUs.

    Parameters
    ----------
    scan, bounds
        As `unstuff` wrote them.
    steps : (components, 192) int32
        Quantisation tables.
    row
        Which one.
    state : (6,) int64, read and written
        word, left, place, and the last DC value of each component.
    planes : (components, rows, columns) uint8, written
        One MCU row of samples, from row 1.
    block : (65,) int16
        All 0, and so it is left.

    Returns
    -------
    bool
        False if the data is damaged.
    """
    word, left, place = np.uint64(state[0]), state[1], state[2]
    first = row * frame.mcus_across
    segment = first // frame.interval if frame.interval else 0
    end = bounds[segment + 1]
    beyond = 0
    for column in range(frame.mcus_across):
        if frame.interval and (first + column) % frame.interval == 0:
            segment = (first + column) // frame.interval
            if place * 8 - left > bounds[segment] * 8:
                return False
            word, left, place = np.uint64(0), 0, bounds[segment]
            end = bounds[segment + 1]
            state[3:] = 0
        for c in range(frame.components):
            for b in range(1 if c else frame.across * frame.down):
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
                dc = state[3 + c] * steps[c, 0]
                word <<= np.uint64(entry & DROP)
                left -= entry & DROP
                word, left, place, k, total = read_block(
                    scan, word, left, place, c, tables, steps, block
                )
                if 63 < k < END or total + abs(dc) > MAX_SUM:
                    return False
                block[0] = dc
                y, x = np.uint64(1), np.uint64(8 * column)
                if c == 0:  # across and down are 1 or 2
                    y += np.uint64((b >> (frame.across - 1)) * 8)
                    x = np.uint64((column * frame.across + (b & (frame.across - 1))) * 8)
                if k == END:
                    beyond |= fill(block, planes, c, y, x)
                else:
                    beyond |= transform(block, planes, c, y, x)
    state[0], state[1], state[2] = np.int64(word), left, place
    return beyond == 0 and np.abs(state[3:]).max() < 1 << 20


@njit(cache=True)
def decode(
    scan: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    frame: Frame,
    tables: Tables,
    steps: NDArray[np.int32],
    first: int,
    last: int,
    out: NDArray[np.uint8],
) -> bool:
    """Decode rows ``first`` to ``last`` of what `unstuff` wrote; False if the data is damaged.

    Chroma of half the height is interpolated between rows, so that the last row of an MCU row waits
    for the next MCU row; row 0 of the planes keeps it, and the samples above.
    """
    tall = 8 * frame.down
    reach = 1 if frame.down == 2 else 0
    begin = max(first - reach, 0) // tall
    end = min((last + reach - 1) // tall + 1, frame.mcus_down)
    state = np.zeros(6, np.int64)
    block = np.zeros(65, np.int16)
    padded = frame.mcus_across * frame.across * 8
    planes = np.empty((frame.components, tall + 1, padded), np.uint8)
    wide, sums = np.empty((2, padded), np.uint8), np.empty(padded, np.int16)
    above = begin * frame.mcus_across
    segment = above // frame.interval if frame.interval else 0
    state[2] = bounds[segment]  # begin at the last restart marker above the rows
    above -= segment * frame.interval
    if not skip_mcus(scan, bounds[segment + 1], above, frame, tables, state):
        return False
    for row in range(begin, end):
        if row > begin:
            planes[0, 0] = planes[0, tall]
            for c in range(1, frame.components):
                planes[c, 0] = planes[c, 8]
        if not read_mcus(scan, bounds, frame, tables, steps, row, state, planes, block):
            return False
        top = row * tall
        low = max(first, top - reach)
        high = last if row == end - 1 else min(last, top + tall - reach)
        for y in range(low, high):
            draw_row(planes, frame, y, top, wide, sums, out[y].reshape(3 * frame.width))
    segment = (end * frame.mcus_across - 1) // frame.interval if frame.interval else 0
    return state[2] * 8 - state[1] <= bounds[segment + 1] * 8
