"""Locate the frames of one drive together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevgen import PanoramaError, PanoramaInfo
from georetrieval.data.positions import distances
from georetrieval.localization.locate import CONSIDERED, SAME, Locator, in_threads
from georetrieval.localization.location import Candidate, Location, distinct
from georetrieval.localization.query import open_photo
from georetrieval.localization.search import Asked, Prior, as_candidates, ask
from georetrieval.localization.trajectory import Frame, Motion, advance, in_order, track

SURE = 0.95
"""A frame of which the frames before it say so much is not looked for again."""
HINTS, LIKELY = 3, 0.02
"""So many places of the frame before it, which are at least so likely, say where to look."""


def locate_drive(
    locator: Locator,
    panoramas: Iterable[tuple[Path | str, PanoramaInfo]],
    *,
    prior: Prior | None = None,
    motion: Motion | None = None,
    top: int = 5,
    on_progress: Callable[[float], None] = lambda _: None,
) -> list[Location | tuple[str, PanoramaError]]:
    """Locate the frames of one drive: what one leaves open, its neighbours decide.

    Each is located alone. Then, forth and back along the drive, doubtful frames are looked for
    again near where their neighbour was; `track` decides.

    Parameters
    ----------
    locator
        Where to search.
    panoramas
        Files, each with what is known of it besides its metadata; dates tell their order.
    prior, top
        As in `Locator.locate`.
    motion
        How the camera moves.
    on_progress
        Hears how many frames are done.

    Returns
    -------
    list of Location or (source, error)
        In the order of the files; an error for one that cannot be used.

    Raises
    ------
    DataError
        If a frame does not say at what time it was taken.
    """
    prior, motion = prior or Prior(), motion or Motion()
    among = None if prior.near is None else locator.index.near(*prior.near)
    infos = {str(path): own for path, own in panoramas}

    def asked(source: str) -> Asked:
        return ask(open_photo(source, infos[source]), prior, locator.search)

    def look(source: str) -> _Seen | PanoramaError:
        try:
            one = asked(source)
            vectors = locator.embed(one)  # which draws it, and may find that it is no panorama
        except PanoramaError as error:
            return error
        found = locator.propose(one, vectors, among, CONSIDERED)
        return _Seen(locator.conclude(one, found, CONSIDERED), vectors)

    seen: dict[str, _Seen] = {}
    found: dict[str, Location | tuple[str, PanoramaError]] = {}
    tasks = ((source,) for source in infos)
    for source, answer in zip(infos, in_threads(look, tasks, locator.threads), strict=True):
        if isinstance(answer, PanoramaError):
            found[source] = source, answer
        else:
            seen[source] = answer
        on_progress((len(found) + len(seen)) * 0.8)
    names, seconds = in_order({name: one.location.date for name, one in seen.items()})
    drive = [seen[name] for name in names]

    def again(one: _Seen, hints: Sequence[Candidate]) -> Location:
        frame = asked(one.location.source)
        return _look_near(locator, frame, one, hints, among=among, slack=motion.slack)

    for way, done in ((1, 0.9), (-1, 1.0)):
        drive = _follow(drive[::way], seconds[::way], again, motion)[::way]
        on_progress(len(infos) * done)
    for one in track([one.location for one in drive], seconds, motion):
        found[one.source] = _on_its_tile(locator, replace(one, candidates=one.candidates[:top]))
    return [found[source] for source in infos]


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What is known of a frame, and its vectors (R, D) at the headings that were tried."""

    location: Location
    vectors: NDArray[np.float32]


def _follow(
    drive: Sequence[_Seen],
    seconds: Sequence[float],
    again: Callable[[_Seen, Sequence[Candidate]], Location],
    motion: Motion,
) -> list[_Seen]:
    """Go from frame to frame, and look for each that is doubtful where the one before it says."""
    followed: list[_Seen] = []
    state, before, past = np.empty(0), None, 0.0
    for one, now in zip(drive, seconds, strict=True):
        frame = Frame.of(one.location, motion)
        ahead = frame.chances
        if before is not None:
            gap = abs(now - past)
            ahead = advance(state, before, frame, gap, motion)
            if ahead[:-1].max(initial=0) < SURE:
                order = np.argsort(-state[:-1], kind="stable")[:HINTS]
                behind = followed[-1].location.candidates
                location = again(one, [behind[k] for k in order if state[k] >= LIKELY])
                one = _Seen(location, one.vectors)
                frame = Frame.of(location, motion)
                ahead = advance(state, before, frame, gap, motion)
        followed.append(one)
        state, before, past = ahead, frame, now
    return followed


def _look_near(
    locator: Locator,
    asked: Asked,
    one: _Seen,
    hints: Sequence[Candidate],
    *,
    among: NDArray[np.bool_] | None,
    slack: float,
) -> Location:
    """Lay a frame's BEV over the tiles around some places too, turned as the camera was there."""
    width = locator.index.header.tiles.width
    if locator.alignment is None or width is None:
        return one.location
    tiles: list[Candidate] = []
    for hint in hints:
        near = locator.index.near(hint.latitude, hint.longitude, width / 2)
        near = near if among is None else near & among
        scored = locator.score(asked, one.vectors, near, CONSIDERED)
        turn = {} if asked.heading_known else {"heading": hint.heading}
        tiles += [replace(tile, **turn) for tile in as_candidates(locator.index, scored)]
    if not tiles:
        return one.location
    placed = locator.alignment.align(
        asked.photo, locator.views, tiles, locator.index, known=asked.heading_known
    )
    every = (*one.location.candidates, *placed)
    best_first = locator.conclude(asked, every, len(every)).candidates
    return locator.conclude(asked, distinct(best_first, slack), len(every))


def _on_its_tile(locator: Locator, one: Location) -> Location:
    """Name the tile that shows where a frame was moved to."""
    width = locator.index.header.tiles.width
    if width is None or not one.candidates:
        return one
    best, index = one.candidates[0], locator.index
    here = np.array([(best.latitude, best.longitude)])
    if distances(here, index.positions[[best.row]])[0] <= SAME * width:
        return one
    away = distances(np.broadcast_to(here, index.positions.shape), index.positions)
    row = int(np.where(index.kept, away, np.inf).argmin())
    best = replace(best, id=index.ids[row], row=row)
    return replace(one, candidates=(best, *one.candidates[1:]))
