"""How the city's kernels are compiled; `bevgen.compiling` says when copies on disk are out of date.

Only the few functions that Python calls are kept; their helpers are compiled into them.
"""

from __future__ import annotations

from pathlib import Path

from bevgen.compiling import njit, sources_digest

SOURCES = int(sources_digest(Path(__file__).parent)[:8], 16)

# With NumPy's error model a division needs no check for zero. Nothing compiled here allocates, so
# arrays need no reference counts, which would take most of the time (NRT: Numba's runtime).
OPTIONS = {"fastmath": True, "error_model": "numpy", "_nrt": False}

compiled = njit(**OPTIONS)
"""For helpers, which are compiled together with what calls them."""

inlined = njit(inline="always", **OPTIONS)
"""For helpers of the innermost loops: a call that passes the scene's tables costs more than it."""

entry = njit(cache=True, **OPTIONS)
"""For functions that Python calls."""
