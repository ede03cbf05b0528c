"""Estimates and verdicts against scipy, slow loops and planted effects."""

import re
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
import ville
from hypothesis import assume, given, settings, strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from rlm import explain
from rlm.errors import InputError
from rlm.plots import best_so_far
from rlm.stats.anytime import PRIOR_SHARE, confidence_sequence
from rlm.stats.estimates import SignFlips, holm, ratio_of_variances, spell_p
from rlm.stats.power import pairs_needed
from rlm.verdict import compare, compare_all, summarise

NUMBER = r"([+-]?\d+\.\d+)"


def table(scratch, pretrained, **columns):
    arms = {"scratch": scratch, "pretrained": pretrained}
    parts = [pd.DataFrame({"arm": arm, "seed": range(len(v)), "test_accuracy": v}) for arm, v in arms.items()]
    return pd.concat(parts, ignore_index=True).assign(**columns)


def two_humped(rng, size):
    """Accuracies as studies of this kind produce them: some seeds fail, most do well."""
    return np.where(rng.random(size) < 0.3, 0.54, 0.69) + rng.normal(0, 0.01, size)


def study(pairs=20, effect=0.0, spread=0.01, seed=0, **columns):
    rng = np.random.default_rng(seed)
    scratch = two_humped(rng, pairs)
    return table(scratch, np.clip(scratch + effect + rng.normal(0, spread, pairs), 0, 1), **columns)


BASIS = {"test_triplets": 1234, "test_anchors": 56, "test_clusters": 43, "split": "fixed"}


def swapped(results):
    return compare(results, "scratch", "pretrained")


def differences(results):
    wide = results.pivot(index="seed", columns="arm", values="test_accuracy")
    return (wide["pretrained"] - wide["scratch"]).to_numpy()


class TestSummarise:
    def test_describes_each_arm_in_order_of_appearance(self):
        results = study(pairs=13, effect=0.02)
        summary = summarise(results)
        assert list(summary.index) == ["scratch", "pretrained"]
        assert summary.index.name == "arm"
        assert list(summary) == ["seeds", "mean", "low", "high", "sd", "min", "q25", "median", "q75", "max"]
        for arm, row in summary.iterrows():
            values = results.loc[results["arm"] == arm, "test_accuracy"].to_numpy()
            expected = [13, values.mean(), values.std(ddof=1), *np.percentile(values, [0, 25, 50, 75, 100])]
            np.testing.assert_allclose(row.drop(["low", "high"]), expected)
            low, high = stats.t.interval(0.95, 12, values.mean(), values.std(ddof=1) / np.sqrt(13))
            assert row["low"] <= low
            assert high <= row["high"]

    def test_a_seed_that_diverged_counts_as_chance(self):
        results = study(pairs=12)
        lost = results.assign(test_accuracy=results["test_accuracy"].where(results["seed"] != 3))
        chance = results.assign(test_accuracy=results["test_accuracy"].where(results["seed"] != 3, 0.5))
        pd.testing.assert_frame_equal(summarise(lost), summarise(chance))
        assert compare(lost).difference == compare(chance).difference

    def test_accuracies_have_no_interval_beyond_0_and_1(self):
        row = summarise(table([0.4, 1.0], [0.9, 0.2])).loc["scratch"]
        assert (row["low"], row["high"]) == (0, 1)

    def test_order_follows_the_rows(self):
        assert list(summarise(study()[::-1]).index) == ["pretrained", "scratch"]

    def test_describes_the_metric_it_is_asked_for(self):
        results = study().assign(epochs=np.arange(40.0))
        np.testing.assert_allclose(summarise(results, "epochs")["mean"], [9.5, 29.5])

    def test_one_seed_has_a_mean_and_no_interval(self):
        row = summarise(study(pairs=1)).loc["scratch"]
        assert row["mean"] == row["median"] == study(pairs=1)["test_accuracy"][0]
        assert row[["low", "high", "sd"]].isna().all()

    @pytest.mark.parametrize("column", ["arm", "seed", "test_accuracy"])
    def test_names_the_missing_column(self, column):
        for describe in (summarise, compare):
            with pytest.raises(InputError, match=rf"column '{column}' not found; the results have: .*run_study"):
                describe(study().drop(columns=column))


