"""Decode some pixel rows of a baseline JPEG, bit for bit as libjpeg does, and nothing else.

A panorama's sky never reaches a bird's-eye view. A decoder of whole images spends half of its time
on it; this one reads past it and transforms, enlarges and colours the rows asked for alone.

All that is not plain is refused (None), and then Pillow decides. The arithmetic is that of ITU-T
T.81 with libjpeg's choices where the standard leaves one: the accurate integer transform
(Loeffler, Ligtenberg, Moschytz, 13 bits), triangle-filtered chroma, 16-bit colour tables.

Compressed data is read in three passes: byte stuffing is taken out of all of it (`unstuff`); blocks
above the rows are walked over, several symbols at a time (`skip_block`); the rest is decoded one
MCU row at a time, in buffers that stay in the cache (`decode`).
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportAssignmentType=false

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from bevgen.compiling import njit

MAX_PIXELS = 2**28
MAX_SIDE = 65500  # as libjpeg

LOOK_BITS = 10  # longer codes are searched for: there are few
SKIP_BITS = 12
# What is read beyond a segment before its end is noticed: a word, and the longest block.
SLACK = 8 + 256

# A table entry: bits to drop | bits of the value among them << 5 | advance << 9, where advance is
# the zeros before a coefficient and itself; 0 if the code is longer. END is the advance at the end
# of a block: whatever is added to it, it stays above all others, and modulo 128 above the 63 of a
# block that was full already. NO_CODE leads beyond a block and is not its end.
DROP, SIZE_SHIFT, ADVANCE_SHIFT = 31, 5, 9
END = 129
NO_CODE = 64 << ADVANCE_SHIFT
# With larger sums of |coefficients| the transform might overflow 32 bits; no image has them.
MAX_SUM = 15000

# Position in the file's order -> in the block (row * 8 + column); beyond its end: a dummy.
ZIGZAG = np.full(192, 64, np.uint8)
ZIGZAG[:64] = sorted(
    range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8)
)


class Frame(NamedTuple):
    """Size and sampling: luma has ``across`` x ``down`` blocks for each one of chroma."""

    width: int
    height: int
    components: int
    across: int
    down: int
    interval: int
    mcus_across: int
    mcus_down: int


@dataclass(frozen=True, slots=True)
class _Header:
    """What lies before the compressed data."""

    frame: Frame
    quantisers: tuple[bytes, ...]
    codes: tuple[tuple[bytes, bytes], ...]
    start: int
    """Offset of the first compressed byte."""


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
    header = _header(source)
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
        tables = _tables(header.codes)
        quantisers = _quantisers(header.quantisers)
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


# --- header ---

_last: list[tuple[bytes, _Header]] = []


def _header(data: NDArray[np.uint8]) -> _Header | None:
    """As `_parse`; most files of a dataset begin with the same bytes, up to the compressed data."""
    for beginning, known in _last:
        if data[: len(beginning)].tobytes() == beginning:
            return known
    header = _parse(data)
    if header is not None:
        _last[:] = [(data[: header.start].tobytes(), header)]
    return header


def _parse(data: NDArray[np.uint8]) -> _Header | None:
    """Read the markers up to the compressed data; None for whatever is not plain."""
    quantisers: dict[int, bytes] = {}
    codes: dict[int, tuple[bytes, bytes]] = {}
    size = sampling = None
    interval, ycc = 0, None
    if data[:2].tobytes() != b"\xff\xd8":
        return None
    place = 2
    while True:
        head = data[place : place + 4].tobytes()
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker, length = head[1], int.from_bytes(head[2:], "big")
        body = data[place + 4 : place + 2 + length].tobytes()
        if len(body) != length - 2:
            return None
        place += 2 + length
        if marker == 0xDB:
            good = _read_quantisers(body, quantisers)
        elif marker == 0xC4:
            good = _read_codes(body, codes)
        elif marker in (0xC0, 0xC1):
            good = size is None and len(body) > 5 and body[0] == 8
            size, sampling = body[1:5], body[5:]
        elif marker == 0xDD:
            good = length == 4
            interval = int.from_bytes(body, "big")
        elif marker == 0xE0:
            good = True
            if body[:5] == b"JFIF\0" and len(body) >= 14:
                ycc = True
        elif marker == 0xEE:
            good = True
            if body[:5] == b"Adobe" and len(body) >= 12 and not ycc:
                ycc = body[11] == 1
        elif marker == 0xDA:
            break
        else:
            good = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not good:
            return None
    if size is None or sampling is None:
        return None
    return _combine(size, sampling, body, place, interval, ycc, quantisers, codes)


def _read_quantisers(body: bytes, quantisers: dict[int, bytes]) -> bool:
    """Add quantisation tables; values as 64 big-endian uint16."""
    while body:
        wide, number = divmod(body[0], 16)
        count = 64 * (wide + 1)
        if wide > 1 or number > 3 or len(body) < 1 + count:
            return False
        values = np.frombuffer(body, (np.uint8, ">u2")[wide], 64, 1).astype(">u2")
        if not values.all():
            return False
        quantisers[number] = values.tobytes()
        body = body[1 + count :]
    return True


def _read_codes(body: bytes, codes: dict[int, tuple[bytes, bytes]]) -> bool:
    """Add Huffman tables, 0 to 3 of DC and 16 to 19 of AC: codes of each length, symbols."""
    while body:
        number, counts = body[0], body[1:17]
        total = sum(counts)
        if number not in (0, 1, 2, 3, 16, 17, 18, 19) or total > 256 or len(body) < 17 + total:
            return False
        codes[number] = counts, body[17 : 17 + total]
        body = body[17 + total :]
    return True


def _combine(
    size: bytes,
    sampling: bytes,
    scan: bytes,
    start: int,
    interval: int,
    ycc: bool | None,
    quantisers: dict[int, bytes],
    codes: dict[int, tuple[bytes, bytes]],
) -> _Header | None:
    """Check frame and scan header against each other and find their tables."""
    height, width = int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
    n = sampling[0]
    if n not in (1, 3) or len(sampling) != 1 + 3 * n or len(scan) != 4 + 2 * n or scan[0] != n:
        return None
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        return None
    ids = sampling[1::3]
    if scan[1 : 1 + 2 * n : 2] != ids or len(set(ids)) < n or scan[-3:] != b"\0\x3f\0":
        return None
    if n == 3 and not (ids == b"\1\2\3" if ycc is None else ycc):
        return None
    across, down = divmod(sampling[2], 16)
    if n == 1:
        # A single component is not interleaved, whatever its sampling.
        if not (1 <= across <= 4 and 1 <= down <= 4):
            return None
        across = down = 1
    elif sampling[5::3] != b"\x11\x11" or across not in (1, 2) or down not in (1, 2):
        return None
    chosen = [(scan[i] // 16, scan[i] % 16 + 16) for i in range(2, 2 + 2 * n, 2)]
    if any(key not in codes for pair in chosen for key in pair):
        return None
    if any(key not in quantisers for key in sampling[3::3]):
        return None
    frame = Frame(
        width,
        height,
        n,
        across,
        down,
        interval,
        -(-width // (8 * across)),
        -(-height // (8 * down)),
    )
    return _Header(
        frame,
        tuple(quantisers[key] for key in sampling[3::3]),
        tuple(codes[key] for pair in chosen for key in pair),
        start,
    )


# --- tables ---


class Tables(NamedTuple):
    """Huffman tables: rows ``2 c`` and ``2 c + 1`` are DC and AC of component ``c``.

    Attributes
    ----------
    look : (2 * components, 2**LOOK_BITS) int32
        Entry of the symbol that the next bits begin with; 0 if its code is longer.
    skip : (components, 2**SKIP_BITS) int32
        One entry for all AC symbols that the next bits hold, the last one's value perhaps beyond;
        0 likewise.
    limits, offsets : (2 * components, 17) int32
        For codes of each length: their end, shifted to 16 bits; what to add to one for the place of
        its entry.
    entries : (2 * components, 256) int32
        In the order of the codes.
    """

    look: NDArray[np.int32]
    skip: NDArray[np.int32]
    limits: NDArray[np.int32]
    offsets: NDArray[np.int32]
    entries: NDArray[np.int32]


@lru_cache(maxsize=16)
def _tables(codes: tuple[tuple[bytes, bytes], ...]) -> Tables:
    """Build tables from codes of DC and AC in turn; ValueError if they are not sound.

    Most files share their tables: those of the standard.
    """
    n = len(codes)
    look = np.zeros((n, 1 << LOOK_BITS), np.int32)
    limits, offsets = np.zeros((n, 17), np.int32), np.zeros((n, 17), np.int32)
    entries = np.full((n, 256), NO_CODE, np.int32)
    skip = np.empty((n // 2, 1 << SKIP_BITS), np.int32)
    for i, (counts, symbols) in enumerate(codes):
        code = place = 0
        for length, count in enumerate(counts, start=1):
            offsets[i, length] = place - code
            for symbol in symbols[place : place + count]:
                entry = _entry(length, symbol, bool(i % 2))
                entries[i, place] = entry
                if length <= LOOK_BITS:
                    begin = code << (LOOK_BITS - length)
                    look[i, begin : begin + (1 << (LOOK_BITS - length))] = entry
                code, place = code + 1, place + 1
            if count and code >= 1 << length:
                raise ValueError("too many codes, or one of all ones")
            limits[i, length] = code << (16 - length)
            code <<= 1
    for i in range(n // 2):
        fill_skip(look[2 * i + 1], skip[i])
    return Tables(look, skip, limits, offsets, entries)


def _entry(length: int, symbol: int, ac: bool) -> int:
    """Table entry of a symbol; `NO_CODE` for those that libjpeg takes and no 8-bit file has."""
    run, size = divmod(symbol, 16)
    if not ac and symbol > 15:
        raise ValueError("no symbol of DC")
    if size > (10 if ac else 11) or (ac and size == 0 and run not in (0, 15)):
        return NO_CODE
    advance = (END if symbol == 0 else run + 1) if ac else 0
    return length + size | size << SIZE_SHIFT | advance << ADVANCE_SHIFT


@lru_cache(maxsize=64)
def _quantisers(tables: tuple[bytes, ...]) -> NDArray[np.int32]:
    """(components, 192) int32, in the file's order; 0 beyond the end of a block."""
    values = np.zeros((len(tables), len(ZIGZAG)), np.int32)
    for row, table in zip(values, tables, strict=True):
        row[:64] = np.frombuffer(table, ">u2")
    return values


