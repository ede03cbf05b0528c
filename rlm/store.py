"""The store: studies in one SQLite file, every finished block of seeds in one transaction."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from rlm.database import TABLES, R, connect, explained, finished_of, prepare
from rlm.errors import InputError
from rlm.identity import Identity
from rlm.labels_task import LabelsResult
from rlm.provenance import commit, versions
from rlm.task import BlockResult


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
    kind
        Of its results.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, study: int, kind: type[R]) -> None:
        self.path = path
        self.connection = connection
        self.study = study
        self.kind = kind

    def plan(self, arms: Sequence[str], seeds: Sequence[int], until: float | None, watched: bool) -> None:
        """
        Note what is going to be run.

        Parameters
        ----------
        arms, seeds, until, watched
            As in `rlm.run_study`.
        """
        row = self.study, _now(), json.dumps(arms), json.dumps(seeds), until, watched
        with self.connection:
            self.connection.execute("INSERT INTO plans VALUES (?, ?, ?, ?, ?, ?)", row)

    def finished(self) -> BlockResult | LabelsResult:
        """
        What is finished already.

        Returns
        -------
        BlockResult or LabelsResult
            All of the study; its tables are empty at first.
        """
        return finished_of(self.connection, self.study, self.kind)

    def save(self, block: BlockResult | LabelsResult, device: str) -> None:
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
        with explained(self.path), self.connection:
            row = self.study, _now(), commit(), device
            added = self.connection.execute(
                "INSERT INTO blocks (study, finished, git_commit, device) VALUES (?, ?, ?, ?)", row
            ).lastrowid
            first, *others = TABLES[self.kind]
            _insert(self.connection, first, block.results.assign(study=self.study, block=added))
            for name, table in zip(others, block[1:], strict=True):
                _insert(self.connection, name, table.assign(study=self.study))


@contextmanager
def writing(path: Path | str, identity: Identity, kind: type[R]) -> Iterator[Writer]:
    """
    Open a store to write one study, which goes on where it ended.

    Parameters
    ----------
    path
        The file; made if it is not there. Beside it stands a ``.lock`` file of the run that writes.
    identity
        Of the study. Another config but for its arms, other data, another encoder or another version of rlm or
        PyTorch make another study.
    kind
        Of its results: `BlockResult` or `LabelsResult`.

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
        with lock, closing(connect(path)) as connection:
            with explained(path):
                prepare(connection, path)
                study = _find_or_add(connection, identity)
            yield Writer(path, connection, study, kind)
    except Timeout as error:
        raise InputError(f"another run is writing {path}; wait until it ends, or give this one another file") from error
    except PermissionError as error:
        raise InputError(
            f"expected a file that can be written, found {path}: {error.strerror}; give another"
        ) from error


def _find_or_add(connection: sqlite3.Connection, identity: Identity) -> int:
    columns = "key, task, config, dataset_hash, encoder, versions"
    row = *identity, json.dumps(versions())
    with connection:
        connection.execute(f"INSERT OR IGNORE INTO studies ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)
    return int(connection.execute("SELECT study FROM studies WHERE key = ?", (identity.key,)).fetchone()[0])


def _insert(connection: sqlite3.Connection, name: str, table: pd.DataFrame) -> None:
    rows = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
    marks = ", ".join("?" * table.shape[1])
    connection.executemany(f"INSERT INTO {name} ({', '.join(table)}) VALUES ({marks})", rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
