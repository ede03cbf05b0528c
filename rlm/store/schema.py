"""The SQLite file of a store: its tables, the checksums of all that it holds, and SQLite's errors in words."""

import hashlib
import json
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from rlm import task
from rlm.errors import InputError
from rlm.labels import task as labels_task
from rlm.labels.task import LabelsResult
from rlm.task import BlockResult

# Where a store keeps the tables of a result, and in what order the columns of the first one are.
TABLES: dict[type, tuple[str, ...]] = {
    BlockResult: ("results", "groups", "history", "pretraining"),
    LabelsResult: ("label_results", "label_history", "memorising"),
}
KINDS: dict[str, type] = {"triplets": BlockResult, "labels": LabelsResult}
COLUMNS: dict[type, list[str]] = {BlockResult: task.RESULTS, LabelsResult: labels_task.RESULTS}
R = TypeVar("R", BlockResult, LabelsResult)
APPLICATION = 0x726C6D  # "rlm"; SQLite keeps it in the header of the file
VERSION = 5
SECONDS_TO_WAIT = 60
ADVICE = {
    "FULL": "the disk is full: make room and run the study again, what was finished is kept",
    "IOERR": "the disk fails or is full: fix that and run the study again, what was finished is kept",
    "READONLY": "make it writable or give another",
    "CANTOPEN": "make its folder readable and writable, or give another",
    "BUSY": "another program holds it: close that and run the study again",
    "NOTADB": "give another name",
    "CORRUPT": "restore it from a copy, or give another name",
}
# The checksum of a block's rows, table by table, is in `blocks`; the checksum of a study covers its row, its plans and
# its blocks; that of the store covers the checksums of all studies. So whatever is read can be verified, and nothing
# else has to be.
SCHEMA = """
    CREATE TABLE store (checksum TEXT NOT NULL) STRICT;
    CREATE TABLE studies (
        study INTEGER PRIMARY KEY, key TEXT NOT NULL, task TEXT NOT NULL, config TEXT NOT NULL,
        dataset_hash TEXT NOT NULL, encoder TEXT, versions TEXT NOT NULL, checksum TEXT NOT NULL
    ) STRICT;
    CREATE TABLE plans (
        plan INTEGER PRIMARY KEY, study INTEGER NOT NULL, started TEXT NOT NULL, arms TEXT NOT NULL,
        seeds TEXT NOT NULL, until REAL, watched INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE blocks (
        block INTEGER PRIMARY KEY, study INTEGER NOT NULL, finished TEXT NOT NULL, git_commit TEXT,
        device TEXT NOT NULL, arms TEXT NOT NULL, seeds TEXT NOT NULL, checksums TEXT NOT NULL
    ) STRICT;
    CREATE TABLE results (
        block INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, validation_accuracy REAL, test_accuracy REAL,
        roc_auc REAL, top_1 REAL, best_epoch INTEGER NOT NULL, epochs INTEGER NOT NULL, seconds REAL NOT NULL,
        split TEXT NOT NULL, test_triplets INTEGER NOT NULL, test_anchors INTEGER NOT NULL,
        test_components INTEGER NOT NULL, PRIMARY KEY (block, arm, seed)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE groups (
        block INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, component INTEGER NOT NULL,
        triplets INTEGER NOT NULL, test_accuracy REAL, PRIMARY KEY (block, arm, seed, component)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE history (
        block INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, epoch INTEGER NOT NULL, loss REAL,
        validation_accuracy REAL, PRIMARY KEY (block, arm, seed, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE pretraining (
        block INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, epoch INTEGER NOT NULL, loss REAL,
        seen_accuracy REAL, unseen_accuracy REAL, spread REAL, PRIMARY KEY (block, arm, seed, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE label_results (
        block INTEGER NOT NULL, labelled INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL,
        validation_accuracy REAL NOT NULL, test_accuracy REAL NOT NULL, best_epoch INTEGER NOT NULL,
        epochs INTEGER NOT NULL, diverged INTEGER NOT NULL, seconds REAL NOT NULL,
        PRIMARY KEY (block, labelled, arm, seed)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE label_history (
        block INTEGER NOT NULL, labelled INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL,
        epoch INTEGER NOT NULL, loss REAL, validation_accuracy REAL, PRIMARY KEY (block, labelled, arm, seed, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE memorising (
        block INTEGER NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, epoch INTEGER NOT NULL,
        shuffle INTEGER NOT NULL, shuffle_epoch INTEGER NOT NULL, loss REAL, accuracy REAL NOT NULL,
        PRIMARY KEY (block, arm, seed, shuffle, shuffle_epoch)
    ) STRICT, WITHOUT ROWID;
"""
STATEMENTS = tuple(filter(None, map(str.strip, SCHEMA.split(";"))))
# The blocks that a table has rows of, found by as many steps down its tree as there are.
BLOCKS = """
    WITH RECURSIVE found(block) AS (
        SELECT min(block) FROM {0} UNION ALL SELECT (SELECT min(block) FROM {0} WHERE block > found.block) FROM found
        WHERE block IS NOT NULL
    ) SELECT block FROM found WHERE block IS NOT NULL
"""


