"""Losses with negatives from the whole batch, against plain loops and other people's libraries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchEasyHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch.nn import functional as F

from rlm.data.corpus import Relevance
from rlm.engine.batches import PhraseTable, one_batch
from rlm.engine.relevance import RelevanceMask
from rlm.zoo.losses import dssm_loss, in_batch_loss, mined_triplet_loss

MINING = ("all", "semi_hard", "hard")
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**32)


def draw_batch(phrases, dim, sizes, seed):
    """Embeddings, triplets with repeats, fillers behind them, and relevance that leaves some without a negative."""
    rng = np.random.default_rng(seed)
    count = max(sizes)
    embeddings = F.normalize(torch.from_numpy(rng.normal(size=(len(sizes), phrases, dim))), dim=-1)
    triplets = torch.from_numpy(rng.integers(phrases, size=(len(sizes), count, 3)))
    mask = torch.arange(count) < torch.tensor(sizes)[:, None]
    triplets = triplets * mask[..., None]
    weights = mask / mask.sum(dim=1, keepdim=True).clamp(min=1).double()
    relevant = torch.from_numpy(rng.random((len(sizes), phrases, phrases)) < rng.choice([0.1, 0.5, 1]))
    relevant = relevant | relevant.mT | torch.eye(phrases, dtype=torch.bool)
    for mine, (anchor, positive, _) in zip(relevant, triplets.transpose(1, 2), strict=True):
        mine[anchor, positive] = mine[positive, anchor] = True
    return embeddings.requires_grad_(), triplets, weights, relevant


def square(first, second):
    return (first - second).square().sum()


def mined_by_hand(points, triplets, relevant, margin, mining):
    found = []
    for a, p, _ in triplets:
        near = square(points[a], points[p])
        far = [square(points[a], points[n]) for n in range(len(points)) if not relevant[a][n]]
        if not far:
            continue
        if mining == "hard":
            far = [min(far)]
        elif mining == "semi_hard":
            far = [min([d for d in far if d > near], default=max(far))]
        found += [torch.relu(near - d + margin) for d in far]
    return sum(found) / len(found) if found else 0 * points.sum()


def softmax_by_hand(scores):
    return -torch.log(torch.exp(scores[0]) / sum(torch.exp(score) for score in scores))


def in_batch_by_hand(points, triplets, relevant):
    found = []
    for row, (a, p, _) in enumerate(triplets):
        others = [t[1] for other, t in enumerate(triplets) if other != row] + [t[2] for t in triplets]
        candidates = [p] + [c for c in others if not relevant[a][c]]
        found.append(softmax_by_hand([20 * points[a] @ points[c] for c in candidates]))
    return sum(found) / len(found)


def dssm_by_hand(points, triplets, relevant):
    found = []
    for row, (a, p, _) in enumerate(triplets):
        sampled = [triplets[(row + step) % len(triplets)][2] for step in range(min(4, len(triplets)))]
        candidates = [p] + [n for n in sampled if not relevant[a][n]]
        found.append(softmax_by_hand([10 * points[a] @ points[c] for c in candidates]))
    return sum(found) / len(found)


def assert_seeds_equal_loops(loss, by_hand, batch):
    embeddings, triplets, weights, relevant = batch
    found = loss(embeddings, triplets, weights, relevant)
    expected = [
        by_hand(points, rows[mine > 0].tolist(), known.tolist()) if (mine > 0).any() else 0 * points.sum()
        for points, rows, mine, known in zip(embeddings, triplets, weights, relevant, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected))
    gradients = [torch.autograd.grad(value, embeddings)[0] for value in (found.sum(), sum(expected))]
    torch.testing.assert_close(*gradients)


@given(sizes, sizes, st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(any), seeds, st.floats(0.01, 4))
@pytest.mark.parametrize("mining", MINING)
def test_mining_equals_a_plain_loop(mining, phrases, dim, sizes, seed, margin):
    batch = draw_batch(phrases, dim + 1, sizes, seed)
    assert_seeds_equal_loops(
        lambda *args: mined_triplet_loss(*args, margin, mining),
        lambda *args: mined_by_hand(*args, margin, mining),
        batch,
    )


@given(sizes, sizes, st.lists(st.integers(0, 7), min_size=1, max_size=3).filter(any), seeds)
@pytest.mark.parametrize(("loss", "by_hand"), [(in_batch_loss, in_batch_by_hand), (dssm_loss, dssm_by_hand)])
def test_softmax_equals_a_plain_loop(loss, by_hand, phrases, dim, sizes, seed):
    assert_seeds_equal_loops(loss, by_hand, draw_batch(phrases, dim + 1, sizes, seed))


def labelled(labels, dim, seed):
    """One batch with every pair of phrases of one label as a triplet's first two, and what gives them no choice."""
    values = np.random.default_rng(seed).normal(size=(2, len(labels), dim))[[0, 0]]
    mine, theirs = (torch.tensor(value, requires_grad=True) for value in values)
    same = labels[:, None] == labels
    pairs = (same & ~torch.eye(len(labels), dtype=torch.bool)).nonzero()
    triplets = F.pad(pairs, (0, 1))[None]
    weights = torch.full((1, len(pairs)), 1 / max(len(pairs), 1), dtype=torch.float64)
    return mine, theirs, (triplets, weights, same[None])


