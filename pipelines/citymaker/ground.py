"""What colour the ground has: streets, their markings, and the patches under and on them.

All patterns are functions of the place in the world, so that every picture of a place agrees.
They are averaged over the pixel's footprint, the parallelogram of vectors (ux, uy) and (vx, vy) on
the ground, so that far stripes fade to their mean and do not flicker. Colours are linear albedos.
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math

from pipelines.citymaker.compiling import compiled, inlined
from pipelines.citymaker.noise import band, chance, grain, inside, mix, noise, stripes, whole
from pipelines.citymaker.scene import (
    CELL,
    PA_COS,
    PA_HX,
    PA_HY,
    PA_KIND,
    PA_OVER,
    PA_RADIUS,
    PA_SEED,
    PA_SIN,
    PA_TONE,
    PA_X,
    PA_Y,
    SEG_DISTANCE,
    SEG_FIRST,
    SEG_LAST,
    SEG_LENGTH,
    SEG_STREET,
    SEG_UX,
    SEG_UY,
    SEG_X,
    SEG_Y,
    ST_BIKE,
    ST_HALF,
    ST_LENGTH,
    ST_MARKING,
    ST_PARK_LEFT,
    ST_PARK_RIGHT,
    ST_PAVEMENT,
    ST_PAVING,
    ST_SEED,
    ST_SURFACE,
    ST_TONE,
    ST_TRIM0,
    ST_TRIM1,
    ST_VERGE,
    ST_ZEBRA0,
    ST_ZEBRA1,
    Ground,
    Marking,
)

# Numba compiles plain integers into the fastest comparisons.
(ASPHALT, COBBLE, CONCRETE, SLABS, GRASS, GRAVEL, WATER, SOIL, BRICK, COURT, SAND) = range(11)
(DECK, PARKING, MANHOLE, PATCH, DRAIN, ARROW, STAIN, ZEBRA, MEADOW, LEAVES, FIELD) = range(11, 22)
assert list(range(22)) == [int(kind) for kind in Ground]

PAINT = 0.62


@compiled
def tiles(x, y, length, depth, joint, width_x, width_y, seed):
    """Paving in bond: (shade -1 to 1 of the stone, part that is joint)."""
    row = math.floor(y / depth)
    shift = 0.5 * length * (int(row) & 1)
    stone = chance(whole((x + shift) / length), int(row), seed)
    gaps = max(
        stripes(x + shift, length, joint, width_x),
        stripes(y, depth, joint, width_y),
    )
    fade = min(max(1.5 - max(width_x / length, width_y / depth), 0.0), 1.0)
    return (2 * stone - 1) * fade, gaps


@compiled
def material(kind, x, y, lx, ly, wx, wy, tone, seed, lush):
    """Albedo of a ground material at (x, y), in its own axes (lx, ly), with footprints wx, wy."""
    w = max(wx, wy)
    slow = noise(x / 7.3, y / 7.3, seed + 5)
    if kind in (GRASS, MEADOW, FIELD):
        mottle = 0.55 * grain(x, y, 2.1, w, 11) + 0.35 * grain(x, y, 0.45, w, 12)
        mottle += 0.3 * grain(x, y, 0.09, w, 13) + 0.5 * slow
        if kind == GRASS and seed % 5 == 1:
            mottle += 0.7 * (stripes(lx, 2.4, 1.2, wx) - 0.5)
        dry = min(max(1 - lush + 0.25 * mottle + (0.25 if kind != GRASS else 0.0), 0.0), 1.0)
        r, g, b = mix(0.080, 0.138, 0.038, 0.22, 0.19, 0.095, dry)
        if kind == FIELD:
            furrow = stripes(ly, 0.9, 0.4, wy)
            r, g, b = mix(r, g, b, 0.20, 0.15, 0.09, 0.5 * furrow)
        light = tone * (1 + 0.28 * mottle)
        return r * light, g * light, b * light
    if kind in (ASPHALT, PARKING):
        rough = 0.10 * grain(x, y, 0.05, w, 21) + 0.07 * grain(x, y, 0.6, w, 22) + 0.13 * slow
        # Cracks: where a slow noise crosses zero.
        crack = noise(x / 2.7 + 0.6 * noise(x, y, 24), y / 2.7, 23)
        crack = max(0.0, 1 - abs(crack) * 2.7 / max(0.02, w)) * min(1.0, 0.02 / w)
        grey = tone * 0.105 * (1 + rough) * (1 - 0.5 * crack * max(0.0, slow + 0.1))
        return grey * 1.02, grey, grey * 0.985
    if kind == COBBLE:
        shade, gaps = tiles(lx, ly, 0.21, 0.13, 0.022, wx, wy, seed)
        light = tone * (1 + 0.30 * shade + 0.18 * slow) * (1 - 0.6 * gaps)
        return 0.17 * light, 0.155 * light, 0.137 * light
    if kind == SLABS:
        shade, gaps = tiles(lx, ly, 0.9, 0.6, 0.02, wx, wy, seed)
        light = tone * (1 + 0.10 * shade + 0.10 * slow + 0.06 * grain(x, y, 0.2, w, 31))
        light *= 1 - 0.55 * gaps
        return 0.285 * light, 0.27 * light, 0.245 * light
    if kind == BRICK:
        shade, gaps = tiles(lx, ly, 0.22, 0.11, 0.012, wx, wy, seed)
        light = tone * (1 + 0.25 * shade + 0.15 * slow) * (1 - 0.4 * gaps)
        return 0.215 * light, 0.115 * light, 0.08 * light
    if kind == DECK:
        light = tone * (1 + 0.2 * slow) * (1 - 0.6 * stripes(ly, 0.16, 0.02, wy))
        return 0.27 * light, 0.18 * light, 0.105 * light
    rough = 0.5 * grain(x, y, 0.08, w, 41) + 0.35 * grain(x, y, 0.7, w, 42) + 0.5 * slow
    if kind == CONCRETE:
        light = tone * (1 + 0.16 * rough)
        light *= 1 - 0.35 * max(stripes(lx, 4.0, 0.03, wx), stripes(ly, 4.0, 0.03, wy))
        return 0.255 * light, 0.247 * light, 0.228 * light
    light = tone * (1 + 0.25 * rough)
    if kind == GRAVEL:
        return 0.34 * light, 0.295 * light, 0.225 * light
    if kind == SAND:
        return 0.48 * light, 0.40 * light, 0.27 * light
    if kind == SOIL:
        return 0.15 * light, 0.105 * light, 0.065 * light
    if kind == COURT:
        return 0.33 * tone, 0.10 * tone, 0.065 * tone
    light = tone * (1 + 0.15 * slow + 0.2 * grain(x, y, 0.5, w, 43))
    return 0.022 * light, 0.05 * light, 0.052 * light


@compiled
def mark_patch(kind, lx, ly, hx, hy, wx, wy, seed):
    """How much paint a patch bears at (lx, ly)."""
    if kind == PARKING:
        # Modules across: a row of bays, an aisle, a row of bays.
        rows = max(1.0, math.floor((2 * hy + 0.5) / 16.0))
        module = 2 * hy / rows
        v = (ly + hy) / module
        v = (v - math.floor(v)) * module
        edge = min(v, module - v)
        bay = inside(edge - 5.0, wy)
        line = stripes(lx + hx, 2.55, 0.11, wx) * bay * inside(0.25 - edge, wy)
        return max(line, 0.6 * band(edge, 0.06, wy))
    if kind == COURT:
        u, v = abs(abs(lx) - (hx - 1.5)), abs(abs(ly) - (hy - 1.5))
        line = max(
            band(u, 0.04, wx) * inside(abs(ly) - hy + 1.5, wy),
            band(v, 0.04, wy) * inside(abs(lx) - hx + 1.5, wx),
        )
        ring = abs(math.sqrt(lx * lx + ly * ly) - 1.8)
        return max(max(line, band(lx, 0.04, wx)), band(ring, 0.04, max(wx, wy)))
    if kind == ZEBRA:
        return stripes(ly, 1.0, 0.5, wy)
    if kind == ARROW:
        # Along x: a shaft, and a head that is straight, or turned to a side by the seed.
        shaft = band(ly, 0.08, wy) * inside(lx - 0.3, wx)
        turned = int(seed) % 3
        u, v = (lx - 0.2, ly) if turned == 0 else (abs(ly) - 0.0, lx - 0.35)
        if turned != 0 and (ly > 0) != (turned == 1):
            return shaft
        head = inside(abs(v) - 0.42 * (hx - 0.2 - u) / (hx - 0.2), wy) * inside(-u, wx)
        return max(shaft, head * inside(u - hx + 0.2, wx))
    return 0.0


@compiled
def paint_patch(p, i, light, x, y, ux, uy, vx, vy, r, g, b, gloss):
    """Lay one patch over a ground colour."""
    px, py = x - p[i, PA_X], y - p[i, PA_Y]
    c, s = p[i, PA_COS], p[i, PA_SIN]
    lx, ly = c * px + s * py, c * py - s * px
    kind, seed = int(p[i, PA_KIND]), int(p[i, PA_SEED])
    hx, hy, radius = float(p[i, PA_HX]), float(p[i, PA_HY]), float(p[i, PA_RADIUS])
    wx = math.sqrt((c * ux + s * uy) ** 2 + (c * vx + s * vy) ** 2) + 1e-3
    wy = math.sqrt((c * uy - s * ux) ** 2 + (c * vy - s * vx) ** 2) + 1e-3
    qx, qy = abs(lx) - hx + radius, abs(ly) - hy + radius
    outer = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2)
    distance = outer + min(max(qx, qy), 0.0) - radius
    width = wx if qx > qy else wy
    if outer > 0 and qx > 0 and qy > 0:
        width = math.sqrt((qx * wx) ** 2 + (qy * wy) ** 2) / outer
    if distance > width:
        return r, g, b, gloss
    if kind in (WATER, MEADOW, SAND):
        distance += 1.3 * noise(x / 9, y / 9, seed) + 0.5 * noise(x / 2.5, y / 2.5, seed)
    cover = inside(distance, width)
    if cover <= 0:
        return r, g, b, gloss
    tone = float(p[i, PA_TONE])
    if kind == MANHOLE:
        ring = 0.10 if int(lx * 18 + 50) + int(ly * 18 + 50) & 1 else 0.06
        ring = 0.16 if distance > -0.06 else ring
        r, g, b = mix(r, g, b, ring, ring * 0.96, ring * 0.92, cover)
        return r, g, b, gloss
    if kind == DRAIN:
        bars = 0.03 + 0.09 * (1 - stripes(lx, 0.08, 0.045, wx))
        r, g, b = mix(r, g, b, bars, bars, bars, cover)
        return r, g, b, gloss
    if kind == PATCH:
        seam = max(0.0, 1 - abs(distance + 0.03) / 0.04) * 0.5
        factor = 1 + cover * (tone * (1 - seam) * (1 + 0.1 * noise(x / 0.3, y / 0.3, seed)) - 1)
        return r * factor, g * factor, b * factor, gloss
    if kind == STAIN:
        k = inside(distance + 0.3 * noise(x / 0.4, y / 0.4, seed), 0.35) * 0.55
        return r * (1 - k), g * (1 - k), b * (1 - k), gloss
    if kind == LEAVES:
        reach = math.sqrt((lx / hx) ** 2 + (ly / hy) ** 2)
        w = max(wx, wy)
        k = 0.5 + 0.9 * grain(x, y, 0.16, w, seed) + 0.4 * grain(x, y, 0.9, w, seed + 1)
        k = min(max((1.1 - reach) * k, 0.0), 0.85) * light.litter
        r, g, b = mix(r, g, b, 0.34, 0.17, 0.05, k)
        return r, g, b, gloss
    if kind in (ARROW, ZEBRA):
        worn = 0.75 + 0.25 * noise(x / 0.35, y / 0.35, seed)
        k = cover * mark_patch(kind, lx, ly, hx, hy, wx, wy, seed) * worn
        r, g, b = mix(r, g, b, PAINT, PAINT, PAINT * 0.96, k)
        return r, g, b, gloss
    r1, g1, b1 = material(kind, x, y, lx, ly, wx, wy, tone, seed, light.lush)
    if kind in (PARKING, COURT):
        k = mark_patch(kind, lx, ly, hx, hy, wx, wy, seed) * 0.85
        r1, g1, b1 = mix(r1, g1, b1, PAINT, PAINT, PAINT * 0.96, k)
        kerb = band(distance + 0.08, 0.08, width) * 0.6
        r1, g1, b1 = mix(r1, g1, b1, 0.34, 0.33, 0.31, kerb)
    elif kind == WATER:
        rim = min(max(1 + distance / 1.2, 0.0), 1.0)
        r1, g1, b1 = mix(r1, g1, b1, 0.11, 0.105, 0.07, 0.7 * rim)
        gloss = cover
    r, g, b = mix(r, g, b, r1, g1, b1, cover)
    return r, g, b, gloss if kind == WATER else gloss * (1 - cover)


@inlined
def nearest_streets(scene, cell, x, y):
    """Find the two nearest streets at a point.

    Returns (segment, edge distance) twice: distance to the edge of the carriageway, negative on it.
    Beyond its ends a street recedes twice as fast, so that it does not bulge there.
    """
    one, two, d1, d2 = -1, -1, 1e9, 1e9
    for n in range(scene.segment_first[cell], scene.segment_first[cell + 1]):
        i = scene.segment_items[n]
        px, py = x - scene.segments[i, SEG_X], y - scene.segments[i, SEG_Y]
        along = px * scene.segments[i, SEG_UX] + py * scene.segments[i, SEG_UY]
        across = abs(py * scene.segments[i, SEG_UX] - px * scene.segments[i, SEG_UY])
        over = max(-along, along - scene.segments[i, SEG_LENGTH])
        street = int(scene.segments[i, SEG_STREET])
        d = across
        if over > 0:
            d = math.sqrt(across * across + over * over)
            if (along < 0 and scene.segments[i, SEG_FIRST] > 0) or (
                along > 0 and scene.segments[i, SEG_LAST] > 0
            ):
                d += over
        d -= scene.streets[street, ST_HALF]
        if one >= 0 and scene.segments[one, SEG_STREET] == scene.segments[i, SEG_STREET]:
            if d < d1:
                one, d1 = i, d
        elif d < d1:
            one, two, d1, d2 = i, one, d, d1
        elif two >= 0 and scene.segments[two, SEG_STREET] == scene.segments[i, SEG_STREET]:
            if d < d2:
                two, d2 = i, d
        elif d < d2:
            two, d2 = i, d
    return one, d1, two, d2


@compiled
def round_union(a, b, k):
    """Signed distance to the union of two shapes with fillets of about k metres."""
    if k <= 0:
        return min(a, b)
    h = max(k - abs(a - b), 0.0) / k
    return min(a, b) - h * h * k * 0.25


@inlined
def fillet(scene, one, two):
    """Size of the fillet where two streets meet: none where one continues the other."""
    s = scene.segments
    bend = abs(s[one, SEG_UX] * s[two, SEG_UX] + s[one, SEG_UY] * s[two, SEG_UY])
    return 5.0 * (1 - bend)


@compiled
def markings(st, k, along, across, wa, wd):
    """Part of a footprint that is painted, on a street at ``along``, ``across`` (left positive)."""
    half, kind = st[k, ST_HALF], int(st[k, ST_MARKING])
    begin, end = st[k, ST_TRIM0], st[k, ST_LENGTH] - st[k, ST_TRIM1]
    if along < begin - 1 or along > end + 1:
        return 0.0
    paint = 0.0
    start, stop = begin, end
    for side in range(2):
        if (st[k, ST_ZEBRA0] if side == 0 else st[k, ST_ZEBRA1]) > 0:
            near = along - begin if side == 0 else end - along
            bars = stripes(across + 0.25, 1.0, 0.5, wd) * inside(abs(across) - half + 0.35, wd)
            paint = max(paint, bars * band(near - 1.7, 1.7, wa))
            if side == 0:
                start += 4.6
            else:
                stop -= 4.6
    if kind == Marking.NONE:
        return paint
    left, right = half, half
    if st[k, ST_PARK_LEFT] > 0:
        left -= 2.1
    if st[k, ST_PARK_RIGHT] > 0:
        right -= 2.1
    centre = 0.5 * (left - right)
    body = inside(start - along, wa) * inside(along - stop, wa)
    # Stop lines: across the lane that drives on the right towards each end.
    lane = band(across - 0.5 * (centre - right), 0.5 * (centre + right) - 0.2, wd)
    paint = max(paint, lane * band(along - stop, 0.2, wa))
    lane = band(across - 0.5 * (centre + left), 0.5 * (left - centre) - 0.2, wd)
    paint = max(paint, lane * band(along - start, 0.2, wa))
    dash = stripes(along, 6.0, 3.0, wa)
    if kind == Marking.DASHED:
        near = min(along - start, stop - along) < 12
        paint = max(paint, body * band(across - centre, 0.065, wd) * (1.0 if near else dash))
    elif kind == Marking.DOUBLE:
        paint = max(paint, body * band(abs(across - centre) - 0.14, 0.06, wd))
    elif kind == Marking.FOUR_LANES:
        paint = max(paint, body * band(abs(across - centre) - 0.14, 0.06, wd))
        paint = max(paint, body * dash * band(across - 0.5 * (centre + left), 0.065, wd))
        paint = max(paint, body * dash * band(across - 0.5 * (centre - right), 0.065, wd))
    if kind == Marking.EDGES or kind == Marking.FOUR_LANES:
        paint = max(paint, body * band(across - left + 0.3, 0.06, wd))
        paint = max(paint, body * band(across + right - 0.3, 0.06, wd))
    if st[k, ST_PARK_LEFT] > 0:
        bay = band(across - left, 0.05, wd)
        bay = max(bay, stripes(along, 5.8, 0.1, wa) * inside(left - across, wd))
        paint = max(paint, body * bay)
    if st[k, ST_PARK_RIGHT] > 0:
        bay = band(across + right, 0.05, wd)
        bay = max(bay, stripes(along, 5.8, 0.1, wa) * inside(right + across, wd))
        paint = max(paint, body * bay)
    return paint


@compiled
def carriageway(st, k, light, x, y, along, across, wa, wd):
    """Albedo on a street."""
    seed = int(st[k, ST_SEED])
    r, g, b = material(
        int(st[k, ST_SURFACE]), x, y, across, along, wd, wa, float(st[k, ST_TONE]), seed, light.lush
    )
    half = st[k, ST_HALF]
    if st[k, ST_BIKE] > 0:
        lane = band(abs(across) - half + 1.0, 0.75, wd)
        if st[k, ST_BIKE] > 1:
            r, g, b = mix(r, g, b, 0.24, 0.075, 0.05, 0.8 * lane)
        else:
            r, g, b = mix(r, g, b, 0.07, 0.14, 0.07, 0.8 * lane)
        line = band(abs(across) - half + 1.8, 0.05, wd)
        r, g, b = mix(r, g, b, PAINT, PAINT, PAINT, 0.8 * line)
    # Wheels polish two tracks of each lane; oil darkens what lies between them.
    track = math.cos((abs(across) - half * 0.5) * 6.2832 / max(half * 0.5, 1.4))
    r, g, b = r * (1 + 0.05 * track), g * (1 + 0.05 * track), b * (1 + 0.05 * track)
    gutter = band(abs(across) - half + 0.18, 0.18, wd)
    r, g, b = mix(r, g, b, r * 0.72, g * 0.72, b * 0.72, gutter)
    paint = markings(st, k, along, across, wa, wd)
    if paint > 0:
        w = max(wa, wd)
        worn = 0.80 + 0.22 * grain(x, y, 0.25, w, seed) + 0.15 * noise(x / 3, y / 3, seed)
        r, g, b = mix(r, g, b, PAINT, PAINT, PAINT * 0.97, paint * min(max(worn, 0.0), 1.0))
    return r, g, b


@inlined
def cell_of(scene, x, y):
    """Return the number of the grid cell at (x, y); -1 outside."""
    i = whole((x - scene.x0) / CELL)
    j = whole((y - scene.y0) / CELL)
    if i < 0 or j < 0 or i >= scene.nx or j >= scene.ny:
        return -1
    return j * scene.nx + i


@inlined
def street_axes(scene, i, x, y, ux, uy, vx, vy):
    """Place along and across a segment's street, and the footprint's widths there."""
    dx, dy = float(scene.segments[i, SEG_UX]), float(scene.segments[i, SEG_UY])
    px, py = x - scene.segments[i, SEG_X], y - scene.segments[i, SEG_Y]
    along = px * dx + py * dy + scene.segments[i, SEG_DISTANCE]
    across = py * dx - px * dy
    wa = math.sqrt((ux * dx + uy * dy) ** 2 + (vx * dx + vy * dy) ** 2) + 1e-3
    wd = math.sqrt((uy * dx - ux * dy) ** 2 + (vy * dx - vx * dy) ** 2) + 1e-3
    return along, across, wa, wd


@inlined
def ground_albedo(scene, light, x, y, ux, uy, vx, vy):
    """Albedo and gloss (0 to 1: water) of the ground at (x, y)."""
    width = math.sqrt(ux * ux + uy * uy + vx * vx + vy * vy) + 1e-3
    cell = cell_of(scene, x, y)
    if cell < 0:
        r, g, b = material(FIELD, x, y, x, y, width, width, 1.0, scene.seed, light.lush)
        return r, g, b, 0.0
    r, g, b = material(scene.base, x, y, x, y, width, width, 1.0, 5 * scene.seed, light.lush)
    gloss = 0.0
    n, end = scene.patch_first[cell], scene.patch_first[cell + 1]
    while n < end and scene.patches[scene.patch_items[n], PA_OVER] == 0:
        p = scene.patch_items[n]
        r, g, b, gloss = paint_patch(scene.patches, p, light, x, y, ux, uy, vx, vy, r, g, b, gloss)
        n += 1
    one, d1, two, d2 = nearest_streets(scene, cell, x, y)
    if one >= 0:
        st = int(scene.segments[one, SEG_STREET])
        road, walk = d1, d1 - scene.streets[st, ST_PAVEMENT]
        if two >= 0:
            k = fillet(scene, one, two)
            other = int(scene.segments[two, SEG_STREET])
            road = round_union(d1, d2, k)
            walk = round_union(walk, d2 - scene.streets[other, ST_PAVEMENT], k)
        along, across, wa, wd = street_axes(scene, one, x, y, ux, uy, vx, vy)
        edge = wd if along >= 0 and along <= scene.streets[st, ST_LENGTH] else width
        if scene.streets[st, ST_PAVEMENT] > 0 and walk < edge and road > -edge:
            r1, g1, b1 = material(
                int(scene.streets[st, ST_PAVING]),
                x,
                y,
                along,
                across,
                wa,
                wd,
                1.0,
                int(scene.streets[st, ST_SEED]),
                light.lush,
            )
            if scene.streets[st, ST_VERGE] > 0:
                r2, g2, b2 = material(GRASS, x, y, x, y, width, width, 1.0, 0, light.lush)
                k = band(
                    road - 0.5 * scene.streets[st, ST_VERGE] - 0.15,
                    0.5 * scene.streets[st, ST_VERGE],
                    edge,
                )
                r1, g1, b1 = mix(r1, g1, b1, r2, g2, b2, k)
            r1, g1, b1 = mix(r1, g1, b1, 0.36, 0.35, 0.33, band(road - 0.09, 0.09, edge))
            joint = 0.5 * band(road - 0.20, 0.015, edge)
            r1, g1, b1 = mix(r1, g1, b1, 0.06, 0.06, 0.06, joint)
            r, g, b = mix(r, g, b, r1, g1, b1, inside(walk, edge))
            gloss *= 1 - inside(walk, edge)
        if road < edge:
            r1, g1, b1 = carriageway(scene.streets, st, light, x, y, along, across, wa, wd)
            r, g, b = mix(r, g, b, r1, g1, b1, inside(road, edge))
            gloss *= 1 - inside(road, edge)
    while n < end:
        p = scene.patch_items[n]
        r, g, b, gloss = paint_patch(scene.patches, p, light, x, y, ux, uy, vx, vy, r, g, b, gloss)
        n += 1
    return r, g, b, gloss
