"""The line of a drive, laid through positions of which some are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from georetrieval.localization import line
from georetrieval.localization.line import fit_line

HOW = {"slack": 2.0, "speed": 20.0, "acceleration": 2.0}


def bend(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Drive 7 m/s around a bend."""
    seconds = np.arange(count) * 0.8
    turn = np.clip((seconds - 4) * 0.3, 0, np.pi / 2)
    steps = 7 * 0.8 * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    return np.cumsum(steps, axis=0), seconds


def dense(truth: np.ndarray, seconds: np.ndarray, weights: np.ndarray) -> tuple:
    """Solve the same by matrices as they stand in a book."""
    count = len(seconds)
    bending = np.zeros((count - 2, count))
    for k in range(count - 2):
        before, after = np.diff(seconds)[k : k + 2]
        walk = np.sqrt((before + after) / 2) * HOW["acceleration"]
        bending[k, k : k + 3] = np.array([1 / before, -1 / before - 1 / after, 1 / after]) / walk
    normal = bending.T @ bending + np.diag(weights / HOW["slack"] ** 2 + 1e-9)
    inverse = np.linalg.inv(normal)
    return inverse @ (weights[:, None] / HOW["slack"] ** 2 * truth), np.sqrt(np.diag(inverse))


def test_it_is_the_solution_of_the_normal_equations(monkeypatch):
    monkeypatch.setattr(line, "LOOSENING", (1e9,))
    monkeypatch.setattr(line, "BLOCK", 7)
    random = np.random.default_rng(3)
    truth, seconds = bend(25)
    seconds = seconds + random.uniform(0, 0.5, 25)
    noisy = truth + random.normal(0, 1, truth.shape)
    chances = random.uniform(0.2, 1, 25)
    found = fit_line(noisy, seconds, chances, **HOW)
    values, metres = dense(noisy, seconds, chances)
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    np.testing.assert_allclose(found.metres, metres, rtol=1e-6)


@given(st.integers(0, 1000))
def test_single_positions_that_are_wrong_do_not_bend_it(seed):
    random = np.random.default_rng(seed)
    truth, seconds = bend(20)
    given = truth + random.normal(0, 0.3, truth.shape)
    wrong = random.choice(np.arange(1, 19), 4, replace=False)
    angle = random.uniform(0, 2 * np.pi, 4)
    far = random.uniform(12, 500, 4)
    given[wrong] += far[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = fit_line(given, seconds, np.full(20, 0.9), **HOW)
    assert set(np.flatnonzero(found.off)) == set(wrong)
    assert np.linalg.norm(found.values - truth, axis=1).max() < 5


def test_the_most_that_can_be_one_drive_win():
    """Eight frames that stand at one wrong place, then twelve along a street."""
    truth, seconds = bend(20)
    given = truth.copy()
    given[:8] = (-32, -241)
    found = fit_line(given, seconds, np.where(np.arange(20) < 8, 0.8, 0.9), **HOW)
    assert found.off.tolist() == [True] * 8 + [False] * 12
    assert np.linalg.norm(found.values - truth, axis=1)[8:].max() < 1
    assert found.metres[0] > 10 > found.metres[7]


def test_frames_of_one_moment_and_a_long_stop_can_be_solved():
    places = np.array([[0.0, 0], [0, 1], [0, 1], [0, 2], [0, 500]])
    found = fit_line(places, np.array([0, 1, 1, 2, 4000.0]), np.full(5, 0.9), **HOW)
    assert not found.off.any()
    assert found.values == pytest.approx(places, abs=1)
