"""Screening by bytes gives what all scores give, and never relies on a wrong operator."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from georetrieval.retrieval import int8, ranking, screening
from georetrieval.retrieval.ranking import rank_references
from tests.helpers.few_bits import few_bits


def brute_force(scores, positive, semi):
    """Ranks by counting, one query after another."""
    ranks, hits = [], []
    for query, (row, target) in enumerate(zip(scores, positive, strict=True)):
        as_high = row >= row[target]
        as_high[target] = False
        ranks.append(int(as_high.sum()))
        if semi is not None:
            as_high[semi[query]] = False
        hits.append(int(as_high.sum()))
    return ranks, hits


def by_integers(queries, references, largest):
    """Products of bytes as they should be, on any processor."""
    return (queries.double() @ references.T.double()).float()


def saturating(queries, references, largest):
    """Products as AVX2 makes them: of unsigned by signed bytes, two added in 16 bits."""
    padding = (0, queries.shape[1] % 2)
    a = torch.nn.functional.pad(queries.int() + largest, padding)
    b = torch.nn.functional.pad(references.int(), padding)
    rows = [(row * b).unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1).sum(1) for row in a]
    return (torch.stack(rows) - largest * references.int().sum(1)).float()


def unwritten(queries, references, largest):
    """Products that are not written at all."""
    return torch.full((len(queries), len(references)), 798958304.0)


def absent(queries, references, largest):
    return torch.ops.onednn.no_such_operator(queries, references)


def wrong_in_rests(queries, references, largest):
    """Products that go wrong past the blocks of 64."""
    products = by_integers(queries, references, largest)
    products[:, len(references) // 64 * 64 :] += len(references) > 64
    return products


def screened(queries, gallery, positive, semi=None, top=5, levels=127):
    with pytest.MonkeyPatch.context() as patch:
        if not int8.is_exact(int8.multiply_bytes, gallery.shape[1]):
            patch.setattr(int8, "multiply_bytes", by_integers)
        gallery = int8.Rounded.of(torch.from_numpy(gallery), levels)
        return screening.search(torch.from_numpy(queries), gallery, positive, semi, top)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_search_by_bytes_gives_the_same_as_all_scores(data):
    """Whatever the vectors: near each other, far, repeated, of any length."""
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    count, dimensions = data.draw(st.integers(6, 300)), data.draw(st.integers(1, 70))
    spread = data.draw(st.sampled_from([0.01, 0.3, 1.0, 5.0]))
    gallery = random.normal(size=(count, dimensions)) * data.draw(st.sampled_from([1e-6, 1, 30]))
    gallery[random.integers(0, count, count // 4)] = gallery[random.integers(0, count)]
    positive = random.integers(0, count, 20)
    queries = gallery[positive] + gallery.std() * spread * random.normal(size=(20, dimensions))
    # Of few bits each, so that float32 multiplies exactly and ties are ties.
    scale = 2.0 ** np.floor(np.log2(np.abs(gallery).max()) - 7)
    queries, gallery = (
        (np.round(v / scale) * scale).astype(np.float32) for v in (queries, gallery)
    )
    semi = None
    if data.draw(st.booleans()):
        semi = [random.integers(0, count, random.integers(0, 4)) for _ in positive]
    levels, top = data.draw(st.sampled_from([127, 90])), data.draw(st.sampled_from([1, 5]))
    found = screened(queries, gallery, positive, semi, top, levels)
    assert found is not None  # no more than can be in doubt
    scores = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    ranks, hits = brute_force(scores, positive, semi)
    assert found.rank.tolist() == ranks
    assert found.rank_hit.tolist() == hits
    best = -np.sort(-scores, axis=1)[:, :top]
    np.testing.assert_allclose(found.scores, best, rtol=1e-5, atol=1e-5 * np.abs(best).max())
    np.testing.assert_array_equal(np.take_along_axis(scores, found.top, 1), best)


def test_screening_leaves_few_in_doubt_and_gives_up_where_all_are_alike():
    random = np.random.default_rng(0)
    gallery = random.normal(size=(9000, 256)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    positive = random.integers(0, 9000, 300)
    near = gallery[positive] + 0.25 * random.normal(size=(300, 256)).astype(np.float32)
    found = screened(near, gallery, positive)
    assert found is not None
    scores = near @ gallery.T
    own = np.take_along_axis(scores, positive[:, None], 1)
    np.testing.assert_array_equal(found.rank, (scores > own).sum(1))
    assert 0.2 < (found.rank == 0).mean() < 0.95  # neither trivial nor hopeless
    order = np.argsort(-scores, axis=1)[:, :5]
    np.testing.assert_array_equal(found.top, order)
    assert screened(near, np.repeat(gallery[:1], 9000, 0), positive) is None


def test_few_queries_are_not_screened():
    """To round the gallery takes longer than a few queries need for all scores."""
    gallery = torch.zeros(screening.MANY, 8)
    assert not screening.should_screen(torch.zeros(screening.FEW - 1, 8), gallery, 5)
    assert not screening.should_screen(torch.zeros(screening.FEW, 8), gallery[1:], 5)


def test_large_galleries_give_the_same_with_and_without_bytes(monkeypatch):
    random = np.random.default_rng(1)
    gallery = torch.from_numpy(random.normal(size=(6000, 64)).astype(np.float32))
    gallery = torch.nn.functional.normalize(gallery)
    positive = random.integers(0, 6000, 1500)
    noise = torch.from_numpy(random.normal(size=(1500, 64)).astype(np.float32))
    queries = torch.nn.functional.normalize(gallery[positive] + 0.15 * noise)
    queries[1400:1402] = 0  # all scores alike: the last part is searched by all of them
    semi = [random.integers(0, 6000, 3) for _ in positive]
    found = {}
    if not int8.is_exact(int8.multiply_bytes, 64):
        monkeypatch.setattr(int8, "multiply_bytes", by_integers)
    monkeypatch.setattr(int8, "levels", lambda _: 127)
    for way in (True, False):
        monkeypatch.setattr(ranking, "should_screen", lambda *_, way=way: way)
        found[way] = rank_references(queries, gallery, positive, semi)
    # Validation passes a list of further right references, which are none for most datasets.
    monkeypatch.setattr(ranking, "should_screen", lambda *_: True)
    none = [np.empty(0, np.int64)] * 1500
    same = rank_references(queries, gallery, positive, semi, others=none)
    np.testing.assert_array_equal(same.scores, found[True].scores)
    assert (same.scores != found[False].scores).any()  # float32 rounds otherwise: it was screened
    for name in ("rank", "rank_hit", "precision"):
        np.testing.assert_array_equal(getattr(found[True], name), getattr(found[False], name))
    known = np.r_[0:1400, 1402:1500]
    np.testing.assert_array_equal(found[True].top[known], found[False].top[known])
    np.testing.assert_allclose(found[True].scores, found[False].scores, atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 16, 31, 64, 65, 256, 2048])
def test_an_operator_is_used_only_where_its_products_are_those_of_integers(dimensions):
    assert int8.is_exact(by_integers, dimensions)
    for wrong in (unwritten, absent, wrong_in_rests):
        assert not int8.is_exact(wrong, dimensions)
    if 1 < dimensions < 100:  # a single product does not saturate
        assert not int8.is_exact(saturating, dimensions)
        assert int8.is_exact(saturating, dimensions, 90)


@pytest.mark.parametrize("operator", [by_integers, saturating, unwritten, absent, wrong_in_rests])
def test_a_wrong_operator_is_not_used_and_changes_nothing(operator, monkeypatch):
    near, gallery, positive = few_bits(48)
    used = []
    search = ranking.search
    monkeypatch.setattr(ranking, "search", lambda *a: used.append(1) or search(*a))
    monkeypatch.setattr(int8, "multiply_bytes", operator)
    monkeypatch.setattr(int8, "has_fast_products", lambda: True)
    found = rank_references(torch.from_numpy(near), torch.from_numpy(gallery), positive)
    assert bool(used) == (operator in (by_integers, saturating))
    exact = near.astype(np.float64) @ gallery.T
    assert found.rank.tolist() == brute_force(exact, positive, None)[0]


@pytest.mark.skipif(
    not int8.has_fast_products(),
    reason="without AVX2 float32 is used",
)
def test_bytes_are_multiplied_by_code_made_for_the_processor():
    """On this one, whichever it is: oneDNN prints what it runs; its reference takes far longer."""
    ask = (
        "import torch; from georetrieval.retrieval.int8 import multiply_bytes;"
        "a = torch.ones((64, 64), dtype=torch.int8); multiply_bytes(a, a, 90)"
    )
    environment = {**os.environ, "ONEDNN_VERBOSE": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    ran = re.findall("exec,cpu,(?:matmul|inner_product),([^,]+),.*src[^ ]*[:_]u8", printed.stdout)
    assert ran
    assert not any(code.startswith("ref") for code in ran)


@pytest.mark.parametrize(
    ("operator", "largest"), [(by_integers, 127), (saturating, 90), (unwritten, 0), (absent, 0)]
)
def test_bytes_have_as_many_bits_as_are_multiplied_without_error(operator, largest, monkeypatch):
    monkeypatch.setattr(int8, "multiply_bytes", operator)
    monkeypatch.setattr(int8, "has_fast_products", lambda: True)
    assert int8.levels(48) == largest
    monkeypatch.setattr(int8, "has_fast_products", lambda: False)
    assert int8.levels(48) == 0


STEPS = ("SSE41", "AVX2", "AVX512_CORE", "AVX512_CORE_AMX")


@pytest.mark.parametrize("step", STEPS)
def test_no_rank_depends_on_the_processor(step):
    """With oneDNN held to the instructions of older processors, in a process of its own."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": step}
    command = [sys.executable, "-m", "tests.helpers.few_bits", "1", "64", "512"]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(printed.stdout)
    assert set(found) == {"1", "64", "512"}
    for dimensions, (ranks, scores) in found.items():
        near, gallery, positive = few_bits(int(dimensions))
        exact = near.astype(np.float64) @ gallery.T
        assert ranks == brute_force(exact, positive, None)[0]
        np.testing.assert_array_equal(scores, -np.sort(-exact, axis=1)[:, :5])
