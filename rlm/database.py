"""The SQLite file of a store: its tables, from version to version, and SQLite's errors in words."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd

from rlm import labels_task, task
from rlm.errors import InputError
from rlm.labels_task import LabelsResult
from rlm.task import BlockResult

# Where a store keeps the tables of a result, and in what order the columns of the first one are.
TABLES: dict[type, tuple[str, ...]] = {
    BlockResult: ("results", "groups", "history", "pretraining"),
    LabelsResult: ("label_results", "label_history", "memorising"),
}
COLUMNS: dict[type, list[str]] = {BlockResult: task.RESULTS, LabelsResult: labels_task.RESULTS}
R = TypeVar("R", BlockResult, LabelsResult)
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
    """
    ALTER TABLE plans ADD COLUMN watched INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE studies ADD COLUMN task TEXT NOT NULL DEFAULT 'triplets';
    CREATE TABLE label_results (
        study INTEGER NOT NULL REFERENCES studies, block INTEGER NOT NULL REFERENCES blocks,
        labelled INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, validation_accuracy REAL NOT NULL,
        test_accuracy REAL NOT NULL, best_epoch INTEGER NOT NULL, epochs INTEGER NOT NULL, diverged INTEGER NOT NULL,
        seconds REAL NOT NULL, PRIMARY KEY (study, labelled, arm, seed)
    ) STRICT;
    CREATE TABLE label_history (
        study INTEGER NOT NULL REFERENCES studies, labelled INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL,
        epoch INTEGER NOT NULL, loss REAL, validation_accuracy REAL, PRIMARY KEY (study, labelled, arm, seed, epoch)
    ) STRICT;
    CREATE TABLE memorising (
        study INTEGER NOT NULL REFERENCES studies, arm TEXT NOT NULL, seed INTEGER NOT NULL, epoch INTEGER NOT NULL,
        shuffle INTEGER NOT NULL, shuffle_epoch INTEGER NOT NULL, loss REAL, accuracy REAL NOT NULL,
        PRIMARY KEY (study, arm, seed, shuffle, shuffle_epoch)
    ) STRICT;
    """,
)


def connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """
    Connect to a file, as it is.

    Parameters
    ----------
    path
        The file.
    mode
        SQLite's: ``"rwc"`` makes it where it is not there.

    Returns
    -------
    sqlite3.Connection
        Waits for other programs.
    """
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=SECONDS_TO_WAIT)


def open_store(path: Path | str) -> sqlite3.Connection:
    """
    Connect to a store that is there.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    sqlite3.Connection
        To a whole store of the newest version.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or damaged, or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a store of studies, found no file {path}; run a study with this file as its db")
    connection = connect(path, "rw")
    with explained(path):
        _require_store(connection, path)
        migrate(connection)
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """
    Bring a file to the newest version; a new one starts from nothing.

    Parameters
    ----------
    connection, path
        To the file.

    Raises
    ------
    InputError
        If it is no store, or of a newer version.
    sqlite3.DatabaseError
        If it is damaged.
    """
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not is_new:
        _require_store(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # what is said to be finished survives a loss of power
    migrate(connection)


def migrate(connection: sqlite3.Connection) -> None:
    """
    Bring a store to the newest version, wholly or not at all; of several programs that try, one does.

    Parameters
    ----------
    connection
        To a store of any version, or to an empty file.
    """
    if _version_of(connection) == len(MIGRATIONS):
        return
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        scripts = MIGRATIONS[_version_of(connection) :]  # another program may have been first
        for statement in ";".join(scripts).split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")


def _version_of(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def _require_store(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version_of(connection)
    if application != APPLICATION:
        raise InputError(f"expected a store of studies, found another SQLite file, {path}; give another name")
    if version > len(MIGRATIONS):
        raise InputError(
            f"expected a store of version {len(MIGRATIONS)} or older, found version {version} in {path}; update rlm"
        )
    (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise sqlite3.DatabaseError(" ".join(damage.split()))


def finished_of(connection: sqlite3.Connection, study: int, kind: type[R]) -> R:
    """
    Everything that is finished of a study.

    Parameters
    ----------
    connection
        To the store.
    study
        Its number there.
    kind
        `BlockResult` or `LabelsResult`.

    Returns
    -------
    BlockResult or LabelsResult
        In no particular order; its tables are empty at first.
    """
    tables = []
    for name in TABLES[kind]:
        columns = connection.execute(f"SELECT name, type FROM pragma_table_info('{name}')").fetchall()
        kinds = {column: float for column, kind in columns if kind == "REAL"}
        table = pd.read_sql_query(f"SELECT * FROM {name} WHERE study = ? ORDER BY rowid", connection, None, False,
                                  (study,), dtype=kinds)  # fmt: skip
        tables.append(table.drop(columns=["study", "block"], errors="ignore"))
    results, *others = tables
    return kind(results[COLUMNS[kind]], *others)


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """
    Turn SQLite's errors into words.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        In place of SQLite's error, with advice.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        advice = next((text for part, text in ADVICE.items() if part in name), "see what holds the file")
        raise InputError(f"expected a store of studies that can be used, found {path}: {error}; {advice}") from error
