"""Sweeps: a race keeps the best setting, saves runs, and states what the best is apart from what it looked like."""

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, SMALL, topic_pairs
from scipy import stats

import rlm
from benchmarks.sweep import SCENES, SEEDS, draw
from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.stats.anytime import confidence_sequence
from rlm.stats.judging import find_beaten, race_level
from rlm.study import run_block, run_study
from rlm.systems.sweeps import race

DATA = topic_pairs(np.random.default_rng(0), topics=6, pairs=120)
CONFIG = StudyConfig(**SMALL)
FAST = {"data": DATA, "n_jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    db = tmp_path_factory.mktemp("sweep") / "sweep.db"
    vary = {"dim": [6, 9], "margin": ["0.1", None]}
    return rlm.systems.sweep(CONFIG, vary, 10, start="pretrained", fresh_seeds=3, db=db, **FAST), db, vary


def test_settings_are_arms_of_one_study_and_the_best_gets_fresh_seeds(found):
    swept, _, _ = found
    assert sorted(swept.table.index) == sorted(
        f"pretrained, dim={dim}, margin={margin}" for dim in (6, 9) for margin in ("0.1", "none")
    )
    assert sorted(swept.race["seed"].unique()) == list(range(10))
    assert swept.fresh["seed"].tolist() == [10, 11, 12]
    assert set(swept.fresh["arm"]) == {swept.best}
    means = swept.race.groupby("arm")["validation_accuracy"].mean()
    assert means[swept.best] == means.max()
    alone = run_study(StudyConfig(**SMALL | {"arms": ("pretrained",), "dim": 9}), 1, **FAST)
    mine = swept.race.query("arm == 'pretrained, dim=9, margin=none' and seed == 0")
    assert mine["test_accuracy"].item() == alone["test_accuracy"].item()


def test_the_text_has_the_numbers_of_the_race_and_of_the_fresh_seeds(found):
    swept, _, _ = found
    one = swept.table.iloc[0]
    assert f" was {one['validation_accuracy']:.1%} on the validation split" in swept.text
    assert "With 3 fresh seeds, it is " in swept.text
    assert f"{swept.fresh['validation_accuracy'].mean():.1%} on the validation split)" in swept.text
    assert "The race took 40 of 40 runs." in swept.text
    for setting in swept.table.index[swept.table["result"] != "dropped"]:
        assert setting in swept.text
    assert (swept.table["worse_than"] != "").tolist() == (swept.table["result"] == "dropped").tolist()


def test_a_sweep_that_is_repeated_reads_its_store(found):
    swept, db, vary = found
    again = rlm.systems.sweep(CONFIG, vary, 10, start="pretrained", fresh_seeds=3, db=db, **FAST)
    pd.testing.assert_frame_equal(again.race, swept.race)
    pd.testing.assert_frame_equal(again.table, swept.table)


def test_a_race_keeps_the_best_and_gives_losers_no_more_seeds():
    by_seed = draw(np.random.default_rng(0), [0.0, 0.0, 5.0], None)
    asked = []

    def train(arms, seeds):
        asked.append((list(arms), len(seeds)))
        return by_seed.loc[list(seeds), list(arms)]

    beaten, seen = race(list(by_seed), SEEDS, train)
    assert list(beaten) == ["setting 2"]
    assert asked == [(list(by_seed), 10), *[(["setting 0", "setting 1"], 5)] * 4]
    assert seen.notna().sum().tolist() == [30, 30, 10]


def test_the_best_is_kept_in_most_races():
    """The 1,000 sweeps of each kind are in docs/sweep.md."""
    kept = 0
    for number in range(25):
        by_seed = draw(np.random.default_rng(number), SCENES["2 settings, equal"], None)
        beaten, _ = race(list(by_seed), SEEDS, lambda arms, seeds, drawn=by_seed: drawn.loc[list(seeds), list(arms)])
        kept += "setting 0" not in beaten
    assert stats.binomtest(kept, 25, 0.95, "less").pvalue > 0.001


@pytest.mark.parametrize("gain", [0.0, 0.01, 0.03])
def test_beaten_means_that_the_interval_excludes_0_on_the_wrong_side(gain):
    for seed in range(2):
        values = np.random.default_rng(seed).normal(0.7, 0.02, (25, 3)) + np.array([0, 0, gain])
        by_seed = pd.DataFrame(values, columns=list("abc"))
        beaten = find_beaten(by_seed, 3)
        for one, other in ["ab", "ac", "bc"]:
            interval = confidence_sequence(by_seed[other] - by_seed[one]).interval(race_level(3), -1, 1)
            assert (beaten.get(one) == other) >= (interval.low > 0 and one not in beaten)
            assert (one in beaten) >= (interval.low > 0)
            assert (other in beaten) >= (interval.high < 0)
        assert set(beaten) <= {"a", "b", "c"}
        assert (len(beaten) > 0) == any(
            confidence_sequence(by_seed[other] - by_seed[one]).interval(race_level(3), -1, 1).excludes(0)
            for one, other in ["ab", "ac", "bc"]
        )


@pytest.mark.parametrize(
    ("vary", "settings", "message"),
    [
        ({"dim": [6]}, {}, "found 1, 10 and 10"),
        ({"dim": [6, 9]}, {"seeds": 9}, "found 2, 9 and 10"),
        ({"split_seed": [1, 2]}, {}, "which all arms of a study share"),
    ],
)
def test_what_is_no_sweep_is_an_error(vary, settings, message):
    with pytest.raises(InputError, match=message):
        rlm.systems.sweep(CONFIG, vary, **{"seeds": 10} | settings, **FAST)


def test_the_command_prints_the_set_and_writes_table_and_figure(rlm_command, pairs, tmp_path):
    files = ["--out", tmp_path / "t.csv", "--figure", tmp_path / "f.png"]
    vary = ["--vary", "dim=6,9", "--max-seeds", 10, "--fresh-seeds", 2]
    quick = [one for one in QUICK if "--dim" not in str(one)]
    code, printed, errors = rlm_command("sweep", "--dataset", pairs, *vary, *files, *quick)
    assert code == 0, errors
    table = pd.read_csv(tmp_path / "t.csv")
    assert sorted(table["setting"]) == ["dim=6", "dim=9"]
    assert f"In the race the accuracy of {table['setting'][0]} was" in printed
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    code, _, errors = rlm_command("sweep", "--vary", "dim", "--dataset", pairs)
    assert (code, "expected --vary NAME=VALUE,VALUE" in errors) == (2, True)


@pytest.mark.parametrize("block", [2, 5])
def test_an_interrupted_sweep_names_no_best_and_goes_on_from_its_store(block, found, tmp_path, monkeypatch):
    swept, _, vary = found
    again, train, blocks = {"start": "pretrained", "fresh_seeds": 3, "db": tmp_path / "s.db", **FAST}, run_block, []

    def interrupted(*arguments, **settings):
        blocks.append(1)
        if len(blocks) == block:
            raise KeyboardInterrupt
        return train(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("rlm.study.run_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rlm.systems.sweep(CONFIG, vary, 10, **again)
    same = rlm.systems.sweep(CONFIG, vary, 10, **again)
    pd.testing.assert_frame_equal(same.table, swept.table)


def test_a_value_that_does_not_fit_is_an_input_error():
    with pytest.raises(InputError, match="expected settings that fit in the arm dim=six, found dim"):
        rlm.systems.sweep(CONFIG, {"dim": [4, "six"]}, 10, **FAST)
