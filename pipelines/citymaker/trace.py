"""What a ray meets, and whether the sun shines there: serial and nogil.

Rays walk through the grid of cells (Amanatides and Woo), skip cells whose things are all lower
than the ray, and meet solids (convex, clipped by their planes) and tree crowns (ellipsoids whose
rims let rays through, so that they look like leaves).
"""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.citymaker.compiling import entry, inlined
from pipelines.citymaker.noise import whole
from pipelines.citymaker.scene import (
    BOTTOM,
    CELL,
    COS,
    CROWN_LEAVES,
    CROWN_R,
    CROWN_RZ,
    CROWN_SEED,
    CROWN_X,
    CROWN_Y,
    CROWN_Z,
    CX,
    CY,
    EAVE,
    HX,
    HY,
    LEAN_X,
    LEAN_Y,
    ROUND,
    SIN,
    TOP,
    Floats,
    Light,
    Scene,
)

GROUND, SKY = -1, -2
FAR = 2500.0
# Faces of a solid.
EAST, WEST, NORTH, SOUTH, ROOF_EAST, ROOF_WEST, ROOF_NORTH, ROOF_SOUTH, FLAT, SIDE, UNDER = range(
    11
)


@inlined
def gap(x: float, y: float, z: float, seed: float) -> float:
    """Return a number from 0 to 1 that changes from one little cube of a crown to the next."""
    i = whole(x * 9.0) * 73856093
    j = whole(y * 9.0) * 19349663
    k = whole(z * 9.0) * 83492791
    h = (i ^ j ^ k ^ (int(seed) * 2654435)) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return (h ^ (h >> 16)) / 4294967296.0


@inlined
def meet_solid(s, i, ox, oy, oz, dx, dy, dz, best):
    """Where a ray enters solid ``i`` before ``best`` metres: (distance, face), face -1 if not."""
    px, py = ox - s[i, CX], oy - s[i, CY]
    c, si = s[i, COS], s[i, SIN]
    lx, ly = c * px + si * py, c * py - si * px
    ex, ey = c * dx + si * dy, c * dy - si * dx
    near, far, face = 1e-4, best, -1
    if s[i, ROUND] > 0:
        a = ex * ex + ey * ey
        b = lx * ex + ly * ey
        q = lx * lx + ly * ly - s[i, HX] * s[i, HX]
        if a < 1e-12:
            if q > 0:
                return best, -1
        else:
            root = b * b - a * q
            if root <= 0:
                return best, -1
            root = math.sqrt(root)
            t0, t1 = (-b - root) / a, (-b + root) / a
            if t0 > near:
                near, face = t0, SIDE
            far = min(far, t1)
    else:
        h = s[i, HX]
        if ex > 1e-9 or ex < -1e-9:
            t0, t1 = (-h - lx) / ex, (h - lx) / ex
            f = WEST
            if t0 > t1:
                t0, t1, f = t1, t0, EAST
            if t0 > near:
                near, face = t0, f
            far = min(far, t1)
        elif lx > h or lx < -h:
            return best, -1
        if near >= far:
            return best, -1
        h = s[i, HY]
        if ey > 1e-9 or ey < -1e-9:
            t0, t1 = (-h - ly) / ey, (h - ly) / ey
            f = SOUTH
            if t0 > t1:
                t0, t1, f = t1, t0, NORTH
            if t0 > near:
                near, face = t0, f
            far = min(far, t1)
        elif ly > h or ly < -h:
            return best, -1
    if near >= far:
        return best, -1
    if dz > 1e-9 or dz < -1e-9:
        t0, t1 = (s[i, BOTTOM] - oz) / dz, (s[i, TOP] - oz) / dz
        f = UNDER
        if t0 > t1:
            t0, t1, f = t1, t0, FLAT
        if t0 > near:
            near, face = t0, f
        far = min(far, t1)
    elif oz < s[i, BOTTOM] or oz > s[i, TOP]:
        return best, -1
    if near >= far:
        return best, -1
    z = oz - s[i, EAVE]
    if s[i, LEAN_X] > 0:
        k = s[i, LEAN_X]
        for side in range(2):
            sign = 1.0 - 2.0 * side
            outside = sign * lx + k * z - s[i, HX]
            rate = sign * ex + k * dz
            if rate < -1e-9:
                t0 = -outside / rate
                if t0 > near:
                    near, face = t0, ROOF_EAST + side
            elif rate > 1e-9:
                far = min(far, -outside / rate)
            elif outside > 0:
                return best, -1
    if s[i, LEAN_Y] > 0:
        k = s[i, LEAN_Y]
        for side in range(2):
            sign = 1.0 - 2.0 * side
            outside = sign * ly + k * z - s[i, HY]
            rate = sign * ey + k * dz
            if rate < -1e-9:
                t0 = -outside / rate
                if t0 > near:
                    near, face = t0, ROOF_NORTH + side
            elif rate > 1e-9:
                far = min(far, -outside / rate)
            elif outside > 0:
                return best, -1
    if near >= far or face < 0:
        return best, -1
    return near, face


