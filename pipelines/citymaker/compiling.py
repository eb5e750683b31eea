"""How kernels are compiled, and when the copies on disk are out of date.

Numba looks at the file of a cached function only; but what it compiled has in it the helpers and
constants of all files here. So only the few functions that Python calls are cached, and they carry
a digest of all sources, which Numba takes into the key because it is a closure's variable.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from numba import njit

SOURCES = zlib.crc32(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
)

# With NumPy's error model a division needs no check for zero. Nothing compiled here allocates, so
# arrays need no reference counts, which would take most of the time (NRT: Numba's runtime).
OPTIONS = {"nogil": True, "fastmath": True, "error_model": "numpy", "_nrt": False}

compiled = njit(**OPTIONS)
"""For helpers, which are compiled together with what calls them."""

inlined = njit(inline="always", **OPTIONS)
"""For helpers of the innermost loops: a call that passes the scene's tables costs more than it."""

entry = njit(cache=True, **OPTIONS)
"""For functions that Python calls; their bodies must mention SOURCES as a closure's variable."""
