"""What colour the things have that stand on the ground: walls, roofs, cars, leaves."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math

from pipelines.citymaker.compiling import compiled
from pipelines.citymaker.ground import tiles
from pipelines.citymaker.noise import band, chance, grain, inside, mix, noise, stripes, whole
from pipelines.citymaker.scene import (
    COS,
    CROWN_BLUE,
    CROWN_GREEN,
    CROWN_R,
    CROWN_RED,
    CROWN_RZ,
    CROWN_SEED,
    CROWN_X,
    CROWN_Y,
    CROWN_Z,
    CX,
    CY,
    EAVE,
    FLOOR,
    HX,
    HY,
    KIND,
    ROOF_RGB,
    SEED,
    SIN,
    STYLE,
    TOP,
    WALL_RGB,
    Facade,
    Solid,
)


@compiled
def window_grid(u, z, wall, floor, bay, wide, tall, sill, wu, wz, seed):
    """Window pattern: (part that is window, part that is its frame, column, row)."""
    bays = max(1.0, math.floor(2 * wall / bay + 0.3))
    bay = 2 * wall / bays
    column, row = math.floor((u + wall) / bay), math.floor(z / floor)
    lu, lz = (u + wall) - (column + 0.5) * bay, z - row * floor - sill - tall / 2
    glass = band(lu, wide / 2, wu) * band(lz, tall / 2, wz)
    outer = band(lu, wide / 2 + 0.12, wu) * band(lz, tall / 2 + 0.12, wz)
    cross = max(band(lu, 0.03, wu), band(lz - 0.2 * tall, 0.03, wz))
    return glass * (1 - cross), outer, int(column), int(row)


@compiled
def glass_colour(i, j, seed, sky):
    """Albedo of a window pane: curtains, blinds, or the dark of the room; some reflect the sky."""
    k = chance(i, j, seed + 77)
    if k < 0.22:
        return 0.42, 0.40, 0.36
    if k < 0.30:
        return 0.30, 0.22, 0.15
    light = 0.035 + 0.16 * sky * chance(i, j, seed + 78)
    return light * 0.85, light, light * 1.18


@compiled
def facade_albedo(s, n, u, z, half, wu, wz, face, sky):
    """Albedo of a wall at ``u`` metres from its middle and ``z`` metres above the ground."""
    style, seed = int(s[n, STYLE]), int(s[n, SEED]) * 11 + face
    r, g, b = float(s[n, WALL_RGB]), float(s[n, WALL_RGB + 1]), float(s[n, WALL_RGB + 2])
    w = max(wu, wz)
    floor = float(s[n, FLOOR])
    eave = float(s[n, EAVE])
    dirt = 0.10 * noise(u / 2.3, z / 3.1, seed) + 0.06 * grain(u, z, 0.3, w, seed)
    dirt -= 0.16 * max(0.0, 1 - z / 1.2)
    r, g, b = r * (1 + dirt), g * (1 + dirt), b * (1 + dirt)
    if style == Facade.BRICK:
        shade, gaps = tiles(u, z, 0.24, 0.08, 0.014, wu, wz, seed)
        r, g, b = r * (1 + 0.2 * shade), g * (1 + 0.2 * shade), b * (1 + 0.2 * shade)
        r, g, b = mix(r, g, b, 0.42, 0.40, 0.36, 0.6 * gaps)
    elif style == Facade.STONE:
        shade, gaps = tiles(u, z, 0.8, 0.4, 0.02, wu, wz, seed)
        k = (1 + 0.09 * shade) * (1 - 0.35 * gaps)
        r, g, b = r * k, g * k, b * k
    elif style == Facade.SIDING:
        k = 1 - 0.4 * stripes(z, 0.18, 0.025, wz)
        r, g, b = r * k, g * k, b * k
    elif style == Facade.SHEET:
        k = 1 - 0.30 * stripes(u, 0.33, 0.10, wu)
        r, g, b = r * k, g * k, b * k
        k = band(z - 0.8 * eave, 0.3, wz) * (seed % 2)
        r, g, b = mix(r, g, b, 0.5 * g, 0.4 * b, 0.9 * r, k)
    if style == Facade.GLASS:
        bay = 1.5 + 0.5 * (int(s[n, SEED]) % 3)
        column, row = math.floor(u / bay), math.floor(z / floor)
        tint = 0.05 + 0.12 * sky + 0.06 * chance(int(column), int(row), seed)
        pr, pg, pb = tint * r * 2.2, tint * g * 2.2, tint * b * 2.2
        lines = max(stripes(u, bay, 0.10, wu), stripes(z, floor, 0.55, wz))
        return mix(pr, pg, pb, 0.62 * r, 0.62 * g, 0.62 * b, lines)
    ground_floor = z < floor * 1.1
    shop = chance(1, 2, int(s[n, SEED])) < (0.85 if style == Facade.CONCRETE else 0.55)
    if style == Facade.SIDING or style == Facade.SHEET or floor < 2.9:
        shop = False
    if style == Facade.SHEET:
        # A hall: roller doors, and a ribbon of windows below the eave.
        lu = u - math.floor(u / 9.0) * 9.0 - 4.5
        if chance(whole(u / 9.0), 3, seed) < 0.45:
            door = band(lu, 1.9, wu) * inside(z - 4.0, wz)
            k = 0.45 * (1 - 0.3 * stripes(z, 0.25, 0.05, wz))
            r, g, b = mix(r, g, b, k, k, k * 0.95, door)
        ribbon = band(z - 0.66 * eave, 0.5, wz) * (1 - stripes(u, 1.6, 0.12, wu))
        return mix(r, g, b, 0.06, 0.075, 0.09, ribbon * (1.0 if half > 12 else 0.0))
    bay = 2.2 + 1.6 * chance(3, 4, int(s[n, SEED]))
    if ground_floor and shop and half > 2.5:
        return shop_front(s, n, r, g, b, u, z, half, wu, wz, seed, sky)
    tall = floor * (0.46 + 0.14 * chance(5, 6, int(s[n, SEED])))
    wide = bay * (0.38 + 0.22 * chance(7, 8, int(s[n, SEED])))
    if style == Facade.CONCRETE:
        wide = bay * 0.82
    glass, outer, i, j = window_grid(u, z, half - 0.4, floor, bay, wide, tall, 0.85, wu, wz, seed)
    present = chance(i, j, seed + 5) > 0.06 and abs(u) < half - 0.4 and z < eave - 0.3
    if ground_floor and j == 0 and i == int(chance(9, 9, seed) * 2 * half / bay):
        # The door.
        lu = (u + half - 0.4) / (
            (2 * half - 0.8) / max(1.0, math.floor((2 * half - 0.8) / bay + 0.3))
        )
        lu = (lu - math.floor(lu) - 0.5) * bay
        door = band(lu, 0.55, wu) * inside(z - 2.15, wz)
        frame = band(lu, 0.72, wu) * inside(z - 2.32, wz)
        r, g, b = mix(r, g, b, 0.5, 0.48, 0.44, frame)
        k = chance(2, 7, seed)
        return mix(r, g, b, 0.09 + 0.2 * k, 0.07 + 0.08 * (1 - k), 0.05 + 0.1 * (1 - k), door)
    if present:
        if style == Facade.PLASTER and chance(4, 4, int(s[n, SEED])) < 0.5:
            # Shutters beside the windows.
            bays = max(1.0, math.floor((2 * half - 0.8) / bay + 0.3))
            pitch = (2 * half - 0.8) / bays
            lu = (u + half - 0.4) - (i + 0.5) * pitch
            lz = z - j * floor - 0.85 - tall / 2
            leaf = band(abs(lu) - wide / 2 - 0.3, 0.25, wu) * band(lz, tall / 2, wz)
            k = chance(6, 6, int(s[n, SEED]))
            leaf *= 1 - 0.3 * stripes(z, 0.1, 0.03, wz)
            r, g, b = mix(r, g, b, 0.10 + 0.2 * k, 0.16 - 0.08 * k, 0.12 - 0.06 * k, leaf)
        trim = 0.62 if style == Facade.BRICK or style == Facade.SIDING else 0.45
        r, g, b = mix(r, g, b, trim, trim, trim * 0.95, outer)
        r1, g1, b1 = glass_colour(i, j, seed, sky)
        r, g, b = mix(r, g, b, r1, g1, b1, glass)
    if eave > 7:
        lz = z - math.floor(z / floor + 0.5) * floor
        r, g, b = mix(r, g, b, r * 1.2, g * 1.2, b * 1.2, band(lz, 0.08, wz))
    k = band(z - eave + 0.2, 0.2, wz)
    return mix(r, g, b, r * 0.7 + 0.1, g * 0.7 + 0.1, b * 0.7 + 0.1, k)


@compiled
def shop_front(s, n, r, g, b, u, z, half, wu, wz, seed, sky):
    """Albedo of a ground floor of shops: panes, pillars, a coloured sign above."""
    unit = 4.5 + 2.5 * chance(1, 1, seed)
    i = whole((u + half) / unit)
    hue = chance(i, 5, seed)
    panes = inside(z - 2.6, wz) * inside(0.45 - z, wz) * (1 - stripes(u + half, unit, 0.45, wu))
    panes *= 1 - 0.8 * stripes(u + half, unit / 3, 0.06, wu)
    glow = 0.05 + 0.10 * sky + 0.12 * chance(whole(u * 1.3), 2, seed)
    r, g, b = mix(r, g, b, glow * 1.1, glow, glow * 0.9, panes)
    sign = band(z - 2.95, 0.28, wz) * (1 - stripes(u + half, unit, 0.45, wu))
    r1 = 0.08 + 0.5 * max(0.0, math.cos(6.2832 * hue))
    g1 = 0.08 + 0.35 * max(0.0, math.cos(6.2832 * (hue - 0.33)))
    b1 = 0.08 + 0.45 * max(0.0, math.cos(6.2832 * (hue - 0.66)))
    r, g, b = mix(r, g, b, r1, g1, b1, sign)
    letter = chance(whole(u * 4), whole(z * 5), seed) > 0.55
    text = band(z - 2.95, 0.13, wz) * (0.7 if letter and wu < 0.12 else 0.25)
    lu = (u + half) - (i + 0.5) * unit
    return mix(r, g, b, 0.7, 0.7, 0.65, text * sign * band(lu, unit * 0.28, wu))


@compiled
def roof_albedo(s, n, lx, ly, z, face, x, y, w):
    """Albedo of a roof at its own coordinates; faces 4 to 7 slope, 8 is flat."""
    seed = int(s[n, SEED])
    r, g, b = float(s[n, ROOF_RGB]), float(s[n, ROOF_RGB + 1]), float(s[n, ROOF_RGB + 2])
    dirt = 0.16 * noise(x / 3, y / 3, seed) + 0.10 * grain(x, y, 0.5, w, seed + 1)
    if face == 8 and s[n, TOP] <= s[n, EAVE] + 0.01:
        hx, hy = s[n, HX], s[n, HY]
        r, g, b = r * (1 + dirt), g * (1 + dirt), b * (1 + dirt)
        seam = 0.2 * stripes(lx, 3.0 + seed % 3, 0.08, w)
        r, g, b = r * (1 - seam), g * (1 - seam), b * (1 - seam)
        rim = max(abs(lx) - hx, abs(ly) - hy)
        edge = inside(-0.35 - rim, w)
        r, g, b = mix(r, g, b, 0.40, 0.39, 0.37, 0.7 * edge)
        return r, g, b
    run = ly if face >= 6 else lx
    across = lx if face >= 6 else ly
    shade, _ = tiles(across, run, 0.45, 0.36, 0.02, w, w, seed)
    rows = stripes(run, 0.36, 0.08, w)
    k = (1 + dirt + 0.16 * shade) * (1 - 0.35 * rows)
    r, g, b = r * k, g * k, b * k
    # Skylights, or a field of solar panels on the sunny side.
    if chance(11, face, seed) < 0.3:
        i, j = math.floor(across / 2.6), math.floor(run / 2.6)
        if chance(int(i), int(j), seed + face) < 0.35:
            u, v = across - (i + 0.5) * 2.6, run - (j + 0.5) * 2.6
            r, g, b = mix(r, g, b, 0.10, 0.13, 0.17, band(u, 0.4, w) * band(v, 0.5, w))
    elif chance(12, face, seed) < 0.22:
        middle = (s[n, HY] if face >= 6 else s[n, HX]) * 0.5
        panel = band(abs(run) - middle, 1.5, w) * band(across, s[n, HX] * 0.6, w)
        frames = max(stripes(across, 1.0, 0.05, w), stripes(run, 1.6, 0.05, w))
        r, g, b = mix(r, g, b, 0.018, 0.025, 0.055, panel)
        r, g, b = mix(r, g, b, 0.3, 0.3, 0.3, panel * frames)
    return r, g, b


@compiled
def solid_albedo(s, n, face, x, y, z, w, wz, nz, sky):
    """Albedo of a solid's surface at a point of the world."""
    px, py = x - s[n, CX], y - s[n, CY]
    lx, ly = s[n, COS] * px + s[n, SIN] * py, s[n, COS] * py - s[n, SIN] * px
    kind = int(s[n, KIND])
    r, g, b = float(s[n, WALL_RGB]), float(s[n, WALL_RGB + 1]), float(s[n, WALL_RGB + 2])
    seed = int(s[n, SEED])
    east_west = face < 2
    u = ly if east_west else lx
    half = float(s[n, HY]) if east_west else float(s[n, HX])
    if kind == Solid.BUILDING:
        if face >= 4 and face <= 8:
            return roof_albedo(s, n, lx, ly, z, face, x, y, w)
        if z > s[n, EAVE]:
            return r, g, b
        return facade_albedo(s, n, u, z, half, w, wz, face, sky)
    if kind == Solid.BODY:
        low = z < 0.32
        if low:
            return 0.03, 0.03, 0.03
        if face < 4:
            if not east_west:
                line = band(abs(u) - 0.4, 0.012, w) + band(z - 0.45, 0.02, wz)
                r, g, b = mix(r, g, b, 0.02, 0.02, 0.02, min(line, 0.7))
            elif z > 0.6 and abs(u) > half - 0.4:
                return (0.55, 0.05, 0.03) if face == 1 else (0.7, 0.7, 0.65)
        k = 1.0 + 0.2 * nz
        return r * k, g * k, b * k
    if kind == Solid.CABIN:
        if face == 8:
            return r, g, b
        pillar = 0.0
        if not east_west and face < 8:
            pillar = band(abs(u + 0.1) - 0.05, 0.05, w) * 0.9
        rim = band(z - s[n, TOP], 0.05, wz)
        return mix(0.03, 0.035, 0.042, r, g, b, max(pillar, rim))
    if kind == Solid.HEDGE:
        k = 1 + 0.5 * grain(x + z, y - z, 0.22, w, seed) + 0.3 * noise(x / 0.9, y / 0.9, seed)
        return r * k, g * k, b * k
    if kind == Solid.CONTAINER:
        if face < 4:
            k = 1 - 0.35 * stripes(u, 0.28, 0.12, w)
            return r * k, g * k, b * k
        k = 0.9 + 0.1 * noise(x / 0.7, y / 0.7, seed)
        return r * k, g * k, b * k
    if kind == Solid.UNIT:
        if face == 8:
            ring = math.sqrt(lx * lx + ly * ly)
            return mix(r, g, b, 0.08, 0.08, 0.08, inside(ring - 0.6 * s[n, HY], w))
        k = 1 - 0.4 * stripes(z, 0.2, 0.07, wz)
        return r * k, g * k, b * k
    if kind == Solid.TANK:
        k = 1 + 0.06 * noise(x / 2 + z, y / 2, seed)
        if face != 8:
            k *= 1 - 0.2 * stripes(z, 1.8, 0.06, wz)
        return r * k, g * k, b * k
    if kind == Solid.AWNING:
        pick = stripes(lx, 0.5, 0.25, w)
        return mix(r, g, b, 0.65, 0.63, 0.58, pick)
    if kind == Solid.WALL:
        k = 1 + 0.12 * noise(u / 0.8, z / 0.5, seed) - 0.3 * stripes(u, 0.16, 0.02, w)
        return r * k, g * k, b * k
    if kind == Solid.TRUNK:
        k = 1 + 0.4 * noise(u * 14, z * 2.0, seed)
        return r * k, g * k, b * k
    return r, g, b


@compiled
def crown_albedo(c, n, x, y, z, w):
    """Albedo of leaves."""
    seed = int(c[n, CROWN_SEED])
    k = 1.0 + 0.45 * (grain(x, y, 0.13, w, seed) + grain(z, x - y, 0.13, w, seed + 2))
    k += 0.26 * (grain(x, z, 0.5, w, seed + 1) + grain(y, z + x, 0.5, w, seed + 3))
    # Deep inside and below it is darker.
    dx, dy, dz = (
        x - c[n, CROWN_X],
        y - c[n, CROWN_Y],
        (z - c[n, CROWN_Z]) * c[n, CROWN_R] / c[n, CROWN_RZ],
    )
    depth = math.sqrt(dx * dx + dy * dy + dz * dz) / c[n, CROWN_R]
    k *= 0.35 + 0.65 * min(depth, 1.0) ** 2
    k *= 0.78 + 0.22 * min(max(dz / c[n, CROWN_R] + 0.2, 0.0), 1.0)
    k = max(k, 0.1)
    return c[n, CROWN_RED] * k, c[n, CROWN_GREEN] * k, c[n, CROWN_BLUE] * k
