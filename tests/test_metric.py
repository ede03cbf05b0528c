"""A study may be about any of its metrics: the rule to stop by, the verdict and the panel follow it."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
from conftest import topic_pairs

import rlm
from rlm.cli.main import app
from rlm.config import MetricName, Plan
from rlm.errors import InputError
from rlm.report.view import look
from rlm.sentences import spell_seconds
from rlm.stats.power import forecast
from rlm.store.read import read_progress
from rlm.study import BlockResult

pytestmark = pytest.mark.filterwarnings("ignore:seed.*diverged")  # as planted
DATA = topic_pairs(np.random.default_rng(0), topics=6, pairs=60)
CONFIG = rlm.StudyConfig(encoder="mean", pretrain_epochs=1, max_epochs=1)
METRICS = get_args(MetricName)
RETRIEVAL = METRICS[2:]
DIVERGED = {("pretrained", seed) for seed in (2, 7)}


def planted(configs, corpus, seeds, *_):
    """Pre-training helps by two points of MAP@R; by all other metrics the runs are noise."""
    runs = pd.MultiIndex.from_product([list(configs), seeds], names=["arm", "seed"]).to_frame(index=False)
    tables = []
    for table in BlockResult.TABLES.values():
        columns = {
            name: {str: "fixed", int: 1, float: 0.5, bytes: bytes(1)}[kind] for name, kind in table.values.items()
        }
        tables.append(runs.assign(**dict.fromkeys(set(table.keys) - {"arm", "seed"}, 0), **columns))
        tables[-1] = tables[-1][[*table.keys, *table.values]]
    results = tables[0].assign(collapsed=np.nan)
    for row, run in results.iterrows():
        rng = np.random.default_rng([run["seed"], run["arm"] == "pretrained"])
        results.loc[row, [*METRICS]] = rng.uniform(0.3, 0.7, len(METRICS))
        gain = 0.02 * (run["arm"] == "pretrained")
        results.loc[row, "map_at_r"] = 0.2 + gain + rng.normal(0, 0.001)
        if (run["arm"], run["seed"]) in DIVERGED:
            results.loc[row, [*METRICS]] = np.nan
    return BlockResult(results, *tables[1:])


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr("rlm.study.run_block", planted)
    common = {"data": DATA, "db": tmp_path / "s.db", "n_jobs": 1, "progress": False, "block_size": 5}
    return lambda seeds=12, **settings: rlm.run_study(CONFIG, seeds, **common | settings)


@pytest.fixture
def nothing_diverges(monkeypatch):
    monkeypatch.setattr(f"{__name__}.DIVERGED", set())


@pytest.mark.usefixtures("nothing_diverges")
class TestUntil:
    def test_watches_the_chosen_metric(self, run, tmp_path):
        narrow = run(30, until=0.02, metric="map_at_r")
        assert narrow["seed"].nunique() == 10
        assert narrow.attrs["metric"] == "map_at_r"
        assert rlm.compare(narrow, metric="map_at_r").anytime.width < 0.02
        assert run(30, until=0.02, db=tmp_path / "other.db")["seed"].nunique() == 30

    def test_a_synonym_is_the_column(self, run):
        assert run(2, metric="recall_at_5").attrs["metric"] == Plan(metric="recall_at_5").metric == "top_5"
        results = run(2)
        assert rlm.compare(results, metric="recall_at_5").metric.name == "top_5"

    @pytest.mark.parametrize("name", ["nonsense", "eer", "seconds", "recall_at_3"])
    def test_what_is_not_measured_is_an_error(self, run, name):
        with pytest.raises(InputError, match=r"expected a .*metric.*found"):
            run(2, metric=name)

    def test_the_first_start_fixes_it(self, run, caplog, tmp_path):
        run(12, metric="map_at_r")
        assert run(12, metric="top_1").attrs["metric"] == "map_at_r"
        assert "metric stays map_at_r" in caplog.text
        assert rlm.read_study(tmp_path / "s.db").finished.results.attrs["metric"] == "map_at_r"
        assert read_progress(tmp_path / "s.db").plan.metric == "map_at_r"


def test_every_metric_is_judged_by_the_command_line(run, tmp_path, capsys):
    results, table = run(12, metric="map_at_r"), tmp_path / "runs.csv"
    results.dropna(subset=[*METRICS]).to_csv(table, index=False)
    for name in METRICS:
        clusters = rlm.read_study(tmp_path / "s.db").finished.clusters
        for source, given, by in (
            (tmp_path / "s.db", results, clusters),
            (table, results.dropna(subset=[*METRICS])[["arm", "seed", name]], None),
        ):
            app(["verdict", str(source), "--metric", name], exit_on_error=False, result_action="return_value")
            said = capsys.readouterr().out
            assert rlm.compare(given, metric=name, clusters=by).text in said
            assert ("was meant for map@r" in said) == (source.suffix == ".db" and name != "map_at_r")
    app(["verdict", str(tmp_path / "s.db")], exit_on_error=False, result_action="return_value")
    assert "map@r over seeds" in capsys.readouterr().out


def test_divergence_is_never_rewarded(run, monkeypatch):
    """A seed that diverged counts as the worst value, so that the arm does worse than with any value of that seed."""
    diverged = run(12)
    monkeypatch.setattr(f"{__name__}.DIVERGED", set())
    finished = run(12, db=None)
    for name in RETRIEVAL:
        with_values, without = rlm.compare(finished, metric=name), rlm.compare(diverged, metric=name)
        assert without.pairs == with_values.pairs == 12
        assert without.difference.value < with_values.difference.value
        assert without.failed["pretrained"].diverged == 2
        worst = finished.assign(**{name: diverged[name].fillna(0.0)})
        assert rlm.compare(worst, metric=name).difference == without.difference


@pytest.mark.parametrize("name", ["map_at_r", "test_accuracy"])
def test_the_panel_shows_the_verdict_by_the_chosen_metric(run, name, tmp_path):
    results = run(12, watched=True)
    found, _ = look(tmp_path / "s.db", 1, name)
    clusters = rlm.read_study(tmp_path / "s.db").finished.clusters
    expected = rlm.compare(results, metric=name, clusters=clusters)
    assert found.headline == expected.headline
    assert found.words[0][1] == expected.text
    assert found.metric.name == name
    assert ("was meant for test accuracy" in found.limits) == (name != "test_accuracy")
    assert found.summary.set_index("arm")["mean"].to_dict() == rlm.summarise(results, name)["mean"].to_dict()
    assert found.metric.title in found.seeds.alt


def test_the_panel_tells_what_a_narrow_interval_takes(run, tmp_path):
    """Of the shown metric, at the speed of the stored runs, from the seeds that are there."""
    results = run(12, watched=True)
    plan = look(tmp_path / "s.db", 1, "top_5", 0.05, 2)[0].plan
    expected = forecast(results, 0.025, "scratch", "top_5", watched=True)
    more = expected.pairs - 12
    assert plan.startswith(f"About {expected.pairs:,} pairs, ")
    assert "for an interval of ±2.5 points by top 5" in plan
    assert plan.endswith(f"That is {more:,} pairs more, {spell_seconds(more * 0.5)}.")  # two runs of 0.5 s, two cores
