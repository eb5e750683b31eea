"""How often the right place is found: figures, comparison, matches, failures and the plan.

What is computed here ``templates/results.html`` and ``templates/evaluation.html`` write down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bevgen.terminal import counted
from georetrieval.config import BranchName
from georetrieval.data.dataset import Dataset
from georetrieval.report.charts import Axis, LineChart, Series, line_chart, share_within
from georetrieval.report.gallery import (
    Card,
    Pictures,
    distance,
    make_card,
    method_title,
    random_sample,
    worst_failures,
)
from georetrieval.report.plan import Found, Plan, plan
from georetrieval.retrieval.metrics import Estimate
from georetrieval.retrieval.results import Evaluation, Method

GALLERY_ROWS = 24  # random queries, and as many failures, over all evaluations: about 4 MB
PLAN_QUERIES = 1500  # over all evaluations
PLAN_TILES = 6000
TONES = {"panorama": "panorama", "bev": "bev", "both": "both", "both, weight chosen": "chosen"}
SHARES = ("R@1", "R@5", "R@10", "R@1%", "AP", "hit rate")
MEDIANS = ("median rank", "median metres")


@dataclass(frozen=True, slots=True)
class Titled:
    """An evaluation, the name it goes by on the page, and the anchor that links use."""

    evaluation: Evaluation
    name: str
    anchor: str

    @property
    def method(self) -> Method:
        """The method whose matches are shown: co-retrieval if there is any, as it comes last."""
        return self.evaluation.methods[-1]


@dataclass(frozen=True, slots=True)
class Label:
    """What a method is called, with the weight if one was chosen, and its colour's CSS class."""

    title: str
    weight: str
    tone: str

    @classmethod
    def of(cls, method: Method) -> Label:
        """Label a method."""
        chosen = method.name == "both, weight chosen"
        weight = f"panorama {method.weight:.2f}" if chosen else ""
        return cls(method_title(method), weight, _tone(method))


@dataclass(frozen=True, slots=True)
class Bar:
    """A method's R@1 beside what chance gives, in per cent."""

    label: Label
    recall: Estimate
    chance: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure with its interval, as written; ``best`` of all methods."""

    value: str
    low: str
    high: str
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A method's figures, None where it has none."""

    label: Label
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class Table:
    """All figures of all methods, and what chance gives, empty where it depends on the places."""

    columns: list[str]
    rows: list[Row]
    chance: list[str]


@dataclass(frozen=True, slots=True)
class CityPlan:
    """A plan, and how many queries it could show and does."""

    drawing: Plan
    unlocated: int
    located: int
    drawn: int


@dataclass(frozen=True, slots=True)
class Part:
    """All that the page says of one evaluation.

    Attributes
    ----------
    name, anchor
        What it is called, and what links go by.
    data, split, protocol, heading_unknown, fov
        See `Evaluation`.
    folder
        Name of the folder that pictures are from.
    pictures_from
        The whole path, if that is not the folder that was searched, which is gone.
    other_weights
        Whether the run holds other weights now.
    seen_in_training
        Whether the model was trained or chosen on a split of this name.
    queries, gallery, hundredth, misses
        How many; ``misses`` of the shown method.
    bars, comparison, table, by_rank, by_metres
        Figures.
    shown_method
        Whose matches ``sample`` and ``failures`` show.
    plan
        None where no position is known.
    """

    name: str
    anchor: str
    data: str
    split: str
    protocol: str
    heading_unknown: bool
    fov: float
    folder: str
    pictures_from: str
    other_weights: bool
    seen_in_training: bool
    queries: int
    gallery: int
    hundredth: int
    misses: int
    bars: list[Bar]
    comparison: str
    table: Table
    by_rank: LineChart = field(repr=False)
    by_metres: LineChart | None = field(repr=False)
    shown_method: str
    sample: list[Card] = field(repr=False)
    failures: list[Card] = field(repr=False)
    plan: CityPlan | None = field(repr=False)