@inlined
def crown_chord(c, i, ox, oy, oz, dx, dy, dz):
    """Where a ray enters and leaves a crown's ellipsoid: (entry, exit), entry > exit if not."""
    flat = c[i, CROWN_R] / c[i, CROWN_RZ]
    px, py, pz = ox - c[i, CROWN_X], oy - c[i, CROWN_Y], (oz - c[i, CROWN_Z]) * flat
    ez = dz * flat
    a = dx * dx + dy * dy + ez * ez
    b = px * dx + py * dy + pz * ez
    q = px * px + py * py + pz * pz - c[i, CROWN_R] * c[i, CROWN_R]
    root = b * b - a * q
    if root <= 0:
        return 1.0, 0.0
    root = math.sqrt(root)
    return (-b - root) / a, (-b + root) / a


@inlined
def meet_crown(c, i, ox, oy, oz, dx, dy, dz, best):
    """Where a ray meets leaves of crown ``i`` before ``best`` metres; ``best`` if nowhere."""
    t0, t1 = crown_chord(c, i, ox, oy, oz, dx, dy, dz)
    if t0 >= t1 or t0 <= 1e-3 or t0 >= best:
        return best
    depth = (t1 - t0) / (2.0 * min(c[i, CROWN_R], c[i, CROWN_RZ]))
    leaves = c[i, CROWN_LEAVES]
    chance = leaves * min(1.0, 0.08 + 1.5 * depth)
    for step in range(3):
        t = t0 + (t1 - t0) * 0.3 * step
        if t >= best:
            return best
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        if leaves < 0.5:
            # Bare: twigs that spread from the top of the trunk.
            x, y, z = x - c[i, CROWN_X], y - c[i, CROWN_Y], z - c[i, CROWN_Z] + c[i, CROWN_RZ]
            x, y, z = 2.2 * math.atan2(y, x), 2.2 * math.atan2(z, math.sqrt(x * x + y * y)), 0.0
        if gap(x, y, z, c[i, CROWN_SEED]) < chance:
            return t
    return best


@inlined
def start_walk(scene, ox, oy, dx, dy):
    """Distance at which a ray enters the grid; negative if it never does."""
    i, j = (ox - scene.x0) / CELL, (oy - scene.y0) / CELL
    if i >= 0 and j >= 0 and i < scene.nx and j < scene.ny:
        return 0.0
    near, far = 0.0, FAR
    for axis in range(2):
        o, d = (ox - scene.x0, dx) if axis == 0 else (oy - scene.y0, dy)
        size = (scene.nx if axis == 0 else scene.ny) * CELL
        if d > 1e-9 or d < -1e-9:
            t0, t1 = -o / d, (size - o) / d
            near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
        elif o < 0 or o >= size:
            return -1.0
    return near if near < far else -1.0


