"""Intervals of calibration: how often they hold the truth, and whether heights are high."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bevgen.calibration import (
    Calibration,
    Estimate,
    View,
    calibrate,
    estimation,
    find_pairs,
    load_view,
)
from bevgen.calibration.agreement import FEWER, Evidence, Trials, chance_of, compare
from bevgen.calibration.report import lowered
from bevgen.calibration.rings import STEP
from bevgen.geometry import PanoramaView
from pipelines.citymaker.dataset import Settings, make_city

DRAWS = 100
KEPT = (0.27, 0.65)  # part of the rows that a cropped panorama keeps


# --- a small city ---


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    """Eight cropped panoramas on tiles that the farther rings leave."""
    out = tmp_path_factory.mktemp("small") / "city"
    return town(out, places=8, districts=("suburb",), cross=(), tile_metres=40.0)[0]


def test_no_height_has_an_advantage_where_chance_does_less(views):
    """All heights and horizons have one unit: differences between pairs are those of the edges."""
    trials = Trials(6.0, 40)
    tiles = [trials.tile_spectrum(view) for view in views]
    unit = chance_of(trials, views, tiles)
    for horizon in (0.0, 4.0):
        one = compare(trials, views, tiles, "known", unit, horizon, 2)
        raw = [
            trials.agreement(trials.panorama_spectrum(view, horizon), tile)[:, :1]
            for view, tile in zip(views, tiles, strict=True)
        ]
        assert one.spread.max() > 1.1 * one.spread.min()  # chance does less at some
        for i in (3, 7):
            np.testing.assert_allclose(
                (one.pairs[i] - one.pairs[0]) * unit, raw[i] - raw[0], atol=1e-3 * unit
            )


def test_the_horizon_is_looked_for_everywhere_and_does_not_hang_on_where_one_begins(views):
    truth, found = (-3.0, 0.0), []
    for off in truth:
        moved = [
            replace(
                view, lens=replace(view.lens, vertical_fov=lowered(view.lens.vertical_fov, off))
            )
            for view in views
        ]
        found.append(calibrate(moved, ratios=(9.0, 14.0), heading="known", horizon=True))
    for off, one in zip(truth, found, strict=True):
        assert (one.horizons[0], one.horizons[-1], len(one.by_horizon)) == (-14, 14, 29)
        assert one.horizon is not None
        assert one.horizon.low < -off < one.horizon.high
    moved, right = (one.horizon for one in found)
    for name in ("low", "value", "high"):
        assert getattr(moved, name) - 3 == pytest.approx(getattr(right, name), abs=0.4)


def test_what_is_weak_says_why():
    evidence = Calibration(
        ratio=Estimate(10.0, 8.0, 11.0),
        heading=Estimate(1.0, -8.0, 9.0),
        horizon=Estimate(13.5, 12.0, 15.0),
        verdict="clear",
        strength=8.0,
        by_pair=np.ones(9),
        ratios=np.array([2.0, 10.0]),
        by_ratio=np.ones(2),
        by_heading=np.ones(240),
        horizons=estimation.HORIZONS,
        by_horizon=np.ones(29),
        chance=1.0,
        background=(0.0, 1.0),
    )
    judged = estimation._judged(evidence)
    assert judged.verdict == "weak"
    assert [doubt.split(":")[0] for doubt in judged.doubts] == [
        *("all", "height", "height", "heading", "horizon", "horizon")
    ]
    assert estimation._judged(replace(evidence, strength=5.9)).verdict == "not found"
    sure = replace(
        evidence,
        ratio=Estimate(5.0, 4.9, 5.1),
        heading=Estimate(1.0, 0.0, 2.0),
        horizon=Estimate(1.5, 1.0, 2.0),
        strength=11.0,
    )
    assert (estimation._judged(sure).verdict, estimation._judged(sure).doubts) == ("clear", ())


# --- the city with what real pairs have ---


def town(out: Path, **settings: Any) -> tuple[list[View], np.ndarray, float]:
    """Cropped panoramas on their tiles; their cameras' heights in pixels of tiles; resolution."""
    made = Settings(
        seed=21, panorama_width=512, tile_size=256, views=("panorama", "satellite"), **settings
    )
    make_city(out, made)
    pairs = find_pairs(
        out / "panorama",
        out / "satellite",
        pairs_file=out / "pairs.csv",
        poses=out / "poses.csv",
    )
    heights = np.array([pair.own.height for pair in pairs], np.float64)
    views = [cropped(load_view(pair)[0]) for pair in pairs]
    return views, heights / made.resolution, made.resolution


