"""What a search for a place finds, and what may judge or refine it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from georetrieval.data.positions import distances

if TYPE_CHECKING:
    from georetrieval.localization.query import Photo, QueryViews
    from georetrieval.retrieval.index import Index


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place where a panorama may have been taken.

    Attributes
    ----------
    id, row
        Of the tile, and where it is in the index.
    latitude, longitude
        Degrees: the tile's centre, or what an `Alignment` found inside it.
    heading
        Compass direction of the panorama's centre column in degrees: given, or searched for.
    searched
        The heading at which the encoders found it, before any alignment.
    score
        Similarity, at most 1; what candidates are ordered by unless an `Alignment` reorders them.
    branch_scores
        Similarity of each branch at that heading.
    probability
        That this is the right tile, 0 to 1; None without a `Confidence`.
    agreement, likeness
        How well the BEV lies on the tile: by its edges, in standard deviations of chance, and by
        light and dark, -1 to 1; None if not aligned.
    metres, degrees
        Standard deviation of the position in both directions, and of the heading; None where only
        the tile is known.
    """

    id: str
    row: int
    latitude: float
    longitude: float
    heading: float | None
    searched: float | None
    score: float
    branch_scores: dict[str, float] = field(default_factory=dict)
    probability: float | None = None
    agreement: float | None = None
    likeness: float | None = None
    metres: float | None = None
    degrees: float | None = None


def distinct(candidates: Sequence[Candidate], metres: float) -> tuple[Candidate, ...]:
    """Keep those, in their order, that lie farther than ``metres`` from all before them."""
    kept: list[int] = []
    places = np.array([(one.latitude, one.longitude) for one in candidates]).reshape(-1, 2)
    for k, place in enumerate(places):
        others = places[kept]
        if not kept or distances(np.broadcast_to(place, others.shape), others).min() > metres:
            kept.append(k)
    return tuple(candidates[k] for k in kept)


@dataclass(frozen=True, slots=True)
class Location:
    """Answer to one panorama.

    Attributes
    ----------
    source
        The panorama's file, or what it was called.
    candidates
        Best first.
    found
        False if the answer must not be trusted: the place is probably not in the index. None
        without a `Confidence`.
    prediction_set
        How many of the candidates, from the first on, hold the right one with the promised
        probability; None without a `Confidence`.
    heading_known
        Whether the heading was given.
    date
        When the photo was taken, ISO 8601; None where nobody says it.
    """

    source: str
    candidates: tuple[Candidate, ...]
    found: bool | None = None
    prediction_set: int | None = None
    heading_known: bool = True
    date: str | None = None

    @property
    def best(self) -> Candidate | None:
        """The first candidate; None if nothing was searched."""
        return self.candidates[0] if self.candidates else None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of an answer.

    Attributes
    ----------
    order
        Of the candidates, the likeliest first.
    probabilities
        Of each, in that order, that it is the right tile; what is missing to 1 is that none is.
    found
        Whether the first may be trusted.
    prediction_set
        How many, from the first on, hold the right one with the promised probability; 0 where
        even the first is too doubtful.
    """

    order: tuple[int, ...]
    probabilities: tuple[float, ...]
    found: bool
    prediction_set: int


class Confidence(Protocol):
    """Says how likely an answer is right; fitted on validation queries, kept in the index."""

    def judge(self, candidates: Sequence[Candidate]) -> Verdict:
        """Judge the candidates of one photo."""
        ...


class Alignment(Protocol):
    """Places the camera inside tiles: refines, judges and reorders candidates."""

    def align(
        self,
        photo: Photo,
        views: QueryViews,
        candidates: Sequence[Candidate],
        index: Index,
        *,
        known: bool,
    ) -> Sequence[Candidate]:
        """Return the same candidates, in a better order and with better poses.

        ``known`` says whether the heading was given, and only little of it is to be searched.
        """
        ...
