"""What lies before the compressed data: read, checked, and None for whatever is not plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 2**28
MAX_SIDE = 65500  # as libjpeg


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
class Header:
    """What lies before the compressed data."""

    frame: Frame
    quantisers: tuple[bytes, ...]
    codes: tuple[tuple[bytes, bytes], ...]
    start: int
    """Offset of the first compressed byte."""


_last: list[tuple[bytes, Header]] = []


def read_header(data: NDArray[np.uint8]) -> Header | None:
    """As `_parse`; most files of a dataset begin with the same bytes, up to the compressed data."""
    for beginning, known in _last:
        if data[: len(beginning)].tobytes() == beginning:
            return known
    header = _parse(data)
    if header is not None:
        _last[:] = [(data[: header.start].tobytes(), header)]
    return header


def _parse(data: NDArray[np.uint8]) -> Header | None:
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
) -> Header | None:
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
    return Header(
        frame,
        tuple(quantisers[key] for key in sampling[3::3]),
        tuple(codes[key] for pair in chosen for key in pair),
        start,
    )
