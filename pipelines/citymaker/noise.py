"""Noise and stripes, averaged over footprints: the stuff of which all patterns are made."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math

from pipelines.citymaker.compiling import compiled


@compiled
def whole(x):
    """Round down to an integer."""
    return int(math.floor(x))  # noqa: RUF046 (Numba's floor is a float)


@compiled
def chance(i, j, seed):
    """Return a number from 0 to 1 that belongs to integers (i, j) and a seed."""
    h = (int(i) * 374761393 + int(j) * 668265263 + int(seed) * 1442695041) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 2246822519) & 0xFFFFFFFF
    return (h ^ (h >> 15)) / 4294967296.0


@compiled
def noise(x, y, seed):
    """Smooth noise of mean 0, -1 to 1, whose grains are one unit wide."""
    fx, fy = math.floor(x), math.floor(y)
    i, j = int(fx), int(fy)
    x, y = x - fx, y - fy
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    a, b = chance(i, j, seed), chance(i + 1, j, seed)
    c, d = chance(i, j + 1, seed), chance(i + 1, j + 1, seed)
    low, high = a + (b - a) * x, c + (d - c) * x
    return 2 * (low + (high - low) * y) - 1


@compiled
def grain(x, y, size, width, seed):
    """Noise with grains of ``size`` metres, faded where the footprint is that wide."""
    keep = 1.6 - 1.6 * width / size
    if keep <= 0:
        return 0.0
    return min(keep, 1.0) * noise(x / size, y / size, seed)


@compiled
def band(x, half, width):
    """Part of a footprint of ``width`` around x that lies within +-half."""
    low, high = max(x - width / 2, -half), min(x + width / 2, half)
    return max(high - low, 0.0) / width


@compiled
def inside(distance, width):
    """Part of a footprint within an edge, by signed distance (negative inside)."""
    return min(max(0.5 - distance / width, 0.0), 1.0)


@compiled
def stripes(x, period, stripe, width):
    """Part of a footprint covered by stripes [k period, k period + stripe)."""
    a, b = (x - width / 2) / period, (x + width / 2) / period
    part = stripe / period
    fa, fb = math.floor(a), math.floor(b)
    ia, ib = fa * part + min(a - fa, part), fb * part + min(b - fb, part)
    return (ib - ia) / (b - a)


@compiled
def mix(r, g, b, r1, g1, b1, k):
    """Go from one colour to another by k."""
    return r + (r1 - r) * k, g + (g1 - g) * k, b + (b1 - b) * k