class TestEstimates:
    @pytest.mark.parametrize("pairs", [2, 9])
    def test_difference_of_few_pairs_has_the_paired_t_interval(self, pairs):
        results = study(pairs, effect=0.01, spread=0.01, seed=pairs)
        test = stats.ttest_1samp(differences(results), 0)
        expected = (differences(results).mean(), *test.confidence_interval(0.95))
        np.testing.assert_allclose(compare(results).difference, expected)

    @pytest.mark.parametrize("skew", [1, -1])
    def test_difference_of_many_pairs_has_the_wider_of_the_t_and_the_studentised_bootstrap_bounds(self, skew):
        rng = np.random.default_rng(3)
        steps = skew * 0.05 * rng.exponential(size=30)
        found = compare(table(np.full(30, 0.5), 0.5 + steps)).difference
        mean, error, t = steps.mean(), stats.sem(steps), []
        for _ in range(40):
            samples = rng.choice(steps, (1000, 30))
            t.extend((samples.mean(axis=1) - mean) / stats.sem(samples, axis=1))
        studentised = mean - np.quantile(t, [0.975, 0.025]) * error
        low, high = stats.t.interval(0.95, 29, mean, error)
        expected = min(low, studentised[0]), max(high, studentised[1])
        assert (expected[0] < low - 0.1 * error) == (skew < 0)  # the longer tail has the wider bound
        np.testing.assert_allclose(found[1:], expected, atol=0.15 * error)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(-20, 20), min_size=2, max_size=10))
    def test_sign_flip_p_counts_all_sign_patterns(self, steps):
        patterns = [abs(np.dot(signs, steps)) >= abs(sum(steps)) for signs in product([-1, 1], repeat=len(steps))]
        assert SignFlips(np.array(steps) / 64).p == pytest.approx(np.mean(patterns))
        # Sums that are equal are not equal in floating point.
        assert SignFlips(np.array(steps) / 525).p == pytest.approx(np.mean(patterns))

    def test_sign_flip_p_is_near_that_of_the_t_test_for_many_pairs(self):
        results = study(pairs=300, effect=0.004, spread=0.05, seed=2)
        expected = stats.ttest_1samp(differences(results), 0).pvalue
        assert 0.02 < expected < 0.5
        assert compare(results).difference_p == pytest.approx(expected, abs=0.02)
        assert SignFlips(differences(results)).p == pytest.approx(expected, abs=0.02)

    @settings(max_examples=30, deadline=None)
    @given(wins=st.integers(0, 30), losses=st.integers(0, 30), ties=st.integers(0, 5))
    def test_probability_of_improvement_is_clopper_pearsons_with_ties_left_out(self, wins, losses, ties):
        steps = np.repeat([1, -1, 0], [wins, losses, ties]) / 64
        if not len(steps):
            return
        found = compare(table(np.full(len(steps), 0.5), 0.5 + steps)).improvement
        n = wins + losses
        if n == 0:
            assert found == (0.5, 0, 1)
            return
        low = stats.beta.ppf(0.025, wins, losses + 1) if wins else 0
        high = stats.beta.ppf(0.975, wins + 1, losses) if losses else 1
        np.testing.assert_allclose(found, (wins / n, low, high), atol=1e-6)

    @settings(max_examples=40, deadline=None)
    @given(pairs=st.integers(3, 40), spread=st.sampled_from([0.003, 0.08, 0.3]), seed=st.integers(0, 99))
    def test_variance_ratio_keeps_what_a_t_test_of_squared_deviations_cannot_refuse(self, pairs, spread, seed):
        results = study(pairs, spread=spread, seed=seed)
        arms = {arm: values.to_numpy() for arm, values in results.groupby("arm")["test_accuracy"]}
        squares = {arm: (values - values.mean()) ** 2 for arm, values in arms.items()}
        assume(
            all(len(np.unique(values)) == pairs for values in arms.values())
        )  # of a few that are equal it says nothing
        found = compare(results).variance_ratio
        assert found.value == pytest.approx(arms["pretrained"].var() / arms["scratch"].var())
        assert found.low <= found.value <= found.high

        def p(ratio):
            return stats.ttest_1samp(squares["pretrained"] - ratio * squares["scratch"], 0).pvalue

        for bound in found[1:]:
            if 0 < bound < np.inf:
                assert p(bound) == pytest.approx(0.05, abs=1e-6)
        if found.high == np.inf:
            assert p(1e9) > 0.05
        if found.low == 0 and found.high < np.inf:
            assert p(0) >= 0.05 - 1e-9

    @pytest.mark.parametrize("spread", [1e-4, 1e-2, 0.1])
    def test_the_variance_ratio_excludes_1_exactly_where_its_p_value_is_small(self, spread):
        rng = np.random.default_rng(0)
        for pairs in (4, 5, 8, 20):
            for _ in range(50):
                ratio, p = ratio_of_variances(rng.normal(0.65, spread, pairs), rng.normal(0.65, 1e-2, pairs))
                assert ratio.excludes(1) == (p < 0.05)

    def test_failed_seeds_are_those_within_noise_of_chance(self):
        scratch, pretrained = np.full(20, 0.7), np.full(20, 0.7)
        scratch[:6] = [0.5, 0.4, 0.55, 0.57, 0.59, np.nan]
        found = compare(table(scratch, pretrained, **BASIS | {"test_clusters": 100})).failed
        # Of 100 groups chance gets 58 or fewer right 95 times out of 100.
        assert stats.binom.cdf(58, 100, 0.5) == pytest.approx(0.95, abs=0.01)
        assert {arm: one.share.value for arm, one in found.items()} == {"scratch": 5 / 20, "pretrained": 0}
        assert (found["scratch"].diverged, found["scratch"].noise) == (1, 4)
        assert found["pretrained"].share.high == pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-6)
        unknown = compare(table(scratch, pretrained)).failed  # without the size of the test split
        assert {arm: (found.diverged, found.noise) for arm, found in unknown.items()} == {
            "scratch": (1, 0),
            "pretrained": (0, 0),
        }

    def test_the_p_value_of_equal_variances_is_that_of_a_paired_t_test_of_squared_deviations(self):
        results = study(pairs=25, spread=0.08)
        squares = [(v.to_numpy() - v.mean()) ** 2 for _, v in results.groupby("arm")["test_accuracy"]]
        assert compare(results).variance_p == pytest.approx(stats.ttest_rel(*squares).pvalue)

    def test_swapping_the_arms_turns_every_estimate_around(self):
        results = study(pairs=30, effect=0.005, spread=0.05)
        one, other = compare(results), swapped(results)
        assert other.difference == pytest.approx([-one.difference[i] for i in (0, 2, 1)])
        assert other.improvement == pytest.approx([1 - one.improvement[i] for i in (0, 2, 1)])
        assert other.variance_ratio == pytest.approx([1 / one.variance_ratio[i] for i in (0, 2, 1)], rel=1e-3)
        assert other.difference_p == pytest.approx(one.difference_p, abs=0.02)
        assert other.variance_p == pytest.approx(one.variance_p)

    def test_table_holds_the_estimates(self):
        verdict = compare(study(effect=0.02))
        assert list(verdict.table()) == ["value", "low", "high", "p"]
        expected = [
            (*verdict.difference, verdict.difference_p),
            (*verdict.anytime, verdict.anytime_p),
            (*verdict.improvement, np.nan),
            (*verdict.variance_ratio, verdict.variance_p),
        ]
        np.testing.assert_array_equal(verdict.table(), expected)


