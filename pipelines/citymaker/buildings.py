"""What stands along the streets and between them: houses, yards, gardens, trees, lamps."""

# pyright: reportArgumentType=false

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.citymaker.scene import SOLID_COLUMNS, Facade, Ground, Solid
from pipelines.citymaker.streets import Street, clearance
from pipelines.citymaker.styles import BRICKS, RGB, District, Houses

PIXEL = 0.5
GREY: RGB = (0.22, 0.22, 0.22)


def solid(
    x: float,
    y: float,
    cos: float,
    sin: float,
    size: tuple[float, float],
    heights: tuple[float, float, float],
    kind: Solid,
    wall: RGB,
    roof: RGB = GREY,
    lean: tuple[float, float] = (0, 0),
    style: Facade = Facade.PLASTER,
    seed: int = 0,
    round_: bool = False,
    floor: float = 3.0,
) -> list[float]:
    """One row of `Scene.solids`: half sizes, and heights of bottom, eave and top, in metres."""
    row = [x, y, cos, sin, *size, *heights, *lean, kind, style, seed, *wall, *roof, round_, floor]
    assert len(row) == SOLID_COLUMNS
    return row


@dataclass(slots=True)
class Site:
    """The ground that is being built on, and what has been put there so far.

    Attributes
    ----------
    x0, y0
        South-west corner in metres.
    room : (rows, columns) float32
        Metres to the nearest pavement, per half metre.
    taken : (rows, columns) uint8
        1 under buildings, 2 under water, courts and car parks.
    solids, patches, trees
        Rows of what was put there. A tree is x, y, height, radius, conifer, seed.
    spots
        Where cars may park off the street: x, y, direction in radians.
    """

    x0: float
    y0: float
    room: NDArray[np.float32]
    taken: NDArray[np.uint8]
    solids: list[list[float]] = field(default_factory=list)
    patches: list[list[float]] = field(default_factory=list)
    trees: list[list[float]] = field(default_factory=list)
    spots: list[list[float]] = field(default_factory=list)

    @classmethod
    def empty(cls, streets: list[Street], half: tuple[float, float]) -> Site:
        """Make a site of twice ``half`` metres around the origin, with nothing but streets."""
        shape = (int(2 * half[1] / PIXEL), int(2 * half[0] / PIXEL))
        room = clearance(streets, -half[0], -half[1], shape, PIXEL)
        return cls(-half[0], -half[1], room, np.zeros(shape, np.uint8))

    def pixels(
        self, x: float, y: float, cos: float, sin: float, size: tuple[float, float]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Rows and columns under a turned rectangle; None if it leaves the site."""
        reach = abs(cos) * size[0] + abs(sin) * size[1], abs(sin) * size[0] + abs(cos) * size[1]
        c0, r0 = (x - reach[0] - self.x0) / PIXEL, (y - reach[1] - self.y0) / PIXEL
        c1, r1 = (x + reach[0] - self.x0) / PIXEL, (y + reach[1] - self.y0) / PIXEL
        rows, columns = self.room.shape
        if c0 < 0 or r0 < 0 or c1 >= columns - 1 or r1 >= rows - 1:
            return None
        r, c = np.mgrid[int(r0) : int(r1) + 2, int(c0) : int(c1) + 2]
        px = (c + 0.5) * PIXEL + self.x0 - x
        py = (r + 0.5) * PIXEL + self.y0 - y
        inside = np.abs(cos * px + sin * py) <= size[0]
        inside &= np.abs(cos * py - sin * px) <= size[1]
        return r[inside], c[inside]

    def free(
        self,
        x: float,
        y: float,
        cos: float,
        sin: float,
        size: tuple[float, float],
        room: float = 0.0,
        mark: int = 0,
    ) -> bool:
        """Whether a rectangle lies off the streets and on nothing; if so, mark it as taken."""
        place = self.pixels(x, y, cos, sin, size)
        if place is None or place[0].size == 0:
            return False
        if self.room[place].min() < room or self.taken[place].any():
            return False
        if mark:
            self.taken[place] = mark
        return True

    def at(self, x: float, y: float) -> tuple[float, int]:
        """Room and use at a point; (-1, 1) outside."""
        row, column = int((y - self.y0) / PIXEL), int((x - self.x0) / PIXEL)
        if not (0 <= row < self.room.shape[0] and 0 <= column < self.room.shape[1]):
            return -1.0, 1
        return float(self.room[row, column]), int(self.taken[row, column])

    def anywhere(self, rng: np.random.Generator, per_hectare: float) -> NDArray[np.float64]:
        """Random points (N, 2) on the whole site."""
        size = np.array(self.room.shape)[::-1] * PIXEL
        count = int(size.prod() / 1e4 * per_hectare)
        return rng.uniform(0, 1, (count, 2)) * size + (self.x0, self.y0)


# --- houses ---


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


def pick(colours: tuple[RGB, ...], rng: np.random.Generator) -> RGB:
    """One of several colours."""
    return colours[int(rng.integers(len(colours)))]


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


def plant(site: Site, streets: list[Street], district: District, rng: np.random.Generator) -> None:
    """Plant trees along streets, and trees and bushes on open ground."""
    for street in streets:
        kind = street.kind
        if rng.uniform() > kind.trees or street.length < 20:
            continue
        pitch = rng.uniform(8, 15)
        across = kind.half_width + (0.9 if kind.pavement > 1.5 else kind.pavement + 1.6)
        for side in (-1, 1):
            if rng.uniform() < 0.25:
                continue
            for along in np.arange(street.trims[0] + 5, street.length - street.trims[1] - 5, pitch):
                if rng.uniform() < 0.2:
                    continue
                x, y, ux, uy = street.at(along + rng.uniform(-1, 1), side * across)[0]
                if site.at(x, y)[1] == 0:
                    narrow = kind.pavement + kind.half_width < 5
                    height = rng.uniform(5, 7) if narrow else rng.uniform(6, 10)
                    radius = height * rng.uniform(0.26, 0.34)
                    site.trees.append([x, y, height, radius, 0, int(rng.integers(1, 2**20))])
                    if kind.pavement > 1.5:
                        site.patches.append([x, y, ux, uy, 0.6, 0.6, 0.05, Ground.SOIL, 1.0, 1, 1])
    for x, y in site.anywhere(rng, district.trees):
        room, use = site.at(x, y)
        if room > 2.2 and use in (0, 3):
            conifer = rng.uniform() < district.conifers
            height = rng.uniform(5, 13)
            radius = height * (rng.uniform(0.16, 0.22) if conifer else rng.uniform(0.27, 0.38))
            if room > radius * 0.6 and not near_wall(site, x, y, radius * 0.55):
                site.trees.append([x, y, height, radius, conifer, int(rng.integers(1, 2**20))])
    for x, y in site.anywhere(rng, district.bushes):
        room, use = site.at(x, y)
        if room > 0.9 and use in (0, 3):
            if rng.uniform() < 0.35:
                angle = grid_angle(site, x, y)
                half = rng.uniform(1, 4)
                c, s = math.cos(angle), math.sin(angle)
                if site.free(x, y, c, s, (half, 0.5), 0.6):
                    hedge(site, x, y, c, s, half, rng)
            else:
                height = rng.uniform(0.7, 2.2)
                radius = height * 0.55
                site.trees.append([x, y, height, radius, 2, int(rng.integers(1, 2**20))])


def near_wall(site: Site, x: float, y: float, reach: float) -> bool:
    """Whether a building stands within about so many metres."""
    return any(
        site.at(x + reach * math.cos(a), y + reach * math.sin(a))[1] == 1
        for a in (0.0, 1.57, 3.14, 4.71)
    )


def furnish(
    site: Site, streets: list[Street], district: District, rng: np.random.Generator
) -> None:
    """Put lamps, signs, benches and bins along streets."""
    metal: RGB = (0.16, 0.17, 0.17)
    for street in streets:
        kind = street.kind
        out = kind.half_width + (0.55 if kind.pavement > 0.8 else 0.9)
        side = rng.choice([-1, 1])
        for along in np.arange(rng.uniform(6, 16), street.length - 5, rng.uniform(22, 32)):
            x, y, ux, uy = street.at(along, side * out)[0]
            if site.at(x, y)[1]:
                continue
            high = 4.2 if kind.half_width < 3 else 7.0
            site.solids.append(solid(x, y, 1, 0, (0.07, 0.07), (0, high, high), Solid.POLE, metal))
            if high > 5:  # an arm over the street
                left = -side * np.array([-uy, ux])
                ax, ay = x + 0.8 * left[0], y + 0.8 * left[1]
                arm = (high - 0.12, high, high)
                site.solids.append(
                    solid(ax, ay, left[0], left[1], (0.9, 0.06), arm, Solid.POLE, metal)
                )
            else:
                top = (high, high + 0.3, high + 0.4)
                site.solids.append(solid(x, y, 1, 0, (0.2, 0.2), top, Solid.LAMP, (0.7, 0.69, 0.6)))
            side = -side if rng.uniform() < 0.5 else side
        for along in np.arange(rng.uniform(4, 20), street.length - 4, rng.uniform(18, 40)):
            x, y, ux, uy = street.at(along, rng.choice([-1, 1]) * (out + 0.1))[0]
            if site.at(x, y)[1] or kind.half_width < 1.5:
                continue
            what = rng.uniform()
            if what < 0.3 or "benches" in district.extras:
                brown = (0.2, 0.12, 0.06)
                site.solids.append(
                    solid(x, y, ux, uy, (0.9, 0.22), (0.1, 0.46, 0.46), Solid.WOOD, brown)
                )
            elif what < 0.55:
                green = (0.05, 0.12 + 0.1 * what, 0.07)
                site.solids.append(
                    solid(x, y, ux, uy, (0.28, 0.28), (0, 0.95, 0.95), Solid.WOOD, green)
                )
            else:
                site.solids.append(
                    solid(x, y, 1, 0, (0.04, 0.04), (0, 2.6, 2.6), Solid.POLE, metal)
                )
                red = (0.5, 0.03, 0.03) if what < 0.8 else (0.04, 0.1, 0.42)
                site.solids.append(
                    solid(x, y, ux, uy, (0.04, 0.3), (2.0, 2.6, 2.6), Solid.LAMP, red)
                )
