"""The plan of a study: its arithmetic against simulation, planted speeds and a real run."""

import re
import time

import numpy as np
import pandas as pd
import pytest

import rlm
import rlm.cli.study
from rlm.cli.main import app
from rlm.errors import InputError
from rlm.external.functions import FunctionConfig, FunctionStudy
from rlm.runtime.parallel import iter_blocks, predict
from rlm.sentences import explain_forecast
from rlm.stats.metrics import find_metric
from rlm.stats.power import Forecast, forecast


def runs(differences, name="test_accuracy"):
    base = np.random.default_rng(9).normal(0.6, 0.02, len(differences))
    tables = [("scratch", base), ("pretrained", base + differences)]
    return pd.concat([pd.DataFrame({"arm": arm, "seed": range(len(base)), name: values}) for arm, values in tables])


class TestPairs:
    @pytest.mark.parametrize("watched", [False, True])
    def test_a_study_of_that_size_has_the_wanted_interval(self, watched):
        """Half of all studies have a wider interval, and half a narrower one."""
        rng, sd, half = np.random.default_rng(0), 0.02, 0.009
        pairs = forecast(runs(rng.normal(0, 1, 400) * sd), half, "scratch", "test_accuracy", watched=watched).pairs
        widths = []
        for _ in range(30):
            found = rlm.compare(runs(rng.normal(0, sd, pairs)), watched=watched)
            widths.append(found.judged.width)
        assert np.median(widths) / 2 == pytest.approx(half, rel=0.12)

    def test_enough_is_enough_for_four_of_five(self):
        """The bound from a pilot is at least the number that the true spread takes, in 80 % of pilots."""
        rng, sd, half = np.random.default_rng(1), 0.02, 0.005
        needed = rlm.stats.pairs_needed(half, sd, power=0.5)
        enough = [forecast(runs(rng.normal(0, sd, 5)), half, "scratch", "test_accuracy").enough for _ in range(250)]
        assert (np.array(enough) >= needed).mean() == pytest.approx(0.8, abs=0.06)

    def test_the_limit_of_the_test_split_is_what_many_seeds_leave(self):
        """The interval on new data of 400 pairs is hardly narrower than the limit that 5 pairs foretell on average."""
        rng, shape = np.random.default_rng(2), (40, 400)
        kept = rng.normal(0, 0.05, (shape[0], 1)) + rng.normal(0, 0.05, shape)
        index = pd.MultiIndex.from_product([range(40), range(400)], names=["cluster", "seed"])

        def study(pairs, parts):
            values = {"scratch": np.full(shape, 0.5), "pretrained": 0.5 + parts}
            clusters = pd.concat(
                pd.DataFrame({"arm": arm, "triplets": 10, "test_accuracy": found.ravel()}, index).reset_index()
                for arm, found in values.items()
            ).query("seed < @pairs")
            results = clusters.groupby(["arm", "seed"], as_index=False)["test_accuracy"].mean()
            return results.assign(split="fixed"), clusters

        results, clusters = study(400, kept)
        reached = rlm.compare(results, clusters=clusters).new_data.difference.width / 2
        limits = []
        for start in range(0, 400, 20):
            pilot = study(5, np.roll(kept, -start, axis=1))
            limits.append(forecast(pilot[0], 0.01, "scratch", "test_accuracy", clusters=pilot[1]).new_data)
        assert np.mean(limits) == pytest.approx(reached, rel=0.1)

    def test_equal_pairs_tell_no_spread(self):
        with pytest.raises(InputError, match="expected pairs that differ, found 5 equal differences"):
            forecast(runs(np.zeros(5)), 0.01, "scratch", "test_accuracy")

    def test_one_pair_tells_no_spread(self):
        with pytest.raises(InputError, match="at least 2 pairs"):
            forecast(runs(np.zeros(1)), 0.01, "scratch", "test_accuracy")


def slowly(arm, seed):
    time.sleep({"a": 0.02, "b": 0.06}[arm])
    return {"accuracy": 0.5}


