"""Edit a store: the names of its studies, their deletion, and studies from another store."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from rlm.errors import InputError
from rlm.store.file import damaged, explained, open_store
from rlm.store.read import find_study
from rlm.store.schema import (
    Record,
    StoredBlock,
    add_study,
    digest_block,
    find_damaged,
    list_tables,
    read_numbers,
    read_record,
    reading,
    seal,
    seal_store,
)
from rlm.store.write import alone, changing

LONGEST = 10_000  # characters


def name_study(path: Path | str, study: int, about: Mapping[str, str]) -> None:
    """Set name, note or tags of a study, also while a run is writing it."""
    if any(len(text) > LONGEST or "\0" in text for text in about.values()):
        raise InputError(f"expected texts of at most {LONGEST:,} characters, found a longer one; shorten it")
    about = about | {"tags": write_tags(about["tags"])} if "tags" in about else about
    with explained(path), closing(open_store(path)) as connection, changing(connection, Path(path)):
        find_study(connection, str(path), None, study)
        for name, text in about.items():
            connection.execute(f"UPDATE studies SET {name} = ? WHERE study = ?", (text.strip(), study))
        seal(connection, study)


def write_tags(text: str) -> str:
    """Write tags that commas separate in alphabetical order, each once."""
    return ", ".join(sorted({tag.strip() for tag in text.split(",")} - {""}))


def delete_study(path: Path | str, study: int) -> None:
    """Delete a study, which no run may be writing, and give its room back to the disk."""
    open_store(path).close()  # raises if there is none
    with alone(path) as (file, connection), explained(path):
        with changing(connection, file):
            record = find_study(connection, str(path), None, study)
            for name in (*list_tables(connection, record.study.task), "blocks"):
                for block in record.blocks:
                    connection.execute(f"DELETE FROM {name} WHERE block = ?", (block.block,))
            for name in ("plans", "studies"):
                connection.execute(f"DELETE FROM {name} WHERE study = ?", (study,))
            seal_store(connection)
        connection.execute("VACUUM")


def merge_store(path: Path | str, source: Path | str, only: int | None = None) -> dict[int, int]:
    """
    Add the studies of another store, or one of them, to a store, made if it does not exist.

    Runs that both have stay as they are. Returns the number of runs that were added, by the study's number here.
    """
    if Path(path).resolve() == Path(source).resolve():
        raise InputError(f"expected two stores to merge, found {path} twice; name another")
    added: dict[int, int] = {}
    with (
        reading(source) as (other, name),
        alone(path) as (file, connection),
        explained(path),
        changing(connection, file),
    ):
        for number in read_numbers(other) if only is None else [only]:
            record = find_study(other, name, None, number)
            if found := find_damaged(other, record):
                raise damaged(source, str(found[0]))
            mine = _find_or_add(connection, file, record)
            before = read_record(connection, file, mine)
            _add_tables(connection, other, record.study.task, path, source)
            added[mine] = sum(_add_block(connection, other, before, block) for block in record.blocks)
            seal(connection, mine)
    return added


def _find_or_add(connection: sqlite3.Connection, file: Path, record: Record) -> int:
    """Return the number of a study in this store, with what it was asked for there, and its name if it has none."""
    study = record.study
    found = connection.execute("SELECT study FROM studies WHERE key = ?", (study.key,)).fetchone()
    number = found[0] if found else add_study(connection, *study[1:7])
    mine = read_record(connection, file, number)
    known = [plan[2:] for plan in mine.plans]
    for plan in record.plans:
        if plan[2:] not in known:
            row = number, plan.started, *map(json.dumps, (plan.arms, plan.seeds, plan.rules._asdict()))
            connection.execute("INSERT INTO plans (study, started, arms, seeds, rules) VALUES (?, ?, ?, ?, ?)", row)
    for name, text in study.about.items():
        connection.execute(f"UPDATE studies SET {name} = ? WHERE study = ? AND {name} = ''", (text, number))
    seal(connection, number)
    return number


def _add_tables(
    connection: sqlite3.Connection, other: sqlite3.Connection, task: str, path: Path | str, source: Path | str
) -> None:
    """Make the tables of an experiment as another store has them, unless they exist."""
    for name in list_tables(other, task):
        asked = "SELECT sql FROM sqlite_master WHERE name = ?"
        (theirs,), mine = other.execute(asked, (name,)).fetchone(), connection.execute(asked, (name,)).fetchone()
        if mine is None:
            connection.execute(theirs)
        elif mine[0] != theirs:
            raise InputError(
                f"expected stores of one version of rlm, found different columns of {name} in {path} and {source}; "
                "merge them with the version of rlm that wrote both"
            )


def _add_block(connection: sqlite3.Connection, other: sqlite3.Connection, mine: Record, block: StoredBlock) -> int:
    """Add the runs of a block that a study lacks; return their number. Arms that lack the same seeds stay together."""
    lacking = {arm: [seed for seed in block.seeds if (arm, seed) not in mine.runs] for arm in block.arms}
    for seeds in {tuple(seeds): seeds for seeds in lacking.values() if seeds}.values():
        arms = [arm for arm in block.arms if lacking[arm] == seeds]
        (number,) = connection.execute("SELECT coalesce(max(block), 0) + 1 FROM blocks").fetchone()
        for name in list_tables(other, mine.study.task):
            found = other.execute(f"SELECT * FROM {name} WHERE block = ?", (block.block,))
            columns = [column for column, *_ in found.description]
            arm, seed = columns.index("arm"), columns.index("seed")
            rows = [(number, *row[1:]) for row in found if row[arm] in arms and row[seed] in seeds]
            connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)
        about = block.finished, block.git_commit, block.device
        row = number, mine.study.study, *about, *map(json.dumps, (arms, seeds))
        checksums = json.dumps(digest_block(connection, number, mine.study.task))
        connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, checksums))
    return sum(map(len, lacking.values()))
