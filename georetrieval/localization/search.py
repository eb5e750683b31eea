"""What the encoders say of a photo: which tiles it looks like, and at which heading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevgen import Pose
from georetrieval.errors import SettingsError
from georetrieval.localization.heading import HeadingSearch, refine
from georetrieval.localization.location import Candidate
from georetrieval.localization.query import Photo
from georetrieval.retrieval.index import Index


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known before looking.

    Attributes
    ----------
    heading
        ``"file"``: as the photo's metadata say, unknown where they are silent; ``"unknown"``: to
        be searched for whatever they say; or degrees.
    within
        The true heading is at most so many degrees, 0 to 180, from the known one; it is searched
        for there.
    near
        Latitude, longitude and metres: only tiles within that circle are searched.

    Raises
    ------
    SettingsError, InputError
        If a value is out of range.
    """

    heading: float | str = "file"
    within: float | None = None
    near: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.heading, str):
            Pose(heading=self.heading)  # which refuses what is out of range
        elif self.heading not in ("file", "unknown"):
            raise SettingsError(
                f'heading must be degrees, "file" or "unknown", not {self.heading!r}'
            )
        if self.within is not None and not 0 <= self.within <= 180:
            raise SettingsError(f"within must be 0 to 180 degrees, not {self.within!r}")
        if self.near is not None:
            latitude, longitude, metres = self.near
            if not (abs(latitude) <= 90 and abs(longitude) <= 360 and metres > 0):
                raise SettingsError(
                    "near must be a latitude within +-90, a longitude within +-360 and metres above"
                    f" 0, not {latitude:g} {longitude:g} {metres:g}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A photo, what is known of its heading, and the headings to try."""

    photo: Photo
    known: float | None
    headings: NDArray[np.float64]

    @property
    def heading_known(self) -> bool:
        """Whether the heading was given, and not searched for."""
        return self.known is not None and len(self.headings) == 1

    @property
    def date(self) -> str | None:
        """When it was taken."""
        return self.photo.own.fallback(self.photo.file).date


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Tiles (K,), each at the heading that the encoders prefer, and its scores."""

    rows: NDArray[np.int64]
    headings: NDArray[np.float64]
    scores: NDArray[np.float32]
    branches: dict[str, NDArray[np.float32]]


def ask(photo: Photo, prior: Prior, search: HeadingSearch) -> Asked:
    """Settle which headings of a photo are to be tried."""
    known = photo.heading
    if not isinstance(prior.heading, str):
        known = float(prior.heading)
    elif prior.heading == "unknown":
        known = None
    return Asked(photo, known, search.headings(known, prior.within))


def score_tiles(
    index: Index,
    vectors: NDArray[np.float32],
    headings: NDArray[np.float64],
    search: HeadingSearch,
    *,
    count: int,
    among: NDArray[np.bool_] | None,
    threads: int,
) -> Scored:
    """Score each tile that any heading finds at all headings.

    Parameters
    ----------
    index
        Where to search.
    vectors : (R, D) float32
        Of a photo at each heading.
    headings : (R,) float64
        Degrees.
    search
        How the heading of each tile is chosen.
    count
        How many to keep, by their best scores.
    among : (rows,) bool or None
        Tiles to search in; None for all.
    threads
        At work.
    """
    rows = index.search(vectors, count, among=among, threads=threads).rows
    tiles = np.unique(rows[rows >= 0])
    references = index.vectors(tiles)
    scores = vectors @ references.T
    own, theirs = index.split(vectors), index.split(references)
    branches = {name: own[name] @ theirs[name].T for name in own}
    rotation = search.choose(scores, branches)
    best = scores[rotation, np.arange(len(tiles))]
    order = np.lexsort((tiles, -best))[:count]
    turned = rotation[order]
    refined = [refine(headings, scores[:, k], t) for k, t in zip(order, turned, strict=True)]
    return Scored(
        tiles[order],
        np.array(refined, np.float64),
        scores[turned, order],
        {name: values[turned, order] for name, values in branches.items()},
    )


def as_candidates(index: Index, scored: Scored) -> tuple[Candidate, ...]:
    """Name the tiles and their places."""
    return tuple(
        Candidate(
            id=index.ids[row],
            row=row,
            latitude=float(index.positions[row, 0]),
            longitude=float(index.positions[row, 1]),
            heading=heading,
            searched=heading,
            score=float(scored.scores[k]),
            branch_scores={name: float(values[k]) for name, values in scored.branches.items()},
        )
        for k, (row, heading) in enumerate(
            zip(scored.rows.tolist(), scored.headings.tolist(), strict=True)
        )
    )
