"""The head of the page: what was trained on what, when, and how well it does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bevgen import ShardError
from bevgen.terminal import counted
from georetrieval.config import BRANCHES, BranchName, Settings
from georetrieval.data.dataset import Dataset
from georetrieval.errors import DataError
from georetrieval.report.results import Titled
from georetrieval.report.training import TITLES
from georetrieval.retrieval.metrics import Estimate
from georetrieval.run import Run


@dataclass(frozen=True, slots=True)
class Lead:
    """The headline: what is given, what is searched, and how often the right tile comes first."""

    given: str
    gallery: int
    queries: int
    recall: Estimate
    chance: str
    evaluation: str


@dataclass(frozen=True, slots=True)
class Network:
    """A branch, its encoder, where the weights came from, and how it was trained."""

    branch: str
    encoder: str
    origin: str
    schedule: str


@dataclass(frozen=True, slots=True)
class Times:
    """When it was trained."""

    date: str
    hours: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The head of the page.

    Attributes
    ----------
    name, about
        Of the run; ``about`` may be empty.
    lead
        None without an evaluation.
    data
        Name of the folder of the shards.
    counts
        Queries of each split, in words.
    trained_on
        How many of the first evaluation's queries were trained on; None where that is unknown.
    networks, trained
        Of the branches, as far as they are known.
    checkpoints : list of (branch, hash)
    """

    name: str
    about: str
    lead: Lead | None
    data: str
    counts: list[str]
    trained_on: int | None
    networks: list[Network]
    trained: Times | None
    checkpoints: list[tuple[str, str]]


def make_overview(
    run: Run,
    dataset: Dataset,
    settings: Settings | None,
    titled: Sequence[Titled],
    hashes: dict[BranchName, str],
    lines: Sequence[dict[str, Any]],
) -> Overview:
    """Gather the head of the page.

    Parameters
    ----------
    run
        The run.
    dataset
        Of the training.
    settings
        Of the run, if known.
    titled
        The evaluations; the first one is the headline.
    hashes
        Of the run's weights.
    lines
        Of `georetrieval.run.Run.read_metrics`.
    """
    trained = split_ids(dataset, dataset.settings.train_split)
    counts = [
        f"{counted(len(ids), 'query', 'queries')} for {what}"
        for what, ids in (
            ("training", trained),
            ("validation", split_ids(dataset, dataset.settings.validation_split)),
        )
        if ids
    ]
    trained_on = None
    if titled:
        first = titled[0].evaluation
        counts.append(f"{len(first.queries):,} for “{titled[0].name}”")
        if trained and Path(first.data).absolute() == dataset.root.absolute():
            trained_on = len(set(trained) & set(first.queries))
        hashes = hashes or first.checkpoints
    return Overview(
        name=run.folder.absolute().name,
        about=settings.about if settings else "",
        lead=_lead(titled[0]) if titled else None,
        data=dataset.root.absolute().name,
        counts=counts,
        trained_on=trained_on,
        networks=_networks(settings, {line["branch"] for line in lines}) if settings else [],
        trained=_times(lines),
        checkpoints=[(TITLES[name], value) for name, value in hashes.items()],
    )


def _lead(one: Titled) -> Lead:
    size = one.evaluation.gallery
    given = {
        "panorama": "a street panorama",
        "bev": "a bird\N{RIGHT SINGLE QUOTATION MARK}s-eye view made from a panorama",
    }
    return Lead(
        given=given.get(
            one.method.name,
            "a street panorama and the bird\N{RIGHT SINGLE QUOTATION MARK}s-eye view made from it",
        ),
        gallery=size,
        queries=len(one.evaluation.queries),
        recall=one.method.figures["R@1"],
        chance=f"{100 / size:.2g}",
        evaluation=one.name,
    )


def _networks(settings: Settings, trained: Collection[str]) -> list[Network]:
    networks = []
    for name, branch in settings.branches().items():
        encoder, optim = branch.encoder, branch.optim
        if name not in trained:  # imported: the settings say nothing of how it was trained
            networks.append(Network(TITLES[name], encoder.name, "weights from elsewhere", ""))
            continue
        origin = "published weights" if encoder.pretrained else "from random weights"
        if isinstance(encoder.pretrained, str):
            origin = f"weights {encoder.pretrained}"
        schedule = (
            f"{optim.epochs} epochs, {branch.sampling.batch_size} pairs a batch, {optim.precision}"
        )
        networks.append(Network(TITLES[name], encoder.name, origin, schedule))
    return networks


def _times(lines: Sequence[dict[str, Any]]) -> Times | None:
    times = [line["time"] for line in lines if "time" in line]
    if not times:
        return None
    first, last = (datetime.fromtimestamp(t, UTC) for t in (min(times), max(times)))
    until = f"{last:%H:%M}" if first.date() == last.date() else f"{last.day} {last:%B, %H:%M}"
    return Times(f"{first.day} {first:%B %Y}", f"{first:%H:%M} to {until} UTC")


def split_ids(dataset: Dataset, split: str) -> list[str]:
    """Return the ids of a split's queries; none if its files are not to be had."""
    try:
        for branch in BRANCHES:
            if dataset.path(branch).exists():
                return dataset.pairs(branch, split).ids
    except (DataError, ShardError):
        pass
    return []
