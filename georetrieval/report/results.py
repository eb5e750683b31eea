"""How often the right place is found: figures, comparison, matches, failures and the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from georetrieval.config import BranchName
from georetrieval.data.dataset import Dataset
from georetrieval.report.charts import Axis, Found, Series, line_chart, plan, share_within
from georetrieval.report.gallery import (
    Pictures,
    distance,
    gallery,
    method_title,
    random_sample,
    worst_failures,
)
from georetrieval.retrieval.evaluation import Evaluation, Method
from georetrieval.retrieval.metrics import Estimate

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


def results(titled: Sequence[Titled]) -> str:
    """Compare all methods on all evaluations by R@1, at one glance."""
    if not titled:
        body = '<p class="nothing">No evaluation yet: run <code>georetrieval evaluate</code>.</p>'
        return f'<section id="results"><h2>Results</h2>{body}</section>'
    groups = "".join(_glance(one) for one in titled)
    return (
        '<section id="results"><h2>Results</h2><p class="how"><b>R@1</b>: the share of queries for'
        " which the right tile comes first in the whole gallery. A dot is the figure, its bar the"
        " 95&nbsp;% interval: methods whose bars overlap widely may well be equally good. The"
        f' dashed line is chance.</p><div class="glance">{groups}</div></section>'
    )


def _glance(one: Titled) -> str:
    evaluation = one.evaluation
    rows = "".join(
        f'<div class="row {TONES.get(m.name, "both")}"><span>{_method_name(m)}</span>'
        f"{_track(m.figures['R@1'], 100 / evaluation.gallery)}"
        f"<b>{m.figures['R@1'].value:.1f} %</b></div>"
        for m in evaluation.methods
    )
    return (
        f'<div class="group"><h3><a href="#{one.anchor}">{escape(one.name)}</a><small>'
        f"{len(evaluation.queries):,} queries, {evaluation.gallery:,} tiles</small></h3>{rows}"
        f'<p class="verdict-line">{comparison(evaluation)}</p></div>'
    )


def _track(figure: Estimate, chance: float) -> str:
    """Draw a figure in per cent with its interval on a line from 0 to 100."""
    return (
        f'<span class="track" title="95&nbsp;% interval {figure.low:.1f} to {figure.high:.1f}">'
        f'<i class="chance" style="left:{chance:.2f}%"></i>'
        f'<i class="bar" style="left:{figure.low:.2f}%;width:{figure.high - figure.low:.2f}%"></i>'
        f'<i class="point" style="left:{figure.value:.2f}%"></i></span>'
    )


def _method_name(method: Method) -> str:
    chosen = method.name == "both, weight chosen"
    return method_title(method) + (
        f" <small>panorama {method.weight:.2f}</small>" if chosen else ""
    )


def comparison(evaluation: Evaluation) -> str:
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
        f"Both branches against the better one alone ({name}): {gained:,} queries won,"
        f" {lost:,} lost, R@1 {change:+.1f} points (95&nbsp;% interval {low:+.1f} to {high:+.1f}):"
        f" {meaning}."
    ).replace("-", "&minus;")


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


def details(one: Titled, dataset: Dataset, hashes: dict[BranchName, str], *, count: int) -> str:
    """Write all parts of one evaluation.

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
    str
        An HTML section.
    """
    evaluation, data = one.evaluation, dataset.settings
    folder, warnings = Path(evaluation.data), []
    if not folder.is_dir():
        folder = dataset.root
        warnings.append(
            f"The data folder <code>{escape(evaluation.data)}</code> is gone: pictures are those of"
            f" the same ids in <code>{escape(str(folder))}</code>."
        )
    if any(hashes.get(name, value) != value for name, value in evaluation.checkpoints.items()):
        warnings.append(
            "These figures were made with other weights than the run holds now: evaluate again."
        )
    if evaluation.split in (data.train_split, data.validation_split):
        warnings.append(
            "The model was trained or chosen on a split of this name: expect less of other places."
        )
    alerts = "".join(f'<p class="alert">{text}</p>' for text in warnings)
    rows = max(1, min(12, GALLERY_ROWS // count))
    # An evaluation may have searched other references than the training's, such as map tiles.
    searched = data.model_copy(update={"reference": Path(evaluation.reference)})
    pictures = Pictures(Dataset(searched, folder))
    return (
        f'<section id="{one.anchor}" class="evaluation"><p class="kind">Evaluation</p>'
        f"<h2>{escape(one.name)}</h2>{alerts}{_explanation(evaluation, folder)}"
        f"{table(evaluation)}{depth(evaluation)}{matches(one, pictures, rows)}"
        f"{city_plan(evaluation, one.anchor, PLAN_QUERIES // count)}</section>"
    )


def _explanation(evaluation: Evaluation, folder: Path) -> str:
    size = evaluation.gallery
    posed = f" Protocol: {escape(evaluation.protocol)}."
    if evaluation.heading == "unknown":
        posed += " Each query was turned by a random angle before the search"
        posed += "; pictures show it unturned."
    if evaluation.fov < 360:
        posed += f" Queries showed {evaluation.fov:g} degrees; pictures show them whole."
    return (
        f'<p class="how">{len(evaluation.queries):,} queries of split'
        f" <code>{escape(evaluation.split)}</code> in <code>{escape(folder.absolute().name)}</code>"
        f", each searched among {size:,} tiles. <b>R@k</b> is the share, in per cent, of queries"
        " whose right tile is among the first <i>k</i>; for <b>R@1%</b> that is the first"
        f" hundredth of the gallery, here {max(size // 100, 1):,}. <b>AP</b> is the mean"
        " average precision. The <b>hit rate</b> is R@1 that"
        " forgives tiles which show the place off their centre. The <b>median rank</b> is 1 at"
        " best; the <b>median metres</b> lie between a query and its best match. In small type:"
        f" 95&nbsp;% intervals.{posed}</p>"
    )


def table(evaluation: Evaluation) -> str:
    """Tabulate all figures of all methods, and what chance would give."""
    columns = [
        name
        for name in (*SHARES, *MEDIANS)
        if any(name in method.figures for method in evaluation.methods)
    ]
    best = {
        name: max(m.figures[name].value for m in evaluation.methods if name in m.figures)
        for name in SHARES
        if name in columns
    }
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = ""
    for method in evaluation.methods:
        cells = ""
        for name in columns:
            figure = method.figures.get(name)
            if figure is None:
                cells += f'<td data-name="{name}">&ndash;</td>'
                continue
            top = ' class="best"' if best.get(name) == figure.value else ""
            low, value, high = (_number(name, v) for v in (figure.low, figure.value, figure.high))
            cells += (
                f'<td data-name="{name}"{top}><b>{value}</b><small>{low} to {high}</small></td>'
            )
        tone = TONES.get(method.name, "both")
        rows += (
            f'<tr><th scope="row"><span class="key {tone}"></span>{_method_name(method)}</th>'
            f"{cells}</tr>"
        )
    cells = "".join(
        f'<td data-name="{name}">{_number(name, value) if value is not None else "&ndash;"}</td>'
        for name, value in ((name, chance(name, evaluation.gallery)) for name in columns)
    )
    rows += f'<tr class="by-chance"><th scope="row">chance</th>{cells}</tr>'
    return (
        f'<table><thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
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


def depth(evaluation: Evaluation) -> str:
    """Draw how many queries are found within a rank, and within a distance."""
    size = evaluation.gallery
    limits = np.unique(np.geomspace(1, size, 60).round()).tolist()
    by_rank = [
        Series(m.name, f"{_tone(m)} line", share_within((r + 1.0 for r in m.ranks), limits))
        for m in evaluation.methods
    ]
    by_rank.append(Series("chance", "level", [(k, 100 * k / size) for k in limits]))
    percent = Axis("per cent of queries", 0.0, 100.0)
    charts = _chart_panel(
        "How far down the list?",
        "the right tile is among the first so many of the list; dashed by chance",
        line_chart("Recall by rank", Axis("tiles looked at", 1.0, size, True), percent, by_rank),
    )
    known = {m.name: [d for d in m.metres if d is not None] for m in evaluation.methods}
    if all(known.values()):
        farthest = max(10.0, *(max(values) for values in known.values()))
        limits = np.geomspace(1.0, farthest, 80).tolist()
        by_metres = [
            Series(m.name, f"{_tone(m)} line", share_within(known[m.name], limits))
            for m in evaluation.methods
        ]
        x = Axis("metres from the query to its best match", 1.0, farthest, True)
        charts += _chart_panel(
            "How far off on the map?",
            "the best match lies within so many metres of the query",
            line_chart("Queries by distance of their best match", x, percent, by_metres),
        )
    keys = "".join(
        f'<span><i class="key {_tone(m)}"></i>{_method_name(m)}</span>' for m in evaluation.methods
    )
    return f'<p class="legend">{keys}</p><div class="pair">{charts}</div>'


def _tone(method: Method) -> str:
    return TONES.get(method.name, "both")


def _chart_panel(title: str, said: str, chart: str) -> str:
    return (
        f'<figure class="panel"><figcaption><b>{title}</b><small>{said}</small></figcaption>'
        f"{chart}</figure>"
    )


def matches(one: Titled, pictures: Pictures, rows: int) -> str:
    """Show a random sample of queries, and the worst failures."""
    evaluation, method = one.evaluation, one.method
    sample = random_sample(evaluation, rows)
    failed = worst_failures(method, rows)
    misses = sum(rank > 0 for rank in method.ranks)
    worst = (
        f'<p class="how">{misses:,} of {len(method.ranks):,} queries were not found first. Here are'
        " those whose right tile ranks last. Ask of each: could you have told?</p>"
        f"{gallery(evaluation, method, failed, pictures)}"
        if failed
        else '<p class="how">None: every query found its tile first.</p>'
    )
    return (
        f'<h3>Matches</h3><p class="how">{len(sample):,} queries drawn at random, not picked, and'
        f" searched by <b>{method_title(method)}</b>: the five best tiles, best first, with their"
        ' similarity (1 is identical). The right one has a <span class="ok">green frame ✓</span>;'
        " if it is not among the five it stands apart, with its rank.</p>"
        f"{gallery(evaluation, method, sample, pictures)}"
        f'<h3 class="worst">Worst failures</h3>{worst}'
    )


def city_plan(evaluation: Evaluation, anchor: str, room: int) -> str:
    """Draw where the queries are and where each method thought they were."""
    count = len(evaluation.queries)
    located = [i for i in range(count) if evaluation.positions[i] is not None]
    title = '<h3>Plan</h3><p class="how">'
    if not located:
        return f"{title}Positions are not known, so there is no plan.</p>"
    chosen = located
    if len(located) > room:
        picks = np.random.default_rng(count).permutation(len(located))[:room]
        chosen = [located[k] for k in sorted(picks.tolist())]
    layers = [_layer(evaluation, method, chosen) for method in evaluation.methods]
    tiles = list(evaluation.reference_positions.values())
    step = math.ceil(len(tiles) / PLAN_TILES) or 1
    drawing = plan(f"Plan of {count:,} queries and their errors", tiles[::step], layers)
    buttons = "".join(
        f'<button type="button" data-layer="{number}" aria-pressed="'
        f'{"true" if number == len(layers) - 1 else "false"}">{method_title(method)}'
        f"<small>{sum(not f.hit for f in layers[number]):,} missed</small></button>"
        for number, method in enumerate(evaluation.methods)
    )
    left = count - len(located)
    said = f" {left:,} queries without a position are left out." if left else ""
    if len(chosen) < len(located):
        said += f" {len(chosen):,} queries drawn at random, of {len(located):,}."
    return (
        f"{title}Seen from above, north up. Squares are tiles (those that were right or among the"
        ' best five), <span class="ok">dots queries found first</span>,'
        ' <span class="no">rings queries missed</span>, each with a line to where the model'
        f" thought it was. Point at one for its name.{said}</p>"
        f'<figure class="panel city"><div class="switch" id="{anchor}-plan">{buttons}</div>'
        f"{drawing}</figure>"
    )


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
