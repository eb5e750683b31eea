"""The figures of the study of localization, on answers whose figures are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.localization_study import (
    SHARE,
    Figure,
    calibration_error,
    interval,
    lines,
    ratio,
    read_answers,
)

METRE = 1 / 111_195.0  # degrees of latitude


def answer(name: str, north: float, heading: float, p: float, found: bool, size: int) -> dict:
    """Two candidates: one so many metres north of the truth, one at the truth."""
    places = [(48 + north * METRE, heading, p), (48.0, 0.0, 1 - p)]
    return {
        "source": f"photos/{name}.jpg",
        "found": found,
        "prediction_set": size,
        "candidates": [
            {"latitude": latitude, "longitude": 11.0, "heading": turned, "probability": chance}
            for latitude, turned, chance in places
        ],
    }


def test_answers_are_compared_with_the_truth(tmp_path):
    (tmp_path / "poses.csv").write_text(
        "file,heading,latitude,longitude\na.jpg,350,48,11\nb.jpg,0,48,11\nc.jpg,90,48,11\n"
    )
    found = [
        answer("a", 0.5, 5.0, 0.9, True, 1),
        answer("b", 200.0, 1.0, 0.6, True, 2),
        answer("c", 200.0, 90.0, 0.3, False, 0),
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    answers = read_answers(tmp_path / "found.json", tmp_path / "poses.csv")
    assert answers.metres == pytest.approx([0.5, 200, 200], rel=1e-3)
    assert answers.degrees == pytest.approx([15, 1, 0])
    assert answers.right.tolist() == [True, False, False]
    assert answers.accepted.tolist() == [True, True, False]
    assert answers.covered.tolist() == [True, True, False]


def test_probabilities_that_hold_have_no_calibration_error():
    random = np.random.default_rng(0)
    probability = random.uniform(size=20_000)
    right = random.uniform(size=20_000) < probability
    assert calibration_error(np.stack([probability, right], axis=1)) < 0.02
    boast = np.stack([np.full(1000, 0.9), np.arange(1000) % 2], axis=1)
    assert calibration_error(boast) == pytest.approx(0.4, abs=0.01)


def test_intervals_hold_the_mean_and_shrink_with_the_rows():
    found = interval("half", np.tile([0.0, 1.0], 50), SHARE)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.01)
    # 300 of 300 happen by chance in 5 % of all cases where the truth is 99 %: 0.99**300.
    every = interval("all", np.ones(300), SHARE)
    assert (every.low, every.high) == (pytest.approx(0.99), 1)
    assert interval("none", np.zeros(300), SHARE).high == pytest.approx(0.01)
    assert ratio(np.array([[0.5, 1.0], [0.25, 0.5]])) == 2


def test_the_table_is_written_with_units():
    table = list(
        lines([Figure("right", 0.5, 0.25, 1.0, SHARE), Figure("off", 1, 0, 2, "{:.2f} m")])
    )
    assert table[2:] == [
        "| right | 50.0 % | 25.0 % to 100.0 % |",
        "| off | 1.00 m | 0.00 m to 2.00 m |",
    ]