class TestSeveralArms:
    def test_p_values_are_corrected_as_holm_says(self):
        rng = np.random.default_rng(0)
        scratch = two_humped(rng, 20)
        effects = {"pretrained": 0.006, "pretrained_once": 0.004, "rescaled": 0.008, "shuffled": 0.0}
        arms = {arm: scratch + effect + rng.normal(0, 0.01, 20) for arm, effect in effects.items()}
        parts = [pd.DataFrame({"arm": a, "seed": range(20), "test_accuracy": v}) for a, v in arms.items()]
        results = pd.concat([parts[0].assign(arm="scratch", test_accuracy=scratch), *parts], ignore_index=True)
        raw = {arm: compare(results, arm).difference_p for arm in effects}
        found = compare_all(results)
        assert list(found) == list(effects)
        for arm in effects:
            # Slowly: the largest of all smaller p values, each times the number of those not smaller than it.
            smaller = [p for p in raw.values() if p <= raw[arm]]
            expected = max(min(1, p * sum(other >= p for other in raw.values())) for p in smaller)
            assert found[arm].difference_p == pytest.approx(expected)
            alone = compare(results, arm).difference
            assert found[arm].difference.value == alone.value
            assert found[arm].difference.low <= alone.low < alone.high <= found[arm].difference.high

    def test_corrected_p_values_are_those_of_statsmodels(self):
        raw = dict(enumerate(np.random.default_rng(0).beta(0.3, 1, 12)))
        expected = multipletests(list(raw.values()), method="holm")[1]
        assert [holm(raw)[name][0] for name in raw] == pytest.approx(expected)

    def test_the_intervals_are_of_the_levels_that_holm_compares_with(self):
        p = {"a": 0.001, "b": 0.02, "c": 0.03, "d": 0.2}
        # 0.001 < 0.05 / 4; 0.02 is not below 0.05 / 3, so that nothing after it is found, and all keep its level.
        assert holm(p) == {
            "a": (pytest.approx(0.004), pytest.approx(0.0125)),
            **{
                name: (pytest.approx(value), pytest.approx(0.05 / 3))
                for name, value in zip("bcd", (0.06, 0.06, 0.2), strict=True)
            },
        }

    def test_pairs_needed_and_the_detectable_difference_agree_with_simulated_power(self):
        rng = np.random.default_rng(0)
        verdict = compare(study(pairs=30, spread=0.03, seed=2))
        pairs = pairs_needed(0.01, verdict.sd)
        assert pairs == pytest.approx(((1.96 + 0.84) * verdict.sd / 0.01) ** 2, rel=0.05)
        found = stats.ttest_1samp(rng.normal(0.01, verdict.sd, (4000, pairs)), 0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.03)
        said = float(re.search(r"detects a difference of about ([0-9.]+) points", verdict.text)[1]) / 100
        found = stats.ttest_1samp(rng.normal(said, verdict.sd, (4000, 30)), 0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.04)

    @pytest.mark.parametrize("pilot", [10, 30])
    def test_four_of_five_pilots_plan_a_study_that_is_large_enough(self, pilot):
        sds = np.random.default_rng(0).normal(0, 0.02, (2000, pilot)).std(axis=1, ddof=1)
        needed = pairs_needed(0.01, 0.02)
        planned = np.array([pairs_needed(0.01, sd, of_pilot=pilot) for sd in sds])
        assert (planned >= needed).mean() == pytest.approx(0.8, abs=0.03)

    def test_the_size_of_a_watched_study_is_what_its_sequence_takes(self):
        rng, found = np.random.default_rng(0), []
        pairs = pairs_needed(0.01, 0.02, watched=True)
        for _ in range(150):
            found.append(confidence_sequence(rng.normal(0.01, 0.02, pairs)).last.excludes(0))
        assert np.mean(found) == pytest.approx(0.8, abs=0.12)  # the width is an approximation

    def test_planned_looks_cost_little(self):
        fixed, planned = (pairs_needed(0.01, 0.02, watched=how) for how in (False, (10, 20, 30, 40)))
        assert fixed <= planned <= 1.1 * fixed

    @pytest.mark.parametrize(("pairs", "difference"), [(20, 0), (1, 0.01)])
    def test_pairs_needed_asks_for_a_difference_and_pairs(self, pairs, difference):
        with pytest.raises(InputError, match="expected a difference other than 0 and at least 2 pairs"):
            compare(study(pairs)).pairs_needed(difference)