def cropped(view: View) -> View:
    """Cut a whole panorama above and below."""
    rows, columns = view.panorama.shape
    top, bottom = (round(part * rows) for part in KEPT)
    field = (90 - 180 / rows * top, 90 - 180 / rows * bottom)
    lens = PanoramaView(bottom - top, columns, field)
    return replace(view, panorama=np.ascontiguousarray(view.panorama[top:bottom]), lens=lens)


@pytest.mark.faults
def test_intervals_hold_the_truth_on_the_city_with_what_real_pairs_have(tmp_path):
    """100 draws of 24 pairs from 300, with the horizon looked for and with it known.

    Drawn without replacement: a pair that comes twice tells nothing new, but narrows intervals.
    The pool must be large, as what is off in all of it is off in each draw. One of 120 was 1.7 per
    cent too low, which is within its own interval: only 87 of the heights held the truth, though
    95 held the pool's value. Of 300 it is 97 (horizon known).
    """
    views, ratios, resolution = town(
        tmp_path / "city",
        places=300,
        heading="random",
        tile_metres=60.0,
        satellite_date="2021-09-20",
        lean=15.0,
        shift=1.0,
        overhang=True,
        wires=True,
    )
    trials = Trials(1.0 / resolution, math.ceil(math.log(4.5) / STEP) + 1)
    tiles = [trials.tile_spectrum(view) for view in views]
    unit = chance_of(trials, views, tiles)
    rng = np.random.default_rng(0)
    drawn = [rng.choice(len(views), 24, replace=False) for _ in range(DRAWS)]
    gathered: list[list[Evidence]] = [[] for _ in drawn]
    for degrees in estimation.HORIZONS.tolist():
        one = compare(trials, views, tiles, "common", unit, degrees, FEWER)
        for evidence, some in zip(gathered, drawn, strict=True):
            evidence.append(replace(one, pairs=one.pairs[some]).evidence())
    truth = np.array([ratios[some].mean() for some in drawn])
    middle = len(estimation.HORIZONS) // 2
    for looked_for, horizons in ((True, slice(None)), (False, slice(middle, middle + 1))):
        degrees = estimation.HORIZONS[horizons]
        found = [estimation._conclude(trials, evidence[horizons], degrees) for evidence in gathered]
        part, high = held(found, truth), relative(found, truth)
        sys.stdout.write(f"horizon looked for: {looked_for}; {part}, height {high:+.1%}\n")
        assert all(0.9 <= value <= 0.99 for value in part.values()), part
        assert abs(high) < 0.04


def relative(found: Sequence[Calibration], truth: np.ndarray) -> float:
    """How far heights are off, in the median."""
    return float(np.median([one.ratio.value for one in found] / truth) - 1)


def held(draws: Sequence[Calibration], ratios: np.ndarray) -> dict[str, float]:
    """Part of the draws whose intervals hold the truth; heading and horizon are right at 0."""
    inside: dict[str, list[bool]] = {"height": [], "heading": [], "horizon": []}
    for found, ratio in zip(draws, ratios, strict=True):
        inside["height"].append(found.ratio.low <= ratio <= found.ratio.high)
        for name, angle in (("heading", found.heading), ("horizon", found.horizon)):
            if angle is not None:
                inside[name].append(angle.low <= 0 <= angle.high)
    return {name: float(np.mean(values)) for name, values in inside.items() if values}
