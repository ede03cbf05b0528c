"""The statement on data like these: seeds and clusters as crossed random effects."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

import rlm
from rlm.stats.crossed import generalise


def mean_squares(table):
    """Mean squares of clusters, seeds and the rest of a table with one value a cell, by least squares on dummies."""
    count, seeds = table.shape
    cluster, seed = (places.ravel() for places in np.indices(table.shape))
    every, values = np.ones((table.size, 1)), table.ravel()

    def left(*factors):
        columns = np.hstack([every, *(np.eye(size)[of] for of, size in factors)])
        return np.square(values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]).sum()

    nothing, rest = left(), left((cluster, count), (seed, seeds))
    of_clusters = (nothing - left((cluster, count))) / (count - 1)
    of_seeds = (nothing - left((seed, seeds))) / (seeds - 1)
    return of_clusters, of_seeds, rest / ((count - 1) * (seeds - 1))


@pytest.mark.parametrize("level", [0.05, 0.0125])
def test_equal_clusters_give_the_analysis_of_variance(level):
    rng = np.random.default_rng(1)
    count, seeds = 15, 12
    table = rng.normal(0.01, 0.05, (count, seeds)) + rng.normal(0, 0.03, (count, 1)) + rng.normal(0, 0.02, seeds)
    found = generalise(table, np.full(count, 7.0), level)
    of_clusters, of_seeds, rest = (square / table.size for square in mean_squares(table))
    variance = of_clusters + of_seeds - rest
    free = variance**2 / (
        of_clusters**2 / (count - 1) + of_seeds**2 / (seeds - 1) + rest**2 / ((count - 1) * (seeds - 1))
    )
    low, high = stats.t.interval(1 - level, free, table.mean(), np.sqrt(variance))
    assert found.difference == pytest.approx((table.mean(), low, high))
    assert (found.clusters, found.effective) == (count, pytest.approx(count))


def test_a_cluster_counts_by_its_triplets():
    rng = np.random.default_rng(2)
    table, triplets = rng.normal(0, 0.1, (20, 10)), rng.integers(1, 50, 20).astype(float)
    found = generalise(table, triplets, 0.05)
    assert found.difference.value == pytest.approx(np.average(table, axis=0, weights=triplets).mean())
    assert found.effective == pytest.approx(triplets.sum() ** 2 / np.square(triplets).sum())
    assert generalise(table, 3 * triplets, 0.05).difference == pytest.approx(found.difference)


@pytest.mark.parametrize(("of_clusters", "of_seeds"), [(0.02, 0.02), (0.0, 0.02), (0.05, 0.0), (0.0, 0.0)])
def test_the_interval_holds_for_new_seeds_and_new_clusters(of_clusters, of_seeds):
    rng = np.random.default_rng(3)
    triplets = rng.pareto(2, 60) + 1
    holds = []
    for _ in range(400):
        table = rng.normal(0.01, 0.1, (60, 15)) + rng.normal(0, of_clusters, (60, 1)) + rng.normal(0, of_seeds, 15)
        holds.append(not generalise(table, triplets, 0.05).difference.excludes(0.01))
    assert 0.92 < np.mean(holds) <= 1  # three standard errors below 95 %


def study(rng, effect=0.05, seeds=12, clusters=30, of_clusters=0.02, arms=("pretrained",)):
    """Tables of results and of clusters that agree with each other."""
    triplets = rng.integers(3, 30, clusters)
    base = rng.uniform(0.6, 0.9, (clusters, 1)) + rng.normal(0, 0.02, seeds)
    shift = {"scratch": 0 * base} | {
        arm: effect + rng.normal(0, of_clusters, (clusters, 1)) + rng.normal(0, 0.01, (clusters, seeds)) for arm in arms
    }
    parts = [
        pd.DataFrame(
            {"arm": arm, "seed": seed, "cluster": range(clusters), "triplets": triplets}
            | {"test_accuracy": np.clip(base + change, 0, 1)[:, seed]}
        )
        for arm, change in shift.items()
        for seed in range(seeds)
    ]
    by_cluster = pd.concat(parts, ignore_index=True)
    right = (by_cluster["test_accuracy"] * by_cluster["triplets"]).groupby([by_cluster["arm"], by_cluster["seed"]])
    results = (right.sum() / triplets.sum()).rename("test_accuracy").reset_index()
    sizes = {"split": "fixed", "test_triplets": triplets.sum(), "test_anchors": 50, "test_clusters": clusters}
    return results.assign(**sizes), by_cluster


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), effect=st.floats(-0.05, 0.05), arms=st.integers(1, 3))
def test_it_never_says_more_than_the_statement_on_this_split(seed, effect, arms):
    results, clusters = study(np.random.default_rng(seed), effect, arms=[f"arm {number}" for number in range(arms)])
    for found in rlm.compare_all(results, clusters=clusters).values():
        mine, split = found.new_data.difference, found.difference
        assert mine.value == pytest.approx(split.value)
        assert mine.low <= split.low
        assert mine.high >= split.high
        is_general = {"helps": mine.excludes(0), "hurts": mine.excludes(0)}
        is_general["the same"] = max(abs(mine.low), abs(mine.high)) <= 0.01
        assert ("on data like these" in found.headline) == is_general.get(found.decision, False)


class TestVerdict:
    def test_a_gain_in_every_cluster_holds_for_data_like_these(self):
        results, clusters = study(np.random.default_rng(0))
        found = rlm.compare(results, clusters=clusters)
        scope = "on this split and on data like these"
        assert found.headline == f"The arm pretrained helps {scope}, compared with scratch."
        assert found.table().loc["mean difference, on data like these", "low"] == found.new_data.difference.low
        assert f"worth {found.new_data.effective:.0f} of equal size" in found.details

    def test_a_gain_in_some_clusters_is_one_of_this_split(self):
        results, clusters = study(np.random.default_rng(5), effect=0.02, of_clusters=0.1)
        found = rlm.compare(results, clusters=clusters)
        assert found.decision in ("helps", "hurts")
        assert "on data like these" not in found.headline
        assert found.details.endswith("for such data this study cannot tell.")

    def test_a_test_split_of_few_clusters_says_nothing_of_others(self):
        results, clusters = study(np.random.default_rng(0), clusters=8)
        found = rlm.compare(results, clusters=clusters)
        assert "There is no statement on other data like these" in found.details
        assert np.isnan(found.new_data.difference.low)

    def test_failed_seeds_count_as_in_the_results(self):
        results, clusters = study(np.random.default_rng(0))
        for one in (results, clusters):
            one.loc[(one["arm"] == "pretrained") & (one["seed"] == 3), "test_accuracy"] = np.nan
        found = rlm.compare(results, clusters=clusters)
        assert found.new_data.difference.value == pytest.approx(found.difference.value)

    def test_seeds_of_one_arm_alone_do_not_count(self):
        results, clusters = study(np.random.default_rng(0), seeds=14)
        some = results[(results["arm"] == "scratch") | (results["seed"] < 11)]
        found = rlm.compare(some, clusters=clusters)
        assert found.pairs == 11
        assert found.new_data.difference.value == pytest.approx(found.difference.value)

    @pytest.mark.parametrize("change", ["per_seed", "metric", "sizes", "missing"])
    def test_where_it_cannot_be_said_it_is_not(self, change):
        results, clusters = study(np.random.default_rng(0))
        settings = {"metric": "top_1"} if change == "metric" else {}
        results["top_1"] = results["test_accuracy"]
        if change == "per_seed":
            results["split"] = "per_seed"
        if change == "sizes":
            clusters.loc[0, "triplets"] += 1
        if change == "missing":
            clusters = clusters[1:]
        assert rlm.compare(results, clusters=clusters, **settings).new_data is None


class TestOwnSplits:
    """Where each seed has its own split, the interval is that of Nadeau and Bengio."""

    def study(self, effect=0.01, train=1_000, test=200, seeds=20):
        rng = np.random.default_rng(0)
        scratch = rng.normal(0.7, 0.02, seeds)
        arms = {"scratch": scratch, "pretrained": scratch + rng.normal(effect, 0.01, seeds)}
        parts = [pd.DataFrame({"arm": arm, "seed": range(seeds), "test_accuracy": v}) for arm, v in arms.items()]
        sizes = {"train_triplets": train, "test_triplets": test, "test_anchors": 50, "test_clusters": 30}
        return pd.concat(parts, ignore_index=True).assign(split="per_seed", **sizes)

    def test_it_is_the_corrected_resampled_t_interval(self):
        results = self.study()
        found = rlm.compare(results)
        by_seed = results.pivot(index="seed", columns="arm", values="test_accuracy")
        differences = by_seed["pretrained"] - by_seed["scratch"]
        error = np.sqrt((1 / 20 + 200 / 1_000) * differences.var(ddof=1))
        low, high = stats.t.interval(0.95, 19, differences.mean(), error)
        assert found.new_data.difference == pytest.approx((differences.mean(), low, high))
        assert "with a correction for the overlap, the difference is" in found.details

    def test_a_gain_on_these_splits_may_not_hold_for_others(self):
        weak = rlm.compare(self.study(effect=0.006))
        assert weak.headline == "The arm pretrained helps on these splits, compared with scratch."
        assert weak.details.endswith("for such data this study cannot tell.")
        strong = rlm.compare(self.study(effect=0.05)).headline
        assert strong == "The arm pretrained helps on these splits and on data like these, compared with scratch."

    def test_a_small_test_set_of_much_data_changes_nothing(self):
        found = rlm.compare(self.study(train=10**9, test=1))
        assert found.new_data.difference == pytest.approx(found.difference, abs=1e-4)

    def test_a_watched_study_adds_the_error_of_the_splits_to_its_sequence(self):
        results = self.study()
        found, seeds = rlm.compare(results, watched=True).new_data.difference, rlm.compare(results).pairs
        by_seed = results.pivot(index="seed", columns="arm", values="test_accuracy")
        differences = (by_seed["pretrained"] - by_seed["scratch"]).to_numpy()
        share = (results["test_triplets"] / results["train_triplets"]).iloc[0]
        bounds = []
        for pairs in range(10, seeds + 1):
            _, low, high = rlm.stats.confidence_sequence(differences[:pairs]).interval(0.025)
            half = stats.t.ppf(1 - 0.0125, pairs - 1) * differences[:pairs].std(ddof=1) * share**0.5
            bounds.append((low - half, high + half))
        lows, highs = np.transpose(bounds)
        assert found[1:] == pytest.approx((lows.max(), highs.min()), abs=1e-5)


@pytest.mark.parametrize("watched", [True, (10, 20, 30)])
class TestSeveralLooks:
    """Whoever looks before all seeds are there learns of other data too, and no look takes it back."""

    def test_it_holds_for_new_clusters_at_all_looks(self, watched):
        """The truth of these arms is 0, so whatever their split shows is luck of its clusters."""
        rng, lost, missed, studies = np.random.default_rng(0), 0, 0, 60
        for _ in range(studies):
            results, clusters = study(rng, effect=0.0, of_clusters=0.06, seeds=30)
            found = rlm.compare(results, clusters=clusters, watched=watched)
            lost += found.judged.excludes(0)
            missed += found.new_data.difference.excludes(0)
        assert lost > studies / 4
        assert missed <= studies / 10

    def test_no_look_is_taken_back(self, watched):
        results, clusters = study(np.random.default_rng(3), effect=0.05, of_clusters=0.01, seeds=30)
        looks = range(10, 31) if watched is True else watched
        found = []
        for pairs in looks:
            mine, theirs = results[results["seed"] < pairs], clusters[clusters["seed"] < pairs]
            found.append(rlm.compare(mine, clusters=theirs, watched=watched))
        assert any(one.new_data.difference.excludes(0) for one in found)
        for before, after in pairwise(found):
            assert after.new_data.difference.low >= min(before.new_data.difference.low, after.difference.value) - 1e-6
            assert after.new_data.difference.high <= max(before.new_data.difference.high, after.difference.value) + 1e-6
            assert after.headline == before.headline or "and on data like these" not in before.headline
        for one in found:
            assert one.new_data.difference.low <= one.judged.low <= one.judged.high <= one.new_data.difference.high


def test_failures_are_counted_by_effective_clusters():
    """A split of one large cluster and many small ones tells little apart from chance."""
    results, clusters = study(np.random.default_rng(0), effect=0.0, of_clusters=0.0)
    clusters["triplets"] = clusters["triplets"].where(clusters["cluster"] > 0, 10_000)
    results["test_accuracy"] = 0.7
    assert rlm.compare(results).failed["scratch"].noise == 0
    assert rlm.compare(results, clusters=clusters).failed["scratch"].noise == 12


def test_a_stored_study_says_it(tmp_path):
    config = rlm.StudyConfig(encoder="mean", pretrain_epochs=1, max_epochs=2)
    results = rlm.run_study(config, 10, db=tmp_path / "study.db", n_jobs=1, progress=False)
    stored = rlm.read_study(tmp_path / "study.db").finished
    found = rlm.compare(results, clusters=stored.clusters)
    assert found.new_data.difference.value == pytest.approx(found.difference.value, abs=1e-9)
    assert found.new_data.clusters == results["test_clusters"].iloc[0]
