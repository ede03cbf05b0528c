"""Studies of a store on the command line: listed, named, deleted, merged, and checked on another machine."""

import hashlib
import json
import shutil
import sqlite3
import zipfile
from contextlib import closing

import pandas as pd
import pytest
from conftest import SMALL

from rlm.cli.bundle import bundle
from rlm.config import StudyConfig
from rlm.store.read import list_studies, read_study
from rlm.store.schema import digest_block, seal
from rlm.study import run_study
from rlm.verdict import compare, summarise


@pytest.fixture(scope="module")
def stored(tmp_path_factory, pairs):
    db = tmp_path_factory.mktemp("stored") / "study.db"
    run_study(StudyConfig(dataset=str(pairs), **SMALL), 3, db=db, n_jobs=1, progress=False)
    return db


@pytest.fixture
def db(stored, tmp_path):
    return shutil.copy(stored, tmp_path / "study.db")


@pytest.fixture(scope="module")
def bundle_of(stored):
    file = stored.with_name("study.zip")
    bundle(stored, out=file)
    return file


@pytest.fixture
def bundled(bundle_of, tmp_path):
    return shutil.copy(bundle_of, tmp_path / "study.zip")


def test_studies_are_named_listed_merged_and_deleted(rlm_command, db):
    assert rlm_command("note", db, 1, "seen", "--name", "narrow", "--tags", "b", "--tags", "a")[0] == 0
    code, printed, _ = rlm_command("studies", db)
    assert code == 0
    assert all(text in printed for text in ("narrow", "a, b", "seen", "finished"))
    code, printed, _ = rlm_command("merge", db.with_name("new.db"), db)
    assert "6 runs added to study 1" in printed
    assert list_studies(db.with_name("new.db")).equals(list_studies(db))
    code, _, error = rlm_command("delete", db, 1)
    assert code == 2
    assert "expected --yes without a terminal to ask in" in error
    assert rlm_command("delete", db, 1, "--yes")[0] == 0
    assert list_studies(db).empty


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["note", "{db}", 1], "expected a note, --name or --tags, found none"),
        (["note", "{db}", 9, "x"], "number of one study in"),
        (["delete", "{db}", 9], "number of one study in"),
        (["merge", "{db}"], "expected two stores or more"),
        (["check", "{db}"], "expected a file of rlm bundle"),
        (["bundle", "{db}", "--study", 9, "--out", "{db}.zip"], "number of one study of triplets"),
    ],
)
def test_what_is_not_there_is_an_error(rlm_command, db, arguments, said):
    code, _, error = rlm_command(*[str(one).replace("{db}", str(db)) for one in arguments])
    assert code == 2
    assert said in error
    assert not db.with_name("study.db.zip").exists()


@pytest.mark.parametrize("command", ["verdict", "results", "luck", "studies"])
def test_json_has_the_numbers_of_the_tables_and_the_text(rlm_command, db, command):
    _, text, _ = rlm_command(command, db)
    code, printed, _ = rlm_command(command, db, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["text"] == text
    results = read_study(db).finished.results
    if command == "verdict":
        summary = pd.DataFrame(found["summary"]).set_index("arm")
        pd.testing.assert_frame_equal(summary, summarise(results), check_dtype=False)
        verdict = compare(results)
        assert [one["decision"] for one in found["verdicts"]] == [verdict.decision]
        assert found["estimates"][0]["value"] == pytest.approx(verdict.difference.value, abs=1e-12)
    if command == "results":
        pd.testing.assert_frame_equal(pd.DataFrame(found["results"])[["arm", "seed"]], results[["arm", "seed"]])
    assert "NaN" not in printed.replace(json.dumps(text)[1:-1], "")


def test_an_error_prints_no_json(rlm_command, tmp_path):
    code, printed, error = rlm_command("verdict", tmp_path / "none.csv", "--json")
    assert (code, printed) == (2, "")
    assert "none.csv" in error


def test_a_bundle_is_checked_and_one_seed_is_trained_again(rlm_command, bundled):
    with zipfile.ZipFile(bundled) as file:
        assert len(file.read("SHA256SUMS").splitlines()) == len(file.namelist()) - 1
    code, printed, error = rlm_command("check", bundled, "--jobs", 1)
    assert code == 0, error
    assert "all hashes are correct; the results are those of the store" in printed
    assert "the verdict, computed again, is the same" in printed
    assert "this machine agrees: no arm differs by more than 3 of" in printed


def rewrite(bundled, change):
    """Change the contents of a bundle by name."""
    with zipfile.ZipFile(bundled) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    change(contents)
    with zipfile.ZipFile(bundled, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)


@pytest.mark.parametrize("name", ["study.db", "results.csv", "verdict.json", "report.html", "config.json"])
def test_a_changed_file_is_named(rlm_command, bundled, name):
    rewrite(bundled, lambda contents: contents.update({name: contents[name] + b" "}))
    code, _, error = rlm_command("check", bundled)
    assert code == 2
    assert f"expected {name} of" in error


def test_numbers_that_this_machine_does_not_find_are_told(rlm_command, db, bundled):
    """Accuracies that were changed with all checksums and hashes."""
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE triplets_results SET test_accuracy = test_accuracy - 0.2 WHERE arm = 'scratch'")
        for (block,) in connection.execute("SELECT block FROM blocks").fetchall():
            sums = json.dumps(digest_block(connection, block, "triplets"))
            connection.execute("UPDATE blocks SET checksums = ? WHERE block = ?", (sums, block))
        seal(connection, 1)
        connection.execute("COMMIT")

    def change(contents):
        results = read_study(db).finished.results.to_csv(index=False).encode()
        contents |= {"study.db": db.read_bytes(), "results.csv": results}
        sums = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
        contents["SHA256SUMS"] = "".join(sums).encode()

    rewrite(bundled, change)
    code, printed, _ = rlm_command("check", bundled, "--jobs", 1, "--seed", 2)
    assert code == 1
    assert "the results are those of the store" in printed
    assert "the verdict, computed again, is NOT that of the bundle" in printed
    assert "this machine does NOT agree: a difference of more than 3 of" in printed