class Study(NamedTuple):
    """A row of `studies`."""

    study: int
    key: str
    task: str
    config: str
    dataset_hash: str
    encoder: str | None
    versions: str
    checksum: str


class Plan(NamedTuple):
    """A row of `plans`, with arms and seeds as they were asked for."""

    plan: int
    study: int
    started: str
    arms: list[str]
    seeds: list[int]
    until: float | None
    watched: int


class StoredBlock(NamedTuple):
    """A row of `blocks`, with the checksum of its rows in each table."""

    block: int
    study: int
    finished: str
    git_commit: str | None
    device: str
    arms: list[str]
    seeds: list[int]
    checksums: dict[str, str]

    def __str__(self) -> str:
        """Its number, arms and seeds."""
        return f"block {self.block} of study {self.study} ({', '.join(self.arms)}; seeds {spell_seeds(self.seeds)})"


class Record(NamedTuple):
    """All that a store holds of a study, but for the rows of its blocks."""

    study: Study
    plans: list[Plan]
    blocks: list[StoredBlock]

    @property
    def kind(self) -> type:
        """Of its results."""
        return KINDS[self.study.task]

    @property
    def runs(self) -> set[tuple[str, int]]:
        """Arm and seed of what is finished."""
        return {(arm, seed) for block in self.blocks for arm in block.arms for seed in block.seeds}


def spell_seeds(seeds: Sequence[int]) -> str:
    """
    List seeds, and those that follow each other as a range.

    Parameters
    ----------
    seeds
        In ascending order.

    Returns
    -------
    str
        For example ``"0-11, 20"``.
    """
    ranges: list[list[int]] = []
    for seed in seeds:
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1][1:] = [seed]
        else:
            ranges.append([seed])
    return ", ".join("-".join(map(str, one)) for one in ranges)