@inlined
def cast(scene: Scene, ox, oy, oz, dx, dy, dz):
    """Find the first thing on a ray: (distance, thing or GROUND or SKY, face)."""
    best, thing, face = FAR, SKY, 0
    if dz < 0 and -oz / dz < FAR:
        best, thing = -oz / dz, GROUND
    n_solids = scene.solids.shape[0]
    t = start_walk(scene, ox, oy, dx, dy)
    if t < 0:
        return best, thing, face
    gx, gy = (ox + dx * t - scene.x0) / CELL, (oy + dy * t - scene.y0) / CELL
    i = min(max(whole(gx), 0), scene.nx - 1)
    j = min(max(whole(gy), 0), scene.ny - 1)
    step_i, step_j = (1 if dx > 0 else -1), (1 if dy > 0 else -1)
    rate_i = CELL / abs(dx) if abs(dx) > 1e-9 else 1e30
    rate_j = CELL / abs(dy) if abs(dy) > 1e-9 else 1e30
    next_i = t + ((i + 1 - gx) if dx > 0 else (gx - i)) * rate_i
    next_j = t + ((j + 1 - gy) if dy > 0 else (gy - j)) * rate_j
    while t < best:
        end = min(next_i, next_j)
        z = oz + dz * t
        if dz > 0 and z > scene.top:
            break
        cell = j * scene.nx + i
        low = min(z, oz + dz * min(end, best))
        if low <= scene.cell_top[cell]:
            for n in range(scene.thing_first[cell], scene.thing_first[cell + 1]):
                item = scene.thing_items[n]
                if low > scene.thing_top[item]:
                    continue
                if item < n_solids:
                    found, f = meet_solid(scene.solids, item, ox, oy, oz, dx, dy, dz, best)
                    if f >= 0:
                        best, thing, face = found, item, f
                else:
                    found = meet_crown(scene.crowns, item - n_solids, ox, oy, oz, dx, dy, dz, best)
                    if found < best:
                        best, thing, face = found, item, 0
        t = end
        if next_i < next_j:
            i += step_i
            next_i += rate_i
            if i < 0 or i >= scene.nx:
                break
        else:
            j += step_j
            next_j += rate_j
            if j < 0 or j >= scene.ny:
                break
    return best, thing, face


@inlined
def sunshine(scene: Scene, ox, oy, oz, dx, dy, dz):
    """Part of the sun's light that arrives from direction (dx, dy, dz), 0 to 1."""
    light = 1.0
    n_solids = scene.solids.shape[0]
    t = start_walk(scene, ox, oy, dx, dy)
    if t < 0:
        return light
    gx, gy = (ox + dx * t - scene.x0) / CELL, (oy + dy * t - scene.y0) / CELL
    i = min(max(whole(gx), 0), scene.nx - 1)
    j = min(max(whole(gy), 0), scene.ny - 1)
    step_i, step_j = (1 if dx > 0 else -1), (1 if dy > 0 else -1)
    rate_i = CELL / abs(dx) if abs(dx) > 1e-9 else 1e30
    rate_j = CELL / abs(dy) if abs(dy) > 1e-9 else 1e30
    next_i = t + ((i + 1 - gx) if dx > 0 else (gx - i)) * rate_i
    next_j = t + ((j + 1 - gy) if dy > 0 else (gy - j)) * rate_j
    while True:
        z = oz + dz * t
        if z > scene.top:
            return light
        end = min(next_i, next_j)
        cell = j * scene.nx + i
        if z <= scene.cell_top[cell]:
            for n in range(scene.thing_first[cell], scene.thing_first[cell + 1]):
                item = scene.thing_items[n]
                if z > scene.thing_top[item]:
                    continue
                if item < n_solids:
                    _, f = meet_solid(scene.solids, item, ox, oy, oz, dx, dy, dz, FAR)
                    if f >= 0:
                        return 0.0
                else:
                    # A crown in several cells must count once: in the cell of its middle.
                    crown = item - n_solids
                    t0, t1 = crown_chord(scene.crowns, crown, ox, oy, oz, dx, dy, dz)
                    t0 = max(t0, 0.0)
                    middle = 0.5 * (t0 + t1)
                    if t0 < t1 and t <= middle < end:
                        light *= math.exp(-1.1 * (t1 - t0) * scene.crowns[crown, CROWN_LEAVES])
        if light < 0.03:
            return 0.0
        t = end
        if next_i < next_j:
            i += step_i
            next_i += rate_i
            if i < 0 or i >= scene.nx:
                return light
        else:
            j += step_j
            next_j += rate_j
            if j < 0 or j >= scene.ny:
                return light


