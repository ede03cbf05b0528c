"""What a store holds: its studies, what is finished of them, and how far the last one is."""

import json
import re
import sqlite3
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd
from pydantic import ValidationError

from rlm.config import Plan, StudyConfig
from rlm.errors import InputError
from rlm.labels.config import LabelsConfig
from rlm.labels.task import LabelsResult
from rlm.store.schema import (
    R,
    Record,
    check_file,
    read_finished,
    read_numbers,
    read_record,
    read_table,
    reading,
    spell_seeds,
)
from rlm.task import BlockResult, join, mark

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
        Everything that is finished, see `BlockResult`, arms and seeds in no particular order. The tables have
        `is_watched` as their ``attrs["watched"]``.
    is_watched
        Whether somebody watched its results arrive, seeds or arms were added after a look, it was to stop by what it
        shows, or it is not finished: a verdict on it takes the confidence sequence, see `rlm.compare`.
    """

    config: StudyConfig
    encoder: str
    finished: BlockResult
    is_watched: bool


def is_watched(record: Record) -> bool:
    """
    Whether a study was watched, was to stop by what it shows, or was asked for more than once, for different runs.

    Parameters
    ----------
    record
        Of the study.

    Returns
    -------
    bool
        Whether a verdict takes the confidence sequence. That the study is not finished is not looked at.
    """
    wanted = {(frozenset(plan.arms), frozenset(plan.seeds)) for plan in record.plans}
    return len(wanted) > 1 or any(plan.until is not None or plan.watched for plan in record.plans)


def list_studies(path: Path | str | sqlite3.Connection) -> pd.DataFrame:
    """
    The studies of triplets in a store.

    Parameters
    ----------
    path
        The file, or what `rlm.store.schema.reading` gave.

    Returns
    -------
    pandas.DataFrame
        One row per study, indexed by its number: dataset, encoder, loss, arms and seeds finished, and when the last one
        was.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or damaged.
    """
    with reading(path) as (connection, name):
        return _list(_records(connection, name, "triplets"))


def _list(records: list[Record]) -> pd.DataFrame:
    rows = []
    for record in records:
        config = json.loads(record.study.config)
        arms = dict.fromkeys(arm for block in record.blocks for arm in block.arms)
        seeds = {seed for block in record.blocks for seed in block.seeds}
        finished = max((block.finished for block in record.blocks), default=None)
        about = config["dataset"], _encoder(record), config["loss"], ", ".join(arms) or None
        rows.append((record.study.study, *about, len(seeds), finished))
    columns = ["study", "dataset", "encoder", "loss", "arms", "seeds", "finished"]
    return pd.DataFrame(rows, columns=columns).set_index("study")


def _records(connection: sqlite3.Connection, path: str, task: str) -> list[Record]:
    records = (read_record(connection, path, number) for number in read_numbers(connection))
    return [record for record in records if record.study.task == task]


def _encoder(record: Record) -> str:
    """Its name; of an encoder of one's own the store has the source."""
    source = record.study.encoder
    if source is None:
        return json.loads(record.study.config)["encoder"]
    named = re.search(r"(?:class|def) (\w+)", source)
    return named[1] if named else source.split("\n")[0]


def read_study(path: Path | str | sqlite3.Connection, study: int | None = None) -> StoredStudy:
    """
    Read one study of a store, also while a run is writing it.

    Parameters
    ----------
    path
        The file, or what `rlm.store.schema.reading` gave.
    study
        Its number, see `list_studies`; may be left out where there is only one.

    Returns
    -------
    StoredStudy
        Config and everything finished.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or there is no such study, or nothing of it is finished, or it is
        damaged.
    """
    with reading(path) as (connection, name):
        record = _find(connection, name, "triplets", study)
        if record is None:
            known = _records(connection, name, "triplets")
            if study is not None or len(known) != 1:
                listed = _list(known)[["dataset", "encoder", "loss", "arms", "seeds"]].to_string()
                listed = f"\n{listed}" if known else " " + _others(connection, name, "labels", "rlm.labels.read_labels")
                raise InputError(
                    f"expected --study, the number of one study of {name}, found {study}; there are:{listed}"
                )
            (record,) = known
        finished, watched = _read(connection, name, record, BlockResult)
        return StoredStudy(_config(name, record, StudyConfig), _encoder(record), finished, watched)


class StoredLabels(NamedTuple):
    """
    One study of random labels of a store.

    Attributes
    ----------
    config
        Of the study, with the arms that it has.
    finished
        Everything that is finished, in the order of the arms; the tables have ``attrs["watched"]``.
    is_watched
        As of `StoredStudy`; see ``watched`` of `rlm.labels.tabulate_effects`.
    """

    config: LabelsConfig
    finished: LabelsResult
    is_watched: bool


