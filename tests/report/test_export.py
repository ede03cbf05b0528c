"""An exported study: the line repeats it, and the page says what it is of."""

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL, topic_pairs
from torch import nn

import rlm
from rlm.config import StudyConfig
from rlm.data.datasets import describe_data
from rlm.report.study_page import export_study
from rlm.store.read import list_studies, read_study
from rlm.study import run_study

QUICK = {"n_jobs": 1, "progress": False}
ATTACK = r"$\text{<form action=x>}$ ![x](https://evil.example/x.png) <script>alert(1)</script>"


class Averaging(nn.Module):
    """An encoder of one's own: the mean of its word vectors."""

    def __init__(self, vocabulary_size):
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, 4)

    def forward(self, tokens, batch_sizes):
        return self.words(tokens.long()).mean(dim=1)


@pytest.fixture(scope="module")
def data():
    return topic_pairs(np.random.default_rng(0), topics=6, pairs=90)


def repeat(written, monkeypatch, **names):
    """Execute the line in the folder where it was written; its results, and what the store now has."""
    monkeypatch.chdir(written.page.parent)
    results = eval(written.code, {"rlm": rlm, **names})
    (store,) = written.page.parent.glob("*.db")
    return results, read_study(store)


def assert_same(results, again):
    columns = ["arm", "seed", "validation_accuracy", "test_accuracy", "best_epoch", "epochs"]
    keys = ["arm", "seed"]
    expected, found = (table[columns].sort_values(keys, ignore_index=True) for table in (results, again))
    pd.testing.assert_frame_equal(found, expected, atol=1e-4, check_exact=False)


@pytest.mark.parametrize(("seeds", "said"), [([5, 7, 11], "seeds=[5, 7, 11]"), ([0, 1, 2], "seeds=3")])
def test_the_line_repeats_the_seeds_as_they_were_listed(data, tmp_path, monkeypatch, seeds, said):
    db = tmp_path / "s.db"
    results = run_study(StudyConfig(**SMALL), seeds, data=data, db=db, **QUICK)
    written = export_study(db, 1, tmp_path / "out", describe_data)
    assert said in written.code
    again, stored = repeat(written, monkeypatch, data=data)
    assert_same(results, again)
    assert stored.watched == read_study(db).watched


def test_a_study_of_a_table_is_not_called_by_the_dataset_of_its_config(data, tmp_path):
    db = tmp_path / "s.db"
    run_study(StudyConfig(**SMALL), 2, data=data, db=db, **QUICK)
    written = export_study(db, 1, tmp_path / "out", describe_data)
    html = written.page.read_text(encoding="utf-8")
    box = html.split("Provenance")[-1]
    assert "data=data" in written.code
    assert "your own data" in re.search("<dt>dataset</dt><dd>(.*?)</dd>", box)[1]
    assert "not stated" in re.search("<dt>licence</dt><dd>(.*?)</dd>", box)[1]
    assert "your own data" in re.search("<h1.*?</h1>", html, re.DOTALL)[0]
    assert "must be the same table" in html
    assert "null" not in box  # the config has many settings that are left to a default


def test_a_study_of_a_file_is_repeated_from_the_file(data, tmp_path, monkeypatch):
    data.to_csv(tmp_path / "base.csv", index=False)
    monkeypatch.chdir(tmp_path)
    results = run_study(StudyConfig(dataset="base.csv", **SMALL), [4, 2], db="s.db", watched=True, **QUICK)
    written = export_study(tmp_path / "s.db", 1, tmp_path / "out" / "deep", describe_data)
    assert "data=data" not in written.code
    assert "watched=True" in written.code
    assert "base.csv" in written.page.read_text(encoding="utf-8")
    again, stored = repeat(written, monkeypatch)
    assert_same(results, again)
    assert stored.watched


