"""What lies between houses: driveways, hedges, gardens, courts, car parks, stacked goods."""

# pyright: reportArgumentType=false

from __future__ import annotations

import math

import numpy as np

from pipelines.citymaker.scene import Ground, Solid
from pipelines.citymaker.site import Site, pick, solid
from pipelines.citymaker.styles import RGB, District


def lay_driveway(
    site: Site,
    x: float,
    y: float,
    c: float,
    s: float,
    half: tuple[float, float],
    reach: float,
    rng: np.random.Generator,
) -> None:
    """Pave a way from the street beside or to a house; a garage, a hedge and a path with it."""
    side = rng.choice([-1, 1])
    lx = side * (half[0] - 1.6)
    length = reach + 0.4
    ly = -half[1] - length / 2
    paving = rng.choice([Ground.CONCRETE, Ground.BRICK, Ground.ASPHALT, Ground.GRAVEL])
    tone = rng.uniform(0.8, 1.15)
    way = x + c * lx - s * ly, y + s * lx + c * ly
    seed = int(rng.integers(1, 2**20))
    site.patches.append([*way, c, s, 1.5, length / 2, 0.1, paving, tone, seed, 0])
    if length > 6.5:
        site.spots.append([*way, math.atan2(c, -s)])
    px, py = -side * half[0] * 0.3, -half[1] - length / 2
    path = x + c * px - s * py, y + s * px + c * py
    site.patches.append([*path, c, s, 0.6, length / 2, 0.1, Ground.SLABS, 1.0, seed, 0])
    if rng.uniform() < 0.45:
        # A hedge along the front, with gaps for both ways.
        hy = -half[1] - reach + 2.9
        start = -half[0] - 2.0
        for a, b in ((start, min(px, lx) - 1.9), (min(px, lx) + 1.9, max(px, lx) - 1.9)):
            if b - a > 1.0:
                m = (a + b) / 2
                place = x + c * m - s * hy, y + s * m + c * hy
                if site.at(*place)[0] > 0.4:
                    hedge(site, *place, c, s, (b - a) / 2, rng)


def hedge(
    site: Site, x: float, y: float, c: float, s: float, half: float, rng: np.random.Generator
) -> None:
    """Put a hedge, or a fence."""
    if rng.uniform() < 0.7:
        high = rng.uniform(0.8, 1.7)
        green = (0.045, rng.uniform(0.08, 0.13), 0.025)
        row = solid(
            x, y, c, s, (half, 0.4), (0, high, high), Solid.HEDGE, green, seed=int(high * 999)
        )
    else:
        tone = rng.uniform(0.2, 0.6)
        colour = (tone, tone * 0.92, tone * 0.8)
        row = solid(x, y, c, s, (half, 0.05), (0, 1.1, 1.1), Solid.WALL, colour, seed=3)
    site.solids.append(row)


# --- open ground ---


def lay_features(site: Site, district: District, rng: np.random.Generator) -> None:
    """Lay ponds, courts, car parks and squares, before the houses take the ground."""
    for kind, per_hectare, (low, high) in district.features:
        for x, y in site.anywhere(rng, per_hectare * 6):
            size = rng.uniform(low, high), rng.uniform(low, high) * 0.7
            if kind == Ground.COURT:
                size = (13.0, 7.0)
            if kind == Ground.PARKING:
                size = size[0], 8.0 * max(1, round(size[1] / 8))
            angle = rng.uniform(0, math.pi) if district.name == "park" else grid_angle(site, x, y)
            c, s = math.cos(angle), math.sin(angle)
            soft = kind in (Ground.WATER, Ground.MEADOW, Ground.SAND) and district.name != "harbour"
            room = 2.5 if kind == Ground.WATER else 0.6
            mark = 2 if kind in (Ground.WATER, Ground.COURT, Ground.PARKING) else 3
            if rng.uniform() > 1 / 3 or not site.free(x, y, c, s, size, room, mark):
                continue
            radius = 0.8 * min(size) if soft else 0.3
            seed = int(rng.integers(1, 2**20))
            tone = rng.uniform(0.8, 1.2)
            site.patches.append([x, y, c, s, *size, radius, kind, tone, seed, 0])
            if kind == Ground.PARKING:
                site.spots.extend(bays(x, y, angle, size))
            elif kind == Ground.WATER and not soft:
                site.patches.insert(
                    len(site.patches) - 1,
                    [x, y, c, s, size[0] + 1.2, size[1] + 1.2, 0.3, Ground.CONCRETE, 1.0, seed, 0],
                )