label_lists = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(torch.tensor)


@given(label_lists, st.integers(2, 5), seeds, st.floats(0.01, 4))
@pytest.mark.parametrize("mining", MINING)
def test_mining_by_labels_equals_other_libraries(losses, mining, labels, dim, seed, margin):
    mine, theirs, batch = labelled(labels, dim, seed)
    found = mined_triplet_loss(F.normalize(mine, dim=1)[None], *batch, margin, mining)[0]
    if mining == "semi_hard":
        unit = F.normalize(theirs, dim=1)
        peer = losses.BatchSemiHardTripletLoss(None, lambda x: torch.cdist(x, x).square(), margin)
        expected = peer.batch_semi_hard_triplet_loss(labels, unit)
        if len(labels.unique()) == 1:
            expected = 0 * expected  # theirs invents a negative
    else:
        peer = TripletMarginLoss(margin, distance=LpDistance(power=2), reducer=MeanReducer())
        miner = BatchEasyHardMiner("all", mining, distance=LpDistance(power=2))
        expected = peer(theirs, labels, miner(theirs, labels)) + 0 * theirs.sum()
    torch.testing.assert_close(found, expected.double(), atol=1e-6, rtol=1e-6)
    gradients = [torch.autograd.grad(value, x)[0] for value, x in ((found, mine), (expected, theirs))]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@given(sizes, sizes, seeds)
def test_in_batch_loss_is_sentence_transformers_where_nothing_else_is_relevant(losses, count, dim, seed):
    rng = np.random.default_rng(seed)
    mine, theirs = (torch.tensor(v, requires_grad=True) for v in rng.normal(size=(1, 3 * count, dim)).repeat(2, 0))
    triplets = torch.arange(3 * count).view(3, count).T[None]
    relevant = torch.eye(3 * count, dtype=torch.bool)[None]
    found = in_batch_loss(F.normalize(mine, dim=1)[None], triplets, torch.full((1, count), 1 / count), relevant)[0]
    peer = losses.MultipleNegativesRankingLoss(None)
    expected = peer.compute_loss_from_embeddings(list(theirs.split(count)), None)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, x)[0] for value, x in ((found, mine), (expected, theirs))]
    torch.testing.assert_close(*gradients)


def test_dssm_loss_of_indifferent_embeddings_is_the_logarithm_of_five():
    embeddings = torch.ones(1, 15, 1)
    triplets = torch.arange(15).view(1, 5, 3)
    loss = dssm_loss(embeddings, triplets, torch.full((1, 5), 0.2), torch.eye(15, dtype=torch.bool)[None])
    assert loss.item() == pytest.approx(math.log(5))


class TestKnownRelevance:
    def relevant_by_hand(self, batch, seed, pairs, group):
        phrases, empty = batch.phrases[seed].tolist(), (batch.tokens[seed] == 0).all(dim=1).tolist()
        dealt = {(a, p) for a, p, _ in batch.triplets[seed].tolist()}
        return [
            [
                i == j
                or empty[i]
                or empty[j]
                or not {(i, j), (j, i)}.isdisjoint(dealt)
                or not {(a, b), (b, a)}.isdisjoint(pairs)
                or (group is not None and group[a] == group[b])
                for j, b in enumerate(phrases)
            ]
            for i, a in enumerate(phrases)
        ]

    @given(st.integers(0, 2**32), st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any), st.booleans())
    def test_equals_a_plain_loop(self, slices, seed, sizes, grouped):
        rng = np.random.default_rng(seed)
        count = len(slices.phrases)
        triplets = [torch.from_numpy(rng.integers(count, size=(size, 3), dtype=np.int32)) for size in sizes]
        batch = one_batch(triplets, PhraseTable([slices] * len(sizes)))
        pairs = rng.integers(count, size=(400, 2), dtype=np.int32)
        group = rng.integers(10, size=count, dtype=np.int32) if grouped else None
        found = RelevanceMask(Relevance(pairs, group))(batch)
        alone = RelevanceMask()(batch)
        for row in range(len(sizes)):
            known = set(map(tuple, pairs.tolist()))
            assert found[row].tolist() == self.relevant_by_hand(batch, row, known, group)
            assert alone[row].tolist() == self.relevant_by_hand(batch, row, set(), None)

    def test_of_training_slices_is_what_their_pairs_say(self, slices):
        known = set(map(tuple, slices.train[:, :2].tolist()))
        batch = one_batch([torch.from_numpy(slices.train)], PhraseTable([slices]))
        found = RelevanceMask(slices.relevance)(batch)[0]
        assert found.tolist() == self.relevant_by_hand(batch, 0, known, None)
