"""Losses of triplets and pairs, against plain loops, PyTorch's own and sentence-transformers'."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional as F

from rlm.loss import (
    contrastive_loss,
    cosine_regression_loss,
    cosine_triplet_loss,
    lossless_triplet_loss,
    squared_distance,
    triplet_loss,
    triplet_regression_loss,
)

shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4)
seeds = st.integers(0, 2**32)
margins = st.floats(0.01, 4)


def draw(shape, seed):
    values = np.random.default_rng(seed).normal(size=(3, *shape))
    return [torch.tensor(value, requires_grad=True) for value in values]


@given(shapes, seeds, margins)
def test_equals_a_plain_loop(shape, seed, margin):
    triplet = draw(shape, seed)
    loss = triplet_loss(*triplet, margin)
    assert loss.shape == tuple(shape[:-1])
    rows = [part.detach().reshape(-1, shape[-1]).tolist() for part in triplet]
    for value, anchor, positive, negative in zip(loss.flatten().tolist(), *rows, strict=True):
        near = sum((a - p) ** 2 for a, p in zip(anchor, positive, strict=True))
        far = sum((a - n) ** 2 for a, n in zip(anchor, negative, strict=True))
        assert value == pytest.approx(max(0.0, near - far + margin), abs=1e-12)


@given(shapes, seeds, margins)
def test_equals_torch_in_values_and_gradients(shape, seed, margin):
    mine, theirs = draw(shape, seed), draw(shape, seed)
    loss = triplet_loss(*mine, margin)
    expected = F.triplet_margin_with_distance_loss(
        *theirs, distance_function=lambda a, b: ((a - b) ** 2).sum(-1), margin=margin, reduction="none"
    )
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@given(shapes, seeds)
def test_squared_distance_is_the_square_of_the_norm(shape, seed):
    first, second, _ = draw(shape, seed)
    norm = torch.linalg.vector_norm(first - second, dim=-1)
    torch.testing.assert_close(squared_distance(first, second), norm**2)


@given(shapes, seeds, margins)
def test_collapsed_encoder_has_a_loss_of_exactly_the_margin(shape, seed, margin):
    point = draw(shape, seed)[0]
    loss = triplet_loss(point, point, point, margin)
    assert torch.equal(loss, torch.full_like(loss, margin))


def dot(first, second):
    return sum(x * y for x, y in zip(first, second, strict=True))


def square(first, second):
    return sum((x - y) ** 2 for x, y in zip(first, second, strict=True))


def lossless_by_hand(a, p, n):
    return -math.log(1 - square(a, p) / len(a) + 1e-8) - math.log(1 - (len(a) - square(a, n)) / len(a) + 1e-8)


def contrastive_by_hand(a, p, n):
    return (square(a, p) / 2 + max(0, 1 - math.sqrt(square(a, n))) ** 2 / 2) / 2


BY_HAND = {
    cosine_triplet_loss: lambda a, p, n: max(0, dot(a, n) - dot(a, p) + 0.5),
    lossless_triplet_loss: lossless_by_hand,
    contrastive_loss: contrastive_by_hand,
    triplet_regression_loss: lambda a, p, n: ((dot(a, p) - 1) ** 2 + dot(a, n) ** 2) / 2,
}


@given(shapes, seeds)
@pytest.mark.parametrize("loss", BY_HAND)
def test_others_equal_plain_loops(loss, shape, seed):
    triplet = [part.detach().sigmoid() for part in draw(shape, seed)]
    found = loss(*triplet)
    assert found.shape == tuple(shape[:-1])
    rows = [part.reshape(-1, shape[-1]).tolist() for part in triplet]
    for value, *row in zip(found.flatten().tolist(), *rows, strict=True):
        assert value == pytest.approx(BY_HAND[loss](*row), rel=1e-6, abs=1e-9)


def assert_same_gradients(found, expected, mine, theirs, **tolerance):
    torch.testing.assert_close(found, expected, **tolerance)
    found.backward()
    expected.backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, **tolerance)


@given(shapes, seeds, margins)
def test_cosine_triplet_loss_is_torchs_with_cosines(shape, seed, margin):
    mine, theirs = draw(shape, seed), draw(shape, seed)
    found = cosine_triplet_loss(*(F.normalize(part, dim=-1) for part in mine), margin)
    expected = F.triplet_margin_with_distance_loss(
        *theirs, distance_function=lambda a, b: 1 - F.cosine_similarity(a, b, dim=-1), margin=margin, reduction="none"
    )
    assert_same_gradients(found.sum(), expected.sum(), mine, theirs)


@given(st.integers(1, 6), st.integers(1, 5), seeds, margins)
def test_contrastive_loss_is_sentence_transformers(losses, count, dim, seed, margin):
    mine, theirs = draw([count, dim], seed), draw([count, dim], seed)
    anchor, positive, negative = theirs
    pairs = [torch.cat([anchor, anchor]), torch.cat([positive, negative])]
    labels = torch.cat([torch.ones(count), torch.zeros(count)])
    peer = losses.ContrastiveLoss(None, losses.SiameseDistanceMetric.EUCLIDEAN, margin)
    expected = peer.compute_loss_from_embeddings(pairs, labels)
    found = contrastive_loss(*mine, margin).mean()
    # Theirs adds 1e-6 to every coordinate before it measures.
    assert_same_gradients(found, expected, mine, theirs, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 6), st.integers(1, 5), seeds)
def test_cosine_regression_is_sentence_transformers_for_any_grade(losses, count, dim, seed):
    mine, theirs = draw([count, dim], seed)[:2], draw([count, dim], seed)[:2]
    target = torch.from_numpy(np.random.default_rng(seed + 1).uniform(-1, 1, count))
    peer = losses.CosineSimilarityLoss(None, lambda cosine, label: F.mse_loss(cosine, label.to(cosine)))  # of one type
    expected = peer.compute_loss_from_embeddings(theirs, target)
    found = cosine_regression_loss(*(F.normalize(part, dim=-1) for part in mine), target).mean()
    assert_same_gradients(found, expected, mine, theirs)


@pytest.mark.parametrize("loss", [lossless_triplet_loss, contrastive_loss])
def test_coinciding_and_opposite_points_have_finite_gradients(loss):
    zeros, ones = torch.zeros(1, 4), torch.ones(1, 4)
    for corners in ([zeros, zeros, zeros], [zeros, zeros, ones], [zeros, ones, zeros], [zeros, ones, ones]):
        triplet = [corner.clone().requires_grad_() for corner in corners]
        loss(*triplet).sum().backward()
        assert all(part.grad.isfinite().all() for part in triplet)


def test_lossless_loss_is_zero_at_its_best_and_finite_at_its_worst():
    zeros, ones = torch.zeros(1, 4), torch.ones(1, 4)
    assert lossless_triplet_loss(zeros, zeros, ones).item() == pytest.approx(0, abs=1e-6)
    assert lossless_triplet_loss(zeros, ones, zeros).item() == pytest.approx(-2 * math.log(1e-8))
