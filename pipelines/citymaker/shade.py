"""Sky and light: from what rays met to the colours they see. Serial and nogil."""

# Numba's scalars and arrays are not what the annotations, made for readers, say to a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.citymaker.compiling import compiled, entry, inlined
from pipelines.citymaker.facades import crown_albedo, solid_albedo
from pipelines.citymaker.ground import ground_albedo
from pipelines.citymaker.noise import grain, inside, mix, noise
from pipelines.citymaker.scene import BOTTOM, Floats, Light, Scene


@compiled
def sky_colour(hills, light, dx, dy, dz):
    """Linear radiance of the sky, with clouds, the sun's glow, and hills on the horizon."""
    up = max(dz, 0.0)
    k = math.exp(-4.5 * up)
    r, g, b = mix(0.16, 0.33, 0.72, 0.66, 0.77, 0.88, k)
    grey = light.clouds * light.clouds
    r, g, b = mix(r, g, b, 0.66, 0.69, 0.73, 0.85 * grey)
    towards = dx * light.sun_x + dy * light.sun_y + dz * light.sun_z
    if towards > 0:
        glow = 0.35 * towards**8 + 1.2 * towards**180 * (1 - light.clouds)
        r, g, b = r + glow * light.sun_red * 0.5, g + glow * light.sun_green * 0.45, b + glow * 0.3
    if dz > 0.015:
        scale = 1.6 / (dz + 0.12)
        u, v, seed = dx * scale, dy * scale, light.seed
        w = 0.012 * scale
        f = 0.6 * noise(u * 0.9, v * 0.9, seed) + 0.38 * noise(u * 2.1, v * 2.1, seed + 1)
        f += 0.2 * grain(u, v, 0.22, w, seed + 2) + 0.1 * grain(u, v, 0.1, w, seed + 3)
        cover = min(max((f - 0.55 + 1.1 * light.clouds) * 1.6, 0.0), 1.0)
        cover *= min(1.0, dz * 7)
        white = 0.92 - 0.30 * min(max(f, 0.0), 1.0) * light.clouds
        r, g, b = mix(r, g, b, white, white, white * 1.02, cover * (0.9 - 0.3 * grey))
    if dz < 0.12:
        azimuth = math.atan2(dx, dy) * 9
        ridge = 0.022 + 0.016 * noise(azimuth, 0.0, hills)
        ridge += 0.010 * noise(azimuth * 3.1, 1.0, hills)
        far = inside(dz - ridge, 0.004)
        r, g, b = mix(r, g, b, 0.30, 0.39, 0.43, far * 0.8)
    return r, g, b


@inlined
def openness_at(scene, x, y):
    """Part of the sky's light that reaches the ground at (x, y), between grid points."""
    rows, columns = scene.openness.shape
    u = min(max(x - scene.x0 - 0.5, 0.0), columns - 1.001)
    v = min(max(y - scene.y0 - 0.5, 0.0), rows - 1.001)
    i, j = int(u), int(v)
    u, v = u - i, v - j
    o = scene.openness
    low = o[j, i] + (o[j, i + 1] - o[j, i]) * u
    high = o[j + 1, i] + (o[j + 1, i + 1] - o[j + 1, i]) * u
    return low + (high - low) * v


@compiled
def develop(value, exposure):
    """Display value, 0 to 255, of a linear radiance: a soft shoulder, then a square root."""
    value = max(value * exposure, 0.0)
    value = value * (1 + value * 0.12) / (1 + value * 0.55)
    return 255.0 * math.sqrt(min(value, 1.0))


