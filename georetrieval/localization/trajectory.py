"""Frames of a drive located together: what one frame leaves open, its neighbours decide.

A hidden Markov model: the states of a frame are its candidates and "none of them"; between frames
a camera moves no faster, and turns no more, than was said. Forward and backward sums give
each candidate the probability that all frames together allow. Then a line is laid through the
likeliest, along which the camera speeds up and turns no more than usual; a frame that lies off it
is moved there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from bevgen import LocalPlane
from georetrieval.data.positions import distances
from georetrieval.errors import DataError
from georetrieval.localization.line import fit_line
from georetrieval.localization.location import Location

Floats = NDArray[np.float64]

ALIKE = 2.0
"""Frames that follow each other show much the same and err alike: so many count as one."""
VAGUE = 10.0
"""Metres of uncertainty beyond which a frame on the line alone is not found."""


@dataclass(frozen=True, slots=True)
class Motion:
    """What is known of how the camera moves.

    Attributes
    ----------
    speed
        Metres per second at most.
    turning
        Degrees per second at most.
    acceleration
        Metres per second by which the velocity usually changes within a second, in either
        direction (standard deviation).
    slack, loose
        Metres and degrees by which single frames may be off (standard deviations).
    lost
        Probability that a frame's place is among none of its candidates.
    """

    speed: float = 20.0
    turning: float = 60.0
    acceleration: float = 2.0
    slack: float = 2.0
    loose: float = 8.0
    lost: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Where one frame may have been taken, by itself.

    Attributes
    ----------
    poses : (K, 3) float64
        Latitude, longitude and heading of its candidates in degrees; a heading may be NaN.
    chances : (K + 1,) float64
        Of each candidate, and of none of them.
    """

    poses: Floats
    chances: Floats

    @classmethod
    def of(cls, location: Location, motion: Motion) -> Frame:
        """Take what was found of a frame; without a `Confidence` ranks count."""
        found = location.candidates
        poses = [
            (one.latitude, one.longitude, math.nan if one.heading is None else one.heading)
            for one in found
        ]
        given = np.array([one.probability for one in found], np.float64)  # None becomes NaN
        alike = ALIKE
        if np.isnan(given).any():  # ranks say little enough
            given, alike = 1 / (np.arange(len(given)) + 1.0), 1.0
            given /= max(given.sum(), 1e-12)
        chances = given * (1 - motion.lost)
        chances = np.append(chances, max(1 - chances.sum(), motion.lost)) ** (1 / alike)
        return cls(np.array(poses, np.float64).reshape(-1, 3), _scaled(chances))


def advance(state: Floats, before: Frame, after: Frame, gap: float, motion: Motion) -> Floats:
    """Go from what is known of one frame, (K + 1,), to what is then known of the next, (L + 1,)."""
    return _scaled(state @ _moves(before, after, gap, motion) * after.chances)


