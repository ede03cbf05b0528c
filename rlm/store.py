"""The store: studies in one SQLite file, every finished block of seeds in one transaction."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock, Timeout
from torch import nn

from rlm.config import StudyConfig
from rlm.corpus import Corpus
from rlm.errors import InputError
from rlm.identity import identify
from rlm.provenance import commit, versions
from rlm.task import RESULTS, BlockResult

APPLICATION = 0x726C6D  # "rlm"; SQLite keeps it in the header of the file
SECONDS_TO_WAIT = 60
ADVICE = {
    "FULL": "the disk is full: make room and run the study again, what was finished is kept",
    "IOERR": "the disk fails or is full: mend that and run the study again, what was finished is kept",
    "READONLY": "make it writable or give another",
    "CANTOPEN": "make its folder readable and writable, or give another",
    "BUSY": "another program holds it: close that and run the study again",
    "NOTADB": "give another name",
    "CORRUPT": "restore it from a copy, or give another name",
}
# Each brings a file from the version before it, the number of which is its place, to the next one.
MIGRATIONS = (
    """
    CREATE TABLE studies (
        study INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, config TEXT NOT NULL, dataset_hash TEXT NOT NULL,
        encoder TEXT, versions TEXT NOT NULL
    ) STRICT;
    CREATE TABLE plans (
        study INTEGER NOT NULL REFERENCES studies, started TEXT NOT NULL, arms TEXT NOT NULL, seeds TEXT NOT NULL,
        until REAL
    ) STRICT;
    CREATE TABLE blocks (
        block INTEGER PRIMARY KEY, study INTEGER NOT NULL REFERENCES studies, finished TEXT NOT NULL, git_commit TEXT,
        device TEXT NOT NULL
    ) STRICT;
    CREATE TABLE results (
        study INTEGER NOT NULL REFERENCES studies, block INTEGER NOT NULL REFERENCES blocks,
        arm TEXT NOT NULL, seed INTEGER NOT NULL, validation_accuracy REAL, test_accuracy REAL,
        best_epoch INTEGER NOT NULL, epochs INTEGER NOT NULL, seconds REAL NOT NULL, split TEXT NOT NULL,
        test_triplets INTEGER NOT NULL, test_anchors INTEGER NOT NULL, test_components INTEGER NOT NULL,
        PRIMARY KEY (study, arm, seed)
    ) STRICT;
    CREATE TABLE groups (
        study INTEGER NOT NULL REFERENCES studies, arm TEXT NOT NULL, seed INTEGER NOT NULL, component INTEGER NOT NULL,
        triplets INTEGER NOT NULL, test_accuracy REAL, PRIMARY KEY (study, arm, seed, component)
    ) STRICT;
    CREATE TABLE history (
        study INTEGER NOT NULL REFERENCES studies, arm TEXT NOT NULL, seed INTEGER NOT NULL, epoch INTEGER NOT NULL,
        loss REAL, validation_accuracy REAL, PRIMARY KEY (study, arm, seed, epoch)
    ) STRICT;
    CREATE TABLE pretraining (
        study INTEGER NOT NULL REFERENCES studies, arm TEXT NOT NULL, seed INTEGER NOT NULL, epoch INTEGER NOT NULL,
        loss REAL, seen_accuracy REAL, unseen_accuracy REAL, spread REAL, PRIMARY KEY (study, arm, seed, epoch)
    ) STRICT;
    """,
    """
    ALTER TABLE results ADD COLUMN roc_auc REAL;
    ALTER TABLE results ADD COLUMN top_1 REAL;
    """,
)


class StoredStudy(NamedTuple):
    """
    One study of a store.

    Attributes
    ----------
    config
        Of the study, with the arms that it has.
    encoder
        Its name, also that of one's own.
    finished
        Everything that is finished, see `BlockResult`, arms and seeds in no particular order.
    is_watched
        Whether seeds were added after a look, the study was to stop by what it shows, or it is not finished: a verdict
        on it takes the confidence sequence, see `rlm.compare`.
    """

    config: StudyConfig
    encoder: str
    finished: BlockResult
    is_watched: bool


class Writer:
    """
    Writes one study to a store; made by `writing`.

    Parameters
    ----------
    path
        The file.
    connection
        To it.
    study
        Its number there.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, study: int) -> None:
        self.path = path
        self.connection = connection
        self.study = study

    def plan(self, arms: Sequence[str], seeds: Sequence[int], until: float | None) -> None:
        """
        Note what is going to be run.

        Parameters
        ----------
        arms, seeds, until
            As in `rlm.run_study`.
        """
        row = self.study, _now(), json.dumps(arms), json.dumps(seeds), until
        with self.connection:
            self.connection.execute("INSERT INTO plans VALUES (?, ?, ?, ?, ?)", row)

    def finished(self) -> BlockResult:
        """
        What is finished already.

        Returns
        -------
        BlockResult
            All of the study; its tables are empty at first.
        """
        return _finished(self.connection, self.study)

    def save(self, block: BlockResult, device: str) -> None:
        """
        Add a finished block of seeds, whole or not at all.

        Parameters
        ----------
        block
            Of arms and seeds that the study does not have.
        device
            What it was trained on.

        Raises
        ------
        InputError
            If the file cannot be written. What it holds stays.
        """
        with _explained(self.path), self.connection:
            row = self.study, _now(), commit(), device
            added = self.connection.execute(
                "INSERT INTO blocks (study, finished, git_commit, device) VALUES (?, ?, ?, ?)", row
            ).lastrowid
            _insert(self.connection, "results", block.results.assign(study=self.study, block=added))
            for name in ("groups", "history", "pretraining"):
                _insert(self.connection, name, getattr(block, name).assign(study=self.study))