@inlined
def surface(scene, light, thing, face, x, y, z, dx, dy, dz, nx, ny, nz, width):
    """Albedo, gloss and openness to the sky where a ray of ``width`` metres meets a surface."""
    n_solids = scene.solids.shape[0]
    if thing == -1:
        ax, ay, slant = dx, dy, max(-dz, 0.02)
        length = math.sqrt(ax * ax + ay * ay)
        ax, ay = (ax / length, ay / length) if length > 1e-4 else (0.0, 1.0)
        deep = width / slant
        r, g, b, gloss = ground_albedo(
            scene, light, x, y, ax * deep, ay * deep, -ay * width, ax * width
        )
        return r, g, b, gloss, openness_at(scene, x, y)
    if thing >= n_solids:
        r, g, b = crown_albedo(scene.crowns, thing - n_solids, x, y, z, width)
        return r, g, b, 0.0, 0.75
    flat = math.sqrt(dx * dx + dy * dy) + 1e-6
    slant = max(abs(dx * nx + dy * ny) / flat, 0.05) if nz < 0.9 else 1.0
    tall = width / max(flat, 0.05) if nz < 0.9 else width
    sky = 0.5 + 0.5 * noise((dx + 3 * nx) * 5, (dy + 3 * ny) * 5, 5)
    wide = width / slant if nz < 0.3 else width
    r, g, b = solid_albedo(scene.solids, thing, face, x, y, z, wide, tall, nz, sky)
    low = openness_at(scene, x + 1.2 * nx, y + 1.2 * ny)
    rise = min(max(z / 18.0, 0.0), 1.0) if scene.solids[thing, BOTTOM] < 1 else 1.0
    return r, g, b, 0.0, low + (1 - low) * rise


@entry
def shade(
    scene: Scene,
    light: Light,
    rays: Floats,
    spread: float,
    least: float,
    things: NDArray[np.int32],
    hits: Floats,
    colours: Floats,
) -> None:
    """Give each ray the colour of what it met.

    Parameters
    ----------
    scene, light
        What there is, and the light on it.
    rays : (N, 6) float32
        Origins and directions.
    spread, least
        A ray is ``least + spread * distance`` metres wide.
    things, hits
        From `pipelines.citymaker.trace.trace`.
    colours : (N, 3) float32, written
        Display values, 0 to 255.
    """
    for n in range(rays.shape[0]):
        dx, dy, dz = float(rays[n, 3]), float(rays[n, 4]), float(rays[n, 5])
        thing, face, t = things[n, 0], things[n, 1], float(hits[n, 0])
        if thing == -2:
            r, g, b = sky_colour(scene.seed, light, dx, dy, dz)
            colours[n, 0] = develop(r, light.exposure)
            colours[n, 1] = develop(g, light.exposure)
            colours[n, 2] = develop(b, light.exposure)
            continue
        x, y, z = rays[n, 0] + t * dx, rays[n, 1] + t * dy, rays[n, 2] + t * dz
        nx, ny, nz = float(hits[n, 1]), float(hits[n, 2]), float(hits[n, 3])
        r, g, b, gloss, open_sky = surface(
            scene, light, thing, face, x, y, z, dx, dy, dz, nx, ny, nz, least + spread * t
        )
        facing = nx * light.sun_x + ny * light.sun_y + nz * light.sun_z
        leaves = thing >= scene.solids.shape[0]
        facing = 0.30 + 0.70 * max(facing, 0.0) if leaves else max(facing, 0.0)
        sun = facing * float(hits[n, 4])
        sky = open_sky * (0.62 + 0.38 * nz)
        # Light that the sunlit ground throws back onto walls.
        bounce = 0.10 * (1 - nz) * open_sky * light.sun_z
        r *= sun * light.sun_red + sky * light.sky_red + bounce * light.sun_red
        g *= sun * light.sun_green + sky * light.sky_green + bounce * light.sun_green
        b *= sun * light.sun_blue + sky * light.sky_blue + bounce * light.sun_blue * 0.8
        if gloss > 0:
            tilt = 0.02 * noise(x / 0.7, y / 0.7, 3) + 0.03 * noise(x / 2.7, y / 2.7, 4)
            sr, sg, sb = sky_colour(scene.seed, light, dx + tilt, dy + tilt, max(-dz, 0.13))
            k = gloss * (0.03 + 0.9 * (1 - min(-dz, 1.0)) ** 4)
            r, g, b = mix(r, g, b, sr, sg, sb, k)
        if spread > 0:
            fog = 1 - math.exp(-t * light.haze)
            r, g, b = mix(r, g, b, 0.62, 0.70, 0.78, fog)
        colours[n, 0] = develop(r, light.exposure)
        colours[n, 1] = develop(g, light.exposure)
        colours[n, 2] = develop(b, light.exposure)
