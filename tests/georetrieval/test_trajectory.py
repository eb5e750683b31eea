"""Frames of a drive: neighbours decide what a frame alone leaves open."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from georetrieval.localization import Candidate, Location, Motion, track
from georetrieval.localization.trajectory import ALIKE

DEGREE = 111_194.9  # metres of latitude on the sphere that distances are measured on


def candidate(name: str, north: float, probability: float, heading: float | None = 0.0):
    return Candidate(
        id=name, row=0, latitude=north / DEGREE, longitude=0.0, heading=heading, searched=heading,
        score=0.0, probability=probability,
    )  # fmt: skip


def frame(k: int, *places: tuple) -> Location:
    return Location(f"{k}.jpg", tuple(candidate(*place) for place in places))


def test_a_street_of_doubtful_frames_becomes_one_sure_track():
    frames = [
        frame(k, ("wrong", 900.0 * (k % 2) - 4000, 0.5), ("right", 10.0 * k, 0.4)) for k in range(8)
    ]
    found = track(frames, [float(k) for k in range(8)])
    assert [one.best.id for one in found] == ["right"] * 8
    assert all(one.best.probability > 0.9 for one in found[1:-1])
    assert all(one.found for one in found)


def test_it_is_what_summing_over_all_paths_gives():
    random = np.random.default_rng(0)
    motion = Motion(speed=10, slack=5, lost=0.05)
    frames = []
    for k in range(4):
        chances = random.dirichlet(np.ones(4))[:3]
        frames.append(
            frame(
                k, *((f"c{i}", float(random.uniform(0, 40)), float(chances[i])) for i in range(3))
            )
        )
    found = track(frames, [0, 1, 2, 3], motion)

    def emission(k: int, state: int) -> float:
        own = [c.probability * (1 - motion.lost) for c in frames[k].candidates]
        return (own[state] if state < 3 else max(1 - sum(own), motion.lost)) ** (1 / ALIKE)

    def move(k: int, a: int, b: int) -> float:
        if 3 in (a, b):
            return motion.lost
        metres = abs(frames[k].candidates[a].latitude - frames[k + 1].candidates[b].latitude)
        return float(np.exp(-0.5 * (max(metres * DEGREE - motion.speed, 0) / motion.slack) ** 2))

    total = np.zeros((4, 4))
    for path in itertools.product(range(4), repeat=4):
        weight = np.prod([emission(k, s) for k, s in enumerate(path)])
        weight *= np.prod([move(k, path[k], path[k + 1]) for k in range(3)])
        for k, state in enumerate(path):
            total[k, state] += weight
    total /= total.sum(axis=1, keepdims=True)
    for k, one in enumerate(found):
        for c in one.candidates:
            assert c.probability == pytest.approx(total[k, int(c.id[1:])], rel=0.01)


def test_a_frame_that_fits_nowhere_is_found_only_where_its_neighbours_are_near():
    frames = [frame(k, ("right", 10.0 * k, 0.8)) for k in range(7)]
    frames[3] = frame(3, ("far", 50_000.0, 0.3))
    found = track(frames, [float(k) for k in range(7)])
    assert [one.found for one in found] == [True] * 7
    assert found[3].best.latitude * DEGREE == pytest.approx(30, abs=0.5)
    found = track(frames, [float(20 * k) for k in range(7)])
    assert [one.found for one in found] == [True] * 3 + [False] + [True] * 3
    assert found[3].best.metres > 30


def test_a_frame_off_the_line_of_the_others_is_moved_there():
    frames = [frame(k, (f"{k}", 10.0 * k, 0.9, 350.0 + 4 * k)) for k in range(9)]
    frames[4] = frame(4, ("4", 55.0, 0.9, 200.0))
    found = track(frames, [float(k) for k in range(9)], Motion(turning=360))
    moved = found[4].best
    assert moved.latitude * DEGREE == pytest.approx(40, abs=0.7)
    assert moved.heading == pytest.approx(6, abs=2)
    assert moved.metres == pytest.approx(1.5, abs=0.7)
    assert moved.agreement is None
    assert found[4].found
    others = [k for k in range(9) if k != 4]
    assert [found[k].best.latitude * DEGREE for k in others] == pytest.approx(
        [10.0 * k for k in others]
    )


def test_a_frame_is_given_no_heading_where_one_of_the_others_has_none():
    frames = [frame(k, (f"{k}", 10.0 * k, 0.9, 350.0 if k else None)) for k in range(9)]
    frames[4] = frame(4, ("4", 55.0, 0.9, 200.0))
    moved = track(frames, [float(k) for k in range(9)], Motion(turning=360))[4].best
    assert moved.latitude * DEGREE == pytest.approx(40, abs=0.7)
    assert moved.heading is None


def test_headings_count_where_they_are_known():
    def turned(k: int, heading: float) -> Location:
        places = (
            candidate("straight", 10.0 * k, 0.45, 0.0),
            candidate("turned", 10.0 * k + 1, 0.5, heading),
        )
        return Location(f"{k}.jpg", places)

    frames = [turned(k, 180.0 * (k % 2)) for k in range(6)]
    found = track(frames, [float(k) for k in range(6)], Motion(turning=20))
    assert [one.best.id for one in found[1:-1:2]] == ["straight"] * 2


def test_times_must_fit():
    with pytest.raises(ValueError, match="one time for each"):
        track([frame(0, ("a", 0.0, 0.5))], [])
    with pytest.raises(ValueError, match="in order"):
        track([frame(k, ("a", 0.0, 0.5)) for k in range(2)], [1.0, 0.0])
    assert track([], []) == []
