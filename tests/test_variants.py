"""Arms that change settings: what they share with the other arms, their form as text, and the chosen baseline."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, SMALL, topic_pairs
from pydantic import ValidationError

import rlm
from rlm.arms import encoder_maker
from rlm.block import init_block
from rlm.config import StudyConfig
from rlm.data.corpus import index_corpus
from rlm.errors import InputError
from rlm.explorer.panel import Panel
from rlm.report.view import view
from rlm.store.read import read_progress
from rlm.study import run_study
from rlm.variants import ARMS, SHARED, parse_arm, write_arm
from rlm.verdict import compare_all

DATA = topic_pairs(np.random.default_rng(0), topics=6, pairs=120)
ARMS_OF_STUDY = ("scratch", "s: dim=6", "pretrained", "again: pretrained", "<b>wide</b>: dim=9", "margin: margin=1.0")
LABELS = ("scratch", "s (dim=6)", "pretrained", "again (pretrained)", "<b>wide</b> (dim=9)", "margin (margin=1.0)")


def config(*arms, **settings):
    return StudyConfig(**SMALL | {"learning_rate": 0.05, "arms": arms} | settings)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A study of all arms with the baseline `wide`, one of another dim, and one of another split."""
    db = tmp_path_factory.mktemp("arms") / "study.db"
    quickly = {"data": DATA, "db": db, "n_jobs": 1, "progress": False}
    results = run_study(config(*ARMS_OF_STUDY), 2, baseline="<b>wide</b>", **quickly)
    run_study(config("scratch", dim=9), 2, **quickly)
    run_study(config("scratch", split_seed=1, negatives=2), 2, **quickly)
    return db, results


def of_arm(results, arm):
    return results[results["arm"] == arm].drop(columns=["arm", "seconds"]).reset_index(drop=True)


class TestSharing:
    def test_an_arm_whose_settings_change_nothing_reproduces_its_start_exactly(self, stored):
        _, results = stored
        assert tuple(results["arm"].unique()) == LABELS
        for one, other in [("s (dim=6)", "scratch"), ("again (pretrained)", "pretrained")]:
            pd.testing.assert_frame_equal(of_arm(results, one), of_arm(results, other))

    def test_an_arm_is_what_a_study_of_these_settings_would_be(self, stored):
        db, results = stored
        alone = rlm.read_study(db, 2).finished.results
        pd.testing.assert_frame_equal(of_arm(results, "<b>wide</b> (dim=9)"), of_arm(alone, "scratch"))

    def test_other_margins_start_from_identical_weights(self, stored):
        _, results = stored
        asked = config("scratch", "margin: margin=1.0")
        phrases = index_corpus(DATA).phrases
        first, second = (init_block(encoder_maker(asked.of(arm), phrases), [3]).weights for arm in asked.arms)
        assert all((first[name] == second[name]).all() for name in first)
        assert not of_arm(results, "margin (margin=1.0)").equals(of_arm(results, "scratch"))


class TestText:
    @pytest.mark.parametrize(
        ("text", "label", "start", "changes"),
        [
            ("wide: dim=128", "wide (dim=128)", "scratch", {"dim": "128"}),
            (" f :loss = facenet,dim=3", "f (loss=facenet, dim=3)", "scratch", {"loss": "facenet", "dim": "3"}),
            ("w: pretrained, dim=3", "w (pretrained, dim=3)", "pretrained", {"dim": "3"}),
            ("copy: scratch", "copy (scratch)", "scratch", {}),
            ("encoder=lstm(cnn)", "encoder=lstm(cnn)", "scratch", {"encoder": "lstm(cnn)"}),
            ("d: encoder=lstm(cnn)", "d (encoder=lstm(cnn))", "scratch", {"encoder": "lstm(cnn)"}),
        ],
    )  # fmt: skip
    def test_a_label_means_the_same_as_the_text(self, text, label, start, changes):
        assert parse_arm(text).label == label
        for one in (parse_arm(text), parse_arm(label)):
            assert (one.label, one.start, one.changes) == (label, start, changes)

    @pytest.mark.parametrize("field", SHARED)
    def test_data_and_splits_are_no_settings_of_an_arm(self, field):
        with pytest.raises(InputError, match=f"found {field}, which all arms of a study share; run another study"):
            parse_arm(f"other: {field}=1")

    @pytest.mark.parametrize(
        "arm", ["", "wide", "scratch: dim=3", "w:", "w: dim", "w: dim=", "w: dim=3, dim=4", "w; x: dim=3", "$w$: dim=3"]
    )
    def test_other_texts_are_no_arms(self, arm):
        with pytest.raises(InputError, match="expected an arm among scratch, "):
            parse_arm(arm)

    @pytest.mark.parametrize(
        ("arms", "message"),
        [
            (["w: dims=3"], "did you mean 'dim'"),
            (["w: dim=0"], "greater than or equal to 1, found '0'"),
            (["w: loss=dssm, margin=1"], "expected no margin for the loss dssm"),
            (["w: dim=3", "w: dim=4"], "expected every arm once, found w (dim=3), w (dim=4)"),
        ],
    )
    def test_settings_that_do_not_fit_are_errors(self, arms, message):
        with pytest.raises(ValidationError, match=re.escape(message)):
            config(*arms)

    def test_none_removes_an_optional_setting(self):
        asked = config("scratch", "hinge: loss=triplet, mining=none", loss="facenet", mining="hard")
        assert asked.of(asked.arms[1]).mining is None
        assert write_arm("hinge", {"loss": "triplet", "mining": None}) == asked.arms[1]

    def test_a_json_of_the_config_has_the_arms(self):
        asked = config(*ARMS_OF_STUDY)
        assert StudyConfig.model_validate_json(asked.model_dump_json()) == asked


