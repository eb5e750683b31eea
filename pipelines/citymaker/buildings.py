"""Houses: in rows along the streets and alone, and what their roofs carry."""

# pyright: reportArgumentType=false

from __future__ import annotations

import numpy as np

from pipelines.citymaker.scene import Facade, Solid
from pipelines.citymaker.site import Site, pick, solid
from pipelines.citymaker.streets import Street
from pipelines.citymaker.styles import BRICKS, District, Houses
from pipelines.citymaker.yards import lay_driveway


def build_row(
    site: Site,
    street: Street,
    side: int,
    district: District,
    rng: np.random.Generator,
) -> None:
    """Put houses along one side of a street."""
    houses, kind = district.houses, street.kind
    along = street.trims[0] * 0.6
    edge = kind.half_width + kind.pavement
    setback = rng.uniform(*houses.setback)
    while along < street.length - 3:
        width, depth = rng.uniform(*houses.width), rng.uniform(*houses.depth)
        if rng.uniform() < houses.vacancy:
            along += width
            continue
        if rng.uniform() < 0.3:
            setback = rng.uniform(*houses.setback)
        placed = False
        for shrink in (1.0, 0.72):
            w, d = width * shrink, depth * shrink
            if along + w > street.length + 6:
                continue
            middle = min(along + w / 2, street.length - 0.1)
            x, y, ux, uy = street.at(middle, side * (edge + setback + 0.15 + d / 2))[0]
            # The street's front is to the south in the house's own axes.
            c, s = (ux, uy) if side > 0 else (-ux, -uy)
            tested = max(w / 2 - 0.5, 1.0), max(d / 2 - 0.3, 1.0)
            if site.free(x, y, c, s, tested, 0.0 if setback < 1 else 0.5 * setback, 1):
                build_house(site, houses, x, y, c, s, (w / 2, d / 2), rng)
                if "driveways" in district.extras:
                    lay_driveway(site, x, y, c, s, (w / 2, d / 2), setback + kind.pavement, rng)
                along += w + rng.uniform(*houses.gap)
                placed = True
                break
        if not placed:
            along += 2.5


def build_house(
    site: Site,
    houses: Houses,
    x: float,
    y: float,
    c: float,
    s: float,
    size: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Put one house: its body, perhaps a wing, what is on its roof."""
    roof = str(rng.choice(houses.roofs))
    style = Facade(int(rng.choice([int(f) for f in houses.facades])))
    wall = BRICKS[rng.integers(len(BRICKS))] if style == Facade.BRICK else pick(houses.walls, rng)
    wall = tuple(float(v * rng.uniform(0.88, 1.1)) for v in wall)
    tile = pick(houses.tiles, rng)
    seed = int(rng.integers(1, 2**18))
    low, high = houses.height
    height = low + (high - low) * rng.beta(1.6, 2.4)
    height = max(houses.floor, round(height / houses.floor) * houses.floor + 0.4)
    rows = [(x, y, size, height)]
    if rng.uniform() < houses.wings and min(size) > 3.5:
        # A wing to the back, lower, flush with one side.
        wing = size[0] * rng.uniform(0.4, 0.6), size[1] * rng.uniform(0.5, 0.8)
        lx, ly = (size[0] - wing[0]) * rng.choice([-1, 1]), size[1] + wing[1] - 0.5
        wx, wy = x + c * lx - s * ly, y + s * lx + c * ly
        if site.free(wx, wy, c, s, (wing[0] - 0.4, max(wing[1] - 0.8, 0.6)), 0.5, 1):
            lower = max(houses.floor, height - houses.floor * rng.integers(0, 3))
            rows.append((wx, wy, wing, lower))
    for number, (hx, hy, half, eave) in enumerate(rows):
        if roof == "flat":
            lean, top = (0.0, 0.0), eave
        else:
            pitch = rng.uniform(0.55, 1.0)
            lean = (0.0, 1 / pitch) if roof == "gable" else (1 / pitch, 1 / pitch)
            ridge_along_y = number == 1 or half[1] > 1.25 * half[0]
            if ridge_along_y:
                lean = (lean[1], lean[0])
                top = eave + half[0] * pitch
            else:
                top = eave + half[1] * pitch
            if roof == "hip":
                top = eave + min(half) * pitch
        site.solids.append(
            solid(
                hx,
                hy,
                c,
                s,
                half,
                (0, eave, top),
                Solid.BUILDING,
                wall,
                tile,
                lean,
                style,
                seed,
                floor=houses.floor,
            )
        )
        if roof == "flat":
            crown_flat_roof(site, hx, hy, c, s, half, eave, rng)
        elif rng.uniform() < 0.7 and min(half) > 2.5:
            lx = rng.uniform(-0.6, 0.6) * half[0] * 0.7
            ly = rng.choice([-1, 1]) * half[1] * 0.3
            cx, cy = hx + c * lx - s * ly, hy + s * lx + c * ly
            chimney = (eave, top + 0.6, top + 0.6)
            site.solids.append(
                solid(cx, cy, c, s, (0.4, 0.35), chimney, Solid.CONTAINER, BRICKS[0])
            )


def crown_flat_roof(
    site: Site,
    x: float,
    y: float,
    c: float,
    s: float,
    half: tuple[float, float],
    top: float,
    rng: np.random.Generator,
) -> None:
    """Put fans and a stair head on a flat roof."""
    for _ in range(rng.poisson(half[0] * half[1] / 45)):
        size = rng.uniform(0.5, 1.3), rng.uniform(0.5, 1.1)
        lx, ly = (rng.uniform(-0.75, 0.75) * h for h in half)
        place = x + c * lx - s * ly, y + s * lx + c * ly
        high = top + rng.uniform(0.7, 1.6)
        grey = rng.uniform(0.28, 0.5)
        site.solids.append(
            solid(*place, c, s, size, (top, high, high), Solid.UNIT, (grey, grey, grey))
        )
    if min(half) > 6:
        lx, ly = (rng.uniform(-0.5, 0.5) * h for h in half)
        place = x + c * lx - s * ly, y + s * lx + c * ly
        size = rng.uniform(1.8, 3.2), rng.uniform(1.6, 2.4)
        high = top + 2.6
        site.solids.append(
            solid(
                *place,
                c,
                s,
                size,
                (top, high, high),
                Solid.CONTAINER,
                (0.4, 0.39, 0.37),
            )
        )
