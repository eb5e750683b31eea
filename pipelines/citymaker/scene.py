"""What is handed to the kernels: plain tables, and the meaning of their columns.

A scene is flat ground at z = 0 with solids and tree crowns on it, in metres, x east and y north.
Everything stands in lists per grid cell, so that a ray looks at its neighbourhood only.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

CELL = 6.0
"""Metres across a grid cell."""


class Solid(enum.IntEnum):
    """Kinds of solids, for their colour."""

    BUILDING = 0
    BODY = 1
    CABIN = 2
    POLE = 3
    HEDGE = 4
    UNIT = 5
    CONTAINER = 6
    WALL = 7
    TRUNK = 8
    TANK = 9
    WOOD = 10
    WHEEL = 11
    LAMP = 12
    AWNING = 13


class Facade(enum.IntEnum):
    """How a building's walls are made."""

    PLASTER = 0
    BRICK = 1
    GLASS = 2
    CONCRETE = 3
    SIDING = 4
    SHEET = 5
    STONE = 6


class Ground(enum.IntEnum):
    """Materials and marks that lie on the ground."""

    ASPHALT = 0
    COBBLE = 1
    CONCRETE = 2
    SLABS = 3
    GRASS = 4
    GRAVEL = 5
    WATER = 6
    SOIL = 7
    BRICK = 8
    COURT = 9
    SAND = 10
    DECK = 11
    PARKING = 12
    MANHOLE = 13
    PATCH = 14
    DRAIN = 15
    ARROW = 16
    STAIN = 17
    ZEBRA = 18
    MEADOW = 19
    LEAVES = 20
    FIELD = 21


class Marking(enum.IntEnum):
    """What is painted along a street."""

    NONE = 0
    DASHED = 1
    DOUBLE = 2
    FOUR_LANES = 3
    EDGES = 4


# Columns of Scene.solids. A solid is a box turned about z whose walls may lean inwards above the
# eave (roofs, car cabins), cut flat at the top; with ROUND a cylinder of radius HX.
(CX, CY, COS, SIN, HX, HY, BOTTOM, EAVE, TOP, LEAN_X, LEAN_Y, KIND, STYLE, SEED) = range(14)
WALL_RGB, ROOF_RGB, ROUND, FLOOR = 14, 17, 20, 21
SOLID_COLUMNS = 22

# Columns of Scene.crowns: centre, horizontal and vertical radius, colour, seed, leaves 0 to 1.
(CROWN_X, CROWN_Y, CROWN_Z, CROWN_R, CROWN_RZ, CROWN_RED, CROWN_GREEN, CROWN_BLUE) = range(8)
CROWN_SEED, CROWN_LEAVES = 8, 9
CROWN_COLUMNS = 10

# Columns of Scene.segments: a straight piece of a street's centre line; FIRST and LAST are 1 where
# the street ends with it, DISTANCE is measured along the street.
(SEG_X, SEG_Y, SEG_UX, SEG_UY, SEG_LENGTH, SEG_DISTANCE, SEG_STREET, SEG_FIRST, SEG_LAST) = range(9)
SEGMENT_COLUMNS = 9

# Columns of Scene.streets.
(
    ST_LENGTH,
    ST_TRIM0,
    ST_TRIM1,
    ST_ZEBRA0,
    ST_ZEBRA1,
    ST_SURFACE,
    ST_MARKING,
    ST_TONE,
    ST_PARK_LEFT,
    ST_PARK_RIGHT,
    ST_BIKE,
    ST_SEED,
    ST_HALF,
    ST_PAVEMENT,
    ST_PAVING,
    ST_VERGE,
) = range(16)
STREET_COLUMNS = 16

# Columns of Scene.patches: rounded rectangles on the ground, painted in their order; those with
# OVER 0 lie under the streets, the others on them.
(PA_X, PA_Y, PA_COS, PA_SIN, PA_HX, PA_HY, PA_RADIUS, PA_KIND, PA_TONE, PA_SEED, PA_OVER) = range(
    11
)
PATCH_COLUMNS = 11


class Scene(NamedTuple):
    """All that can be seen of a district on one date.

    ``*_first`` (cells + 1,) and ``*_items`` list by cell, row by row from the south-west corner:
    solids and crowns (crowns numbered after the solids), segments, patches. ``cell_top`` (cells,)
    is the height of the highest thing of a cell, ``thing_top`` that of each thing. ``openness``
    (rows, columns), by metre from the same corner, is the part of the sky's light that reaches the
    ground.
    """

    x0: float
    y0: float
    nx: int
    ny: int
    top: float
    base: int
    seed: int
    solids: Floats
    crowns: Floats
    thing_first: Ints
    thing_items: Ints
    cell_top: Floats
    thing_top: Floats
    segments: Floats
    streets: Floats
    segment_first: Ints
    segment_items: Ints
    patches: Floats
    patch_first: Ints
    patch_items: Ints
    openness: Floats


class Light(NamedTuple):
    """Sun, sky and season.

    ``sun_*`` is the direction to the sun, ``*_red`` ... are linear intensities, ``clouds`` and
    ``haze`` go from 0 to 1, ``lush`` is how green the grass is, ``litter`` how much fallen leaves.
    """

    sun_x: float
    sun_y: float
    sun_z: float
    sun_red: float
    sun_green: float
    sun_blue: float
    sky_red: float
    sky_green: float
    sky_blue: float
    clouds: float
    haze: float
    lush: float
    litter: float
    exposure: float
    seed: int


def list_by_cell(
    boxes: NDArray[np.float64], x0: float, y0: float, nx: int, ny: int
) -> tuple[Ints, Ints]:
    """List which bounding boxes touch each grid cell.

    Parameters
    ----------
    boxes : (N, 4) float64
        West, south, east and north edges in metres.
    x0, y0, nx, ny
        South-west corner of the grid, and its number of cells.

    Returns
    -------
    first : (nx * ny + 1,) int32
    items : (M,) int32
        Numbers of the boxes; those of cell k are ``items[first[k]:first[k + 1]]``, ascending.
    """
    low = np.floor((boxes[:, :2] - (x0, y0)) / CELL).astype(np.int64)
    high = np.floor((boxes[:, 2:] - (x0, y0)) / CELL).astype(np.int64)
    outside = (high < 0).any(axis=1) | (low[:, 0] >= nx) | (low[:, 1] >= ny)
    low, high = np.maximum(low, 0), np.minimum(high, (nx - 1, ny - 1))
    cells, items = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for item in np.flatnonzero(~outside):
        columns = np.arange(low[item, 0], high[item, 0] + 1)
        rows = np.arange(low[item, 1], high[item, 1] + 1)
        block = (rows[:, None] * nx + columns).ravel()
        cells.append(block)
        items.append(np.full(block.size, item))
    cell, item = np.concatenate(cells), np.concatenate(items)
    order = np.lexsort((item, cell))
    first = np.searchsorted(cell[order], np.arange(nx * ny + 1)).astype(np.int32)
    return first, item[order].astype(np.int32)


def turned_boxes(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    cos: NDArray[np.floating],
    sin: NDArray[np.floating],
    half_x: NDArray[np.floating],
    half_y: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Bounding boxes (N, 4) of turned rectangles: west, south, east, north."""
    reach_x = np.abs(cos) * half_x + np.abs(sin) * half_y
    reach_y = np.abs(sin) * half_x + np.abs(cos) * half_y
    return np.stack([x - reach_x, y - reach_y, x + reach_x, y + reach_y], axis=1).astype(np.float64)
