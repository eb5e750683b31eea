import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from georetrieval.training.loss import InfoNCE


def by_hand(query, reference, scale, smoothing):
    """The formula in NumPy float64: cross entropy with smoothed targets, both ways."""
    scores = scale * query @ reference.T
    total = 0.0
    for logits in (scores, scores.T):
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        n = len(logits)
        target = np.full((n, n), smoothing / n) + np.eye(n) * (1 - smoothing)
        total += -(target * logs).sum(axis=1).mean() / 2
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_loss_equals_the_formula(smoothing, scale):
    generator = torch.Generator().manual_seed(0)
    query, reference = (
        normalize(torch.randn(9, 12, generator=generator, dtype=torch.float64)) for _ in range(2)
    )
    found = InfoNCE(label_smoothing=smoothing)(
        query, reference, torch.tensor(scale, dtype=torch.float64)
    )
    expected = by_hand(query.numpy(), reference.numpy(), scale, smoothing)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-9)


def test_guessing_costs_the_logarithm_of_the_batch():
    same = normalize(torch.ones(16, 4))
    found = InfoNCE(label_smoothing=0.1)(same, same, torch.tensor(14.0))
    np.testing.assert_allclose(found.item(), np.log(16), rtol=1e-6)


def test_the_right_order_costs_least():
    vectors = normalize(torch.randn(16, 32, generator=torch.Generator().manual_seed(1)))
    loss = InfoNCE(label_smoothing=0.1)
    right = loss(vectors, vectors, torch.tensor(14.0))
    wrong = loss(vectors, vectors.roll(1, 0), torch.tensor(14.0))
    assert right < 2 < wrong


def test_queries_beyond_the_references_must_not_be_picked():
    generator = torch.Generator().manual_seed(2)
    query, reference = (
        normalize(torch.randn(n, 12, generator=generator, dtype=torch.float64)) for n in (15, 5)
    )
    scale = 1 / 0.07
    found = InfoNCE(label_smoothing=0.1)(query, reference, torch.tensor(scale, dtype=query.dtype))
    logits = scale * reference.numpy() @ query.numpy().T
    total = 0.0
    for scores in (logits[:, :5].T, logits):  # of each query; of each reference among all 15
        target = np.full(scores.shape, 0.1 / scores.shape[1])
        target[np.arange(5), np.arange(5)] += 0.9
        logs = scores - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True))
        logs -= scores.max(1, keepdims=True)
        total += -(target * logs).sum(axis=1).mean() / 2
    np.testing.assert_allclose(found.item(), total, rtol=1e-9)
