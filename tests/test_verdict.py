"""What a verdict says never contradicts itself, for any table; metrics have a range, a direction and failed seeds."""

import re
from html import unescape

import matplotlib

matplotlib.use("Agg")

import mistune
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

import rlm
from rlm.errors import InputError
from rlm.stats.anytime import confidence_sequence
from rlm.stats.estimates import Estimate, MeanTest, SignFlips, spell_p
from rlm.stats.judging import judge, pairs_to_judge

ARMS = ["pretrained", "pretrained_once", "rescaled", "shuffled", "margin_1", "margin_2"]
BASIS = {"test_triplets": 1234, "test_anchors": 56, "test_clusters": 43, "split": "fixed"}
NUMBER = r"[+-]?\d+\.\d+"


def table(metric="test_accuracy", **arms):
    parts = [pd.DataFrame({"arm": arm, "seed": range(len(v)), metric: v}) for arm, v in arms.items()]
    return pd.concat(parts, ignore_index=True)


@st.composite
def studies(draw):
    """Tables with ties, constants, few distinct values, failed seeds; 2 to 60 pairs, 1 to 6 arms."""
    pairs, arms = draw(st.integers(2, 60)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 1e-4, 0.01, 0.1]))
    scratch = np.clip(rng.normal(0.65, spread, pairs), 0, 1)
    made = {"scratch": scratch}
    for arm in ARMS[:arms]:
        noise = rng.normal(draw(st.sampled_from([0, 0, 0.6, -1.5])), 1, pairs) * draw(
            st.sampled_from([1e-4, 0.01, 0.1])
        )
        kind = draw(st.sampled_from(["any", "ties", "constant", "few values", "thousandths", "one seed fails"]))
        noise = {
            "ties": noise * (rng.random(pairs) < 0.2),
            "constant": np.full(pairs, draw(st.sampled_from([0.0, 0.01, -0.05]))),
            "few values": rng.choice([0.0, 0.01, 0.02], pairs),
            "thousandths": np.round(noise, 3),
        }.get(kind, noise)
        made[arm] = np.clip(scratch + noise, 0, 1)
        if kind == "one seed fails":
            made[arm][rng.integers(pairs)] = np.nan
    results = table(**made)
    if draw(st.booleans()):
        results["test_accuracy"] = results["test_accuracy"].astype(np.float32)
    return results.assign(**BASIS) if draw(st.booleans()) else results


def check_estimate(text, estimate):
    """The estimate is spelt in the text, on the same side of 0 as it is."""
    found = re.search(rf"difference of ({NUMBER}) \[(?:({NUMBER}), ({NUMBER})|no interval)\] points", text)
    assert found, text
    spelt = [float(number) / 100 for number in found.groups(default="nan")]
    np.testing.assert_allclose(spelt, estimate, atol=0.00051)
    assert Estimate(*spelt).excludes(0) == estimate.excludes(0)


