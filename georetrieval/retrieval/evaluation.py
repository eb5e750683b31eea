"""Evaluate a run: each branch alone, and co-retrieval with both in one vector.

Queries of a split are searched in its gallery. The weight of co-retrieval is 0.5, as in the paper,
and once more the one that did best on the validation split.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bevgen import ShardSet
from georetrieval.config import BranchName, DataSettings, EncoderSettings
from georetrieval.data.dataset import Dataset
from georetrieval.data.loading import Pairs
from georetrieval.errors import CheckpointError, DataError, SplitError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import checkpoint_hash, digest, load_branch
from georetrieval.retrieval.embedding import Embeddings, embed_rows
from georetrieval.retrieval.metrics import Estimate, Ranking, distances, rank_references, summarize
from georetrieval.run import Run
from georetrieval.transforms.orientation import unknown_headings

log = logging.getLogger(__name__)

WEIGHTS = np.arange(21) / 20
_Branches = dict[BranchName, tuple[Branch, EncoderSettings]]


@dataclass(frozen=True, slots=True)
class Method:
    """Result of one way to search.

    Attributes
    ----------
    name
        ``panorama``, ``bev``, ``both``, or ``both, weight chosen``.
    weight
        Of the panorama's similarity, 0 to 1.
    figures
        See `georetrieval.retrieval.metrics.summarize`.
    ranks : list of int
        Of the right reference for each query, 0 is a hit.
    top : list of list of str
        Ids of the best matches of each query.
    scores
        Their similarities.
    metres : list of float
        From each query to its best match, None where unknown.
    """

    name: str
    weight: float
    figures: dict[str, Estimate]
    ranks: list[int]
    top: list[list[str]]
    scores: list[list[float]]
    metres: list[float | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All methods on one split.

    Attributes
    ----------
    data, reference, split, heading
        What was searched: folder, shards of the references, split; whether orientation was known.
    gallery
        References searched.
    queries, references : list of str
        Ids, and the id of the right reference, the first of several.
    positions, reference_positions : list of (latitude, longitude)
        None where unknown.
    checkpoints
        Hash of each branch's weights.
    methods
        Results.
    fov
        Degrees that each query shows, 360 for all around.
    matched
        Whether references that belong to no query were left out of the gallery.
    others : list of list of str
        Ids of each query's further right references; an empty list where no query has any.
    """

    data: str
    reference: str
    split: str
    heading: str
    gallery: int
    queries: list[str]
    references: list[str]
    positions: list[tuple[float, float] | None]
    reference_positions: dict[str, tuple[float, float]]
    checkpoints: dict[BranchName, str]
    methods: list[Method]
    fov: float = 360.0
    matched: bool = False
    others: list[list[str]] = field(default_factory=list)

    @property
    def protocol(self) -> str:
        """How the queries were posed and what they were searched among, in words."""
        parts = [f"heading {self.heading}"]
        if self.fov < 360:
            parts.append(f"field of view {self.fov:g}°")
        if self.matched:
            parts.append("no distractors")
        return ", ".join(parts)

    def right(self, index: int) -> set[str]:
        """Return the ids of all right references of a query."""
        return {self.references[index], *(self.others[index] if self.others else ())}

    @property
    def name(self) -> str:
        """The split and the protocol, such as ``test-unknown-fov90``."""
        parts = [
            self.split,
            "unknown" if self.heading == "unknown" else "",
            f"fov{self.fov:g}" if self.fov < 360 else "",
            "matched" if self.matched else "",
        ]
        return "-".join(part for part in parts if part)

    def save(self, path: Path) -> None:
        """Write JSON."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self)), "utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read JSON of `save`."""
        values = json.loads(path.read_text("utf-8"))
        for method in values["methods"]:
            method["figures"] = {k: Estimate(**v) for k, v in method["figures"].items()}
        values["methods"] = [Method(**method) for method in values["methods"]]
        values["positions"] = [place and tuple(place) for place in values["positions"]]
        places = values["reference_positions"]
        values["reference_positions"] = {name: tuple(place) for name, place in places.items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """A split's pairs, and both branches' embeddings of its queries and gallery."""

    pairs: Pairs
    positive: NDArray[np.int64]
    others: list[NDArray[np.int64]] | None
    semi: list[NDArray[np.int64]] | None
    queries: dict[str, Tensor]
    gallery: dict[str, Tensor]
    references: ShardSet


def fuse(panorama: Tensor, bev: Tensor, weight: float) -> Tensor:
    """Join two branches' unit vectors into one, so that one search serves both.

    The dot product of two such vectors is ``weight`` times the panorama branch's similarity plus
    ``1 - weight`` times the BEV branch's (co-retrieval; the paper takes 0.5).

    Parameters
    ----------
    panorama : (N, D) float
    bev : (N, E) float
    weight
        0 to 1.

    Returns
    -------
    (N, D + E) float, of length 1
    """
    return torch.cat([panorama * weight**0.5, bev * (1 - weight) ** 0.5], dim=1)


def evaluate(
    run: Run | Path,
    dataset: Dataset,
    split: str,
    *,
    name: str | None = None,
    matched: bool = False,
    seed: int = 0,
    device: torch.device | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Evaluation:
    """Evaluate a run's checkpoints on one split, and keep the result in the run.

    Parameters
    ----------
    run
        It holds weights of one branch or both. Embeddings are kept in it, and used again for the
        same weights and data.
    dataset
        May be other data than the run was trained on.
    split
        Name in pairs.csv.
    name
        Of the result in the run; None for `Evaluation.name`.
    matched
        Search only references that are right for some query (Sample4Geo on University-1652),
        instead of the split's whole gallery (its baseline).
    seed
        Of unknown headings and of the bootstrap.
    device
        Where to embed.
    on_progress
        Hears what is embedded, how many are done, of how many.

    Returns
    -------
    Evaluation

    Raises
    ------
    GeoretrievalError
        If checkpoints or data cannot be used.
    """
    device = device or torch.device("cpu")
    run = Run.at(run)
    paths = run.checkpoints()
    if not paths:
        raise CheckpointError(f"{run} holds no checkpoints: train first, or name another --run")
    branches: _Branches = {name: load_branch(path)[:2] for name, path in paths.items()}
    hashes: dict[BranchName, str] = {name: checkpoint_hash(path) for name, path in paths.items()}

    def load(which: str) -> _Split:
        found = _embed_split(dataset, which, branches, hashes, run, seed, device, on_progress)
        return _without_distractors(found) if matched else found

    test = load(split)
    weights: dict[str, float] = {name: float(name == "panorama") for name in branches}
    if len(branches) == 2:
        weights["both"] = 0.5
        validation = _validation_split(dataset.settings, split, load)
        if validation is not None:
            weights["both, weight chosen"] = best_weight(validation)
    methods = [_search(test, name, weight, seed) for name, weight in weights.items()]
    columns = test.references.columns
    named = {name for method in methods for best in method.top for name in best}
    ids = test.references.ids
    right = [ids[row] for row in test.pairs.references]
    rows = {name: test.references.row(name) for name in named | set(right)}
    result = Evaluation(
        data=str(dataset.root),
        reference=str(dataset.settings.reference),
        split=split,
        heading=dataset.settings.heading,
        gallery=len(test.pairs.gallery),
        queries=test.pairs.ids,
        references=right,
        positions=[_position(*place) for place in test.pairs.positions],
        reference_positions={
            name: place
            for name, row in rows.items()
            if (place := _position(columns["latitude"][row], columns["longitude"][row]))
        },
        checkpoints=hashes,
        methods=methods,
        fov=dataset.settings.fov,
        matched=matched,
        others=[[ids[row] for row in own] for own in test.pairs.others] if test.others else [],
    )
    result.save(run.evaluation(name or result.name))
    return result


def best_weight(split: _Split) -> float:
    """Return the panorama's weight of the best mean reciprocal rank, of equals nearest to 0.5."""
    scores = []
    for weight in WEIGHTS:
        rank = _rank(split, float(weight), top=1).rank
        scores.append((round(float((1 / (rank + 1.0)).mean()), 9), -abs(weight - 0.5), weight))
    return float(max(scores)[2])


def _validation_split(
    data: DataSettings, split: str, load: Callable[[str], _Split]
) -> _Split | None:
    """Return the data to choose the weight on; none where it would be the data searched."""
    if data.pairs is None or split == data.validation_split:
        return None
    try:
        return load(data.validation_split)
    except SplitError as error:
        log.info("%s: co-retrieval keeps the weight 0.5", error)
        return None


def _position(latitude: float, longitude: float) -> tuple[float, float] | None:
    return None if np.isnan(latitude + longitude) else (float(latitude), float(longitude))


def _embed_split(
    dataset: Dataset,
    split: str,
    branches: _Branches,
    hashes: dict[BranchName, str],
    run: Run,
    seed: int,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
) -> _Split:
    data, references = dataset.settings, dataset.shards("reference")
    joined: dict[BranchName, Pairs] = {name: dataset.pairs(name, split) for name in branches}
    ids = _common_ids(dataset, joined)
    joined = {name: own.only(ids) for name, own in joined.items()}
    pairs = next(iter(joined.values()))
    unknown = data.heading == "unknown"
    degrees = unknown_headings(len(pairs), seed) if unknown else None
    turned = f"-unknown{seed}" if unknown else ""
    turned += f"-fov{data.fov:g}" if data.fov < 360 else ""
    queries: dict[str, Tensor] = {}
    gallery: dict[str, Tensor] = {}
    for name, (branch, encoder) in branches.items():
        file = quote(split, safe="")
        query = _View(
            f"{split} {name} query",
            run.embeddings(f"{name}-query-{file}{turned}"),
            dataset.shards(name),
            joined[name].queries,
            encoder.query_size,
            {"kind": name, "degrees": degrees, "fov": data.fov},
        )
        reference = _View(
            f"{split} {name} reference",
            run.embeddings(f"{name}-reference-{file}"),
            references,
            pairs.gallery,
            encoder.reference_size,
            {},
        )
        branch.encoder.to(device)
        for view, found in ((query, queries), (reference, gallery)):
            found[name] = _embed_once(view, branch, hashes[name], device, on_progress)
    return _placed(pairs, queries, gallery, references)


def _placed(
    pairs: Pairs, queries: dict[str, Tensor], gallery: dict[str, Tensor], references: ShardSet
) -> _Split:
    """Say where in the gallery the right and the semi-positive references are."""

    def places(lists: list[NDArray[np.int64]]) -> list[NDArray[np.int64]] | None:
        if not any(len(rows) for rows in lists):
            return None
        return [np.searchsorted(pairs.gallery, rows) for rows in lists]

    positive = np.searchsorted(pairs.gallery, pairs.references)
    others, semi = places(pairs.others), places(pairs.semi)
    return _Split(pairs, positive, others, semi, queries, gallery, references)


def _without_distractors(split: _Split) -> _Split:
    """Leave only references that are right for some query."""
    pairs = split.pairs.matched()
    kept = torch.from_numpy(np.searchsorted(split.pairs.gallery, pairs.gallery))
    gallery = {name: vectors[kept.to(vectors.device)] for name, vectors in split.gallery.items()}
    return _placed(pairs, split.queries, gallery, split.references)


def _common_ids(dataset: Dataset, joined: dict[BranchName, Pairs]) -> list[str]:
    """Return the queries that all branches have, so that the same ones are compared."""
    common = set[str].intersection(*(set(own.ids) for own in joined.values()))
    if not common:
        raise DataError(f"{' and '.join(str(dataset.path(name)) for name in joined)} share no ids")
    for name, own in joined.items():
        if len(own) > len(common):
            missing = len(own) - len(common)
            log.warning(
                "%d queries of %s are left out: the other view lacks them",
                missing,
                dataset.path(name),
            )
    return [name for name in next(iter(joined.values())).ids if name in common]


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """Rows to embed, under which name, and where their embeddings are kept."""

    title: str
    path: Path
    shards: ShardSet
    rows: NDArray[np.int64]
    size: tuple[int, int] | None
    options: dict[str, Any]


def _embed_once(
    view: _View,
    branch: Branch,
    checkpoint: str,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
) -> Tensor:
    """Embed rows, or take what the same weights made of them before."""
    ids = [view.shards.ids[row] for row in view.rows]
    data = digest(view.shards.plan, view.shards.settings)
    if view.path.exists():
        found = Embeddings.load(view.path)
        if (found.checkpoint, found.data, found.ids) == (checkpoint, data, ids):
            return torch.from_numpy(found.matrix).to(device)
    matrix = embed_rows(
        branch.encoder,
        view.shards,
        view.rows,
        view.size,
        device=device,
        on_progress=lambda done: on_progress(view.title, done, len(ids)),
        **view.options,
    )
    columns = view.shards.columns
    positions = np.stack([columns[c][view.rows] for c in ("latitude", "longitude")], axis=1)
    view.path.parent.mkdir(exist_ok=True)
    Embeddings(ids, matrix.cpu().numpy(), positions, checkpoint, data).save(view.path)
    return matrix


def _rank(split: _Split, weight: float, top: int) -> Ranking:
    def joined(parts: dict[str, Tensor]) -> Tensor:
        if len(parts) == 1:
            return next(iter(parts.values()))
        return fuse(parts["panorama"], parts["bev"], weight)

    return rank_references(
        joined(split.queries),
        joined(split.gallery),
        split.positive,
        split.semi,
        others=split.others,
        top=top,
    )


def _search(split: _Split, name: str, weight: float, seed: int) -> Method:
    ranking = _rank(split, weight, top=5)
    rows = split.pairs.gallery[ranking.top]
    columns = split.references.columns
    places = np.stack([columns[c][rows[:, 0]] for c in ("latitude", "longitude")], axis=1)
    metres = distances(split.pairs.positions, places)
    return Method(
        name=name,
        weight=weight,
        figures=summarize(ranking, metres, seed=seed),
        ranks=ranking.rank.tolist(),
        top=[[split.references.ids[row] for row in best] for best in rows],
        scores=[[round(float(s), 4) for s in best] for best in ranking.scores],
        metres=[None if np.isnan(m) else round(float(m), 2) for m in metres],
    )


def as_table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one row of figures for each method, for printing."""
    return [
        {
            "method": m.name,
            "weight": m.weight,
            "protocol": evaluation.protocol,
            "gallery": evaluation.gallery,
            **{k: str(v) for k, v in m.figures.items()},
        }
        for m in evaluation.methods
    ]
