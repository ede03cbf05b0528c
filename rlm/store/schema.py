"""
The tables of a store, and the checksums of all that it holds.

The checksum of a block's rows, table by table, is in `blocks`. The checksum of a study covers its row, its plans and
its blocks; that of the store covers the schema and the checksums of all studies. So whatever is read can be verified,
and nothing else has to be. The tables of an experiment are made when its first study is written, see `Result.TABLES`.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rlm.errors import InputError
from rlm.runtime.results import Rules, Table
from rlm.store.file import APPLICATION, VERSION, damaged, explained, open_store

CORE = """
    CREATE TABLE store (checksum TEXT NOT NULL) STRICT;
    CREATE TABLE studies (
        study INTEGER PRIMARY KEY, key TEXT NOT NULL, task TEXT NOT NULL, config TEXT NOT NULL,
        dataset_hash TEXT NOT NULL, encoder TEXT, versions TEXT NOT NULL, name TEXT NOT NULL, note TEXT NOT NULL,
        tags TEXT NOT NULL, checksum TEXT NOT NULL
    ) STRICT;
    CREATE TABLE plans (
        plan INTEGER PRIMARY KEY, study INTEGER NOT NULL, started TEXT NOT NULL, arms TEXT NOT NULL,
        seeds TEXT NOT NULL, rules TEXT NOT NULL
    ) STRICT;
    CREATE TABLE blocks (
        block INTEGER PRIMARY KEY, study INTEGER NOT NULL, finished TEXT NOT NULL, git_commit TEXT,
        device TEXT NOT NULL, arms TEXT NOT NULL, seeds TEXT NOT NULL, checksums TEXT NOT NULL
    ) STRICT;
"""
TYPES = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL", bytes: "BLOB NOT NULL"}
# The blocks that a table has rows of, found by as many steps down its tree as there are.
BLOCKS = """
    WITH RECURSIVE found(block) AS (
        SELECT min(block) FROM {0} UNION ALL SELECT (SELECT min(block) FROM {0} WHERE block > found.block) FROM found
        WHERE block IS NOT NULL
    ) SELECT block FROM found WHERE block IS NOT NULL
"""


class Study(NamedTuple):
    """A row of `studies`; the user changes name, note and tags, and nothing else."""

    study: int
    key: str
    task: str
    config: str
    dataset_hash: str
    encoder: str | None
    versions: str
    name: str
    note: str
    tags: str
    checksum: str

    @property
    def about(self) -> dict[str, str]:
        """Name, note and tags."""
        return {"name": self.name, "note": self.note, "tags": self.tags}


class Plan(NamedTuple):
    """A row of `plans`, with arms, seeds and rules as they were asked for."""

    plan: int
    study: int
    started: str
    arms: list[str]
    seeds: list[int]
    rules: Rules


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
        """Return its number, arms and seeds."""
        return f"block {self.block} of study {self.study} ({', '.join(self.arms)}; seeds {format_seeds(self.seeds)})"


class Record(NamedTuple):
    """All that a store holds of a study, except the rows of its blocks."""

    study: Study
    plans: list[Plan]
    blocks: list[StoredBlock]

    @property
    def runs(self) -> set[tuple[str, int]]:
        """Arm and seed of each finished run."""
        return {(arm, seed) for block in self.blocks for arm in block.arms for seed in block.seeds}


def format_seeds(seeds: Sequence[int]) -> str:
    """Format ascending seeds, consecutive ones as a range: ``"0-11, 20"``."""
    ranges: list[list[int]] = []
    for seed in seeds:
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1][1:] = [seed]
        else:
            ranges.append([seed])
    return ", ".join("-".join(map(str, one)) for one in ranges)


@contextmanager
def reading(source: Path | str | sqlite3.Connection) -> Iterator[tuple[sqlite3.Connection, str]]:
    """
    Read a store as it is at one moment, also while a run is writing it.

    The source is the file, or the connection that this context gave, to read more of the same moment. Yields the
    connection, in a transaction, with the schema and the list of studies verified; and the name of the file.
    """
    if isinstance(source, sqlite3.Connection):
        yield source, source.execute("PRAGMA database_list").fetchone()[2]
        return
    with explained(source), closing(open_store(source)) as connection, connection:
        connection.execute("BEGIN")
        verify(connection, source)
        yield connection, str(source)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables that every store has; the file is empty, and a transaction is open."""
    for statement in filter(None, map(str.strip, CORE.split(";"))):
        connection.execute(statement)
    connection.execute("INSERT INTO store VALUES ('')")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    seal_store(connection)


