"""The triplet loss, against a plain loop and PyTorch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from rlm.loss import squared_distance, triplet_loss

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
