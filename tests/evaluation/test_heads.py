"""Heads over frozen embeddings, against PyTorch's and SciPy's formulas, trained as one seed at a time."""

import pytest
import torch
from hypothesis import given, strategies as st
from scipy.spatial.distance import mahalanobis
from torch import nn
from torch.nn import functional as F

import rlm
from rlm.block import init_block, of_triplets
from rlm.encoder import MeanEncoder
from rlm.engine.accuracy import embed
from rlm.engine.batches import split_batch
from rlm.errors import InputError
from rlm.evaluation.heads import HEADS, head_accuracy, head_loss, score, train_head
from rlm.seeding import stream

DIM = 4
every = pytest.mark.parametrize("kind", HEADS)


def draw(kind, count, dim, seed):
    """A head with random weights, and pairs."""
    generator = torch.Generator().manual_seed(seed)
    head = HEADS[kind](dim).double()
    for weight in head.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return head, torch.randn(2, count, dim, generator=generator, dtype=torch.float64)


def bilinear(head, x, y):
    return F.bilinear(x, y, head.form[None])[:, 0]


def squared_mahalanobis(head, x, y):
    inverse = (head.map.T @ head.map).detach().numpy()
    return -torch.tensor([mahalanobis(a, b, inverse) ** 2 for a, b in zip(x.numpy(), y.numpy(), strict=True)])


def log_odds(head, x, y):
    layers = nn.Sequential(head.hidden, nn.ReLU(), head.output, nn.Softmax(dim=1))
    probability = layers(torch.cat([(x - y) ** 2, x + y, x, y], dim=1))[:, 1]
    return torch.logit(probability, eps=1e-300)


REFERENCES = {"bilinear": bilinear, "mahalanobis": squared_mahalanobis, "classifier": log_odds}


@every
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_scores_are_what_their_names_say(kind, count, dim, seed):
    head, (x, y) = draw(kind, count, dim, seed)
    found, expected = head(x, y), REFERENCES[kind](head, x, y)
    assert found.shape == (count,)
    if kind == "classifier":  # a probability of nearly 1 has lost its log-odds
        found, expected = torch.sigmoid(found), torch.sigmoid(expected)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_identities_start_as_dot_product_and_euclidean_distance():
    x, y = torch.randn(2, 5, DIM)
    torch.testing.assert_close(HEADS["bilinear"](DIM)(x, y), (x * y).sum(dim=1))
    torch.testing.assert_close(HEADS["mahalanobis"](DIM)(x, y), -rlm.loss.squared_distance(x, y))


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_losses_are_cross_entropy_and_hinge(count, seed):
    positive, negative = torch.randn(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits = torch.stack([torch.zeros(2 * count, dtype=torch.float64), torch.cat([positive, negative])], dim=1)
    labels = torch.cat([torch.ones(count), torch.zeros(count)]).long()
    found = head_loss(HEADS["classifier"](DIM), positive, negative).mean()
    torch.testing.assert_close(found, F.cross_entropy(logits, labels))
    for kind in ("bilinear", "mahalanobis"):
        expected = F.margin_ranking_loss(positive, negative, torch.ones(count), margin=1, reduction="none")
        torch.testing.assert_close(head_loss(HEADS[kind](DIM), positive, negative), expected)


@every
def test_training_is_torchs_and_leaves_the_encoder_alone(kind, unequal_slices):
    block = init_block(lambda: MeanEncoder(unequal_slices[0].vocabulary_size, 4, DIM).double(), (0, 1, 2))
    before = {name: weight.clone() for name, weight in block.weights.items()}
    heads, history = train_head(block, unequal_slices, kind, max_epochs=3, learning_rate=1e-2, batch_size=20)
    assert all(torch.equal(weight, before[name]) for name, weight in block.weights.items())
    initial = init_block(lambda: HEADS[kind](DIM).double(), (0, 1, 2))
    train, validation = (split_batch(block, unequal_slices, split) for split in ("train", "validation"))
    embeddings, unseen = embed(block, train), embed(block, validation)
    for row, size in enumerate(train.sizes):
        single = HEADS[kind](DIM).double()
        single.load_state_dict({name: weight[row] for name, weight in initial.weights.items()})
        adam = torch.optim.Adam(single.parameters(), lr=1e-2)
        mine = history[history.seed == row].set_index("epoch")
        best_accuracy = -1.0
        for epoch in range(4):
            total = 0.0
            for rows in torch.from_numpy(stream(row, "order", epoch).permutation(size)).split(20) if epoch else ():
                a, p, n = embeddings[row][train.triplets[row][rows].T]
                adam.zero_grad()
                loss = head_loss(single, single(a, p), single(a, n)).mean()
                loss.backward()
                adam.step()
                total += loss.item() * len(rows)
            a, p, n = unseen[row][validation.triplets[row][validation.mask[row]].T]
            gap = single(a, p) - single(a, n)
            accuracy = ((gap > 0).double() + (gap == 0).double() / 2).mean().item()
            assert mine.validation_accuracy[epoch] == pytest.approx(accuracy)
            if epoch:
                assert mine.loss[epoch] == pytest.approx(total / size, abs=1e-6)
            if accuracy > best_accuracy:
                best_accuracy = accuracy
                best = {name: weight.clone() for name, weight in single.state_dict().items()}
        for name, weight in best.items():
            torch.testing.assert_close(heads.weights[name][row], weight, rtol=0, atol=1e-6)


@every
def test_scores_of_a_seed_are_its_own(kind, slices):
    heads = init_block(lambda: HEADS[kind](DIM), (0, 1, 2))
    x, y = torch.randn(2, 3, 5, DIM)
    before = score(heads, x, y)
    for weight in heads.weights.values():
        weight[1] = 0
    after = score(heads, x, y)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] == 0).all()


@pytest.mark.parametrize("kind", ["bilinear", "mahalanobis"])
def test_a_seed_stops_when_it_has_been_no_better_for_its_patience(kind, slices):
    block = init_block(lambda: MeanEncoder(slices.vocabulary_size, 4, DIM), (0, 1))
    heads, history = train_head(block, slices, kind, max_epochs=30, patience=2, learning_rate=1e-2)
    batch = split_batch(block, slices, "validation")
    accuracy = head_accuracy(heads, embed(block, batch), batch)
    for row, (_, mine) in enumerate(history.groupby("seed")):
        values = mine.validation_accuracy.to_numpy()
        assert accuracy[row] == values.max()
        assert len(values) == min(31, values.argmax() + 3)


def test_equal_scores_count_one_half(slices):
    block = init_block(lambda: MeanEncoder(slices.vocabulary_size, 4, DIM), (0,))
    for weight in block.weights.values():
        weight.zero_()
    batch = split_batch(block, slices, "test")
    heads = init_block(lambda: HEADS["bilinear"](DIM), (0,))
    assert head_accuracy(heads, embed(block, batch), batch).tolist() == [0.5]
    assert len(of_triplets(embed(block, batch), batch.triplets)) == 3


def test_an_unknown_head_is_refused(slices):
    block = init_block(lambda: MeanEncoder(slices.vocabulary_size, 4, DIM), (0,))
    with pytest.raises(InputError, match="expected a head of bilinear, mahalanobis, classifier, found 'linear'"):
        train_head(block, slices, "linear")
