"""Planned looks spend the level as published, and are rarely wrong; equivalence holds its level."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

import rlm
from rlm.config import Plan
from rlm.errors import InputError
from rlm.stats.judging import plan_looks
from rlm.stats.metrics import SAME_WITHIN
from rlm.stats.planned import PlannedLooks, spend


def table(differences, **columns):
    pairs = len(differences)
    scratch = np.random.default_rng(1).normal(0.7, 0.02, pairs)
    arms = {"scratch": scratch, "pretrained": scratch + differences}
    parts = [pd.DataFrame({"arm": arm, "seed": range(pairs), "test_accuracy": v}) for arm, v in arms.items()]
    return pd.concat(parts, ignore_index=True).assign(**columns)


@pytest.mark.parametrize(
    ("looks", "boundaries"),
    [
        # Published two-sided boundaries of the O'Brien-Fleming type at 5 %, for 2, 4 and 5 equal steps.
        ((20, 40), [2.963, 1.969]),
        ((10, 20, 30, 40), [4.333, 2.963, 2.359, 2.014]),
        ((20, 40, 60, 80, 100), [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_the_levels_are_the_published_ones(looks, boundaries):
    assert stats.norm.isf(np.array(spend(looks, 0.05)) / 2) == pytest.approx(boundaries, abs=2e-3)


def test_the_levels_add_up_by_simulation():
    rng, looks = np.random.default_rng(0), (10, 25, 30, 50)
    steps = rng.normal(size=(400_000, 4)) * np.sqrt(np.diff([0, *looks]))
    z = np.abs(steps.cumsum(axis=1) / np.sqrt(looks))
    crossed = (z > stats.norm.isf(np.array(spend(looks, 0.05)) / 2)).any(axis=1)
    assert crossed.mean() == pytest.approx(0.05, abs=0.0015)


def test_one_look_is_a_study_of_fixed_size():
    differences = np.random.default_rng(0).normal(0.005, 0.01, 30)
    fixed = rlm.compare(table(differences), watched=False)
    found = PlannedLooks(differences, (30,))
    assert found.interval(0.05) == pytest.approx(fixed.difference)
    assert found.p == pytest.approx(fixed.difference_p, rel=1e-5)


@pytest.mark.parametrize("shape", ["normal", "t3", "two humps"])
def test_who_looks_as_planned_is_rarely_wrong(shape):
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(150):
        noise = {
            "normal": rng.normal(0, 0.01, 40),
            "t3": 0.01 * rng.standard_t(3, 40),
            "two humps": rng.choice([-0.05, 0.05], 40) * (rng.random(40) < 0.3) + rng.normal(0, 0.01, 40),
        }[shape]
        wrong += PlannedLooks(noise, (10, 20, 30, 40)).interval(0.05).excludes(0)
    assert wrong <= stats.binom.ppf(0.999, 150, 0.05)


def test_planned_looks_find_more_than_looks_at_any_time():
    rng, found = np.random.default_rng(0), {"planned": 0, "any": 0}
    for _ in range(60):
        differences = rng.normal(0.005, 0.01, 40)
        found["planned"] += PlannedLooks(differences, (10, 20, 30, 40)).interval(0.05).excludes(0)
        found["any"] += rlm.stats.confidence_sequence(differences).last.excludes(0)
    assert found["planned"] > found["any"] + 5


@pytest.mark.parametrize("seed", range(10))
def test_words_are_not_taken_back_at_a_later_look(seed):
    differences = np.random.default_rng(seed).normal(0.006, 0.01, 40)
    excluded = [
        PlannedLooks(differences[:pairs], (10, 20, 30, 40)).interval(0.05).excludes(0) for pairs in range(10, 41)
    ]
    assert excluded == sorted(excluded)


class TestStudy:
    CONFIG = rlm.StudyConfig(encoder="mean", word_dim=4, dim=4, pretrain_epochs=1, max_epochs=1, negatives=1)

    def run(self, tmp_path, seeds, **settings):
        return rlm.run_study(self.CONFIG, seeds, db=tmp_path / "s.db", n_jobs=1, progress=False, **settings)

    def test_a_study_stops_at_the_look_that_decides(self, tmp_path):
        results = self.run(tmp_path, 60, look_every=20, same_within=0.5, block_size=20)
        assert results.attrs["watched"] == (20, 40, 60)
        assert results["seed"].nunique() < 60
        found = rlm.compare(results)
        assert found.decision in ("helps", "hurts", "the same")
        assert "planned looks at 20, 40 and 60 pairs" in found.text
        stored = rlm.read_study(tmp_path / "s.db")
        assert stored.watched == (20, 40, 60)
        assert stored.finished.results.attrs == results.attrs

    def test_an_undecided_study_takes_all_seeds(self, tmp_path):
        results = self.run(tmp_path, 24, look_every=12, same_within=1e-6, block_size=12)
        decided = rlm.compare(results).decision in ("helps", "hurts")
        assert decided or results["seed"].nunique() == 24

    def test_a_study_that_is_extended_is_watched(self, tmp_path):
        self.run(tmp_path, 12)
        assert rlm.read_study(tmp_path / "s.db").watched is False
        results = self.run(tmp_path, 24, look_every=12)
        assert results.attrs["watched"] is True

    def test_what_counts_as_the_same_is_fixed_by_the_first_start(self, tmp_path, caplog):
        self.run(tmp_path, 10, same_within=0.02)
        results = self.run(tmp_path, 10, same_within=0.2)
        assert results.attrs["same_within"] == 0.02
        assert any("same_within stays 0.02" in record.message for record in caplog.records)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"look_every": 5}, "a look after every 10 seeds or more"),
            ({"look_every": 20}, "before the last"),
            ({"look_every": 10, "until": 0.1}, "choose one rule to stop by"),
            ({"same_within": 0.0}, "same_within above 0"),
        ],
    )
    def test_rules_that_make_no_sense_are_errors(self, tmp_path, settings, said):
        with pytest.raises(InputError, match=said):
            self.run(tmp_path, 20, **settings)


class TestTheSame:
    def test_is_said_where_the_interval_is_inside(self):
        rng = np.random.default_rng(0)
        close = table(rng.normal(0, 0.003, 20))
        assert rlm.compare(close).decision == "the same"
        assert rlm.compare(close).headline.startswith("The arms pretrained and scratch are the same within 1 point")
        assert rlm.compare(close, same_within=0.0005).decision == "no evidence either way"
        assert rlm.compare(table(rng.normal(0, 0.05, 20))).decision == "no evidence either way"

    def test_two_one_sided_tests_agree(self):
        """Whatever is called the same, both tests of statsmodels reject at half of 5 %."""
        rng, said = np.random.default_rng(0), 0
        for _ in range(60):
            results = table(rng.normal(0, 0.01, 20))
            by_seed = results.pivot(index="seed", columns="arm", values="test_accuracy")
            p, *_ = ttost_paired(by_seed["pretrained"], by_seed["scratch"], -0.006, 0.006)
            is_same = rlm.compare(results, same_within=0.006).decision == "the same"
            assert not is_same or p < 0.025
            said += is_same
        assert 10 < said < 60

    def test_a_small_effect_is_an_effect_and_called_small(self):
        found = rlm.compare(table(np.random.default_rng(0).normal(0.004, 0.003, 20)))
        assert found.decision == "helps"
        assert "The effect is small: less than 1 point" in found.details

    def test_is_rarely_said_of_a_difference_of_that_size(self):
        rng, said = np.random.default_rng(0), 0
        for _ in range(150):
            said += rlm.compare(table(rng.normal(0.01, 0.01, 20))).decision == "the same"
        assert said <= stats.binom.ppf(0.999, 150, 0.05)

    def test_the_default_is_that_of_the_command_line_and_of_the_panel(self):
        assert Plan().same_within == SAME_WITHIN == rlm.stats.Metric("share", 0, 1).same_within

    def test_results_carry_it(self):
        results = table(np.random.default_rng(0).normal(0, 0.003, 20))
        results.attrs["same_within"] = 0.0005
        assert rlm.compare(results).decision == "no evidence either way"

    def test_other_metrics_have_none_unless_given(self):
        losses = table(np.random.default_rng(0).normal(0, 0.003, 20)).rename(columns={"test_accuracy": "loss"})
        assert rlm.compare(losses, metric="loss").decision == "no evidence either way"
        assert rlm.compare(losses, metric="loss", same_within=0.01).decision == "the same"
        with pytest.raises(InputError, match="expected same_within above 0"):
            rlm.stats.Metric("loss", same_within=-1)

    @pytest.mark.parametrize("looks", [(), (5, 10), (20, 10), (10, 10)])
    def test_looks_rise_from_ten(self, looks):
        with pytest.raises(InputError, match="rising from at least 10"):
            rlm.compare(table(np.zeros(20)), watched=looks)


def test_looks_end_with_the_last_seed():
    assert plan_looks(45, 10) == (10, 20, 30, 40, 45)
