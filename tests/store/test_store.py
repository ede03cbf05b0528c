"""The store keeps every finished block through whatever happens to a study."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import killed_study
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from killed_study import CONFIG, SEEDS, run
from torch import nn

import rlm.store.file
import rlm.study
from rlm.data.corpus import index_corpus
from rlm.encoder import MeanEncoder
from rlm.errors import InputError
from rlm.labels.config import LabelsConfig
from rlm.labels.study import read_labels, run_labels
from rlm.runtime.results import Rules
from rlm.store.file import open_store
from rlm.store.read import list_studies, read_progress, read_study
from rlm.store.schema import reading
from rlm.store.write import writing
from rlm.study import BlockResult, TripletStudy, iter_study
from rlm.verdict import compare

LIVELY = CONFIG.model_copy(update={"learning_rate": 0.1, "pretrain_epochs": 3})  # arms that differ for most seeds
KILLS = 60
DAMAGED = 300
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


@pytest.fixture
def db(tmp_path):
    return tmp_path / "study.db"


def numbers(results):
    return results.drop(columns="seconds")


def rows(db):
    """What a store holds, read without the package."""
    with closing(sqlite3.connect(db)) as connection:
        asked = "SELECT study, r.* FROM triplets_results AS r JOIN blocks USING (block)"
        found = pd.read_sql_query(asked, connection).drop(columns="block")
    return found.set_index(["study", "arm", "seed"]).sort_index()


@pytest.fixture
def never_trains(monkeypatch):
    def refuse(*_):
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(rlm.study, "run_block", refuse)


class TestGoingOn:
    def test_what_is_done_is_not_trained_again(self, db, uninterrupted, never_trains):
        first = run(db)
        pd.testing.assert_frame_equal(numbers(first), numbers(uninterrupted))
        never_trains()
        pd.testing.assert_frame_equal(run(db), first)

    def test_everything_comes_back_as_it_was(self, db):
        blocks = list(iter_study(CONFIG, 12, data=killed_study.DATA, db=db, n_jobs=1, progress=False))
        once = rlm.study.join(blocks, CONFIG.arms)
        (stored,) = iter_study(CONFIG, 12, data=killed_study.DATA, db=db, n_jobs=1, progress=False)
        again = rlm.study.join([stored], CONFIG.arms)
        for name in once._fields:
            pd.testing.assert_frame_equal(getattr(once, name), getattr(again, name), check_like=True)

    def test_more_seeds_and_arms_take_only_what_is_missing(self, db, monkeypatch):
        run(db, seeds=12)
        trained = []

        def noted(configs, corpus, seeds, *more):
            trained.extend((arm, seed) for arm in configs for seed in seeds)
            return original(configs, corpus, seeds, *more)

        original = rlm.study.run_block
        monkeypatch.setattr(rlm.study, "run_block", noted)
        arms = (*CONFIG.arms, "rescaled")
        results = run(db, CONFIG.model_copy(update={"arms": arms}), seeds=15)
        assert sorted(trained) == sorted(
            {(a, s) for a in arms for s in range(15)} - {(a, s) for a in CONFIG.arms for s in range(12)}
        )
        assert len(results) == 45

    @pytest.mark.parametrize("changed", [{"margin": 0.6}, {"pretrain_epochs": 2}, {"split_seed": 1}, {"negatives": 2}])
    def test_what_differs_never_mixes(self, db, changed):
        one = run(db, seeds=3)
        run(db, CONFIG.model_copy(update=changed), seeds=3)
        assert len(list_studies(db)) == 2
        assert len(rows(db)) == 12
        pd.testing.assert_frame_equal(run(db, seeds=3), one)

    def test_other_data_and_other_encoders_are_other_studies(self, db, monkeypatch):
        run(db, seeds=3)

        class Wider(MeanEncoder):
            def __init__(self, vocabulary_size):
                super().__init__(vocabulary_size, 8, 8)

        def sized(dim):
            class Sized(MeanEncoder):
                """Its source is the same for every dim."""

                def __init__(self, vocabulary_size):
                    super().__init__(vocabulary_size, 4, dim)

            return Sized

        run(db, seeds=3, make_encoder=Wider)
        for dim in (4, 6, 4):
            run(db, seeds=3, make_encoder=sized(dim))
        assert list(list_studies(db)["encoder"]) == ["mean", "Wider", "Sized", "Sized"]
        monkeypatch.setattr(killed_study, "DATA", killed_study.DATA[:-3])
        run(db, seeds=3)
        assert len(list_studies(db)) == 5
        with pytest.raises(InputError, match="expected a make_encoder whose source can be read"):
            run(db, seeds=3, make_encoder=eval("lambda size: None"))

    def test_a_study_is_read_by_its_number(self, db):
        run(db, seeds=12)
        assert read_study(db).config == CONFIG
        run(db, CONFIG.model_copy(update={"margin": 1.0}), seeds=3)
        with pytest.raises(InputError, match=r"number of one study of .*study.db, found None; there are:\n.*\n.*\n1 "):
            read_study(db)
        assert read_study(db, 2).config.margin == 1
        assert len(read_study(db, 1).finished.results) == 24

    @pytest.mark.parametrize("more", [{"seeds": 14}, {"seeds": 12, "arms": (*CONFIG.arms, "rescaled")}])
    def test_it_knows_whether_it_was_watched_or_extended(self, db, more):
        for _ in range(2):
            assert not run(db, seeds=12).attrs["watched"]
            assert not read_study(db).watched
        arms = CONFIG.model_copy(update={"arms": more.pop("arms", CONFIG.arms)})
        results = run(db, arms, **more)
        stored = read_study(db)
        assert stored.watched
        assert results.attrs["watched"]
        joined = rlm.study.join([stored.finished, stored.finished], CONFIG.arms)
        for table in (*stored.finished, *joined, results[["arm", "seed"]], results[results["seed"] > 3]):
            assert table.attrs["watched"] is True

    @pytest.mark.parametrize("settings", [{"watched": True}, {"until": 0.9}])
    def test_who_watches_is_told_by_the_table(self, db, settings):
        assert run(seeds=12, **settings).attrs["watched"]
        assert not run(seeds=2).attrs["watched"]
        run(db, seeds=12, **settings)
        assert run(db, seeds=12).attrs["watched"]

    def test_until_looks_at_seeds_in_ascending_order(self):
        """As the verdict does, in whatever order they are given."""
        seeds = np.random.default_rng(0).permutation(SEEDS).tolist()
        one, other = run(until=0.4, seeds=seeds, config=LIVELY), run(until=0.4, config=LIVELY)
        pd.testing.assert_frame_equal(numbers(one), numbers(other))
        assert one["seed"].nunique() < SEEDS
        assert compare(one).anytime.width < 0.4

    def test_more_seeds_than_a_panel_once_had_are_read(self, db):
        seeds = range(10_001)
        results = run(seeds=1)
        config = CONFIG.model_copy(update={"arms": ("scratch",)})
        block = next(iter_study(config, 1, data=killed_study.DATA, n_jobs=1, progress=False))
        repeated = [pd.concat([table] * len(seeds)).assign(seed=seeds) for table in (block.results,)]
        block = block._replace(results=repeated[0], clusters=block.clusters[:0], history=block.history[:0])
        with writing(db, TripletStudy(config, index_corpus(killed_study.DATA)).identify(), BlockResult) as store:
            store.plan(config.arms, list(seeds), Rules(metric="test_accuracy"))
            store.save(block, "cpu")
        progress = read_progress(db)
        assert progress.is_complete
        assert progress.plan.seeds == len(progress.seeds) == len(seeds)
        assert len(results) == 2

    def test_until_stops_and_goes_on(self, db, never_trains):
        results = run(db, until=0.4, config=LIVELY)
        pairs = results["seed"].nunique()
        assert 10 <= pairs < SEEDS
        assert compare(results).anytime.width < 0.4
        assert read_study(db).watched
        narrower = compare(results).anytime.width * 0.8
        more = run(db, until=narrower, config=LIVELY)
        assert pairs < more["seed"].nunique()
        never_trains()
        assert len(run(db, until=narrower, config=LIVELY)) == len(more)

    @pytest.mark.parametrize(("settings", "arms"), [({"until": 0.0}, CONFIG.arms), ({"until": 0.1}, ("pretrained",))])
    def test_until_needs_a_width_and_arms(self, settings, arms):
        with pytest.raises(InputError, match="expected until to be a width above 0, and the arm scratch with others"):
            run(config=CONFIG.model_copy(update={"arms": arms}), **settings)


def _grow(db):
    """Add pages to a store, and take them away, many times."""
    with closing(sqlite3.connect(db, isolation_level=None, timeout=60)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE more (content)")
        for turn in range(600):
            connection.execute("INSERT INTO more VALUES (zeroblob(200000))")
            if turn % 50 == 49:
                connection.execute("DELETE FROM more")
                connection.execute("VACUUM")


class TestFiles:
    def test_a_second_run_on_the_file_is_refused(self, db):
        blocks = iter_study(CONFIG, 12, data=killed_study.DATA, db=db, n_jobs=1, progress=False)
        next(blocks)
        with pytest.raises(InputError, match=r"another run is writing .*study.db; wait"):
            run(db)
        assert len(read_study(db).finished.results)  # reading goes on meanwhile
        blocks.close()
        assert len(run(db, seeds=12)) == 24

    @pytest.mark.parametrize("link", [os.link, os.symlink])
    def test_a_second_run_by_another_name_of_the_file_is_refused(self, db, link, tmp_path):
        run(db, seeds=2)
        (tmp_path / "other").mkdir()
        blocks = iter_study(CONFIG, 12, data=killed_study.DATA, db=db, n_jobs=1, progress=False)
        next(blocks)
        for other in (tmp_path / "again.db", tmp_path / "other" / "again.db"):
            link(db, other)
            with pytest.raises(InputError, match=r"another run is writing"):
                run(other)
            other.unlink()
        blocks.close()
        assert {path.name for path in tmp_path.iterdir()} == {db.name, "other"}  # no lock is left

    def test_a_file_that_another_program_holds_is_named(self, db, monkeypatch):
        run(db, seeds=2)
        monkeypatch.setattr(rlm.store.file, "SECONDS_TO_WAIT", 0.1)
        with closing(sqlite3.connect(db)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(InputError, match=r"study.db: database is locked; another program holds it"):
                run(db, seeds=3)
        assert len(run(db, seeds=3)) == 6

    @pytest.mark.parametrize("read", [run, read_study, list_studies])
    def test_damage_is_named(self, db, read):
        run(db, seeds=3)
        content = bytearray(db.read_bytes())
        content[4096:] = b"\x55" * (len(content) - 4096)
        db.write_bytes(content)
        with pytest.raises(InputError, match=r"expected a store of studies.*study.db: .*restore it from a copy"):
            read(db)

    @pytest.mark.parametrize("read", [run, read_study, read_progress, list_studies, read_labels, open_store])
    @pytest.mark.parametrize("version", [0, 3, 5])
    def test_other_files_are_left_alone(self, db, read, version):
        db.write_text("arm,seed\n" * 200)
        with pytest.raises(InputError, match=r"study.db: file is not a database; give another name"):
            read(db)
        assert db.read_text() == "arm,seed\n" * 200
        db.unlink()
        # One that another program was writing when it was killed: what SQLite would write on is beside it.
        with closing(sqlite3.connect(db.with_name("other.db"))) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("CREATE TABLE mine (x)")
            connection.execute("PRAGMA wal_checkpoint")
            connection.execute("CREATE TABLE others (x)")
            for ending in ("", "-wal"):
                db.with_name(db.name + ending).write_bytes(db.with_name("other.db" + ending).read_bytes())
        before = {path.name: path.read_bytes() for path in db.parent.iterdir()}
        with pytest.raises(InputError, match="another SQLite file"):
            read(db)
        assert {path.name: path.read_bytes() for path in db.parent.iterdir()} == before

    @pytest.mark.parametrize(("version", "advice"), [(99, "update rlm"), (5, "read it with the version of rlm that")])
    def test_a_file_of_another_version_is_refused_as_it_is(self, db, version, advice):
        run(db, seeds=2)
        with closing(sqlite3.connect(db)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        before = db.read_bytes()
        for read in (run, read_study, read_progress, list_studies, read_labels, open_store):
            with pytest.raises(InputError, match=rf"store of version 10, found version {version} in .*; {advice}"):
                read(db)
        assert db.read_bytes() == before
        assert [path.name for path in db.parent.iterdir()] == [db.name]

    def test_missing_files_and_folders_are_named(self, tmp_path):
        with pytest.raises(InputError, match=r"found no file .*none.db; run a study"):
            read_study(tmp_path / "none.db")
        with pytest.raises(InputError, match=r"existing folder, found .*none/s.db; create the folder"):
            run(tmp_path / "none" / "s.db")

    @pytest.fixture
    def shared(self):
        """A folder that other users can enter."""
        if os.getuid() != 0:
            pytest.skip("only root can become somebody else")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            yield folder
            folder.chmod(0o755)

    def test_reading_needs_no_write_access(self, shared):
        db = shared / "s.db"
        run(db, seeds=2)
        db.chmod(0o444)
        shared.chmod(0o555)
        read = "print(len(read_study(db).finished.results), len(list_studies(db)), read_progress(db).study)"
        imports = "from rlm.store.read import *"
        code = f"{imports}; db = {str(db)!r}; os.setuid(65534); {read}"
        assert in_process(code, "stdout") == "4 1 1\n"
        assert list(shared.iterdir()) == [db]
        db.chmod(0)
        assert "make its folder readable" in in_process(code)

    def test_a_store_that_grows_is_never_taken_for_a_damaged_one(self, db):
        """A reader that took no lock would see pages that are announced, but not yet written."""
        run(db, seeds=2)
        writer = multiprocessing.get_context("spawn").Process(target=_grow, args=(db,))
        writer.start()
        reads = 0
        while writer.is_alive():
            rlm.store.file.open_store(db).close()
            reads += 1
        writer.join()
        assert writer.exitcode == 0
        assert reads > 100

    def test_who_looks_at_a_store_leaves_the_locks_of_another_thread(self, db):
        """POSIX drops the locks of a whole process as soon as one of its threads closes the file."""
        run(db, seeds=1)
        with sqlite3.connect(db, isolation_level=None) as mine, rlm.store.file.explained(db):
            mine.execute("BEGIN IMMEDIATE")
            looking = threading.Thread(target=lambda: found.append(rlm.store.file.is_store(db)))
            found = []
            looking.start()
            looking.join(0.5)
            code = f"import sqlite3; sqlite3.connect({str(db)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
            other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            mine.execute("ROLLBACK")
        mine.close()
        looking.join()
        assert "database is locked" in other.stderr
        assert found == [True]

    def test_a_file_that_may_not_be_written_is_named(self, shared):
        run(shared / "s.db", seeds=2)
        for file in (shared / "s.db", shared):
            file.chmod(0o555)
        failed = in_process(f"os.setuid(65534); run({str(shared / 's.db')!r}, seeds=3)")
        assert "expected a file that can be written" in failed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of three studies, and what is read of it."""
    db = tmp_path_factory.mktemp("whole") / "study.db"
    run(db, seeds=4, largest_block=2)
    run(db, CONFIG.model_copy(update={"margin": 1.0, "pretrain_epochs": 0}), seeds=3, largest_block=2, watched=True)
    labels = LabelsConfig(encoder="mlp", dim=2, shuffles=1, shuffle_epochs=1, max_epochs=1, labelled=(20,))
    run_labels(labels, 2, db=db, n_jobs=1, progress=False)
    return db.read_bytes(), read_everything(db)


