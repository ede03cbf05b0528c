"""Explanations follow from the numbers: of controls, and of what limits a verdict."""

import numpy as np
import pandas as pd
import pytest

from rlm import explain
from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.verdict import compare_all


def study(pairs=20, spread=0.005, **gains):
    rng = np.random.default_rng(0)
    scratch = rng.normal(0.65, 0.02, pairs)
    arms = {"scratch": 0.0, "pretrained": 0.0, "rescaled": 0.0, "shuffled": 0.0} | gains
    parts = [
        pd.DataFrame({"arm": arm, "seed": range(pairs), "test_accuracy": scratch + gain + rng.normal(0, spread, pairs)})
        for arm, gain in arms.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("gains", "conclusion"),
    [
        ({}, "makes no difference of 1 point or more, so there is no gain to explain"),
        ({"spread": 0.03}, "is not shown to help here, so there is no gain to explain"),
        ({"pretrained": 0.03}, "better than rescaled and shuffled, so"),
        ({"pretrained": 0.03, "rescaled": 0.03}, "better than shuffled and is not shown to do better than rescaled"),
        (
            {"pretrained": 0.03, "rescaled": 0.03, "shuffled": 0.03},
            "same as rescaled and shuffled within 1 point: the scale of the weights explains the gain",
        ),
        (
            {"pretrained": 0.06, "rescaled": 0.06, "shuffled": 0.06, "spread": 0.03},
            "not shown to do better than rescaled or shuffled",
        ),
        (
            {"pretrained": -0.03},
            "there is no gain to explain. It does worse than rescaled and shuffled: what these keep of it",
        ),
        ({"pretrained": -0.03, "rescaled": -0.03, "shuffled": -0.03}, "there is no gain to explain"),
        ({"pretrained": 0.03, "pairs": 5}, "These are too few seeds for a conclusion"),
    ],
)
def test_the_conclusion_is_that_of_the_planted_gains(gains, conclusion):
    text = explain.controls(study(**gains))
    assert conclusion in text


def test_controls_that_hurt_explain_no_gain():
    """Beating weights that were destroyed is no gain where pre-training itself does nothing."""
    text = explain.controls(study(rescaled=-0.03, shuffled=-0.04))
    assert "makes no difference of 1 point or more, so there is no gain to explain" in text
    assert "what it learnt matters" not in text


@pytest.mark.parametrize("gain", [0.0, 0.002, 0.004, 0.006])
@pytest.mark.parametrize("watched", [False, True])
def test_never_contradicts_the_verdict_beside_it(gain, watched):
    results = study(pretrained=gain, rescaled=-0.03, shuffled=-0.03)
    results.attrs["watched"] = watched
    verdict, text = compare_all(results)["pretrained"], explain.controls(results)
    explains = "what it learnt matters" in text
    assert explains == (verdict.decision == "helps")
    difference = verdict.anytime if watched else verdict.difference
    assert f"Pre-training changes the test accuracy by {difference.format(100, '+')} points" in text


def test_a_control_that_hardly_changes_the_weights_tests_nothing():
    change = {"scratch": 0.0, "pretrained": 0.21, "rescaled": 0.02, "shuffled": 1.2}
    for gains, conclusion in [
        ({"pretrained": 0.03}, "It does better than shuffled, so what it learnt matters"),
        ({"pretrained": 0.03, "shuffled": 0.03}, "It is the same as shuffled within 1 point"),
    ]:
        results = study(**gains)
        text = explain.controls(results.assign(start_change=results["arm"].map(change)))
        assert conclusion in text
        assert "rescaled tests nothing here: it changes no weight matrix by more than 2.0% of its norm, where" in text
        assert "tests nothing" not in explain.controls(results.assign(start_change=0.2))
    alone = results[results["arm"] != "shuffled"]
    assert "cannot tell what explains the gain" in explain.controls(alone.assign(start_change=alone["arm"].map(change)))


def test_any_control_is_enough_and_none_is_not():
    results = study(pretrained=0.03)
    assert "better than rescaled, so" in explain.controls(results[results["arm"] != "shuffled"])
    more = results[results["arm"] == "shuffled"].assign(arm="shuffled_change")
    assert "better than rescaled and shuffled and shuffled_change" in explain.controls(
        pd.concat([results, more], ignore_index=True)
    )
    with pytest.raises(InputError, match="at least one of rescaled, shuffled, shuffled_change, found pretrained"):
        explain.controls(results[results["arm"].isin(["scratch", "pretrained"])])


def test_corrects_over_the_arms_of_the_headline():
    results = study(pretrained=0.03, rescaled=0.03)
    more = results[results["arm"] == "shuffled"].assign(arm="pretrained_once")
    results = pd.concat([results, more], ignore_index=True)
    assert compare_all(results)["pretrained"].difference.format(100, "+") in explain.controls(results)


def test_a_watched_study_is_explained_by_the_sequence():
    results = study(pairs=12, pretrained=0.004, rescaled=0.0, shuffled=0.0)
    assert explain.controls(results) != explain.controls(results, watched=True)
    results.attrs["watched"] = True
    assert explain.controls(results) == explain.controls(results, watched=True)


