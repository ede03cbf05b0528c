"""A smoke run of the benchmarks' own code; `make bench` runs them in full."""

import json
from functools import partial
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from packaging.version import Version
from scipy import stats
from torch_twin import TorchTwin

import rlm
from benchmarks import calibration, contestants, experiment, gpu, growth, minilm, new_data, reading, unlabelled
from benchmarks.resume import complete


@pytest.mark.parametrize("encoder", ["lstm", "mean"])
def test_contestants_train(encoder):
    mine = contestants.ours("chatterbot-english", encoder, 2, "grouped", "rowwise_adam")
    assert list(islice(mine, 2)) == [300, 300]
    assert list(islice(contestants.hand_loop("chatterbot-english", encoder), 2)) == [150, 150]


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.11"),
    reason="older PyTorch cannot compile a step, and the benchmark times compiled steps only",
)
def test_the_benchmark_of_a_gpu_runs_on_the_cpu_in_its_place(tmp_path, monkeypatch):
    out = tmp_path / "gpu.json"
    given = ["--device", "cpu", "--blocks", "1", "--rounds", "2", "--seconds", "0.01", "--pairs", "0"]
    given += ["--datasets", "chatterbot-english", "--encoders", "mean", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["gpu", *given])
    gpu.main()
    found = json.loads(out.read_text())
    assert {row["contestant"] for row in found["rows"]} == {"hand loop", "rlm, fp32", "rlm, bf16"}
    assert all(row["triplets_per_second"] > 0 for row in found["rows"])
    assert "the CPU in place of a GPU" in gpu.render(found)


def test_a_whole_study_is_timed():
    small = {"dataset": "chatterbot-english", "random_triplets": 100, "epoch_triplets": 100, "max_epochs": 1}
    found = gpu.time_study("mean", 2, 1, "cpu", **small)
    assert found["minutes"] > 0
    assert found["epochs of fine-tuning"] == 1


def test_the_table_of_a_gpu_compares_round_by_round():
    """The hand loop gets faster by the round, and so does the block: the ratio is the same in all."""
    rows = [
        {"dataset": "chatterbot-english", "encoder": "mean", "seeds": seeds, "contestant": name, "round": round_}
        | {"triplets_per_second": speed * (1 + round_), "memory": 2e9, "flop": 1000, "bytes": 100}
        for name, seeds, speed in [("hand loop", 1, 1e4), ("rlm, fp32", 2, 4e4), ("rlm, bf16", 2, 5e4)]
        for round_ in range(3)
    ]
    limits = {"bytes": 1e8, "fp32": 1e10, "bf16": 1e11}
    found = {"rows": rows, "limits": limits, "bf16 as": "bf16", "device": "a GPU", "versions": "", "studies": []} | {
        "command": ""
    }
    table = gpu.tabulate(found, "chatterbot-english", "mean").set_index("contestant")
    assert table["triplets/s"].tolist() == [20_000, 80_000, 100_000]
    assert table["x hand loop"].tolist() == [1, 4, 5]
    assert table["% of products"].tolist() == pytest.approx([0.2, 0.8, 0.1])
    assert table["% of bandwidth"].tolist() == pytest.approx([2, 8, 10])
    last = next(line for line in gpu.render(found).splitlines() if line.startswith("| rlm, bf16"))
    assert [cell.strip() for cell in last.strip("|").split("|")][:4] == ["rlm, bf16", "2", "100,000", "5"]


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
    for options, parts in ((["--parts", "1"], 1), (["--only", "german"], 1), ([], 4), (["--page"], 4)):
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


def test_the_experiment_trains_both_lengths_in_one_part(tmp_path, monkeypatch):
    """The part of more epochs has the rows of the other one, which is then not trained, and are those it has alone."""
    trained, tiny = [], {"max_epochs": 1, "patience": 1, "random_triplets": 200, "compile": False}
    monkeypatch.setattr(experiment, "EPOCHS", (2, 1))
    monkeypatch.setattr(experiment, "SEEDS_AT_ONCE", 2)
    whole = experiment.configure
    monkeypatch.setattr(experiment, "configure", lambda *key: whole(*key).model_copy(update=tiny))

    def train(*key):
        trained.append(key)
        return experiment.train(*key)

    keys = [("chatterbot-english", "mean", epochs, "redrawn", 0) for epochs in (2, 1)]
    found = {}
    for name, some in {"both": keys, "alone": keys[1:]}.items():
        parts = {key: partial(train, *key) for key in some}
        found[name] = complete(tmp_path / f"{name}.csv", experiment.KEYS, parts)
    assert trained == keys
    both, alone = (some.query("pretrain_epochs == 1").reset_index(drop=True) for some in found.values())
    pd.testing.assert_frame_equal(both[list(alone)], alone, check_exact=True)
    assert set(found["both"]["arm"]) == set(experiment.ARMS["redrawn"])


def test_intervals_for_other_data_are_simulated():
    (sizes, few) = new_data.cluster_sizes().values()
    assert len(few) < len(sizes)
    found = new_data.simulate(sizes, 10, "clusters dominate", "normal", 20)
    assert found["over seeds"] < found["over seeds and clusters"]
    assert found["times as wide"] > 1


def test_the_page_of_minilm_has_its_command_a_row_per_arm_and_the_verdict():
    seeds = np.arange(10)
    arms = {"scratch": 0.7 + 0.01 * seeds, "pretrained": 0.72 + 0.011 * seeds}
    tables = [pd.DataFrame({"arm": arm, "seed": seeds, "test_accuracy": found}) for arm, found in arms.items()]
    results = pd.concat(tables, ignore_index=True)
    page = minilm.render(results, "python -m benchmarks.minilm", "some data")
    assert rlm.compare(results, "pretrained").text in page
    assert [line.split()[1] for line in page.splitlines() if line.startswith("| ")] == ["arm", "scratch", "pretrained"]
    assert "By `python -m benchmarks.minilm` on" in page