@contextmanager
def writing(
    path: Path | str, config: StudyConfig, corpus: Corpus, make_encoder: Callable[[int], nn.Module] | None = None
) -> Iterator[Writer]:
    """
    Open a store to write one study, which goes on where it ended.

    Parameters
    ----------
    path
        The file; made if it is not there. Beside it stands a ``.lock`` file of the run that writes.
    config, make_encoder
        Of the study. Another config but for its arms, other data, another encoder or another version of rlm or
        PyTorch make another study.
    corpus
        Its data.

    Yields
    ------
    Writer
        Until the block of code ends.

    Raises
    ------
    InputError
        If another run is writing, or the file is no store, or damaged, cannot be written, or is of a newer version.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"expected a file in an existing folder, found {path}; create the folder first")
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        with lock, closing(_connect(path)) as connection:
            with _explained(path):
                _prepare(connection, path)
                study = _find_or_add(connection, config, corpus, make_encoder)
            yield Writer(path, connection, study)
    except Timeout as error:
        raise InputError(f"another run is writing {path}; wait until it ends, or give this one another file") from error
    except PermissionError as error:
        raise InputError(
            f"expected a file that can be written, found {path}: {error.strerror}; give another"
        ) from error


def list_studies(path: Path | str) -> pd.DataFrame:
    """
    The studies of a store.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    pandas.DataFrame
        One row per study, indexed by its number: dataset, encoder, loss, arms and seeds finished, and when the last one
        was.

    Raises
    ------
    InputError
        If there is no such file, or it is no store.
    """
    with closing(_open(path)) as connection:
        rows = connection.execute(
            """
            SELECT studies.study, config ->> 'dataset', coalesce(encoder, config ->> 'encoder'), config ->> 'loss',
                (SELECT group_concat(DISTINCT arm) FROM results WHERE results.study = studies.study),
                (SELECT count(DISTINCT seed) FROM results WHERE results.study = studies.study),
                (SELECT max(finished) FROM blocks WHERE blocks.study = studies.study)
            FROM studies ORDER BY studies.study
            """
        ).fetchall()
    columns = ["study", "dataset", "encoder", "loss", "arms", "seeds", "finished"]
    listed = pd.DataFrame(rows, columns=columns).set_index("study")
    # Of an encoder of one's own the store has the source.
    name = listed["encoder"].str.extract(r"(?:class|def) (\w+)", expand=False)
    return listed.assign(encoder=name.fillna(listed["encoder"].str.partition("\n")[0]))


def read_study(path: Path | str, study: int | None = None) -> StoredStudy:
    """
    Read one study of a store, also while a run is writing it.

    Parameters
    ----------
    path
        The file.
    study
        Its number, see `list_studies`; may be left out where there is only one.

    Returns
    -------
    StoredStudy
        Config and everything finished.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or there is no such study, or nothing of it is finished.
    """
    known = list_studies(path)
    if study not in known.index and not (study is None and len(known) == 1):
        listed = known[["dataset", "encoder", "loss", "arms", "seeds"]].to_string() if len(known) else "none"
        raise InputError(f"expected --study, the number of one study of {path}, found {study}; there are:\n{listed}")
    number = int(known.index[0]) if study is None else study
    with closing(_open(path)) as connection:
        (written,) = connection.execute("SELECT config FROM studies WHERE study = ?", (number,)).fetchone()
        plans = connection.execute("SELECT arms, seeds, until FROM plans WHERE study = ?", (number,)).fetchall()
        finished = _finished(connection, number)
    if finished.results.empty:
        raise InputError(f"expected a study with a finished block of seeds, found none in {path}; let it run longer")
    arms = tuple(dict.fromkeys([*json.loads(plans[-1][0]), *finished.results["arm"]]))
    arms = tuple(arm for arm in arms if arm in set(finished.results["arm"]))
    config = StudyConfig.model_validate_json(written).model_copy(update={"arms": arms})
    wanted = {(arm, seed) for arm in json.loads(plans[-1][0]) for seed in json.loads(plans[-1][1])}
    has_all = wanted <= set(finished.results[["arm", "seed"]].itertuples(index=False, name=None))
    is_extended = len({seeds for _, seeds, _ in plans}) > 1
    is_watched = is_extended or not has_all or any(until is not None for *_, until in plans)
    return StoredStudy(config, str(known.loc[number, "encoder"]), finished, is_watched)


def _connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=SECONDS_TO_WAIT)


def _open(path: Path | str) -> sqlite3.Connection:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a store of studies, found no file {path}; run a study with this file as its db")
    connection = _connect(path, "rw")
    with _explained(path):
        _require_store(connection, path)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest version; a new one starts from nothing."""
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not is_new:
        _require_store(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # what is said to be finished survives a loss of power
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        marks = f"PRAGMA user_version = {number}; PRAGMA application_id = {APPLICATION};"
        connection.executescript(f"BEGIN IMMEDIATE; {script} {marks} COMMIT;")


def _require_store(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise InputError(f"expected a store of studies, found another SQLite file, {path}; give another name")
    if version > len(MIGRATIONS):
        raise InputError(
            f"expected a store of version {len(MIGRATIONS)} or older, found version {version} in {path}; update rlm"
        )
    (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise sqlite3.DatabaseError(" ".join(damage.split()))


def _find_or_add(
    connection: sqlite3.Connection,
    config: StudyConfig,
    corpus: Corpus,
    make_encoder: Callable[[int], nn.Module] | None,
) -> int:
    key, settings, encoder = identify(config, corpus, make_encoder)
    row = key, settings, corpus.fingerprint, encoder, json.dumps(versions())
    with connection:
        connection.execute(
            "INSERT OR IGNORE INTO studies (key, config, dataset_hash, encoder, versions) VALUES (?, ?, ?, ?, ?)", row
        )
    return int(connection.execute("SELECT study FROM studies WHERE key = ?", (key,)).fetchone()[0])


def _finished(connection: sqlite3.Connection, study: int) -> BlockResult:
    tables = []
    for name in BlockResult._fields:
        columns = connection.execute(f"SELECT name, type FROM pragma_table_info('{name}')").fetchall()
        kinds = {column: float for column, kind in columns if kind == "REAL"}
        table = pd.read_sql_query(f"SELECT * FROM {name} WHERE study = ? ORDER BY rowid", connection, None, False,
                                  (study,), dtype=kinds)  # fmt: skip
        tables.append(table.drop(columns=["study", "block"], errors="ignore"))
    results, *others = tables
    return BlockResult(results[RESULTS], *others)


def _insert(connection: sqlite3.Connection, name: str, table: pd.DataFrame) -> None:
    rows = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
    marks = ", ".join("?" * table.shape[1])
    connection.executemany(f"INSERT INTO {name} ({', '.join(table)}) VALUES ({marks})", rows)


@contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """Turn SQLite's errors into words."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        advice = next((text for part, text in ADVICE.items() if part in name), "see what holds the file")
        raise InputError(f"expected a store of studies that can be used, found {path}: {error}; {advice}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
