"""What a store holds: its studies, what is finished of them, and how far the last one is."""

import json
import sqlite3
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from rlm.config import Plan, StudyConfig
from rlm.database import R, connect, explained, finished_of, migrate, open_store
from rlm.errors import InputError
from rlm.labels_config import LabelsConfig
from rlm.labels_task import LabelsResult
from rlm.task import BlockResult, join

C = TypeVar("C", StudyConfig, LabelsConfig)
SPELLED = {"labels": "random labels", "triplets": "triplets"}


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
        Whether somebody watched its results arrive, seeds were added after a look, it was to stop by what it shows, or
        it is not finished: a verdict on it takes the confidence sequence, see `rlm.compare`.
    """

    config: StudyConfig
    encoder: str
    finished: BlockResult
    is_watched: bool


def list_studies(path: Path | str) -> pd.DataFrame:
    """
    The studies of triplets in a store.

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
    with closing(open_store(path)) as connection:
        rows = connection.execute(
            """
            SELECT studies.study, config ->> 'dataset', coalesce(encoder, config ->> 'encoder'), config ->> 'loss',
                (SELECT group_concat(arm, ', ')
                    FROM (SELECT DISTINCT arm FROM results WHERE results.study = studies.study)),
                (SELECT count(DISTINCT seed) FROM results WHERE results.study = studies.study),
                (SELECT max(finished) FROM blocks WHERE blocks.study = studies.study)
            FROM studies WHERE task = 'triplets' ORDER BY studies.study
            """
        ).fetchall()
    columns = ["study", "dataset", "encoder", "loss", "arms", "seeds", "finished"]
    listed = pd.DataFrame(rows, columns=columns).set_index("study")
    # Of an encoder of one's own the store has the source.
    name = listed["encoder"].str.extract(r"(?:class|def) (\w+)", expand=False)
    return listed.assign(encoder=name.fillna(listed["encoder"].str.split("\n").str[0]))


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
    number = int(known.index[0]) if study is None and len(known) == 1 else study
    with closing(open_store(path)) as connection:
        if number not in known.index:
            listed = known[["dataset", "encoder", "loss", "arms", "seeds"]].to_string()
            listed = f"\n{listed}" if len(known) else " " + _others(connection, "labels", "rlm.read_labels")
            raise InputError(f"expected --study, the number of one study of {path}, found {study}; there are:{listed}")
        config, finished, is_watched = _read(connection, path, number, StudyConfig, BlockResult)
    return StoredStudy(config, str(known.loc[number, "encoder"]), finished, is_watched)


class StoredLabels(NamedTuple):
    """
    One study of random labels of a store.

    Attributes
    ----------
    config
        Of the study, with the arms that it has.
    finished
        Everything that is finished, in the order of the arms.
    is_watched
        As of `StoredStudy`; see ``watched`` of `rlm.tabulate_effects`.
    """

    config: LabelsConfig
    finished: LabelsResult
    is_watched: bool


def read_labels(path: Path | str, study: int | None = None) -> StoredLabels:
    """
    Read one study of random labels from a store, also while a run is writing it.

    Parameters
    ----------
    path
        The file.
    study
        Its number; the one that was added last by default.

    Returns
    -------
    StoredLabels
        Config and everything finished.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or nothing of such a study is finished.
    """
    with closing(open_store(path)) as connection:
        known = _numbers(connection, "labels")
        number = known[-1] if known and study is None else study
        if number not in known:
            listed = ", ".join(map(str, known)) or _others(connection, "triplets", "rlm.read_study")
            raise InputError(f"expected the number of a study of random labels, found {study}; {path} has: {listed}")
        config, finished, is_watched = _read(connection, path, number, LabelsConfig, LabelsResult)
    return StoredLabels(config, join([finished], config.arms), is_watched)


class Progress(NamedTuple):
    """
    How far a study is.

    Attributes
    ----------
    start
        Which time of all that a study of this store was started.
    study
        Its number.
    config
        Its settings, with the arms that were last asked for.
    plan
        What was last asked for.
    arms
        One row per arm: planned and finished (runs), and seconds (a run's mean so far, missing before the first).
    """

    start: int
    study: int
    config: StudyConfig
    plan: Plan
    arms: pd.DataFrame

    @property
    def is_complete(self) -> bool:
        """Whether all runs that were asked for are finished."""
        return bool((self.arms["finished"] >= self.arms["planned"]).all())


def read_progress(path: Path | str, study: int | None = None) -> Progress | None:
    """
    Say how far a study is; fast enough to be asked several times a second.

    Parameters
    ----------
    path
        The store.
    study
        Its number; the one that was started last by default.

    Returns
    -------
    Progress or None
        Of what was last asked for; None where there is no file, or no such study has been started.

    Raises
    ------
    InputError
        If the file is no store that can be used.
    """
    path = Path(path)
    if not path.is_file():
        return None
    with explained(path), closing(connect(path, "rw")) as connection:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            return None
        migrate(connection)
        asked = """
            SELECT plans.rowid, study, arms, seeds, until FROM plans NATURAL JOIN studies
            WHERE study = coalesce(?, study) AND task = 'triplets' ORDER BY plans.rowid DESC LIMIT 1
            """
        row = connection.execute(asked, (study,)).fetchone()
        if row is None:
            return None
        start, number, arms, seeds, until = *row[:2], *map(json.loads, row[2:4]), row[4]
        (settings,) = connection.execute("SELECT config FROM studies WHERE study = ?", (number,)).fetchone()
        found = pd.read_sql_query(
            "SELECT arm, seed, seconds FROM results WHERE study = ?", connection, params=(number,)
        )
    mine = found[found["seed"].isin(seeds)].groupby("arm")["seconds"].agg(finished="size", seconds="mean")
    table = mine.reindex(arms).fillna({"finished": 0}).astype({"finished": int}).assign(planned=len(seeds))
    config = StudyConfig.model_validate({**json.loads(settings), "arms": arms})
    table = table[["planned", "finished", "seconds"]]
    return Progress(start, number, config, Plan(seeds=len(seeds), until=until), table)


