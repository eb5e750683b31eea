"""The ground that is being built on, and the solids that stand on it."""

# pyright: reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.citymaker.scene import SOLID_COLUMNS, Facade, Solid
from pipelines.citymaker.streets import Street, clearance
from pipelines.citymaker.styles import RGB

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


def pick(colours: tuple[RGB, ...], rng: np.random.Generator) -> RGB:
    """One of several colours."""
    return colours[int(rng.integers(len(colours)))]
