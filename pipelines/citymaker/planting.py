"""What stands in the open: trees, and lamps and benches along the streets."""

# pyright: reportArgumentType=false

from __future__ import annotations

import itertools
import math

import numpy as np

from pipelines.citymaker.scene import Ground, Solid
from pipelines.citymaker.site import Site, solid
from pipelines.citymaker.streets import Street
from pipelines.citymaker.styles import RGB, District
from pipelines.citymaker.yards import grid_angle, hedge


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


def line_with_trees(site: Site, streets: list[Street], rng: np.random.Generator) -> None:
    """Line all streets with tall trees whose crowns hang over them."""
    for street in streets:
        kind = street.kind
        for side in (-1, 1):
            along = street.trims[0] + rng.uniform(3, 10)
            while along < street.length - street.trims[1] - 3:
                x, y, _, _ = street.at(along, side * (kind.half_width + 0.7))[0]
                height = rng.uniform(8, 12)
                if site.at(x, y)[1] == 0:
                    radius = height * rng.uniform(0.34, 0.42)
                    site.trees.append([x, y, height, radius, 0, int(rng.integers(1, 2**20))])
                along += rng.uniform(9, 24)


def hang_wires(site: Site, streets: list[Street]) -> None:
    """Hang three wires above one side of each street, from pole to pole, and some across."""
    black, brown = (0.02, 0.02, 0.02), (0.12, 0.09, 0.06)
    for street in streets:
        out = street.kind.half_width + 0.4
        ends = np.linspace(0, street.length, max(2, round(street.length / 28) + 1))
        poles, opposite = street.at(ends, out), street.at(ends, -out)
        spans = [(a, b, (-0.5, 0.0, 0.5)) for a, b in itertools.pairwise(poles)]
        spans += [(a, b, (0.0,)) for a, b in zip(poles[1:-1], opposite[1:-1], strict=True)]
        for start, end, sides in spans:
            step = end[:2] - start[:2]
            half = math.hypot(*step) / 2
            ux, uy = step / (2 * half)
            x, y = (start[:2] + end[:2]) / 2
            for side in sides:
                wire = (x - side * uy, y + side * ux, ux, uy, (half, 0.03), (6.4, 6.46, 6.46))
                site.solids.append(solid(*wire, Solid.POLE, black))
        for x, y, _, _ in poles:
            site.solids.append(
                solid(x, y, 1, 0, (0.13, 0.13), (0, 7, 7), Solid.POLE, brown, round_=True)
            )


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