def create_tables(connection: sqlite3.Connection, kind: type) -> None:
    """Make the tables of an experiment, unless they exist."""
    for name, table in kind.TABLES.items():
        if table_name(kind.TASK, name) not in list_tables(connection, kind.TASK):
            connection.execute(_statement(table_name(kind.TASK, name), table))
    seal_store(connection)


def _statement(name: str, table: Table) -> str:
    columns = ", ".join(f"{column} {TYPES[kind]}" for column, kind in {**table.keys, **table.values}.items())
    return (
        f"CREATE TABLE {name} (block INTEGER NOT NULL, {columns}, PRIMARY KEY (block, {', '.join(table.keys)})) "
        "STRICT, WITHOUT ROWID"
    )


def table_name(task: str, name: str) -> str:
    """Return the name in the store of a table of an experiment."""
    return f"{task}_{name}"


def list_tables(connection: sqlite3.Connection, task: str = "") -> list[str]:
    """List the tables of an experiment in the order of its result, or those of all experiments."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    return [name for (name,) in found if "_" in name and name.startswith(f"{task}_" if task else "")]


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether a file has no tables, also where the program that was making them was killed."""
    return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def verify(connection: sqlite3.Connection, path: Path | str) -> None:
    """Check the schema and the list of studies, and that every plan, block and row belongs to one of them."""
    if connection.execute("SELECT checksum FROM store").fetchall() != [(_digest_store(connection),)]:
        raise damaged(path, "the tables or the list of studies")
    for name in ("plans", "blocks"):
        if connection.execute(f"SELECT 1 FROM {name} WHERE study NOT IN (SELECT study FROM studies)").fetchone():
            raise damaged(path, f"the {name}")
    known = {block for (block,) in connection.execute("SELECT block FROM blocks")}
    for name in list_tables(connection):
        if not known.issuperset(block for (block,) in connection.execute(BLOCKS.format(name))):
            raise damaged(path, f"the table {name}")


def read_numbers(connection: sqlite3.Connection) -> list[int]:
    """Return the numbers of all studies."""
    return [number for (number,) in connection.execute("SELECT study FROM studies ORDER BY study")]


def read_record(connection: sqlite3.Connection, path: Path | str, study: int) -> Record:
    """Read and verify what a store holds of an existing study, except the rows of its blocks."""
    row, plans, blocks = _rows_of_study(connection, study)
    if digest([row[:-1], plans, blocks]) != row[-1]:
        raise damaged(path, f"settings, plans and blocks of study {study}")
    return Record(
        Study(*row),
        [Plan(*one[:3], *map(json.loads, one[3:5]), _rules(one[5])) for one in plans],
        [StoredBlock(*one[:5], *map(json.loads, one[5:])) for one in blocks],
    )


def _rules(text: str) -> Rules:
    given = json.loads(text)
    return Rules(**given | {"looks": given["looks"] and tuple(given["looks"])})


def _rows_of_study(connection: sqlite3.Connection, study: int) -> tuple[tuple[Any, ...], list[Any], list[Any]]:
    (row,) = connection.execute("SELECT * FROM studies WHERE study = ?", (study,))
    plans, blocks = (
        connection.execute(f"SELECT * FROM {name} WHERE study = ? ORDER BY 1", (study,)).fetchall()
        for name in ("plans", "blocks")
    )
    return row, plans, blocks


def add_study(connection: sqlite3.Connection, *row: str | None) -> int:
    """Add a study that the user has not named, with these columns from its key on; return its number."""
    columns = ", ".join(Study._fields[1:])
    given = f"INSERT INTO studies ({columns}) VALUES (?, ?, ?, ?, ?, ?, '', '', '', '')"
    number = int(connection.execute(given, row).lastrowid or 0)
    seal(connection, number)
    return number


