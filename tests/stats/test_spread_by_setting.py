"""The spread of runs under several settings: intervals cover, and the removed part is that of a planted cause."""

import numpy as np
import pandas as pd
import pytest

import rlm
from rlm.stats import tabulate_spread


def runs_of(**accuracies):
    parts = [
        pd.DataFrame({"setting": name, "seed": range(len(values)), "test_accuracy": values})
        for name, values in accuracies.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_describes_each_setting_as_numpy_does():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(0.6, 0.05, 20), rng.normal(0.7, 0.01, 20)
    table = tabulate_spread(runs_of(wide=wide, narrow=narrow))
    np.testing.assert_allclose(table["mean"], [wide.mean(), narrow.mean()])
    np.testing.assert_allclose(table["sd"], [wide.std(ddof=1), narrow.std(ddof=1)])
    assert np.isnan(table.loc["wide", "removed"])
    assert table.loc["narrow", "removed"] == pytest.approx(wide.std(ddof=1) - narrow.std(ddof=1))
    assert list(table.index) == ["wide", "narrow"]


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_intervals_contain_the_true_spread_and_its_change(draw):
    """Each of two settings has a standard deviation of its own, and the seeds' luck in common."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        luck, cause = rng.normal(size=(2, 20)) if draw == "normal" else rng.uniform(-1.732, 1.732, size=(2, 20))
        table = tabulate_spread(runs_of(both=0.6 + 0.02 * luck + 0.03 * cause, luck=0.6 + 0.02 * luck))
        truth = np.hypot(0.02, 0.03)
        row = table.loc["luck"]
        covered.append(
            [
                table.loc["both", "sd_low"] <= truth <= table.loc["both", "sd_high"],
                row["sd_low"] <= 0.02 <= row["sd_high"],
                row["removed_low"] <= truth - 0.02 <= row["removed_high"],
            ]
        )
    assert (np.mean(covered, axis=0) > 0.9).all()


def test_no_spread_is_zero_and_no_difference_removes_nothing():
    table = tabulate_spread(runs_of(first=np.full(5, 0.6), second=np.full(5, 0.6)))
    assert (table[["sd", "sd_low", "sd_high"]] == 0).all(axis=None)
    assert (table.loc["second", ["removed", "removed_low", "removed_high"]] == 0).all()


def test_a_seed_that_diverged_counts_as_chance():
    values = np.array([0.6, 0.7, 0.65, np.nan])
    assert tabulate_spread(runs_of(only=values)).loc["only", "sd"] == pytest.approx(
        np.nan_to_num(values, nan=0.5).std(ddof=1)
    )


def test_settings_need_the_same_seeds():
    with pytest.raises(
        rlm.InputError, match="at least 2 seeds, the same under every setting, found 5 with a, 4 with b"
    ):
        tabulate_spread(runs_of(a=np.full(5, 0.6), b=np.full(4, 0.6)))
    with pytest.raises(rlm.InputError, match="found 1 with a"):
        tabulate_spread(runs_of(a=np.full(1, 0.6)))


def test_two_seeds_have_no_interval():
    row = tabulate_spread(runs_of(a=np.array([0.5, 0.7]), b=np.array([0.6, 0.7]))).loc["b"]
    assert row["removed"] == pytest.approx(np.std([0.5, 0.7], ddof=1) - np.std([0.6, 0.7], ddof=1))
    assert row[["sd_low", "sd_high", "removed_low", "removed_high"]].isna().all()