class TestWatching:
    def test_early_differences_that_are_much_closer_than_later_ones_keep_their_certainty(self):
        differences = [*np.linspace(-0.02001, -0.01999, 10), *np.linspace(-0.304, 0.296, 10)]
        sequence = confidence_sequence(differences)
        first, last = sequence.table.iloc[0], sequence.last
        assert first["low"] < first["value"] < first["high"] < 0
        assert sequence.p < 0.05
        assert last.high < 0

    def test_the_sequence_keeps_the_means_that_no_mixture_of_bets_has_refuted(self):
        differences = np.random.default_rng(1).normal(0.01, 0.02, 40)
        table = confidence_sequence(differences).table
        assert list(table["pairs"]) == list(range(10, 41))
        bets = np.linspace(-6, 6, 2401)
        weights = np.exp(-(bets**2) / 2)
        for row in table.itertuples():
            for bound in (row.low, row.high):
                # The mixture over bets of a normal density, factor by factor, at every look so far.
                deviations = differences[: row.pairs] - bound
                k = bets[:, None] / np.sqrt(0.25 * np.square(differences[:10] - bound).sum())
                wealth = (np.exp(k * deviations) / np.cosh(k * deviations)).cumprod(axis=1)
                largest = np.average(wealth, axis=0, weights=weights)[9:].max()
                assert largest == pytest.approx(20, rel=0.05)  # bounds are interpolated

    def test_the_sequence_nears_the_normal_mixture_of_ville_from_inside(self):
        # cosh(x) <= exp(x² / 2), and the two are alike where x is small: with many pairs.
        shares = {}
        for pairs, seed in product((20, 200), range(6)):
            differences = np.random.default_rng(seed).normal(0.01, 0.02, pairs)
            means = np.linspace(-0.15, 0.15, 6001)
            apart = differences[:, None] - means
            spread = np.square(apart).cumsum(axis=0)
            bound = ville.normal_mixture(spread, 0.05, PRIOR_SHARE * spread[9])
            low, high = means[(np.abs(apart.cumsum(axis=0)) < bound)[9:].all(axis=0)][[0, -1]]
            found = confidence_sequence(differences).last
            assert low - 1e-4 < found.low < found.high < high + 1e-4
            shares.setdefault(pairs, []).append((found.high - found.low) / (high - low))
        assert 0.75 < np.mean(shares[20]) < 0.9
        assert min(shares[200]) > 0.95

    @pytest.mark.parametrize("seed", range(8))
    def test_the_p_value_agrees_with_the_interval_at_every_look(self, seed):
        differences = np.random.default_rng(seed).normal(0.005, 0.01, 60)
        table = confidence_sequence(differences).table
        for row in table.itertuples():
            sequence = confidence_sequence(differences[: row.pairs])
            assert sequence.last == pytest.approx((row.value, row.low, row.high), abs=1e-4)  # bounds are interpolated
            assert (sequence.p < 0.05) == (row.low > 0 or row.high < 0)
        assert sequence.interval(sequence.p * 1.001).excludes(0)
        assert not sequence.interval(sequence.p * 0.999).excludes(0)

    def test_interval_and_p_agree_after_an_outlier(self):
        """Differences that are a thousandth of a later one lie between two of the means that are tried."""
        rng, missing = np.random.default_rng(0), 0
        for pairs in range(11, 41):
            differences = np.append(rng.normal(1e-4, 1e-4, pairs), rng.choice([-0.15, 0.15]))
            sequence = confidence_sequence(np.append(differences, rng.normal(1e-4, 1e-4, 5)))
            for level in (0.05, 0.01, 0.001):
                found = sequence.interval(level)
                missing += np.isnan(found.low)  # the looks contradict each other
                assert np.isnan(found.low) or found.excludes(0) == (sequence.p < level)
        assert 0 < missing < 90

    def test_before_the_tenth_pair_nothing_is_said(self):
        sequence = confidence_sequence(np.full(9, 0.1))
        assert sequence.p == 1
        assert sequence.last.value == pytest.approx(0.1)
        assert np.isnan(sequence.last.low)

    def test_equal_arms_are_within_nothing_of_each_other(self):
        sequence = confidence_sequence(np.zeros(30))
        assert sequence.p == 1
        assert sequence.last.value == 0
        assert np.isnan([sequence.last.low, sequence.last.high]).all()  # equal values do not say how far others lie

    def test_a_watched_study_is_judged_by_the_sequence(self):
        results = study(pairs=20, effect=0.007, spread=0.012, seed=4)
        fixed, watched = compare(results), compare(results, watched=True)
        assert fixed.decision == "helps"
        assert watched.decision == "no evidence either way"
        assert "(confidence sequence, p =" in watched.text
        assert watched.anytime == fixed.anytime
        assert fixed.anytime.low < fixed.difference.low < fixed.difference.high < fixed.anytime.high

    @pytest.mark.parametrize("seed", range(20))
    def test_words_are_never_taken_back(self, seed):
        """Whoever looks after every pair sees a decision stay, unless the looks contradict each other."""
        rng = np.random.default_rng(seed)
        differences = rng.choice([rng.normal(0.006, 0.01, 60), rng.standard_t(3, 60) * 0.01], axis=0)
        excluded, last = False, np.inf
        for pairs in range(10, 61):
            sequence = confidence_sequence(differences[:pairs])
            found = sequence.last
            if np.isnan(found.low):
                continue
            assert not excluded or found.excludes(0)
            assert sequence.p <= last
            assert found.low <= found.value <= found.high
            excluded, last = found.excludes(0), sequence.p

    def test_looks_that_contradict_each_other_say_nothing(self):
        steps = np.concatenate([0.05 + np.linspace(-0.02, 0.02, 15), -0.05 + np.linspace(-0.02, 0.02, 200)])
        found = confidence_sequence(steps)
        assert found.table["low"].iloc[5] > 0
        assert np.isnan(found.last.low)
        verdict = compare(table(np.full(215, 0.5), 0.5 + steps), watched=True)
        assert verdict.decision == "no evidence either way"
        assert "different looks contradict each other" in verdict.text

    @pytest.mark.parametrize("shape", [two_humped, lambda rng, size: 0.7 - rng.gamma(1.2, 0.02, size)])
    def test_who_always_looks_is_rarely_misled(self, shape):
        rng = np.random.default_rng(0)
        tables = [confidence_sequence(shape(rng, 100) - shape(rng, 100)).table for _ in range(200)]
        misled = sum(bool(((table["low"] > 0) | (table["high"] < 0)).any()) for table in tables)
        assert misled <= stats.binom.ppf(0.999, 200, 0.05)