def seal(connection: sqlite3.Connection, study: int) -> None:
    """Renew the checksums of a study and of the store, in the transaction that changed the study."""
    row, plans, blocks = _rows_of_study(connection, study)
    found = digest([row[:-1], plans, blocks])
    connection.execute("UPDATE studies SET checksum = ? WHERE study = ?", (found, study))
    seal_store(connection)


def seal_store(connection: sqlite3.Connection) -> None:
    """Renew the checksum of the store."""
    connection.execute("UPDATE store SET checksum = ?", (_digest_store(connection),))


def _digest_store(connection: sqlite3.Connection) -> str:
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    return digest([schema, connection.execute("SELECT study, checksum FROM studies ORDER BY study").fetchall()])


def digest(rows: Iterable[Any]) -> str:
    """Return the SHA-256 of rows as SQLite gives them; JSON keeps None, texts, numbers and bytes apart."""
    return hashlib.sha256(json.dumps(rows, default=_list_bytes).encode()).hexdigest()


def _list_bytes(value: bytes) -> list[int]:
    """Spell bytes as no other value of a table is spelt."""
    return list(value)


def digest_block(connection: sqlite3.Connection, block: int, task: str) -> dict[str, str]:
    """Return the checksums of the rows of a block, by table."""
    asked = "SELECT * FROM {} WHERE block = ? ORDER BY {}"
    return {
        name: digest(connection.execute(asked.format(name, _key(connection, name)), (block,)).fetchall())
        for name in list_tables(connection, task)
    }


def find_damaged(connection: sqlite3.Connection, record: Record) -> list[StoredBlock]:
    """Return the blocks of a study whose rows are not those that were written."""
    damaged: dict[int, StoredBlock] = {}
    for name in list_tables(connection, record.study.task):
        damaged |= {block.block: block for block in _read_rows(connection, record, name)[1]}
    return list(damaged.values())


def _read_rows(
    connection: sqlite3.Connection, record: Record, name: str
) -> tuple[list[tuple[Any, ...]], list[StoredBlock]]:
    """Return the rows of a study in a table, and the blocks whose rows are not those that were written."""
    found = connection.execute(
        f"SELECT * FROM {name} WHERE block IN (SELECT block FROM blocks WHERE study = ?) "
        f"ORDER BY {_key(connection, name)}",
        (record.study.study,),
    ).fetchall()
    by_block = {block: list(rows) for block, rows in groupby(found, key=lambda row: row[0])}
    changed = [one for one in record.blocks if digest(by_block.get(one.block, [])) != one.checksums.get(name)]
    return found, changed


def _key(connection: sqlite3.Connection, name: str) -> str:
    asked = f"SELECT name FROM pragma_table_info('{name}') WHERE pk > 0 ORDER BY pk"
    return ", ".join(column for (column,) in connection.execute(asked))


def read_table(connection: sqlite3.Connection, path: Path | str, record: Record, name: str) -> pd.DataFrame:
    """Read and verify one table of a study, such as ``"results"``; its rows are in no particular order."""
    name = table_name(record.study.task, name)
    rows, changed = _read_rows(connection, record, name)
    if changed:
        raise InputError(
            f"expected {changed[0]} of {path} as it was written, found other values in the table {name}: the file is "
            "damaged; restore it from a copy, or run the study again with this file as its db, which trains these "
            "seeds anew"
        )
    columns = connection.execute(f"SELECT name, type FROM pragma_table_info('{name}')").fetchall()
    table = pd.DataFrame(rows, columns=[column for column, _ in columns])
    return table.astype({column: float for column, kind in columns if kind == "REAL"}).drop(columns="block")


def read_tables(connection: sqlite3.Connection, path: Path | str, record: Record) -> dict[str, pd.DataFrame]:
    """Read and verify all tables of a study, by name, in the order of the experiment's result."""
    task = record.study.task
    names = [name.removeprefix(f"{task}_") for name in list_tables(connection, task)]
    return {name: read_table(connection, path, record, name) for name in names}
