"""A district, from its seed: streets and what stands on them; and its scene on a date."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pipelines.citymaker.buildings import build_row
from pipelines.citymaker.planting import furnish, hang_wires, line_with_trees, plant
from pipelines.citymaker.scene import (
    CELL,
    COS,
    CROWN_COLUMNS,
    CX,
    CY,
    HX,
    HY,
    KIND,
    PA_COS,
    PA_HX,
    PA_HY,
    PA_SIN,
    PA_X,
    PA_Y,
    PATCH_COLUMNS,
    SIN,
    SOLID_COLUMNS,
    TOP,
    Floats,
    Ground,
    Scene,
    Solid,
    list_by_cell,
    turned_boxes,
)
from pipelines.citymaker.site import Site, solid
from pipelines.citymaker.streets import (
    Street,
    lay_streets,
    parking_spots,
    street_details,
    street_tables,
)
from pipelines.citymaker.styles import RGB, District, Season, season_of
from pipelines.citymaker.yards import lay_features, lay_gardens

MARGIN = 130.0
"""Metres of the same around the part of a district in which pictures are taken."""

CAR_PAINTS: tuple[RGB, ...] = (
    (0.55, 0.55, 0.55), (0.62, 0.62, 0.62), (0.05, 0.05, 0.055), (0.03, 0.03, 0.03),
    (0.20, 0.21, 0.22), (0.33, 0.34, 0.35), (0.38, 0.03, 0.03), (0.03, 0.08, 0.28),
    (0.06, 0.17, 0.30), (0.09, 0.16, 0.09), (0.55, 0.30, 0.04), (0.30, 0.24, 0.17),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """All of a district that no date changes; the origin is its centre.

    Attributes
    ----------
    district, seed, half
        What it was made from; ``half`` the size in metres of the part for pictures.
    streets
        With their details.
    solids : (N, SOLID_COLUMNS) float32
    patches : (P, PATCH_COLUMNS) float32
    trees : (T, 6) float64
        x, y, height, radius, kind (0 broad-leaved, 1 conifer, 2 bush), seed.
    spots : (S, 3) float64
        Where cars may park: x, y, direction in radians.
    openness : (rows, columns) float32
        See `Scene`.
    """

    district: District
    seed: int
    half: tuple[float, float]
    streets: list[Street]
    solids: Floats
    patches: Floats
    trees: NDArray[np.float64]
    spots: NDArray[np.float64]
    openness: Floats


def outer_half(half: tuple[float, float]) -> tuple[float, float]:
    """Half the size of a district with its margin: whole cells, so that all rasters agree."""
    east, north = (math.ceil((side + MARGIN) / CELL) * CELL for side in half)
    return east, north


def streets_of(district: District, half: tuple[float, float], seed: int) -> list[Street]:
    """Lay the streets of a district, as `build` does, without anything else."""
    rng = np.random.default_rng([seed, sum(map(ord, district.name)), 1])
    return lay_streets(district, outer_half(half), rng)


def build(
    district: District,
    half: tuple[float, float],
    seed: int,
    *,
    overhang: bool = False,
    wires: bool = False,
) -> World:
    """Build a district.

    Parameters
    ----------
    district
        Its style.
    half
        Half its size east and north in metres; it goes on for MARGIN metres around that.
    seed
        Decides everything else.
    overhang, wires
        As in `pipelines.citymaker.settings.Settings`; the rest stays what it is without them.
    """
    rng = np.random.default_rng([seed, sum(map(ord, district.name)), 2])
    outer = outer_half(half)
    streets = streets_of(district, half, seed)
    site = Site.empty(streets, outer)
    lay_features(site, district, rng)
    for street in streets:
        if street.kind.half_width > 2 or district.name == "oldtown":
            for side in (1, -1):
                build_row(site, street, side, district, rng)
    lay_gardens(site, district, rng)
    plant(site, streets, district, rng)
    furnish(site, streets, district, rng)
    more = np.random.default_rng([seed, sum(map(ord, district.name)), 7])
    if overhang:
        line_with_trees(site, streets, more)
    if wires:
        hang_wires(site, streets)
    patches = np.array(
        [row for row in site.patches if row[-1] == 0]
        + street_details(streets, rng)
        + [row for row in site.patches if row[-1] == 1],
        np.float32,
    ).reshape(-1, PATCH_COLUMNS)
    spots = np.array(site.spots, np.float64).reshape(-1, 3)
    solids = np.array(site.solids, np.float32).reshape(-1, SOLID_COLUMNS)
    return World(
        district,
        seed,
        half,
        streets,
        solids,
        patches,
        np.array(site.trees, np.float64).reshape(-1, 6),
        np.concatenate([parking_spots(streets), spots]),
        sky_openness(site, solids),
    )


def sky_openness(site: Site, solids: Floats) -> Floats:
    """Part of the sky that is seen from the ground, by metre: horizons in 12 directions."""
    rows, columns = site.room.shape
    high = np.zeros((rows, columns), np.float32)
    for row in solids[solids[:, KIND] == Solid.BUILDING]:
        place = site.pixels(row[CX], row[CY], row[COS], row[SIN], (row[HX], row[HY]))
        if place is not None:
            high[place] = np.maximum(high[place], row[TOP])
    high = high.reshape(rows // 2, 2, columns // 2, 2).max(axis=(1, 3))
    total = np.zeros_like(high)
    for k in range(12):
        horizon = np.zeros_like(high)
        for distance in (1.5, 3, 5, 8, 12, 18, 26, 38):
            di = round(distance * math.sin(k * math.pi / 6))
            dj = round(distance * math.cos(k * math.pi / 6))
            horizon = np.maximum(horizon, np.roll(high, (di, dj), (0, 1)) / distance)
        total += 1 / (1 + horizon**2)
    return np.clip(0.15 + 0.85 * total / 12, 0, 1).astype(np.float32)


# --- what a date changes ---


def scene_on(world: World, day: date, clear: NDArray[np.float64]) -> Scene:
    """Make the scene of a district on a date.

    Parameters
    ----------
    world
        The district.
    day
        Decides leaves and cars.
    clear : (N, 2) float64
        Where pictures are taken: no car stands within a few metres.
    """
    rng = np.random.default_rng([world.seed, day.toordinal(), 11])
    season = season_of(day)
    x0, y0 = -world.openness.shape[1] / 2, -world.openness.shape[0] / 2
    nx, ny = (round(n / CELL) for n in world.openness.shape[::-1])
    crowns, trunks, litter = grow(world.trees, season)
    solids = np.concatenate([world.solids, trunks, park_cars(world, clear, rng)])
    patches = np.concatenate([world.patches, litter]) if season.litter > 0 else world.patches
    boxes = turned_boxes(*solids[:, [CX, CY, COS, SIN, HX, HY]].astype(np.float64).T)
    middle, radius = crowns[:, :2].astype(np.float64), crowns[:, 3:4]
    round_boxes = np.concatenate([middle - radius, middle + radius], 1)
    first, items = list_by_cell(np.concatenate([boxes, round_boxes]), x0, y0, nx, ny)
    tops = np.concatenate([solids[:, TOP], crowns[:, 2] + crowns[:, 4]])
    cell_top = np.zeros(nx * ny, np.float32)
    np.maximum.at(cell_top, np.repeat(np.arange(nx * ny), np.diff(first)), tops[items])
    segments, streets = street_tables(world.streets)
    # A street concerns the ground as far as its pavement, and its fillets, go.
    reach = max(s.kind.half_width + s.kind.pavement for s in world.streets) + 3.0
    ends = segments[:, :2] + segments[:, 2:4] * segments[:, 4:5]
    segment_boxes = np.concatenate(
        [np.minimum(segments[:, :2], ends) - reach, np.maximum(segments[:, :2], ends) + reach], 1
    )
    segment_first, segment_items = list_by_cell(segment_boxes, x0, y0, nx, ny)
    columns = patches[:, [PA_X, PA_Y, PA_COS, PA_SIN, PA_HX, PA_HY]].astype(np.float64)
    patch_first, patch_items = list_by_cell(turned_boxes(*columns.T), x0, y0, nx, ny)
    return Scene(
        float(x0),
        float(y0),
        nx,
        ny,
        float(tops.max()),
        int(world.district.base),
        world.seed + sum(map(ord, world.district.name)),
        solids,
        crowns,
        first,
        items,
        cell_top,
        tops,
        segments,
        streets,
        segment_first,
        segment_items,
        patches,
        patch_first,
        patch_items,
        world.openness,
    )


def grow(trees: NDArray[np.float64], season: Season) -> tuple[Floats, Floats, Floats]:
    """Crowns, trunks and fallen leaves of trees in a season."""
    crowns, trunks, litter = [], [], []
    for x, y, height, radius, kind, seed in trees:
        rng = np.random.default_rng(int(seed))
        green = np.array([0.075, 0.135, 0.032]) * rng.uniform(0.75, 1.25, 3) * (1, 1, 0.8)
        leaves = season.leaves
        if kind == 1:
            green, leaves = np.array([0.035, 0.075, 0.03]) * rng.uniform(0.8, 1.2), 1.0
        else:
            green = green + season.fresh * np.array([0.03, 0.06, 0.0])
            turned = np.array([0.36, 0.18, 0.03]) * rng.uniform(0.6, 1.3, 3)
            late = min(max(season.autumn * 1.6 - rng.uniform(0, 0.6), 0), 1)
            green = green + late * (turned - green)
            fallen = max(0.0, (0.5 - leaves) / 0.5)
            green = green + fallen * (np.array([0.085, 0.065, 0.05]) - green)
        bare = kind == 0 and leaves < 0.5
        trunk_top = height * (0.8 if bare else 0.55 if kind == 0 else 0.3)
        if kind == 2:
            leaves = max(leaves, 0.6)
            crowns.append([x, y, height * 0.5, radius, height * 0.52, *green, seed, leaves])
            continue
        if kind == 1:
            for level, wide in ((0.30, 1.0), (0.55, 0.72), (0.80, 0.42)):
                crowns.append(
                    [x, y, height * level, radius * wide, height * 0.21, *green, seed, leaves]
                )
        else:
            middle, tall = height * 0.66, height * 0.30
            crowns.append([x, y, middle + 0.1 * tall, 0.72 * radius, tall, *green, seed, leaves])
            turn = rng.uniform(0, 6.28)
            for k in range(4):
                angle = turn + k * 1.57 + rng.uniform(-0.4, 0.4)
                out = radius * rng.uniform(0.42, 0.55)
                size = radius * rng.uniform(0.45, 0.6)
                z = middle + tall * rng.uniform(-0.45, 0.35)
                tint = green * rng.uniform(0.85, 1.15)
                crowns.append(
                    [x + out * math.cos(angle), y + out * math.sin(angle), z, size, size * 0.85,
                     *tint, seed + k + 1, leaves]
                )  # fmt: skip
            if season.litter > 0:
                size = radius * 1.5
                litter.append([x, y, 1, 0, size, size, size, Ground.LEAVES, 1, int(seed) % 9999, 1])
        bark = (0.11, 0.085, 0.065)
        wide = 0.09 + 0.014 * height
        trunks.append(
            solid(x, y, 1, 0, (wide, wide), (0, trunk_top, trunk_top), Solid.TRUNK, bark,
                  seed=int(seed) % 1000)
        )  # fmt: skip
    return (
        np.array(crowns, np.float32).reshape(-1, CROWN_COLUMNS),
        np.array(trunks, np.float32).reshape(-1, SOLID_COLUMNS),
        np.array(litter, np.float32).reshape(-1, PATCH_COLUMNS),
    )


def park_cars(world: World, clear: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """Cars of one date: parked in some of the spots, and driving, but not where pictures are."""
    parked = world.spots[rng.uniform(0, 1, len(world.spots)) < 0.55].copy()
    parked[:, :2] += rng.normal(0, 0.12, (len(parked), 2))
    parked[:, 2] += rng.normal(0, 0.02, len(parked)) + math.pi * (
        rng.uniform(size=len(parked)) < 0.15
    )
    driving = []
    for street in world.streets:
        if street.kind.half_width < 2.2:
            continue
        for _ in range(rng.poisson(street.length / 90 * world.district.traffic)):
            side = rng.choice([-1, 1])
            lane = street.kind.half_width * 0.42
            x, y, ux, uy = street.at(rng.uniform(0, street.length), side * lane)[0]
            driving.append([x, y, math.atan2(-side * uy, -side * ux)])
    cars = np.concatenate([parked, np.array(driving).reshape(-1, 3)])
    rows: list[list[float]] = []
    kept: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for x, y, angle in cars:
        paint = CAR_PAINTS[rng.integers(len(CAR_PAINTS))]
        kind = rng.uniform()
        i, j = int(x // 8), int(y // 8)
        cells = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
        near = [place for cell in cells for place in kept.get(cell, [])]
        if any(math.hypot(x - px, y - py) < 2.3 for px, py in near):
            continue
        if len(clear) and np.hypot(*(clear - (x, y)).T).min() < 3.4:
            continue
        kept.setdefault((i, j), []).append((x, y))
        rows += car(x, y, math.cos(angle), math.sin(angle), paint, kind)
    return np.array(rows, np.float32).reshape(-1, SOLID_COLUMNS)


def car(x: float, y: float, c: float, s: float, paint: RGB, kind: float) -> list[list[float]]:
    """Solids of a car: body, cabin, wheels; a van if ``kind`` is above 0.88."""
    if kind > 0.88:
        body = solid(x, y, c, s, (2.5, 0.97), (0.15, 1.3, 2.1), Solid.BODY, paint, lean=(0.25, 0.1))
        shift, half, cabin = 1.35, (1.0, 0.9), (1.0, 1.3, 1.85)
        lean = (0.55, 0.12)
    else:
        length = 1.95 + 0.35 * kind
        high = 0.88 + 0.14 * (kind > 0.6)
        body = solid(
            x,
            y,
            c,
            s,
            (length, 0.87),
            (0.15, high - 0.12, high),
            Solid.BODY,
            paint,
            lean=(0.9, 0.35),
        )
        shift, half = (-0.2, (1.3, 0.78)) if kind < 0.6 else (-0.45, (1.5, 0.79))
        cabin, lean = (high - 0.1, high, high + 0.56), (0.85, 0.32)
    rows = [
        body,
        solid(x + c * shift, y + s * shift, c, s, half, cabin, Solid.CABIN, paint, lean=lean),
    ]
    axle = body[4] - 0.75
    for lx in (axle, -axle):
        rows.append(
            solid(x + c * lx, y + s * lx, c, s, (0.31, 0.89), (0.0, 0.5, 0.62), Solid.WHEEL,
                  (0.025, 0.025, 0.025), lean=(1.0, 0.0))
        )  # fmt: skip
    return rows
