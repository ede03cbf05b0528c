"""Models of sentence-transformers: trained by its trainer on our triplets, and judged."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs

import rlm
from rlm.systems.backbones import load_backbone, measure, triplet_loss

pytest.importorskip("accelerate")
SETTINGS = {"batch_size": 16, "learning_rate": 0.05, "triplets": 40, "progress": False}


@pytest.fixture(scope="module")
def slices():
    data = topic_pairs(np.random.default_rng(0), topics=8, pairs=60)
    return rlm.slice_corpus(rlm.index_corpus(data), min_count=1, fractions=(0.5, 0.25, 0.25), negatives=2)


@pytest.fixture(scope="module")
def model(slices):
    config = rlm.StudyConfig(encoder="mean", word_dim=8, dim=6, loss="facenet")
    block = rlm.init_block(rlm.arms.encoder_maker(config, slices.phrases), (3,))
    return rlm.models.Model.of(block, slices, config)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone") / "folder"
    model.to_sentence_transformers(folder)
    return folder


def values(results):
    return results.drop(columns="seconds").sort_values(["arm", "seed"], ignore_index=True)


def test_a_model_is_measured_as_the_block_that_it_was(model, slices, folder):
    found = measure(load_backbone(str(folder)), slices)
    expected = rlm.evaluate(model.block, slices)
    accuracy = np.concatenate(list(found["test_accuracy"].values())).mean()
    assert accuracy == pytest.approx(expected["triplet_accuracy"][0])
    assert found["roc_auc"] == pytest.approx(expected["roc_auc"][0])


def test_arms_differ_by_their_start_alone_and_a_study_continues(slices, folder, tmp_path):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    arms, losses = ["scratch", "pretrained", "rescaled", "shuffled"], {"in batch": MultipleNegativesRankingLoss}
    settings = SETTINGS | {"losses": losses, "db": tmp_path / "study.db"}
    first = rlm.systems.sentence_transformers(folder, slices, arms, 1, **settings)
    assert (first["error"] == "").all()
    assert first["arm"].tolist() == [*arms, "in batch"]
    found = first.set_index("arm")["roc_auc"]
    assert found[arms].nunique() == 4
    assert found["in batch"] != found["scratch"]
    before = torch.get_num_threads()
    results = rlm.systems.sentence_transformers(folder, slices, arms, [0, 5], **settings)
    assert results.merge(first).shape == first.shape  # not trained again: also the seconds are the same
    alone = rlm.systems.sentence_transformers(folder, slices, ["scratch", "shuffled"], [5], **SETTINGS)
    pd.testing.assert_frame_equal(
        values(alone), values(results[(results["seed"] == 5) & results["arm"].isin(["scratch", "shuffled"])])
    )
    assert len(rlm.external.read_judged(tmp_path / "study.db").finished.clusters)
    assert torch.get_num_threads() == before


def test_without_random_triplets_every_arm_is_scratch(slices, folder):
    settings = SETTINGS | {"pretrain_epochs": 0, "epochs": 2}
    results = rlm.systems.sentence_transformers(folder, slices, ["scratch", "pretrained", "shuffled"], 1, **settings)
    assert results["roc_auc"].nunique() == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arms": ["scratch", "best"]}, "expected arms of scratch, .* found 'best'"),
        ({"losses": {"scratch": triplet_loss}}, "other names for losses, found 'scratch'"),
        ({"epochs": -1}, "expected epochs of at least 0"),
        ({"triplets": 0}, "triplets and batch_size of at least 1"),
        ({"model": "no/such/folder/here"}, "expected a model of sentence-transformers, found no/such"),
    ],
)
def test_requests_that_cannot_be_met_are_explained(slices, folder, changed, message):
    with pytest.raises(rlm.InputError, match=message):
        rlm.systems.sentence_transformers(**{"model": folder, "slices": slices, "seeds": 1} | changed)
