"""The command line as a user meets it: exit codes, messages and files."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import QUICK, SMALL, topic_pairs

import rlm.cli.labels
import rlm.cli.main
import rlm.cli.output
import rlm.cli.study
from rlm.cli.main import main
from rlm.config import ReadOptions, StudyConfig
from rlm.runtime.atomic import write_whole
from rlm.store.read import read_origin, read_progress
from rlm.study import iter_study, run_study
from rlm.verdict import compare, summarise

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


def start(*arguments, **settings):
    command = [sys.executable, "-m", "rlm", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


class TestStudy:
    def test_prints_table_and_verdict_and_writes_the_rows(self, rlm_command, pairs, tmp_path):
        out = tmp_path / "r.csv"
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 2, "--out", out, *QUICK)
        assert code == 0
        rows = pd.read_csv(out)
        config = StudyConfig(dataset=str(pairs), **SMALL)
        expected = run_study(config, 2, n_jobs=1, progress=False)
        pd.testing.assert_frame_equal(rows.drop(columns="seconds"), expected.drop(columns="seconds"))
        assert compare(rows).text in printed
        for arm, row in summarise(rows).iterrows():
            (line,) = [line.split() for line in printed.splitlines() if line.startswith(f"{arm} ")]
            assert line[:5] == [arm, "2", *(f"{row[column]:.3f}" for column in ("mean", "low", "high"))]
        assert str(out) in printed
        assert list(tmp_path.iterdir()) == [out]

    def test_judges_every_arm_against_scratch(self, rlm_command, pairs):
        arms = ["--arms", "pretrained_once", "--arms", "scratch", "--arms", "pretrained"]
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 1, *arms, *QUICK)
        assert code == 0
        assert printed.count("Too few seeds") == 2
        for arm in ("pretrained", "pretrained_once"):
            assert f"for {arm}: a difference of" in printed

    def test_one_arm_gets_a_table_and_no_verdict(self, rlm_command, pairs):
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 1, "--arms", "pretrained", *QUICK)
        assert code == 0
        assert "pretrained" in printed
        assert "difference" not in printed
        assert printed.endswith("Nothing is compared: a verdict needs the baseline and another arm.\n")

    def test_processes_share_a_large_table_without_a_warning(self, tmp_path):
        data = tmp_path / "large.csv"  # its tokens take more than the megabyte above which joblib maps them
        words = np.random.default_rng(0).integers(500, size=(2, 6000, 28)).astype(str)
        anchors, positives = (["w" + " w".join(row) for row in side] for side in words)
        pd.DataFrame({"anchor": anchors, "positive": positives}).to_csv(data, index=False)
        small = ["--arms", "scratch", "--encoder", "mean", "--max-epochs", 1, "--epoch-triplets", 100, "--negatives", 1]
        running = start("study", "--dataset", data, "--seeds", 2, "--jobs", 2, *small)
        _, said = running.communicate(timeout=240)
        assert running.returncode == 0, said
        assert "Warning" not in said

    def wait_for(self, is_so, running):
        deadline = time.monotonic() + 120
        while not is_so():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_interrupted_it_keeps_what_is_finished(self, pairs, tmp_path):
        out = tmp_path / "r.csv"
        endless = ["--max-epochs", 40, "--patience", 40, "--seeds", 2000, "--jobs", 2, "--pretrain-epochs", 0]
        # Shells start jobs in the background, such as this suite perhaps, with Ctrl-C ignored.
        settings = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        running = start("study", "--dataset", pairs, "--encoder", "mean", *endless, "--out", out, **settings)
        self.wait_for(lambda: out.exists(), running)
        workers = [one for one in psutil.Process(running.pid).children() if "LokyProcess" in "".join(one.cmdline())]
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        written = out.stat().st_mtime_ns
        self.wait_for(lambda: out.stat().st_mtime_ns > written, running)
        assert len(workers) == 2  # and they work on: ending them, in order, is for the process that started them
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: all processes of the group
        printed, errors = running.communicate(timeout=60)
        rows = pd.read_csv(out)
        assert running.returncode == 0
        assert len(rows) >= 5
        assert not rows.duplicated(["arm", "seed"]).any()
        assert rows["test_accuracy"].between(0, 1).all()
        assert "interrupted: these are the" in errors
        assert "Traceback" not in errors
        assert "test accuracy over seeds" in printed
        assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]

    def test_at_whatever_moment_it_is_ended_nothing_is_left_but_what_is_finished(self, pairs, tmp_path):
        endless = ["--max-epochs", 40, "--patience", 40, "--seeds", 2000, "--jobs", 2, "--pretrain-epochs", 0]
        rng = np.random.default_rng(0)
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL] * 3

        def allow():
            for number in signals[:3]:
                signal.signal(number, signal.SIG_DFL)

        for batch in range(0, len(signals), 4):
            running = []
            for number in range(batch, batch + 4):
                files = "--db", tmp_path / f"{number}.db", "--out", tmp_path / f"{number}.csv"
                settings = {"start_new_session": True, "preexec_fn": allow}
                running.append(start("study", "--dataset", pairs, "--encoder", "mean", *endless, *files, **settings))
            for number in rng.permutation(4):
                time.sleep(rng.uniform(0.5, 5))
                one, sent = running[number], signals[batch + number]
                family = psutil.Process(one.pid).children(recursive=True)
                one.send_signal(sent)
                _, errors = one.communicate(timeout=120)  # all that write to its pipes have ended by then
                _, alive = psutil.wait_procs(family, timeout=30)
                assert not alive, (sent, alive)
                assert "Traceback" not in errors, errors
                assert "leaked" not in errors, errors
                left = [file.name for file in Path("/dev/shm").iterdir()]
                assert not [name for name in left if str(one.pid) in re.split("[-_]", name)]
                db = tmp_path / f"{batch + number}.db"
                progress = read_progress(db)
                if one.returncode == 0:
                    assert "interrupted: these are the" in errors
                    assert len(pd.read_csv(db.with_suffix(".csv"))) == progress.arms["finished"].sum() > 0
                if sent != signal.SIGKILL:
                    assert not list(tmp_path.glob(f"{batch + number}.*.lock"))

    @pytest.fixture
    def interrupt_after(self, monkeypatch):
        """Lets `rlm study` be interrupted after some blocks, of which some may be lost."""

        def interrupt_after(blocks, lost=()):
            def some(*args, **settings):
                for number, block in enumerate(islice(iter_study(*args, **settings), blocks)):
                    if number not in lost:
                        yield block
                raise KeyboardInterrupt

            monkeypatch.setattr(rlm.cli.study, "iter_study", some)

        return interrupt_after

    def test_interrupted_before_any_block(self, rlm_command, pairs, interrupt_after):
        interrupt_after(0)
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 2, *QUICK)
        assert code == "interrupted before any block of seeds was finished; rlm study --block-size makes smaller ones"
        assert not printed

    def test_interrupted_with_pairs_it_judges_them(self, rlm_command, pairs, interrupt_after):
        interrupt_after(3)  # blocks of both arms
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 6, *QUICK)
        assert code == 0
        assert "paired seeds" in printed

    def test_interrupted_without_pairs_it_shows_the_table(self, rlm_command, pairs, interrupt_after):
        interrupt_after(3, lost=[0])  # one block of each arm, of different seeds
        code, printed, _ = rlm_command("study", "--dataset", pairs, "--seeds", 12, *QUICK)
        assert code == 0
        assert "scratch" in printed

    @pytest.mark.parametrize(
        ("blocks", "lost", "said"),
        [
            (1, [], "an interval needs 10 paired seeds, found 0"),
            (2, [], "an interval needs 10 paired seeds, found 6"),
            (4, [], "12 pairs, before an interval narrower than 1 point:"),
            (4, [0], "an interval needs 10 paired seeds, found 0"),  # the first seeds lack an arm
        ],
    )
    def test_interrupted_under_until_it_says_how_far_it_was(
        self, rlm_command, pairs, interrupt_after, blocks, lost, said
    ):
        interrupt_after(blocks, lost)
        run = ["study", "--dataset", pairs, *QUICK, "--until", 0.01, "--max-seeds", 12]
        code, printed, errors = rlm_command(*run)
        assert code == 0
        assert said in printed
        assert "nan" not in printed
        assert "Traceback" not in errors


class TestStored:
    @pytest.fixture(scope="class")
    @staticmethod
    def db(pairs, tmp_path_factory):
        """A study of twelve seeds."""
        path = tmp_path_factory.mktemp("stored") / "study.db"
        run_study(StudyConfig(dataset=str(pairs), **SMALL), 12, db=path, n_jobs=1, progress=False)
        return path

    def test_the_same_command_goes_on(self, rlm_command, pairs, tmp_path, caplog):
        db = tmp_path / "study.db"
        first = rlm_command("study", "--dataset", pairs, "--seeds", 12, "--db", db, *QUICK)
        assert first[0] == 0
        assert f"store: {db}" in first[1]
        again = rlm_command("study", "--dataset", pairs, "--seeds", 12, "--db", db, *QUICK)
        assert again[1] == first[1]
        assert f"24 of 24 runs are in {db} already" in caplog.text

    @pytest.mark.parametrize(
        ("ending", "read"), [("csv", pd.read_csv), ("json", pd.read_json), ("parquet", pd.read_parquet)]
    )
    def test_results_come_as_tables(self, rlm_command, db, tmp_path, ending, read):
        out = tmp_path / f"results.{ending}"
        assert rlm_command("results", db, "--out", out)[0] == 0
        table = read(out)
        assert table["arm"].tolist() == ["scratch"] * 12 + ["pretrained"] * 12
        code, printed, _ = rlm_command("results", db)
        assert code == 0
        assert len(printed.splitlines()) == 25
        assert f"{table['test_accuracy'][3]:.4f}" in printed.splitlines()[4]

    def test_the_verdict_is_that_of_the_study(self, rlm_command, pairs, db):
        study = rlm_command("study", "--dataset", pairs, "--seeds", 12, "--db", db, *QUICK)
        code, printed, _ = rlm_command("verdict", db)
        assert code == 0
        assert printed.strip() in study[1]

    def test_until_says_where_it_stopped(self, rlm_command, pairs):
        run = ["study", "--dataset", pairs, *QUICK, "--learning-rate=0.1"]
        code, printed, _ = rlm_command(*run, "--until", 0.3, "--max-seeds", 40)
        assert code == 0
        found = re.match(
            r"stopped by the confidence sequence after ([123]\d) pairs: its interval is ([\d.]+) points for pretrained",
            printed,
        )
        assert float(found[2]) < 30
        assert f"Over {found[1]} paired seeds" in printed
        assert "(confidence sequence, p " in printed
        equal = [option for option in run if option != "--pretrain-epochs=1"]
        code, printed, _ = rlm_command(*equal, "--pretrain-epochs=0", "--until", 0.02, "--max-seeds", 11)
        assert code == 0
        assert "11 seeds were not enough for an interval narrower than 2 points: it is unknown" in printed
        assert "There is no interval, since all 11 differences are equal" in printed
        code, printed, _ = rlm_command("study", "--dataset", pairs, *QUICK, "--until", 0.001, "--max-seeds", 10)
        assert "10 seeds were not enough for an interval narrower than 0.1 points" in printed

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--max-seeds", 40, "--seeds", 40], "expected --seeds or --max-seeds, found both"),
            (["--look-every", 10], "expected --max-seeds beside --look-every"),
            (["--max-seeds", 15, "--look-every", 15], "before the last"),
        ],
    )
    def test_options_that_contradict_each_other_are_errors(self, rlm_command, options, said):
        code, _, errors = rlm_command("study", *options)
        assert code == 2
        assert said in errors

    def test_max_seeds_alone_stops_at_a_planned_look(self, rlm_command, pairs, tmp_path):
        db, rules = tmp_path / "s.db", ["--max-seeds", 25, "--same-within", 0.9]
        code, printed, _ = rlm_command("study", "--dataset", pairs, *QUICK, *rules, "--db", db)
        assert code == 0
        assert "stopped after" in printed
        assert "planned looks at 10, 20 and 25 pairs" in printed
        assert rlm_command("verdict", db)[1].strip() in printed

    def test_an_extended_study_has_the_verdict_of_its_store(self, rlm_command, pairs, tmp_path):
        db, run = tmp_path / "s.db", ["study", "--dataset", pairs, *QUICK]
        assert "watched" not in rlm_command(*run, "--seeds", 10, "--db", db)[1]
        study = rlm_command(*run, "--seeds", 11, "--db", db)[1]
        verdict = rlm_command("verdict", db)[1]
        assert verdict.strip() in study
        assert "(confidence sequence, p" in study

    @pytest.mark.parametrize("more", [["--seeds", 3], ["--arms", "scratch", "--arms", "pretrained_once"]])
    def test_extended_labels_have_the_verdict_of_their_store(self, rlm_command, tmp_path, monkeypatch, more):
        seen = []
        original = rlm.cli.labels.tabulate_effects

        def noted(results):
            seen.append(results.attrs["watched"])
            return original(results)

        monkeypatch.setattr(rlm.cli.labels, "tabulate_effects", noted)
        run = ["labels", "--encoder", "mlp", "--dim", 4, "--shuffles", 1, "--shuffle-epochs", 1, "--max-epochs", 1]
        run += ["--labelled", 20, "--jobs", 1, "--db", tmp_path / "l.db"]
        for options in (["--seeds", 2], ["--seeds", 2], ["--seeds", 2, *more] if "--arms" in more else more):
            assert rlm_command(*run, *options)[0] == 0
        assert seen == [False, False, True]
        assert rlm.labels.read_labels(tmp_path / "l.db").watched

    def test_data_of_ones_own_are_not_called_by_another_name(self, rlm_command, tmp_path):
        data = topic_pairs(np.random.default_rng(0), topics=6, pairs=120)
        db = tmp_path / "two\nlines.db"
        run_study(StudyConfig(**SMALL), [5, 7, 11], data=data, db=db, n_jobs=1, progress=False)
        code, printed, _ = rlm_command("verdict", db)
        assert code == 0
        assert printed.startswith("data, encoder mean")
        assert "chatterbot" not in printed
        assert read_progress(db).seeds == (5, 7, 11)
        assert read_origin(db, 1)["seeds"] == "3 (5, 7, 11), in 6 runs"

    def test_other_endings_are_refused(self, rlm_command, db, tmp_path):
        code, _, errors = rlm_command("results", db, "--out", tmp_path / "results.xlsx")
        assert code == 2
        assert "ending in .csv, .json, .md, .parquet" in errors


class TestMistakes:
    def refuse(self, found, *words):
        code, printed, errors = found
        assert code == 2
        assert errors.splitlines()[-1].startswith("rlm: ")
        assert "Traceback" not in errors
        assert not printed
        for word in words:
            assert word in errors

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--dataset", "chatterbot-klingon"], ["unknown dataset 'chatterbot-klingon'", "chatterbot-english"]),
            (["--dataset", "chatterbot-englsh"], ["did you mean chatterbot-english? Give a known name, or the path"]),
            (
                ["--dataset", "no/such/file.tsv"],
                ["no/such/file.tsv: expected triplets or pairs in a file, found nothing"],
            ),
            (["--epochs", "3"], ["--epochs"]),
            (["--seeds", "many"], ["--seeds", "many"]),
            (["--seeds", "0"], ["--seeds", "greater than or equal to 1"]),
            (["--seeds", "-3"], ["--seeds", "greater than or equal to 1"]),
            (["--margin", "0"], ["--margin", "greater than or equal to", "found"]),
            (["--margin", "wide"], ["--margin", "wide"]),
            (["--learning-rate", "7"], ["--learning-rate", "less than or equal to 1"]),
            (["--encoder", "gru"], ["--encoder", "gru", "lstm", "mean"]),
            (["--encoder", "lstmm"], ["--encoder expected 'lstm'", "found 'lstmm'; did you mean 'lstm'?"]),
            (["--until", "0.1", "--seeds", "12", "--max-seeds", "13"], ["expected --seeds or --max-seeds, found both"]),
            (["--config", "no.json"], ["expected settings of a study in no.json, found no such file"]),
            (["--arms", "scratch", "--arms", "scratch"], ["expected every arm once"]),
            (["--columns", "fact"], ["--columns expected name=value,name=value; found 'fact'"]),
            (["--columns", "anchr=fact"], ["--columns expected columns for anchor, positive", "found 'anchr'\n"]),
            (["--negative-kinds", "hard=1"], ["--negative-kinds expected shares of random, similar, manual"]),
            (["--negative-kinds", "similar=0.5"], ["--negative-kinds expected shares", "found {'similar': 0.5}\n"]),
            (["--negative-kinds", "manual=1"], ["expected pairs known to be irrelevant"]),
            (["--fractions", "0.5", "0.5", "0.5"], ["expected three positive fractions with the sum 1"]),
            (["--out", "no/such/folder/r.csv"], ["no/such/folder", "create the folder first"]),
        ],
    )
    def test_of_an_option(self, rlm_command, arguments, words):
        self.refuse(rlm_command("study", *arguments), *words)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", ["expected a first line of column names"]),
            ("question\tanswer\nhow are you\tfine\n", ["column 'anchor' not found", "question, answer"]),
            ("anchor\tpositive\n", ["found none"]),
            ("anchor\tpositive\nhow are you\tfine\n", ["split would be empty"]),
        ],
        ids=["empty", "columns", "no rows", "one row"],
    )
    def test_of_a_file(self, rlm_command, tmp_path, content, words):
        path = tmp_path / "pairs.tsv"
        path.write_text(content)
        self.refuse(rlm_command("study", "--dataset", path, "--seeds", 1, *QUICK), *words)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(["--seeds", "0"], ["at least 1", "found 0"]), (["--dataset", "chatterbot-klingon"], ["chatterbot-english"])],
    )
    def test_of_a_report_is_found_before_any_notebook_runs(self, rlm_command, monkeypatch, arguments, words):
        monkeypatch.setattr("rlm.report.notebooks.build_report", lambda *_: pytest.fail("ran the notebooks"))
        self.refuse(rlm_command("report", *arguments), *words)

    def test_of_a_command(self, rlm_command):
        self.refuse(rlm_command("studdy"), "studdy")

    @pytest.mark.parametrize(
        ("arguments", "name"), [(["verdict"], "SOURCE"), (["results"], "DB"), (["compare", "s.db", 1], "SECOND")]
    )
    def test_of_a_missing_argument_is_by_its_name_in_the_help(self, rlm_command, arguments, name):
        self.refuse(rlm_command(*arguments), f"expected {name}, found none; see: rlm {arguments[0]} --help")

    @pytest.fixture
    def never_trains(self, monkeypatch):
        for module in (rlm.cli.study, rlm.cli.labels):
            name = "iter_study" if module is rlm.cli.study else "iter_labels"
            monkeypatch.setattr(module, name, lambda *args, **settings: pytest.fail("trains first"))

    @pytest.mark.parametrize("name", ["", "/dev/null", "no/r.csv", "file/r.csv", "x" * 252, "pipe", "s.db"])
    @pytest.mark.parametrize("command", ["study", "labels"])
    def test_an_out_that_cannot_be_is_refused_before_any_training(
        self, rlm_command, pairs, tmp_path, command, name, never_trains
    ):
        (tmp_path / "file").touch()
        os.mkfifo(tmp_path / "pipe")
        options = ["--dataset", pairs, *QUICK] if command == "study" else []
        found = rlm_command(command, *options, "--db", tmp_path / "s.db", "--out", tmp_path / name)
        self.refuse(found, str(tmp_path / name)[:100])

    def test_a_folder_that_cannot_be_for_a_report_is_refused_before_any_notebook_runs(
        self, rlm_command, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("rlm.report.notebooks.build_report", lambda *_: pytest.fail("ran the notebooks"))
        (tmp_path / "file").touch()
        for out in (tmp_path / "file", tmp_path / "file" / "pages", "/dev/null/pages"):
            self.refuse(rlm_command("report", "--out", out), str(out))

    @pytest.mark.parametrize(
        "name", [".", "..", "", "folder", "nothing", "loop", "pipe", "no/s.db", "file/s.db", "x" * 300]
    )
    @pytest.mark.parametrize("command", ["study", "labels", "results", "verdict"])
    def test_a_store_that_cannot_be_is_refused(self, rlm_command, pairs, tmp_path, monkeypatch, name, command):
        monkeypatch.chdir(tmp_path)
        for module in ("rlm.study.run_block", "rlm.labels.study.run_labels_block"):
            monkeypatch.setattr(module, lambda *args, **settings: pytest.fail("trains first"))
        Path("folder").mkdir()
        Path("file").touch()
        Path("nothing").symlink_to("none")
        Path("loop").symlink_to("loop")
        os.mkfifo("pipe")
        options = {"study": ["--dataset", pairs, *QUICK, "--db"], "labels": ["--encoder", "mlp", "--db"]}.get(
            command, []
        )
        code, _, errors = rlm_command(command, *options, name)
        assert code == 2
        assert "Traceback" not in errors
        assert re.match(r"rlm: expected a (file|store)", errors.splitlines()[-1])

    def test_a_disk_that_fills_up_loses_no_study(self, rlm_command, pairs, tmp_path, monkeypatch, caplog):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(rlm.cli.output, "write_whole", fail)
        run = ["study", "--dataset", pairs, "--seeds", 2, *QUICK]
        code, printed, errors = rlm_command(*run, "--out", tmp_path / "r.csv", "--db", tmp_path / "my s.db")
        assert code == 2
        assert "test accuracy over seeds" in printed
        assert "No space left on device; the study continues" in caplog.text
        assert f"rlm results '{tmp_path / 'my s.db'}' --out FILE.csv" in errors
        assert len(rlm.read_study(tmp_path / "my s.db").finished.results) == 4

    @pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
    def test_a_closed_stream_does_no_harm(self, pairs, tmp_path, closed):
        run = [
            sys.executable,
            "-m",
            "rlm",
            "study",
            "--dataset",
            pairs,
            "--seeds",
            1,
            "--db",
            tmp_path / "s.db",
            *QUICK,
        ]
        done = subprocess.run(f"{shlex.join(map(str, run))} {closed}", shell=True, capture_output=True, check=False)
        assert done.returncode == 0
        assert len(rlm.read_study(tmp_path / "s.db").finished.results) == 2


class TestOwnData:
    @pytest.fixture(scope="class")
    @staticmethod
    def files(tmp_path_factory):
        """The same triplets three times, under a user's own column names."""
        folder = tmp_path_factory.mktemp("own")
        rng = np.random.default_rng(0)
        names = {"anchor": "fact", "positive": "question", "negative": "other"}
        frame = rlm.data.make_triplets(topic_pairs(rng, topics=8, pairs=80), 2, rng=rng).rename(columns=names)
        frame["other"] = frame["other"] + " снег"
        frame.to_csv(folder / "mine.csv", sep=";", index=False, encoding="cp1251")
        frame.to_json(folder / "mine.jsonl", orient="records", lines=True)
        frame.to_parquet(folder / "mine.parquet")
        return folder

    def test_every_format_gives_the_same_study(self, rlm_command, files, tmp_path):
        results = []
        for name, options in {"mine.csv": ["--encoding", "cp1251"], "mine.jsonl": [], "mine.parquet": []}.items():
            columns = ["--columns", "anchor=fact,positive=question,negative=other"]
            out = tmp_path / f"{name}.csv"
            code, _, errors = rlm_command(
                "study", "--dataset", files / name, *columns, *options, "--seeds", 1, "--out", out, *QUICK
            )
            assert code == 0, errors
            results.append(pd.read_csv(out).drop(columns="seconds"))
        assert results[0].equals(results[1])
        assert results[0].equals(results[2])

    def test_audit_prints_splits_references_and_checks(self, rlm_command, files):
        columns = "anchor=fact,positive=question,negative=other"
        code, printed, _ = rlm_command("audit", "--dataset", files / "mine.parquet", "--columns", columns)
        assert code == 0
        for part in (
            "effective anchors",
            "anchor-blind classifier",
            "WARNING size of the test",
            "FINE    contradictions",
        ):
            assert part in printed

    def test_what_is_left_out_is_said(self, rlm_command, tmp_path, caplog):
        frame = topic_pairs(np.random.default_rng(0), topics=8, pairs=80)
        frame.loc[2, "positive"] = "???"
        frame.to_csv(tmp_path / "mine.csv", index=False)
        assert rlm_command("study", "--dataset", tmp_path / "mine.csv", "--seeds", 1, *QUICK)[0] == 0
        assert "dropped from the data: 1 without words (line 4)" in caplog.text


