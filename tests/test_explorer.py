"""The explorer without a browser: knobs, background work, and what the panel says of a study."""

import time
from html import unescape
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil
import pytest
from background_work import answer_with_a_tensor, count_to, fail, hold, start_another_and_wait, wait_for, warn_and_die
from conftest import topic_pairs
from pydantic import BaseModel, ValidationError

import rlm
from rlm.background import Background, Failure, Notice
from rlm.config import Plan, StudyConfig
from rlm.errors import InputError
from rlm.inside import train_inside
from rlm.knobs import Knobs, make_knob
from rlm.live import compare_studies, view
from rlm.panel import GROUPS
from rlm.presets import PRESETS
from rlm.stored import read_progress, read_study
from rlm.study import run_study
from rlm.tabs import html_table, paragraph

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
        assert sorted(listed) == sorted([*StudyConfig.model_fields, *Plan.model_fields])

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
        for one in make_knob(name, field).inputs:
            bounds = {type(bound).__name__: bound for bound in field.metadata}
            if isinstance(one, widgets.BoundedIntText | widgets.BoundedFloatText | widgets.IntSlider):
                assert one.min == (bounds["Ge"].ge if "Ge" in bounds else bounds["Gt"].gt)
                assert "Le" not in bounds or one.max == bounds["Le"].le
            if name != "reading":
                assert one.tooltip.startswith(field.description)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("margin", "-3", "greater than or equal to"),
            ("margin", "wide", "valid number"),
            ("fractions", "0.8, 0.1", "part 3: Field required"),
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

    def test_a_slider_that_the_browser_rounds_does_not_move_the_number(self):
        knob = make_knob("batch_size", StudyConfig.model_fields["batch_size"])
        knob.show(150)
        (slider,) = [one for one in all_widgets(knob.widget) if isinstance(one, widgets.FloatLogSlider)]
        slider.value = 151.3
        assert knob.read() == 150
        slider.value = 1234.5
        assert knob.read() == 1200

    def test_changes_are_told_once_and_not_while_values_are_shown(self):
        changes = []
        knobs = Knobs([Plan()], lambda: changes.append(1))
        knobs.show(Plan(seeds=7))
        assert len(changes) == 1
        (typed,) = [one for one in all_widgets(knobs.rows["seeds"]) if isinstance(one, widgets.BoundedIntText)]
        typed.value = 8
        assert len(changes) == 2

    def test_unknown_types_get_a_text(self):
        class Model(BaseModel):
            path: Path = Path("a")

        knob = make_knob("path", Model.model_fields["path"])
        assert isinstance(knob.widget, widgets.Text)


def is_gone(pid):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