def test_a_file_that_has_changed_since_is_not_called_the_data_of_the_study(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data.to_csv("base.csv", index=False)
    run_study(StudyConfig(dataset="base.csv", **SMALL), 1, db="s.db", **QUICK)
    data.iloc[:-1].to_csv("base.csv", index=False)
    assert "data=data" in export_study(tmp_path / "s.db", 1, tmp_path / "out", describe_data).code


def test_an_encoder_of_ones_own_is_named_and_its_source_is_shown(data, tmp_path, monkeypatch):
    db = tmp_path / "s.db"
    results = run_study(StudyConfig(**SMALL), 2, data=data, make_encoder=Averaging, db=db, **QUICK)
    written = export_study(db, 1, tmp_path / "out", describe_data)
    html = written.page.read_text(encoding="utf-8")
    assert "make_encoder=Averaging" in written.code
    assert "help Averaging on" in re.search("<h1.*?</h1>", html, re.DOTALL)[0]
    assert "self.words(tokens.long()).mean(dim=1)" in unescape(html)
    assert "define it first" in html
    again, _ = repeat(written, monkeypatch, data=data, Averaging=Averaging)
    assert_same(results, again)


def test_arms_and_seeds_of_all_runs_are_repeated(data, tmp_path, monkeypatch):
    db = tmp_path / "s.db"
    config = StudyConfig(**SMALL)
    run_study(config.model_copy(update={"arms": ("scratch", "shuffled")}), 3, data=data, db=db, **QUICK)
    run_study(config, 2, data=data, db=db, **QUICK)
    assert len(list_studies(db)) == 1
    again, _ = repeat(export_study(db, 1, tmp_path / "out", describe_data), monkeypatch, data=data)
    assert set(again["arm"]) == {"scratch", "pretrained", "shuffled"}
    assert set(again["seed"]) == {0, 1, 2}


@pytest.mark.parametrize("name", ["new\nline.db", "quo\"te's \\ $x$ `плюс`.db"])
def test_a_store_of_any_name_gives_a_line_of_python(data, tmp_path, monkeypatch, name):
    results = run_study(StudyConfig(**SMALL), 1, data=data, db=tmp_path / name, **QUICK)
    written = export_study(tmp_path / name, 1, tmp_path / "out", describe_data)
    assert "\n" not in written.code
    shown = unescape(written.page.read_text(encoding="utf-8"))
    assert written.code in shown
    again, _ = repeat(written, monkeypatch, data=data)
    assert_same(results, again)
    assert (tmp_path / "out" / name).is_file()


def test_names_of_data_stay_text(data, tmp_path):
    db = tmp_path / "s.db"
    run_study(StudyConfig(dataset=ATTACK, reading={"part": ATTACK}, **SMALL), 1, data=data, db=db, **QUICK)
    html = export_study(db, 1, tmp_path / "out", describe_data).page.read_text(encoding="utf-8")
    assert ATTACK in unescape(re.search("<h1.*?</h1>", html, re.DOTALL)[0])
    assert not re.search("<(form|script|img [^>]*https?:)", html)
    assert "<math" not in html


def test_limits_stand_under_the_headline(data, tmp_path):
    db = tmp_path / "s.db"
    run_study(StudyConfig(**SMALL, patience=9), 2, data=data, db=db, **QUICK)
    html = export_study(db, 1, tmp_path / "out", describe_data).page.read_text(encoding="utf-8")
    quote = re.search("<blockquote>(.*?)</blockquote>", html, re.DOTALL)[1]
    assert "1 epoch of pre-training and at most 2 epochs of fine-tuning" in quote
    assert "Every run was cut short by max_epochs" in quote


def keep(block, slices):
    """A start that the user supplies."""
    return block


def test_starts_of_your_own_are_handed_over_again(data, tmp_path, monkeypatch):
    db, starts = tmp_path / "s.db", {"mine": keep, "mine, shuffled": ("shuffled", "mine")}
    results = run_study(StudyConfig(**SMALL), 2, data=data, starts=starts, db=db, **QUICK)
    written = export_study(db, 1, tmp_path / "out", describe_data)
    assert "starts=starts" in written.code
    assert "which are not kept here: <code>starts</code> must be the same" in written.page.read_text(encoding="utf-8")
    again, _ = repeat(written, monkeypatch, data=data, starts=starts)
    assert_same(results, again)
