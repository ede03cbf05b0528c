"""A training function of the user is run, kept, resumed and judged like a study of the package."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

import judged
import numpy as np
import pandas as pd
import psutil
import pytest
from judged import ARMS, SEEDS, calls, luck, run

import rlm
from rlm.errors import InputError
from rlm.experiment import Experiment, judge_so_far
from rlm.external.functions import FunctionConfig, FunctionStudy
from rlm.report.view import view
from rlm.stats.metrics import Metric
from rlm.store.identity import digest_values

FOLDER = str(Path(__file__).parent)
KILLS = 50
ALL = sorted(product(ARMS, range(SEEDS)))


@pytest.fixture
def db(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "calls"


def stored(db):
    """What a store holds, read without the package."""
    with closing(sqlite3.connect(db)) as connection:
        found = pd.read_sql_query("SELECT arm, seed, value FROM functions_results", connection)
    return found.set_index(["arm", "seed"])["value"].sort_index()


def expected(seeds=SEEDS):
    index = pd.MultiIndex.from_product([ARMS, range(seeds)], names=["arm", "seed"])
    return pd.Series([luck(*one) for one in index], index, name="value").sort_index()


def of_table(results):
    return results.set_index(["arm", "seed"])["test_accuracy"].rename("value").sort_index()


def quietly(*arguments, **settings):
    with pytest.warns(UserWarning, match=r"seed\(s\) .* failed; the column error"):
        return run(*arguments, **settings)


def test_it_gives_the_numbers_of_a_loop_the_baseline_first(log):
    results = run(log)
    pd.testing.assert_series_equal(of_table(results), expected())
    assert results["arm"].unique().tolist() == ["plain", "wide", "deep"]
    assert (results["error"] == "").all()
    assert sorted(calls(log)) == ALL


def test_it_is_an_experiment(log):
    config = FunctionConfig(function="f", version=None, baseline="a", metrics=(Metric("loss"),), arms=("a",))
    assert isinstance(FunctionStudy(judged.Train(log), config), Experiment)


FATE = {("wide", 1): "fail", ("deep", 2): float("nan"), ("plain", 3): float("inf"), ("deep", 0): "exit"}


class TestFailures:
    def test_a_run_that_fails_is_recorded_and_counts_as_failed(self, log, db):
        results = quietly(log, db, fate=FATE, seeds=12)
        failed = results[results["test_accuracy"].isna()].set_index(["arm", "seed"])["error"]
        assert set(failed.index) == set(FATE)
        assert "ZeroDivisionError: oh" in failed["wide", 1]
        assert "judged.py" in failed["wide", 1]
        assert "SystemExit: 3" in failed["deep", 0]
        assert failed["deep", 2] == ""
        assert len(results) == 36
        verdict = rlm.compare(results, "wide", "plain")
        counted = results.fillna({"test_accuracy": 0.0})  # nobody knows the accuracy of guessing
        assert verdict.difference == rlm.compare(counted, "wide", "plain").difference
        assert verdict.failed["wide"].share.value == 1 / 12
        assert "8% [0%, 38%] with wide (1 without a value)" in verdict.text
        run(log, db, fate=FATE, seeds=12)
        assert len(calls(log)) == 36  # a failure is a result: it is not run again

    def test_a_run_that_hangs_is_killed_and_the_rest_goes_on(self, log, db):
        fate = {("wide", 1): "hang", ("deep", 2): "fail"}
        results = quietly(log, db, fate=fate, timeout=0.7, n_jobs=2)
        failed = results[results["test_accuracy"].isna()].set_index(["arm", "seed"])["error"]
        assert failed["wide", 1] == "TimeoutError: it took longer than 0.7 seconds"
        assert "ZeroDivisionError" in failed["deep", 2]
        assert sorted(calls(log)) == ALL
        rest = expected().drop(list(fate))
        pd.testing.assert_series_equal(stored(db).dropna(), rest)

    def test_a_process_that_dies_within_its_time_ends_the_study(self, log, db):
        with pytest.raises(InputError, match=r"a process of the study was killed.*study.db keeps the finished blocks"):
            run(log, db, fate={("deep", 2): "die"}, timeout=60)
        kept = stored(db)
        assert 0 < len(kept) < len(ALL)
        pd.testing.assert_series_equal(of_table(run(log, db)), expected())

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (0.5, r"expected a mapping .* of arm 'a' and seed 7, found 0.5"),
            ({"loss": 0.5}, r"expected test_accuracy of arm 'a' and seed 7, found loss"),
            ({"test_accuracy": "0.5"}, r"expected a number, .* as test_accuracy of arm 'a' and seed 7, found '0.5'"),
            ({"test_accuracy": None}, r"of arm 'a' and seed 7, found None"),
            ({"test_accuracy": True}, r"of arm 'a' and seed 7, found True"),
            ({"test_accuracy": []}, r"expected a number in each part of .* of arm 'a' and seed 7"),
            ({"test_accuracy": 67.5}, r"of arm 'a' and seed 7 from 0 to 1, found 67.5; divide percent by 100"),
        ],
    )
    def test_what_is_no_number_is_an_error_that_names_the_run(self, answer, message):
        with pytest.raises(InputError, match=message):
            rlm.judge(lambda arm, seed: answer, "a", [7], n_jobs=1, progress=False)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"arms": []}, "at least one arm"),
            ({"arms": ["a", "a"]}, "different from the others"),
            ({"baseline": "c"}, "expected a baseline among the arms a, b, found 'c'"),
            ({"metrics": "fame"}, "expected a known metric"),
            ({"metrics": []}, "at least one metric"),
            ({"metrics": "seconds"}, "a name other than those of the results"),
            ({"metrics": Metric("error", 0, 1)}, "a name other than those of the results"),
            ({"timeout": 0}, "a timeout above 0"),
            ({"until": 3.0}, "at most 2"),
            ({"until": 0.1, "metrics": "loss"}, "a number that a failed seed counts as"),
        ],
    )
    def test_a_request_that_cannot_be_used_is_an_error_before_any_run(self, settings, message):
        def never(arm, seed):
            raise AssertionError

        request = {"train": never, "arms": ["a", "b"], "seeds": 2, "progress": False} | settings
        with pytest.raises(InputError, match=message):
            rlm.judge(**request)


class TestInterruptions:
    def test_killed_at_random_it_loses_nothing_and_repeats_nothing(self, tmp_path, monkeypatch):
        """Each time the study continues where it was killed; when it is done, a new one begins."""
        context = multiprocessing.get_context("forkserver")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([FOLDER, os.environ.get("PYTHONPATH", "")]))
        context.set_forkserver_preload(["warm_judge"])
        rng, kills, studies, patience = np.random.default_rng(0), 0, 0, 0.3
        kept, begun = expected().iloc[:0], 0
        while kills < KILLS or begun or studies < 2:  # on a busy machine most kills come early
            db, log = tmp_path / f"{studies}.db", tmp_path / f"{studies}.calls"
            log.touch()
            process = context.Process(target=run, args=(log, db), kwargs={"seconds": 0.005})
            process.start()
            process.join(rng.uniform(0, patience) if kills < KILLS else None)
            if process.is_alive():
                process.kill()
                process.join()
                kills += 1
            else:
                assert process.exitcode == 0
            asked = calls(log)
            assert not set(asked[begun:]) & set(kept.index)
            try:
                now = stored(db)
            except pd.errors.DatabaseError:  # killed before the tables were made
                now = kept
            now = now if len(now) else kept
            pd.testing.assert_series_equal(now.loc[kept.index], kept)
            patience *= 0.9 if len(now) > len(kept) else 1.05
            kept, begun = now, len(asked)
            if process.exitcode == 0:
                pd.testing.assert_series_equal(now, expected())
                kept, begun, studies = expected().iloc[:0], 0, studies + 1
        assert studies >= 2

    def test_a_killed_worker_is_reported_and_the_study_continues(self, log, db):
        process = psutil.Process()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rlm.external.functions.collect", _killing_after(3, process))
            with pytest.raises(InputError, match=r"a process of the study was killed.*keeps the finished blocks"):
                run(log, db, seconds=0.05, n_jobs=2, seeds=40)
        kept, begun = stored(db), len(calls(log))
        assert 3 <= len(kept) < 120
        results = run(log, db, n_jobs=2, seeds=40)
        assert not set(calls(log)[begun:]) & set(kept.index)
        pd.testing.assert_series_equal(of_table(results), expected(40))

    def test_interrupted_it_keeps_what_is_finished(self, log, db):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, judged.__file__, str(log), str(db)]
        log.touch()
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
        )  # as a terminal has it, workers get the signal too
        end = time.monotonic() + 120
        while len(calls(log)) < 8 and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "interrupted: these are the" in errors
        kept, begun = stored(db), len(calls(log))
        assert 0 < len(kept) < 60
        results = run(log, db, seeds=20)
        assert not set(calls(log)[begun:]) & set(kept.index)
        pd.testing.assert_series_equal(of_table(results), expected(20))


def _killing_after(number, process):
    """A stand-in for `collect` that kills a worker after some runs."""

    def collect(blocks, arms):
        for count, _ in enumerate(blocks):
            if count == number:
                workers = [one for one in process.children() if "LokyProcess" in "".join(one.cmdline())]
                workers[0].kill()
        raise AssertionError

    return collect


class TestIdentity:
    LEARNING_RATE = 1

    def begun(self, make, db):
        """How many runs a function begins with this store."""
        count = []
        train = make(count)
        rlm.judge(train, ["a", "b"], 2, db=db, n_jobs=1, progress=False, version=None)
        return len(count)

    def test_a_change_of_the_source_is_another_study(self, db, tmp_path):
        code = "def train(arm, seed):\n    RUNS.append(1)\n    return {'test_accuracy': RATE}\n"
        found = []
        for rate, source in [(0.1, code), (0.1, code), (0.1, code + "    # more\n    pass\n"), (0.2, code)]:
            path = tmp_path / f"module{len(found)}.py"
            path.write_text(source)
            space = {"RUNS": Runs(), "RATE": rate, "__name__": "mine"}
            exec(compile(source, path, "exec"), space)
            rlm.judge(space["train"], ["a", "b"], 2, db=db, n_jobs=1, progress=False)
            found.append(len(space["RUNS"]))
        assert found == [4, 0, 4, 4]
        assert len(rlm.list_studies(db, "functions")) == 3

    def test_a_change_of_a_module_it_imports_is_another_study(self, db, tmp_path):
        """Also where that module only imports from another one; installed modules are known by their names."""
        (tmp_path / "deep.py").write_text("RATE = 0.1\ndef rate():\n    return RATE\n")
        (tmp_path / "models.py").write_text("import numpy\nfrom deep import rate\n")
        (tmp_path / "script.py").write_text(
            "import models, numpy as np\nfrom rlm.store.identity import digest_values\n"
            "def train(arm, seed): return np.mean(models.rate())\nprint(digest_values(train, 'train'))\n"
        )
        found = []
        for _ in range(2):
            command = [sys.executable, tmp_path / "script.py"]
            found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            (tmp_path / "deep.py").write_text("RATE = 0.25\ndef rate():\n    return RATE\n")
        assert found[0] != found[1]

    def test_values_it_closes_over_are_a_part_of_it(self, db):
        def with_rate(rate):
            def train(arm, seed):
                return {"test_accuracy": [rate * one for one in (0.5, 1.0)]}

            return train

        for number, rate in enumerate([0.2, 0.2, np.float64(0.3), 0.2], 1):
            rlm.judge(with_rate(rate), ["a"], 1, db=db, n_jobs=1, progress=False)
            assert len(rlm.list_studies(db, "functions")) == (1 if number < 3 else 2)

    def test_a_part_of_a_function_is_known_by_all_of_it(self):
        def train(rate, arm, seed):
            return {"test_accuracy": rate * scale}

        scale, found = 1.0, set()
        for scale, rate in [(1.0, 0.5), (1.0, 0.6), (0.9, 0.5), (1.0, 0.5)]:  # noqa: B007 - the function reads it
            found.add(digest_values(partial(train, rate), "train"))
        assert len(found) == 3

    def test_a_version_replaces_them(self, db):
        for rate, version in [(0.2, "1"), (0.3, "1"), (0.3, "2")]:
            rlm.judge(
                lambda arm, seed, rate=rate: {"test_accuracy": rate}, ["a"], 1, db=db, n_jobs=1, progress=False,
                version=version,
            )  # fmt: skip
        found = [rlm.external.read_judged(db, study).finished.results["test_accuracy"].item() for study in (1, 2)]
        assert found == [0.2, 0.3]

    def test_what_cannot_be_hashed_asks_for_a_version(self, db):
        held = sqlite3.connect(":memory:")
        with pytest.raises(InputError, match="pass version="), closing(held):
            rlm.judge(lambda arm, seed: held, ["a"], 1, db=db, n_jobs=1, progress=False)

    def test_it_is_the_same_in_every_process(self, tmp_path):
        """Hashes of texts, addresses and the order of sets differ from process to process."""
        code = (
            "import numpy as np, pandas as pd, torch\nfrom torch import nn\n"
            "from rlm.store.identity import digest_values\n"
            "torch.manual_seed(0)\nNET, SET = nn.Linear(2, 2), {'a', 'b', 'c'}\n"
            "FRAME = pd.DataFrame({'x': ['a', 'b']})\n"
            "class Settings:\n    def __init__(self): self.rate = torch.ones(2)\nSETTINGS = Settings()\n"
            "def helper(): return helper, NET, np.mean\n"
            "def train(arm, seed): return helper, SET, FRAME, [SETTINGS for _ in range(2)]\n"
            "print(digest_values(train, 'train'))\n"
        )
        path = tmp_path / "script.py"
        path.write_text(code)
        done = [
            subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, env=environment).stdout
            for environment in ({**os.environ, "PYTHONHASHSEED": seed} for seed in "12")
        ]
        assert done[0] == done[1] != ""


class Runs(list):
    """A list that every process and every study finds the same."""

    def __reduce__(self):
        return Runs, ()


class TestVerdict:
    def test_a_store_is_read_as_it_was_returned(self, log, db, rlm_command):
        results = run(log, db, seeds=12)
        found = rlm.external.read_judged(db)
        pd.testing.assert_frame_equal(found.finished.results, results)
        assert found.config.baseline == "plain"
        assert not found.watched
        code, out, _ = rlm_command("verdict", db)
        assert code == 0
        for verdict in rlm.compare_all(results, "plain").values():
            assert verdict.text in out
        assert rlm_command("results", db)[1].count("\n") == 37

    def test_another_baseline_or_range_is_the_same_study(self, log, db):
        run(log, db, seeds=2)
        run(log, db, seeds=2, baseline="deep", metrics=Metric("test_accuracy", low=-1, failed=0))
        assert len(calls(log)) == 6
        assert rlm.external.read_judged(db).config.baseline == "deep"
        assert rlm.external.read_judged(db).config.metrics[0].low == -1

    def test_until_stops_by_the_metric_and_the_baseline_that_were_named(self, db):
        metric = Metric("cost", low=0, high=10, better="lower", failed=10)

        def train(arm, seed):
            return {"cost": float(np.random.default_rng([seed, len(arm)]).normal(5, 0.1)), "other": "ignored"}

        results = rlm.judge(
            train, ["a", "bb"], 60, metrics=metric, until=0.5, baseline="bb", db=db, n_jobs=1, progress=False
        )
        pairs = results["seed"].nunique()
        assert 10 <= pairs < 60
        for seen, is_enough in ((pairs, True), (pairs - 1, False)):
            judged = judge_so_far(results[results["seed"] < seen], ["bb", "a"], range(60), metric, "bb")
            assert (judged["a"].difference.width < 0.5) == is_enough
        assert rlm.compare(results, "a", "bb", metric).watched

    @pytest.mark.parametrize("name", ["test_accuracy", "gain"])
    def test_numbers_of_clusters_speak_of_other_data(self, db, name):
        metric = name if name == "test_accuracy" else Metric(name, 0, 1, failed=0.0)
        sizes = np.random.default_rng(1).integers(1, 5, 30)

        def train(arm, seed):
            rng = np.random.default_rng([seed, len(arm)])
            return {name: {f"c{number}": rng.integers(0, 2, size) for number, size in enumerate(sizes)}}

        results = rlm.judge(train, ["a", "bb"], 12, metrics=metric, db=db, n_jobs=1, progress=False)
        clusters = rlm.external.read_judged(db).finished.clusters
        found = rlm.compare(results, "bb", "a", metric, clusters=clusters).new_data
        assert found is not None
        plain = clusters.rename(columns={"value": "test_accuracy", "items": "triplets"}).drop(columns="metric")
        table = results.rename(columns={name: "test_accuracy"}).assign(split="fixed")
        assert found == rlm.compare(table, "bb", "a", clusters=plain).new_data
        weighted = plain["test_accuracy"] * plain["triplets"]
        mean = weighted.groupby([plain["arm"], plain["seed"]]).sum() / sizes.sum()
        np.testing.assert_allclose(results.set_index(["arm", "seed"])[name], mean)

    def test_items_of_a_list_may_be_others_under_each_seed(self, db):
        """Nothing tells which items of two seeds are the same, so nothing follows for new data."""

        def train(arm, seed):
            return {"test_accuracy": np.random.default_rng([seed, len(arm)]).integers(0, 2, 30).tolist()}

        results = rlm.judge(train, ["a", "bb"], 12, db=db, n_jobs=1, progress=False)
        found = rlm.external.read_judged(db).finished
        assert rlm.compare(results, "bb", "a", clusters=found.clusters).new_data is None
        assert results["test_accuracy"].iloc[0] == np.mean(train("a", 0)["test_accuracy"])

    def test_what_counts_as_the_same_is_obeyed_everywhere(self, db, rlm_command):
        def train(arm, seed):
            return {"share": float(np.random.default_rng([seed, len(arm)]).normal(0.7 + len(arm) / 1000, 0.01))}

        metric = Metric("share", 0, 1)
        results = rlm.judge(train, ["a", "bb"], 20, metrics=metric, same_within=0.05, db=db, n_jobs=1, progress=False)
        said = "The arms bb and a are the same within 5 points."
        assert rlm.compare(results, "bb", "a", metric).headline == said
        assert said in rlm_command("verdict", db)[1]
        assert view(db, 1).headline == said
        assert rlm.compare(results, "bb", "a", metric, same_within=1e-4).decision != "the same"

    def test_it_shares_a_store_with_other_studies(self, log, db):
        run(log, db, seeds=2)
        config = rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0)
        rlm.run_study(config, 2, db=db, n_jobs=1, progress=False)
        assert rlm.read_study(db).config.encoder == "mean"
        assert rlm.external.read_judged(db).encoder == "Train"
