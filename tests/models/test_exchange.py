"""Saved models as modules of sentence-transformers."""

import numpy as np
import pytest
import torch
from conftest import topic_pairs

import rlm
from rlm.zoo import ENCODERS, LOSSES

HARD = [
    "",
    "...",
    "Ёлка ещё",
    "don't WAIT—now",
    "кое-как’s",
    "soft\u00adhyphen",
    "ラー、5杯",
    "हिन्दी में",
    "unseen topic1",
]


@pytest.fixture(scope="module")
def texts():
    pairs = topic_pairs(np.random.default_rng(0), topics=8, pairs=100)
    return [*pairs["anchor"], *HARD, "serial1, TOPIC1; topic2", " ".join(f"topic{i % 8}" for i in range(50))]


@pytest.fixture
def make():
    data = topic_pairs(np.random.default_rng(0), topics=8, pairs=100)
    slices = rlm.slice_corpus(rlm.index_corpus(data), min_count=1)

    def make(**settings):
        config = rlm.StudyConfig(**{"encoder": "mean", "word_dim": 4, "dim": 5} | settings)
        block = rlm.init_block(rlm.arms.encoder_maker(config, slices.phrases), (3,))
        return rlm.models.Model.of(block, slices, config)

    return make


@pytest.mark.parametrize("loss", ["triplet", "facenet", "lossless"])
def test_sentence_transformers_computes_the_same_embeddings(make, texts, tmp_path, loss):
    from sentence_transformers import SentenceTransformer

    model = make(loss=loss)
    assert LOSSES[loss].output == {"triplet": None, "facenet": "unit", "lossless": "sigmoid"}[loss]
    model.to_sentence_transformers(tmp_path / "folder")
    loaded = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    found = loaded.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-6)
    assert found.std() > 0.01
    assert "library_name: sentence-transformers" in (tmp_path / "folder" / "README.md").read_text()


@pytest.mark.parametrize("encoder", ["mean", "lstm", "bilstm", "lstm(lstm)"])
@pytest.mark.parametrize("loss", ["triplet", "facenet", "lossless"])
def test_onnx_computes_the_same_embeddings(make, texts, tmp_path, encoder, loss):
    import onnxruntime
    from tokenizers import Tokenizer

    model = make(encoder=encoder, loss=loss)
    model.to_onnx(tmp_path / "folder")
    tokenizer = Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    session = onnxruntime.InferenceSession(tmp_path / "folder" / "model.onnx")
    for some in (texts, texts[:1], ["topic1", ""]):
        tokens = np.array([one.ids for one in tokenizer.encode_batch(some)])
        (found,) = session.run(None, {"tokens": tokens})
        np.testing.assert_allclose(found, model.encode(some), atol=1e-6)
    assert found.std() > 0.01


def test_the_card_has_verdict_seeds_and_data(make, tmp_path, pairs):
    db = tmp_path / "study.db"
    config = rlm.StudyConfig(dataset=str(pairs), encoder="mean", word_dim=4, dim=5, pretrain_epochs=1, max_epochs=1)
    results = rlm.run_study(config, 10, db=db, n_jobs=1, progress=False)
    make().to_sentence_transformers(tmp_path / "folder", db)
    card = (tmp_path / "folder" / "README.md").read_text()
    clusters = rlm.read_study(db).finished.clusters
    assert rlm.compare_all(results, clusters=clusters)["pretrained"].text in card
    assert "10 (0 to 9), in 20 runs" in card or "10 (0-9), in 20 runs" in card or "in 20 runs" in card
    assert "data, SHA-256" in card


def test_the_card_judges_by_the_metric_of_the_study(make, tmp_path, pairs):
    db = tmp_path / "study.db"
    config = rlm.StudyConfig(dataset=str(pairs), encoder="mean", word_dim=4, dim=5, pretrain_epochs=1, max_epochs=1)
    rlm.run_study(config, 10, db=db, n_jobs=1, metric="top_1", progress=False)
    make().to_sentence_transformers(tmp_path / "folder", db)
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "mean top 1 was" in card
    assert "mean test accuracy" not in card


@pytest.mark.parametrize("encoder", sorted(set(ENCODERS) - {"mean"}))
def test_what_their_modules_cannot_compute_is_named(make, tmp_path, encoder):
    name = ENCODERS[encoder].__name__
    with pytest.raises(rlm.InputError, match=f"found the encoder {name}, for which it has no modules; use"):
        make(encoder=encoder).to_sentence_transformers(tmp_path / "folder")
    if encoder in ("dssm", "lstm(cnn)", "transformer"):
        with pytest.raises(rlm.InputError, match=f"ONNX can compute, found the encoder {name}.* mean with masked"):
            make(encoder=encoder).to_onnx(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_other_obstacles_and_places_are_explained(make, tmp_path):
    with pytest.raises(rlm.InputError, match="found left padding, which the encoder reads"):
        make(padding="left").to_sentence_transformers(tmp_path / "folder")
    with pytest.raises(rlm.InputError, match="expected a new folder, found"):
        make().to_sentence_transformers(tmp_path)
    assert torch.is_grad_enabled()
