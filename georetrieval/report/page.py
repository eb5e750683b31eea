"""The whole page, its header and its notes.

The page needs no other file and no network: styles, drawings and pictures lie inside it, and a
content security policy keeps it so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import georetrieval
from bevgen import ShardError
from georetrieval.config import BRANCHES, BranchName, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import CheckpointError, DataError, GeoretrievalError
from georetrieval.models.checkpoints import checkpoint_hash
from georetrieval.report.results import Titled, details, results
from georetrieval.report.training import TITLES, training
from georetrieval.retrieval.evaluation import Evaluation
from georetrieval.run import Run

PAPER = "https://arxiv.org/abs/2408.05475"


def write_report(
    run: Run,
    dataset: Dataset,
    evaluations: Sequence[Evaluation],
    out: Path,
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Write the page of a run.

    Parameters
    ----------
    run
        Its settings, figures and checkpoints are told of as far as they are there.
    dataset
        Of the training; pictures are taken from it. An evaluation on other data takes them from
        the folder that it names, while that exists.
    evaluations
        The first one is the headline. There may be none.
    out
        The ``.html`` file.
    names
        What to call the evaluations; by default their split, data and heading.

    Raises
    ------
    GeoretrievalError
        If a checkpoint cannot be read or the file cannot be written.
    """
    titled = title_evaluations(evaluations, names)
    settings = read_settings(run)
    hashes = run_checkpoints(run)
    lines = run.read_metrics()
    sections = [
        header(run, dataset, settings, titled, hashes, lines),
        training(lines, settings),
        results(titled),
        *(details(one, dataset, hashes, count=len(titled)) for one in titled),
        notes(run, titled),
    ]
    page = Template(_file("page.html")).substitute(
        title=escape(f"{run.folder.absolute().name} · georetrieval"),
        style=_file("page.css"),
        script=_file("page.js"),
        body="\n".join(sections),
    )
    part = out.with_name(out.name + ".part")
    try:
        # An id may be the name of a file, and that need not be valid text.
        part.write_text(page, "utf-8", errors="replace")
        part.replace(out)
    except OSError as error:
        raise GeoretrievalError(f"{out} could not be written: {error.strerror or error}") from error


def _file(name: str) -> str:
    return (resources.files("georetrieval.report") / name).read_text("utf-8")


def title_evaluations(
    evaluations: Sequence[Evaluation], names: Sequence[str] | None = None
) -> list[Titled]:
    """Name evaluations: as told, or by split, by data where they differ, and the protocol."""
    if names is None:
        several = len({one.data for one in evaluations}) > 1
        names = [
            (f"{Path(one.data).name}, " if several else "")
            + one.split
            + ("" if one.protocol == "heading known" else f", {one.protocol}")
            for one in evaluations
        ]
    titled = []
    for number, (one, name) in enumerate(zip(evaluations, names, strict=True)):
        before = list(names[:number]).count(name)
        unique = f"{name} ({before + 1})" if before else name
        titled.append(Titled(one, unique, f"evaluation-{number + 1}"))
    return titled


def read_settings(run: Run) -> Settings | None:
    """Read the run's settings; None if there are none that this version understands."""
    try:
        return run.read_settings()
    except (OSError, CheckpointError):
        return None


def run_checkpoints(run: Run) -> dict[BranchName, str]:
    """Return the hash of each branch's weights in a run's folder."""
    return {name: checkpoint_hash(path) for name, path in run.checkpoints().items()}


def header(
    run: Run,
    dataset: Dataset,
    settings: Settings | None,
    titled: Sequence[Titled],
    hashes: dict[BranchName, str],
    lines: Sequence[dict[str, Any]],
) -> str:
    """Say what was trained on what, when, and how well it does."""
    about = f'<p class="about">{escape(settings.about)}</p>' if settings and settings.about else ""
    links = [("training", "Training"), ("results", "Results")]
    links += [(one.anchor, one.name) for one in titled] + [("notes", "Notes")]
    nav = "".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in links)
    place = escape(dataset.root.absolute().name)
    facts = [("Data", f"<code>{place}</code>{_places(dataset, titled)}")]
    facts += _networks(settings) + _times(lines)
    if not hashes and titled:
        hashes = titled[0].evaluation.checkpoints
    if hashes:
        codes = (
            f"<small>{TITLES[name]} <code>{escape(value)}</code></small>"
            for name, value in hashes.items()
        )
        facts.append(("Checkpoints", "".join(codes)))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<header class="top"><p class="kind">georetrieval report</p>'
        f"<h1>{escape(run.folder.absolute().name)}</h1>{about}{_lead(titled)}"
        f'<nav aria-label="Parts of this page">{nav}</nav><dl class="facts">{listed}</dl></header>'
    )