class TestHelp:
    def test_names_every_field_of_the_config(self, rlm_command):
        code, printed, _ = rlm_command("study", "--help")
        assert code == 0
        own = {"seeds", "db", "until", "max_seeds", "out", "jobs"}
        for field in ({*StudyConfig.model_fields, *ReadOptions.model_fields} - {"reading"}) | own:
            assert f"--{field.replace('_', '-')} " in printed

    def test_names_the_commands(self, rlm_command):
        code, printed, _ = rlm_command("--help")
        assert code == 0
        listed = re.findall(r"^│ ([a-z]+) ", printed, re.MULTILINE)
        assert listed[:2] == ["study", "verdict"]  # by use, not by alphabet
        assert {*listed} == {name for name in rlm.cli.main.app if not name.startswith("-")}

    def test_lists_the_commands_without_what_they_import(self):
        """PyTorch, SciPy and pandas take seconds."""
        code = "import sys, rlm.cli.main as cli\ncli.app.help_print([])\n"
        code += "assert not {'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    @pytest.mark.parametrize("command", ["verdict", "results", "compare", "studies", "delete", "check", "query"])
    def test_what_has_a_place_is_no_option(self, rlm_command, command):
        printed = rlm_command(command, "--help")[1]
        assert re.search(r"^│ \* +[A-Z]+ ", printed, re.MULTILINE)
        assert not re.search(r"^│ \* +[A-Z]+ +--", printed, re.MULTILINE)

    def test_tells_the_version(self, rlm_command):
        assert rlm_command("--version")[:2] == (0, f"{metadata.version('rlm')}\n")

    def test_is_the_command_that_is_installed(self):
        (command,) = metadata.entry_points(group="console_scripts", name="rlm")
        assert command.load() is main

    def test_works_as_a_module(self):
        running = start("--version")
        printed, errors = running.communicate(timeout=60)
        assert (running.returncode, printed, errors) == (0, f"{metadata.version('rlm')}\n", "")


class TestWriteWhole:
    def test_replaces_the_file(self, tmp_path):
        path = tmp_path / "r.csv"
        for text in ("old, and longer than the new", "новое\n"):
            write_whole(path, text)
            assert path.read_bytes() == text.encode()
        assert list(tmp_path.iterdir()) == [path]

    def test_leaves_the_old_file_and_nothing_else_on_failure(self, tmp_path):
        path = tmp_path / "r.csv"
        path.write_text("old")
        with pytest.raises(UnicodeEncodeError):
            write_whole(path, "half of the new text, then \ud800")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_needs_the_folder(self, tmp_path):
        with pytest.raises(OSError, match="none"):
            write_whole(tmp_path / "none" / "r.csv", "text")


@pytest.mark.parametrize("columns", ["0", "1"])
def test_help_is_finished_in_no_columns(columns):
    command = [sys.executable, "-m", "rlm", "study", "--help"]
    ran = subprocess.run(command, capture_output=True, timeout=120, env=os.environ | {"COLUMNS": columns}, check=True)
    assert b"--encoder" in ran.stdout