def grid_angle(site: Site, x: float, y: float) -> float:
    """Direction of the nearest street, by the slope of the distance to it."""
    step = 2.0
    dx = site.at(x + step, y)[0] - site.at(x - step, y)[0]
    dy = site.at(x, y + step)[0] - site.at(x, y - step)[0]
    return math.atan2(-dx, dy) if dx or dy else 0.0


def bays(x: float, y: float, angle: float, size: tuple[float, float]) -> list[list[float]]:
    """Where cars stand on a car park; see PARKING in the module `shade`."""
    rows = max(1, math.floor((2 * size[1] + 0.5) / 16))
    module = 2 * size[1] / rows
    c, s = math.cos(angle), math.sin(angle)
    spots = []
    for row in range(rows):
        for edge, facing in ((2.6, -1), (module - 2.6, 1)):
            ly = -size[1] + row * module + edge
            for lx in np.arange(-size[0] + 1.28, size[0] - 1.0, 2.55):
                turn = angle + facing * math.pi / 2
                spots.append([x + c * lx - s * ly, y + s * lx + c * ly, turn])
    return spots


def lay_gardens(site: Site, district: District, rng: np.random.Generator) -> None:
    """Cover open ground between the houses with smaller patches, and yards with goods."""
    kinds = [g for g in district.gardens if g not in (Ground.WATER, Ground.COURT, Ground.PARKING)]
    under: list[list[float]] = []
    for x, y in site.anywhere(rng, 60):
        room, use = site.at(x, y)
        if room < 1 or use:
            continue
        angle = grid_angle(site, x, y)
        c, s = math.cos(angle), math.sin(angle)
        size = rng.uniform(2, 9), rng.uniform(2, 9)
        place = site.pixels(x, y, c, s, size)
        if place is None or site.room[place].min() < 0.2 or (site.taken[place] == 2).any():
            continue
        kind = kinds[int(rng.integers(len(kinds)))]
        tone, seed = rng.uniform(0.75, 1.2), int(rng.integers(1, 2**20))
        soft = kind in (Ground.MEADOW, Ground.SAND, Ground.SOIL) and district.base == Ground.GRASS
        radius = 0.9 * min(size) if soft else 0.2
        under.append([x, y, c, s, *size, radius, kind, tone, seed, 0])
    site.patches[:0] = under
    if "yards" in district.extras:
        for x, y in site.anywhere(rng, 14):
            angle = grid_angle(site, x, y)
            stack_goods(site, x, y, math.cos(angle), math.sin(angle), rng)
    if "pools" in district.extras:
        for x, y in site.anywhere(rng, 5):
            c, s = math.cos(grid_angle(site, x, y)), math.sin(grid_angle(site, x, y))
            size = rng.uniform(2, 3.5), rng.uniform(1.5, 2.2)
            if site.at(x, y)[0] > 12 and site.free(x, y, c, s, size, 8, 2):
                edge = [x, y, c, s, size[0] + 0.8, size[1] + 0.8, 0.3, Ground.SLABS, 1.1, 1, 0]
                pool = [x, y, c, s, *size, 0.3, Ground.CONCRETE, 1.0, 1, 0]
                site.patches += [edge, pool]
                tub = (0.05, 0.32, 0.42)
                site.solids.append(solid(x, y, c, s, size, (0, 0.02, 0.02), Solid.LAMP, tub))


def stack_goods(
    site: Site, x: float, y: float, c: float, s: float, rng: np.random.Generator
) -> None:
    """Put containers, or a tank, on a yard."""
    if rng.uniform() < 0.2:
        r, high = rng.uniform(2, 4.5), rng.uniform(5, 11)
        if site.free(x, y, c, s, (r, r), 1.5, 1):
            tone = rng.uniform(0.4, 0.65)
            colour = (tone, tone, tone * 0.96)
            site.solids.append(
                solid(
                    x,
                    y,
                    c,
                    s,
                    (r, r),
                    (0, high, high),
                    Solid.TANK,
                    colour,
                    colour,
                    seed=5,
                    round_=True,
                )
            )
        return
    colours: tuple[RGB, ...] = (
        (0.42, 0.10, 0.06),
        (0.06, 0.16, 0.36),
        (0.10, 0.28, 0.16),
        (0.55, 0.34, 0.06),
        (0.4, 0.4, 0.4),
    )
    for k in range(int(rng.integers(1, 5))):
        lx, ly = 0.0, k * 2.6
        place = x + c * lx - s * ly, y + s * lx + c * ly
        if site.free(*place, c, s, (3.05, 1.22), 1.0, 1):
            high = 2.6 * int(rng.integers(1, 3))
            site.solids.append(
                solid(
                    *place,
                    c,
                    s,
                    (3.05, 1.22),
                    (0, high, high),
                    Solid.CONTAINER,
                    pick(colours, rng),
                    seed=k,
                )
            )


# --- trees and furniture ---
