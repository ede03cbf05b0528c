"""Word vectors from elsewhere, in files that gensim writes."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import topic_pairs
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import save_facebook_model

import rlm
from rlm.encoder import encoder_maker
from rlm.errors import InputError
from rlm.vectors import read_vectors

WORDS = ("cat", "мяу", "dog", "nowhere")
VECTORS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.fixture
def keyed():
    vectors = KeyedVectors(5)
    vectors.add_vectors(["dog", "мяу", "cat"], VECTORS)
    return vectors


class TestReading:
    @pytest.mark.parametrize("name", ["v.bin", "v.vec", "v.txt", "v.txt.gz", "glove.txt", "glove.txt.gz"])
    def test_every_format_gives_the_vectors_of_the_words(self, name, keyed, tmp_path):
        path = tmp_path / name
        keyed.save_word2vec_format(str(path), binary=name == "v.bin", write_header="glove" not in name)
        found = read_vectors(path, WORDS)
        average = VECTORS.mean(axis=0)
        expected = [np.zeros(5), average, VECTORS[2], VECTORS[1], VECTORS[0], average]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_a_fasttext_model_knows_words_by_their_ngrams(self, tmp_path):
        texts = [["hallo", "welt"], ["hallo", "hund"]] * 10
        model = FastText(texts, vector_size=4, min_count=1, bucket=100, min_n=3, max_n=4, epochs=1, seed=1)
        path = tmp_path / "model.bin"
        save_facebook_model(model, str(path))
        found = read_vectors(path, ("hallo", "hunde"))
        np.testing.assert_allclose(found[2], model.wv["hallo"], rtol=1e-5)
        np.testing.assert_allclose(found[3], model.wv["hunde"], rtol=1e-5, atol=1e-7)
        assert "hunde" not in model.wv.key_to_index

    def test_what_is_no_file_of_vectors_is_refused(self, tmp_path):
        path = tmp_path / "letter.txt"
        path.write_text("Dear reader,\nnothing here is a number.\n")
        with pytest.raises(InputError, match=r"expected word vectors in .*letter\.txt .*; give another file"):
            read_vectors(path, WORDS)
        with pytest.raises(InputError, match=r"expected word vectors in .*none\.vec"):
            read_vectors(tmp_path / "none.vec", WORDS)

    def test_vectors_of_other_words_are_refused(self, keyed, tmp_path):
        keyed.save_word2vec_format(str(tmp_path / "v.vec"))
        with pytest.raises(InputError, match=r"found none of 2 words in .*v\.vec; give vectors of the same language"):
            read_vectors(tmp_path / "v.vec", ("eins", "zwei"))


@pytest.fixture
def path(corpus, tmp_path):
    vectors = KeyedVectors(6)
    vectors.add_vectors(corpus.phrases.words, np.random.default_rng(1).normal(size=(len(corpus.phrases.words), 6)))
    path = tmp_path / "all.vec.gz"
    plain = tmp_path / "all.vec"
    vectors.save_word2vec_format(str(plain))
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return str(path)


class TestConfig:
    @pytest.mark.parametrize("kind", ["lstm", "lstm(cnn)", "mean"])
    @pytest.mark.parametrize("fixed", [False, True])
    def test_encoders_start_from_them_and_train_or_leave_them(self, kind, fixed, path, corpus, slices):
        config = rlm.StudyConfig(
            encoder=kind, word_vectors=path, fixed_vectors=fixed, word_dim=6, dim=5, loss="facenet"
        )
        block = rlm.init_block(encoder_maker(config, corpus.phrases), (0, 1))
        trained, _ = rlm.pretrain(block, slices, loss="facenet", epochs=1, progress=False)
        expected = torch.from_numpy(read_vectors(Path(path), corpus.phrases.words))
        for one, is_same in ((block, True), (trained, fixed)):
            for row in range(2):
                words = {**one.encoder.state_dict(), **{k: w[row] for k, w in one.weights.items()}}
                name = next(name for name in words if name.endswith("words.weight"))
                assert torch.equal(words[name], expected) == is_same

    def test_a_study_reads_them(self, path):
        data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
        config = rlm.StudyConfig(word_vectors=path, fixed_vectors=True, word_dim=6, encoder="mean", max_epochs=1)
        assert config.keeps_unseen_words
        assert len(rlm.run_study(config, 1, data=data, n_jobs=1, progress=False)) == 2

    def test_another_size_is_refused(self, path, corpus):
        with pytest.raises(InputError, match=r"expected word_dim 6, the size of the vectors in .*found 32; set it"):
            encoder_maker(rlm.StudyConfig(word_vectors=path), corpus.phrases)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fixed_vectors": True}, "expected word_vectors, for fixed_vectors to keep, found none"),
            ({"encoder": "dssm", "word_vectors": "x"}, "expected no word_vectors for the encoder dssm"),
        ],
    )
    def test_settings_that_do_nothing_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            rlm.StudyConfig(**settings)
