"""Dropout: what the draws are like, and that they are those of the seed alone."""

import numpy as np
import pytest
import torch
from conftest import finetune, topic_pairs
from torch import nn

import rlm
from rlm.block import init_block
from rlm.engine.dropout import mix
from rlm.errors import InputError
from rlm.zoo import Dropout, TransformerEncoder

SETTINGS = {"max_epochs": 4, "batch_size": 15, "learning_rate": 1e-2, "progress": False}


def drops(p=0.25, shape=(400, 30), draws=range(100)):
    """Which values are dropped under each draw."""
    layer, kept = Dropout(p), []
    for draw in draws:
        layer.draw = torch.tensor(draw * 7919)
        kept.append(layer(torch.ones(shape)) == 0)
    return torch.stack(kept).double().numpy()


def test_the_hash_is_one_to_one_and_every_bit_is_even():
    hashed = mix(torch.arange(2**31 - 2**17, 2**31 + 2**17))
    assert len(hashed.unique()) == 2**18
    assert 0 <= hashed.min() < hashed.max() < 2**32
    bits = [((hashed >> bit) & 1).double().mean().item() for bit in range(32)]
    assert np.abs(np.array(bits) - 0.5).max() < 5 * 0.5 / 2**9


@pytest.mark.parametrize("p", [0.1, 0.25, 0.9])
def test_draws_are_like_those_of_independent_coins(p):
    """Shares over steps, rows and channels spread as binomial ones; no two of them are correlated."""
    dropped = drops(p)
    for axes in ((1, 2), (0, 2), (0, 1), (0,), (1,), (2,)):
        shares = dropped.mean(axis=axes)
        count = dropped.size // shares.size
        expected = np.sqrt(p * (1 - p) / count)
        assert abs(shares.mean() - p) < 5 * np.sqrt(p * (1 - p) / dropped.size)
        assert shares.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * shares.size) + 0.02)
    z = (dropped - p) / np.sqrt(p * (1 - p))
    for axis in range(3):
        flat = np.moveaxis(z, axis, 0).reshape(z.shape[axis], -1)
        correlations = (flat @ flat.T / flat.shape[1])[np.triu_indices(len(flat), 1)]
        assert correlations.std() == pytest.approx(1 / np.sqrt(flat.shape[1]), rel=0.15)
        assert np.abs(correlations).max() < 6 / np.sqrt(flat.shape[1])


def test_what_is_kept_is_scaled_and_without_a_draw_all_is():
    layer = Dropout(0.25)
    values = torch.randn(50, 40)
    assert layer.train()(values) is values
    layer.draw = torch.tensor(5)
    found = layer.eval()(values)
    is_kept = found != 0
    torch.testing.assert_close(found[is_kept], values[is_kept] / 0.75)
    assert 0.6 < is_kept.double().mean() < 0.9
    assert not layer.state_dict()


@pytest.mark.parametrize("p", [-0.1, 1, float("nan")])
def test_other_probabilities_are_refused(p):
    with pytest.raises(InputError, match="a probability from 0 to less than 1"):
        Dropout(p)


def test_padding_changes_no_draw():
    layer = Dropout(0.5)
    layer.draw = torch.tensor(11)
    whole = layer(torch.ones(6, 5, 8))
    torch.testing.assert_close(layer(torch.ones(4, 3, 8)), whole[:4, :3])
    rows = torch.tensor([3, 0, 5])
    torch.testing.assert_close(layer(torch.ones(3, 5, 8), rows), whole[rows])


class Own(nn.Module):
    """An encoder that a user brings; the second cannot be stacked, so that seeds run one by one."""

    def __init__(self, vocabulary_size, is_stacked):
        super().__init__()
        self.words, self.drop = nn.Embedding(vocabulary_size, 6), Dropout(0.5)
        self.is_stacked = is_stacked

    def forward(self, tokens, batch_sizes):
        vectors = self.drop(self.words(tokens.long())) * (tokens != 0)[..., None]
        if not self.is_stacked and vectors.isnan().any().item():
            raise AssertionError
        return vectors.sum(dim=1)


MAKERS = {
    "transformer": lambda words: TransformerEncoder(words, 8, 5, dropout=0.5),
    "stacked": lambda words: Own(words, is_stacked=True),
    "one by one": lambda words: Own(words, is_stacked=False),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adam"])
def test_a_seed_draws_the_same_alone_and_in_every_block(kind, optimizer, unequal_slices):
    """Seeds of splits of other sizes, of which some stop before the others."""
    settings = SETTINGS | {"optimizer": optimizer, "patience": 1, "max_epochs": 6}

    def train(places):
        make = lambda: MAKERS[kind](unequal_slices[0].vocabulary_size).double()  # noqa: E731
        return finetune(init_block(make, places), [unequal_slices[place] for place in places], **settings)

    together, history = train((0, 1, 2))
    for seed in range(3):
        alone, own = train((seed,))
        np.testing.assert_allclose(history[history.seed == seed].loss, own.loss, rtol=1e-6)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(weight[0], together.weights[name][seed], rtol=1e-4, atol=1e-6)


def test_a_study_drops_in_training_alone_and_something_else_with_every_step():
    data, losses = topic_pairs(np.random.default_rng(0), topics=6, pairs=60), {}
    for dropout in (0.0, 0.5):
        settings = {"encoder": "transformer", "word_dim": 8, "dim": 5, "dropout": dropout, "arms": ["scratch"]}
        config = rlm.StudyConfig(**settings, max_epochs=2, learning_rate=1e-7, batch_size=30)
        (block,) = rlm.iter_study(config, 2, data=data, n_jobs=1, progress=False)
        losses[dropout] = block.history.set_index(["seed", "epoch"])
    with_none, with_half = losses[0.0], losses[0.5]
    # At a learning rate of nearly 0, weights stay: what is judged is equal, what is trained on differs each epoch.
    np.testing.assert_allclose(with_none.validation_accuracy, with_half.validation_accuracy)
    np.testing.assert_allclose(with_none.loss.unstack()[1], with_none.loss.unstack()[2], rtol=1e-3)
    assert (np.abs(with_half.loss.unstack()[1] / with_half.loss.unstack()[2] - 1) > 1e-3).all()
    assert (np.abs(with_half.loss / with_none.loss - 1).dropna() > 1e-2).all()
