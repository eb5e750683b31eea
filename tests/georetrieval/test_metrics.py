import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from georetrieval.data.positions import distances
from georetrieval.errors import DataError
from georetrieval.retrieval.metrics import summarize
from georetrieval.retrieval.ranking import Ranking, rank_references


def brute_force(scores, positive, semi):
    """Ranks by counting, one query after another."""
    ranks, hits = [], []
    for row, target in zip(scores, positive, strict=True):
        others = [k for k in range(len(row)) if k != target]
        near = set(semi[len(ranks)].tolist()) if semi is not None else set()
        ranks.append(sum(row[k] >= row[target] for k in others))
        hits.append(sum(row[k] >= row[target] for k in others if k not in near))
    return ranks, hits


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_ranks_equal_brute_force_also_with_ties(data):
    queries = data.draw(st.integers(1, 20))
    references = data.draw(st.integers(1, 25))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    # Small integers: products are exact, and ties are frequent.
    q = random.integers(-1, 2, (queries, 3)).astype(np.float32)
    g = random.integers(-1, 2, (references, 3)).astype(np.float32)
    positive = random.integers(0, references, queries)
    semi = None
    if data.draw(st.booleans()):
        semi = [random.integers(0, references, random.integers(0, 4)) for _ in range(queries)]
    found = rank_references(
        torch.from_numpy(q),
        torch.from_numpy(g),
        positive,
        semi,
        top=4,
        chunk=data.draw(st.integers(1, 30)),
    )
    scores = q @ g.T
    ranks, hits = brute_force(scores, positive, semi)
    assert found.rank.tolist() == ranks
    assert found.rank_hit.tolist() == hits
    best = -np.sort(-scores, axis=1)[:, :4]
    np.testing.assert_array_equal(found.scores, best)
    np.testing.assert_array_equal(np.take_along_axis(scores, found.top, 1), best)
    assert found.gallery == references


def published_precision(row, right):
    """Average precision as University-1652 defines it, over a list in its worst order."""
    order = sorted(range(len(row)), key=lambda k: (-row[k], k in right))
    total, found = 0.0, 0
    for rank, k in enumerate(order):
        if k in right:
            precision = (found + 1) / (rank + 1)
            old = found / rank if rank > 0 else 1.0
            total += (old + precision) / 2 / len(right)
            found += 1
    return total


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_several_right_references_equal_brute_force_also_with_ties(data):
    queries = data.draw(st.integers(1, 12))
    references = data.draw(st.integers(2, 25))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    q = random.integers(-2, 3, (queries, 2)).astype(np.float32)
    g = random.integers(-2, 3, (references, 2)).astype(np.float32)
    drawn = [random.permutation(references) for _ in range(queries)]
    counts = random.integers(1, min(6, references), queries)
    right = [order[:count] for order, count in zip(drawn, counts, strict=True)]
    semi = [order[count : count + 2] for order, count in zip(drawn, counts, strict=True)]
    found = rank_references(
        torch.from_numpy(q),
        torch.from_numpy(g),
        np.array([rows[0] for rows in right]),
        semi if data.draw(st.booleans()) else None,
        others=[rows[1:] for rows in right],
        chunk=data.draw(st.integers(1, 15)),
    )
    for k, row in enumerate(q @ g.T):
        best = row[right[k]].max()
        wrong = [j for j in range(references) if j not in right[k]]
        assert found.rank[k] == sum(row[j] >= best for j in wrong)
        assert found.precision[k] == pytest.approx(
            published_precision(row, set(right[k].tolist())), abs=1e-12
        )


def test_average_precision_by_hand():
    """Right ones at the first, third and fourth place of five."""
    gallery = torch.tensor([[0.9], [0.8], [0.7], [0.6], [0.5]])
    found = rank_references(torch.ones(1, 1), gallery, np.array([2]), others=[np.array([0, 3])])
    expected = ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3
    assert found.precision[0] == pytest.approx(expected)
    assert found.rank[0] == 0
    # All alike: every wrong one comes first.
    alike = torch.ones(5, 1)
    same = rank_references(torch.ones(1, 1), alike, np.array([2]), others=[np.array([0])])
    assert same.rank[0] == 3
    assert same.precision[0] == pytest.approx(((0 + 1 / 4) / 2 + (1 / 4 + 2 / 5) / 2) / 2)


def test_intervals_of_many_different_precisions_are_those_of_their_mean():
    rank = np.arange(4000)
    figure = summarize(ranking(rank, 9000), np.full(4000, math.nan))["AP"]
    values = 100 * np.where(rank == 0, 1, 0.5 / (rank + 1))
    random = np.random.default_rng(0)
    means = [values[random.integers(0, 4000, 4000)].mean() for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert figure.value == pytest.approx(values.mean())
    assert abs(figure.low - low) < 0.15 * (high - low)
    assert abs(figure.high - high) < 0.15 * (high - low)


def test_real_vectors_equal_brute_force_in_float64():
    random = np.random.default_rng(0)
    g = random.normal(size=(700, 48))
    positive = random.integers(0, 700, 300)
    q = g[positive] + random.normal(scale=2.5, size=(300, 48))
    q, g = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, g))
    semi = [random.integers(0, 700, 3) for _ in range(300)]
    ranks, hits = brute_force(q @ g.T, positive, semi)
    found = rank_references(torch.from_numpy(q), torch.from_numpy(g), positive, semi, chunk=77)
    assert found.rank.tolist() == ranks
    assert found.rank_hit.tolist() == hits
    assert 0.05 < (found.rank == 0).mean() < 0.95  # neither trivial nor hopeless


