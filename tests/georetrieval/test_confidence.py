"""Probabilities, prediction sets and refusals, on trials drawn from a known law."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from georetrieval.errors import DataError, IndexFileError
from georetrieval.localization import Candidate
from georetrieval.localization.confidence import (
    FEATURES,
    RULE,
    LogitConfidence,
    Trial,
    _quantile,
    features,
    fit_confidence,
)

TRUE = np.array([3.0, 1.0, 2.0, 1.0, -1.0])


def draw(random: np.random.Generator, count: int, *, absent: bool = False) -> list[Trial]:
    """Candidates of which each is right with the probability of the logit model itself."""
    trials = []
    while len(trials) < count:
        values = random.normal(size=(8, len(FEATURES)))
        powers = np.exp(values @ TRUE)
        chances = np.append(powers, math.exp(1.0)) / (powers.sum() + math.exp(1.0))
        right = int(random.choice(9, p=chances))
        if absent:
            trials.append(Trial(values - 1.0, None))
        else:
            trials.append(Trial(values, right if right < 8 else None))
    return trials


def candidates(values: np.ndarray) -> list[Candidate]:
    found = []
    for k, (score, panorama, agreement, likeness, turned) in enumerate(values.tolist()):
        heading = math.degrees(math.acos(1 - min(max(turned, 0), 2)))
        found.append(
            Candidate(
                id=str(k), row=k, latitude=0, longitude=0, heading=heading, searched=0.0,
                score=score, branch_scores={"panorama": panorama}, agreement=agreement,
                likeness=likeness,
            )
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def model() -> LogitConfidence:
    random = np.random.default_rng(0)
    return fit_confidence(draw(random, 1500), draw(random, 400, absent=True))


def judged(model: LogitConfidence, trial: Trial) -> tuple[np.ndarray, int]:
    values = model.utilities(trial.features)
    powers = np.exp(values)
    chances = powers / (powers.sum() + math.exp(model.none))
    return chances, int((chances >= model.kept).sum())


def test_weights_are_those_that_made_the_trials(model):
    found = np.array(model.weights) / np.array(model.scale)
    assert found == pytest.approx(TRUE, abs=0.45)


def test_probabilities_are_calibrated(model):
    fresh = draw(np.random.default_rng(1), 3000)
    first, right = [], []
    for trial in fresh:
        chances, _ = judged(model, trial)
        first.append(chances.max())
        right.append(trial.right == int(chances.argmax()))
    first, right = np.array(first), np.array(right)
    bins = np.clip((first * 10).astype(int), 0, 9)
    error = sum(
        abs(first[bins == k].mean() - right[bins == k].mean()) * (bins == k).mean()
        for k in range(10)
        if (bins == k).any()
    )
    assert error < 0.04


def test_prediction_sets_cover_what_was_promised(model):
    fresh = draw(np.random.default_rng(2), 3000)
    covered = []
    for trial in fresh:
        chances, size = judged(model, trial)
        best = np.argsort(-chances)[:size]
        covered.append(trial.right in best)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


def test_places_that_are_not_there_are_refused(model):
    random = np.random.default_rng(3)
    refused = [
        model.utilities(t.features).max() < model.least for t in draw(random, 500, absent=True)
    ]
    kept = [
        model.utilities(t.features).max() >= model.least
        for t in draw(random, 500)
        if t.right == int(model.utilities(t.features).argmax())
    ]
    assert np.mean(kept) > 0.75
    assert np.mean(refused) > 0.5


def test_a_verdict_orders_by_probability(model):
    random = np.random.default_rng(4)
    given = candidates(np.abs(random.normal(size=(6, 5))))
    verdict = model.judge(given)
    assert sorted(verdict.order) == list(range(6))
    assert list(verdict.probabilities) == sorted(verdict.probabilities, reverse=True)
    assert sum(verdict.probabilities) < 1
    values = model.utilities(features(given))
    assert verdict.order[0] == int(values.argmax())
    assert verdict.found == bool(values.max() >= model.least)


def test_stored_and_read_again(model):
    again = LogitConfidence.from_json(json.loads(json.dumps(model.to_json())))
    assert again == model


@pytest.mark.parametrize(
    "damage", [{"weights": [1.0]}, {"least": "x"}, {"kept": None}, {"rule": RULE - 1}]
)
def test_a_damaged_model_is_refused(model, damage):
    with pytest.raises(IndexFileError, match="georetrieval confidence"):
        LogitConfidence.from_json(model.to_json() | damage)


def test_too_few_photos_are_refused():
    with pytest.raises(DataError, match="too few"):
        fit_confidence(draw(np.random.default_rng(5), 10), [])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_a_prediction_set_misses_no_more_than_was_promised(share):
    """Of n + 1 values drawn alike, the last lies below the k-th of the others k times in n + 1."""
    for n in range(1, 80):
        ranks = np.random.default_rng(n).permutation(n) + 1.0
        k = _quantile(ranks, share)
        assert k / (n + 1) <= share < (k + 1) / (n + 1)
