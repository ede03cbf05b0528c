"""Studies of a store are named, deleted and merged, and nothing else of them changes."""

import json
import sqlite3
import time
from contextlib import closing

import killed_study
import numpy as np
import pandas as pd
import pytest
from killed_study import CONFIG, run

from rlm.errors import InputError
from rlm.explorer.session import Session
from rlm.store.edit import delete_study, merge_store, name_study
from rlm.store.read import list_data, list_studies, read_progress, read_study
from rlm.store.schema import add_study, digest_block, read_record, reading, seal
from rlm.store.write import changing
from rlm.study import iter_study
from rlm.verdict import compare

OTHER = CONFIG.model_copy(update={"margin": 1.0})


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Seeds 0-3 and another study; seeds 2-5 of the first study; and all of them trained at once."""
    folder = tmp_path_factory.mktemp("stores")
    run(folder / "a.db", seeds=4)
    run(folder / "a.db", OTHER, seeds=2)
    run(folder / "b.db", seeds=[2, 3, 4, 5])
    run(folder / "b.db", CONFIG.model_copy(update={"arms": ("scratch",)}), seeds=[6])
    run(folder / "all.db", seeds=6)
    return {path.name: path.read_bytes() for path in folder.glob("*.db")}


@pytest.fixture
def files(tmp_path, stores):
    for name, content in stores.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def tables_of(db, study=None):
    """All tables of a study, without the times."""
    return [table.drop(columns="seconds", errors="ignore") for table in read_study(db, study).finished]


def assert_same(one, other):
    for mine, theirs in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4, atol=1e-6)


def test_names_are_kept_while_a_run_writes_and_change_nothing_else(files):
    db = files / "a.db"
    before = tables_of(db, 1)
    blocks = iter_study(CONFIG, 6, data=killed_study.DATA, db=db, n_jobs=1, progress=False, block_size=1)
    next(blocks)
    name_study(db, 1, {"name": "<b>wide</b>", "tags": "good, again,good"})
    next(blocks)
    name_study(db, 1, {"note": "after a look"})
    blocks.close()
    listed = list_studies(db)
    assert listed.loc[1, ["name", "tags", "note"]].tolist() == ["<b>wide</b>", "again, good", "after a look"]
    assert listed.loc[2, ["name", "tags", "note"]].isna().all()
    assert read_progress(db, 1).about == {"name": "<b>wide</b>", "tags": "again, good", "note": "after a look"}
    found = [table[table["seed"] < 4].reset_index(drop=True) for table in tables_of(db, 1)]
    assert_same(found, before)
    name_study(db, 1, {"name": "", "tags": " , "})
    assert list_studies(db).loc[1, ["name", "tags"]].isna().all()


def test_a_study_without_a_number_is_not_named(files):
    with pytest.raises(InputError, match=r"the number of one study in .*a.db, found 7; there are"):
        name_study(files / "a.db", 7, {"name": "x"})
    with pytest.raises(InputError, match="at most 10,000 characters"):
        name_study(files / "a.db", 1, {"name": "x" * 10_001})


def test_the_list_tells_studies_apart_and_how_far_they_are(files):
    blocks = iter_study(OTHER, 4, data=killed_study.DATA, db=files / "a.db", n_jobs=1, progress=False, block_size=2)
    next(blocks)  # what the store has
    next(blocks)
    blocks.close()
    listed = list_studies(files / "a.db", None)
    assert listed["settings"].tolist() == ["margin by default", "margin 1.0"]
    assert listed["state"].tolist() == ["finished", "6 of 8 runs"]
    assert listed["experiment"].tolist() == ["triplets", "triplets"]


def test_a_deleted_study_is_gone_and_others_are_whole(files):
    db = files / "a.db"
    before = tables_of(db, 2)
    blocks = iter_study(CONFIG, 4, data=killed_study.DATA, db=db, n_jobs=1, progress=False)
    next(blocks)
    with pytest.raises(InputError, match="another run is writing"):
        delete_study(db, 1)
    blocks.close()
    delete_study(db, 1)
    assert list_studies(db).index.tolist() == [2]
    assert_same(tables_of(db), before)
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)  # its room is given back
    assert_same([run(db, seeds=4).drop(columns="seconds")], [tables_of(db, 3)[0]])  # trained anew
    with pytest.raises(InputError, match="found no file"):
        delete_study(files / "none.db", 1)


def test_merged_stores_have_each_run_once(files):
    a, b = files / "a.db", files / "b.db"
    both = a, b
    kept = read_study(a, 1).finished.results
    name_study(b, 1, {"name": "from b"})
    assert merge_store(*both) == {1: 5}  # seeds 4 and 5 of both arms, and seed 6 of scratch
    merged = read_study(a, 1)
    found = [table[table["seed"] < 6].reset_index(drop=True) for table in tables_of(a, 1)]
    assert_same(found, tables_of(files / "all.db"))
    assert merged.finished.results.query("seed < 4").reset_index(drop=True).equals(kept)
    assert merged.watched is True  # somebody may have looked at one before the other was run
    assert list_studies(a).loc[1, "name"] == "from b"
    content = a.read_bytes()
    assert merge_store(*both) == {1: 0}
    assert read_study(a, 1).finished.results.equals(merged.finished.results)
    with reading(a) as (connection, name):
        assert len(read_record(connection, name, 1).plans) == 3
    assert len(content) == a.stat().st_size


def test_one_study_becomes_a_store_of_its_own(files):
    assert merge_store(files / "new.db", files / "a.db", 2) == {1: 4}
    alone, before = read_study(files / "new.db"), read_study(files / "a.db", 2)
    assert alone.config == before.config
    assert alone.watched == before.watched
    for mine, theirs in zip(alone.finished, before.finished, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_what_cannot_be_merged_changes_nothing(files):
    before = (files / "a.db").read_bytes()
    with closing(sqlite3.connect(files / "b.db")) as connection:
        connection.execute("UPDATE triplets_history SET loss = loss * 1.0000001 WHERE epoch = 1")
        connection.commit()
    with pytest.raises(InputError, match=r"expected block 1 of study 1 \(.*\) of .*b.db as written"):
        merge_store(files / "a.db", files / "b.db")
    with pytest.raises(InputError, match="twice; name another"):
        merge_store(files / "a.db", files / "a.db")
    with pytest.raises(InputError, match="found no file"):
        merge_store(files / "a.db", files / "none.db")
    with pytest.raises(InputError, match="found no file"):
        merge_store(files / "new.db", files / "none.db")
    assert (files / "a.db").read_bytes() == before
    assert not (files / "new.db").exists()


def multiply(db, studies):
    """Make copies of the first study with other margins, as many as there are to be studies."""
    with closing(sqlite3.connect(db, isolation_level=None)) as connection, changing(connection, db):
        record = read_record(connection, db, 1)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master") if "triplets_" in name]
        for number in range(studies - 1):
            config = json.loads(record.study.config) | {"margin": 1 + number / 100}
            study = add_study(connection, f"key {number}", "triplets", json.dumps(config), *record.study[4:7])
            given = "SELECT ?, started, arms, seeds, rules FROM plans WHERE study = 1"
            connection.execute(f"INSERT INTO plans (study, started, arms, seeds, rules) {given}", (study,))
            for block in record.blocks:
                copy = 10 * study + block.block
                for name in tables:
                    columns = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({name})")][1:]
                    connection.execute(
                        f"INSERT INTO {name} SELECT ?, {', '.join(columns)} FROM {name} WHERE block = ?",
                        (copy, block.block),
                    )
                sums = json.dumps(digest_block(connection, copy, "triplets"))
                connection.execute(
                    "INSERT INTO blocks SELECT ?, ?, finished, git_commit, device, arms, seeds, ? FROM blocks "
                    "WHERE block = ?",
                    (copy, study, sums, block.block),
                )
            seal(connection, study)


def test_two_hundred_studies_open_in_two_seconds(files):
    db = files / "all.db"
    multiply(db, 200)
    start = time.process_time()
    session = Session(db, killed_study.DATA)
    session.open_last(CONFIG, is_any=False)
    listed = list_studies(db)
    took = time.process_time() - start
    assert session.progress.study == 200
    assert len(list_data(db)) == len(listed) == 200
    assert listed["settings"].is_unique
    assert compare(read_study(db, 200).finished.results).pairs == 6
    assert np.isfinite(took)
    assert took < 2
    print(f"a store of 200 studies of {db.stat().st_size / 2**20:.1f} MiB: {took:.2f} s")
