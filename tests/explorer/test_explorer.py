"""The explorer without a browser: knobs, background work, and what the panel says of a study."""

import base64
import html
import io
import re
import shutil
import time
from concurrent.futures import Future
from contextlib import nullcontext
from html import escape, unescape
from pathlib import Path
from threading import Thread

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil
import pytest
from attacks import ATTACKS, assert_harmless, text_of
from conftest import topic_pairs
from pydantic import BaseModel, ValidationError

import rlm
from rlm.config import Plan, StudyConfig
from rlm.data import datasets
from rlm.errors import InputError
from rlm.explorer import explorer as explorer_module
from rlm.explorer.commands import Swept
from rlm.explorer.form import Knobs, make_knob
from rlm.explorer.panel import GROUPS, TOP, Panel
from rlm.explorer.probe import Inside, Probe
from rlm.explorer.tabs import ResultsTab, StudyTabs
from rlm.presets import PRESETS
from rlm.report import view as live
from rlm.report.markup import html_table, paragraph
from rlm.report.study_page import export_studies
from rlm.report.view import Comparison, Picture, View, compare_studies, look, view
from rlm.stats.metrics import Metric, find_metric
from rlm.store.edit import name_study
from rlm.store.read import Progress, read_progress, read_study
from rlm.study import RESULTS, run_study

ATTACK = "<script>alert(1)</script>"
QUICK = {"encoder": "mean", "word_dim": 4, "dim": 6, "pretrain_epochs": 1, "max_epochs": 2, "patience": 1}


def all_widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_widgets(child)


def said(widget):
    return " ".join(one.value for one in all_widgets(widget) if isinstance(one, widgets.HTML))


class TestKnobs:
    def test_every_setting_stands_in_one_group(self):
        listed = [name for names in GROUPS.values() for name in names]
        assert sorted([*listed, *TOP]) == sorted([*StudyConfig.model_fields, *Plan.model_fields])

    @pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
    def test_what_is_shown_is_what_is_read(self, preset):
        assert Knobs([*preset], lambda: None).read() == ([*preset], "")

    def test_all_kinds_of_settings_come_back(self):
        config = StudyConfig(
            dataset="mine.csv", reading={"columns": {"anchor": "fact"}, "delimiter": ";"}, margin=0.25, mining="hard",
            loss="facenet", negative_kinds={"similar": 0.5, "random": 0.5}, fractions=(0.6, 0.3, 0.1), compile=False,
            learning_rate=3.21e-4, batch_size=137, arms=("scratch", "shuffled"), word_dim=300, random_triplets=12345,
        )  # fmt: skip
        plan = Plan(seeds=1234, until=0.02)
        knobs = Knobs([StudyConfig(), Plan()], lambda: None)
        knobs.show(config, plan)
        assert knobs.read() == ([config, plan], "")

    @pytest.mark.parametrize("name", [*StudyConfig.model_fields])
    def test_range_and_description_are_those_of_the_field(self, name):
        field = StudyConfig.model_fields[name]
        for one in make_knob(name, StudyConfig).inputs:
            bounds = {type(bound).__name__: bound for bound in field.metadata}
            if isinstance(one, widgets.FloatSlider | widgets.IntSlider):
                assert one.min == (bounds["Ge"].ge if "Ge" in bounds else bounds["Gt"].gt)
                assert "Le" not in bounds or one.max == bounds["Le"].le
            if name not in ("reading", "pretrain_reading"):
                assert one.tooltip.startswith(field.description)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("margin", "-3", "greater than or equal to"),
            ("margin", "wide", "valid number"),
            ("fractions", "0.8, 0.1", "part 3: expected a value, found none"),
            ("negative_kinds", "similar", "expected name=value"),
            ("until", "0", "greater than 0"),
        ],
    )
    def test_an_invalid_value_shows_the_fields_message_beside_it(self, name, text, message):
        knobs = Knobs([StudyConfig(), Plan()], lambda: None)
        (typed,) = [one for one in all_widgets(knobs.rows[name]) if isinstance(one, widgets.Text)]
        typed.value = text
        found, wrong = knobs.read()
        assert found is None
        assert message in wrong
        assert message in said(knobs.rows[name])
        typed.value = ""
        knobs.show(StudyConfig(), Plan())
        assert knobs.read()[0] is not None
        assert not said(knobs.rows[name])

    def test_what_is_wrong_with_several_settings_is_said(self):
        knobs = Knobs([StudyConfig(loss="in_batch")], lambda: None)
        (typed,) = [one for one in all_widgets(knobs.rows["margin"]) if isinstance(one, widgets.Text)]
        typed.value = "0.3"
        assert "no margin for the loss in_batch" in knobs.read()[1]

    def test_a_number_is_read_as_it_was_shown(self):
        knob = make_knob("batch_size", StudyConfig)
        for value in (150, 1200):
            knob.show(value)
            assert knob.read() == value

    def test_changes_are_told_once_and_not_while_values_are_shown(self):
        changes = []
        knobs = Knobs([Plan()], lambda: changes.append(1))
        knobs.show(Plan(seeds=7))
        assert len(changes) == 1
        (typed,) = [one for one in all_widgets(knobs.rows["seeds"]) if isinstance(one, widgets.FloatText)]
        typed.value = 8
        assert len(changes) == 2

    def test_unknown_types_get_a_text(self):
        class Model(BaseModel):
            path: Path = Path("a")

        knob = make_knob("path", Model)
        assert isinstance(knob.widget, widgets.Text)


