"""Subword tokens: the pieces of a tokenizer of the library tokenizers, from the data to a saved model."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from pydantic import ValidationError

import rlm
from rlm.arms import encoder_maker
from rlm.data.datasets import load_corpus
from rlm.data.phrases import PAD, find_split
from rlm.errors import InputError
from rlm.slicer import slice_for
from rlm.store.read import list_studies
from rlm.training import finetune

tokenizers = pytest.importorskip("tokenizers")
SETTINGS = SMALL | {"dataset": "chatterbot-english", "encoder": "transformer", "arms": ("scratch",), "max_epochs": 1}


@pytest.fixture(scope="module")
def texts():
    data = rlm.load("chatterbot-english")
    return pd.unique(data[["anchor", "positive"]].to_numpy().ravel())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, texts):
    """Pieces of at most 400 kinds, as a user of the library learns them."""
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(texts, tokenizers.trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"]))
    made.post_processor = tokenizers.processors.TemplateProcessing("[UNK] $A", special_tokens=[("[UNK]", 0)])
    made.enable_truncation(3)  # neither these nor special tokens are wanted in a phrase
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def test_a_phrase_has_the_pieces_of_its_text(tokenizer):
    library = tokenizers.Tokenizer.from_file(str(tokenizer))
    library.no_truncation()
    corpus = rlm.index_corpus(rlm.load("chatterbot-english"), 16, tokenizer=str(tokenizer))
    phrases = corpus.phrases
    assert len(phrases.words) <= 400
    for text, row in zip(phrases.texts, phrases.tokens, strict=False):
        expected = library.encode(text, add_special_tokens=False).tokens[:16]
        assert [phrases.words[token - 2] for token in row if token != PAD] == expected


def test_unlabelled_texts_have_pieces_too(tokenizer):
    data = pd.DataFrame({"anchor": ["snow is white"], "positive": ["what is white"]})
    corpus = rlm.index_corpus(data, 16, ["whiteness"], tokenizer=str(tokenizer))
    (number,) = corpus.texts
    found = [corpus.phrases.words[token - 2] for token in corpus.phrases.tokens[number] if token != PAD]
    assert found == find_split(str(tokenizer))("whiteness")
    assert len(found) > 1


def test_fewer_tokens_are_unknown_than_words(tokenizer):
    shares = []
    for path in (None, str(tokenizer)):
        corpus = rlm.index_corpus(rlm.load("chatterbot-english"), tokenizer=path)
        shares.append(rlm.slice_corpus(corpus).summary.set_index("split")["unknown_words"]["test"])
    assert shares[0] > 0.1
    assert shares[1] < 0.01


def test_a_model_takes_its_tokenizer_along(tokenizer, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_bytes(tokenizer.read_bytes())
    config = rlm.StudyConfig(**SETTINGS | {"encoder": "mean", "tokenizer": str(mine)})
    (slices,) = slice_for(config, load_corpus(config), [0])
    block = rlm.init_block(encoder_maker(config, slices.phrases), [0])
    block, _ = finetune(block, slices, config, max_epochs=1, progress=False)
    model = rlm.models.Model.of(block, slices, config)
    texts = ["Unbelievableness!", "how are you"]
    expected = model.encode(texts)
    model.save(tmp_path / "model")
    mine.unlink()
    (tmp_path / "model").rename(tmp_path / "moved")
    loaded = rlm.load_model(tmp_path / "moved")
    np.testing.assert_array_equal(loaded.encode(texts), expected)
    assert loaded.unknown_share(["unbelievableness"]) < 1
    loaded.save(tmp_path / "again")
    np.testing.assert_array_equal(rlm.load_model(tmp_path / "again").encode(texts), expected)
    with pytest.raises(InputError, match="found tokens that are pieces of words"):
        loaded.to_onnx(tmp_path / "graph")
    (tmp_path / "moved" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected tokenizer\.json as it was saved, found other content"):
        rlm.load_model(tmp_path / "moved")


def test_a_study_reads_pieces_and_is_another_one(tokenizer, tmp_path):
    for path in (None, str(tokenizer)):
        config = rlm.StudyConfig(**SETTINGS, tokenizer=path)
        results = rlm.run_study(config, 2, db=tmp_path / "s.db", n_jobs=1, progress=False)
        assert results["test_accuracy"].notna().all()
    assert len(list_studies(tmp_path / "s.db")) == 2


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_another_file_is_refused_before_any_training(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"expected a tokenizer\.json of the library tokenizers, found .*other\.json"):
        rlm.run_study(rlm.StudyConfig(**SETTINGS, tokenizer=str(path)), 1, progress=False)
    with pytest.raises(InputError, match=r"found .*none\.json: .*No such file"):
        find_split(str(tmp_path / "none.json"))


def test_what_does_not_fit_pieces_is_refused(tokenizer):
    with pytest.raises(ValidationError, match="expected no word_vectors or tokenizer for the encoder dssm"):
        rlm.StudyConfig(encoder="dssm", tokenizer=str(tokenizer))
    with pytest.raises(ValidationError, match="found tokenizer, which all arms of a study share"):
        rlm.StudyConfig(arms=("scratch", f"pieces: tokenizer={tokenizer}"))


def test_a_missing_library_names_its_extra(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    path.write_text('{"some": "tokenizer"}')
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'rlm\[subwords\]'"):
        find_split(str(path))


def test_a_transformer_embeds_the_pieces_of_a_phrase(tokenizer):
    """Not its words; tests/zoo compares what it computes with PyTorch."""
    config = rlm.StudyConfig(**SETTINGS, tokenizer=str(tokenizer))
    (slices,) = slice_for(config, load_corpus(config), [0])
    encoder = encoder_maker(config, slices.phrases)().eval()
    assert encoder.words.num_embeddings == len(slices.phrases.words) + 2
    longest = torch.from_numpy(slices.tokens[:1]).long()
    assert (longest != PAD).sum() > len(slices.phrases.texts[0].split())