class TestBackground:
    def test_messages_arrive_in_order_and_then_end(self):
        background = Background(count_to, 3)
        assert wait_for(background, 3) == [0, 1, 2]
        assert background.messages(10) == []
        assert not background.is_running

    def test_what_arrives_does_not_need_who_sent_it(self):
        background = Background(answer_with_a_tensor)
        while background.is_running:
            time.sleep(0.05)
        (found,) = wait_for(background, 1)
        assert found.tolist() == [0, 1, 2, 3, 4]

    def test_a_mistake_and_a_fault_are_said(self):
        assert wait_for(Background(fail, InputError("expected a, found b")), 2) == [
            "begun",
            Failure("expected a, found b"),
        ]
        assert wait_for(Background(fail, ZeroDivisionError("oh")), 2)[1] == Failure("ZeroDivisionError: oh")

    def test_warnings_arrive_and_a_killed_process_is_noticed(self):
        notice, one, end = wait_for(Background(warn_and_die), 3)
        assert (notice, one) == (Notice("look out"), 1)
        assert "was killed (exit code 9)" in end.text

    def test_stop_ends_it_and_what_it_started(self):
        background = Background(start_another_and_wait)
        ((own, other),) = wait_for(background, 1)
        background.stop()
        assert is_gone(own)
        assert is_gone(other)
        assert background.messages() == []

    def test_work_ends_with_who_started_it(self, tmp_path):
        holder = Background(hold, str(tmp_path / "pids"))
        wait_for(holder, 1)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        psutil.Process(holder._process.pid).kill()
        assert all(map(is_gone, pids))


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
        results = read_study(store, 1).finished.results
        expected = rlm.compare(results, watched=True)
        assert found.headline == expected.headline
        assert found.words[0][1] == expected.text
        assert "confidence sequence" in found.words[0][1]
        assert len(found.results) == 20
        for picture in (found.seeds, found.curves, found.pretraining):
            assert picture.png.startswith(b"\x89PNG")
            assert "10 seeds" in picture.alt

    def test_figures_are_closed(self, store):
        before = plt.get_fignums()
        view(store, 1)
        assert plt.get_fignums() == before

    def test_comparison_shows_what_differs_and_the_effects(self, store):
        found = compare_studies(store, [1, 2])
        assert list(found.settings.index) == ["learning_rate"]
        assert list(found.settings.loc["learning_rate"]) == ["0.001", "0.01"]
        assert list(found.effects["seeds"]) == [10, 3]
        for number, row in zip((1, 2), found.effects.itertuples(), strict=True):
            results = read_study(store, number).finished.results
            means = results.groupby("arm")["test_accuracy"].mean()
            assert row.value == pytest.approx(means["pretrained"] - means["scratch"])
        assert found.effects["verdict"].iloc[1] == "too few seeds"

    def test_progress_counts_what_was_asked_for(self, store):
        progress = read_progress(store, 1)
        assert progress.is_complete
        assert progress.plan == Plan(seeds=10)
        assert list(progress.arms["finished"]) == [10, 10]
        assert read_progress(store).study == 2
        assert read_progress(store, 99) is None
        assert read_progress(store.with_name("none.db")) is None

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
        while not explorer._finished:
            time.sleep(0.05)
        start = time.monotonic()
        explorer.stop()
        assert time.monotonic() - start < 5
        kept = read_study(explorer.db).finished.results
        assert len(kept)
        explorer.run()
        explorer.wait()
        assert "Finished: 20 of 20 runs" in said(explorer._panel.widget)
        assert explorer.results["seed"].nunique() == 10
        expected = run_study(explorer.config, 10, data=data, n_jobs=1, progress=False)
        pd.testing.assert_frame_equal(
            explorer.results.drop(columns="seconds"), expected.drop(columns="seconds"), atol=0.02, check_exact=False
        )
        assert explorer.words == rlm.compare(explorer.results, watched=True).text + " " + explorer._view.words[1][1]
        assert "<script>" not in said(explorer._panel.widget)

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
        opened.wait()
        while opened._view is None:
            time.sleep(0.05)
        assert opened.config == read_progress(store).config
        assert "Finished: 6 of 6 runs" in said(opened._panel.widget)
        assert len(opened._panel.study.options) == 3
        opened._panel.study.value = 1
        opened.wait()
        assert opened.config.learning_rate == 1e-3
        assert len(opened.results) == 20
        assert opened._panel.run.description == "Run"
        opened.close()

    def test_an_invalid_setting_turns_run_off_and_says_why(self, explorer):
        (typed,) = [one for one in all_widgets(explorer._panel.knobs.rows["margin"]) if isinstance(one, widgets.Text)]
        typed.value = "-1"
        assert explorer._panel.run.disabled
        assert "margin: Input should be greater than" in said(explorer._panel.widget)
        with pytest.raises(InputError, match="margin"):
            explorer.run()
        typed.value = ""
        assert not explorer._panel.run.disabled

    def test_presets_keep_the_data(self, explorer):
        explorer._panel.preset.value = "one fixed set"
        assert explorer.config.arms == ("scratch", "pretrained_once")
        assert explorer.config.dataset == "data"
        explorer.set(max_epochs=7)
        assert explorer._panel.preset.value == "own settings"
        with pytest.raises(ValidationError):
            explorer.set(max_epoch=7)

    def test_data_that_cannot_be_used_are_said(self, tmp_path):
        explorer = rlm.Explorer("no_such_file.csv", db=tmp_path / "e.db")
        explorer.run()
        explorer.wait()
        assert "no_such_file.csv" in said(explorer._panel.widget)
        assert not explorer._panel.run.disabled
        explorer.close()

    def test_what_is_no_store_is_refused(self, tmp_path):
        (tmp_path / "e.db").write_text("text" * 500)
        with pytest.raises(InputError, match="store of studies"):
            rlm.Explorer(db=tmp_path / "e.db")

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


class TestInside:
    @pytest.fixture
    def inside(self, data):
        *arms, found = train_inside(StudyConfig(dataset="data", **QUICK), data, seed=1)
        assert arms == ["scratch", "pretrained"]
        return found

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
