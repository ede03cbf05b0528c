"""Results that were made elsewhere get the verdict of the same numbers passed as a table."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from conftest import topic_pairs
from scipy import stats

import rlm
from rlm.cli.output import show_verdicts
from rlm.errors import InputError
from rlm.external import compare_results, read_results
from rlm.external.logs import LOGS, find_log
from rlm.stats.metrics import Metric

ARMS, SEEDS = ["plain", "wide", "NA"], range(12)
SHARE = Metric("accuracy", 0, 1)


@pytest.fixture(scope="module")
def long():
    rng = np.random.default_rng(0)
    luck = rng.normal(0.7, 0.03, len(SEEDS))
    gain = {"plain": 0.0, "wide": 0.02, "NA": -0.001}
    rows = [(arm, seed, luck[seed] + gain[arm] + rng.normal(0, 0.004)) for arm in ARMS for seed in SEEDS]
    return pd.DataFrame(rows, columns=["arm", "seed", "accuracy"])


def expected(long, metric=SHARE, **settings):
    return {arm: found.text for arm, found in rlm.compare_all(long, "plain", metric, **settings).items()}


def texts(results, metric, **settings):
    return {arm: found.text for arm, found in compare_results(results, "plain", metric, **settings).items()}


WRITERS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "parquet": lambda table, path: table.to_parquet(path),
    "json": lambda table, path: table.to_json(path, orient="records", double_precision=15),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, double_precision=15),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("shape", ["long", "wide"])
@pytest.mark.parametrize("unit", [None, "fraction", "percent"])
def test_every_format_gives_the_same_verdicts(long, tmp_path, suffix, shape, unit):
    table = long.assign(accuracy=long["accuracy"] * (100 if unit == "percent" else 1))
    if shape == "wide":
        table = table.pivot(index="seed", columns="arm", values="accuracy")[ARMS].reset_index()
    path = tmp_path / f"runs.{suffix}"
    WRITERS[suffix](table, path)
    found, metric = read_results(path, "accuracy", unit=unit)
    np.testing.assert_allclose(found["accuracy"], long["accuracy"], rtol=1e-12)
    assert texts(found, metric) == expected(long)


class TestCommand:
    def test_it_prints_the_table_and_the_verdicts(self, long, tmp_path, rlm_command):
        path = tmp_path / "runs.csv"
        long.rename(columns={"arm": "model", "seed": "try"}).assign(loss=1.0).to_csv(path, index=False)
        options = ["--arm-column", "model", "--seed-column", "try", "--metric", "accuracy"]
        code, out, errors = rlm_command("verdict", path, *options)
        assert code == 0, errors
        for text in expected(long).values():
            assert text in out
        code, out, _ = rlm_command("verdict", path, *options, "--baseline", "wide", "--arm", "plain", "--watched")
        assert rlm.compare(long, "plain", "wide", watched=True, metric=SHARE).text in out
        assert " for NA" not in out

    def test_a_terminal_breaks_the_lines_of_a_verdict_between_words(self, long, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((50, 20)))
        verdict = rlm.compare(long, "plain", "wide", metric=SHARE)
        show_verdicts({"plain": verdict})
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 50
        assert " ".join(lines).split() == verdict.text.split()

    def test_a_direction_can_be_given(self, long, tmp_path, rlm_command):
        path = tmp_path / "runs.csv"
        long.rename(columns={"accuracy": "speed"}).to_csv(path, index=False)
        code, _, errors = rlm_command("verdict", path)
        assert code == 2
        assert "(--higher-is-better or --lower-is-better)" in errors
        assert "The arm wide helps" in rlm_command("verdict", path, "--higher-is-better")[1]
        assert "The arm wide hurts" in rlm_command("verdict", path, "--lower-is-better", "--unit", "fraction")[1]

    def test_a_page_has_the_verdict_and_loads_nothing(self, long, tmp_path, rlm_command):
        path, page = tmp_path / "runs.csv", tmp_path / "page.html"
        long.replace({"arm": {"NA": "<script>alert(1)</script>"}}).to_csv(path, index=False)
        code, out, errors = rlm_command("verdict", path, "--html", page)
        assert code == 0, errors
        assert f"page: {page}" in out
        html = page.read_text()
        assert "The arm wide helps, compared with plain." in html
        assert "data:image/png" in html
        assert "<script" not in html
        assert not re.findall(r'(?:src|href)="(?!data:|#)', html)

    def test_options_of_tables_are_no_options_of_studies(self, tmp_path, rlm_command):
        db = tmp_path / "study.db"
        rlm.run_study(rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0), 2, db=db, progress=False)
        assert rlm_command("verdict", db)[0] == 0
        code, _, errors = rlm_command("verdict", db, "--unit", "percent")
        assert code == 2
        assert "expected no --unit beside a stored study" in errors
        assert rlm_command("verdict", tmp_path / "none.csv")[0] == 2


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (
            "arm,seed,accuracy\na,0,67.5\nb,0,66",
            {},
            r"accuracy in \[0, 1\], found 67.5 \(arm a, seed 0\).*--unit percent",
        ),
        ("arm,seed,accuracy\na,0,0.675\nb,0,0.66", {"unit": "percent"}, r"in percent, found at most 0.675"),
        ("arm,seed,accuracy\na,0,0.5\nb,0,?", {}, r"expected a number as accuracy, found '\?' \(arm b, seed 0\)"),
        ("arm,seed,accuracy\na,0,67.5%\nb,0,66%", {}, r"write 67.5% as 67.5 and pass --unit percent"),
        ('arm,seed,accuracy\na,0,"0,5"\nb,0,0.5', {}, r"found '0,5'"),
        ("arm,seed,accuracy\na,,0.5\nb,0,0.5", {}, r"a seed in every row"),
        ("arm,seed,loss,f1\na,0,0.5,1\nb,0,0.5,1", {}, r"pass metric= \(--metric\), one of: loss, f1"),
        ("arm,seed,loss\na,0,0.5\nb,0,0.5", {"metric": "f1"}, r"column 'f1' not found"),
        ("a;b;seed\n1;2;3", {}, r"expected columns arm, seed and a metric, .* found a;b;seed"),
        ("arm,seed,seed\na,0,1", {"metric": "loss"}, r"found"),
        ("", {}, r"expected a table in"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path, content, settings, message):
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(path, **settings)


def test_missing_numbers_are_failed_runs(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("arm,seed,accuracy\na,0,nan\na,1,0.3\nb,0,\nb,1,0.4")
    results, metric = read_results(path)
    assert results["accuracy"].isna().tolist() == [True, False, True, False]
    assert rlm.compare(results, "b", "a", metric).means == (0.15, 0.2)  # at 0: nobody knows the accuracy of guessing


@pytest.mark.parametrize("apart", [0, 100])
def test_runs_without_a_value_are_told(long, apart):
    table = long[long["arm"] != "NA"].assign(accuracy=lambda one: one["accuracy"].mask(one["seed"] == 5))
    table["seed"] += apart * (table["arm"] == "wide")
    found = compare_results(table, "plain", Metric("accuracy", 0, 1, failed=0.0))["wide"]
    assert ("1 without a value" if apart == 0 else "Runs without a value: 1 of plain and 1 of wide.") in found.text
    assert "ithout a value" not in compare_results(table.fillna({"accuracy": 0.0}), "plain", SHARE)["wide"].text


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_empty_cell_of_a_wide_table_is_no_run(long, tmp_path, suffix):
    runs = long[(long["arm"] != "wide") | (long["seed"] < 10)]
    path = tmp_path / f"runs.{suffix}"
    WRITERS[suffix](runs.pivot(index="seed", columns="arm", values="accuracy")[ARMS].reset_index(), path)
    found, metric = read_results(path, "accuracy")
    assert texts(found, metric) == expected(runs)


def test_columns_that_are_no_arms_are_ignored(long, tmp_path, caplog):
    path = tmp_path / "runs.csv"
    table = long.pivot(index="seed", columns="arm", values="accuracy")[ARMS].reset_index()
    table.insert(0, "epoch", 3.0)
    table.assign(empty=None).to_csv(path)  # its index has no name
    found, metric = read_results(path, "accuracy")
    assert texts(found, metric) == expected(long)
    assert "the columns epoch, empty are not arms and are ignored; arms: plain, wide, NA" in caplog.text
    long.to_csv(path)
    assert read_results(path, unit="fraction", better="higher").metric.name == "accuracy"


def test_seeds_are_numbers_or_texts(tmp_path):
    for seeds, kind in (("0 1", int), ("1.0 2.0", int), ("x 1", str), ("0.5 1", str)):
        first, second = seeds.split()
        path = tmp_path / "runs.csv"
        path.write_text(f"arm,seed,accuracy\na,{first},0.5\na,{second},0.5")
        assert [type(seed) for seed in read_results(path).results["seed"].tolist()] == [kind, kind]


class TestUnpaired:
    @pytest.fixture
    def apart(self, long):
        """No seed of one arm is a seed of another."""
        return long.assign(seed=long["seed"] + 100 * long["arm"].map(ARMS.index))

    def test_the_interval_is_that_of_welch(self, apart):
        found = compare_results(apart, "plain", SHARE, arms=["wide"])["wide"]
        samples = [apart.loc[apart["arm"] == arm, "accuracy"] for arm in ("wide", "plain")]
        test = stats.ttest_ind(*samples, equal_var=False)
        np.testing.assert_allclose(found.judged.difference[1:], test.confidence_interval(), rtol=1e-12)
        assert found.judged.p == pytest.approx(test.pvalue)
        assert found.runs == (12, 12)
        assert "Pairs of runs with the same seed need fewer runs" in found.text

    def test_pairs_give_a_narrower_interval(self, long, apart):
        paired, unpaired = (compare_results(table, "plain", SHARE)["wide"] for table in (long, apart))
        assert paired.judged.width < unpaired.judged.difference.width
        assert (paired.decision, unpaired.decision) == ("helps", "no evidence either way")

    def test_interval_p_value_and_decision_agree(self):
        rng = np.random.default_rng(1)
        decisions = set()
        for _ in range(80):
            sizes, effects = rng.integers(1, 30, 3), rng.normal(0, 0.03, 3)
            rows = [
                (f"arm{arm}", 100 * arm + run, np.clip(value, 0, 1))
                for arm, (size, effect) in enumerate(zip(sizes, effects, strict=True))
                for run, value in enumerate(rng.normal(0.7 + effect, 0.03, size))
            ]
            table = pd.DataFrame(rows, columns=["arm", "seed", "accuracy"])
            for found in compare_results(table, "arm0", SHARE).values():
                assert found.judged.difference.excludes(0) == (found.judged.p < 0.05)
                assert (found.decision == "too few seeds") == (min(found.runs) < 10)
                decisions.add(found.decision)
        assert len(decisions) == 4

    def test_equal_arms_are_seldom_told_apart(self):
        rng = np.random.default_rng(2)
        wrong = 0
        for _ in range(150):
            values = rng.normal(0.7, np.repeat([0.01, 0.04], 12))
            table = pd.DataFrame({"arm": np.repeat(["a", "b"], 12), "seed": range(24), "accuracy": values})
            wrong += compare_results(table, "a", SHARE)["b"].judged.p < 0.05
        assert stats.binomtest(wrong, 150, 0.05).pvalue > 0.001

    def test_constant_runs_have_no_interval(self):
        table = pd.DataFrame(
            {"arm": np.repeat(["a", "b"], 12), "seed": range(24), "accuracy": np.repeat([0.5, 0.6], 12)}
        )
        found = compare_results(table, "a", SHARE)["b"]
        assert found.decision == "no evidence either way"
        assert np.isnan(found.judged.difference.low)

    def test_a_table_without_seeds_is_unpaired(self, apart, tmp_path, rlm_command):
        path = tmp_path / "runs.csv"
        apart.drop(columns="seed").to_csv(path, index=False)
        code, out, _ = rlm_command("verdict", path)
        assert code == 0
        assert compare_results(apart, "plain", SHARE)["wide"].text in out
        code, _, errors = rlm_command("verdict", path, "--watched")
        assert code == 2
        assert "needs pairs" in errors

    def test_arms_of_which_only_some_are_paired_are_an_error(self, long):
        table = long.assign(seed=long["seed"].where(long["arm"] != "NA", long["seed"] + 100))
        with pytest.raises(InputError, match="found none of NA; compare these on their own"):
            compare_results(table, "plain", SHARE)
        assert set(compare_results(table, "plain", SHARE, arms=["wide"])) == {"wide"}


class TestLogs:
    @pytest.fixture
    def runs(self, long):
        return long[long["arm"] != "NA"].reset_index(drop=True)

    def check(self, path, runs, metric="accuracy", known=None, **settings):
        found, metric = read_results(path, metric, **settings)
        assert sorted(found["arm"].unique()) == ["plain", "wide"]
        assert texts(found, metric) == expected(runs.rename(columns={"accuracy": metric.name}), known or metric)

    @pytest.mark.parametrize("name", ["{arm}/seed{seed}", "{arm}-{seed}", "seed_{seed}/{arm}", "{arm}/seed={seed}"])
    def test_states_of_a_trainer(self, runs, tmp_path, name):
        from transformers.trainer_callback import TrainerState

        for arm, seed, value in runs.itertuples(index=False):
            folder = tmp_path / name.format(arm=arm, seed=seed)
            for step, (checkpoint, shown) in enumerate([("checkpoint-5", 0.1), ("checkpoint-10", value)], 1):
                (folder / checkpoint).mkdir(parents=True)
                entries = [{"loss": 1.0, "step": step}, {"eval_accuracy": shown, "epoch": step, "step": step}]
                state = TrainerState(log_history=entries, global_step=5 * step)
                state.save_to_json(str(folder / checkpoint / "trainer_state.json"))
            if seed % 2:  # written at the end, by save_state
                state.save_to_json(str(folder / "trainer_state.json"))
        self.check(tmp_path, runs, "eval_accuracy", unit="fraction")

    def test_events_of_tensorboard(self, runs, tmp_path):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        for arm, seed, value in runs.itertuples(index=False):
            with SummaryWriter(tmp_path / arm / f"seed{seed}") as writer:
                writer.add_scalar("accuracy", 0.1, 1)
                writer.add_scalar("accuracy", value, 2)
        self.check(tmp_path, runs.assign(accuracy=runs["accuracy"].astype("float32").astype(float)))

    def test_of_values_at_one_step_the_last_counts(self, tmp_path):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(tmp_path / "plain" / "seed1") as writer:
            for second, value in enumerate([0.5, 0.75]):
                writer.add_scalar("accuracy", value, 100, walltime=second)
        assert read_results(tmp_path).results["accuracy"].item() == 0.75

    @pytest.mark.parametrize("kind", ["folder", "sqlite"])
    def test_stores_of_mlflow(self, runs, tmp_path, kind, monkeypatch):
        mlflow = pytest.importorskip("mlflow")  # its pins contradict those of the constraints
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        path = tmp_path / ("store" if kind == "folder" else "store.db")
        uri = path.as_uri() if kind == "folder" else f"sqlite:///{path}"
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.create_experiment("runs")
        for arm, seed, value in runs.itertuples(index=False):
            run = client.create_run(experiment).info.run_id
            client.log_param(run, "seed", seed)
            client.set_tag(run, "model", arm)
            client.log_metric(run, "accuracy", 0.1, step=1)
            client.log_metric(run, "accuracy", value, step=2)
            client.set_terminated(run)
        client.create_run(experiment)  # has not ended
        self.check(path, runs, arm_column="model")
        self.check(uri, runs, arm_column="model")
        with pytest.raises(InputError, match="expected a parameter or tag 'arm'"):
            read_results(path)

    @pytest.mark.parametrize("tool", ["tensorboard", "mlflow"])
    def test_a_study_written_for_another_tool_is_read_with_its_verdict(
        self, stored, tmp_path, rlm_command, monkeypatch, tool
    ):
        pytest.importorskip(tool)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        place = tmp_path / "runs" if tool == "tensorboard" else (tmp_path / "runs").as_uri()
        code, printed, _ = rlm_command("results", stored, f"--{tool}", place)
        assert (code, printed) == (0, f"runs: {place}\n")
        found = LOGS[find_log(tmp_path / "runs")](tmp_path / "runs", "arm", "seed").astype({"seed": int})
        known = rlm.read_study(stored).finished
        both = found.merge(known.results, on=["arm", "seed"], suffixes=("", "_known"))
        assert len(both) == len(found) == len(known.results)
        np.testing.assert_allclose(both["test_accuracy"], both["test_accuracy_known"], rtol=1e-6)
        last = known.history.groupby(["arm", "seed"])["loss"].last()
        np.testing.assert_allclose(found.set_index(["arm", "seed"])["history/loss"].loc[last.index], last, rtol=1e-6)
        assert rlm_command("verdict", tmp_path / "runs", "--metric", "test_accuracy")[0] == 0
        code, _, errors = rlm_command("results", stored, f"--{tool}", place)
        assert code == 2
        assert "expected a" in errors

    @pytest.fixture(scope="class")
    @staticmethod
    def stored(tmp_path_factory):
        db = tmp_path_factory.mktemp("stored") / "study.db"
        config = rlm.StudyConfig(encoder="mean", arms=("scratch", "pretrained"), pretrain_epochs=1, max_epochs=2)
        data = topic_pairs(np.random.default_rng(0), topics=4, pairs=40)
        rlm.run_study(config, 2, data=data, db=db, n_jobs=1, progress=False)
        return db

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["resnet50"], "expected a folder named by arm and seed, .* found resnet50"),
            (["a/seed1", "a-1"], "expected one run of arm a and seed 1"),
        ],
    )
    def test_a_folder_that_names_no_run_is_an_error(self, tmp_path, names, message):
        for name in names:
            (tmp_path / name).mkdir(parents=True)
            state = {"global_step": 1, "log_history": [{"eval_accuracy": 0.5, "step": 1}]}
            (tmp_path / name / "trainer_state.json").write_text(json.dumps(state))
        with pytest.raises(InputError, match=message):
            read_results(tmp_path)

    def test_a_folder_without_logs_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match=r"expected a file of results, or a folder of trainer_state.json"):
            read_results(tmp_path)
