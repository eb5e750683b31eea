"""Which query belongs to which references: shards joined by ``pairs.csv``, or by equal ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from bevgen import InputError, ShardSet, read_pairs
from bevgen.tables import respelled, warn_respelled
from bevgen.terminal import counted
from georetrieval.errors import DataError, SplitError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Queries of one split, each with its reference.

    Attributes
    ----------
    ids : list of str
        Of the queries, as the table writes them; without one, as the references' shards do. So
        those of all branches are spelled alike.
    queries : (P,) int64
        Rows in the query shards.
    references : (P,) int64
        Rows in the reference shards: the right one, the first of several.
    others : list of (O_i,) int64
        Rows of the further right ones; empty for most datasets.
    semi : list of (S_i,) int64
        Rows of the references that show the place too, but not as their centre.
    gallery : (R,) int64, ascending
        Rows of the references that the split is searched in.
    positions : (P, 2) float64
        Latitude and longitude in degrees, NaN where unknown.
    """

    ids: list[str]
    queries: NDArray[np.int64]
    references: NDArray[np.int64]
    others: list[NDArray[np.int64]]
    semi: list[NDArray[np.int64]]
    gallery: NDArray[np.int64]
    positions: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, ids: Sequence[str]) -> Pairs:
        """Return the pairs of some queries, in that order; the gallery stays."""
        place = {name: k for k, name in enumerate(self.ids)}
        keep = [place[name] for name in ids]
        return replace(
            self,
            ids=list(ids),
            queries=self.queries[keep],
            references=self.references[keep],
            others=[self.others[k] for k in keep],
            semi=[self.semi[k] for k in keep],
            positions=self.positions[keep],
        )

    def each(self) -> Pairs:
        """Return a pair for each right reference of each query, to train on; the gallery stays."""
        if not any(len(rows) for rows in self.others):
            return self
        counts = [1 + len(rows) for rows in self.others]
        keep = np.repeat(np.arange(len(self)), counts)
        rows = [
            np.r_[first, more] for first, more in zip(self.references, self.others, strict=True)
        ]
        return replace(
            self.only([self.ids[k] for k in keep]),
            references=np.concatenate(rows),
            others=[np.empty(0, np.int64)] * len(keep),
        )

    def matched(self) -> Pairs:
        """Return the same pairs with a gallery of right references only, without distractors."""
        gallery = np.unique(np.concatenate([self.references, *self.others]))
        semi = [rows[np.isin(rows, gallery)] for rows in self.semi]
        return replace(self, gallery=gallery, semi=semi)

    def classes(self) -> NDArray[np.int64]:
        """Return (P,) int64: pairs of one class are no negatives for each other.

        They share a query or a reference, or are joined by a chain of pairs that do.
        """
        if len(np.unique(self.queries)) == len(self.queries):
            return self.references
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        first = int(self.queries.max()) + 1
        ends = self.queries, first + self.references
        size = int(ends[1].max()) + 1
        graph = coo_array((np.ones(len(self)), ends), shape=(size, size))
        return connected_components(graph, directed=False)[1][self.queries].astype(np.int64)


