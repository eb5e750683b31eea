"""Intervals of calibration: how often they hold the truth, and whether heights are high."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bevgen.calibration import Calibration, View, estimation, find_pairs, load_view
from bevgen.calibration.agreement import FEWER, Evidence, Trials, chance_of, compare
from bevgen.calibration.rings import STEP
from bevgen.geometry import PanoramaView
from pipelines.citymaker.dataset import Settings, make_city

DRAWS = 100
KEPT = (0.27, 0.65)  # part of the rows that a cropped panorama keeps


# --- the city with what real pairs have ---


def hard_city(out: Path, places: int) -> tuple[list[View], np.ndarray, float]:
    """Cropped panoramas on tiles, with their headings; their cameras' heights in pixels of tiles."""
    settings = Settings(
        places=places,
        seed=21,
        heading="random",
        panorama_width=512,
        tile_size=256,
        tile_metres=60.0,
        satellite_date="2021-09-20",
        lean=15.0,
        shift=1.0,
        overhang=True,
        wires=True,
        views=("panorama", "satellite"),
    )
    make_city(out, settings)
    pairs = find_pairs(
        out / "panorama",
        out / "satellite",
        pairs_file=out / "pairs.csv",
        poses=out / "poses.csv",
    )
    heights = np.array([pair.own.height for pair in pairs], np.float64)
    views = [cropped(load_view(pair)[0]) for pair in pairs]
    return views, heights / settings.resolution, settings.resolution


def cropped(view: View) -> View:
    """Cut a whole panorama above and below."""
    rows, columns = view.panorama.shape
    top, bottom = (round(part * rows) for part in KEPT)
    field = (90 - 180 / rows * top, 90 - 180 / rows * bottom)
    lens = PanoramaView(bottom - top, columns, field)
    return replace(view, panorama=np.ascontiguousarray(view.panorama[top:bottom]), lens=lens)


@pytest.mark.faults
def test_intervals_hold_the_truth_on_the_city_with_what_real_pairs_have(tmp_path):
    """100 draws of 24 pairs from 120, with the horizon looked for and with it known."""
    views, ratios, resolution = hard_city(tmp_path / "city", 120)
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
        print(f"horizon {'looked for' if looked_for else 'known'}: {part}, height {high:+.1%}")
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
