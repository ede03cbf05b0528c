"""A model that was trained with word vectors from a file knows the other words of that file."""

import logging

import numpy as np
import pytest
import torch
from conftest import topic_pairs
from torch_twin import TorchTwin

import rlm
from rlm.arms import encoder_maker
from rlm.models.model import Model, load_model
from rlm.study import slice_for

gensim = pytest.importorskip("gensim.models.fasttext", reason="gensim has no wheel for this version of Python")
DIM = 4


def write_vectors(path, words, dim=DIM):
    vectors = np.random.default_rng(0).normal(size=(len(words), dim)).astype(np.float32)
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, vectors, strict=True)]
    path.write_text("".join(lines), encoding="utf-8")
    return dict(zip(words, vectors, strict=True))


@pytest.fixture(scope="module")
def corpus():
    return rlm.index_corpus(topic_pairs(np.random.default_rng(0), topics=8, pairs=20))


def new_model(corpus, path, encoder="mean", **settings):
    config = rlm.StudyConfig(encoder=encoder, word_dim=DIM, dim=6, word_vectors=str(path), **settings)
    (slices,) = slice_for(config, corpus, [0])
    return Model.of(rlm.init_block(encoder_maker(config, slices.phrases), [0]), slices, config)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", ["mean", "lstm"])
def test_a_new_word_has_the_vector_of_the_file(kind, fixed, corpus, tmp_path):
    path = tmp_path / "vectors.txt"
    vectors = write_vectors(path, [*corpus.phrases.words, "heron"])
    model = new_model(corpus, path, kind, fixed_vectors=fixed)
    model.save(tmp_path / "model")
    known = next(word for word in corpus.phrases.words if word.startswith("topic"))
    for mine in (model, load_model(tmp_path / "model")):
        (found,) = mine.encode([f"{known} heron"])
        weights = {name: weight[0] for name, weight in mine.block.weights.items()}
        if fixed and "words.weight" not in weights:
            weights["words.weight"] = mine.block.encoder.words.weight.detach()
        # The twin has the new word in a row of its own.
        weights["words.weight"] = torch.cat([weights["words.weight"], torch.from_numpy(vectors["heron"])[None]])
        tokens = torch.tensor([[mine.words[known], len(weights["words.weight"]) - 1]])
        np.testing.assert_allclose(found, TorchTwin(kind, weights)(tokens)[0].detach(), rtol=1e-5, atol=1e-6)
        assert mine.knows("heron")
        assert mine.unknown_share(["heron egret"]) == 0.5
        np.testing.assert_array_equal(mine.encode(["egret"]), mine.encode(["stork"]))  # both unknown


def test_a_fasttext_model_knows_new_words_by_their_ngrams(corpus, tmp_path):
    fasttext = gensim.FastText([corpus.phrases.words], vector_size=DIM, min_count=1, bucket=50, epochs=1, seed=1)
    gensim.save_facebook_model(fasttext, str(tmp_path / "model.bin"))
    model = new_model(corpus, tmp_path / "model.bin", fixed_vectors=True)
    np.testing.assert_allclose(model.encode(["topics"])[0], output_of(model, fasttext.wv["topics"]), rtol=1e-4)


def output_of(model, vector):
    """Compute the embedding of a phrase of one word with this vector, by the mean encoder."""
    weight, bias = (model.block.weights[f"output.{name}"][0].numpy() for name in ("weight", "bias"))
    return weight @ vector + bias


def test_a_second_file_completes_the_vectors(corpus, tmp_path):
    words, letters = tmp_path / "words.txt", tmp_path / "letters.txt"
    first = write_vectors(words, [*corpus.phrases.words, "heron"], 3)
    write_vectors(letters, [*corpus.phrases.words, "egret"], 1)
    model = new_model(corpus, words, character_vectors=str(letters), fixed_vectors=True)
    expected = output_of(model, np.append(first["heron"], 0))
    np.testing.assert_allclose(model.encode(["heron"])[0], expected, rtol=1e-4, atol=1e-6)
    assert model.knows("egret")


@pytest.mark.parametrize("change", ["missing", "other content"])
def test_without_the_file_of_training_new_words_are_unknown(change, corpus, tmp_path, caplog):
    path = tmp_path / "vectors.txt"
    write_vectors(path, [*corpus.phrases.words, "heron"])
    new_model(corpus, path).save(tmp_path / "model")
    path.unlink() if change == "missing" else write_vectors(path, ["heron", *corpus.phrases.words])
    model = load_model(tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(model.encode(["heron"]), model.encode(["egret"]))
        assert not model.knows("heron")
    (record,) = (one for one in caplog.records if one.name == "rlm.models.new_words")
    assert "put that file there" in record.message


def test_what_training_reads_as_unknown_stays_so(corpus, tmp_path):
    write_vectors(tmp_path / "vectors.txt", [*corpus.phrases.words, "heron"])
    assert not new_model(corpus, tmp_path / "vectors.txt", unseen_words="unknown").knows("heron")
