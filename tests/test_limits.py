"""What limits a verdict is told as the results have it."""

import pandas as pd
import pytest

import rlm
from rlm.config import StudyConfig


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
    text = rlm.limits.explain_limits(CONFIG, results_of(*runs))
    assert text.startswith("The encoder is lstm, trained for at most 6 epochs of fine-tuning.")
    assert ("cut short" in text) == (said is not None)
    assert said is None or said in text


def test_encoder_epochs_and_baseline_are_named():
    results = pd.concat([results_of(STOPPED), results_of(STOPPED, arm="pretrained")])
    config = CONFIG.model_copy(update={"pretrain_epochs": 1})
    text = rlm.limits.explain_limits(config, results, "Transformer", overlap=0.704)
    assert text == (
        "The encoder is Transformer, trained for 1 epoch of pre-training and at most 6 epochs of fine-tuning. The "
        "overlap of character trigrams, which learns nothing, is right about 70.4% of the test triplets; this encoder "
        "from scratch is right about 60.0%."
    )
    assert "trigrams" not in rlm.limits.explain_limits(config, results, overlap=0.5)
    assert "trigrams" not in rlm.limits.explain_limits(config, results[results["arm"] == "pretrained"], overlap=0.7)


def test_without_fine_tuning_nothing_is_cut_short():
    config = CONFIG.model_copy(update={"max_epochs": 0})
    assert "cut short" not in rlm.limits.explain_limits(config, results_of((0, 0, 0.5)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"shuffles": 3, "shuffle_epochs": 60, "until": 0.9, "max_epochs": 25, "learning_rate": 0.003},
            "3 shuffles of the random labels, each until 90% are memorised and for at most 60 epochs; at most 25 "
            "epochs of fine-tuning; learning rate 0.003; 10 seeds.",
        ),
        (
            {"shuffles": 1, "shuffle_epochs": 1, "max_epochs": 1},
            "1 shuffle of the random labels, 1 epoch each; at most 1 epoch of fine-tuning; "
            "learning rate 0.001; 10 seeds.",
        ),
    ],
)
def test_settings_of_random_labels_stand_beside_their_results(settings, said):
    assert rlm.limits.explain_labels_settings(rlm.labels.LabelsConfig(**settings), 10) == said
