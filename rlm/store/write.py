"""Write studies to a store: every finished block of seeds in one transaction."""

import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from rlm.errors import InputError
from rlm.runtime.provenance import commit, versions
from rlm.runtime.results import Result, Rules
from rlm.store.file import check_file, connect, explained, has_store
from rlm.store.identity import Identity
from rlm.store.read import find_notes
from rlm.store.schema import (
    Record,
    add_study,
    create,
    create_tables,
    digest_block,
    find_damaged,
    is_empty,
    list_tables,
    read_numbers,
    read_record,
    read_tables,
    seal,
    table_name,
    verify,
)

log = logging.getLogger(__name__)


class Writer:
    """Write one study to a store; made by `writing`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, study: int, settings: str, kind: type) -> None:
        self.path = path
        self.connection = connection
        self.study = study
        self.settings = settings
        self.kind = kind

    def plan(self, arms: Sequence[str], seeds: Sequence[int], rules: Rules) -> None:
        """Note what is going to be run."""
        with self._changing():
            row = self.study, _now(), *map(json.dumps, (arms, seeds, rules._asdict()))
            columns = "study, started, arms, seeds, rules"
            self.connection.execute(f"INSERT INTO plans ({columns}) VALUES (?, ?, ?, ?, ?)", row)
            self.connection.execute("UPDATE studies SET config = ? WHERE study = ?", (self.settings, self.study))

    @property
    def notes(self) -> dict[str, Any]:
        """What a verdict reads, see `find_notes`, by all that was asked for so far."""
        return find_notes(self._record())

    def finished(self) -> Any:  # noqa: ANN401
        """Read everything that is finished of the study; the tables are empty at first."""
        with explained(self.path), self.connection:
            self.connection.execute("BEGIN")
            tables = read_tables(self.connection, self.path, self._record())
            return self.kind._make(tables[name] for name in self.kind.TABLES)

    def save(self, block: Result, device: str) -> None:
        """Add a finished block of arms and seeds that the study does not have, whole or not at all."""
        arms, seeds = (sorted(block.results[name].unique().tolist()) for name in ("arm", "seed"))
        with self._changing() as record:
            if record.runs.intersection((arm, seed) for arm in arms for seed in seeds):
                raise InputError(f"another run has trained the same seeds in {self.path}; run the study again")
            (number,) = self.connection.execute("SELECT coalesce(max(block), 0) + 1 FROM blocks").fetchone()
            for name, table in zip(self.kind.TABLES, block, strict=True):
                _insert(self.connection, table_name(self.kind.TASK, name), table.assign(block=number))
            checksums = digest_block(self.connection, number, self.kind.TASK)
            row = number, self.study, _now(), commit(), device, *map(json.dumps, (arms, seeds, checksums))
            self.connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def drop_damaged(self) -> None:
        """Drop the blocks whose rows are not those that were written, so that their seeds are trained anew."""
        with self._changing() as record:
            damaged = find_damaged(self.connection, record)
            if damaged and self.connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages are damaged")  # to delete from them could damage more
            for block in damaged:
                log.warning("%s of %s is damaged: it is dropped, and these seeds are trained anew", block, self.path)
                for name in ("blocks", *list_tables(self.connection, self.kind.TASK)):
                    self.connection.execute(f"DELETE FROM {name} WHERE block = ?", (block.block,))

    def _record(self) -> Record:
        return read_record(self.connection, self.path, self.study)

    @contextmanager
    def _changing(self) -> Iterator[Record]:
        """Change the study, whole or not at all, after verifying what it was."""
        with explained(self.path), self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self._record()
            seal(self.connection, self.study)


@contextmanager
def writing(path: Path | str, identity: Identity, kind: type) -> Iterator[Writer]:
    """
    Open a store, made if it does not exist, to write one study, which continues where it ended.

    While the store is written, a ``.lock`` file is beside it. Another identity is another study of the same store.
    """
    with alone(path) as (path, connection):
        with explained(path):
            study = _find_or_add(connection, path, identity, kind)
        writer = Writer(path, connection, study, identity.settings, kind)
        writer.drop_damaged()
        yield writer


@contextmanager
def alone(path: Path | str) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """Connect to a store, made if it does not exist, that no other run writes meanwhile."""
    path = check_file(path)
    with ExitStack() as opened:
        with explained(path):
            if path.exists():
                has_store(path)  # raises for any other file, and leaves it as it is
            path.touch()
            opened.enter_context(_locked(path))
            connection = opened.enter_context(closing(connect(path)))
            connection.execute("PRAGMA synchronous = EXTRA")  # a block that is finished survives a loss of power
        yield path, connection


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other runs from the file: by its name, links followed, and by its number on the disk."""
    found = path.stat()
    inode = f"rlm-{getattr(os, 'getuid', int)()}-{found.st_dev:x}-{found.st_ino:x}.lock"
    with ExitStack() as held:
        for name in (path.with_name(f"{path.name}.lock"), Path(tempfile.gettempdir()) / inode):
            try:
                held.enter_context(FileLock(name, timeout=0))
            except Timeout as error:
                raise InputError(
                    f"another run is writing {path}; wait until it ends, or give this one another file"
                ) from error
            held.callback(_remove, name)  # while it is still held
        yield


def _remove(name: Path) -> None:
    with suppress(OSError):
        name.unlink()


@contextmanager
def changing(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Change a store, made if the file is empty, whole or not at all, after verifying its list of studies."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if is_empty(connection):
            create(connection)
        verify(connection, path)
        yield


def _find_or_add(connection: sqlite3.Connection, path: Path, identity: Identity, kind: type) -> int:
    with changing(connection, path):
        create_tables(connection, kind)
        found = connection.execute("SELECT study FROM studies WHERE key = ?", (identity.key,)).fetchone()
        if found:
            return int(found[0])
        for number in read_numbers(connection):  # its key could be the one that is damaged
            read_record(connection, path, number)
        return add_study(connection, *identity, json.dumps(versions()))


def _insert(connection: sqlite3.Connection, name: str, table: pd.DataFrame) -> None:
    rows = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
    marks = ", ".join("?" * table.shape[1])
    connection.executemany(f"INSERT INTO {name} ({', '.join(table)}) VALUES ({marks})", rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