def describe(one: Titled, dataset: Dataset, hashes: dict[BranchName, str], *, count: int) -> Part:
    """Gather all that the page says of one evaluation.

    Parameters
    ----------
    one
        The evaluation.
    dataset
        Of the training.
    hashes
        Of the run's weights as they are now.
    count
        Evaluations on the page, which share the room for pictures.

    Returns
    -------
    Part
    """
    evaluation, method = one.evaluation, one.method
    searched = Path(evaluation.data)
    folder = searched if searched.is_dir() else dataset.root
    data = dataset.settings
    # An evaluation may have searched other references than the training's, such as map tiles.
    reference = data.model_copy(update={"reference": Path(evaluation.reference)})
    pictures = Pictures(Dataset(reference, folder))
    rows = max(1, min(12, GALLERY_ROWS // count))
    size = evaluation.gallery
    return Part(
        name=one.name,
        anchor=one.anchor,
        data=evaluation.data,
        split=evaluation.split,
        protocol=evaluation.protocol,
        heading_unknown=evaluation.heading == "unknown",
        fov=evaluation.fov,
        folder=folder.absolute().name,
        pictures_from="" if folder == searched else str(folder),
        other_weights=any(
            hashes.get(name, value) != value for name, value in evaluation.checkpoints.items()
        ),
        seen_in_training=evaluation.split in (data.train_split, data.validation_split),
        queries=len(evaluation.queries),
        gallery=size,
        hundredth=max(size // 100, 1),
        misses=sum(rank > 0 for rank in method.ranks),
        bars=[Bar(Label.of(m), m.figures["R@1"], 100 / size) for m in evaluation.methods],
        comparison=compare(evaluation),
        table=tabulate(evaluation),
        by_rank=_by_rank(evaluation),
        by_metres=_by_metres(evaluation),
        shown_method=method_title(method),
        sample=[
            make_card(evaluation, method, index, pictures)
            for index in random_sample(evaluation, rows)
        ],
        failures=[
            make_card(evaluation, method, index, pictures) for index in worst_failures(method, rows)
        ],
        plan=city_plan(evaluation, PLAN_QUERIES // count),
    )


def compare(evaluation: Evaluation) -> str:
    """Say in a sentence what co-retrieval gains over the better branch, query by query."""
    methods = {method.name: method for method in evaluation.methods}
    both = evaluation.methods[-1]
    singles = [methods[name] for name in ("panorama", "bev") if name in methods]
    if not both.name.startswith("both") or not singles:
        return "One branch only: there is nothing to compare."
    single = max(singles, key=lambda m: m.figures["R@1"].value)
    name = "BEV" if single.name == "bev" else "panorama"
    gained = sum(r == 0 < s for r, s in zip(both.ranks, single.ranks, strict=True))
    lost = sum(s == 0 < r for r, s in zip(both.ranks, single.ranks, strict=True))
    change, low, high = paired_difference(gained, lost, len(both.ranks))
    meaning = "a gain" if change > 0 else "a loss"
    if low <= 0 <= high:
        meaning = "the interval holds zero, so these queries do not tell them apart"
    return (
        f"Both branches against the better one alone ({name}): "
        f"{counted(gained, 'query', 'queries')} won, {lost:,} lost, R@1 {change:+.1f} points"
        f" (95\N{NO-BREAK SPACE}% interval {low:+.1f} to {high:+.1f}): {meaning}."
    ).replace("-", "\N{MINUS SIGN}")


def paired_difference(gained: int, lost: int, total: int) -> tuple[float, float, float]:
    """Return a difference in R@1 on the same queries, with its 95 % interval.

    Parameters
    ----------
    gained, lost
        Queries that only the one method, and only the other, finds.
    total
        All queries.

    Returns
    -------
    difference, low, high
        In percentage points; the interval by a bootstrap over queries.
    """
    shares = np.array([gained, lost, total - gained - lost]) / total
    drawn = np.random.default_rng(0).multinomial(total, shares, 4000)
    low, high = np.percentile(100.0 * (drawn[:, 0] - drawn[:, 1]) / total, [2.5, 97.5])
    return 100.0 * (gained - lost) / total, float(low), float(high)


def tabulate(evaluation: Evaluation) -> Table:
    """Tabulate all figures of all methods, and what chance would give."""
    methods = evaluation.methods
    columns = [n for n in (*SHARES, *MEDIANS) if any(n in m.figures for m in methods)]
    best = {
        name: max(m.figures[name].value for m in methods if name in m.figures)
        for name in SHARES
        if name in columns
    }

    def cell(name: str, figure: Estimate | None) -> Cell | None:
        if figure is None:
            return None
        low, value, high = (_number(name, v) for v in (figure.low, figure.value, figure.high))
        return Cell(value, low, high, best.get(name) == figure.value)

    rows = [
        Row(Label.of(m), [cell(name, m.figures.get(name)) for name in columns]) for m in methods
    ]
    by_chance = [chance(name, evaluation.gallery) for name in columns]
    return Table(
        columns,
        rows,
        [_number(n, v) if v is not None else "" for n, v in zip(columns, by_chance, strict=True)],
    )


def chance(name: str, gallery: int) -> float | None:
    """Return what a random order of the gallery gives; None where it depends on the places."""
    first = {"R@1": 1, "R@5": 5, "R@10": 10, "R@1%": max(gallery // 100, 1)}
    if name in first:
        return 100.0 * min(first[name], gallery) / gallery
    return (gallery + 1) / 2 if name == "median rank" else None


def _number(name: str, value: float) -> str:
    if name == "median metres":
        return distance(value)
    if name == "median rank":
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


PERCENT = Axis("per cent of queries", 0.0, 100.0)


def _by_rank(evaluation: Evaluation) -> LineChart:
    """Chart how many queries are found within a rank."""
    size = evaluation.gallery
    limits = np.unique(np.geomspace(1, size, 60).round()).tolist()
    series = [
        Series(m.name, f"{_tone(m)} line", share_within((r + 1.0 for r in m.ranks), limits))
        for m in evaluation.methods
    ]
    series.append(Series("chance", "level", [(k, 100 * k / size) for k in limits]))
    return line_chart("Recall by rank", Axis("tiles looked at", 1.0, size, True), PERCENT, series)


def _by_metres(evaluation: Evaluation) -> LineChart | None:
    """Chart how many queries are found within a distance; None where it is unknown."""
    known = {m.name: [d for d in m.metres if d is not None] for m in evaluation.methods}
    if not all(known.values()):
        return None
    farthest = max(10.0, *(max(values) for values in known.values()))
    limits = np.geomspace(1.0, farthest, 80).tolist()
    series = [
        Series(m.name, f"{_tone(m)} line", share_within(known[m.name], limits))
        for m in evaluation.methods
    ]
    x = Axis("metres from the query to its best match", 1.0, farthest, True)
    return line_chart("Queries by distance of their best match", x, PERCENT, series)


def _tone(method: Method) -> str:
    return TONES.get(method.name, "both")


def city_plan(evaluation: Evaluation, room: int) -> CityPlan | None:
    """Place the queries, at most ``room`` of them, and where each method thought they were."""
    count = len(evaluation.queries)
    located = [i for i in range(count) if evaluation.positions[i] is not None]
    if not located:
        return None
    chosen = located
    if len(located) > room:
        picks = np.random.default_rng(count).permutation(len(located))[:room]
        chosen = [located[k] for k in sorted(picks.tolist())]
    layers = [_layer(evaluation, method, chosen) for method in evaluation.methods]
    tiles = list(evaluation.reference_positions.values())
    step = math.ceil(len(tiles) / PLAN_TILES) or 1
    drawing = plan(
        f"Plan of {counted(count, 'query', 'queries')} and their errors", tiles[::step], layers
    )
    return CityPlan(drawing, count - len(located), len(located), len(chosen))


def _layer(evaluation: Evaluation, method: Method, chosen: Sequence[int]) -> list[Found]:
    layer = []
    for i in chosen:
        here = evaluation.positions[i]
        if here is None:
            continue
        hit, best, metres = method.ranks[i] == 0, method.top[i][0], method.metres[i]
        text = f"{evaluation.queries[i]}: found first"
        if not hit:
            far = f", {distance(metres)} away" if metres is not None else ""
            text = (
                f"{evaluation.queries[i]}: taken for {best}{far};"
                f" the right tile ranks {method.ranks[i] + 1:,}"
            )
        layer.append(Found(here, evaluation.reference_positions.get(best), hit, text))
    return layer
