"""Frames of a drive located together: what one frame leaves open, its neighbours decide.

A hidden Markov model: the states of a frame are its candidates and "none of them"; between frames
a camera moves no faster, and turns no more, than was said. Forward and backward sums give
each candidate the probability that all frames together allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from georetrieval.data.positions import distances
from georetrieval.errors import DataError
from georetrieval.localization.location import Candidate, Location

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Motion:
    """What is known of how the camera moves.

    Attributes
    ----------
    speed
        Metres per second at most.
    turning
        Degrees per second at most.
    slack, loose
        Metres and degrees by which single frames may be off (standard deviations).
    lost
        Probability that a frame's place is among none of its candidates.
    """

    speed: float = 20.0
    turning: float = 60.0
    slack: float = 2.0
    loose: float = 8.0
    lost: float = 0.05


def track(
    locations: Sequence[Location], seconds: Sequence[float], motion: Motion | None = None
) -> list[Location]:
    """Weigh the candidates of each frame by those of all others.

    Parameters
    ----------
    locations
        Of the frames in order of time, each with its candidates.
    seconds
        When each was taken.
    motion
        How the camera moves.

    Returns
    -------
    list of Location
        The same frames; candidates in the new order with new probabilities. A frame whose
        likeliest state is "none of them" is not found.

    Raises
    ------
    ValueError
        If times are not as many as frames, or go backwards.
    """
    motion = motion or Motion()
    times = np.asarray(seconds, np.float64)
    if len(times) != len(locations) or (np.diff(times) < 0).any():
        raise ValueError("a track needs one time for each frame, in order")
    if not locations:
        return []
    emissions = [_emission(one, motion.lost) for one in locations]
    moves = [
        _moves(before, after, float(gap), motion)
        for before, after, gap in zip(locations, locations[1:], np.diff(times), strict=False)
    ]
    forward, backward = [emissions[0]], [np.ones_like(emissions[-1])]
    for move, emission in zip(moves, emissions[1:], strict=True):
        forward.append(_scaled(forward[-1] @ move * emission))
    for move, emission in zip(moves[::-1], emissions[:0:-1], strict=True):
        backward.append(_scaled(move @ (backward[-1] * emission)))
    return [
        _weighed(one, _scaled(f * b))
        for one, f, b in zip(locations, forward, backward[::-1], strict=True)
    ]


def track_by_date(locations: Sequence[Location], motion: Motion | None = None) -> list[Location]:
    """Weigh the frames of one drive in the order of their dates; see `track`.

    Raises
    ------
    DataError
        If a frame's date or its time of day is unknown.
    """
    times = []
    for one in locations:
        if one.date is None or "T" not in one.date:
            raise DataError(
                f"{one.source} does not say at what time it was taken, which a track needs: give"
                " dates such as 2024-05-01T10:22:31 in --poses"
            )
        times.append(datetime.fromisoformat(one.date))
    if len({time.tzinfo is None for time in times}) > 1:  # only some say their zone
        times = [time.replace(tzinfo=None) for time in times]
    order = sorted(range(len(times)), key=lambda k: times[k])
    seconds = [(times[k] - times[order[0]]).total_seconds() for k in order]
    return track([locations[k] for k in order], seconds, motion)


def _emission(location: Location, lost: float) -> Floats:
    """Probability of each candidate, and of none, by the frame alone."""
    given = [candidate.probability for candidate in location.candidates]
    if any(p is None for p in given):  # without a confidence model: by rank alone
        chances = 1 / (np.arange(len(given)) + 1.0)
        chances *= (1 - lost) / max(chances.sum(), 1e-12)
    else:
        chances = np.array(given, np.float64) * (1 - lost)
    return np.append(chances, max(1 - chances.sum(), lost))


def _moves(before: Location, after: Location, gap: float, motion: Motion) -> Floats:
    """How well each pair of states (K + 1, L + 1) is one movement; rows and columns end in none."""
    here, there = _poses(before.candidates), _poses(after.candidates)
    pairs = np.broadcast_arrays(here[:, None, :2], there[None, :, :2])
    flat = distances(*(side.reshape(-1, 2) for side in pairs))
    metres = flat.reshape(len(here), len(there))
    over = np.maximum(metres - motion.speed * gap, 0) / motion.slack
    turn = np.abs((there[None, :, 2] - here[:, None, 2] + 180) % 360 - 180)
    spun = np.maximum(turn - motion.turning * gap, 0) / motion.loose
    fits = np.exp(-0.5 * (over**2 + np.nan_to_num(spun) ** 2))
    whole = np.full((len(here) + 1, len(there) + 1), motion.lost)
    whole[:-1, :-1] = fits
    return whole


def _poses(candidates: Sequence[Candidate]) -> Floats:
    rows = [
        (c.latitude, c.longitude, np.nan if c.heading is None else c.heading) for c in candidates
    ]
    return np.array(rows, np.float64).reshape(-1, 3)


def _scaled(values: Floats) -> Floats:
    return values / max(float(values.sum()), 1e-300)


def _weighed(location: Location, chances: Floats) -> Location:
    order = np.argsort(-chances[:-1], kind="stable")
    candidates = tuple(
        replace(location.candidates[k], probability=float(chances[k])) for k in order
    )
    found = bool(len(order)) and bool(chances[order[0]] >= chances[-1])
    return replace(location, candidates=candidates, found=found)