def _lead(titled: Sequence[Titled]) -> str:
    if not titled:
        return '<p class="lead">Not evaluated yet: run <code>georetrieval evaluate</code>.</p>'
    one = titled[0]
    first, size = one.method.figures["R@1"], one.evaluation.gallery
    views = {"panorama": "a street panorama", "bev": "a bird&rsquo;s-eye view made from a panorama"}
    given = views.get(
        one.method.name, "a street panorama and the bird&rsquo;s-eye view made from it"
    )
    return (
        f'<p class="lead">Given {given}, the model looks through <b>{size:,}</b> overhead tiles'
        f" and puts the right one first for <b>{first.value:.1f} %</b> of"
        f" {len(one.evaluation.queries):,} queries. Chance would be {100 / size:.2g} %."
        f' <span class="soft">95&nbsp;% interval {first.low:.1f} to {first.high:.1f};'
        f" evaluation &ldquo;{escape(one.name)}&rdquo;.</span></p>"
    )


def _networks(settings: Settings | None) -> list[tuple[str, str]]:
    facts = []
    for name, branch in settings.branches().items() if settings else ():
        encoder, optim = branch.encoder, branch.optim
        origin = "published weights" if encoder.pretrained else "from random weights"
        if isinstance(encoder.pretrained, str):
            origin = f"weights {escape(encoder.pretrained)}"
        facts.append(
            (
                f"{TITLES[name]} branch",
                f"<code>{escape(encoder.name)}</code><small>{origin}</small>"
                f"<small>{optim.epochs} epochs, {branch.sampling.batch_size} pairs a batch,"
                f" {optim.precision}</small>",
            )
        )
    return facts


def _times(lines: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    times = [line["time"] for line in lines if "time" in line]
    if not times:
        return []
    first, last = (datetime.fromtimestamp(t, UTC) for t in (min(times), max(times)))
    until = f"{last:%H:%M}" if first.date() == last.date() else f"{last.day} {last:%B, %H:%M}"
    date = f"{first.day} {first:%B %Y}<small>{first:%H:%M} to {until} UTC</small>"
    return [("Trained", date)]


def _places(dataset: Dataset, titled: Sequence[Titled]) -> str:
    """Count the queries of each split, and say whether any that was tested was trained on."""
    trained = split_ids(dataset, dataset.settings.train_split)
    validated = split_ids(dataset, dataset.settings.validation_split)
    counts = [
        f"{len(ids):,} queries for {what}"
        for what, ids in (("training", trained), ("validation", validated))
        if ids
    ]
    if titled:
        first = titled[0].evaluation
        counts.append(f"{len(first.queries):,} for &ldquo;{escape(titled[0].name)}&rdquo;")
        if trained and Path(first.data).absolute() == dataset.root.absolute():
            seen = len(set(trained) & set(first.queries))
            counts.append(
                f'<b class="alert">{seen:,} of these were trained on</b>'
                if seen
                else "none of these was trained on"
            )
    return "".join(f"<small>{text}</small>" for text in counts)


def split_ids(dataset: Dataset, split: str) -> list[str]:
    """Return the ids of a split's queries; none if its files are not to be had."""
    try:
        for branch in BRANCHES:
            if dataset.path(branch).exists():
                return dataset.pairs(branch, split).ids
    except (DataError, ShardError):
        pass
    return []


def notes(run: Run, titled: Sequence[Titled]) -> str:
    """Say how the figures were made and what they do not tell, and show all settings."""
    texts = [
        "<b>Ties count against the model.</b> The rank of the right tile is the number of others"
        " that score at least as high, plus one, so that a model that finds everything alike"
        " gets nothing right.",
        "<b>Intervals</b> are bootstraps over queries: they tell how much the figures would vary"
        " with other queries of the same kind. They know nothing of another training seed or"
        " another city, and take queries for independent, which neighbours in one street are not.",
        "<b>Validation and test.</b> The curves show the validation split, and the weights kept"
        " are those of its best epoch (by mean reciprocal rank). The weight of co-retrieval called"
        " &ldquo;chosen&rdquo; was chosen there too, never on the test split.",
        "<b>The gallery</b> of a split holds all its references and those that no split names."
        " A larger gallery makes every figure worse: compare only equal galleries.",
        "<b>Co-retrieval</b> searches with both branches in one vector, whose similarity is the"
        " weighted mean of the two. It follows <i>Cross-view image geo-localization with"
        f' Panorama-BEV Co-Retrieval Network</i>, ECCV 2024 (<a href="{PAPER}">{PAPER}</a>).',
    ]
    items = "".join(f"<li>{text}</li>" for text in texts)
    path = run.settings_path
    shown = ""
    if path.exists():
        text = path.read_text("utf-8", errors="replace")
        with suppress(json.JSONDecodeError):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        shown = _folded("All settings of the run", f"<pre>{escape(text)}</pre>")
    sources = "".join(
        f"<li>{escape(one.name)}: data <code>{escape(one.evaluation.data)}</code>, split"
        f" <code>{escape(one.evaluation.split)}</code>, {escape(one.evaluation.protocol)},"
        f" {len(one.evaluation.queries):,} queries, {one.evaluation.gallery:,} references</li>"
        for one in titled
    )
    listed = _folded("What was evaluated", f"<ul>{sources}</ul>") if titled else ""
    return (
        f'<section id="notes"><h2>Notes</h2><ul class="notes">{items}</ul>{listed}{shown}'
        f"<footer>Written by georetrieval {georetrieval.__version__} on"
        f" {datetime.now(UTC):%Y-%m-%d}. This page is one file and loads nothing.</footer>"
        "</section>"
    )


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"