@pytest.fixture(scope="module")
def data():
    pairs = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
    return pairs.assign(anchor=ATTACK + " " + pairs["anchor"])


@pytest.fixture(scope="module")
def store(tmp_path_factory, data):
    """Two studies; the first has ten pairs, the second another learning rate and no finished pair of its plan's end."""
    db = tmp_path_factory.mktemp("store") / "s.db"
    for rate, seeds in ((1e-3, 10), (1e-2, 3)):
        config = StudyConfig(dataset=ATTACK, learning_rate=rate, **QUICK)
        run_study(config, seeds, data=data, db=db, watched=True, n_jobs=1, progress=False)
    return db


class TestView:
    def test_words_are_those_of_the_verdict_of_a_watched_study(self, store):
        found = view(store, 1)
        finished = read_study(store, 1).finished
        expected = rlm.compare(finished.results, watched=True, clusters=finished.clusters)
        assert found.headline == expected.headline
        assert found.words[0][1] == expected.text
        assert "confidence sequence" in found.words[0][1]
        assert len(found.results) == 20
        for picture in (found.differences, found.seeds, found.curves, found.pretraining):
            assert picture.png.startswith(b"\x89PNG")
            assert "10 seeds" in picture.alt

    def test_what_limits_the_verdict_stands_under_the_headline(self, store):
        found = view(store, 1)
        assert found.limits == rlm.explain.limits(read_study(store, 1).config, found.results)
        tabs = StudyTabs()
        tabs.show(found)
        assert said(tabs.widgets[0]).index(found.headline) < said(tabs.widgets[0]).index(found.limits)

    def test_words_about_pretraining_are_whole_sentences(self, store):
        mine = read_study(store, 1).finished.pretraining
        expected = rlm.explain.pretraining(mine[mine["arm"] == "pretrained"])
        assert ("Pre-training of pretrained", expected) in view(store, 1).words

    def test_figures_are_closed(self, store):
        before = plt.get_fignums()
        view(store, 1)
        assert plt.get_fignums() == before

    def test_a_figure_of_one_arm_has_room_for_its_title(self):
        results = pd.DataFrame({"arm": "scratch", "seed": range(9), "test_accuracy": np.linspace(0.5, 0.7, 9)})
        with live._theme():
            figure = live._seeds_figure(results, rlm.summarise(results), find_metric("test_accuracy", results))
            figure.draw_without_rendering()
        title = figure.axes[0].title.get_window_extent()
        assert 0 <= title.x0 <= title.x1 <= figure.bbox.width

    def test_comparison_shows_what_differs_and_the_effects(self, store):
        found = compare_studies(store, [1, 2])
        assert list(found.settings.index) == ["learning_rate"]
        assert list(found.settings.loc["learning_rate"]) == ["0.001", "0.01"]
        assert list(found.effects["study"]) == ["#1 pretrained", "#2 pretrained", "#2 scratch against #1 scratch"]
        assert list(found.effects["seeds"]) == [10, 3, 3]
        results = [read_study(store, number).finished.results for number in (1, 2)]
        for mine, row in zip(results, found.effects.itertuples(), strict=False):
            means = mine.groupby("arm")["test_accuracy"].mean()
            assert row.value == pytest.approx(means["pretrained"] - means["scratch"])
        first, second = (one[one["arm"] == "scratch"].set_index("seed")["test_accuracy"] for one in results)
        assert found.effects["value"].iloc[2] == pytest.approx((second - first).mean())  # of the seeds of both
        assert found.effects["with it"].iloc[2] == pytest.approx(second.mean())
        assert found.effects["verdict"].iloc[1] == "too few seeds"

    def test_studies_of_other_splits_are_not_paired(self, store, data, tmp_path):
        db = shutil.copy(store, tmp_path / "s.db")
        rlm.run_study(rlm.StudyConfig(**QUICK, split_seed=5), 3, data=data, db=db, n_jobs=1, progress=False)
        assert list(compare_studies(db, [1, 3]).effects["study"]) == ["#1 pretrained", "#3 pretrained"]

    def test_several_studies_become_one_page_of_texts(self, store, tmp_path):
        db = shutil.copy(store, tmp_path / "s.db")
        name_study(db, 1, {"name": ATTACK, "tags": "kept", "note": ATTACK})
        html = export_studies(db, [1, 2], tmp_path / "out", "test_accuracy").page.read_text(encoding="utf-8")
        assert "<script>" not in html
        assert all(text in html for text in ("Study 1: &lt;script&gt;", "kept", "Study 2", "learning_rate"))
        assert html.count("<img ") == 2 + 5 * 2  # of the comparison, and of each study
        for seen in (view(db, 1), view(db, 2)):
            assert seen.headline in unescape(html)
        _, titles = look(db, 1, "test_accuracy")
        assert titles[1].startswith(f"#1 {ATTACK}, learning rate 0.001, ")
        assert titles[1].endswith(": 10 seeds [kept]")

    def test_the_file_of_the_results_has_every_number(self, store):
        seen, tab = view(store, 2), ResultsTab()
        tab.show(seen)
        link = r'download="(.*?)" href="data:text/csv;charset=utf-8;base64,(.*?)"'
        name, content = re.search(link, tab._file.value).groups()
        found = pd.read_csv(io.BytesIO(base64.b64decode(content)))
        assert name == "study-2.csv"
        pd.testing.assert_frame_equal(found, seen.results, check_dtype=False)

    def test_progress_counts_what_was_asked_for(self, store):
        progress = read_progress(store, 1)
        assert progress.is_complete
        assert progress.plan == Plan(seeds=10)
        assert list(progress.arms["finished"]) == [10, 10]
        assert read_progress(store).study == 2
        assert read_progress(store, 99) is None
        assert read_progress(store.with_name("none.db")) is None

    def test_runs_that_diverged_count_in_figures_and_means_as_in_the_verdict(self, store, monkeypatch):
        stored = read_study(store, 1)
        results = stored.finished.results.copy()
        is_pretrained = results["arm"] == "pretrained"
        results.loc[is_pretrained & (results["seed"] < 3), "test_accuracy"] = np.nan
        results = results[~is_pretrained | (results["seed"] != 9)]  # which is still to come
        monkeypatch.setattr(
            live, "read_any", lambda *_: stored._replace(finished=stored.finished._replace(results=results))
        )
        drawn = []
        plot = live.plots.sequence
        monkeypatch.setattr(live.plots, "sequence", lambda found, *rest: drawn.append(found) or plot(found, *rest))
        view(store, 1)
        verdict = rlm.compare(results, watched=True)
        assert len(drawn[0]) == verdict.pairs == 9
        assert drawn[0]["value"].mean() == pytest.approx(100 * verdict.difference.value)  # in points
        (row,) = compare_studies(store, [1]).effects.itertuples(index=False)
        assert row[3] - row[2] == pytest.approx(verdict.difference.value)

    def test_texts_are_shown_as_text(self):
        assert "<script>" not in html_table(pd.DataFrame({ATTACK: [ATTACK]})) + paragraph(ATTACK)


