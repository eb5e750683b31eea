"""How the branches learnt: curves of loss and of recall on the validation split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from georetrieval.config import BranchName, Settings
from georetrieval.report.charts import Axis, Points, Series, line_chart, smooth, thin

TITLES: dict[BranchName, str] = {"panorama": "panorama", "bev": "BEV"}
RECALLS = ("R@1", "R@5", "R@10")


def curve(lines: Sequence[dict[str, Any]], branch: str, figure: str) -> list[tuple[float, float]]:
    """Return a branch's figure by epoch, without what a resumed run did again.

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
        epoch, value = float(line["epoch"]), float(line[figure])
        while points and points[-1][0] >= epoch:
            points.pop()
        if math.isfinite(value):
            points.append((epoch, value))
    return points


def training(lines: Sequence[dict[str, Any]], settings: Settings | None) -> str:
    """Draw loss and recall of each branch, on axes that they share."""
    names: list[BranchName] = [name for name in TITLES if curve(lines, name, "loss")]
    if not names:
        body = '<p class="nothing">This run has no metrics.jsonl, so there are no curves.</p>'
        return f'<section id="training"><h2>Training</h2>{body}</section>'
    losses = {name: curve(lines, name, "loss") for name in names}
    end = max(points[-1][0] for points in losses.values())
    x = Axis("epoch", 0.0, max(math.ceil(end), 1))
    # A few wild steps must not flatten the rest.
    top = float(np.percentile([v for points in losses.values() for _, v in points], 99.5)) * 1.05
    charts = ""
    for name in names:
        charts += _loss_chart(name, losses[name], x, top, settings)
        charts += _recall_chart(name, {k: curve(lines, name, k) for k in RECALLS}, x)
    return (
        '<section id="training"><h2>Training</h2><p class="how">Each branch learns to tell its'
        " query&rsquo;s own tile from the other tiles of a batch. The <b>loss</b> says how badly it"
        " does: thin is each step, thick the moving mean, dashed what guessing costs. It jumps up"
        " when batches are refilled with places that look alike. <b>Recall</b> is measured on"
        " validation places during training: how often the right tile is among the first 1, 5 or"
        f' 10.</p><div class="pair">{charts}</div></section>'
    )


def _loss_chart(
    name: BranchName, points: Points, x: Axis, top: float, settings: Settings | None
) -> str:
    level = None
    branch = settings.branches().get(name) if settings else None
    if branch is not None:
        guess = math.log(branch.sampling.batch_size)
        top = max(top, guess * 1.08)
        level = (f"guessing among {branch.sampling.batch_size}", guess)
    drawn = [
        Series("each step", f"{name} raw", thin(points)),
        Series("mean", f"{name} line", smooth(points)),
    ]
    title = f"{TITLES[name]} branch, loss"
    chart = line_chart(title, x, Axis("loss", 0.0, top or 1.0), drawn, level=level)
    last = smooth(points)[-1][1]
    return _figure(name, "loss", f"{len(points):,} steps, at the end {last:.2f}", chart)


def _recall_chart(name: BranchName, curves: dict[str, list[tuple[float, float]]], x: Axis) -> str:
    if not any(curves.values()):
        return _figure(name, "recall", "not evaluated during training", "")
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
    return _figure(name, "recall on validation places", said, chart)


def _figure(name: BranchName, what: str, said: str, chart: str) -> str:
    return (
        f'<figure class="panel"><figcaption><span class="key {name}"></span><b>{TITLES[name]}'
        f" branch</b>, {escape(what)}<small>{escape(said)}</small></figcaption>{chart}</figure>"
    )