def results_of(*runs, arm="scratch"):
    """Runs of epochs, best epoch and test accuracy."""
    table = pd.DataFrame(runs, columns=["epochs", "best_epoch", "test_accuracy"])
    return table.assign(arm=arm, seed=range(len(table)), validation_accuracy=table["test_accuracy"])


CONFIG = StudyConfig(pretrain_epochs=3, max_epochs=6, patience=3)
FULL, STOPPED, STOPPED_AT_THE_END, LOST = (6, 5, 0.6), (4, 1, 0.6), (6, 3, 0.6), (6, 0, float("nan"))


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([FULL] * 3, "Every run was cut short by max_epochs"),
        ([FULL, FULL, STOPPED], "2 of 3 runs were cut short by max_epochs"),
        ([FULL, STOPPED, STOPPED_AT_THE_END], "1 of 3 runs was cut short by max_epochs"),
        ([FULL, LOST], "Every run was cut short"),
        ([STOPPED, STOPPED_AT_THE_END], None),
        ([LOST], None),
    ],
)
def test_runs_that_early_stopping_would_have_let_go_on_are_counted(runs, said):
    text = explain.limits(CONFIG, results_of(*runs))
    assert text.startswith("The encoder is lstm, trained for at most 6 epochs of fine-tuning.")
    assert ("cut short" in text) == (said is not None)
    assert said is None or said in text


def test_encoder_epochs_and_baseline_are_named():
    results = pd.concat([results_of(STOPPED), results_of(STOPPED, arm="pretrained")])
    config = CONFIG.model_copy(update={"pretrain_epochs": 1})
    text = explain.limits(config, results, "Transformer", overlap=0.704)
    assert text == (
        "The encoder is Transformer, trained for 1 epoch of pre-training and at most 6 epochs of fine-tuning. The "
        "overlap of character trigrams, which learns nothing, is right about 70.4% of the test triplets; this encoder "
        "from scratch is right about 60.0%."
    )
    assert "trigrams" not in explain.limits(config, results, overlap=0.5)
    assert "trigrams" not in explain.limits(config, results[results["arm"] == "pretrained"], overlap=0.7)


def test_without_fine_tuning_nothing_is_cut_short():
    config = CONFIG.model_copy(update={"max_epochs": 0})
    assert "cut short" not in explain.limits(config, results_of((0, 0, 0.5)))


def test_the_epochs_of_arms_are_a_range():
    arms = ("scratch", "long (max_epochs=30)", "pretrained", "p (pretrained, pretrain_epochs=1)")
    results = pd.concat([results_of(STOPPED, arm=arm) for arm in arms])
    said = "trained for 1 to 3 epochs of pre-training and at most 6 to 30 epochs of fine-tuning."
    assert said in explain.limits(CONFIG.model_copy(update={"arms": arms}), results)


class TestPretraining:
    def history(self, gaps):
        rows = [(seed, epoch, 0.5 + epoch * gap, 0.5, 1.0) for seed, gap in enumerate(gaps) for epoch in (0, 1)]
        return pd.DataFrame(rows, columns=["seed", "epoch", "seen_accuracy", "unseen_accuracy", "spread"])

    def test_a_diverged_seed_hides_nothing(self):
        gaps = np.random.default_rng(0).normal(0.4, 0.01, 20)
        known = explain.pretraining(self.history(gaps))
        assert known.startswith("Pre-training memorised in part")
        lost = explain.pretraining(self.history([*gaps, np.nan]))
        assert lost == f"{known} Dropped, without a final value: 1 seed (20)."
        assert explain.pretraining(self.history([np.nan])).startswith("No seed tells whether pre-training memorised.")

    def test_without_an_interval_there_is_no_finding(self):
        assert explain.pretraining(self.history([0.4] * 20)).startswith("20 seeds cannot tell")


class TestCauses:
    def table(self, rows):
        columns = ["seeds", "mean", "sd", "sd_low", "sd_high", "removed", "removed_low", "removed_high"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def test_tells_what_removes_adds_or_is_unclear(self):
        nan = float("nan")
        table = self.table(
            {
                "everything": [20, 0.54, 0.05, 0.04, 0.06, nan, nan, nan],
                "one padding": [20, 0.6, 0.03, 0.02, 0.04, 0.02, 0.01, 0.03],
                "another split": [20, 0.6, 0.035, 0.03, 0.04, -0.005, -0.008, -0.002],
                "more words": [20, 0.65, 0.035, 0.03, 0.04, 0.0, -0.004, 0.004],
            }
        )
        assert explain.causes(table) == (
            'Under "everything" the standard deviation of 20 runs is 5.0 [4.0, 6.0] points. "one padding" removes 2.0 '
            '[1.0, 3.0] points of it. "another split" adds 0.50 [0.20, 0.80] points to it. No change is shown for '
            '"more words" (+0.0 [-0.4, +0.4]). Under "more words", 3.5 [3.0, 4.0] points remain. '
            "The mean goes from 54.0% to 65.0%."
        )

    def test_few_runs_tell_nothing(self):
        table = self.table(
            {"all": [3, 0.5, 0.05, 0.01, 0.2, 0, 0, 0], "less": [3, 0.5, 0.01, 0.005, 0.02, 0.04, 0.03, 0.05]}
        )
        assert explain.causes(table).endswith("These are too few runs to identify a cause.")
