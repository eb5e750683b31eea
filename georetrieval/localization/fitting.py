"""Fit an index's confidence on photos of known places that training did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevgen import PanoramaError, PanoramaInfo
from georetrieval.data.positions import distances
from georetrieval.errors import DataError
from georetrieval.localization.confidence import Trial, features, fit_confidence
from georetrieval.localization.locate import Locator, Prior
from georetrieval.localization.location import Candidate
from georetrieval.localization.query import open_photo

ABSENT = 1.5
"""Tiles within so many tile widths of a photo are taken away where its place is to be absent."""


def fit_index(
    locator: Locator,
    photos: Iterable[tuple[Path, PanoramaInfo]],
    *,
    coverage: float = 0.9,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Search for photos, with and without their own tiles, and store what that teaches.

    Parameters
    ----------
    locator
        Whose index gets the models; with the alignment that will be used.
    photos
        Files with their true latitude, longitude and heading; of places never trained on.
    coverage
        Wanted of the prediction set.
    on_progress
        Hears how many photos are done.

    Returns
    -------
    dict
        What was stored: a model for ``known`` and for ``unknown`` headings, where photos allow.

    Raises
    ------
    DataError
        If the photos do not say where they were taken, or too few of them lie on the index.
    """
    reach = _tile_width(locator)
    trials: dict[str, tuple[list[Trial], list[Trial]]] = {n: ([], []) for n in ("known", "unknown")}
    for done, (path, own) in enumerate(photos, 1):
        try:
            photo = open_photo(path, own)
        except PanoramaError as error:
            raise DataError(f"{path} cannot be fitted on: {error}") from error
        info = own.fallback(photo.file)
        if info.latitude is None or info.longitude is None:
            raise DataError(f"{path} does not say where it was taken: give --poses")
        away = distances(
            np.broadcast_to([info.latitude, info.longitude], locator.index.positions.shape),
            locator.index.positions,
        )
        for name, (present, absent) in trials.items():
            if name == "known" and photo.heading is None:
                continue
            prior = Prior("file" if name == "known" else "unknown")
            if away.min(initial=np.inf) <= reach / 2:
                found = locator.examine(photo, prior)
                present.append(Trial(features(found), _right(found, away, reach)))
            left = locator.examine(photo, prior, among=away > ABSENT * reach)
            absent.append(Trial(features(left), None))
        on_progress(done)
    values = {
        name: fit_confidence(present, absent, coverage=coverage).to_json()
        for name, (present, absent) in trials.items()
        if present or name == "unknown"
    }
    locator.index.store_confidence(values)
    return values


def _right(found: tuple[Candidate, ...], away: NDArray[np.float64], reach: float) -> int | None:
    """Which candidate's tile is the nearest to the truth of all tiles, if it was found."""
    metres = np.array([away[candidate.row] for candidate in found])
    if not len(metres) or metres.min() > min(reach / 2, away.min() + 1e-6):
        return None
    return int(metres.argmin())


def _tile_width(locator: Locator) -> float:
    tiles = locator.index.header.tiles
    if tiles.resolution is None:
        raise DataError(
            f"{locator.index.folder} does not know how wide its tiles are: make them with"
            " `georetrieval tiles`, or store their resolution"
        )
    return tiles.size * tiles.resolution