@settings(max_examples=80, deadline=None)
@given(studies(), st.sampled_from([False, True, (10, 20, 30, 60)]), st.sampled_from([0.002, 0.01, 0.05]))
def test_interval_p_decision_and_sentences_agree(results, watched, same_within):
    verdicts = rlm.compare_all(results, watched=watched, same_within=same_within)
    for arm, verdict in verdicts.items():
        estimate, p = (verdict.anytime, verdict.anytime_p) if watched else (verdict.difference, verdict.difference_p)
        if isinstance(watched, tuple):
            estimate, p = verdict.planned.difference, verdict.planned.p
        assert (verdict.judged, verdict.judged_p) == (estimate, p)
        has_interval = np.isfinite([estimate.low, estimate.high])
        assert has_interval.all() or not has_interval.any()
        assert 0 <= p <= 1
        if has_interval.all():
            assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.excludes(0) == (p < 0.05)
        enough = pairs_to_judge(len(verdicts), watched=watched)
        expected = "no evidence either way"
        if verdict.pairs < enough:
            expected = "too few seeds"
        elif estimate.excludes(0):
            expected = "helps" if estimate.value > 0 else "hurts"
        elif estimate.low >= -same_within and estimate.high <= same_within:
            expected = "the same"
        assert verdict.decision == expected
        text = verdict.text
        opening = {"too few seeds": "Too few seeds:", "no evidence either way": "No evidence either way:"}
        opening["the same"] = f"The arms {arm} and scratch are the same within {100 * same_within:.2g} point"
        assert text.startswith(opening.get(expected, f"The arm {arm} {expected}"))
        shown = mistune.html(verdict._repr_markdown_())  # as the last line of a notebook's cell
        assert unescape(re.sub(r"<[^>]+>", "", shown)).strip() == text
        assert shown.startswith("<p><strong>")
        assert not re.search(r"\bnan\b|\binf\b|NaN|-0\.0+\b|\+-|\bNone\b", text), text
        check_estimate(text, estimate)
        spelt = re.search(r"points \([^)]*?p (= (\S+)|< 0\.0001)\)", text)
        assert spelt, text
        assert (float(spelt[2] or 0) < 0.05) == (p < 0.05)
        if verdict.pairs >= enough and not has_interval.any():
            assert "There is no interval, since" in text
        ratio = verdict.variance_ratio
        if ratio.excludes(1) and np.isfinite(verdict.variance_p):
            assert verdict.variance_p < 0.05
            assert "the spread grew" in text or "the spread shrank" in text
        is_told = expected == "no evidence either way" and min(-estimate.low, estimate.high) < 1
        assert ("80 % power" in text) == ("are excluded" in text) == is_told


@settings(max_examples=30, deadline=None)
@given(studies(), st.booleans())
def test_the_order_of_rows_and_the_names_of_seeds_make_no_difference(results, watched):
    """Nor does it matter how seeds are numbered, unless somebody watched: then they are looked at in order."""
    shuffled = results.sample(frac=1, random_state=0)
    arms = [arm for arm in results["arm"].unique() if arm != "scratch"]
    one, other = (rlm.compare_all(rows, arms=arms, watched=watched) for rows in (results, shuffled))
    for arm in arms:
        pd.testing.assert_frame_equal(one[arm].table(), other[arm].table())
    if not watched:
        seeds = results["seed"].unique()
        renumbered = results.assign(seed=results["seed"].map(dict(zip(seeds, seeds[::-1], strict=True))))
        for arm, verdict in rlm.compare_all(renumbered, arms=arms, watched=False).items():
            pd.testing.assert_frame_equal(
                verdict.table().drop("mean difference, if watched"),
                one[arm].table().drop("mean difference, if watched"),
            )


def test_the_p_value_of_sign_flips_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    for n in (16, 20, 30):
        differences = rng.normal(0.004, 0.01, n)
        found = {round(SignFlips(rng.permutation(differences)).p, 12) for _ in range(8)}
        assert len(found) == 1


def test_planned_looks_at_many_pairs_find_what_is_obvious_at_the_first():
    gains = np.random.default_rng(1).normal(0.4, 0.01, 25)
    verdict = rlm.compare(table(scratch=np.full(25, 0.5), pretrained=0.5 + gains), watched=(25, 50, 75, 100))
    assert verdict.decision == "helps"
    assert verdict.judged.width < 0.03


def test_a_later_pair_takes_no_decision_back_where_a_metric_has_no_bounds():
    losses = np.random.default_rng(1).normal(-0.02, 0.02, 20)
    one, other = (confidence_sequence(some, np.inf) for some in (losses, np.append(losses, -3.0)))
    assert max(one.p, other.p) < 0.05
    assert one.last.high < 0
    assert other.last.high < 0


