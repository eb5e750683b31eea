import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from georetrieval.data.neighbours import geographic_neighbours
from georetrieval.training.sampling import plan_batches, similarity_neighbours


def great_circle(a, b):
    """Angle between places in degrees, by the spherical law of cosines."""
    (lat1, lon1), (lat2, lon2) = np.deg2rad(a).T[..., None], np.deg2rad(b).T[:, None]
    cosine = np.sin(lat1) * np.sin(lat2) + np.cos(lat1) * np.cos(lat2) * np.cos(lon1 - lon2)
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize(("places", "count"), [(200, 12), (5, 12), (2, 1), (1, 3)])
def test_geographic_neighbours_equal_brute_force(places, count):
    random = np.random.default_rng(places)
    # All over the globe, the date line and the poles included.
    positions = np.stack(
        [random.uniform(-90, 90, places), random.uniform(-180, 180, places)], axis=1
    )
    positions[: places // 2, 1] = 180 - random.uniform(-3, 3, places // 2)
    found = geographic_neighbours(positions, count)
    angles = great_circle(positions, positions)
    np.fill_diagonal(angles, np.inf)
    expected = np.argsort(angles, axis=1)[:, : min(count, places - 1)]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_a_place_is_not_its_own_neighbour_even_among_duplicates():
    positions = np.array([[48.0, 11.0]] * 5 + [[49.0, 11.0]])
    found = geographic_neighbours(positions, 3)
    assert found.shape == (6, 3)
    assert not (found == np.arange(6)[:, None]).any()
    assert (found[:5] < 5).all()
    assert all(len(set(row)) == 3 for row in found.tolist())


@pytest.mark.parametrize(("pairs", "count", "chunk"), [(150, 20, 32), (4, 9, 3), (1, 2, 8)])
def test_similarity_neighbours_equal_brute_force(pairs, count, chunk):
    random = np.random.default_rng(pairs)
    vectors = random.normal(size=(2, pairs, 16))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    scores = vectors[0] @ vectors[1].T
    np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores, axis=1)[:, : min(count, pairs - 1)]
    queries, references = torch.from_numpy(vectors)
    found = similarity_neighbours(queries, references, count, chunk=chunk)
    np.testing.assert_array_equal(found, expected)


def check(batches, classes, batch_size, multiple):
    size = min(batch_size, len(set(classes.tolist()))) // multiple * multiple
    if size < 2:
        assert batches == []
        return
    assert all(len(batch) == size for batch in batches)
    for batch in batches:
        assert len(set(classes[batch].tolist())) == size  # never two of one class
    counts = np.bincount(np.concatenate(batches), minlength=len(classes))
    assert (counts >= 1).all()  # every pair is used
    # Only as often again as the last batches must be filled up.
    most = np.bincount(np.unique(classes, return_inverse=True)[1]).max()
    assert len(batches) <= max(-(-len(classes) // size) + most, most)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_pair_is_used_and_no_batch_holds_two_of_a_class(data):
    pairs = data.draw(st.integers(1, 60))
    classes = np.array(data.draw(st.lists(st.integers(0, 25), min_size=pairs, max_size=pairs)))
    batch_size = data.draw(st.integers(2, 20))
    multiple = data.draw(st.integers(1, 3))
    take = data.draw(st.integers(1, 8))
    seed = data.draw(st.integers(0, 5))
    near = None
    if data.draw(st.booleans()) and pairs > 1:
        random = np.random.default_rng(seed)
        scores = random.random((pairs, pairs)) + np.eye(pairs)
        near = scores.argsort(axis=1)[:, : data.draw(st.integers(1, pairs - 1))].astype(np.int32)
    plan = {"batch_size": batch_size, "take": take, "seed": seed, "multiple": multiple}
    batches = plan_batches(classes, near, **plan)
    check(batches, classes, batch_size, multiple)
    again = plan_batches(classes, near, **plan)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]


def test_with_distinct_classes_only_the_last_batch_holds_pairs_again():
    batches = plan_batches(np.arange(100), None, batch_size=16, take=4, seed=0)
    assert len(batches) == 7
    used = np.concatenate(batches)
    assert sorted(used[:100].tolist()) == list(range(100))


def test_seeds_differ():
    plans = [plan_batches(np.arange(64), None, batch_size=16, take=4, seed=s) for s in (0, 1)]
    assert np.concatenate(plans[0]).tolist() != np.concatenate(plans[1]).tolist()


def test_a_batch_is_drawn_pairs_followed_by_their_neighbours():
    # Places on a line: neighbours are the next numbers.
    count, take = 1000, 8
    distance = np.abs(np.arange(count)[:, None] - np.arange(count)) + np.eye(count) * 1e9
    near = distance.argsort(axis=1, kind="stable")[:, :16].astype(np.int32)
    first, *_ = plan_batches(np.arange(count), near, batch_size=64, take=take, seed=3)
    drawn, followers = first[0], first[1 : take + 1]
    assert set(near[drawn, : take // 2]) <= set(followers)  # the nearest half, all of it
    rest = set(followers) - set(near[drawn, : take // 2])
    assert len(rest) == take // 2
    assert rest <= set(near[drawn, take // 2 :])
    # So most pairs of a batch have another one close by; among random pairs hardly any has.
    gaps = np.diff(np.sort(first))
    assert (gaps <= 16).mean() > 0.7


def test_many_queries_of_few_references_are_all_used():
    classes = np.repeat(np.arange(40), 54)  # like 54 drone views of each building
    batches = plan_batches(classes, None, batch_size=32, take=4, seed=1)
    check(batches, classes, 32, 1)
    assert len(batches) < 1.2 * len(classes) / 32


def test_one_class_makes_no_batch():
    assert plan_batches(np.zeros(9, np.int64), None, batch_size=4, take=2, seed=0) == []
