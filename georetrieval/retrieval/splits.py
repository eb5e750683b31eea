"""A split as vectors: both branches' embeddings of its queries and gallery, made once and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bevgen import ShardSet
from bevgen.terminal import counted
from georetrieval.config import BranchName, EncoderSettings
from georetrieval.data.dataset import Dataset
from georetrieval.data.pairs import Pairs
from georetrieval.errors import DataError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import digest
from georetrieval.retrieval.embedding import Embeddings, embed_rows
from georetrieval.run import Run
from georetrieval.transforms.orientation import unknown_headings

log = logging.getLogger(__name__)

Branches = dict[BranchName, tuple[Branch, EncoderSettings]]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedSplit:
    """A split's pairs, and both branches' embeddings of its queries and gallery."""

    pairs: Pairs
    positive: NDArray[np.int64]
    others: list[NDArray[np.int64]] | None
    semi: list[NDArray[np.int64]] | None
    queries: dict[str, Tensor]
    gallery: dict[str, Tensor]
    references: ShardSet


def embed_split(
    dataset: Dataset,
    split: str,
    branches: Branches,
    hashes: dict[BranchName, str],
    run: Run,
    seed: int,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
) -> EmbeddedSplit:
    """Embed a split's queries and gallery by each branch.

    Parameters
    ----------
    dataset, split
        What to embed, and how the queries are posed.
    branches, hashes
        By which weights.
    run
        Embeddings are kept in it, and used again for the same weights and data.
    seed
        Of unknown headings.
    device, on_progress
        See `georetrieval.retrieval.evaluation.evaluate`.

    Raises
    ------
    DataError
        If the branches share no queries.
    """
    data, references = dataset.settings, dataset.shards("reference")
    joined: dict[BranchName, Pairs] = {name: dataset.pairs(name, split) for name in branches}
    ids = _common_ids(dataset, joined)
    joined = {name: own.only(ids) for name, own in joined.items()}
    pairs = next(iter(joined.values()))
    unknown = data.heading == "unknown"
    degrees = unknown_headings(len(pairs), seed) if unknown else None
    posed = f"-unknown{seed}" if unknown else ""
    posed += f"-fov{data.fov:g}" if data.fov < 360 else ""
    queries: dict[str, Tensor] = {}
    gallery: dict[str, Tensor] = {}
    for name, (branch, encoder) in branches.items():
        query = _Rows(
            f"{split} {name} query",
            run.embeddings(f"{name}-query-{split}{posed}"),
            dataset.shards(name),
            joined[name].queries,
            encoder.query_size,
            {"kind": name, "degrees": degrees, "fov": data.fov},
        )
        reference = _Rows(
            f"{split} {name} reference",
            run.embeddings(f"{name}-reference-{split}"),
            references,
            pairs.gallery,
            encoder.reference_size,
            {},
        )
        branch.encoder.to(device)
        for rows, found in ((query, queries), (reference, gallery)):
            found[name] = _embed_once(rows, branch, hashes[name], device, on_progress)
    return _placed(pairs, queries, gallery, references)


def _placed(
    pairs: Pairs, queries: dict[str, Tensor], gallery: dict[str, Tensor], references: ShardSet
) -> EmbeddedSplit:
    """Say where in the gallery the right and the semi-positive references are."""

    def places(lists: list[NDArray[np.int64]]) -> list[NDArray[np.int64]] | None:
        if not any(len(rows) for rows in lists):
            return None
        return [np.searchsorted(pairs.gallery, rows) for rows in lists]

    positive = np.searchsorted(pairs.gallery, pairs.references)
    others, semi = places(pairs.others), places(pairs.semi)
    return EmbeddedSplit(pairs, positive, others, semi, queries, gallery, references)


def without_distractors(split: EmbeddedSplit) -> EmbeddedSplit:
    """Leave in the gallery only references that are right for some query."""
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
            log.warning(
                "left out, as the other branch lacks them: %s of %s",
                counted(len(own) - len(common), "query", "queries"),
                dataset.path(name),
            )
    return [name for name in next(iter(joined.values())).ids if name in common]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows to embed, under which name, and where their embeddings are kept."""

    title: str
    path: Path
    shards: ShardSet
    rows: NDArray[np.int64]
    size: tuple[int, int] | None
    options: dict[str, Any]


def _embed_once(
    rows: _Rows,
    branch: Branch,
    checkpoint: str,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
) -> Tensor:
    """Embed rows, or take what the same weights made of them before."""
    ids = [rows.shards.ids[row] for row in rows.rows]
    pixels = rows.shards.crc32[rows.rows].tolist()  # a plan does not know them
    data = digest(rows.shards.plan, rows.shards.settings, pixels)
    if rows.path.exists():
        found = Embeddings.load(rows.path)
        if (found.checkpoint, found.data, found.ids) == (checkpoint, data, ids):
            return torch.from_numpy(found.matrix).to(device)
    matrix = embed_rows(
        branch.encoder,
        rows.shards,
        rows.rows,
        rows.size,
        device=device,
        on_progress=lambda done: on_progress(rows.title, done, len(ids)),
        **rows.options,
    )
    columns = rows.shards.columns
    positions = np.stack([columns[c][rows.rows] for c in ("latitude", "longitude")], axis=1)
    rows.path.parent.mkdir(exist_ok=True)
    Embeddings(ids, matrix.cpu().numpy(), positions, checkpoint, data).save(rows.path)
    return matrix
