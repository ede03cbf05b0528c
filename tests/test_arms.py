"""Controls keep of pre-trained weights what they should, and destroy the rest."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs

import rlm
from rlm.arms import rescale, shuffle

SEEDS = (3, 1, 4)


@pytest.fixture(scope="module")
def slices():
    return rlm.slice_corpus(rlm.index_corpus(topic_pairs(np.random.default_rng(0), topics=8, pairs=100)), negatives=2)


@pytest.fixture(scope="module")
def blocks(slices):
    initial = rlm.init_block(lambda: rlm.zoo.LSTMEncoder(slices.vocabulary_size, 4, 5), SEEDS)
    return initial, rlm.pretrain(initial, slices, rlm.Recipe(learning_rate=0.05), epochs=2, progress=False)[0]


def test_rescaled_weights_are_the_initial_ones_with_mean_and_spread_of_the_pretrained(blocks):
    initial, pretrained = blocks
    control = rescale(initial, pretrained)
    for name, weight in control.weights.items():
        for row in range(len(SEEDS)):
            found, before, after = (
                w[row].numpy().ravel() for w in (weight, initial.weights[name], pretrained.weights[name])
            )
            np.testing.assert_allclose([found.mean(), found.std()], [after.mean(), after.std()], rtol=1e-3, atol=1e-6)
            if before.std() > 0 and after.std() > 0:
                assert np.corrcoef(found, before)[0, 1] > 0.9999


def test_shuffled_weights_are_the_pretrained_ones_in_another_order(blocks):
    _, pretrained = blocks
    control = shuffle(pretrained)
    moved = 0
    for name, weight in control.weights.items():
        for found, after in zip(weight, pretrained.weights[name], strict=True):
            torch.testing.assert_close(found.flatten().sort().values, after.flatten().sort().values, rtol=0, atol=0)
            moved += bool((found != after).any())
    assert moved > len(control.weights)


def test_a_seed_is_shuffled_alike_in_any_company(blocks):
    _, pretrained = blocks
    together, alone = shuffle(pretrained), shuffle(pretrained.rows([2]))
    for name, weight in alone.weights.items():
        torch.testing.assert_close(weight[0], together.weights[name][2], rtol=0, atol=0)


def test_without_pretraining_the_rescaled_are_the_initial_ones(blocks):
    initial, _ = blocks
    for name, weight in rescale(initial, initial).weights.items():
        torch.testing.assert_close(weight, initial.weights[name], rtol=0, atol=0)


def test_a_study_runs_all_five_arms(slices):
    arms = ("scratch", "pretrained", "pretrained_once", "rescaled", "shuffled")
    config = rlm.StudyConfig(encoder="mean", word_dim=4, dim=5, arms=arms, pretrain_epochs=1, max_epochs=1)
    data = topic_pairs(np.random.default_rng(0), topics=8, pairs=100)
    results = rlm.run_study(config, 2, data=data, n_jobs=1, progress=False)
    accuracy = results.pivot(index="seed", columns="arm", values="test_accuracy")
    assert list(pd.unique(results["arm"])) == list(arms)
    assert accuracy.notna().all(axis=None)
    unchanged = rlm.run_study(config.model_copy(update={"pretrain_epochs": 0}), 2, data=data, n_jobs=1, progress=False)
    same = unchanged.pivot(index="seed", columns="arm", values="test_accuracy")
    assert (same["rescaled"] == same["scratch"]).all()
