"""What a district looks like, and what a date does to it: sun, sky, leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np

from bevgen.errors import InputError
from pipelines.citymaker.scene import Facade, Ground, Light, Marking

ORIGIN = (46.5, -31.0)
"""Latitude and longitude of the city: in the middle of the Atlantic, so that nobody looks there."""

RGB = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StreetClass:
    """A kind of street: widths in metres, what it is made of and what is painted on it.

    ``parking`` is the chance that cars park along a side, ``zebra`` that an end has a crossing,
    ``bike`` that there are bicycle lanes, ``trees`` that trees line it, ``share`` its weight.
    """

    share: float
    half_width: float
    pavement: float
    surface: Ground = Ground.ASPHALT
    paving: Ground = Ground.SLABS
    marking: Marking = Marking.NONE
    parking: float = 0.0
    zebra: float = 0.0
    bike: float = 0.0
    trees: float = 0.0
    verge: float = 0.0


@dataclass(frozen=True, slots=True)
class Houses:
    """Buildings along streets: ranges in metres, walls and roofs to choose from.

    ``roof`` is flat, gable or hip; ``gap`` lies between neighbours, ``setback`` before them.
    ``floor`` is the height of a storey, ``back`` the chance of a house behind the first row.
    """

    width: tuple[float, float]
    depth: tuple[float, float]
    height: tuple[float, float]
    setback: tuple[float, float]
    gap: tuple[float, float]
    roofs: tuple[str, ...]
    facades: tuple[Facade, ...]
    walls: tuple[RGB, ...]
    tiles: tuple[RGB, ...]
    floor: float = 3.1
    vacancy: float = 0.05
    back: float = 0.3
    wings: float = 0.3


@dataclass(frozen=True, slots=True)
class District:
    """The character of a district.

    ``spacing`` is the distance of its streets east and north in metres, ``jitter`` moves their
    crossings by that part of it, ``bends`` sways them by so many metres, ``missing`` is the part
    of street pieces left out. ``garden`` is what covers most plots, ``trees`` and ``bushes`` are
    numbers per hectare of open ground, ``conifers`` a part of the trees. ``features`` are larger
    things between the houses: what, how many per hectare, range of half their size in metres;
    ``extras`` names what else there is: yards with goods, driveways, pools, benches.
    """

    name: str
    spacing: tuple[float, float]
    jitter: float
    bends: float
    missing: float
    streets: tuple[StreetClass, ...]
    houses: Houses
    base: Ground
    gardens: tuple[Ground, ...]
    trees: float
    bushes: float
    conifers: float
    traffic: float
    features: tuple[tuple[Ground, float, tuple[float, float]], ...] = ()
    extras: tuple[str, ...] = ()


BRICKS: tuple[RGB, ...] = ((0.30, 0.13, 0.085), (0.37, 0.20, 0.13), (0.24, 0.12, 0.09))
PLASTERS: tuple[RGB, ...] = (
    (0.62, 0.55, 0.42),
    (0.66, 0.62, 0.54),
    (0.60, 0.43, 0.25),
    (0.58, 0.36, 0.29),
    (0.45, 0.52, 0.52),
    (0.63, 0.58, 0.33),
)
STONES: tuple[RGB, ...] = ((0.46, 0.42, 0.35), (0.40, 0.38, 0.35), (0.52, 0.46, 0.35))
RED_TILES: tuple[RGB, ...] = ((0.34, 0.125, 0.07), (0.28, 0.11, 0.075), (0.38, 0.17, 0.09))
SLATES: tuple[RGB, ...] = ((0.11, 0.115, 0.13), (0.15, 0.14, 0.14), (0.19, 0.15, 0.13))
FLAT_ROOFS: tuple[RGB, ...] = (
    (0.30, 0.29, 0.27),
    (0.20, 0.20, 0.20),
    (0.46, 0.46, 0.45),
    (0.13, 0.13, 0.14),
    (0.27, 0.22, 0.18),
)

DISTRICTS = {
    district.name: district
    for district in (
        District(
            "oldtown",
            spacing=(52, 58),
            jitter=0.26,
            bends=9,
            missing=0.14,
            streets=(
                StreetClass(2, 2.3, 1.0, Ground.COBBLE, Ground.SLABS),
                StreetClass(2, 3.0, 1.6, marking=Marking.NONE, parking=0.25, zebra=0.4, trees=0.15),
                StreetClass(1, 3.6, 2.2, marking=Marking.DASHED, parking=0.5, zebra=0.8, trees=0.4),
            ),
            houses=Houses(
                (7, 13),
                (8, 11),
                (7.5, 14),
                (0, 0.4),
                (0, 0),
                ("gable", "gable", "hip"),
                (Facade.PLASTER, Facade.PLASTER, Facade.STONE, Facade.BRICK),
                PLASTERS + STONES,
                RED_TILES + RED_TILES + SLATES,
                vacancy=0.06,
            ),
            base=Ground.SLABS,
            gardens=(Ground.GRASS, Ground.GRAVEL, Ground.COBBLE, Ground.BRICK),
            trees=22,
            bushes=14,
            conifers=0.08,
            traffic=0.5,
            features=(
                (Ground.SLABS, 0.5, (7, 12)),
                (Ground.PARKING, 0.4, (5.4, 8)),
                (Ground.GRASS, 0.6, (6, 11)),
            ),
        ),
        District(
            "downtown",
            spacing=(88, 112),
            jitter=0.02,
            bends=0,
            missing=0.03,
            streets=(
                StreetClass(
                    2,
                    6.8,
                    4.0,
                    marking=Marking.FOUR_LANES,
                    zebra=1.0,
                    bike=0.35,
                    trees=0.6,
                    paving=Ground.CONCRETE,
                ),
                StreetClass(
                    3, 5.6, 3.2, marking=Marking.DASHED, parking=0.75, zebra=0.9, trees=0.45
                ),
                StreetClass(1, 3.4, 2.4, marking=Marking.NONE, parking=0.3, zebra=0.5),
            ),
            houses=Houses(
                (16, 34),
                (15, 24),
                (14, 52),
                (0, 1.5),
                (0, 4),
                ("flat",),
                (Facade.GLASS, Facade.CONCRETE, Facade.STONE, Facade.BRICK),
                (*STONES, *BRICKS, (0.5, 0.5, 0.5), (0.36, 0.42, 0.48), (0.42, 0.50, 0.50)),
                FLAT_ROOFS,
                floor=3.5,
                back=0.5,
            ),
            base=Ground.CONCRETE,
            gardens=(Ground.SLABS, Ground.GRASS, Ground.PARKING, Ground.BRICK),
            trees=16,
            bushes=5,
            conifers=0.0,
            traffic=1.6,
            features=(
                (Ground.PARKING, 0.7, (8, 18)),
                (Ground.GRASS, 0.5, (8, 14)),
                (Ground.COURT, 0.25, (7, 13)),
            ),
        ),
        District(
            "suburb",
            spacing=(120, 64),
            jitter=0.10,
            bends=16,
            missing=0.12,
            streets=(
                StreetClass(3, 3.1, 2.4, parking=0.35, zebra=0.1, trees=0.45, verge=1.2),
                StreetClass(1, 3.8, 2.8, marking=Marking.DASHED, zebra=0.6, trees=0.7, verge=1.3),
            ),
            houses=Houses(
                (9, 14),
                (8, 11),
                (3.4, 6.4),
                (4.5, 8),
                (3.5, 9),
                ("gable", "hip", "gable"),
                (Facade.SIDING, Facade.BRICK, Facade.PLASTER),
                ((0.62, 0.62, 0.6), (0.42, 0.47, 0.5), (0.56, 0.5, 0.38), *BRICKS, *PLASTERS[:3]),
                SLATES + RED_TILES,
                floor=2.8,
                back=0.0,
                wings=0.55,
            ),
            base=Ground.GRASS,
            gardens=(Ground.GRASS, Ground.MEADOW, Ground.GRAVEL, Ground.SOIL),
            trees=34,
            bushes=34,
            conifers=0.22,
            traffic=0.25,
            features=(
                (Ground.MEADOW, 0.5, (9, 20)),
                (Ground.COURT, 0.2, (7, 13)),
                (Ground.PARKING, 0.2, (8, 12)),
                (Ground.WATER, 0.25, (7, 12)),
            ),
            extras=("driveways", "pools"),
        ),
        District(
            "industrial",
            spacing=(170, 130),
            jitter=0.05,
            bends=4,
            missing=0.06,
            streets=(
                StreetClass(
                    2, 4.6, 1.8, marking=Marking.DASHED, parking=0.2, zebra=0.25, trees=0.12
                ),
                StreetClass(1, 5.6, 2.4, marking=Marking.DOUBLE, zebra=0.5, trees=0.25, bike=0.3),
                StreetClass(1, 3.8, 1.4, Ground.CONCRETE, marking=Marking.EDGES, parking=0.2),
            ),
            houses=Houses(
                (24, 58),
                (18, 34),
                (5.5, 11),
                (9, 20),
                (7, 16),
                ("flat", "flat", "gable"),
                (Facade.SHEET, Facade.SHEET, Facade.BRICK, Facade.CONCRETE),
                (
                    (0.5, 0.52, 0.53),
                    (0.6, 0.6, 0.57),
                    (0.25, 0.33, 0.42),
                    (0.36, 0.4, 0.33),
                    *BRICKS,
                ),
                (*FLAT_ROOFS, (0.34, 0.38, 0.42), (0.52, 0.52, 0.5)),
                floor=4.0,
                back=0.6,
            ),
            base=Ground.ASPHALT,
            gardens=(Ground.PARKING, Ground.PARKING, Ground.GRAVEL, Ground.CONCRETE, Ground.MEADOW),
            trees=6,
            bushes=5,
            conifers=0.05,
            traffic=0.7,
            features=((Ground.PARKING, 2.2, (8, 24)), (Ground.GRAVEL, 0.5, (8, 16))),
            extras=("yards",),
        ),
        District(
            "park",
            spacing=(105, 95),
            jitter=0.22,
            bends=20,
            missing=0.16,
            streets=(
                StreetClass(
                    2,
                    3.6,
                    3.0,
                    marking=Marking.DASHED,
                    parking=0.35,
                    zebra=0.6,
                    trees=0.8,
                    verge=1.4,
                ),
                StreetClass(2, 1.7, 0.0, Ground.GRAVEL, trees=0.4),
                StreetClass(1, 1.9, 0.0, Ground.SAND, trees=0.3),
                StreetClass(1, 2.1, 0.0, Ground.ASPHALT, marking=Marking.NONE, trees=0.5),
            ),
            houses=Houses(
                (7, 16),
                (6, 11),
                (3.2, 8),
                (5, 12),
                (25, 70),
                ("hip", "gable"),
                (Facade.PLASTER, Facade.SIDING, Facade.STONE),
                PLASTERS,
                RED_TILES + SLATES,
                back=0.0,
                vacancy=0.35,
            ),
            base=Ground.GRASS,
            gardens=(
                Ground.MEADOW,
                Ground.MEADOW,
                Ground.WATER,
                Ground.COURT,
                Ground.SAND,
                Ground.SOIL,
            ),
            trees=70,
            bushes=40,
            conifers=0.18,
            traffic=0.25,
            features=(
                (Ground.WATER, 1.4, (9, 26)),
                (Ground.COURT, 0.7, (7, 13)),
                (Ground.PARKING, 0.5, (8, 16)),
                (Ground.SAND, 0.5, (5, 9)),
            ),
            extras=("benches",),
        ),
        District(
            "harbour",
            spacing=(76, 100),
            jitter=0.12,
            bends=7,
            missing=0.10,
            streets=(
                StreetClass(
                    2, 4.2, 3.0, Ground.BRICK, Ground.BRICK, parking=0.5, zebra=0.2, trees=0.5
                ),
                StreetClass(
                    2,
                    4.9,
                    2.6,
                    paving=Ground.CONCRETE,
                    marking=Marking.DASHED,
                    zebra=0.8,
                    parking=0.4,
                    trees=0.3,
                    bike=0.6,
                ),
                StreetClass(1, 2.6, 1.2, Ground.COBBLE, Ground.COBBLE),
            ),
            houses=Houses(
                (11, 24),
                (10, 16),
                (8, 24),
                (0, 2.5),
                (0, 5),
                ("gable", "flat", "hip"),
                (Facade.BRICK, Facade.BRICK, Facade.GLASS, Facade.SIDING),
                (*BRICKS, (0.62, 0.62, 0.6), (0.16, 0.24, 0.3), (0.46, 0.1, 0.07)),
                SLATES + FLAT_ROOFS[:3],
                floor=3.3,
                vacancy=0.12,
            ),
            base=Ground.BRICK,
            gardens=(
                Ground.WATER,
                Ground.WATER,
                Ground.DECK,
                Ground.GRAVEL,
                Ground.PARKING,
                Ground.GRASS,
            ),
            trees=14,
            bushes=10,
            conifers=0.0,
            traffic=0.6,
            features=(
                (Ground.WATER, 2.2, (8, 22)),
                (Ground.PARKING, 0.6, (8, 16)),
                (Ground.DECK, 0.8, (5, 12)),
            ),
            extras=("yards", "benches"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Season:
    """What a date does to plants: leaves on broad-leaved trees (0 to 1), colours, fallen leaves."""

    leaves: float
    autumn: float
    fresh: float
    lush: float
    litter: float


def season_of(day: date) -> Season:
    """Tell the season of a day, on the northern hemisphere."""
    turn = day.timetuple().tm_yday

    def between(a: float, b: float) -> float:
        return min(max((turn - a) / (b - a), 0.0), 1.0)

    budding, falling = between(92, 128), between(290, 328)
    leaves = 0.2 + 0.8 * budding * (1 - falling)
    return Season(
        leaves=leaves,
        autumn=between(262, 300),
        fresh=budding * (1 - between(130, 165)),
        lush=0.62 + 0.45 * budding * (1 - 0.45 * between(185, 225)) * (1 - 0.5 * between(285, 330)),
        litter=between(275, 315) * (1 - 0.5 * between(335, 365)),
    )


def sun_direction(day: date, hour: float) -> tuple[float, float, float]:
    """Return the unit vector (east, north, up) to the sun at an hour of true solar time."""
    turn = day.timetuple().tm_yday
    declination = math.radians(-23.44) * math.cos(2 * math.pi * (turn + 10) / 365.25)
    latitude, angle = math.radians(ORIGIN[0]), math.radians(15 * (hour - 12))
    east = -math.cos(declination) * math.sin(angle)
    north = math.sin(declination) * math.cos(latitude)
    north -= math.cos(declination) * math.cos(angle) * math.sin(latitude)
    up = math.sin(declination) * math.sin(latitude)
    up += math.cos(declination) * math.cos(angle) * math.cos(latitude)
    return east, north, up


def light_of(day: date, seed: int, later: float = 0.0, gain: float = 1.0) -> Light:
    """Choose hour and weather of a date, and tell the light.

    Parameters
    ----------
    day
        The date.
    seed
        Of the city; with the date it decides hour and clouds.
    later
        Hours after that.
    gain
        The camera's exposure, 1 for the usual one.
    """
    rng = np.random.default_rng([seed, day.toordinal(), 7])
    hour = float(rng.uniform(10.2, 14.2)) + later
    clouds = float(rng.choice([0.15, 0.35, 0.55], p=[0.4, 0.4, 0.2]))
    return _light(day, hour, clouds, gain, int(rng.integers(1, 2**20)))


def satellite_light(day: date) -> Light:
    """Tell the light of a satellite's pictures: at 10:45 on a day without clouds."""
    return _light(day, 10.75, 0.0, 1.0, 1)


def _light(day: date, hour: float, clouds: float, gain: float, seed: int) -> Light:
    """Light of an hour and a cover of clouds."""
    sun = sun_direction(day, hour)
    low = min(max(1 - sun[2] / 0.6, 0.0), 1.0)
    power = 2.5 * (1 - 0.30 * clouds) * (1 - 0.25 * low)
    season = season_of(day)
    return Light(
        *sun,
        sun_red=power,
        sun_green=power * (0.93 - 0.10 * low),
        sun_blue=power * (0.82 - 0.24 * low),
        sky_red=0.52 + 0.16 * clouds,
        sky_green=0.63 + 0.10 * clouds,
        sky_blue=0.80 + 0.02 * clouds,
        clouds=clouds,
        haze=0.0011 + 0.0012 * clouds,
        lush=season.lush,
        litter=season.litter,
        exposure=(1.05 + 0.35 * low) * gain,
        seed=seed,
    )


def parse_date(text: str) -> date:
    """Read a date written YYYY-MM-DD.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"a date is written like 2023-06-20, not {text!r}") from error
