"""Controls keep of pre-trained weights what they should, and destroy the rest."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs

import rlm
from rlm.arms import measure_change, train_arms
from rlm.controls import control_block
from rlm.data.phrases import PAD

SEEDS = (3, 1, 4)
CONTROLS = [rlm.controls.rescale, rlm.controls.shuffle, rlm.controls.shuffle_change]
rescale, shuffle, shuffle_change = (partial(control_block, control) for control in CONTROLS)


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
    initial, pretrained = blocks
    control = shuffle(initial, pretrained)
    moved = 0
    for name, weight in control.weights.items():
        for found, after in zip(weight, pretrained.weights[name], strict=True):
            torch.testing.assert_close(found.flatten().sort().values, after.flatten().sort().values, rtol=0, atol=0)
            moved += bool((found != after).any())
    assert moved > len(control.weights)


def test_a_shuffled_change_is_that_of_pretraining_on_the_initial_weights(blocks):
    initial, pretrained = blocks
    for name, weight in shuffle_change(initial, pretrained).weights.items():
        for found, before, after in zip(weight, initial.weights[name], pretrained.weights[name], strict=True):
            expected = (after - before).flatten().sort().values
            torch.testing.assert_close((found - before).flatten().sort().values, expected, rtol=1e-4, atol=1e-6)
            assert (found != after).any()


@pytest.mark.parametrize("control", [rescale, shuffle, shuffle_change])
def test_controls_leave_the_words_that_pretraining_never_read(slices, blocks, control):
    initial, pretrained = blocks
    words = control(initial, pretrained).weights["words.weight"]
    is_read = np.isin(np.arange(slices.vocabulary_size), slices.tokens[np.unique(slices.train)])
    is_read[PAD] = False  # its vector has no influence
    is_same = (words == initial.weights["words.weight"]).all(dim=2)
    assert is_same[:, is_read].float().mean() < 0.05  # words of phrases that were never drawn
    assert is_same[:, ~is_read].all()


def test_the_change_of_the_start_is_that_of_the_matrix_that_changes_most(blocks):
    initial, pretrained = blocks
    assert not measure_change(initial, initial).any()
    for row, found in enumerate(measure_change(initial, pretrained)):
        matrices = [
            (weight[row].numpy(), initial.weights[name][row].numpy())
            for name, weight in pretrained.weights.items()
            if "bias" not in name
        ]
        expected = max(np.linalg.norm(after - before) / np.linalg.norm(before) for after, before in matrices)
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_matrix_that_begins_at_zero_has_no_change(blocks):
    initial, start = (replace(blocks[0], weights={"up": torch.full((3, 2, 2), value)}) for value in (0.0, 1.0))
    assert measure_change(initial, start).tolist() == [0, 0, 0]


def test_a_seed_is_shuffled_alike_in_any_company(blocks):
    initial, pretrained = blocks
    together, alone = shuffle(initial, pretrained), shuffle(initial.rows([2]), pretrained.rows([2]))
    for name, weight in alone.weights.items():
        torch.testing.assert_close(weight[0], together.weights[name][2], rtol=0, atol=0)


def test_without_pretraining_the_rescaled_are_the_initial_ones(blocks):
    initial, _ = blocks
    for name, weight in rescale(initial, initial).weights.items():
        torch.testing.assert_close(weight, initial.weights[name], rtol=0, atol=0)


def test_a_study_runs_all_arms(slices):
    arms = ("scratch", "pretrained", "pretrained_once", "rescaled", "shuffled", "shuffled_change")
    config = rlm.StudyConfig(encoder="mean", word_dim=4, dim=5, arms=arms, pretrain_epochs=1, max_epochs=1)
    data = topic_pairs(np.random.default_rng(0), topics=8, pairs=100)
    results = rlm.run_study(config, 2, data=data, n_jobs=1, progress=False)
    accuracy = results.pivot(index="seed", columns="arm", values="test_accuracy")
    assert list(pd.unique(results["arm"])) == list(arms)
    assert accuracy.notna().all(axis=None)
    unchanged = rlm.run_study(config.model_copy(update={"pretrain_epochs": 0}), 2, data=data, n_jobs=1, progress=False)
    same = unchanged.pivot(index="seed", columns="arm", values="test_accuracy")
    assert same.eq(same["scratch"], axis="index").all(axis=None)
    change = results.groupby("arm")["start_change"]
    assert change.max()["scratch"] == 0 < change.min().drop("scratch").min()
    assert (unchanged["start_change"] == 0).all()


def test_only_the_transferred_layers_are_pretrained(slices):
    """Without further training, a study's start differs from scratch in the first layers only."""
    config = rlm.StudyConfig(encoder="mean", word_dim=4, dim=5, pretrain_epochs=2, max_epochs=0, learning_rate=0.05)
    starts = {}
    for layers in (None, 0, 1, 2):
        given = config.model_copy(update={"transfer": layers})
        (trained,) = train_arms(given, [slices] * 2, ["pretrained"], [0, 1])
        starts[layers] = trained.block.weights
    for name, weight in starts[None].items():
        assert not torch.equal(weight, starts[0][name])
        torch.testing.assert_close(weight, starts[2][name], rtol=0, atol=0)
        torch.testing.assert_close(starts[1][name], starts[None if name == "words.weight" else 0][name], rtol=0, atol=0)


def test_more_layers_than_there_are_cannot_be_transferred():
    config = rlm.StudyConfig(encoder="mean", transfer=3)
    with pytest.raises(rlm.InputError, match="expected to transfer at most 2 layers, which mean has, found 3"):
        rlm.run_study(config, 1, n_jobs=1, progress=False)
