"""Encoders of your own: stacked where torch.func can, looped where it cannot, with a backbone that seeds share."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from conftest import finetune, pretrain, topic_pairs
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import rlm
from rlm.block import init_block
from rlm.errors import InputError

WORD_DIM, DIM = 4, 4
SETTINGS = {"max_epochs": 3, "batch_size": 15, "learning_rate": 1e-2, "progress": False}


class Recurrent(nn.Module):
    """PyTorch's own layers over a Python list of phrases: nothing that could be stacked."""

    def __init__(self, vocabulary_size, layer):
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, WORD_DIM)
        self.layer = layer(WORD_DIM, DIM)

    def forward(self, tokens, batch_sizes):
        phrases = [phrase[: max(1, int((phrase != 0).sum()))].flip(0) for phrase in tokens]
        state = self.layer(pack_sequence([self.words(phrase) for phrase in phrases], enforce_sorted=False))[1]
        return (state[0] if isinstance(state, tuple) else state)[0]


class LSTM(Recurrent):
    def __init__(self, vocabulary_size):
        super().__init__(vocabulary_size, nn.LSTM)


class GRU(Recurrent):
    def __init__(self, vocabulary_size):
        super().__init__(vocabulary_size, nn.GRU)


class Transformer(nn.Module):
    def __init__(self, vocabulary_size):
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, WORD_DIM)
        self.layer = nn.TransformerEncoderLayer(WORD_DIM, nhead=2, dim_feedforward=8, dropout=0, batch_first=True)
        self.output = nn.Linear(WORD_DIM, DIM)

    def forward(self, tokens, batch_sizes):
        is_word = (tokens != 0)[..., None]
        padding = torch.where(is_word[..., 0], 0.0, -1e9).to(self.output.weight.dtype)
        vectors = self.layer(self.words(tokens.long()), src_key_padding_mask=padding) * is_word
        return self.output(vectors.sum(dim=1) / is_word.sum(dim=1).clamp(min=1))


def new_block(encoder, slices, seeds=(0, 1, 2)):
    return init_block(lambda: encoder(slices.vocabulary_size).double(), seeds)


@pytest.mark.parametrize(("encoder", "is_looped"), [(LSTM, True), (GRU, True), (Transformer, False)])
def test_seeds_train_in_company_as_alone(encoder, is_looped, slices):
    block = new_block(encoder, slices)
    assert block.is_looped == is_looped
    trained, history = finetune(block, slices, **SETTINGS)
    for row in range(3):
        alone, own = finetune(new_block(encoder, slices, (row,)), slices, **SETTINGS)
        np.testing.assert_allclose(history[history.seed == row].loss, own.loss, rtol=1e-6)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(weight[0], trained.weights[name][row], rtol=1e-4, atol=1e-5)