def smooth(frames: Sequence[Frame], seconds: Sequence[float], motion: Motion) -> list[Floats]:
    """Work out what all frames together say of each: (K + 1,) probabilities.

    Raises
    ------
    ValueError
        If times are not as many as frames, or go backwards.
    """
    times = np.asarray(seconds, np.float64)
    if len(times) != len(frames) or (np.diff(times) < 0).any():
        raise ValueError("a track needs one time for each frame, in order")
    if not frames:
        return []
    gaps = np.diff(times).tolist()
    forward = [frames[0].chances]
    for before, after, gap in zip(frames, frames[1:], gaps, strict=False):
        forward.append(advance(forward[-1], before, after, gap, motion))
    whole, behind = [_scaled(forward[-1])], np.ones_like(forward[-1])
    for k in range(len(frames) - 2, -1, -1):
        move = _moves(frames[k], frames[k + 1], gaps[k], motion)
        behind = _scaled(move @ (behind * frames[k + 1].chances))
        whole.append(_scaled(forward[k] * behind))
    return whole[::-1]


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
        likeliest state is "none of them" is not found. A first candidate that lies off the line of
        the others is moved there: its ``metres`` say how sure that is, its agreement is gone.

    Raises
    ------
    ValueError
        If times are not as many as frames, or go backwards.
    """
    motion = motion or Motion()
    frames = [Frame.of(one, motion) for one in locations]
    found = smooth(frames, seconds, motion)
    weighed = [_weighed(one, chances) for one, chances in zip(locations, found, strict=True)]
    return _on_one_line(weighed, np.asarray(seconds, np.float64), motion)


def in_order(dates: Mapping[str, str | None]) -> tuple[list[str], list[float]]:
    """Put the frames of one drive in order.

    Parameters
    ----------
    dates
        When each was taken, ISO 8601, by its name.

    Returns
    -------
    names
        The earliest first.
    seconds
        Since the first.

    Raises
    ------
    DataError
        If a frame's date or its time of day is unknown.
    """
    times = {}
    for name, date in dates.items():
        if date is None or "T" not in date:
            raise DataError(
                f"{name} does not say at what time it was taken, which a track needs: give"
                " dates such as 2024-05-01T10:22:31 in --poses"
            )
        times[name] = datetime.fromisoformat(date)
    if len({time.tzinfo is None for time in times.values()}) > 1:  # only some say their zone
        times = {name: time.replace(tzinfo=None) for name, time in times.items()}
    names = sorted(times, key=times.__getitem__)
    return names, [(times[name] - times[names[0]]).total_seconds() for name in names]


def _moves(before: Frame, after: Frame, gap: float, motion: Motion) -> Floats:
    """How well each pair of states (K + 1, L + 1) is one movement; rows and columns end in none."""
    here, there = before.poses, after.poses
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


def _scaled(values: Floats) -> Floats:
    return values / max(float(values.sum()), 1e-300)


def _weighed(location: Location, chances: Floats) -> Location:
    order = np.argsort(-chances[:-1], kind="stable")
    candidates = tuple(
        replace(location.candidates[k], probability=float(chances[k])) for k in order
    )
    found = bool(len(order)) and bool(chances[order[0]] >= chances[-1])
    # A set of candidates was promised of the frame alone, in another order.
    return replace(location, candidates=candidates, found=found, prediction_set=None)


def _on_one_line(locations: list[Location], times: Floats, motion: Motion) -> list[Location]:
    """Move the first candidate of frames that lie off the line of the others."""
    there = [k for k, one in enumerate(locations) if one.candidates]
    if len(there) < 3:  # any two lie on a line
        return locations
    first = [locations[k].candidates[0] for k in there]
    plane = LocalPlane(first[0].latitude, first[0].longitude)
    headings = [one.heading for one in first if one.heading is not None]
    known = len(headings) == len(first)
    turns = np.radians(headings if known else [0.0] * len(first))
    east, north = plane.from_geographic(*np.array([(c.latitude, c.longitude) for c in first]).T)
    line = fit_line(
        np.column_stack([east, north, np.cos(turns), np.sin(turns)]),
        times[there],
        np.array([one.probability for one in first], np.float64),
        slack=motion.slack,
        speed=motion.speed,
        acceleration=motion.acceleration,
    )
    latitude, longitude = plane.to_geographic(*line.values[:, :2].T)
    turned = np.degrees(np.arctan2(line.values[:, 3], line.values[:, 2])) % 360
    moved = list(locations)
    for n in np.flatnonzero(line.off).tolist():
        one = moved[there[n]]
        placed = replace(
            one.candidates[0],
            latitude=float(latitude[n]),
            longitude=float(longitude[n]),
            heading=float(turned[n]) if known else None,
            metres=float(line.metres[n]),
            degrees=None,
            agreement=None,
            likeness=None,
        )
        moved[there[n]] = replace(
            one,
            candidates=(placed, *one.candidates[1:]),
            found=bool(line.metres[n] <= VAGUE),
        )
    return moved