READERS = {
    "list": list_studies,
    "first": lambda db: read_study(db, 1),
    "second": lambda db: read_study(db, 2),
    "labels": read_labels,
    "progress": read_progress,
}


def read_everything(db, names=READERS):
    """All that can be read of a store: tables or the error."""
    found = {}
    for name in names:
        read = READERS[name]
        try:
            found[name] = read(db)
        except InputError as error:
            found[name] = error
    return found


def is_same(one, other):
    if isinstance(one, pd.DataFrame):
        return one.equals(other) and one.attrs == other.attrs
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one == other


def damage(content, rng):
    """Flip bits, or swap, overwrite, zero or cut off parts."""
    content = bytearray(content)
    size = int(rng.choice([1, 8, 64, 512, 4096]))
    first, second = sorted(rng.integers(len(content) - size, size=2))
    match rng.choice(["flip", "flip", "swap", "overwrite", "zero", "truncate"]):
        case "flip":
            for place in rng.integers(len(content), size=rng.integers(1, 4)):
                content[place] ^= 1 << rng.integers(8)
        case "swap":
            one, other = content[first : first + size], content[second : second + size]
            content[first : first + size], content[second : second + size] = other, one
        case "overwrite":
            content[first : first + size] = rng.bytes(size)
        case "zero":
            content[first : first + size] = bytes(size)
        case "truncate":
            del content[second:]
    return bytes(content)