@pytest.mark.parametrize("of", [100, 525, 1000])
def test_accuracies_in_float32_are_judged_like_those_in_float64(of):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        hits = rng.integers(0.6 * of, 0.75 * of, 14)
        arms = {"scratch": hits, "pretrained": hits + rng.choice([0, 1, 1, 1, 2], 14)}
        exact, rounded = (
            rlm.compare(table(**{arm: count.astype(kind) / kind(of) for arm, count in arms.items()}))
            for kind in (np.float64, np.float32)
        )
        assert rounded.decision == exact.decision
        assert np.isnan(rounded.difference.low) == np.isnan(exact.difference.low)


def test_it_makes_no_difference_which_of_two_arms_comes_first():
    for seed in range(80, 100):
        gains = np.random.default_rng(seed).normal(0.007, 0.01, 12)
        results = table(scratch=np.full(12, 0.6), pretrained=0.6 + gains)
        one, other = rlm.compare(results), rlm.compare(results, "scratch", "pretrained")
        assert one.difference_p == pytest.approx(other.difference_p)
        assert one.difference == pytest.approx((-other.difference.value, -other.difference.high, -other.difference.low))


def test_the_order_of_arms_with_equal_p_values_makes_no_difference():
    gains = np.linspace(0.01, 0.02, 12)
    judged = judge({"a": gains, "b": gains, "c": gains, "d": gains - 0.016})
    assert {judged[arm].level for arm in "abc"} == {0.05 / 4}
    assert judged["d"].level == 0.05
    assert judged == judge({arm: gains - 0.016 * (arm == "d") for arm in "dcba"})


def test_the_end_of_the_range_is_not_told_as_a_finding():
    gains = np.random.default_rng(0).normal(0.03, 0.002, 20)
    gains[3] = -0.72
    verdict = rlm.compare(table(scratch=np.full(20, 0.75), pretrained=0.75 + gains))
    assert verdict.difference.low == -1
    assert "Differences above +7.1 points are excluded." in verdict.text
    detected = float(re.search(r"a difference of about (\S+) points", verdict.text)[1])
    half = verdict.difference.high - gains.mean()
    assert detected == pytest.approx(100 * (half + 0.84 * verdict.sd / 20**0.5), abs=0.5)


@pytest.mark.parametrize("n", [13, 17])
def test_sign_flips_are_complete_up_to_twenty(n):
    differences = np.round(np.random.default_rng(n).normal(0.004, 0.01, n), 3)
    signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
    sums = np.abs(differences @ signs)
    assert SignFlips(differences).p == pytest.approx((sums >= abs(differences.sum()) - 1e-12).mean())


@pytest.mark.parametrize("level", [0.3, 0.05, 0.0125])
def test_an_interval_excludes_zero_exactly_below_its_level(level):
    rng = np.random.default_rng(0)
    for n in (2, 5, 10, 12, 25, 60):
        for effect in (0, 0.3, 0.8):
            test = MeanTest(rng.normal(effect, 1, n), reach=1)
            assert test.interval(level).excludes(0) == (test.p < level)
            t = abs(test.mean / test.error)
            assert test.p >= 2 * stats.t.sf(t, n - 1) * (1 - 1e-9)


class TestFewDifferingValues:
    """Resamples of a handful of distinct values are too often all the same: a bound from them means nothing."""

    @pytest.mark.parametrize("untied", [0, 1, 2, 3])
    @pytest.mark.parametrize("pairs", [10, 20, 30, 60])
    def test_have_no_interval(self, pairs, untied):
        steps = np.zeros(pairs)
        steps[:untied] = [0.01, -0.04, 0.02][:untied]
        results = table(scratch=np.full(pairs, 0.5), pretrained=0.5 + steps)
        for watched in (False, True):
            verdict = rlm.compare(results, watched=watched)
            assert verdict.decision == "no evidence either way"
            equal = f"{pairs - untied} of the" if untied else "all"
            assert f"since {equal} {pairs} differences are equal" in verdict.text
        summary = rlm.summarise(results).loc["pretrained"]
        assert np.isnan([summary["low"], summary["high"]]).all()

    def test_a_constant_difference_in_float32_is_constant(self):
        scratch = np.random.default_rng(0).uniform(0.5, 0.8, 30).astype(np.float32)
        verdict = rlm.compare(table(scratch=scratch, pretrained=scratch + np.float32(0.05)))
        assert np.isnan(verdict.difference.low)
        assert "all 30 differences are equal" in verdict.text

    def test_ten_ties_and_then_gains_are_gains(self):
        gains = np.random.default_rng(0).normal(0.02, 0.005, 40)
        for ties in (9, 10):
            steps = np.r_[np.zeros(ties), gains]
            results = table(scratch=np.full(len(steps), 0.6), pretrained=0.6 + steps)
            verdict = rlm.compare(results, watched=True)
            assert verdict.decision == "helps"
            assert verdict.anytime_p < 1e-4
            assert 0.005 < verdict.anytime.low < verdict.anytime.value < verdict.anytime.high < 0.03