def read_origin(path: Path | str, study: int) -> dict[str, str]:
    """
    Say where the numbers of a study come from.

    Parameters
    ----------
    path
        The store.
    study
        Its number.

    Returns
    -------
    dict
        Hash of the data, seeds, versions, commit, device, time of training and dates, in words, by name.

    Raises
    ------
    InputError
        As `read_study`.
    """
    with closing(open_store(path)) as connection:
        asked = "SELECT dataset_hash, versions FROM studies WHERE study = ?"
        data, versions = connection.execute(asked, (study,)).fetchone()
        asked = "SELECT DISTINCT {} FROM blocks WHERE study = ? AND {} IS NOT NULL"
        commits, devices = (
            [value for (value,) in connection.execute(asked.format(name, name), (study,))]
            for name in ("git_commit", "device")
        )
        started, finished = (
            connection.execute(f"SELECT {what} WHERE study = ?", (study,)).fetchone()[0]
            for what in ("min(started) FROM plans", "max(finished) FROM blocks")
        )
        asked = "SELECT count(DISTINCT seed), count(*), sum(seconds) FROM results WHERE study = ?"
        seeds, runs, seconds = connection.execute(asked, (study,)).fetchone()
    return {
        "data, SHA-256": data,
        "seeds": f"{seeds}, in {runs} runs",
        "versions": ", ".join(f"{name} {version}" for name, version in json.loads(versions).items()),
        "commit": ", ".join(commits) or "of an installed package",
        "device": ", ".join(devices),
        "training": f"{seconds / 60:.1f} minutes of all runs together",
        "date": f"{started[:16]} to {finished[:16]} UTC".replace("T", " "),
    }


class Asked(NamedTuple):
    """
    What a study was asked for, beside its config.

    Attributes
    ----------
    seeds
        Those last asked for, as they were listed.
    data
        Hash of the data, see `Corpus.fingerprint`.
    source
        Source of an encoder of one's own.
    """

    seeds: list[int]
    data: str
    source: str | None


def read_asked(path: Path | str, study: int) -> Asked:
    """
    Say what a study was asked for.

    Parameters
    ----------
    path, study
        The store, and the study's number there.

    Returns
    -------
    Asked
        Seeds, data and encoder.

    Raises
    ------
    InputError
        If there is no such file, or it is no store.
    """
    with closing(open_store(path)) as connection:
        asked = "SELECT seeds, dataset_hash, encoder FROM plans NATURAL JOIN studies WHERE study = ?"
        row = connection.execute(f"{asked} ORDER BY plans.rowid DESC LIMIT 1", (study,)).fetchone()
    return Asked(json.loads(row[0]), *row[1:])


def _numbers(connection: sqlite3.Connection, task: str) -> list[int]:
    asked = "SELECT study FROM studies WHERE task = ? ORDER BY study"
    return [number for (number,) in connection.execute(asked, (task,))]


def _others(connection: sqlite3.Connection, task: str, reader: str) -> str:
    """What to say where there is no study of the kind that was asked for."""
    return f"none; {reader} reads its studies of {SPELLED[task]}" if _numbers(connection, task) else "none"


def _read(
    connection: sqlite3.Connection, path: Path | str, study: int, config_kind: type[C], result_kind: type[R]
) -> tuple[C, R, bool]:
    """Its config with the arms that have results, those last asked for first; results; whether it is watched."""
    finished = finished_of(connection, study, result_kind)
    if finished.results.empty:
        raise InputError(f"expected a study with a finished block of seeds, found none in {path}; let it run longer")
    (settings,) = connection.execute("SELECT config FROM studies WHERE study = ?", (study,)).fetchone()
    asked = "SELECT arms, seeds, until, watched FROM plans WHERE study = ? ORDER BY rowid"
    plans = connection.execute(asked, (study,)).fetchall()
    wanted_arms, wanted_seeds = map(json.loads, plans[-1][:2])
    found = set(zip(finished.results["arm"], finished.results["seed"], strict=True))
    has_all = found.issuperset(product(wanted_arms, wanted_seeds))
    is_extended = len({seeds for _, seeds, *_ in plans}) > 1
    is_watched = is_extended or not has_all or any(until is not None or watched for *_, until, watched in plans)
    known = {arm for arm, _ in found}
    arms = tuple(arm for arm in dict.fromkeys([*wanted_arms, *finished.results["arm"]]) if arm in known)
    return config_kind.model_validate_json(settings).model_copy(update={"arms": arms}), finished, is_watched