class TestExplorer:
    @pytest.fixture
    def explorer(self, data, tmp_path):
        made = rlm.Explorer(data, db=tmp_path / "e.db")
        made.set(**QUICK, seeds=10)
        yield made
        made.stop()
        made.close()

    def test_runs_stops_goes_on_and_says_so(self, explorer, data, tmp_path):
        assert "Nothing has been run" in explorer.words
        explorer.run()
        with pytest.raises(InputError, match="no study that runs already"):
            explorer.run()
        while not explorer._session.finished:
            time.sleep(0.05)
        pid = explorer._session.child._process.pid
        explorer.stop()
        assert not psutil.pid_exists(pid)
        kept = read_study(explorer.db).finished.results
        assert len(kept)
        assert "Resume continues it, unless another notebook or terminal trains it" in said(explorer._panel.widget)
        explorer.run()
        explorer.wait()
        assert "Finished: 20 of 20 runs" in said(explorer._panel.widget)
        assert explorer.results["seed"].nunique() == 10
        expected = run_study(explorer.config, 10, data=data, n_jobs=1, progress=False)
        pd.testing.assert_frame_equal(
            explorer.results.drop(columns="seconds"), expected.drop(columns="seconds"), atol=0.02, check_exact=False
        )
        finished = read_study(explorer.db).finished
        luck = rlm.explain.luck(finished.triplets)
        verdict = rlm.compare(explorer.results, watched=True, clusters=finished.clusters).text
        assert explorer.words == " ".join([verdict, explorer._view.words[1][1], luck])
        assert "<script>" not in said(explorer._panel.widget)

    def test_a_knob_is_swept_as_the_command_does_it(self, explorer, data):
        tab = explorer._panel.sweep
        explorer.set(arms=("scratch", "wide: dim=9"))
        tab._knob.value, tab._values.value = "dim", "4, six"
        tab.run.click()
        explorer.wait()
        assert "expected settings that fit in the arm dim=six, found dim" in explorer._session.problem
        assert explorer._session.swept is None
        tab._values.value = "4, 6"
        tab.run.click()
        assert tab.run.disabled
        explorer.wait()
        expected = rlm.systems.sweep(explorer.config, {"dim": [4, 6]}, 10, data=data, db=explorer.db, progress=False)
        assert tab._text.value == f'<p class="headline">{escape(expected.text)}</p>'
        for setting, row in expected.table.iterrows():
            assert f"{setting}</td>" in tab._table.value or f"{setting}</th>" in tab._table.value
            assert f"{row['validation_accuracy']:.1%}" in tab._table.value
        assert f'<img alt="Differences of all settings to {expected.best}, ' in tab._picture.value

    def test_a_study_is_planned_as_the_command_does_it(self, explorer, data):
        def shown():
            with explorer._lock:
                return explorer._panel._planned.value

        def wait_for(text):
            end = time.monotonic() + 120
            while text not in shown():
                assert time.monotonic() < end, f"expected {text}, found {shown()}"
                time.sleep(0.1)

        explorer.set(arms=("scratch", "pretrained"), same_within=0.02, max_epochs=6, learning_rate=0.05)
        explorer._panel.plan.click()
        assert "by five pairs …" in shown()
        wait_for("for an interval of ±2 points by test accuracy. The spread is estimated from 5 pairs")
        assert len(explorer.results) == 0
        explorer.set(until=0.02, seeds=12)
        assert shown() == ""  # it was about other settings
        explorer.run()
        explorer.wait()
        explorer._panel.plan.click()
        wait_for("for an interval of ±1 point by test accuracy. The spread is estimated from")
        explorer.set(arms=("pretrained",))
        explorer._panel.plan.click()
        wait_for("expected the arm scratch and another to plan by, found pretrained")

    def test_a_plan_that_cannot_start_says_why(self, explorer, monkeypatch):
        """Also after another one, which it ends."""
        explorer._panel.plan.click()

        def fails(*_):
            raise InputError("no such table")

        monkeypatch.setattr("rlm.explorer.session.start_plan", fails)
        explorer._panel.plan.click()
        explorer._session.refresh()
        assert explorer._session.planned[2] == "no such table"

    def test_seeds_that_collapse_are_named_with_what_to_try(self, tmp_path):
        """Hard mining with a high learning rate pulls all phrases together."""
        explorer = rlm.Explorer("chatterbot-english", db=tmp_path / "c.db")
        pulled = {"loss": "facenet", "mining": "hard", "learning_rate": 0.05, "word_dim": 16, "dim": 16}
        small = {"encoder": "mean", "arms": ("scratch",), "epoch_triplets": 1500, "max_epochs": 6, "patience": 6}
        try:
            explorer.set(**pulled, **small, seeds=2)
            explorer.run()
            explorer.wait()
            named = "seed(s) 0, 1 of arm scratch collapsed: all phrases are almost one point. They count as failed"
            assert named in explorer._panel.status.value
            assert explorer.results["collapsed"].notna().all()
        finally:
            explorer.stop()
            explorer.close()

    def test_bars_say_how_far_each_arm_is_and_how_long_it_takes(self, explorer):
        names = ["scratch", "pretrained", "shuffled"]
        arms = pd.DataFrame({"planned": [10, 10, 9], "finished": [4, 0, 9]}, index=names)
        explorer._panel.show_progress(arms, pd.Series({"scratch": 12.4, "pretrained": 340.0, "shuffled": 0.0}))
        labels = [one.value for one in all_widgets(explorer._panel.widget) if isinstance(one, widgets.Label)]
        assert [text for text in labels if "seeds" in text] == [
            "4 of 10 seeds, about 12 s left",
            "0 of 10 seeds, about 6 min left",
            "9 of 9 seeds",
        ]
        explorer._panel.show_progress(arms, pd.Series(dtype=float))
        labels = [one.value for one in all_widgets(explorer._panel.widget) if isinstance(one, widgets.Label)]
        assert "4 of 10 seeds" in labels

    def test_another_panel_opens_with_the_last_study(self, store, data):
        opened = rlm.Explorer(data, db=store)
        assert opened.words.startswith("Too few seeds")  # the next cell of a notebook, as soon as the panel is there
        assert len(opened.results) == 6
        assert opened.config == read_progress(store).config
        assert "Finished: 6 of 6 runs" in said(opened._panel.widget)
        assert len(opened._panel.study.options) == 3
        opened._panel.study.value = 1
        opened.wait()
        assert opened.config.learning_rate == 1e-3
        assert len(opened.results) == 20
        assert opened._panel.run.description == "Run"
        opened.close()

    def test_a_study_of_a_training_function_is_shown_with_what_the_store_keeps(self, tmp_path):
        class Settings(BaseModel):
            rate: float = 0.5
            note: str = ATTACK

        def make(settings):
            def train(arm, seed, settings=settings):
                if (arm, seed) == ("wide", 3):
                    raise ValueError(ATTACK)
                return {"cost": seed + (settings.rate if arm == "wide" else 0)}

            return train

        db, cost = tmp_path / "judged.db", Metric("cost", low=0, better="lower", failed=20)
        for rate, seeds in ((0.5, 3), (0.75, 12)):
            with pytest.warns(UserWarning, match="seed.s. 3 of arm wide") if seeds > 3 else nullcontext():
                results = rlm.judge(
                    make(Settings(rate=rate)), ["plain", "wide"], seeds, metrics=cost, db=db, n_jobs=1, progress=False
                )
        opened = rlm.Explorer(db=db)
        before = opened.config
        opened.wait()
        while opened._view is None:
            time.sleep(0.05)
        verdict = rlm.compare(results, "wide", metric=cost)
        assert opened.words == verdict.text
        assert list(opened._panel.study.options)[1:] == [
            ("#1 arguments rate 0.5, train, plain, wide: 3 seeds", 1),
            ("#2 arguments rate 0.75, train, plain, wide: 12 seeds", 2),
        ]
        shown = said(opened._panel.widget)
        assert_harmless(shown)
        assert "<td>rate</td>\n      <td>0.75</td>" in shown
        assert f"ValueError: {html.escape(ATTACK)}" in shown
        assert "Finished: 24 of 24 runs" in shown
        assert opened._panel.run.description == "Run"
        page = opened.export(tmp_path / "out")
        assert verdict.text.split(" (p ")[0] in unescape(page.read_text(encoding="utf-8"))
        opened._panel.study.value = 1
        opened.wait()
        assert len(opened.results) == 6
        assert opened.config == before
        opened.close()
        found = compare_studies(db, [1, 2])
        assert list(found.settings.index) == ["rate"]
        assert list(found.effects["seeds"]) == [3, 12]
        assert found.effects["difference"].iloc[0].startswith("+0.5")
        both = export_studies(db, [1, 2], tmp_path / "both", "test_accuracy").page.read_text(encoding="utf-8")
        assert "Study 2" in both
        assert "%</td>" not in both
        assert_harmless(both)

    def test_numbers_are_written_in_their_unit_however_small(self, tmp_path):
        scales = {
            "test_accuracy": (Metric("test_accuracy", 0, 100), 80),
            "mse": (Metric("mse", 0, better="lower"), 3e-4),
        }
        for name, (metric, scale) in scales.items():
            db = tmp_path / f"{name}.db"
            rlm.judge(
                lambda arm, seed, name=name, scale=scale: {name: scale * (1 + seed / 100 + (arm == "wide") / 10)},
                ["plain", "wide"], 12, metrics=metric, db=db, n_jobs=1, progress=False, version="1",
            )  # fmt: skip
        tab = ResultsTab()
        tab.show(view(tmp_path / "test_accuracy.db", 1))
        assert "<td>80.800</td>" in tab._table.value
        assert "%" not in tab._table.value
        tab.show(view(tmp_path / "mse.db", 1))
        assert "<td>0.000303</td>" in tab._table.value
        assert "<td>0.000</td>" not in tab._table.value + tab._summary.value

    def test_an_invalid_setting_turns_run_off_and_says_why(self, explorer):
        (typed,) = [one for one in all_widgets(explorer._panel.knobs.rows["margin"]) if isinstance(one, widgets.Text)]
        typed.value = "-1"
        assert explorer._panel.run.disabled
        assert "margin: expected a number greater than" in said(explorer._panel.widget)
        with pytest.raises(InputError, match="margin"):
            explorer.run()
        typed.value = ""
        assert not explorer._panel.run.disabled

    @pytest.mark.parametrize(
        ("arms", "baseline", "is_told"),
        [
            (("scratch", "pretrained"), "scratch", False),
            (("pretrained", "rescaled"), "scratch", True),
            (("pretrained", "rescaled"), "pretrained", False),
            (("scratch",), "scratch", True),
            (("wide: dim=9", "pretrained"), "wide", False),
        ],
    )
    def test_arms_that_give_no_verdict_are_told(self, explorer, arms, baseline, is_told):
        explorer.set(arms=arms, baseline=baseline)
        told = f"There will be no verdict: it needs the baseline, {baseline}, and another arm."
        assert (told in said(explorer._panel.widget)) == is_told
        assert not explorer._panel.run.disabled

    def test_as_text_it_is_one_line(self, explorer):
        assert str(explorer) == "rlm.Explorer(db='e.db'), a panel for notebooks. Ready."
        shown = explorer._repr_mimebundle_()
        assert shown["text/plain"] == str(explorer)
        assert len(shown) == 2  # and the panel

    def test_presets_keep_the_data(self, explorer):
        explorer._panel.preset.value = "one fixed set"
        assert explorer.config.arms == ("scratch", "pretrained_once")
        assert explorer.config.dataset == "data"
        explorer.set(max_epochs=7)
        assert explorer._panel.preset.value == "own settings"
        with pytest.raises(ValidationError):
            explorer.set(max_epoch=7)

    def test_what_is_exported_outlives_a_store_that_does_not(self, data, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        explorer = rlm.Explorer(data)
        explorer.set(**QUICK, seeds=1)
        explorer.run()
        explorer.wait()
        assert explorer.export() == tmp_path / "studies-study-1" / "report.html"
        explorer.close()

    def test_data_that_cannot_be_used_are_said(self, tmp_path):
        explorer = rlm.Explorer("no_such_file.csv", db=tmp_path / "e.db")
        explorer.run()
        explorer.wait()
        assert "no_such_file.csv" in said(explorer._panel.widget)
        assert not explorer._panel.run.disabled
        explorer.close()

    def test_a_table_that_cannot_be_written_is_said(self, data):
        explorer = rlm.Explorer(data.assign(anchor=[3.5, *data["anchor"][1:]]))
        explorer.run()
        explorer.wait()
        assert "expected a table of texts" in said(explorer._panel.widget)
        assert not explorer._panel.run.disabled
        explorer.close()

    def test_a_table_has_one_name_everywhere(self):
        assert explorer_module.YOUR_TABLE == datasets.YOUR_TABLE

    def test_what_is_no_store_is_refused(self, tmp_path):
        (tmp_path / "e.db").write_text("text" * 500)
        with pytest.raises(InputError, match="store of studies"):
            rlm.Explorer(db=tmp_path / "e.db")

    def test_it_opens_with_the_data_that_it_is_given(self, data, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        db = tmp_path / "e.db"
        data.to_csv("base.csv", index=False)
        data.iloc[:60].to_csv("other.csv", index=False)
        for name, rate in (("base.csv", 1e-2), ("other.csv", 1e-3)):
            run_study(StudyConfig(dataset=name, learning_rate=rate, **QUICK), 1, db=db, n_jobs=1, progress=False)
        run_study(StudyConfig(**QUICK), 1, data=data.iloc[:50], db=db, n_jobs=1, progress=False)

        def opened(*arguments, **settings):
            explorer = rlm.Explorer(*arguments, db=db, **settings)
            explorer.wait()
            found = explorer.config, explorer._view and explorer._view.study
            explorer.close()
            return found

        config, shown = opened("base.csv")
        assert (config.dataset, config.learning_rate, shown) == ("base.csv", 1e-2, 1)
        assert opened("other.csv")[1] == 2
        assert opened(data.iloc[:50])[1] == 3
        assert opened(data.iloc[:50])[0] == StudyConfig(**QUICK, dataset="data")
        config, shown = opened(data.iloc[:40])
        assert (config.dataset, shown) == ("data", None)
        assert opened()[1] == 3  # the last, where nothing is said
        config, shown = opened("chatterbot-english")
        assert (config.dataset, shown) == ("chatterbot-english", None)
        config, shown = opened("base.csv", reading={"quotechar": "", "delimiter": "\t"})
        assert (config.reading.quotechar, config.reading.delimiter, shown) == ("", "\t", None)
        data.iloc[:-1].to_csv("base.csv", index=False)
        assert opened("base.csv")[1] is None

    def test_what_is_trained_are_the_data_that_it_is_given(self, data, store, tmp_path):
        copied = tmp_path / "copy.db"
        copied.write_bytes(store.read_bytes())
        (tmp_path / "base.csv").write_text(data.iloc[:70].to_csv(index=False))
        explorer = rlm.Explorer(tmp_path / "base.csv", db=copied)
        explorer.set(**QUICK, seeds=1)
        explorer.run()
        explorer.wait()
        explorer.close()
        expected = run_study(explorer.config, 1, data=data.iloc[:70], n_jobs=1, progress=False)
        assert list(explorer.results["test_accuracy"]) == pytest.approx(list(expected["test_accuracy"]), abs=0.02)
        assert list(explorer.results["test_triplets"]) == list(expected["test_triplets"])
        assert read_progress(copied).study == 3

    def test_a_study_of_other_data_lends_its_settings_to_the_table(self, data, store):
        opened = rlm.Explorer(data.iloc[:50], db=store)
        opened._panel.offer_studies({1: "one", 2: "two"}, None)
        opened._panel.study.value = 2
        opened.wait()
        assert opened._view.study == 2
        assert opened.config.learning_rate == 1e-2
        assert opened.config.dataset == "data"
        assert "The knobs differ: dataset data; Run starts a new study" in said(opened._panel.widget)
        opened.close()

    def test_a_plan_of_more_than_ten_thousand_seeds_is_opened(self, store, data, monkeypatch):
        found = read_progress(store)
        large = found._replace(plan=Plan.model_construct(seeds=12_345, until=None))
        monkeypatch.setattr("rlm.explorer.session.read_progress", lambda *_: large)
        opened = rlm.Explorer(data, db=store)
        opened.wait()
        assert len(opened.results) == 6
        assert opened._settings()[1].seeds == 12_345
        opened.close()

    def test_it_says_which_study_is_shown(self, store, data):
        opened = rlm.Explorer(data, db=store)
        opened.wait()
        assert "Shown: #2, with the settings of the knobs." in said(opened._panel.widget)
        opened.set(learning_rate=0.12)
        differs = "Shown: #2 (learning rate 0.01). The knobs differ: learning rate 0.12; Run starts a new study."
        assert differs in said(opened._panel.widget)
        opened.set(learning_rate=0.01)
        assert "Shown: #2, with the settings of the knobs." in said(opened._panel.widget)
        opened.close()

    def test_a_study_of_a_table_is_not_resumed_without_it(self, store):
        opened = rlm.Explorer(db=store)
        opened.wait()
        while 2 not in opened._data_of:
            time.sleep(0.05)
        opened._draw()
        assert "Its data were passed as a table" in said(opened._panel.widget)
        opened.close()

    def test_waiting_ends_when_a_second_study_gives_nothing(self, explorer, tmp_path):
        explorer.set(seeds=1)
        explorer.run()
        explorer.wait()
        assert len(explorer.results) == 2
        explorer.set(negative_kinds={"manual": 1.0})  # which these data do not have
        explorer.run()
        explorer.wait()
        assert explorer._panel.status.value.count("wrong") == 1

    def test_waiting_ends_when_the_store_is_damaged_or_the_panel_is_closed(self, data, tmp_path):
        run_study(StudyConfig(**QUICK), 1, data=data, db=tmp_path / "s.db", n_jobs=1, progress=False)
        opened = rlm.Explorer(data, db=tmp_path / "s.db")
        with opened._lock:
            opened._looked_for = None
            (tmp_path / "s.db").write_text("damaged" * 1000)
        opened.wait()
        assert opened._session.problem
        assert opened._session.problem in unescape(said(opened._panel.widget))
        opened.close()
        opened._looked_for = None
        opened.wait()

    def test_one_look_is_pending_at_a_time(self, store, data, monkeypatch):
        asked = []

        def ask_later(function, *arguments):
            asked.append((function.__name__, Future(), arguments))
            return asked[-1][1]

        monkeypatch.setattr("rlm.explorer.explorer.ask", ask_later)
        opened = rlm.Explorer(data, db=store)
        while not any(name == "look" for name, *_ in asked):
            time.sleep(0.01)
        opened._panel.compare.offer({1: "one", 2: "two"})
        for box in opened._panel.compare._boxes.values():
            box.value = True
        compared = [future for name, future, _ in asked if name == "compare_studies"]
        assert [future.cancelled() for future in compared] == [True, False]
        compared[1].set_result(compare_studies(store, [1, 2]))
        with opened._lock:
            opened._looked_for = None
            opened._look()
        assert sum(name == "look" for name, *_ in asked) == 1  # the comparison's answer was not that of the look
        waiting = Thread(target=opened.wait)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        (looked,) = (future for name, future, _ in asked if name == "look")
        looked.set_result((view(store, 2), {1: "one", 2: "two"}))
        with opened._lock:
            opened._looked_for = opened._panel.wanted(opened._session)
        waiting.join(60)
        assert opened._view.study == 2
        opened.close()

    def test_the_answer_to_an_older_question_is_not_shown(self, store, data):
        opened = rlm.Explorer(data, db=store)
        opened.wait()
        old = view(store, 1)
        with opened._lock:
            opened._show((old, {1: "one", 2: "two"}))
        assert opened._view.study == 2
        assert opened._panel.study.value == 2
        opened.close()

    def test_a_refresh_asks_the_store_once_and_only_when_something_was_written(self, store, data, monkeypatch):
        opened = rlm.Explorer(data, db=store)
        opened.wait()
        opened.close()
        asked = []
        monkeypatch.setattr("rlm.explorer.session.read_progress", lambda *arguments: asked.append(arguments))
        for _ in range(3):
            opened._session.refresh()
        assert not asked
        opened._session._read_at = ()
        opened._session.refresh()
        assert len(asked) == 1

    def test_export_repeats_the_study(self, store, data, tmp_path):
        opened = rlm.Explorer(data, db=store)
        while opened._view is None:
            time.sleep(0.05)
        page = opened.export(tmp_path / "out")
        opened.close()
        html = page.read_text(encoding="utf-8")
        assert "<script>" not in html
        assert "&lt;script&gt;alert(1)" in html
        assert opened._view.headline in html
        config = StudyConfig.model_validate_json((tmp_path / "out" / "config.json").read_text())
        assert config == opened.config
        line = 'rlm.run_study(rlm.StudyConfig.model_validate_json(open("config.json").read()), seeds=3, data=data'
        assert line in unescape(html)


class TestTextsOfThePanel:
    """Whatever data, names and messages say, the panel shows it as text."""

    @pytest.mark.parametrize("attack", [" ".join(ATTACKS), *ATTACKS[:3]])
    def test_nothing_becomes_markup(self, attack):
        config = StudyConfig(dataset=attack, reading={"subset": attack})
        table, picture = pd.DataFrame({attack: [attack]}), Picture(b"", attack, 1)
        settings = pd.DataFrame({"#1": [attack], attack: [attack]}, index=[attack])
        columns = ["study", "seeds", "points", "verdict", "value", "low", "high"]
        effects = pd.DataFrame([[attack] * 7], columns=columns).assign(**{"baseline": 0.5, "with it": 0.5})
        results = pd.DataFrame([[attack, 1, *[0.5] * 9, 1, 1, np.nan, 0.1, 1.0, attack, 1, 1, 1, 1]], columns=RESULTS)
        summary = pd.DataFrame({"arm": [attack], "seeds": [1], "mean": [0.5]})
        words = [(f"Pre-training of {attack}", attack)]
        triplets = pd.DataFrame({"anchor": [attack], "positive": [attack], "negative": [attack]})
        seed = Inside(1, {"scratch": Model()}, {"scratch": 0.5}, triplets, [attack, "b"], {"scratch": np.zeros((2, 1))})
        panel = Panel(config, Plan(), [], on_change=lambda: None, on_choice=lambda _: None, on_train=lambda _: None,
            on_name=lambda _: None, on_export=lambda _: None, on_sweep=lambda _: None)  # fmt: skip
        panel.show_status(attack, is_wrong=True)
        shown = Progress(1, 1, config, Plan(), table, (), "", None, {})
        panel.show_difference(shown, StudyConfig(), Plan(), is_own=False, is_other=True)
        panel.compare.offer({1: attack})
        swept = {
            "setting": [attack],
            "seeds": 1,
            "validation_accuracy": 0.5,
            "difference": 0.0,
            "low": 0.0,
            "high": 0.0,
        }
        panel.sweep.show(Swept(attack, pd.DataFrame(swept | {"result": attack, "worse_than": attack}), b""))
        panel.compare.show(Comparison(settings, effects, picture, picture, find_metric("top_1")))
        metric = find_metric("top_1")
        panel.seen.show(View(1, attack, attack, words, *[picture] * 5, results, summary, table, metric, attack))
        panel.inside.show(seed)
        panel.inside.show_status(attack)
        html = said(panel.widget)
        panel.inside._question.value = f"{attack} anew"
        html += said(panel.widget)
        assert_harmless(html)
        assert " ".join(attack.split()) in " ".join(text_of(html).split())
        for one in all_widgets(panel.widget):
            if getattr(one, "description_allow_html", False):
                assert_harmless(one.description)


class Model:
    """It knows nothing."""

    def encode(self, texts):
        return np.zeros((len(texts), 1))

    def knows(self, text):
        return False


class TestInside:
    @pytest.fixture
    def inside(self, data):
        probe = Probe(StudyConfig(dataset="data", **QUICK), data, seed=1)
        assert list(probe.arms) == ["scratch", "pretrained"]
        while probe.is_running:
            time.sleep(0.1)
        assert probe.problem == ""
        return probe.load()

    def test_nearest_are_those_of_a_slow_loop(self, inside):
        question = inside.phrases[0]
        for arm, found in inside.nearest(question, 5).items():
            model = inside.models[arm]
            asked = model.encode([question])[0]
            others = [phrase for phrase in inside.phrases if phrase != question]
            slow = sorted(float(((model.encode([phrase])[0] - asked) ** 2).sum()) for phrase in others)[:5]
            assert list(found["distance"]) == pytest.approx(slow, rel=1e-4, abs=1e-6)
            assert set(found["phrase"]) <= set(others)

    def test_accuracy_is_that_of_the_distances(self, inside):
        right = {"scratch": 0.0, "pretrained": 0.0}
        for row in inside.triplets.itertuples():
            for arm, (near, far) in inside.distances(row.anchor, [row.positive, row.negative]).items():
                right[arm] += (near < far) + 0.5 * (near == far)
        for arm, share in inside.accuracy.items():
            assert right[arm] / len(inside.triplets) == pytest.approx(share, abs=0.02)