class TestMetrics:
    @staticmethod
    def gains(metric, base, step, pairs=20):
        rng = np.random.default_rng(0)
        scratch = base + rng.normal(0, abs(step), pairs)
        return table(metric, scratch=scratch, pretrained=scratch + step + rng.normal(0, abs(step) / 5, pairs))

    @pytest.mark.parametrize(
        ("metric", "base", "better", "worse"),
        [
            ("test_accuracy", 0.6, 0.02, -0.02),
            ("roc_auc", 0.8, 0.02, -0.02),
            ("top_1", 0.2, 0.02, -0.02),
            ("test_loss", 1.2, -0.3, 0.3),
            ("eer", 0.2, -0.02, 0.02),
            ("epochs", 20.0, -3.0, 3.0),
            (rlm.stats.Metric("perplexity", low=1, better="lower"), 40.0, -3.0, 3.0),
            (rlm.stats.Metric("bleu", 0, 100), 30.0, 2.0, -2.0),
        ],
    )
    def test_every_metric_is_judged_in_its_own_direction(self, metric, base, better, worse):
        name = getattr(metric, "name", metric)
        for step, decision, word in ((better, "helps", 20), (worse, "hurts", 0)):
            for watched in (False, True):
                verdict = rlm.compare(self.gains(name, base, step), metric=metric, watched=watched)
                assert verdict.decision == decision
                assert verdict.difference.value == pytest.approx(step, rel=0.2)
                assert verdict.anytime.low <= verdict.difference.value <= verdict.anytime.high
                assert f"{word} seeds did better, {20 - word} worse" in verdict.text
                assert ("points" in verdict.text) == (name in ("test_accuracy", "roc_auc", "top_1", "eer"))

    def test_a_failed_seed_counts_as_the_worst_value_of_top_1(self):
        results = self.gains("top_1", 0.1, 0.01)
        lost = results.assign(top_1=results["top_1"].mask((results["seed"] == 3) & (results["arm"] == "pretrained")))
        worst = lost.fillna({"top_1": 0.0})
        found, known = (rlm.compare(table, metric="top_1").table() for table in (lost, worst))
        pd.testing.assert_frame_equal(found.drop(index=["failed seeds, scratch", "failed seeds, pretrained"]), known)
        pd.testing.assert_frame_equal(rlm.summarise(lost, "top_1"), rlm.summarise(worst, "top_1"))
        assert (
            rlm.compare(lost, metric="top_1").difference.value < rlm.compare(results, metric="top_1").difference.value
        )

    def test_a_loss_has_no_value_for_a_failed_seed(self):
        results = self.gains("test_loss", 1.2, -0.1)
        results.loc[3, "test_loss"] = np.nan
        for describe in (rlm.summarise, lambda table, metric: rlm.compare(table, metric=metric)):
            with pytest.raises(InputError, match=r"test_loss of every run, found no value \(arm scratch, seed 3\)"):
                describe(results, "test_loss")
        metric = rlm.stats.Metric("test_loss", better="lower", failed=5.0)
        assert rlm.summarise(results, metric).loc["scratch", "max"] == 5

    @pytest.mark.parametrize("name", ["top_1_accuracy", "top_5_accuracy", "top_10", "mrr", "mean_reciprocal_rank"])
    def test_a_failed_seed_is_never_right_about_the_first(self, name):
        results = self.gains(name, 0.1, 0.01)
        lost = results.assign(**{name: results[name].mask((results["seed"] < 8) & (results["arm"] == "pretrained"))})
        assert rlm.compare(lost, metric=name).difference.value < 0
        assert rlm.summarise(lost, name).loc["pretrained", "min"] == 0

    def test_a_failed_seed_counts_as_the_column_that_the_metric_names(self):
        metric = rlm.stats.Metric("test_accuracy", 0, 1, failed="chance")
        results = self.gains("test_accuracy", 0.6, 0.01).assign(chance=0.1)
        is_lost = (results["seed"] < 8) & (results["arm"] == "pretrained")
        lost = results.assign(test_accuracy=results["test_accuracy"].mask(is_lost))
        counted = rlm.stats.count_failed(lost, metric)
        assert counted.loc[is_lost, "test_accuracy"].eq(0.1).all()
        pd.testing.assert_frame_equal(rlm.summarise(lost, metric), rlm.summarise(counted, metric))
        both = [rlm.compare(table, metric=metric) for table in (lost, counted)]
        assert both[0].difference == both[1].difference
        assert "8 without a value" in both[0].text
        assert "failed: counts as 10.0%" in [
            text.get_text()
            for text in rlm.plots.seeds(lost, rlm.summarise(lost, metric), metric).get_legend().get_texts()
        ]
        for table, said in (
            (lost.drop(columns="chance"), "column 'chance' not found"),
            (lost.assign(chance=2.0), "expected chance from 0 to 1, found 2"),
        ):
            with pytest.raises(InputError, match=said):
                rlm.summarise(table, metric)

    def test_chance_of_other_accuracies_is_not_guessed(self):
        results = self.gains("ten_classes_accuracy", 0.6, 0.01)
        assert rlm.compare(results, metric="ten_classes_accuracy").decision == "helps"
        results.loc[3, "ten_classes_accuracy"] = np.nan
        with pytest.raises(InputError, match="a failed seed has no value by this metric"):
            rlm.compare(results, metric="ten_classes_accuracy")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"better": "Higher"}, "expected better="),
            ({"better": "max"}, "expected better="),
            ({"failed": np.nan}, "expected failed from 0 to 1"),
            ({"failed": 5}, "expected failed from 0 to 1"),
            ({"low": 1}, "expected low below high"),
        ],
    )
    def test_a_metric_that_says_nothing_sensible_is_refused(self, given, said):
        with pytest.raises(InputError, match=said):
            rlm.stats.Metric(**{"name": "foo", "low": 0, "high": 1} | given)

    @pytest.mark.parametrize("scale", [1e160, 1j])
    def test_numbers_that_cannot_be_squared_or_compared_are_refused(self, scale):
        results = self.gains("test_loss", 1.2, -0.1)
        with pytest.raises(InputError, match=r"expected (numbers in the column )?test_loss"):
            rlm.compare(results.assign(test_loss=results["test_loss"] * scale), metric="test_loss")

    def test_an_arm_named_twice_is_one_arm(self):
        results = self.gains("test_accuracy", 0.6, 0.01)
        twice = rlm.compare_all(results, arms=["pretrained", "pretrained"])
        assert twice["pretrained"].text == rlm.compare(results).text

    def test_a_metric_nobody_knows_is_refused(self):
        with pytest.raises(InputError, match=r"known metric .*found 'perplexity'; pass rlm.stats.Metric\('perplexity'"):
            rlm.compare(self.gains("perplexity", 40.0, 1.0), metric="perplexity")

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (67.5, r"test_accuracy from 0 to 1, found 67.5 \(arm scratch, seed 2\); divide percent by 100"),
            (-0.1, r"found -0.1 \(arm scratch, seed 2\)"),
            (np.inf, r"found inf \(arm scratch, seed 2\)"),
        ],
    )
    def test_values_outside_the_range_are_refused(self, value, said):
        results = self.gains("test_accuracy", 0.6, 0.02)
        results.loc[2, "test_accuracy"] = value
        for describe in (rlm.summarise, rlm.compare, rlm.compare_all):
            with pytest.raises(InputError, match=said):
                describe(results)

    @pytest.mark.parametrize(
        "convert", [str, lambda value: value > 0.6, lambda value: [value]], ids=["str", "bool", "list"]
    )
    def test_columns_that_are_no_numbers_are_refused(self, convert):
        results = self.gains("test_accuracy", 0.6, 0.02)
        results["test_accuracy"] = results["test_accuracy"].map(convert)
        for describe in (rlm.summarise, rlm.compare):
            with pytest.raises(InputError, match="numbers in the column test_accuracy"):
                describe(results)

    @pytest.mark.parametrize("dtype", ["Float64", "float32", "Float32"])
    def test_other_types_of_numbers_are_the_same_numbers(self, dtype):
        results = self.gains("test_accuracy", 0.6, 0.02)
        other = results.assign(test_accuracy=results["test_accuracy"].astype(dtype))
        assert rlm.compare(other).difference == pytest.approx(rlm.compare(results).difference, abs=1e-6)

    @pytest.mark.parametrize("column", ["arm", "seed"])
    def test_a_row_without_arm_or_seed_is_refused(self, column):
        results = self.gains("test_accuracy", 0.6, 0.02).astype({"seed": object})
        results.loc[3, column] = np.nan
        for describe in (rlm.summarise, rlm.compare):
            with pytest.raises(InputError, match=f"{column} in every row"):
                describe(results)

    def test_seeds_of_two_types_are_refused(self):
        results = self.gains("test_accuracy", 0.6, 0.02).astype({"seed": object})
        results.loc[3, "seed"] = "3"
        with pytest.raises(InputError, match="all numbers or all texts"):
            rlm.compare(results)


