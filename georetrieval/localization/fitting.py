"""Fit an index's confidence on photos of known places that training did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bevgen import PanoramaError, PanoramaInfo
from georetrieval.data.positions import distances
from georetrieval.errors import DataError
from georetrieval.localization.confidence import Trial, features, fit_confidence
from georetrieval.localization.locate import SAME, Locator, in_threads
from georetrieval.localization.location import Candidate
from georetrieval.localization.query import open_photo
from georetrieval.localization.search import Prior

ABSENT = 1.5
"""Tiles within so many tile widths of a photo are taken away where its place is to be absent."""


def fit_index(
    locator: Locator,
    photos: Iterable[tuple[Path, PanoramaInfo]],
    *,
    coverage: float = 0.9,
    on_skip: Callable[[Path, str], None] = lambda *_: None,
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
    on_skip
        Hears which photo cannot be used, and why.
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
    width = _tile_width(locator)
    trials: dict[str, tuple[list[Trial], list[Trial]]] = {n: ([], []) for n in ("known", "unknown")}

    def search(
        path: Path, own: PanoramaInfo
    ) -> tuple[Path, dict[str, tuple[Trial | None, Trial]] | PanoramaError]:
        try:
            return path, _searched(locator, path, own, width)
        except PanoramaError as error:
            return path, error

    for done, (path, found) in enumerate(in_threads(search, photos, locator.threads), 1):
        if isinstance(found, PanoramaError):
            on_skip(path, str(found))
            found = {}
        for name, (present, absent) in found.items():
            trials[name][1].append(absent)
            if present is not None:
                trials[name][0].append(present)
        on_progress(done)
    values = {
        name: fit_confidence(present, absent, coverage=coverage).to_json()
        for name, (present, absent) in trials.items()
        if present or name == "unknown"
    }
    locator.index.store_confidence(values)
    return values


def _searched(
    locator: Locator, path: Path, own: PanoramaInfo, width: float
) -> dict[str, tuple[Trial | None, Trial]]:
    """Search for a photo with known and unknown heading, where its place is and where it is not."""
    photo = open_photo(path, own)
    info = own.fallback(photo.file)
    if info.latitude is None or info.longitude is None:
        raise DataError(f"{path} does not say where it was taken: give --poses")
    place, positions = (info.latitude, info.longitude), locator.index.positions
    away = distances(np.broadcast_to(place, positions.shape), positions)
    nearest = float(away.min(initial=np.inf))
    trials: dict[str, tuple[Trial | None, Trial]] = {}
    for name in ("known", "unknown"):
        if name == "known" and photo.heading is None:
            continue
        prior = Prior("file" if name == "known" else "unknown")
        found, left = locator.examine(photo, prior, among=(None, away > ABSENT * width))
        present = None
        if nearest <= width / 2:
            present = Trial(features(found), right_one(found, place, max(SAME * width, nearest)))
        trials[name] = present, Trial(features(left), None)
    return trials


def right_one(found: Sequence[Candidate], place: tuple[float, float], metres: float) -> int | None:
    """Return which candidate is the nearest to a place, at most so far away; None if none is."""
    there = np.array([(one.latitude, one.longitude) for one in found]).reshape(-1, 2)
    away = distances(np.broadcast_to(place, there.shape), there)
    return int(away.argmin()) if away.min(initial=np.inf) <= metres + 1e-6 else None


def _tile_width(locator: Locator) -> float:
    width = locator.index.header.tiles.width
    if width is None:
        raise DataError(
            f"{locator.index.folder} does not know how wide its tiles are: build it with"
            " --resolution"
        )
    return width