def check_file(path: Path | str) -> Path:
    """
    Check that a store can be at a path, whether it is there or not.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    pathlib.Path
        Without links.

    Raises
    ------
    InputError
        If the path is something else than a file, or leads nowhere.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"expected a file for the store, found a link to nothing, {path}; give another") from None
        if not path.parent.is_dir():
            raise InputError(f"expected a file in an existing folder, found {path}; create the folder first") from None
        return path.resolve()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a file for the store, found {str(path)!r}: {reason}; give another") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise InputError(f"expected a file for the store, found {kind}, {path}; give the name of a file")
    return path.resolve()


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """
    Connect to a file that is there, as it is.

    Parameters
    ----------
    path
        The file.
    mode
        SQLite's, with further settings.

    Returns
    -------
    sqlite3.Connection
        Waits for other programs. A transaction has to be begun.
    """
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=SECONDS_TO_WAIT, isolation_level=None)


def open_store(path: Path | str) -> sqlite3.Connection:
    """
    Connect to a store that is there.

    Parameters
    ----------
    path
        The file; it need not be writable.

    Returns
    -------
    sqlite3.Connection
        To a store of this version.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or damaged, or of another version. The file is as it was.
    """
    path = check_file(path)
    if not path.exists():
        raise InputError(f"expected a store of studies, found no file {path}; run a study with this file as its db")
    with explained(path):
        if not has_store(path):
            raise InputError(f"expected a store of studies, found an empty file, {path}; run a study with it as its db")
        return connect(path)


def has_store(path: Path) -> bool:
    """
    Look whether a file is a store; without locks or a journal, so that no other file is ever touched.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bool
        False for an empty file.

    Raises
    ------
    InputError
        If it is something else, or of another version.
    sqlite3.DatabaseError
        If it is no SQLite file.
    """
    if not path.stat().st_size:
        return False
    with closing(connect(path, "ro&immutable=1")) as connection:
        application, version = (_header(connection, name) for name in ("application_id", "user_version"))
    if application != APPLICATION:
        raise InputError(f"expected a store of studies, found another SQLite file, {path}; give another name")
    if version != VERSION:
        advice = "update rlm" if version > VERSION else "read it with the version of rlm that wrote it"
        raise InputError(
            f"expected a store of version {VERSION}, found version {version} in {path}; {advice}, or run the study "
            "again with another file as its db"
        )
    return True


def _header(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def reading(source: Path | str | sqlite3.Connection) -> Iterator[tuple[sqlite3.Connection, str]]:
    """
    Read a store as it is at one moment, also while a run is writing it.

    Parameters
    ----------
    source
        The file; or what this gave, to read more of the same moment.

    Yields
    ------
    sqlite3.Connection
        In a transaction; its schema and the list of its studies are verified.
    str
        The file.

    Raises
    ------
    InputError
        As `open_store`, or if what is read is damaged.
    """
    if isinstance(source, sqlite3.Connection):
        yield source, source.execute("PRAGMA database_list").fetchone()[2]
        return
    with explained(source), closing(open_store(source)) as connection, connection:
        connection.execute("BEGIN")
        verify(connection, source)
        yield connection, str(source)


def create(connection: sqlite3.Connection) -> None:
    """
    Make the tables of a store.

    Parameters
    ----------
    connection
        To an empty file, in a transaction.
    """
    for statement in STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO store VALUES ('')")
    _seal_store(connection)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")


def is_empty(connection: sqlite3.Connection) -> bool:
    """
    Whether a file has no tables yet.

    Parameters
    ----------
    connection
        To it, in a transaction.

    Returns
    -------
    bool
        Also where the program that was making them was killed.
    """
    return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def verify(connection: sqlite3.Connection, path: Path | str) -> None:
    """
    Check the schema, the list of studies, and that nothing belongs to no study.

    Parameters
    ----------
    connection
        In a transaction.
    path
        The file, for the message.

    Raises
    ------
    InputError
        If one of them is damaged.
    """
    if set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")) != _schema():
        raise _damaged(path, "the tables")
    if connection.execute("SELECT checksum FROM store").fetchall() != [(_of_store(connection),)]:
        raise _damaged(path, "the list of studies")
    for name in ("plans", "blocks"):
        if connection.execute(f"SELECT 1 FROM {name} WHERE study NOT IN (SELECT study FROM studies)").fetchone():
            raise _damaged(path, f"the {name}")
    known = {block for (block,) in connection.execute("SELECT block FROM blocks")}
    for name in (name for names in TABLES.values() for name in names):
        if not known.issuperset(block for (block,) in connection.execute(BLOCKS.format(name))):
            raise _damaged(path, f"the table {name}")


@cache
def _schema() -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in STATEMENTS:
            connection.execute(statement)
        return frozenset(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def read_numbers(connection: sqlite3.Connection) -> list[int]:
    """
    Which studies a store has.

    Parameters
    ----------
    connection
        From `reading`.

    Returns
    -------
    list of int
        Their numbers.
    """
    return [number for (number,) in connection.execute("SELECT study FROM studies ORDER BY study")]


def read_record(connection: sqlite3.Connection, path: Path | str, study: int) -> Record:
    """
    Read and verify what a store holds of a study, but for the rows of its blocks.

    Parameters
    ----------
    connection
        From `reading`.
    path
        The file, for the message.
    study
        Its number, which there is.

    Returns
    -------
    Record
        As it was written.

    Raises
    ------
    InputError
        If anything of it is damaged.
    """
    row, plans, blocks = _rows_of_study(connection, study)
    if digest([row[:-1], plans, blocks]) != row[-1]:
        raise _damaged(path, f"settings, plans and blocks of study {study}")
    return Record(
        Study(*row),
        [Plan(*one[:3], json.loads(one[3]), json.loads(one[4]), *one[5:]) for one in plans],
        [StoredBlock(*one[:5], *map(json.loads, one[5:])) for one in blocks],
    )


def _rows_of_study(connection: sqlite3.Connection, study: int) -> tuple[tuple[Any, ...], list[Any], list[Any]]:
    (row,) = connection.execute("SELECT * FROM studies WHERE study = ?", (study,))
    plans, blocks = (
        connection.execute(f"SELECT * FROM {name} WHERE study = ? ORDER BY 1", (study,)).fetchall()
        for name in ("plans", "blocks")
    )
    return row, plans, blocks


def seal(connection: sqlite3.Connection, study: int) -> None:
    """
    Renew the checksums of a study and of the store, after rows of the study were added or dropped.

    Parameters
    ----------
    connection
        In the transaction that did.
    study
        Its number.
    """
    row, plans, blocks = _rows_of_study(connection, study)
    found = digest([row[:-1], plans, blocks])
    connection.execute("UPDATE studies SET checksum = ? WHERE study = ?", (found, study))
    _seal_store(connection)


def _seal_store(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE store SET checksum = ?", (_of_store(connection),))


def _of_store(connection: sqlite3.Connection) -> str:
    return digest(connection.execute("SELECT study, checksum FROM studies ORDER BY study").fetchall())


def digest(rows: Iterable[Any]) -> str:
    """
    Checksum of rows as SQLite gives them.

    Parameters
    ----------
    rows
        Of None, numbers and texts. JSON tells all of them apart, and numbers to the last bit.

    Returns
    -------
    str
        SHA-256.
    """
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def digest_block(connection: sqlite3.Connection, block: int, kind: type) -> dict[str, str]:
    """
    Checksums of the rows of a block.

    Parameters
    ----------
    connection
        In the transaction that wrote them.
    block
        Its number.
    kind
        Of its result.

    Returns
    -------
    dict
        By table.
    """
    asked = "SELECT * FROM {} WHERE block = ? ORDER BY {}"
    return {
        name: digest(connection.execute(asked.format(name, _key(connection, name)), (block,)).fetchall())
        for name in TABLES[kind]
    }


def find_damaged(connection: sqlite3.Connection, record: Record) -> list[StoredBlock]:
    """
    The blocks of a study whose rows are not those that were written.

    Parameters
    ----------
    connection
        In a transaction.
    record
        Of the study.

    Returns
    -------
    list of StoredBlock
        None, as a rule.
    """
    damaged: dict[int, StoredBlock] = {}
    for name in TABLES[record.kind]:
        damaged |= {block.block: block for block in _read_table(connection, record, name)[1]}
    return list(damaged.values())


def _read_table(
    connection: sqlite3.Connection, record: Record, name: str
) -> tuple[list[tuple[Any, ...]], list[StoredBlock]]:
    """The rows of a study, and the blocks of which they are not those that were written."""
    found = connection.execute(
        f"SELECT * FROM {name} WHERE block IN (SELECT block FROM blocks WHERE study = ?) "
        f"ORDER BY {_key(connection, name)}",
        (record.study.study,),
    ).fetchall()
    by_block = {block: list(rows) for block, rows in groupby(found, key=lambda row: row[0])}
    damaged = [one for one in record.blocks if digest(by_block.get(one.block, [])) != one.checksums.get(name)]
    return found, damaged


def _key(connection: sqlite3.Connection, name: str) -> str:
    asked = f"SELECT name FROM pragma_table_info('{name}') WHERE pk > 0 ORDER BY pk"
    return ", ".join(column for (column,) in connection.execute(asked))


def read_table(connection: sqlite3.Connection, path: Path | str, record: Record, name: str) -> pd.DataFrame:
    """
    Read and verify one table of what is finished of a study.

    Parameters
    ----------
    connection
        From `reading`.
    path
        The file, for the message.
    record
        Of the study.
    name
        Of the table.

    Returns
    -------
    pandas.DataFrame
        In no particular order; empty at first.

    Raises
    ------
    InputError
        If a block is damaged.
    """
    rows, damaged = _read_table(connection, record, name)
    if damaged:
        raise InputError(
            f"expected {damaged[0]} of {path} as it was written, found other values in the table {name}: the file is "
            "damaged; restore it from a copy, or run the study again with this file as its db, which trains these "
            "seeds anew"
        )
    columns = connection.execute(f"SELECT name, type FROM pragma_table_info('{name}')").fetchall()
    table = pd.DataFrame(rows, columns=[column for column, _ in columns])
    return table.astype({column: float for column, kind in columns if kind == "REAL"}).drop(columns="block")


def read_finished(connection: sqlite3.Connection, path: Path | str, record: Record, kind: type[R]) -> R:
    """
    Read and verify everything that is finished of a study.

    Parameters
    ----------
    connection, path, record
        As of `read_table`.
    kind
        Of its results: `BlockResult` or `LabelsResult`.

    Returns
    -------
    BlockResult or LabelsResult
        In no particular order; its tables are empty at first.

    Raises
    ------
    InputError
        If a block is damaged.
    """
    results, *others = (read_table(connection, path, record, name) for name in TABLES[kind])
    return kind(results[COLUMNS[kind]], *others)


def _damaged(path: Path | str, what: str) -> InputError:
    return InputError(
        f"expected {what} of {path} as written, found something else: the file is damaged; restore it from a copy, or "
        "run the study again with another file as its db"
    )


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """
    Turn the errors of SQLite, and of files, into words.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        In place of another error, with advice.
    """
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        found = f"{path}: {error.strerror}"
        raise InputError(f"expected a file that can be written, found {found}; give another") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        advice = next((text for part, text in ADVICE.items() if part in name), ADVICE["CORRUPT"])
        raise InputError(f"expected a store of studies that can be used, found {path}: {error}; {advice}") from error
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:  # of values that nobody wrote
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"expected a store of studies that can be read, found {path}: {found}; {ADVICE['CORRUPT']}"
        ) from error