@pytest.mark.parametrize(("references", "dimensions"), [(1000, 96), (777, 1024), (33, 7)])
def test_a_collapsed_model_scores_nothing(references, dimensions):
    same = torch.nn.functional.normalize(torch.ones(1, dimensions) + 0.1 * torch.rand(dimensions))
    queries, gallery = same.repeat(50, 1), same.repeat(references, 1)
    found = rank_references(queries, gallery, np.arange(50) % references)
    assert (found.rank == references - 1).all()
    figures = summarize(found, np.full(50, np.nan))
    assert figures["R@10"].value == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_an_error(value):
    gallery = torch.eye(5)
    queries = torch.eye(5)
    queries[4, 2] = value
    with pytest.raises(DataError, match="not finite"):
        rank_references(queries, gallery, np.arange(5), chunk=2)


def test_scores_are_never_held_for_all_queries():
    calls = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            result = super().__torch_function__(func, types, args, kwargs or {})
            if isinstance(result, torch.Tensor):
                calls.append(result.numel())
            return result

    queries = torch.rand(400, 8).as_subclass(Watched)
    gallery = torch.rand(300, 8)
    found = rank_references(queries, gallery, np.zeros(400, np.int64), chunk=50)
    assert len(found.rank) == 400
    assert max(calls) == 50 * 300


def test_distances_against_known_ones():
    paris, london = [48.8566, 2.3522], [51.5074, -0.1278]
    found = distances(
        np.array([paris, [0, 0], [0, 179.5], [10, 20], [math.nan, 0], [90, 0]]),
        np.array([london, [0, 1], [0, -179.5], [10, 20], [0, 0], [-90, 77]]),
    )
    degree = 2 * math.pi * 6371008.8 / 360
    assert abs(found[0] - 343_556) < 100  # the great circle between the two cities
    np.testing.assert_allclose(found[1:3], degree, rtol=1e-9)
    assert found[3] == 0
    assert math.isnan(found[4])
    np.testing.assert_allclose(found[5], 180 * degree, rtol=1e-9)
    # A metre is still a metre.
    np.testing.assert_allclose(
        distances(np.array([[48.0, 11.0]]), np.array([[48.0 + 1 / degree, 11.0]])), 1, rtol=1e-6
    )


def ranking(rank, gallery, hit=None):
    rank = np.asarray(rank, np.int64)
    empty = np.zeros((len(rank), 1))
    hits = rank if hit is None else np.asarray(hit, np.int64)
    precision = np.where(rank == 0, 1, 0.5 / (rank + 1))
    return Ranking(rank, hits, precision, empty.astype(np.int64), empty.astype(np.float32), gallery)


def test_figures_of_known_ranks():
    rank = [0, 0, 3, 4, 5, 9, 10, 30, 31, 99]
    metres = np.array([0, 0, 10, 20, 30, 40, 50, math.nan, 70, math.nan])
    figures = summarize(ranking(rank, 3000, [0, 0, 0, *rank[3:]]), metres)
    values = {name: figure.value for name, figure in figures.items()}
    assert values == {
        "R@1": 20,
        "R@5": 40,
        "R@10": 60,
        "R@1%": 70,  # the first 30, ranks 0 to 29
        "hit rate": 30,
        "AP": pytest.approx(
            10 * (2 + sum(1 / (2 * (r + 1)) for r in (3, 4, 5, 9, 10, 30, 31, 99)))
        ),
        "median rank": 8,  # between the sixth and the eleventh place
        "median metres": 25,
    }


@pytest.mark.parametrize(("gallery", "expected"), [(40, 20), (100, 20), (199, 20), (200, 40)])
def test_one_per_cent_is_at_least_one(gallery, expected):
    figures = summarize(ranking([0, 1, 2, 3, 4], gallery), np.full(5, math.nan))
    assert figures["R@1%"].value == expected
    assert "median metres" not in figures


@pytest.mark.parametrize("count", [61, 200])
def test_intervals_are_those_of_drawing_queries_again(count):
    random = np.random.default_rng(count)
    rank = random.geometric(0.25, count) - 1
    metres = random.exponential(300, count)
    figures = summarize(ranking(rank, 5000), metres, seed=1)
    picks = random.integers(0, count, (20_000, count))
    expected = {
        "R@1": 100 * (rank < 1)[picks].mean(1),
        "R@5": 100 * (rank < 5)[picks].mean(1),
        "AP": 100 * np.where(rank == 0, 1, 0.5 / (rank + 1))[picks].mean(1),
        "median rank": np.median(rank[picks] + 1.0, axis=1),
        "median metres": np.median(metres[picks], axis=1),
    }
    for name, drawn in expected.items():
        low, high = np.percentile(drawn, [2.5, 97.5])
        width = high - low
        assert abs(figures[name].low - low) <= 0.12 * width, name
        assert abs(figures[name].high - high) <= 0.12 * width, name
        assert figures[name].low <= figures[name].value <= figures[name].high


def test_the_same_seed_gives_the_same_intervals():
    given_ranks = ranking(np.arange(90) % 7, 700)
    metres = np.arange(90.0)
    assert summarize(given_ranks, metres, seed=3) == summarize(given_ranks, metres, seed=3)
    assert summarize(given_ranks, metres, seed=3) != summarize(given_ranks, metres, seed=4)
    assert str(summarize(given_ranks, metres)["R@5"]).startswith("72.2 (")