@njit(cache=True, nogil=True)
def fill_skip(look: NDArray[np.int32], skip: NDArray[np.int32]) -> None:
    """Join entries of AC symbols, up to an end of block, as long as they fit."""
    for bits in range(1 << SKIP_BITS):
        dropped = advance = 0
        while advance < 128:
            rest = (bits << dropped) & ((1 << SKIP_BITS) - 1)
            entry = look[rest >> (SKIP_BITS - LOOK_BITS)]
            if entry in (0, NO_CODE) or (dropped and dropped + (entry & DROP) > SKIP_BITS):
                break
            dropped += entry & DROP
            advance += entry >> ADVANCE_SHIFT
        skip[bits] = dropped | advance << ADVANCE_SHIFT


# --- compressed data ---


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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True, forceinline=True)
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


@njit(cache=True, nogil=True)
def find_entry(word: int, table: int, tables: Tables) -> int:
    """Entry of a symbol whose code is longer than LOOK_BITS."""
    bits = np.int64(word >> 48)
    for length in range(LOOK_BITS + 1, 17):
        if bits < tables.limits[table, length]:
            place = (bits >> (16 - length)) + tables.offsets[table, length]
            return np.int64(tables.entries[table, place & 255])
    return NO_CODE


@njit(cache=True, nogil=True, forceinline=True)
def value_after(word: int, entry: int) -> int:
    """Signed value of the bits that follow a code (T.81, F.2.2.1: a leading 0 means negative)."""
    size = (entry >> SIZE_SHIFT) & 15
    bits = np.int64((word << ((entry & DROP) - size)) >> 1 >> (63 - size))
    half = (1 << size) >> 1
    return bits + (((bits - half) >> 63) & (1 - (1 << size)))