class TestDamage:
    def test_it_is_said_or_changes_nothing(self, db, whole):
        content, expected = whole
        rng, said, same = np.random.default_rng(0), 0, 0
        for _ in range(DAMAGED):
            db.write_bytes(damage(content, rng))
            for name, found in read_everything(db).items():
                if isinstance(found, InputError):
                    assert "study.db" in str(found)
                    said += 1
                else:
                    assert is_same(found, expected[name]), name
                    same += 1
        assert said > DAMAGED
        assert same > DAMAGED
        print(f"{DAMAGED} damaged stores: {said} readings refused, {same} the same, none wrong")

    def test_a_damaged_file_is_never_written_on(self, db, whole, monkeypatch):
        """Nor does a study that goes on end in anything but a message or the same numbers."""
        content, expected = whole

        def refuse(*_, **__):
            raise InputError("trains anew")

        monkeypatch.setattr(rlm.study, "run_block", refuse)
        rng, said = np.random.default_rng(1), 0
        for _ in range(DAMAGED // 4):
            db.write_bytes(damage(content, rng))
            try:
                found = run(db, seeds=4, largest_block=2)
            except InputError:
                said += 1
            else:
                assert numbers(found).equals(numbers(rlm.study.join([expected["first"].finished], CONFIG.arms).results))
        assert 0 < said < DAMAGED // 4

    def test_no_cell_changes_unnoticed(self, db, whole):
        content, _ = whole
        tried = 0
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(content)
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            kinds = {
                (table, column): kind
                for table in tables
                for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})")
            }
        changes = [
            f"UPDATE {table} SET {column} = {new} WHERE {column} = (SELECT max({column}) FROM {table})"
            for (table, column), kind in kinds.items()
            for new in ([f"{column} || 'x'"] if kind == "TEXT" else [f"{column} + 1000", "NULL"])
        ]
        changes += [
            f"DELETE FROM {table} WHERE {key} = (SELECT {end}({key}) FROM {table})"
            for table in tables
            for end in ("min", "max")
            for key in [next(column for name, column in kinds if name == table)]
        ]
        changes += [
            "INSERT INTO triplets_results "
            f"SELECT 99, arm, 9, {', '.join('1' * 14)}, split, 1, 1, 1, 1 "
            "FROM triplets_results LIMIT 1",
            "INSERT INTO plans VALUES (99, 99, '', '[]', '[]', '{}')",
            "CREATE VIEW more AS SELECT * FROM triplets_results",
        ]
        for change in changes:
            db.write_bytes(content)
            with closing(sqlite3.connect(db)) as connection:
                connection.execute("PRAGMA synchronous = OFF")
                try:
                    is_changed = connection.execute(change).rowcount != 0
                    connection.commit()
                except sqlite3.IntegrityError:  # not even SQLite would
                    continue
            if is_changed:
                tried += 1
                found = read_everything(db, ["first", "second", "labels"]).values()
                said = [str(one) for one in found if isinstance(one, InputError)]
                assert said, change
                assert not any("Error:" in text for text in said), change
        assert tried > 80

    def test_a_damaged_block_is_named_and_trained_anew(self, db, caplog):
        before = run(db, seeds=6, largest_block=2)
        with closing(sqlite3.connect(db)) as connection:
            connection.execute("UPDATE triplets_history SET loss = loss * 1.0000001 WHERE block = 3 AND epoch = 1")
            connection.commit()
        with pytest.raises(InputError, match=r"block 3 of study 1 \(scratch; seeds 2-3\) of .*trains these seeds anew"):
            read_study(db)
        after = run(db, seeds=6, largest_block=2)
        assert "block 3 of study 1 (scratch; seeds 2-3)" in caplog.text
        assert "trained anew" in caplog.text
        pd.testing.assert_frame_equal(numbers(after), numbers(before), atol=1e-6)
        assert not after.attrs["watched"]
        pd.testing.assert_frame_equal(numbers(read_results(db)), numbers(after))
        trained = after.loc[after["seconds"] != before["seconds"], ["arm", "seed"]]
        assert list(trained.itertuples(index=False, name=None)) == [("scratch", 2), ("scratch", 3)]

    def test_a_panel_reads_all_of_one_moment(self, db):
        run(db, seeds=2)
        with reading(db) as (connection, _):
            assert list_studies(connection)["seeds"].tolist() == [2]
            assert len(read_study(connection).finished.results) == 4