def test_a_loop_over_torchs_lstm_trains_as_the_stacked_one(slices):
    theirs = new_block(LSTM, slices)
    names = {f"layer.{kind}_l0": f"cell.{kind}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    weights = {names.get(name, name): weight for name, weight in theirs.weights.items()}
    ours = init_block(lambda: rlm.zoo.LSTMEncoder(slices.vocabulary_size, WORD_DIM, DIM).double(), (0, 1, 2))
    ours = type(ours)(ours.encoder, ours.seeds, weights)
    histories = [finetune(block, slices, **SETTINGS)[1] for block in (ours, theirs)]
    np.testing.assert_allclose(*histories, rtol=1e-5)


def test_a_loop_is_told_once(slices, caplog):
    class Told(LSTM):
        pass

    caplog.set_level(logging.INFO, "rlm")
    for _ in range(2):
        new_block(Told, slices)
    (record,) = [record for record in caplog.records if "Told" in record.message]
    assert "the encoder Told runs seed by seed, which is slower: " in record.message


def test_what_fails_by_itself_fails_with_its_own_words(slices):
    class Broken(LSTM):
        def forward(self, tokens, batch_sizes):
            raise RuntimeError("this encoder is broken")

    with pytest.raises(RuntimeError, match="this encoder is broken"):
        finetune(new_block(Broken, slices), slices, **SETTINGS)


class Phrasal(rlm.zoo.FrozenEncoder):
    def __init__(self, phrases, vectors, vocabulary_size):
        super().__init__(phrases, vectors, dim=3)


class TestBackbone:
    """A frozen sentence encoder, known from elsewhere, under a head that is trained."""

    class Headed(nn.Module):
        def __init__(self, vocabulary_size, known=True):
            super().__init__()
            generator = torch.Generator().manual_seed(0) if known else None
            vectors = torch.randn(vocabulary_size, 8, generator=generator)
            self.backbone = nn.EmbeddingBag.from_pretrained(vectors, mode="sum", padding_idx=0)
            self.head = nn.Linear(8, DIM)

        def forward(self, tokens, batch_sizes):
            return self.head(self.backbone(tokens))

    def test_is_kept_once_and_stays(self, slices):
        block = init_block(lambda: self.Headed(slices.vocabulary_size), (0, 1, 2))
        assert block.weights.keys() == {"head.weight", "head.bias"}
        before = block.encoder.backbone.weight.clone()
        trained, history = pretrain(block, slices, epochs=3, learning_rate=1e-2, progress=False)
        assert torch.equal(trained.encoder.backbone.weight, before)
        losses = history.pivot(index="epoch", columns="seed", values="loss")
        assert (losses.loc[3] < losses.loc[0]).all()

    def test_that_depends_on_the_seed_is_kept_for_each(self, slices):
        for seeds in [(0,), (0, 1)]:
            block = init_block(lambda: self.Headed(slices.vocabulary_size, known=False), seeds)
            assert "backbone.weight" in block.weights

    def test_of_phrases_reads_the_vector_of_each_and_knows_no_other(self):
        phrases = rlm.index_corpus(topic_pairs(np.random.default_rng(0), topics=4, pairs=30)).phrases
        vectors = np.random.default_rng(1).normal(size=(len(phrases), 5)).astype(np.float32)
        encoder = rlm.zoo.FrozenEncoder(phrases, vectors, dim=3)
        tokens = torch.from_numpy(phrases.tokens)
        found = encoder(tokens, [len(tokens)])
        torch.testing.assert_close(found[:-1], encoder.output(torch.from_numpy(vectors)))
        torch.testing.assert_close(found[-1], encoder.output.bias)  # the empty phrase, which fills a batch
        assert encoder(tokens.clamp(max=1)[:1], [1]).isnan().all()

    def test_of_phrases_can_be_studied(self):
        data = topic_pairs(np.random.default_rng(0), topics=4, pairs=60)
        corpus = rlm.index_corpus(data)
        vectors = np.random.default_rng(1).normal(size=(len(corpus.phrases), 5))
        block = init_block(lambda: rlm.zoo.FrozenEncoder(corpus.phrases, vectors, dim=3), (0, 1))
        assert block.weights.keys() == {"output.weight", "output.bias"}
        config = rlm.StudyConfig(max_epochs=2, pretrain_epochs=1, unseen_words="kept")
        make = partial(Phrasal, corpus.phrases, vectors)
        results = rlm.run_study(config, 2, data=data, make_encoder=make, n_jobs=1, progress=False)
        assert results.test_accuracy.between(0, 1).all()
        forgotten = config.model_copy(update={"unseen_words": "unknown"})
        with pytest.warns(UserWarning, match="diverged"):
            lost = rlm.run_study(forgotten, 2, data=data, make_encoder=make, n_jobs=1, progress=False)
        assert lost.test_accuracy.isna().all()


def test_a_study_runs_them():
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=60)
    config = rlm.StudyConfig(max_epochs=2, pretrain_epochs=1)
    for encoder in (GRU, Transformer):
        results = rlm.run_study(config, 2, data=data, make_encoder=encoder, n_jobs=1, progress=False)
        assert results.test_accuracy.between(0, 1).all()


class Pooled(nn.Module):
    """Pools by a function that a closure hands over."""

    def __init__(self, vocabulary_size, pool):
        super().__init__()
        self.words, self.pool = nn.Embedding(vocabulary_size, DIM), pool

    def forward(self, tokens, batch_sizes):
        words = self.words(tokens) * (tokens != 0)[..., None]
        return words.sum(1) if self.pool == "sum" else words.amax(1)


def test_encoders_that_differ_by_what_they_close_over_share_no_stored_run(tmp_path):
    config = rlm.StudyConfig(arms=("scratch",), max_epochs=1)
    settings = {"data": topic_pairs(np.random.default_rng(0), topics=8, pairs=60), "n_jobs": 1, "progress": False}

    def accuracies(pool, db=None):
        make = lambda vocabulary_size: Pooled(vocabulary_size, pool)  # noqa: E731
        return rlm.run_study(config, 2, make_encoder=make, db=db, **settings)["test_accuracy"].tolist()

    db = tmp_path / "study.db"
    assert [accuracies(pool, db) for pool in ("sum", "max")] == [accuracies(pool) for pool in ("sum", "max")]
    assert len(rlm.list_studies(db)) == 2


class Projected(nn.Module):
    def __init__(self, vocabulary_size):
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, DIM)
        self.register_buffer("projection", torch.randn(DIM, 2))


def test_random_buffers_are_refused_since_seeds_would_share_those_of_the_first():
    with pytest.raises(InputError, match="expected the buffer projection of Projected to be the same for every seed"):
        init_block(lambda: Projected(9), [0, 1])