@njit(cache=True, nogil=True, forceinline=True)
def skip_block(
    scan: NDArray[np.uint8], word: int, left: int, place: int, component: int, tables: Tables
) -> tuple[int, int, int, int]:
    """Pass the AC symbols of a block; returns the reader's state and the advance in all."""
    k = 0
    while k < 63:
        word, left, place = refill(scan, word, left, place)
        for _ in range(2):
            entry = np.int64(tables.skip[component, np.int64(word >> (64 - SKIP_BITS))])
            ahead = k + (entry >> ADVANCE_SHIFT)
            if entry == 0 or ahead & 127 > 63:  # the block ends before the last of these symbols
                entry = np.int64(tables.look[2 * component + 1, np.int64(word >> (64 - LOOK_BITS))])
                if entry == 0:
                    entry = find_entry(word, 2 * component + 1, tables)
                ahead = k + (entry >> ADVANCE_SHIFT)
            word <<= entry & DROP
            left -= entry & DROP
            k = ahead
            if k >= 63:
                break
    return word, left, place, k


@njit(cache=True, nogil=True, forceinline=True)
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
    """Read the AC symbols of a block; as `skip_block`, and the sum of absolute coefficients."""
    k = total = 0
    while k < 63:
        word, left, place = refill(scan, word, left, place)
        for _ in range(2):
            entry = np.int64(tables.look[2 * component + 1, np.int64(word >> (64 - LOOK_BITS))])
            if entry == 0:
                entry = find_entry(word, 2 * component + 1, tables)
            k += entry >> ADVANCE_SHIFT
            at = np.uint64(k)
            value = value_after(word, entry) * steps[component, at]
            total += abs(value)
            block[np.uint64(ZIGZAG[at])] = value
            word <<= entry & DROP
            left -= entry & DROP
            if k >= 63:
                break
    return word, left, place, k, total