class TestBaseline:
    def test_is_stored_and_obeyed(self, stored):
        db, results = stored
        again = rlm.read_study(db, 1).finished.results
        for table in (results, again):
            assert {one.baseline for one in compare_all(table).values()} == {"<b>wide</b> (dim=9)"}
        assert rlm.compare(results, "margin").arm == "margin (margin=1.0)"
        assert rlm.compare(results, "margin", "scratch").baseline == "scratch"
        assert read_progress(db, 1).plan.baseline == "<b>wide</b> (dim=9)"
        seen = view(db, 1)
        headings = [f"{arm}, compared with <b>wide</b> (dim=9)" for arm in LABELS if "wide" not in arm]
        assert [heading for heading, _ in seen.words][: len(headings)] == headings

    def test_another_one_at_a_later_start_makes_a_watched_study(self, tmp_path):
        quickly = {"data": DATA, "db": tmp_path / "s.db", "n_jobs": 1, "progress": False}
        assert run_study(config("scratch", "w: dim=9"), 1, **quickly).attrs["watched"] is False
        again = run_study(config("scratch", "w: dim=9"), 1, baseline="w", **quickly)
        assert (again.attrs["watched"], again.attrs["baseline"]) == (True, "w (dim=9)")

    def test_must_be_an_arm(self):
        with pytest.raises(InputError, match="expected a baseline among the arms scratch, found wide"):
            run_study(config("scratch"), 1, data=DATA, baseline="wide")


class TestCommand:
    def test_arms_are_added_to_the_baseline_alone(self, rlm_command, pairs, tmp_path):
        out = tmp_path / "r.csv"
        arms = ["--arm", "wide: dim=9", "--arm", "facenet: loss=facenet,mining=hard", "--baseline", "scratch"]
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 1, *arms, "--out", out, *QUICK)
        assert code == 0
        assert list(pd.read_csv(out)["arm"]) == ["scratch", "wide (dim=9)", "facenet (loss=facenet, mining=hard)"]
        assert "baseline scratch" in printed

    def test_two_studies_are_compared_by_their_pairs(self, rlm_command, stored):
        db, results = stored
        code, printed, _ = rlm_command("compare", db, 1, 2)
        assert code == 0
        pair = rlm.systems.read_pair(db, 1, 2)
        assert rlm.compare(pair.results, "#2 scratch").text in printed
        assert re.match(r".*: #1 .*, #2 .*dim 9", printed.splitlines()[0])
        expected = results.set_index("arm")["test_accuracy"]
        difference = (expected["<b>wide</b> (dim=9)"].to_numpy() - expected["scratch"].to_numpy()).mean()
        assert rlm.compare(pair.results, "#2 scratch").difference.value == pytest.approx(difference)

    def test_a_pair_has_the_metric_of_both_and_the_smaller_sameness(self, rlm_command, tmp_path):
        db = tmp_path / "s.db"
        for dim, metric, same in ((4, "top_1", 0.02), (8, "top_1", 0.05), (9, "mean_reciprocal_rank", 0.05)):
            settings = {"data": DATA, "db": db, "metric": metric, "same_within": same}
            run_study(config("scratch", dim=dim), 2, n_jobs=1, progress=False, **settings)
        for first, second in ((1, 2), (2, 1)):
            assert rlm.systems.read_pair(db, first, second).results.attrs["same_within"] == 0.02
        assert "the mean top 1 was" in rlm_command("compare", db, 1, 2)[1]
        code, _, errors = rlm_command("compare", db, 1, 3)
        assert (code, "expected --metric, since studies 1 and 3" in errors) == (2, True)
        assert "the mean top 1 was" in rlm_command("compare", db, 1, 3, "--metric", "top_1")[1]

    @pytest.mark.parametrize(
        ("studies", "message"),
        [((1, 3), "found different negatives, split_seed in 1 and 3"), ((2, 2), "study 2 twice"), ((1, 9), "--study")],
    )
    def test_other_studies_are_not_compared(self, rlm_command, stored, studies, message):
        code, _, errors = rlm_command("compare", stored[0], *studies)
        assert code == 2
        assert message in errors


def test_the_panel_makes_an_arm_of_the_knobs():
    start = config("scratch", "pretrained")
    names = ("on_change", "on_choice", "on_train", "on_name", "on_export", "on_sweep")
    calls = {name: lambda *_: None for name in names}
    panel = Panel(start, rlm.config.Plan(), [], **calls)
    changed = start.model_copy(update={"dim": 9, "margin": 1.0})
    panel.knobs.show(changed, rlm.config.Plan())
    panel.valid = changed, rlm.config.Plan()
    panel._arm.value = "<i>wide</i>: pretrained"
    panel._add.click()
    (found, _), wrong = panel.knobs.read()
    assert not wrong
    expected = (*start.arms, "<i>wide</i> (pretrained, dim=9, margin=1.0)")
    assert found == start.model_copy(update={"arms": expected})
    assert "<i>" not in panel._added.value
    panel._arm.value = "scratch"
    panel._add.click()
    assert "expected an arm among" in panel._added.value


def test_every_built_in_arm_is_its_own_start():
    assert all(parse_arm(arm) == (arm, arm, {}) for arm in ARMS)