class TestWatched:
    def test_what_the_results_note_is_obeyed(self):
        rng = np.random.default_rng(2)
        scratch = rng.normal(0.65, 0.02, 20)
        results = table(scratch=scratch, pretrained=scratch + rng.normal(0.006, 0.012, 20))
        assert rlm.compare(results).decision == "helps"
        results.attrs["watched"] = True
        assert rlm.compare(results).decision == "no evidence either way"
        assert rlm.compare(results, watched=False).decision == "helps"
        assert "confidence sequence" in rlm.compare_all(results)["pretrained"].text

    def test_with_several_arms_more_pairs_are_asked_for(self):
        """With ten pairs the sequence cannot find anything in three arms, however large it is."""
        fewest = {arms: pairs_to_judge(arms, watched=True) for arms in (1, 2, 3, 4)}
        assert fewest == {1: 10, 2: 10, 3: 11, 4: 11}
        rng = np.random.default_rng(0)
        for pairs, decision in ((10, "too few seeds"), (11, "helps")):
            scratch = rng.normal(0.6, 0.01, pairs)
            gain = 0.1 + rng.normal(0, 1e-3, (3, pairs))
            results = table(
                scratch=scratch, pretrained=scratch + gain[0], shuffled=scratch + gain[1], rescaled=scratch + gain[2]
            )
            verdicts = rlm.compare_all(results, watched=True)
            assert {one.decision for one in verdicts.values()} == {decision}
        assert (
            "at least 11 pairs, and this study has 10"
            in rlm.compare_all(results[results["seed"] < 10], watched=True)["pretrained"].headline
        )

    @pytest.mark.parametrize("bad", [[], [0.1, np.nan], [0.1, 1.5], ["a"], [[0.1], [0.2]], [0.1, np.inf]], ids=str)
    def test_what_is_no_list_of_differences_is_refused(self, bad):
        with pytest.raises(InputError, match="expected"):
            confidence_sequence(bad)

    def test_a_list_is_as_good_as_an_array(self):
        steps = np.random.default_rng(0).normal(0, 0.1, 20)
        pd.testing.assert_frame_equal(confidence_sequence(steps.tolist()).table, confidence_sequence(steps).table)