def read_labels(path: Path | str | sqlite3.Connection, study: int | None = None) -> StoredLabels:
    """
    Read one study of random labels from a store, also while a run is writing it.

    Parameters
    ----------
    path
        The file, or what `rlm.store.schema.reading` gave.
    study
        Its number; the one that was added last by default.

    Returns
    -------
    StoredLabels
        Config and everything finished.

    Raises
    ------
    InputError
        If there is no such file, or it is no store, or nothing of such a study is finished, or it is damaged.
    """
    with reading(path) as (connection, name):
        record = _find(connection, name, "labels", study)
        if record is None:
            known = _records(connection, name, "labels")
            if study is not None or not known:
                listed = ", ".join(str(one.study.study) for one in known)
                listed = listed or _others(connection, name, "triplets", "rlm.read_study")
                raise InputError(
                    f"expected the number of a study of random labels, found {study}; {name} has: {listed}"
                )
            record = known[-1]
        finished, watched = _read(connection, name, record, LabelsResult)
        config = _config(name, record, LabelsConfig)
        return StoredLabels(config, join([finished], config.arms), watched)


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
    seeds
        Those that were last asked for.
    """

    start: int
    study: int
    config: StudyConfig
    plan: Plan
    arms: pd.DataFrame
    seeds: tuple[int, ...]

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
        Of what was last asked for; None where there is no file, an empty one, or no such study has been started.

    Raises
    ------
    InputError
        If the file is no store that can be used, or damaged. It is never changed.
    """
    found = check_file(path)
    if not found.exists() or not found.stat().st_size:
        return None
    with reading(path) as (connection, name):
        started = [
            one for one in _records(connection, name, "triplets") if one.plans and study in (None, one.study.study)
        ]
        if not started:
            return None
        record = max(started, key=lambda one: one.plans[-1].plan)
        results = read_table(connection, name, record, "results")
    last = record.plans[-1]
    mine = results[results["seed"].isin(last.seeds)].groupby("arm")["seconds"].agg(finished="size", seconds="mean")
    table = mine.reindex(last.arms).fillna({"finished": 0}).astype({"finished": int}).assign(planned=len(last.seeds))
    config = _config(name, record, StudyConfig).model_copy(update={"arms": tuple(last.arms)})
    plan = Plan(seeds=len(last.seeds), until=last.until)
    columns = ["planned", "finished", "seconds"]
    return Progress(last.plan, record.study.study, config, plan, table[columns], tuple(last.seeds))


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
    with reading(path) as (connection, name):
        record = _find(connection, name, "triplets", study)
        if record is None or not record.blocks:
            raise InputError(f"expected the number of a study with a finished block of seeds, found {study} in {name}")
        seconds = read_table(connection, name, record, "results")["seconds"].sum()
    seeds = sorted({seed for block in record.blocks for seed in block.seeds})
    commits = dict.fromkeys(block.git_commit for block in record.blocks if block.git_commit)
    dates = min(plan.started for plan in record.plans), max(block.finished for block in record.blocks)
    versions = json.loads(record.study.versions)
    return {
        "data, SHA-256": record.study.dataset_hash,
        "seeds": f"{len(seeds)} ({spell_seeds(seeds)}), in {len(record.runs)} runs",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": ", ".join(commits) or "of an installed package",
        "device": ", ".join(dict.fromkeys(block.device for block in record.blocks)),
        "training": f"{seconds / 60:.1f} minutes of all runs together",
        "date": " to ".join(date[:16].replace("T", " ") for date in dates) + " UTC",
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
    with reading(path) as (connection, name):
        record = _find(connection, name, "triplets", study)
    if record is None:
        raise InputError(f"expected the number of a study of {path}, found {study}; see rlm.list_studies")
    return Asked(list(record.plans[-1].seeds), record.study.dataset_hash, record.study.encoder)


def _find(connection: sqlite3.Connection, path: str, task: str, study: int | None) -> Record | None:
    if study not in read_numbers(connection):
        return None
    record = read_record(connection, path, int(study))
    return record if record.study.task == task else None


def _others(connection: sqlite3.Connection, path: str, task: str, reader: str) -> str:
    """What to say where there is no study of the kind that was asked for."""
    return f"none; {reader} reads its studies of {SPELLED[task]}" if _records(connection, path, task) else "none"


def _config(path: str, record: Record, kind: type[C]) -> C:
    """With the arms that have results, those that were asked for last first."""
    asked = dict.fromkeys(arm for plan in reversed(record.plans) for arm in plan.arms)
    known = {arm for arm, _ in record.runs}
    try:
        config = kind.model_validate_json(record.study.config)
    except ValidationError as error:
        raise InputError(
            f"expected settings that this version of rlm has, found others in study {record.study.study} of {path}; "
            "read it with the version that wrote it"
        ) from error
    return config.model_copy(update={"arms": tuple(arm for arm in asked if arm in known)})


def _read(connection: sqlite3.Connection, path: str, record: Record, kind: type[R]) -> tuple[R, bool]:
    """What is finished, and whether it was watched, which its tables say as well."""
    if not record.blocks:
        raise InputError(f"expected a study with a finished block of seeds, found none in {path}; let it run longer")
    finished = read_finished(connection, path, record, kind)
    last = record.plans[-1]
    watched = is_watched(record) or not record.runs.issuperset(product(last.arms, last.seeds))
    return mark(finished, watched), watched
