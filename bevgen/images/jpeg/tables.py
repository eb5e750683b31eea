"""Tables of codes and quantisers, in the form that the loops look up."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevgen.compiling import njit

LOOK_BITS = 10  # longer codes are searched for: there are few
SKIP_BITS = 12

# An entry of a symbol: bits to drop | bits of its code << 6 | bits of its value << 12 | advance
# << 16, where advance is the zeros before a coefficient and itself; 0 if the code is longer. END is
# the advance at the end of a block: whatever is added to it, it stays above all others, and modulo
# 128 above the 63 of a block that was full already. NO_CODE leads beyond a block, not to its end.
DROP, CODE_SHIFT, SIZE_SHIFT, ADVANCE_SHIFT = 31, 6, 12, 16
SKIP_ADVANCE_SHIFT = 5
END = 129
NO_CODE = 64 << ADVANCE_SHIFT

# Position in the file's order -> in the block (row * 8 + column); beyond its end: a dummy.
ZIGZAG = np.full(192, 64, np.uint8)
ZIGZAG[:64] = sorted(
    range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8)
)


class Tables(NamedTuple):
    """Huffman tables: rows ``2 c`` and ``2 c + 1`` are DC and AC of component ``c``.

    Attributes
    ----------
    look : (2 * components, 2**LOOK_BITS) int32
        Entry of the symbol that the next bits begin with; 0 if its code is longer.
    skip : (components, 2**SKIP_BITS) int16
        For blocks that are skipped: one entry for all AC symbols that the next bits hold, the last
        one's value perhaps beyond; 0 likewise. Bits to drop | advance << 5: small, to stay in the
        cache.
    alike : (components,) int64
        The first component of the same AC codes: what is shared stays in the cache, too.
    limits, offsets : (2 * components, 17) int32
        For codes of each length: their end, shifted to 16 bits; what to add to one for the place of
        its entry.
    entries : (2 * components, 256) int32
        In the order of the codes.
    """

    look: NDArray[np.int32]
    skip: NDArray[np.int16]
    alike: NDArray[np.int64]
    limits: NDArray[np.int32]
    offsets: NDArray[np.int32]
    entries: NDArray[np.int32]


@lru_cache(maxsize=16)
def build_tables(codes: tuple[tuple[bytes, bytes], ...]) -> Tables:
    """Build tables from codes of DC and AC in turn; ValueError if they are not sound.

    Most files share their tables: those of the standard.
    """
    n = len(codes)
    look = np.zeros((n, 1 << LOOK_BITS), np.int32)
    limits, offsets = np.zeros((n, 17), np.int32), np.zeros((n, 17), np.int32)
    entries = np.full((n, 256), NO_CODE, np.int32)
    skip = np.empty((n // 2, 1 << SKIP_BITS), np.int16)
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
    ac = codes[1::2]
    alike = np.array([ac.index(code) for code in ac], np.int64)
    return Tables(look, skip, alike, limits, offsets, entries)


def _entry(length: int, symbol: int, ac: bool) -> int:
    """Table entry of a symbol; `NO_CODE` for those that libjpeg takes and no 8-bit file has."""
    run, size = divmod(symbol, 16)
    if not ac and symbol > 15:
        raise ValueError("no symbol of DC")
    if size > (10 if ac else 11) or (ac and size == 0 and run not in (0, 15)):
        return NO_CODE
    advance = (END if symbol == 0 else run + 1) if ac else 0
    bits = length + size | length << CODE_SHIFT | size << SIZE_SHIFT
    return bits | advance << ADVANCE_SHIFT


@lru_cache(maxsize=64)
def quantiser_steps(tables: tuple[bytes, ...]) -> NDArray[np.int32]:
    """(components, 192) int32, in the file's order; 0 beyond the end of a block."""
    values = np.zeros((len(tables), len(ZIGZAG)), np.int32)
    for row, table in zip(values, tables, strict=True):
        row[:64] = np.frombuffer(table, ">u2")
    return values


@njit(cache=True)
def fill_skip(look: NDArray[np.int32], skip: NDArray[np.int16]) -> None:
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
        skip[bits] = dropped | advance << SKIP_ADVANCE_SHIFT