class TestDecision:
    @pytest.mark.parametrize("pairs", [10, 20, 50])
    def test_finds_a_planted_effect_in_either_direction(self, pairs):
        results = study(pairs, effect=0.05)
        assert compare(results).decision == "helps"
        assert swapped(results).decision == "hurts"

    def test_finds_nothing_where_nothing_is(self):
        results = study(pairs=20, spread=0.05, seed=5)
        assert compare(results).decision == swapped(results).decision == "no evidence either way"

    @pytest.mark.parametrize("pairs", [1, 2, 9])
    def test_needs_ten_pairs_however_large_the_effect(self, pairs):
        verdict = compare(study(pairs, effect=0.2))
        assert (verdict.decision, verdict.pairs) == ("too few seeds", pairs)
        assert verdict.difference.value == pytest.approx(0.2, abs=0.02)

    def test_identical_arms_are_no_evidence(self):
        scratch = two_humped(np.random.default_rng(0), 20)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            verdict = compare(table(scratch, scratch))
        assert verdict.decision == "no evidence either way"
        assert verdict.difference.value == 0
        assert np.isnan([verdict.difference.low, verdict.difference.high]).all()
        assert verdict.difference_p == 1
        assert "no interval, since all 20 differences are equal" in verdict.text

    @pytest.mark.parametrize("level", [0.5, 0.6])
    @pytest.mark.parametrize("step", [0.0, 0.01], ids=["constant", "varied"])
    def test_an_arm_without_spread_has_no_variance_ratio(self, level, step):
        other = level + step * np.arange(12)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            verdict = compare(table(np.full(12, level), other))
        assert np.isnan(verdict.variance_ratio.value)
        assert np.isnan(verdict.variance_p)

    @pytest.mark.parametrize("pairs", [1, 2, 3, 5, 9])
    def test_few_pairs_give_neither_warnings_nor_nan_in_words(self, pairs):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            verdict = compare(study(pairs, spread=0.05))
        assert "nan" not in verdict.text

    def test_many_equal_values_give_neither_warnings_nor_nan_in_words(self):
        mostly_equal = np.array([0.5] * 11 + [0.75])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            verdict = compare(table(mostly_equal, np.roll(mostly_equal, 3)))
        assert "nan" not in verdict.text
        assert "inf" not in verdict.text

    def test_errs_on_null_studies_as_rarely_as_it_says(self):
        rng = np.random.default_rng(0)
        studies = [table(two_humped(rng, 20), two_humped(rng, 20)) for _ in range(200)]
        wrong = sum(compare(results).decision in ("helps", "hurts") for results in studies)
        assert wrong <= stats.binom.ppf(0.999, 200, 0.05)

    def test_is_the_same_for_any_order_of_the_rows(self):
        results = study(effect=0.02, spread=0.05)
        assert compare(results.sample(frac=1, random_state=0)) == compare(results) == compare(results)

    def test_leaves_out_seeds_that_only_one_arm_has(self):
        results = study(pairs=20, effect=0.05)
        lonely = results[~((results["arm"] == "scratch") & (results["seed"] >= 15))]
        found, expected = compare(lonely), compare(results[results["seed"] < 15])
        pd.testing.assert_frame_equal(found.table(), expected.table())
        assert found.decision == expected.decision
        assert "5 seeds that only one of pretrained and scratch has are dropped" in found.details
        assert "dropped" not in expected.details

    def test_pairs_by_seed_and_not_by_place(self):
        rng = np.random.default_rng(0)
        scratch = rng.uniform(0.2, 0.8, 12)
        results = table(scratch, scratch + 0.001 + rng.uniform(0, 1e-4, 12))
        results.loc[results["arm"] == "pretrained"] = results[results["arm"] == "pretrained"].to_numpy()[::-1]
        assert compare(results.infer_objects()).decision == "helps"

    def test_compares_the_arms_and_the_metric_it_is_asked_for(self):
        results = study(effect=-0.05).replace({"arm": {"pretrained": "pretrained_once"}})
        results = results.rename(columns={"test_accuracy": "validation_accuracy"})
        verdict = compare(results, "pretrained_once", metric="validation_accuracy")
        assert verdict.decision == "hurts"
        assert "The arm pretrained_once hurts" in verdict.text
        assert "mean validation accuracy" in verdict.text


