"""Evaluate a run: each branch alone, and co-retrieval with both in one vector.

Queries of a split are searched in its gallery. The weight of co-retrieval is 0.5, as in the paper,
and once more the one that did best on the validation split.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from georetrieval.config import BranchName, DataSettings
from georetrieval.data.dataset import Dataset
from georetrieval.data.positions import distances
from georetrieval.errors import CheckpointError, SplitError
from georetrieval.models.checkpoints import checkpoint_hash, load_branch
from georetrieval.retrieval.metrics import summarize
from georetrieval.retrieval.ranking import Ranking, rank_references
from georetrieval.retrieval.results import Evaluation, Method
from georetrieval.retrieval.splits import Branches, EmbeddedSplit, embed_split, without_distractors
from georetrieval.run import Run

log = logging.getLogger(__name__)

WEIGHTS = np.arange(21) / 20


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
    branches: Branches = {name: load_branch(path)[:2] for name, path in paths.items()}
    hashes: dict[BranchName, str] = {name: checkpoint_hash(path) for name, path in paths.items()}

    def load(which: str) -> EmbeddedSplit:
        found = embed_split(dataset, which, branches, hashes, run, seed, device, on_progress)
        return without_distractors(found) if matched else found

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


def best_weight(split: EmbeddedSplit) -> float:
    """Return the panorama's weight of the best mean reciprocal rank, of equals nearest to 0.5."""
    scores = []
    for weight in WEIGHTS:
        rank = _rank(split, float(weight), top=1).rank
        scores.append((round(float((1 / (rank + 1.0)).mean()), 9), -abs(weight - 0.5), weight))
    return float(max(scores)[2])


def _validation_split(
    data: DataSettings, split: str, load: Callable[[str], EmbeddedSplit]
) -> EmbeddedSplit | None:
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


def _rank(split: EmbeddedSplit, weight: float, top: int) -> Ranking:
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


def _search(split: EmbeddedSplit, name: str, weight: float, seed: int) -> Method:
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
