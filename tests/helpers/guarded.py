"""Project panoramas that end, and begin, where memory ends; print a digest of the BEVs.

Run in a process of its own: a byte read or written too far ends it. The first argument says where
the memory ends, at the ``start`` or the ``end`` of the arrays, or is ``beyond`` to read too far on
purpose; with ``portable`` as the second one the vector code of other machines is taken.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import zlib
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.project import project_view

SIZES = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 9), (2, 3), (3, 2), (5, 7), (16, 32), (90, 37))
POSES = (Pose(0.5), Pose(0.5, 77.7), Pose(0.5, 3.0, 90.0), Pose(0.5, -3.0, -20.0, 180.0))
CROP = ((40.0, -90.0), (-100.0, 179.0))


def guarded(shape: tuple[int, ...], end: str) -> NDArray[np.uint8]:
    """Return an array whose start or end touches a page that nobody may use."""
    page, size = mmap.PAGESIZE, int(np.prod(shape))
    pages = -(-size // page) * page
    memory = mmap.mmap(-1, pages + 2 * page)
    buffer = np.frombuffer(memory, np.uint8)
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for offset in (0, page + pages):
        assert mprotect(buffer.ctypes.data + offset, page, 0) == 0
    first = page if end == "start" else page + pages - size
    return buffer[first : first + size].reshape(shape)


def digest(end: str | None) -> int:
    """Project everything, in guarded memory if an end is given."""
    crc = 0
    for (height, width), channels, pose, fields, size in product(
        SIZES, (1, 3, 4), POSES, (None, CROP), (20, 21)
    ):
        view = PanoramaView(height, width, *(fields or ()))
        panorama = np.random.default_rng(height).integers(0, 256, (height, width, channels), "u1")
        out = np.empty((size, size, channels), np.uint8)
        if end:
            own, out = guarded(panorama.shape, end), guarded(out.shape, end)
            own[:] = panorama
            panorama = own
        for antialias in (False, True):
            project_view(panorama, BevGrid(size, 0.2), view, pose, antialias=antialias, out=out)
            crc = zlib.crc32(out.tobytes(), crc)
    return crc


def main() -> None:
    end = sys.argv[1]
    if end == "beyond":
        ctypes.string_at(guarded((10,), "end").ctypes.data + 10, 1)
    if "portable" in sys.argv[2:]:
        from bevgen.projection import sampling_uint8

        sampling_uint8._X86 = False
    sys.stdout.write(f"{digest(end)}\n")


if __name__ == "__main__":
    main()