class TestErrors:
    def test_unknown_arm(self):
        with pytest.raises(InputError, match="arm 'shuffled' not found; the results have: scratch, pretrained"):
            compare(study(), "shuffled")

    def test_seed_twice(self):
        results = study()
        with pytest.raises(InputError, match="seed 3 of arm 'scratch' more than once"):
            compare(pd.concat([results, results.iloc[[3]]]))

    def test_no_common_seed(self):
        results = study()
        results["seed"] = range(len(results))
        with pytest.raises(InputError, match="both 'pretrained' and 'scratch' have, found none"):
            compare(results)

    def test_arm_against_itself(self):
        with pytest.raises(InputError, match="scratch"):
            compare(study(), "scratch", "scratch")


class TestText:
    @pytest.mark.parametrize("effect", [-0.05, 0.0, 0.05])
    def test_numbers_are_those_of_the_estimates(self, effect):
        results = study(pairs=17, effect=effect, spread=0.03)
        verdict = compare(results)
        found = re.search(rf"difference of {NUMBER} \[{NUMBER}, {NUMBER}\] points", verdict.text)
        np.testing.assert_allclose([float(n) for n in found.groups()], 100 * np.array(verdict.difference), atol=0.051)
        assert "Over 17 paired seeds" in verdict.text
        gains = differences(results)
        better, worse, same = (gains > 0).sum(), (gains < 0).sum(), (gains == 0).sum()
        assert f"{better} seeds did better, {worse} worse and {same} the same" in verdict.text
        for arm, row in summarise(results).iterrows():
            assert f"{100 * row['mean']:.2f}% for {arm}" in verdict.text
            assert re.search(rf"{100 * row['sd']:.1f}( points)? for {arm}", verdict.text)
        for name, estimate in (("without ties,", verdict.improvement), ("variances", verdict.variance_ratio)):
            found = re.search(rf"{name} {NUMBER} \[{NUMBER}, {NUMBER}\]", verdict.text)
            np.testing.assert_allclose([float(n) for n in found.groups()], estimate, atol=0.0051)
        found = re.findall(r"p (= [\d.e-]+|< 0.0001)\)", verdict.text)
        assert found == [spell_p(verdict.difference_p), spell_p(verdict.variance_p)]
        for spelt, p in zip(found, (verdict.difference_p, verdict.variance_p), strict=True):
            assert float(spelt[2:]) == pytest.approx(max(p, 1e-4), rel=0.06)

    def test_opens_with_the_decision(self):
        assert compare(study(effect=0.05)).text.startswith("The arm pretrained helps, compared with scratch.")
        assert compare(study(effect=-0.05)).text.startswith("The arm pretrained hurts, compared with scratch.")
        assert compare(study(spread=0.05, seed=5)).text.startswith("No evidence either way")
        assert re.match(r"Too few seeds: .*at least 10 pairs.* 4\.", compare(study(pairs=4)).headline)

    def test_one_pair_is_told_without_an_interval(self):
        text = compare(study(pairs=1, effect=0.05)).text
        assert "no interval" in text
        assert "nan" not in text

    def test_says_whether_the_spread_changed(self):
        rng = np.random.default_rng(0)
        narrow, wide = rng.normal(0.6, 0.01, 40), rng.normal(0.6, 0.1, 40)
        assert "the spread grew" in compare(table(narrow, wide)).text
        assert "the spread shrank" in compare(table(wide, narrow)).text
        assert "no evidence that the spread differs" in compare(table(narrow, rng.permutation(narrow))).text

    def test_says_what_the_verdict_rests_on(self):
        assert "56 anchors in 43 clusters (1,234 triplets)" in compare(study(**BASIS)).text
        assert "anchors" not in compare(study()).text

    def test_says_what_the_interval_covers(self):
        fixed = compare(study(**BASIS)).text
        own = compare(study(**BASIS | {"split": "per_seed", "test_anchors": [50, 60] * 20})).text
        assert "All seeds share one split" in fixed
        assert "Every seed has its own split" in own
        assert "50 to 60 anchors" in own