@inlined
def normal_of(scene: Scene, thing, face, x, y, z):
    """Tell the unit normal, outwards, of the surface at a point that `cast` found."""
    n_solids = scene.solids.shape[0]
    if thing < 0:
        return 0.0, 0.0, 1.0
    if thing >= n_solids:
        c = scene.crowns[thing - n_solids]
        r2, rz2 = c[CROWN_R] * c[CROWN_R], c[CROWN_RZ] * c[CROWN_RZ]
        nx, ny, nz = (x - c[CROWN_X]) / r2, (y - c[CROWN_Y]) / r2, (z - c[CROWN_Z]) / rz2
        length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
        return nx / length, ny / length, nz / length
    s = scene.solids[thing]
    if face == FLAT:
        return 0.0, 0.0, 1.0
    if face == UNDER:
        return 0.0, 0.0, -1.0
    if face == SIDE:
        return (x - s[CX]) / s[HX], (y - s[CY]) / s[HX], 0.0
    lx, ly, lz = 0.0, 0.0, 0.0
    sign = 1.0 - 2.0 * (face % 2)
    if face < NORTH:
        lx = sign
    elif face < ROOF_EAST:
        ly = sign
    elif face < ROOF_NORTH:
        lz = s[LEAN_X] / math.sqrt(1.0 + s[LEAN_X] * s[LEAN_X])
        lx = sign / math.sqrt(1.0 + s[LEAN_X] * s[LEAN_X])
    else:
        lz = s[LEAN_Y] / math.sqrt(1.0 + s[LEAN_Y] * s[LEAN_Y])
        ly = sign / math.sqrt(1.0 + s[LEAN_Y] * s[LEAN_Y])
    return s[COS] * lx - s[SIN] * ly, s[SIN] * lx + s[COS] * ly, lz


@entry
def trace(
    scene: Scene, light: Light, rays: Floats, things: NDArray[np.int32], hits: Floats
) -> None:
    """Follow rays to what they meet, and from there towards the sun.

    Parameters
    ----------
    scene, light
        What stands where, and where the sun stands.
    rays : (N, 6) float32
        Origins in metres and unit directions.
    things : (N, 2) int32, written
        Number of the solid or (after all solids) the crown, or GROUND or SKY; and the face.
    hits : (N, 5) float32, written
        Distance in metres, unit normal (x, y, z), and the part of the sun's light that arrives,
        not yet weakened by the angle.
    """
    for n in range(rays.shape[0]):
        ox, oy, oz = float(rays[n, 0]), float(rays[n, 1]), float(rays[n, 2])
        dx, dy, dz = float(rays[n, 3]), float(rays[n, 4]), float(rays[n, 5])
        t, thing, face = cast(scene, ox, oy, oz, dx, dy, dz)
        things[n, 0], things[n, 1] = thing, face
        hits[n, 0] = t
        hits[n, 4] = 0.0
        if thing == SKY:
            continue
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        nx, ny, nz = normal_of(scene, thing, face, x, y, z)
        hits[n, 1], hits[n, 2], hits[n, 3] = nx, ny, nz
        sunlit = 0.0
        # Leaves pass light on to the far side of a crown.
        leaves = thing >= scene.solids.shape[0]
        facing = nx * light.sun_x + ny * light.sun_y + nz * light.sun_z
        if leaves or facing > 0:
            out = 0.12 if leaves else 0.004
            sunlit = sunshine(
                scene,
                x + nx * out,
                y + ny * out,
                z + nz * out,
                light.sun_x,
                light.sun_y,
                light.sun_z,
            )
        hits[n, 4] = sunlit