class TestWords:
    @pytest.mark.parametrize(
        ("p", "spelt"),
        [(0.0496, "= 0.0496"), (0.05, "= 0.05"), (0.0502, "= 0.05"), (0.2, "= 0.2"), (3e-8, "< 0.0001"), (1.0, "= 1")],
    )
    def test_a_p_value_is_on_its_side_of_five_percent(self, p, spelt):
        assert spell_p(p) == spelt

    @pytest.mark.parametrize(
        ("estimate", "spelt"),
        [
            (Estimate(0.0042, 0.0002, 0.0073), "+0.42 [+0.02, +0.73]"),
            (Estimate(-0.0004, -0.0009, -0.0001), "-0.04 [-0.09, -0.01]"),
            (Estimate(0.047, -0.01, 0.11), "+4.7 [-1.0, +11.0]"),
            (Estimate(-0.0001, -0.02, 0.02), "+0.0 [-2.0, +2.0]"),
            (Estimate(0.01, np.nan, np.nan), "+1.0 [no interval]"),
        ],
    )
    def test_digits_follow_the_width(self, estimate, spelt):
        assert estimate.format(100, "+") == spelt

    def test_failures_are_in_the_headline(self):
        rng = np.random.default_rng(0)
        scratch = np.where(np.arange(20) < 8, 0.52, 0.7) + rng.normal(0, 0.005, 20)
        results = table(scratch=scratch, pretrained=scratch + 0.01 + rng.normal(0, 0.002, 20)).assign(**BASIS)
        headline = rlm.compare(results).headline
        assert "But 40% of the seeds of scratch and 40% of the seeds of pretrained failed" in headline
        fine = results.assign(test_accuracy=results["test_accuracy"].clip(lower=0.68))
        assert "failed" not in rlm.compare(fine).headline

    def test_a_gain_without_controls_is_not_explained(self):
        rng = np.random.default_rng(0)
        scratch = rng.normal(0.65, 0.02, 20)
        gain = {arm: scratch + 0.03 + rng.normal(0, 0.003, 20) for arm in ("pretrained", "rescaled", "shuffled")}
        text = "This study cannot tell whether the gain comes from what was memorised or from the scale of the weights"
        assert text in rlm.compare(table(scratch=scratch, pretrained=gain["pretrained"])).details
        assert text not in rlm.compare_all(table(scratch=scratch, **gain))["pretrained"].details

    @pytest.mark.parametrize(("pairs", "said"), [(1, "Over 1 paired seed the"), (2, "Over 2 paired seeds the")])
    def test_one_pair_is_one_pair(self, pairs, said):
        text = rlm.compare(table(scratch=np.full(pairs, 0.5), pretrained=np.linspace(0.6, 0.7, pairs))).text
        assert said in text
        assert ("this study has 1." in text) == (pairs == 1)

    @pytest.mark.parametrize("difference", [np.nan, np.inf, 0])
    def test_no_pairs_are_counted_for_a_difference_that_is_none(self, difference):
        scratch = np.random.default_rng(0).normal(0.6, 0.01, 12)
        with pytest.raises(InputError, match="expected a difference other than 0"):
            rlm.compare(table(scratch=scratch, pretrained=scratch[::-1])).pairs_needed(difference)


def test_a_decision_says_how_many_seeds_may_fail_unseen():
    results = table(scratch=np.linspace(0.8, 0.82, 20), pretrained=np.linspace(0.85, 0.88, 20))
    results = results.assign(**BASIS)
    found = rlm.compare(results)
    assert found.decision == "helps"
    most = stats.beta.ppf(0.975, 1, 20)  # Clopper and Pearson's bound for none of 20
    assert f"No seed failed; up to {most:.0%} of an arm's other seeds may fail." in found.details
    assert "No seed failed" not in rlm.compare(results.assign(test_accuracy=0.8 + 0.001 * results["seed"])).details
