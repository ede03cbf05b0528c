"""A smoke run of the benchmarks' own code; `make bench` runs them in full."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch_twin import TorchTwin

from benchmarks import calibration, contestants, gpu, growth, performance, reading, unlabelled


@pytest.mark.parametrize("encoder", ["lstm", "mean"])
def test_contestants_train(encoder):
    mine = contestants.ours("chatterbot-english", encoder, 2, "grouped", "rowwise_adam")
    assert list(islice(mine, 2)) == [300, 300]
    assert list(islice(contestants.hand_loop("chatterbot-english", encoder), 2)) == [150, 150]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_contestants_train_on_a_gpu():
    for function, arguments in gpu.settings("mean", "chatterbot-english", 2).values():
        assert next(getattr(contestants, function)(**arguments)) % 150 == 0


def test_the_table_of_a_gpu_compares_round_by_round():
    speeds = {"hand loop": 1e4, "rlm, fp32": 4e4, "rlm, bf16": 5e4}
    rows = [
        {"dataset": "pqa", "encoder": "mean", "seeds": 2, "contestant": name, "round": round_, "device": "a GPU"}
        | {"triplets_per_second": speed * (1 + round_), "bf16 as": "bf16"}
        for name, speed in speeds.items()
        for round_ in range(3)
    ]
    *_, last = performance.gpu_section(rows).splitlines()
    assert [cell.strip() for cell in last.strip("|").split("|")] == ["2", "20,000", "80,000", "100,000", "4", "5"]


def test_pytorch_metric_learning_has_the_same_loss(monkeypatch):
    pytest.importorskip("pytorch_metric_learning")
    values = {"by hand": [], "pml": []}
    for loss, seen in values.items():
        contestants.torch.manual_seed(0)
        backward = contestants.Tensor.backward
        with monkeypatch.context() as patch:
            patch.setattr(
                contestants.Tensor, "backward", lambda self, s=seen, b=backward: (s.append(self.item()), b(self))
            )
            list(islice(contestants.hand_loop("chatterbot-english", "mean", loss), 2))
    assert len(values["pml"]) == 2
    np.testing.assert_allclose(values["pml"], values["by hand"], rtol=1e-4)


def test_growth_measures_draws(monkeypatch):
    monkeypatch.setattr(contestants.torch, "set_num_threads", lambda _: None)  # for a process of its own
    found = growth.random_triplets(1000, "once")
    assert found["drawn"] == 20_000
    assert found["seconds"] > 0


def test_both_readers_find_the_same_rows(tmp_path):
    reading.write_triplets(tmp_path / "triplets.tsv", 2000)
    rows = reading.by_rlm(tmp_path / "triplets.tsv")
    assert rows == reading.by_dictionaries(tmp_path / "triplets.tsv")
    assert 1900 < rows < 2000


def test_the_hand_encoder_is_the_same_model():
    slices = contestants.slices_of("chatterbot-english")
    model = contestants.HandEncoder("lstm", slices.vocabulary_size)
    tokens, lengths = contestants.hand_tokens(slices)
    own = {"weight_ih": "weight_ih_l0", "weight_hh": "weight_hh_l0", "bias_ih": "bias_ih_l0", "bias_hh": "bias_hh_l0"}
    weights = {f"cell.{mine}": getattr(model.lstm, theirs) for mine, theirs in own.items()}
    twin = TorchTwin("lstm", weights | {"words.weight": model.words.weight})
    some = contestants.torch.arange(0, len(slices.phrases), 50)
    found = model(tokens[some], lengths[some]).detach().numpy()
    expected = twin(contestants.torch.from_numpy(slices.tokens)[some]).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_calibration_finds_false_verdicts_as_rare_as_they_are():
    """A small version: shapes of the real runs that the project keeps."""
    pools = pd.read_csv("docs/benchmarks/pools.csv")
    shapes = [calibration.smoothed(runs["test_accuracy"].to_numpy()) for _, runs in pools.groupby("pool")]
    for draw in shapes:
        found = calibration.fixed_cell("shape", draw, draw, 10, 0.0, 150)
        assert found["helps"] + found["hurts"] <= stats.binom.ppf(0.999, 150, 0.05) / 150
        assert found["difference"] >= stats.binom.ppf(0.001, 150, 0.93) / 150
    planted = calibration.fixed_cell("shape", shapes[0], shapes[0], 20, 0.2, 20)
    assert planted["helps"] == 1
    watched = calibration.watched_cell("shape", *shapes, 40)
    assert watched["ever_excluded"] <= stats.binom.ppf(0.999, 40, 0.05) / 40
    dealt = calibration.aa_studies(pools["test_accuracy"].to_numpy(), 10, 5)
    assert 0 <= dealt["low"] <= dealt["false"] / 5 <= dealt["high"]


def test_unlabelled_goes_on_where_it_stopped(tmp_path, monkeypatch):
    tiny = {"pretrain_epochs": 1, "max_epochs": 1, "epoch_triplets": 300, "random_triplets": 300}
    changed = {"DATASETS": ("chatterbot-french",), "LABELLED": (20, 0), "TEXTS": ("none", "own"), "SEEDS": 2}
    changed |= {"SETTINGS": unlabelled.SETTINGS | tiny, "DOCS": tmp_path, "RESULTS": tmp_path / "unlabelled.csv"}
    for name, value in changed.items():
        monkeypatch.setattr(unlabelled, name, value)
    for options, parts in ((["--parts", "1"], 1), ([], 4), (["--page"], 4)):
        monkeypatch.setattr("sys.argv", ["unlabelled", *options])
        unlabelled.main()
        found = pd.read_csv(tmp_path / "unlabelled.csv")
        assert len(found) == parts * 8
        assert not found.duplicated([*unlabelled.KEYS, "arm", "seed"]).any()
    page = (tmp_path / "unlabelled.md").read_text()
    assert page.count("| chatterbot-french") == 12
    assert "still to be trained" not in page
    triplets = unlabelled.rlm.prepare(unlabelled.configure("chatterbot-french", 20)).train
    assert len(np.unique(np.sort(triplets[:, :2], axis=1), axis=0)) == 20