def in_process(code, stream="stderr"):
    """Run code in a process of its own; what it printed."""
    header = f"import os, resource, sys; sys.path.insert(0, {TESTS!r}); from killed_study import *\n"
    done = subprocess.run([sys.executable, "-c", header + code], capture_output=True, text=True, check=False)
    return getattr(done, stream)


class TestFaults:
    def test_killed_at_random_it_loses_nothing(self, tmp_path, monkeypatch):
        """Each time the study continues where it was killed; when it is done, a new one begins."""
        many = {"seeds": 5, "largest_block": 1}  # a kill seldom hits what takes long
        uninterrupted = run(**many)
        context = multiprocessing.get_context("forkserver")
        monkeypatch.setenv("PYTHONPATH", TESTS)
        context.set_forkserver_preload(["warm_study"])

        def start(db):
            process = context.Process(target=run, args=(db,), kwargs=many)
            process.start()
            return process

        rng, kills, studies = np.random.default_rng(0), 0, 0
        patience, kept = 0.3, None  # patience: seconds from start to kill, at most
        while kills < KILLS or kept is not None or studies < 3:  # on a busy machine most kills come early
            db = tmp_path / f"{studies}.db"
            process = start(db)
            if kills < KILLS:
                process.join(rng.uniform(0, patience))
            process.join(0 if kills < KILLS else None)
            if process.is_alive():
                process.kill()
                process.join()
                kills += 1
            else:
                assert process.exitcode == 0
            try:
                now = rows(db)
            except pd.errors.DatabaseError:  # killed before the tables were made
                assert kept is None
                patience *= 1.05
                continue
            if kept is not None and len(kept):
                pd.testing.assert_frame_equal(now.loc[kept.index], kept)
            # However fast the machine is, a study comes to store something before about every third kill.
            patience *= 0.9 if len(now) > (0 if kept is None else len(kept)) else 1.05
            kept = now
            if process.exitcode == 0:
                pd.testing.assert_frame_equal(numbers(read_results(db)), numbers(uninterrupted))
                assert len(now) == len(uninterrupted)
                kept, studies = None, studies + 1

    def test_a_killed_worker_is_said_and_the_study_goes_on(self, db, uninterrupted, monkeypatch):
        blocks = iter_study(CONFIG, SEEDS, data=killed_study.DATA, db=db, n_jobs=2, progress=False)
        next(blocks)
        next(child for child in psutil.Process().children() if "LokyProcess" in "".join(child.cmdline())).kill()
        with pytest.raises(InputError, match=r"a process of the study was killed.*study.db keeps the finished blocks"):
            list(blocks)
        kept = rows(db)
        results = run(db, n_jobs=2)
        pd.testing.assert_frame_equal(rows(db).loc[kept.index], kept)
        pd.testing.assert_frame_equal(numbers(results), numbers(uninterrupted), atol=1e-6)

    def test_a_full_disk_is_said_and_the_study_goes_on(self, db, uninterrupted):
        run(db, seeds=2)
        limit = db.stat().st_size + 40_000
        code = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); run({str(db)!r})"
        assert "run the study again, what was finished is kept" in in_process(code)
        kept = rows(db)
        pd.testing.assert_frame_equal(numbers(run(db)), numbers(uninterrupted), atol=1e-6)
        pd.testing.assert_frame_equal(rows(db).loc[kept.index], kept)

    def test_want_of_memory_is_said(self, db):
        class Huge(nn.Module):
            def __init__(self, vocabulary_size):
                super().__init__()
                self.words = nn.Embedding(vocabulary_size, 10**13)

        with pytest.raises(InputError, match=r"memory ran out. .*study.db keeps the finished blocks"):
            run(db, seeds=2, make_encoder=Huge)

    def test_a_seed_that_diverges_is_kept_as_failed(self, db):
        class Brittle(MeanEncoder):
            """Every tenth or so has weights that are not finite."""

            def __init__(self, vocabulary_size):
                super().__init__(vocabulary_size, 4, 4)
                if torch.rand(()) < 0.2:
                    self.output.weight.data.fill_(torch.nan)

        with pytest.warns(UserWarning, match=r"seed\(s\) .* of arm scratch diverged"):
            results = run(db, seeds=20, make_encoder=Brittle)
        failed = results["test_accuracy"].isna()
        assert 0 < failed.sum() < 20
        assert results.loc[failed, ["validation_accuracy"]].isna().all(axis=None)
        assert results.loc[failed].groupby("seed").size().eq(2).all()  # both arms begin with the same weights
        pd.testing.assert_frame_equal(run(db, seeds=20, make_encoder=Brittle), results)
        verdict = compare(results)
        assert verdict.pairs == 20
        assert verdict.failed["scratch"].share.value >= failed.sum() / 40


def read_results(db):
    stored = read_study(db)
    return stored.finished.results
