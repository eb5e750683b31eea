"""How the branches learnt: curves of loss and of recall on the validation split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bevgen.terminal import counted
from georetrieval.config import BranchName, Settings
from georetrieval.report.charts import Axis, LineChart, Points, Series, line_chart, smooth, thin

TITLES: dict[BranchName, str] = {"panorama": "panorama", "bev": "BEV"}
RECALLS = ("R@1", "R@5", "R@10")


def curve(lines: Sequence[dict[str, Any]], branch: str, figure: str) -> list[tuple[float, float]]:
    """Return a branch's figure by epoch.

    Parameters
    ----------
    lines
        Of `georetrieval.run.Run.read_metrics`.
    branch, figure
        Which.

    Returns
    -------
    list of (epoch, value)
        In ascending epoch; values that are not finite are left out.
    """
    points: list[tuple[float, float]] = []
    for line in lines:
        if line.get("branch") != branch or not isinstance(line.get(figure), int | float):
            continue
        if math.isfinite(value := float(line[figure])):
            points.append((float(line["epoch"]), value))
    return points


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart of a branch's figure, with what is said above it."""

    branch: str
    title: str
    figure: str
    said: str
    chart: LineChart | None


def training_curves(lines: Sequence[dict[str, Any]], settings: Settings | None) -> list[Curve]:
    """Place loss and recall of each branch on axes that they share; none without metrics."""
    losses: dict[BranchName, Points] = {
        name: points for name in TITLES if (points := curve(lines, name, "loss"))
    }
    if not losses:
        return []
    end = max(points[-1][0] for points in losses.values())
    x = Axis("epoch", 0.0, max(math.ceil(end), 1))
    # A few wild steps must not flatten the rest.
    top = float(np.percentile([v for points in losses.values() for _, v in points], 99.5)) * 1.05
    curves = []
    for name, points in losses.items():
        curves.append(_loss(name, points, x, top, settings))
        curves.append(_recall(name, {k: curve(lines, name, k) for k in RECALLS}, x))
    return curves


def _loss(
    name: BranchName, points: Points, x: Axis, top: float, settings: Settings | None
) -> Curve:
    level = None
    branch = settings.branches().get(name) if settings else None
    if branch is not None:
        guess = math.log(branch.sampling.batch_size)
        top = max(top, guess * 1.08)
        level = (f"guessing among {branch.sampling.batch_size}", guess)
    mean = smooth(points)
    drawn = [
        Series("each step", f"{name} raw", thin(points)),
        Series("mean", f"{name} line", mean),
    ]
    y = Axis("loss", 0.0, top or 1.0)
    chart = line_chart(f"{TITLES[name]} branch, loss", x, y, drawn, level=level)
    said = f"{counted(len(points), 'step')}, at the end {mean[-1][1]:.2f}"
    return Curve(name, TITLES[name], "loss", said, chart)


def _recall(name: BranchName, curves: dict[str, list[tuple[float, float]]], x: Axis) -> Curve:
    if not any(curves.values()):
        return Curve(name, TITLES[name], "recall", "not evaluated during training", None)
    tones = {"R@1": "line", "R@5": "line second", "R@10": "line third"}
    drawn = [
        Series(key, f"{name} {tones[key]}", points, unit=" %", dots=True)
        for key, points in curves.items()
    ]
    title = f"{TITLES[name]} branch, recall on the validation split"
    chart = line_chart(title, x, Axis("per cent", 0.0, 100.0), drawn)
    said = ""
    if curves["R@1"]:
        epoch, best = max(curves["R@1"], key=lambda p: p[1])
        said = f"per cent; best R@1 {best:.1f} after epoch {epoch:g}"
    return Curve(name, TITLES[name], "recall on validation places", said, chart)