class TestBestSoFar:
    @pytest.fixture
    def history(self):
        rng = np.random.default_rng(0)
        runs = [("scratch", 0, 3), ("scratch", 1, 6), ("pretrained", 0, 1), ("pretrained", 1, 4)]
        rows = [(arm, seed, epoch, rng.random()) for arm, seed, last in runs for epoch in range(last + 1)]
        return pd.DataFrame(rows, columns=["arm", "seed", "epoch", "validation_accuracy"])

    @staticmethod
    def slow(history):
        expected = {}
        for arm, seed in {(row.arm, row.seed) for row in history.itertuples()}:
            for epoch in range(history["epoch"].max() + 1):
                seen = [
                    row.validation_accuracy
                    for row in history.itertuples()
                    if (row.arm, row.seed) == (arm, seed) and row.epoch <= epoch
                ]
                expected[arm, seed, epoch] = max(seen)
        return expected

    def test_is_the_highest_value_up_to_each_epoch(self, history):
        best = best_so_far(history)
        found = best.set_index(["arm", "seed", "epoch"])["best_validation_accuracy"]
        assert found.index.is_unique
        assert found.to_dict() == self.slow(history)

    def test_does_not_depend_on_the_order_of_the_rows(self, history):
        best = best_so_far(history.sample(frac=1, random_state=0))
        assert best.set_index(["arm", "seed", "epoch"])["best_validation_accuracy"].to_dict() == self.slow(history)

    def test_keeps_the_order_of_the_arms(self, history):
        assert list(best_so_far(history)["arm"].unique()) == ["scratch", "pretrained"]

    def test_a_diverged_seed_counts_as_chance_from_there_on(self, history):
        is_lost = (history["arm"] == "scratch") & (history["seed"] == 1) & (history["epoch"] >= 3)
        lost = history.assign(validation_accuracy=history["validation_accuracy"].mask(is_lost))
        best = best_so_far(lost).set_index(["arm", "seed", "epoch"])["best_validation_accuracy"]
        for key, value in self.slow(history).items():
            assert best[key] == (0.5 if key[:2] == ("scratch", 1) and key[2] >= 3 else value)

    def test_changes_nothing_in_the_history(self, history):
        before = history.copy()
        best_so_far(history)
        pd.testing.assert_frame_equal(history, before)


