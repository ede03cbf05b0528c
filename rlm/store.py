"""The store: studies in one SQLite file, every finished block of seeds in one transaction."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from torch import nn

from rlm.config import StudyConfig
from rlm.corpus import Corpus
from rlm.database import connect, explained, finished_of, prepare
from rlm.errors import InputError
from rlm.identity import identify
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
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, study: int) -> None:
        self.path = path
        self.connection = connection
        self.study = study

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

    def finished(self) -> BlockResult:
        """
        What is finished already.

        Returns
        -------
        BlockResult
            All of the study; its tables are empty at first.
        """
        return finished_of(self.connection, self.study)

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
        with explained(self.path), self.connection:
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
        with lock, closing(connect(path)) as connection:
            with explained(path):
                prepare(connection, path)
                study = _find_or_add(connection, config, corpus, make_encoder)
            yield Writer(path, connection, study)
    except Timeout as error:
        raise InputError(f"another run is writing {path}; wait until it ends, or give this one another file") from error
    except PermissionError as error:
        raise InputError(
            f"expected a file that can be written, found {path}: {error.strerror}; give another"
        ) from error


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


def _insert(connection: sqlite3.Connection, name: str, table: pd.DataFrame) -> None:
    rows = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
    marks = ", ".join("?" * table.shape[1])
    connection.executemany(f"INSERT INTO {name} ({', '.join(table)}) VALUES ({marks})", rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