@dataclass(slots=True)
class _Named:
    """What a table says of one split: ids of positives and semi-positives by the query's id."""

    positive: dict[str, list[str]] = field(default_factory=dict)
    semi: dict[str, list[str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)  # references that only other splits name

    def references(self) -> set[str]:
        """Return all references that are named."""
        return self.hidden.union(*self.positive.values(), *self.semi.values())


def join(queries: ShardSet, references: ShardSet, pairs: Path | None, split: str | None) -> Pairs:
    """Join queries to references.

    Parameters
    ----------
    queries, references
        The shards.
    pairs
        ``pairs.csv``, see `bevgen.read_pairs`; None pairs equal ids. A query may have several
        positive references.
    split
        Which rows of ``pairs`` count; None for all. The gallery holds all references but those
        that only other splits name.

    Raises
    ------
    SplitError
        If the file has no pairs of the split.
    DataError
        If the file cannot be used or nothing is joined.
    """
    if pairs is None:
        reference_rows = {name: row for row, name in enumerate(references.ids)}
        query_rows = _rows_as(reference_rows, queries, references.path)
        named = _Named({name: [name] for name in query_rows if name in reference_rows})
        positive = named.positive
    else:
        named = _read(pairs, split)
        query_rows = _rows_as(named.positive, queries, pairs)
        reference_rows = _rows_as(named.references(), references, pairs)
        found = {
            query: [name for name in names if name in reference_rows]
            for query, names in named.positive.items()
            if query in query_rows
        }
        positive = {query: names for query, names in found.items() if names}
        # What the shards lack was skipped when they were made.
        total, kept = (sum(map(len, some.values())) for some in (named.positive, positive))
        if 0 < kept < total:
            log.warning(
                "left out: %d of %s of %s, as %s or %s has no such row",
                *(total - kept, counted(total, "pair"), pairs, queries.path, references.path),
            )
    if not positive:
        raise DataError(_nothing_joined(queries, references, pairs, split, named))

    def rows(names: Sequence[str]) -> NDArray[np.int64]:
        return np.array([reference_rows[n] for n in names if n in reference_rows], np.int64)

    own = np.array([query_rows[name] for name in positive], np.int64)
    targets = [rows(names) for names in positive.values()]
    latitude, longitude = (queries.columns[name][own] for name in ("latitude", "longitude"))
    return Pairs(
        ids=list(positive),
        queries=own,
        references=np.array([right[0] for right in targets], np.int64),
        others=[right[1:] for right in targets],
        semi=[rows(named.semi.get(name, ())) for name in positive],
        gallery=np.sort(rows([name for name in reference_rows if name not in named.hidden])),
        positions=np.stack([latitude, longitude], axis=1),
    )


def _rows_as(names: Iterable[str], shards: ShardSet, where: Path) -> dict[str, int]:
    """Return rows by their ids, whose accented letters are composed as in the names of a file."""
    same = respelled(names, shards.ids)
    warn_respelled(where, len(same), than=shards.path)
    theirs = {own: name for name, own in same.items()}
    return {theirs.get(own, own): row for row, own in enumerate(shards.ids)}


def _read(path: Path, split: str | None) -> _Named:
    named, shown, splits = _Named(), set[str](), set[str]()
    try:
        for pair in read_pairs(path):
            if pair.split is not None:
                splits.add(pair.split)
            if split is not None and pair.split not in (None, split):
                named.hidden.add(pair.reference)
                continue
            shown.add(pair.reference)
            if pair.role == "gallery":
                continue
            by_role = named.semi if pair.role == "semi" else named.positive
            same = by_role.setdefault(pair.query, [])
            if pair.reference not in same:
                same.append(pair.reference)
    except InputError as error:
        raise DataError(str(error)) from error
    named.hidden -= shown
    if split is not None and not named.positive:
        there = ", ".join(sorted(splits)) or "none"
        raise SplitError(f"{path} has no pairs of split {split!r}; its splits: {there}")
    return named


def _nothing_joined(
    queries: ShardSet, references: ShardSet, pairs: Path | None, split: str | None, named: _Named
) -> str:
    """Say why no pair has both its images, with an id of each side."""
    lacking = [f"{shards.path} is empty" for shards in (queries, references) if not len(shards)]
    if lacking:
        return f"nothing to join: {' and '.join(lacking)}"
    theirs = (
        f"{queries.path} has ids like {queries.ids[0]!r} and {references.path} like"
        f" {references.ids[0]!r}"
    )
    if pairs is None:
        return f"no query has the id of a reference: {theirs}. Name a pairs.csv in data.pairs"
    query, (reference, *_) = next(iter(named.positive.items()))
    where = f"{pairs}" + (f", split {split}," if split is not None else "")
    text = f"nothing joins by {where} whose pairs are like {query!r} and {reference!r}: {theirs}"
    ids = {queries: set(queries.ids), references: set(references.ids)}
    for shards, name in ((queries, query), (references, reference)):
        bare = str(PurePosixPath(name).with_suffix(""))
        if name not in ids[shards] and bare in ids[shards]:
            return f"{text}. Ids have no endings: write {bare!r}, not {name!r}"
    return text