class TestExplainPretraining:
    @staticmethod
    def history(seen, unseen, spread=0.4, seeds=12):
        noise = np.random.default_rng(0).normal(0, 0.005, (2, seeds))
        noise -= noise.mean(axis=1, keepdims=True)
        start = pd.DataFrame({"seed": range(seeds), "epoch": 0, "seen_accuracy": 0.5, "unseen_accuracy": 0.5})
        end = start.assign(epoch=5, seen_accuracy=seen + noise[0], unseen_accuracy=unseen + noise[1], spread=spread)
        return pd.concat([start.assign(spread=0.8), end], ignore_index=True)

    @pytest.mark.parametrize(
        ("seen", "unseen", "finding"),
        [
            (0.99, 0.6, "Pre-training memorised. The"),
            (0.8, 0.6, "Pre-training memorised in part. The"),
            (0.5, 0.5, "Pre-training shows no sign of memorising. The"),
            # Positives are told apart by how often they are positives.
            (0.8, 0.8, "Pre-training shows no sign of memorising. The"),
            (0.5, 0.6, "Pre-training shows no sign of memorising. The"),
        ],
    )
    def test_compares_seen_with_unseen(self, seen, unseen, finding):
        history = self.history(seen, unseen)
        text = explain.pretraining(history)
        assert text.startswith(finding)
        last = history[history["epoch"] == 5]
        gap = 100 * (last["seen_accuracy"] - last["unseen_accuracy"])
        expected = [gap.mean(), *stats.ttest_1samp(gap, 0).confidence_interval()]
        found = re.search(rf"difference {NUMBER} \[{NUMBER}, {NUMBER}\] points", text)
        np.testing.assert_allclose([float(n) for n in found.groups()], expected, atol=0.051)
        assert f"{100 * last['seen_accuracy'].mean():.1f}%" in text
        assert f"{100 * last['unseen_accuracy'].mean():.1f}%" in text

    @pytest.mark.parametrize(("seeds", "said"), [(1, "1 seed cannot tell"), (2, "2 seeds cannot tell")])
    def test_few_seeds_cannot_tell(self, seeds, said):
        assert explain.pretraining(self.history(0.5, 0.5, seeds=seeds)).startswith(said)

    def test_says_what_became_of_the_spread(self):
        assert "the spread went from 0.80 to 0.20" in explain.pretraining(self.history(0.5, 0.5, spread=0.2))
        assert "the spread went from 0.80 to 2.40" in explain.pretraining(self.history(0.5, 0.5, spread=2.4))