@njit(cache=True, nogil=True)
def read_mcus(
    scan: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    frame: Frame,
    tables: Tables,
    steps: NDArray[np.int32],
    begin: int,
    stop: int,
    state: NDArray[np.int64],
    wanted: bool,
    planes: NDArray[np.uint8],
    block: NDArray[np.int16],
) -> bool:
    """Read MCUs ``begin`` to ``stop``, which lie in one row, and transform them if ``wanted``.

    Parameters
    ----------
    scan, bounds
        As `unstuff` wrote them.
    steps : (components, 192) int32
        Quantisation tables.
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
    lumas = frame.across * frame.down
    end = bounds[begin // frame.interval + 1 if frame.interval else 1]
    beyond = 0
    for mcu in range(begin, stop):
        if frame.interval and mcu % frame.interval == 0:
            segment = mcu // frame.interval
            if place * 8 - left > bounds[segment] * 8:
                return False
            word, left, place = np.uint64(0), 0, bounds[segment]
            end = bounds[segment + 1]
            state[3:] = 0
        column = mcu % frame.mcus_across
        for b in range(lumas + frame.components - 1):
            if place > end + 8:
                return False
            c = max(b - lumas + 1, 0)
            word, left, place = refill(scan, word, left, place)
            entry = np.int64(tables.look[2 * c, np.int64(word >> (64 - LOOK_BITS))])
            if entry == 0:
                entry = find_entry(word, 2 * c, tables)
            if entry == NO_CODE:
                return False
            dc = state[3 + c] + value_after(word, entry)
            state[3 + c] = dc
            word <<= entry & DROP
            left -= entry & DROP
            if not wanted:
                word, left, place, k = skip_block(scan, word, left, place, c, tables)
                if 63 < k < END:
                    return False
                continue
            word, left, place, k, total = read_block(
                scan, word, left, place, c, tables, steps, block
            )
            dc *= steps[c, 0]
            if 63 < k < END or total + abs(dc) > MAX_SUM:
                return False
            block[0] = dc
            row, col = 1, 8 * column
            if c == 0:
                row += b // frame.across * 8
                col = (column * frame.across + b % frame.across) * 8
            if k == END:
                beyond |= fill(block, planes, c, row, col)
            else:
                beyond |= transform(block, planes, c, row, col)
    state[0], state[1], state[2] = np.int64(word), left, place
    return beyond == 0 and np.abs(state[3:]).max() < 1 << 20


# --- samples to pixels ---


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


@njit(cache=True, nogil=True, forceinline=True)
def fill(block: NDArray[np.int16], planes: NDArray[np.uint8], c: int, row: int, col: int) -> int:
    """As `transform`, of a block of nothing but DC."""
    level = ((block[0] + 4) >> 3) + 128
    for i in range(8):
        for j in range(8):
            planes[c, row + i, col + j] = min(max(level, 0), 255)
    block[0] = 0
    return (level + 384) >> 10


@njit(cache=True, nogil=True, forceinline=True)
def transform(
    block: NDArray[np.int16], planes: NDArray[np.uint8], c: int, row: int, col: int
) -> int:
    """Inverse cosine transform of a block to 8 x 8 samples at (row, col); clears the block.

    Returns 0 unless a sample lies so far out of range that libjpeg's versions differ.
    """
    block[63], planes[c, row + 7, col + 7] = block[63], 0  # the vector code checks no bounds
    return _inverse_dct(block, planes, c, row, col)


# Numba computes with 64 bits unless told after each step; of narrow numbers LLVM makes vectors.


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
    mcu = 0
    if frame.interval:  # begin at the last restart marker above the rows
        segment = begin * frame.mcus_across // frame.interval
        mcu = segment * frame.interval
        state[2] = bounds[segment]
    while mcu < end * frame.mcus_across:
        row = mcu // frame.mcus_across
        stop = (row + 1) * frame.mcus_across
        wanted = row >= begin
        if wanted and row > begin:
            planes[0, 0] = planes[0, tall]
            for c in range(1, frame.components):
                planes[c, 0] = planes[c, 8]
        if not read_mcus(
            scan, bounds, frame, tables, steps, mcu, stop, state, wanted, planes, block
        ):
            return False
        mcu = stop
        if wanted:
            top = row * tall
            low = max(first, top - reach)
            high = last if row == end - 1 else min(last, top + tall - reach)
            for y in range(low, high):
                draw_row(planes, frame, y, top, wide, sums, out[y].reshape(3 * frame.width))
    segment = (mcu - 1) // frame.interval if frame.interval else 0
    return state[2] * 8 - state[1] <= bounds[segment + 1] * 8
