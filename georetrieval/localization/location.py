"""What a search for a place finds, and what may judge or refine it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
    score
        Similarity, at most 1; what candidates are ordered by unless an `Alignment` reorders them.
    branch_scores
        Similarity of each branch at that heading.
    probability
        That this is the right tile, 0 to 1; None without a `Confidence`.
    metres, degrees
        Standard deviation of the position in both directions, and of the heading; None where only
        the tile is known.
    """

    id: str
    row: int
    latitude: float
    longitude: float
    heading: float | None
    score: float
    branch_scores: dict[str, float] = field(default_factory=dict)
    probability: float | None = None
    metres: float | None = None
    degrees: float | None = None


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
    """

    source: str
    candidates: tuple[Candidate, ...]
    found: bool | None = None
    prediction_set: int | None = None
    heading_known: bool = True

    @property
    def best(self) -> Candidate | None:
        """The first candidate; None if nothing was searched."""
        return self.candidates[0] if self.candidates else None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a `Confidence` may go by; all of one panorama.

    Attributes
    ----------
    candidates
        Best first; at least as many as are shown.
    positions : (K, 2) float64
        Latitude and longitude of their tiles' centres.
    rotations : (R,) float64
        Headings that were tried, degrees; one where it was known.
    scores : (R, K) float32
        Joined similarity of each heading and candidate.
    branch_scores
        The same of each branch.
    """

    candidates: tuple[Candidate, ...]
    positions: NDArray[np.float64]
    rotations: NDArray[np.float64]
    scores: NDArray[np.float32]
    branch_scores: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probability for each candidate, whether the place was found, and the prediction set."""

    probabilities: tuple[float, ...]
    found: bool
    prediction_set: int


class Confidence(Protocol):
    """Says how likely an answer is right; fitted on validation queries, kept in the index."""

    def judge(self, evidence: Evidence) -> Verdict:
        """Judge one answer."""
        ...


class Alignment(Protocol):
    """Places the camera inside tiles: refines, judges and reorders candidates."""

    def align(
        self, photo: Photo, views: QueryViews, candidates: Sequence[Candidate], index: Index
    ) -> Sequence[Candidate]:
        """Return the same candidates, in a better order and with better poses."""
        ...
