"""Systems side by side: what is trained, how it is judged, and what is said of it."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import topic_pairs
from sklearn.metrics import roc_auc_score

import rlm
from rlm.data.phrases import tokenise
from rlm.errors import InputError
from rlm.evaluation.references import overlap_scores
from rlm.slicer import slice_corpus

SYSTEMS = [("mean", "triplet"), ("dssm", "in_batch")]
SMALL = {"word_dim": 4, "dim": 6, "max_epochs": 2, "pretrain_epochs": 1, "negatives": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("systems") / "pairs.tsv"
    topic_pairs(np.random.default_rng(0), topics=6, pairs=120).to_csv(path, sep="\t", index=False)
    return rlm.StudyConfig(dataset=str(path), **SMALL)


@pytest.fixture(scope="module")
def trained(config):
    return rlm.systems.run(config, SYSTEMS, 2, n_jobs=1, progress=False)


def slow_trigrams(text):
    text = f" {' '.join(tokenise(text))} "
    return {text[start : start + 3] for start in range(len(text) - 2)}


class TestOverlap:
    def test_equals_sets_pair_by_pair(self, corpus):
        slices = slice_corpus(corpus, seed=0, fractions=(0.4, 0.3, 0.3), negatives=2)
        grams = [slow_trigrams(text) for text in corpus.phrases.texts]

        def alike(one, other):
            return len(grams[one] & grams[other]) / len(grams[one] | grams[other])

        right = [
            (np.sign(alike(anchor, positive) - alike(anchor, negative)) + 1) / 2
            for anchor, positive, negative in slices.test
        ]
        relevant = {(anchor, positive) for anchor, positive, _ in slices.test.tolist()}
        pairs = sorted(relevant | {(anchor, negative) for anchor, _, negative in slices.test.tolist()})
        phrases = set(slices.test.ravel().tolist())
        known = {(pair[0], pair[1]) for pair in corpus.rows.tolist() if {*pair[:2]} <= phrases}
        candidates = {anchor for anchor, _ in known}
        found_first = []
        for asking in sorted({positive for _, positive in known}):
            likeness = {one: alike(asking, one) for one in candidates - {asking}}
            wanted = [one for one in likeness if (one, asking) in known or (asking, one) in known]
            best = max(likeness[one] for one in wanted)
            found_first.append(all(likeness[one] < best for one in likeness.keys() - set(wanted)))
        found = overlap_scores(corpus, slices)
        assert found["test_accuracy"] == pytest.approx(np.mean(right))
        assert found["roc_auc"] == pytest.approx(
            roc_auc_score([pair in relevant for pair in pairs], [alike(*pair) for pair in pairs])
        )
        assert found["top_1"] == pytest.approx(np.mean(found_first))


class TestRun:
    def test_each_system_is_its_study(self, config, trained):
        for encoder, loss in SYSTEMS:
            mine = trained[(trained["encoder"] == encoder) & (trained["loss"] == loss)]
            alone = rlm.run_study(
                rlm.StudyConfig(**dict(config) | {"encoder": encoder, "loss": loss}), 2, n_jobs=1, progress=False
            )
            shared = [name for name in alone if name != "seconds"]
            pd.testing.assert_frame_equal(mine[shared].reset_index(drop=True), alone[shared], check_dtype=False)

    def test_stands_beside_the_untrained_overlap(self, config, trained):
        corpus = rlm.index_corpus(rlm.load(config.dataset))
        expected = overlap_scores(corpus, slice_corpus(corpus, 0, negatives=2))
        (untrained, _) = trained[trained["arm"] == "untrained"].to_dict("records")
        assert {name: untrained[name] for name in expected} == expected

    def test_goes_on_from_its_store(self, config, trained, tmp_path):
        for systems in (SYSTEMS[:1], SYSTEMS):
            found = rlm.systems.run(config, systems, 2, db=tmp_path / "s.db", n_jobs=1, progress=False)
        pd.testing.assert_frame_equal(found.drop(columns="seconds"), trained.drop(columns="seconds"))
        assert list(rlm.list_studies(tmp_path / "s.db")["loss"]) == ["triplet", "in_batch"]

    def test_an_unknown_choice_is_named(self, config):
        for systems in ("fast", ["lstm"], [("lstm", "triplet")] * 2):
            with pytest.raises(InputError, match=r"quick or all, or different pairs such as .*, found .*(fast|lstm)"):
                rlm.systems.run(config, systems)


def made(effects, seeds=20, noise=0.01):
    """Results of systems whose arms differ by the planted effects."""
    rng = np.random.default_rng(0)
    rows = []
    for number, effect in enumerate(effects):
        scratch = 0.6 + 0.01 * number + 0.02 * rng.normal(size=seeds)
        treated = scratch + effect + noise * (np.arange(seeds) % 2 - 0.5)
        for arm, values in (("scratch", scratch), ("pretrained", treated)):
            rows += [("made", f"e{number}", "triplet", arm, seed, value) for seed, value in enumerate(values)]
    rows += [("made", "overlap", "none", "untrained", seed, 0.65) for seed in range(seeds)]
    table = pd.DataFrame(rows, columns=["dataset", "encoder", "loss", "arm", "seed", "test_accuracy"])
    return table.assign(roc_auc=table["test_accuracy"], top_1=0.25, seconds=1.5)


class TestStandings:
    def test_planted_effects_are_told_apart(self):
        """An effect that one test in 20 would show by chance is no finding among many."""
        effects = [0.05, -0.05, *([0.0] * 8), 0.0026]
        compared = rlm.systems.compare(made(effects)).set_index("encoder")
        alone = rlm.systems.compare(made([0.0026])).set_index("encoder")
        assert compared.loc["e0", "decision"] == alone.loc["e0", "decision"] == "helps"
        assert compared.loc["e1", "decision"] == "hurts"
        assert set(compared.loc["e2":"e10", "decision"]) == {"the same"}
        assert alone.loc["e0", "p"] < 0.05 <= compared.loc["e10", "p"]
        np.testing.assert_allclose(compared["difference"], effects, atol=1e-9)

    def test_nothing_is_judged_where_the_correction_leaves_nothing_to_find(self):
        """Of ten signs all alike, p is 2 in 1,024: enough among 16 systems, not among 32."""
        for systems, decision in ((16, "helps"), (32, "too few seeds")):
            compared = rlm.systems.compare(made([0.05] + [0.0] * (systems - 1), seeds=10))
            assert compared.loc[0, "decision"] == decision
            assert (compared.loc[0, "p"] < 0.05) == (systems * 2 / 1024 < 0.05)

    def test_watched_results_are_judged_and_shown_by_the_confidence_sequence(self):
        results = made([0.0, 0.01, 0.05], seeds=14)
        results.attrs["watched"] = True
        compared = rlm.systems.compare(results).set_index("encoder")
        for encoder, runs in results[results["arm"] != "untrained"].groupby("encoder"):
            verdict, row = rlm.compare(runs, watched=True), compared.loc[encoder]
            assert row["difference"] == verdict.anytime.value
            assert row["low"] <= verdict.anytime.low < verdict.anytime.high <= row["high"]
            assert row["points"] == rlm.stats.Estimate(*map(float, row[["difference", "low", "high"]])).format(100, "+")
            assert row["p"] >= verdict.anytime_p
            assert (row["decision"] == "helps") == (row["low"] > 0) == (row["p"] < 0.05 and row["difference"] > 0)
        results.attrs["watched"] = False
        fixed = rlm.systems.compare(results).set_index("encoder")
        assert (fixed.loc[["e1", "e2"], "p"] < compared.loc[["e1", "e2"], "p"]).all()

    def test_datasets_are_judged_apart(self):
        results = pd.concat([made([0.05] * 2), made([0.0, 0.0026]).assign(dataset="other")])
        both, alone = (rlm.systems.compare(table) for table in (results, results[results["dataset"] == "other"]))
        pd.testing.assert_frame_equal(both[2:].reset_index(drop=True), alone)

    def test_words_follow_the_decisions(self):
        text = rlm.systems.explain(made([0.05, 0.0]))
        assert "Gains from random-triplet pre-training: e0 + triplet +5.0" in text
        assert "The same with and without it: e1 + triplet +0.0" in text
        assert "right about 65.0% of the test triplets" in text
        assert text.startswith("**made: pre-training helps 1 of 2 systems and hurts 0.**\n\n- Gains")
        text = rlm.systems.explain(made([0.0]))
        assert text.startswith("**made: pre-training helps 0 of 1 system and hurts 0.**")
        text = rlm.systems.explain(made([0.05], seeds=4))
        assert text.startswith("**made: too few seeds for a verdict on 1 system.**\n\n- Too few seeds for a verdict")

    def test_spreads_are_compared(self):
        rng = np.random.default_rng(0)
        results = made([0.0, 0.0])
        is_second = results["encoder"] == "e1"
        assert "no evidence that the spreads differ" in rlm.systems.explain(results)
        results.loc[is_second, "test_accuracy"] += 0.2 * rng.normal(size=is_second.sum())
        assert "to e1 + triplet" in rlm.systems.explain(results)
        assert "; the spreads differ" in rlm.systems.explain(results)

    def test_summary_ranks_the_systems_and_counts_what_diverged_as_guessing(self):
        results = made([0.0, 0.0])
        summary = rlm.systems.summarise(results)
        assert list(summary["encoder"].unique()) == ["overlap", "e1", "e0"]
        is_lost = (results["encoder"] == "e1") & (results["seed"] < 10)
        results.loc[is_lost, ["test_accuracy", "roc_auc", "top_1"]] = np.nan
        summary = rlm.systems.summarise(results).set_index(["encoder", "arm", "metric"])
        kept = results[(results["encoder"] == "e1") & (results["arm"] == "scratch")]
        mean = (kept["test_accuracy"].sum() + 10 * 0.5) / 20
        assert summary.loc[("e1", "scratch", "test_accuracy"), "mean"] == pytest.approx(mean)
        assert summary.loc[("e1", "scratch", "top_1"), "mean"] == pytest.approx(0.125)
        row = summary.loc[("e1", "scratch", "test_accuracy")]
        assert row["low"] < mean < row["high"]

    def test_the_table_spells_the_summary(self):
        table = rlm.systems.tabulate(rlm.systems.summarise(made([0.0]))).set_index("arm")
        assert table.loc["untrained", "test accuracy, %"] == "65.0"
        assert table.loc["scratch", "top-1, %"] == "25.0"  # all seeds alike: no interval
        assert table.loc["scratch", "seconds per seed"] == "1.5"

    def test_results_without_systems_are_refused(self):
        results = made([0.0])
        with pytest.raises(InputError, match=r"found none; see rlm\.systems\.run"):
            rlm.systems.compare(results[results["arm"] == "untrained"])


class TestInGeneral:
    def test_planted_effects_that_differ_are_pooled_and_predicted(self):
        rng = np.random.default_rng(0)
        effects = rng.normal(0.02, 0.01, 30)
        found = rlm.systems.generalise(made(effects, noise=0.002)).iloc[0]
        assert found["systems"] == 30
        assert found["mean"] == pytest.approx(effects.mean(), abs=1e-3)
        assert found["tau"] == pytest.approx(effects.std(ddof=1), rel=0.05)
        assert found["low"] < 0.02 < found["high"]
        inside = np.mean((effects > found["new_low"]) & (effects < found["new_high"]))
        assert inside >= 0.9

    def test_two_datasets_count_each_system_once(self):
        results = pd.concat([made([0.01, 0.02, 0.03]), made([0.03, 0.04, 0.05]).assign(dataset="other")])
        found = rlm.systems.generalise(results).set_index("dataset")
        assert list(found.index) == ["made", "other", "all"]
        assert found.loc["all", "systems"] == 3
        assert found.loc["all", "mean"] == pytest.approx(0.03, abs=1e-6)

    def test_the_words_name_the_mean_and_a_new_system(self):
        text = rlm.systems.explain(made([0.01, 0.02, 0.03, 0.04]))
        assert "In general pre-training adds, compared with scratch, +2.5" in text
        assert "in a new system like these" in text
        assert "In general" not in rlm.systems.explain(made([0.01, 0.02]))

    def test_the_words_keep_the_digits_of_small_effects(self):
        text = rlm.systems.explain(made([1e-4, 2e-4, 3e-4, 4e-4], noise=1e-5))
        low, high = re.search(r"from (\S+) to (\S+) points in a new system", text).groups()
        found = rlm.systems.generalise(made([1e-4, 2e-4, 3e-4, 4e-4], noise=1e-5)).iloc[0]
        assert (float(low), float(high)) == pytest.approx((100 * found["new_low"], 100 * found["new_high"]), abs=0.005)
        assert float(low) < 0 < float(high)

    def test_pairs_all_alike_have_no_mean_effect(self):
        """As where the test split has a dozen triplets."""
        results = made([0.01, 0.02, 0.03, 0.04])
        is_first = results["encoder"] == "e0"
        results.loc[is_first, "test_accuracy"] = np.where(results.loc[is_first, "arm"] == "scratch", 0.5, 0.75)
        assert rlm.systems.compare(results).set_index("encoder").loc["e0", "error"] == 0
        assert "In general" not in rlm.systems.explain(results)


def test_the_figure_shows_the_summary():
    summary = rlm.systems.summarise(made([0.0, 0.03]))
    accuracy, _, _, seconds = rlm.systems.draw(summary)
    for number, arm in enumerate(["scratch", "pretrained"]):
        expected = summary[(summary["metric"] == "test_accuracy") & (summary["arm"] == arm)]
        points = accuracy.containers[number].lines[0].get_xdata()
        np.testing.assert_allclose(np.asarray(points, float), expected["mean"])
        (bars,) = accuracy.containers[number].lines[2]
        ends = np.array([segment[:, 0] for segment in bars.get_segments()], dtype=float)
        np.testing.assert_allclose(ends, expected[["low", "high"]])
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["e1 + triplet", "e0 + triplet"]
    assert accuracy.lines[-1].get_xdata()[0] == pytest.approx(0.65)
    assert seconds.get_xscale() == "log"
