"""Map tiles in flat colours. Serial and nogil."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math

from pipelines.citymaker.compiling import compiled, entry
from pipelines.citymaker.ground import (
    COURT,
    GRASS,
    MEADOW,
    PARKING,
    SAND,
    WATER,
    cell_of,
    fillet,
    nearest_streets,
    round_union,
)
from pipelines.citymaker.noise import band, inside, mix, noise
from pipelines.citymaker.scene import (
    COS,
    CX,
    CY,
    HX,
    HY,
    KIND,
    PA_COS,
    PA_HX,
    PA_HY,
    PA_KIND,
    PA_OVER,
    PA_RADIUS,
    PA_SEED,
    PA_SIN,
    PA_X,
    PA_Y,
    SEG_STREET,
    SIN,
    ST_HALF,
    Floats,
    Scene,
    Solid,
)


@compiled
def map_ground(kind):
    """Colour (0 to 255) of a patch's material on the map; negative if the map does not show it."""
    if kind in (GRASS, MEADOW):
        return 205.0, 230.0, 190.0
    if kind == WATER:
        return 165.0, 205.0, 235.0
    if kind == PARKING:
        return 228.0, 226.0, 233.0
    if kind == COURT:
        return 170.0, 215.0, 190.0
    if kind == SAND:
        return 245.0, 235.0, 200.0
    return -1.0, 0.0, 0.0


@entry
def draw_map(scene: Scene, x0: float, y1: float, pixel: float, out: Floats) -> None:
    """Draw a map in flat colours.

    Parameters
    ----------
    scene
        What there is.
    x0, y1
        West and north edge in metres.
    pixel
        Metres per pixel.
    out : (H, W, 3) float32, written
        0 to 255.
    """
    for row in range(out.shape[0]):
        y = y1 - (row + 0.5) * pixel
        for column in range(out.shape[1]):
            x = x0 + (column + 0.5) * pixel
            r, g, b = 240.0, 238.0, 232.0
            if scene.base == GRASS or scene.base == MEADOW:
                r, g, b = 226.0, 236.0, 214.0
            cell = cell_of(scene, x, y)
            if cell < 0:
                out[row, column, 0], out[row, column, 1], out[row, column, 2] = r, g, b
                continue
            for n in range(scene.patch_first[cell], scene.patch_first[cell + 1]):
                p = scene.patches[scene.patch_items[n]]
                r1, g1, b1 = map_ground(int(p[PA_KIND]))
                if p[PA_OVER] > 0 or r1 < 0:
                    continue
                px, py = x - p[PA_X], y - p[PA_Y]
                lx, ly = p[PA_COS] * px + p[PA_SIN] * py, p[PA_COS] * py - p[PA_SIN] * px
                radius = p[PA_RADIUS]
                qx, qy = abs(lx) - p[PA_HX] + radius, abs(ly) - p[PA_HY] + radius
                d = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2) + min(max(qx, qy), 0.0)
                d -= radius
                if d < pixel and (p[PA_KIND] == WATER or p[PA_KIND] == MEADOW):
                    seed = int(p[PA_SEED])
                    d += 1.3 * noise(x / 9, y / 9, seed) + 0.5 * noise(x / 2.5, y / 2.5, seed)
                r, g, b = mix(r, g, b, r1, g1, b1, inside(d, pixel))
            one, d1, two, d2 = nearest_streets(scene, cell, x, y)
            if one >= 0:
                st = scene.streets[int(scene.segments[one, SEG_STREET])]
                road = d1 if two < 0 else round_union(d1, d2, fillet(scene, one, two))
                r, g, b = mix(r, g, b, 200.0, 196.0, 190.0, inside(road - 0.7, pixel))
                if st[ST_HALF] < 2:
                    r, g, b = mix(r, g, b, 250.0, 245.0, 235.0, inside(road, pixel))
                elif st[ST_HALF] > 5:
                    r, g, b = mix(r, g, b, 253.0, 226.0, 147.0, inside(road, pixel))
                else:
                    r, g, b = mix(r, g, b, 255.0, 255.0, 255.0, inside(road, pixel))
            for n in range(scene.thing_first[cell], scene.thing_first[cell + 1]):
                item = scene.thing_items[n]
                if item >= scene.solids.shape[0]:
                    break
                s = scene.solids[item]
                if int(s[KIND]) != Solid.BUILDING and int(s[KIND]) != Solid.TANK:
                    continue
                px, py = x - s[CX], y - s[CY]
                lx, ly = s[COS] * px + s[SIN] * py, s[COS] * py - s[SIN] * px
                d = max(abs(lx) - s[HX], abs(ly) - s[HY])
                r, g, b = mix(r, g, b, 214.0, 205.0, 196.0, inside(d, pixel))
                edge = band(d, 0.5 * pixel, pixel)
                r, g, b = mix(r, g, b, 190.0, 180.0, 172.0, 0.8 * edge)
            out[row, column, 0], out[row, column, 1], out[row, column, 2] = r, g, b
