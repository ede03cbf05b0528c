"""
A GPU must give what the CPU gives, for every encoder, loss, optimizer and experiment.

python -m pytest --override-ini addopts= tests/engine/test_gpu.py

Without that option types are checked as tests run, and what is so checked cannot be compiled.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs

import rlm
from rlm.arms import seeds_that_fit, train_arms
from rlm.data.corpus import index_corpus
from rlm.slicer import Components
from rlm.study import slice_for
from rlm.variants import ARMS
from rlm.zoo.encoders import ENCODERS
from rlm.zoo.losses import LOSSES

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("error:training continues without compilation"),
]
is_checked = hasattr(rlm.init_block, "__wrapped__")
compiled = pytest.param(True, marks=pytest.mark.skipif(is_checked, reason="what checks types cannot be compiled"))
RUNS = {"pretrain_epochs": 1, "max_epochs": 2, "patience": 2, "batch_size": 20, "word_dim": 8, "dim": 16}


@pytest.fixture(scope="module")
def data():
    return topic_pairs(np.random.default_rng(0), topics=8, pairs=20)


def train(data: pd.DataFrame, device: str, seeds: int = 2, **settings: object) -> list[pd.DataFrame]:
    """Return the losses of pre-training and of fine-tuning, arm by arm, seed by seed."""
    config = rlm.StudyConfig(device=device, arms=("pretrained", "rescaled"), **RUNS | settings)
    corpus = index_corpus(data)
    slices = slice_for(config, corpus, range(seeds))
    found = train_arms(config, slices, config.arms, range(seeds))
    return [table for arm in found for table in (arm.pretraining, arm.history)]


def check_equal(data: pd.DataFrame, tolerance: float = 2e-3, **settings: object) -> None:
    for found, expected in zip(train(data, "cuda", **settings), train(data, "cpu", **settings), strict=True):
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("compile", [False, compiled])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_trains_as_on_the_cpu(encoder, compile, data):
    check_equal(data, encoder=encoder, compile=compile)


@pytest.mark.parametrize("compile", [False, compiled])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_as_on_the_cpu(loss, compile, data):
    check_equal(data, encoder="mean", loss=loss, compile=compile)


@pytest.mark.parametrize("compile", [False, compiled])
@pytest.mark.parametrize("optimizer", ["rowwise_adam", "nadam"])
def test_every_optimizer_trains_as_on_the_cpu(optimizer, compile, data):
    check_equal(data, encoder="lstm", optimizer=optimizer, batching="grouped", compile=compile)


@pytest.mark.parametrize("redraw", ["epoch", "once"])
def test_random_triplets_are_those_of_the_cpu(redraw):
    components = Components(*np.arange(90, dtype=np.int32).reshape(3, 30))
    cpu, gpu = (rlm.RandomTriplets(components, 0, 1000, redraw, 3, device) for device in ("cpu", "cuda"))
    for drawn, expected in zip(gpu.epoch(2, chunk=7), cpu.epoch(2, chunk=7), strict=True):
        assert drawn.tolist() == expected.tolist()


def test_splits_per_seed_train_as_on_the_cpu(data):
    check_equal(data, encoder="lstm", split="per_seed", optimizer="rowwise_adam")


@pytest.mark.parametrize("compile", [False, compiled])
def test_bf16_is_near_fp32(compile, data):
    lower, full = (train(data, "cuda", precision=name, compile=compile) for name in ("bf16", "fp32"))
    for found, expected in zip(lower, full, strict=True):
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0.05)


def test_a_study_stores_blocks_and_goes_on(data, tmp_path):
    config = rlm.StudyConfig(device="cuda", encoder="mean", arms=tuple(ARMS), **RUNS)
    settings = {"data": data, "block_size": 2, "progress": False}
    rlm.run_study(config, 2, db=tmp_path / "study.db", **settings)
    blocks = list(rlm.iter_study(config, 4, db=tmp_path / "study.db", **settings))
    assert blocks[0].results["seed"].unique().tolist() == [0, 1]  # from the store
    found = rlm.study.join(blocks, config.arms).results
    expected = rlm.run_study(config.model_copy(update={"device": "cpu"}), 4, n_jobs=1, **settings)
    columns = ["arm", "seed"]
    both = found.merge(expected, on=columns, suffixes=("", "_cpu"), validate="1:1")
    assert len(both) == 4 * len(ARMS)
    assert np.mean(np.isclose(both["test_accuracy"], both["test_accuracy_cpu"], atol=0.02)) > 0.9


def test_random_labels_are_memorised_as_on_the_cpu():
    digits = rlm.labels.load_digits(200)
    found = {}
    for device in ("cuda", "cpu"):
        config = rlm.labels.LabelsConfig(encoder="mlp", shuffle_epochs=2, max_epochs=2, device=device)
        found[device] = rlm.labels.run_labels(config, 2, samples=digits, n_jobs=1, progress=False).results
    difference = found["cuda"]["test_accuracy"] - found["cpu"]["test_accuracy"]
    assert difference.abs().max() < 0.1


@pytest.mark.parametrize("settings", [{}, {"loss": "in_batch"}, {"loss": "facenet"}, {"encoder": "lstm(cnn)"}])
def test_the_estimate_of_memory_is_not_exceeded(settings, data):
    """A block of as many seeds as are said to fit must fit: the estimate says half of what is free, and no less."""
    config = rlm.StudyConfig(device="cuda", arms=("pretrained",), compile=False, **settings)
    corpus = index_corpus(data)
    free, _ = torch.cuda.mem_get_info()
    seeds = 32
    of_one = free / 2 / seeds_that_fit(config, corpus, torch.device("cuda"))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    list(train_arms(config, slice_for(config, corpus, range(seeds)), config.arms, range(seeds)))
    used = (torch.cuda.max_memory_allocated() - before) / seeds
    print(f"{settings}: {used / 1e6:.1f} MB a seed, {of_one / 1e6:.1f} estimated")
    assert used < of_one