def test_the_time_is_that_of_planted_speeds():
    metrics = (rlm.stats.Metric("accuracy", 0, 1, failed=0.0),)
    study = FunctionStudy(
        slowly, FunctionConfig(function="slowly", version="1", baseline="a", metrics=metrics, arms=("a", "b")), None
    )
    seconds, processes, block = predict(study, range(10), {"a": 0.02, "b": 0.06}, n_jobs=1)
    assert (seconds, processes, block) == (pytest.approx(0.8), 1, 1)
    start = time.perf_counter()
    assert len(list(iter_blocks(study, range(10), n_jobs=1, progress=False, notes={}))) == 20
    assert time.perf_counter() - start >= 0.8  # of what is slept; a busy machine may take any time
    # Two processes: each takes the next task as it is free.
    assert predict(study, range(10), {"a": 0.02, "b": 0.06}, n_jobs=2)[0] == pytest.approx(0.4, rel=0.2)
    assert predict(study, [0], {"a": 2.0, "b": 6.0}, n_jobs=8)[0] == 6


def test_words():
    found = Forecast(find_metric("map_at_r"), 0.01, 14, 1, 5, 0.021)
    assert explain_forecast(found, [360.0, 7200.0], 1.25 * 2**30) == (
        "About 14 pairs, 6 minutes and 1.2 GB of memory, for an interval of ±1 point by map@r. The spread is estimated "
        "from 5 pairs: with 80 % certainty, 1 pair (2.0 hours) are enough. The test split itself limits any statement "
        "about new data to about ±2.1 points, with any number of seeds."
    )
    assert "with 80 % certainty, this number is enough. The" in explain_forecast(
        found._replace(enough=14), [360.0, 360.0]
    )


def test_a_pilot_and_a_stored_study_foretell_alike(tmp_path, capsys, caplog, monkeypatch):
    """A study that the store has is not trained again, and its size agrees with its own interval."""
    quick = ["--encoder", "mean", "--pretrain-epochs", "1", "--max-epochs", "2", "--jobs", "1"]
    config = rlm.StudyConfig(encoder="mean", pretrain_epochs=1, max_epochs=2)
    results = rlm.run_study(config, 12, db=tmp_path / "s.db", n_jobs=1, progress=False)
    half = rlm.compare(results).difference.width / 2
    monkeypatch.setattr(rlm.cli.study, "_time_start", lambda: 7.0)  # of the command, and of its workers
    told = []
    caplog.set_level("INFO", "rlm")
    for more in (["--db", str(tmp_path / "s.db")], ["--pilot", "3"]):
        app(["plan", *quick, "--within", f"{half:.5f}", *more], exit_on_error=False, result_action="return_value")
        told.append(capsys.readouterr().out)
    pairs, seconds = (int(one) for one in re.search(r"About (\d+) pairs, (\d+) s and [\d.]+ GB", told[0]).groups())
    assert 10 <= pairs <= 18
    assert seconds == pytest.approx(14 + results["seconds"].sum() * pairs / 12, abs=1 + 0.2 * results["seconds"].sum())
    assert "estimated from 12 pairs" in told[0]
    assert "estimated from 3 pairs" in told[1]
    assert "no study to plan by: training 3 pairs, which are not kept" in caplog.text
    assert "The test split itself limits any statement about new data to about ±" in told[0]


def test_a_plan_is_about_the_baseline_that_is_chosen(tmp_path, capsys, monkeypatch):
    arms, db = ("scratch", "wide: dim=128", "slow: learning_rate=0.0001"), tmp_path / "s.db"
    config = rlm.StudyConfig(encoder="mean", max_epochs=2, arms=arms)
    results = rlm.run_study(config, 12, db=db, n_jobs=1, progress=False)
    monkeypatch.setattr(rlm.cli.study, "_time_start", lambda: 0.0)
    given = ["--encoder", "mean", "--max-epochs", "2", "--within", "0.003", "--db", str(db), "--arms", *arms]
    planned = set()
    for baseline in results["arm"].unique():
        short = baseline.partition(" (")[0]
        app(["plan", *given, "--baseline", short], exit_on_error=False, result_action="return_value")
        planned.add(pairs := forecast(results, 0.003, baseline, "test_accuracy").pairs)
        assert f"About {pairs} pairs" in capsys.readouterr().out
    assert len(planned) > 1


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--within", "0"], "--within"), (["--pilot", "1"], "--pilot"), (["--arms", "scratch"], "the arm scratch and")],
)
def test_what_cannot_be_planned_is_an_error(given, said):
    with pytest.raises(InputError, match=said):
        app(["plan", *given], exit_on_error=False, result_action="return_value")
