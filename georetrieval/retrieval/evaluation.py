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

from bevgen import only_writer
from bevgen.terminal import counted
from georetrieval.config import BranchName, DataSettings
from georetrieval.data.dataset import Dataset
from georetrieval.data.positions import distances
from georetrieval.errors import CheckpointError, DataError, SplitError
from georetrieval.models.checkpoints import digest, load_hashed
from georetrieval.retrieval.metrics import summarize
from georetrieval.retrieval.ranking import Ranking, rank_references
from georetrieval.retrieval.results import Evaluation, Method, result_name
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
    run: Run | Path | str,
    dataset: Dataset | None = None,
    split: str = "test",
    *,
    name: str | None = None,
    matched: bool = False,
    seed: int | None = None,
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
        May be other data than the run was trained on, which None takes.
    split
        Name in pairs.csv.
    name
        Of the result in the run; None for one of all that changes its figures, see `result_name`.
    matched
        Search only references that are right for some query (Sample4Geo on University-1652),
        instead of the split's whole gallery (its baseline).
    seed
        Of unknown headings and of the bootstrap; None for the run's.
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
        If checkpoints or data cannot be used, or the run holds another result of that name.
    RefusedError
        If another process is writing a result of that name.
    """
    device = device or torch.device("cpu")
    run = Run.at(run)
    paths = run.checkpoints()
    if not paths:
        raise CheckpointError(f"{run} holds no checkpoints: train first, or name another --run")
    if dataset is None:
        dataset = Dataset(run.read_settings().data)
    if seed is None:
        seed = run.read_settings().seed if run.settings_path.exists() else 0
    branches: Branches = {}
    hashes: dict[BranchName, str] = {}
    for which, path in paths.items():
        branch, settings, hashes[which], _ = load_hashed(path)
        branches[which] = branch, settings

    def load(part: str) -> EmbeddedSplit:
        found = embed_split(dataset, part, branches, hashes, run, seed, device, on_progress)
        return without_distractors(found) if matched else found

    name = name or result_name(_own_data(run), dataset.settings, dataset.root, split, matched)
    with only_writer(run.evaluation(name)):
        _refuse_other(run, name, dataset, split, matched)
        test = load(split)
        _warn_of_training(run, dataset, test.pairs.ids)
        weights: dict[str, float] = {which: float(which == "panorama") for which in branches}
        if len(branches) == 2:
            weights["both"] = 0.5
            validation = _validation_split(dataset.settings, split, load)
            if validation is not None:
                weights["both, weight chosen"] = best_weight(validation)
        methods = [_search(test, method, weight, seed) for method, weight in weights.items()]
        result = _result(dataset, split, test, methods, hashes, matched)
        _keep_older(run, name, result)
        result.save(run.evaluation(name))
    return result


def _result(
    dataset: Dataset,
    split: str,
    test: EmbeddedSplit,
    methods: list[Method],
    hashes: dict[BranchName, str],
    matched: bool,
) -> Evaluation:
    """Put together what an evaluation keeps."""
    columns = test.references.columns
    named = {name for method in methods for best in method.top for name in best}
    ids = test.references.ids
    right = [ids[row] for row in test.pairs.references]
    rows = {name: test.references.row(name) for name in named | set(right)}
    return Evaluation(
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


def _own_data(run: Run) -> DataSettings | None:
    """Return what the run was trained on; None if it does not say, as imported weights may not."""
    try:
        return run.read_settings().data
    except CheckpointError:
        return None


def _warn_of_training(run: Run, dataset: Dataset, queries: list[str]) -> None:
    """Say how many of the queries the run was trained on, as all are where no table splits them."""
    own = _own_data(run)
    if own is None or own.root is None or own.root.absolute() != dataset.root.absolute():
        return
    try:
        trained = dataset.pairs(next(iter(run.checkpoints())), own.train_split).ids
    except SplitError:
        return
    if shared := len(set(trained) & set(queries)):
        log.warning(
            "%s trained on: their recall says little", counted(shared, "query was", "queries were")
        )


def _read(path: Path) -> Evaluation | None:
    """Read a result; None if there is none that this version can read."""
    try:
        return Evaluation.load(path)
    except DataError:
        return None


def _refuse_other(run: Run, name: str, dataset: Dataset, split: str, matched: bool) -> None:
    """Refuse to replace the result of another search."""
    path = run.evaluation(name)
    old = _read(path)
    other = old.differences(dataset.settings, dataset.root, split, matched) if old else []
    if other:
        raise DataError(
            f"{path} is the result of another search ({', '.join(other)}): choose another name"
            " with --name, or delete it"
        )


def _keep_older(run: Run, name: str, result: Evaluation) -> None:
    """Give a result of the same search with other weights or queries a name of its own."""
    old = _read(run.evaluation(name))
    if old is None or old == result:
        return
    made_of = old.checkpoints, old.queries, old.references, old.gallery
    if made_of != (result.checkpoints, result.queries, result.references, result.gallery):
        aside = run.evaluation(f"{name}-weights-{digest(made_of)[:8]}")
        old.save(aside)  # and not renamed: a report that is made just now finds both
        log.warning("the result of other weights or data is kept as %s", aside)


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
