"""Read a store: its studies, what is finished of them, and the progress of the last one."""

import json
import re
import sqlite3
from collections import namedtuple
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError

from rlm.config import Plan, StudyConfig
from rlm.errors import InputError
from rlm.runtime.results import mark, sort_runs
from rlm.stats.judging import Watched
from rlm.store.file import check_file
from rlm.store.schema import Record, format_seeds, read_numbers, read_record, read_table, read_tables, reading

C = TypeVar("C", bound=BaseModel)
TRIPLETS = "triplets"  # the experiment of `rlm study`, see `Result.TASK`
KINDS: dict[str, type[BaseModel]] = {TRIPLETS: StudyConfig}
LISTED = ["dataset", "encoder", "loss"]


class StoredStudy(NamedTuple):
    """
    One study of a store.

    `config` has the arms that have results; `encoder` is its name, also of a user's encoder. `finished` holds all
    tables of the experiment by name, in the order of arms and seeds. Their ``attrs`` have `watched`, and `same_within`
    and `metric` as the first start fixed them. A verdict on a watched study takes the confidence sequence: its results
    were watched, it was extended, was to stop by its results, or is not finished. `watched` may also be the planned
    looks.
    """

    config: Any
    encoder: str
    finished: Any
    watched: Watched


def find_watched(record: Record) -> Watched:
    """
    Return whether a study was watched, was to stop by its results, or was asked for again, otherwise.

    A verdict then takes the confidence sequence; the planned looks if there was no other. Whether the study is finished
    makes no difference here.
    """
    wanted = {(frozenset(plan.arms), frozenset(plan.seeds), plan.rules.baseline) for plan in record.plans}
    if len(wanted) > 1 or any(plan.rules.until is not None or plan.rules.watched for plan in record.plans):
        return True
    looks = record.plans[0].rules.looks
    return looks or any(plan.rules.looks for plan in record.plans)


def find_notes(record: Record) -> dict[str, Any]:
    """Return what a verdict reads: how it was watched, the rules of the first start, the baseline of the last."""
    first, last = record.plans[0].rules, record.plans[-1].rules
    fixed = {"same_within": first.same_within, "metric": first.metric}
    return {"watched": find_watched(record), **fixed, "baseline": last.baseline}


def list_studies(path: Path | str | sqlite3.Connection, task: str | None = TRIPLETS) -> pd.DataFrame:
    """
    List the studies of a store.

    Parameters
    ----------
    path
        The file, or the connection of `rlm.store.schema.reading`.
    task
        The experiment, as its result names it: ``"triplets"``, ``"labels"``, or that of your own; None for all.

    Returns
    -------
    pandas.DataFrame
        One row per study, indexed by its number: experiment; name and tags, see `rlm note`; dataset, encoder, loss,
        arms, the settings in which the listed studies of an experiment differ, seeds, state, note, and the time at
        which the last run was finished.

    Raises
    ------
    InputError
        If there is no such file, or it is not a store, or is damaged.

    Examples
    --------
    >>> import rlm, tempfile
    >>> config = rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = rlm.run_study(config, 2, db=f"{folder}/study.db", n_jobs=1, progress=False)
    ...     studies = rlm.list_studies(f"{folder}/study.db")
    >>> studies[["encoder", "arms", "seeds", "state"]].to_dict("index")
    {1: {'encoder': 'mean', 'arms': 'scratch', 'seeds': 2, 'state': 'finished'}}
    """
    with reading(path) as (connection, name):
        return _list(_records(connection, name, task))


def _list(records: Sequence[Record]) -> pd.DataFrame:
    rows = []
    differing = _tell_apart(records)
    for record in records:
        study, config = record.study, json.loads(record.study.config)
        wanted = {(arm, seed) for plan in record.plans[-1:] for arm in plan.arms for seed in plan.seeds}
        done = len(wanted & record.runs)
        rows.append(
            {"study": study.study, "experiment": study.task, "name": study.name or None, "tags": study.tags or None}
            | {"dataset": config.get("dataset"), "encoder": _encoder(record), "loss": config.get("loss")}
            | {"arms": ", ".join(dict.fromkeys(arm for block in record.blocks for arm in block.arms)) or None}
            | {"settings": differing[study.study] or None, "seeds": len({seed for _, seed in record.runs})}
            | {"state": "finished" if done == len(wanted) else f"{done} of {len(wanted)} runs"}
            | {"note": study.note or None}
            | {"finished": max((block.finished for block in record.blocks), default=None)}
        )
    columns = ["experiment", "name", "tags", *LISTED, "arms", "settings", "seeds", "state", "note", "finished"]
    return pd.DataFrame(rows, columns=["study", *columns]).set_index("study")


def _tell_apart(records: Sequence[Record]) -> dict[int, str]:
    """Write by number the settings in which a study differs from others of its experiment, except those listed."""
    told: dict[int, str] = {}
    for task in {record.study.task for record in records}:
        found = {record.study.study: json.loads(record.study.config) for record in records if record.study.task == task}
        flat = pd.json_normalize(list(found.values()), sep=" ").drop(columns=LISTED, errors="ignore")
        flat = flat.map(_spell)
        flat = flat.loc[:, flat.nunique() > 1]
        for number, row in zip(found, flat.to_dict("index").values(), strict=True):
            told[number] = ", ".join(f"{str(name).replace('_', ' ')} {value}" for name, value in row.items())
    return told


def _spell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "by default" if pd.isna(value) else str(value)


def _records(connection: sqlite3.Connection, path: str, task: str | None) -> list[Record]:
    records = (read_record(connection, path, number) for number in read_numbers(connection))
    return [record for record in records if task in (None, record.study.task)]


def _encoder(record: Record) -> str:
    """Return the name of the encoder; of a user's encoder the store has the source."""
    source = record.study.encoder
    if source is None:
        config = json.loads(record.study.config)
        return str(config.get("encoder", config.get("function", "")))
    named = re.search(r"(?:class|def) (\w+)", source)
    return named[1] if named else source.split("\n")[0]


def read_study(path: Path | str | sqlite3.Connection, study: int | None = None) -> StoredStudy:
    """
    Read one study of a store, also while a run is writing it.

    Parameters
    ----------
    path
        The file, or the connection of `rlm.store.schema.reading`.
    study
        Its number, see `list_studies`; optional where there is only one.

    Returns
    -------
    StoredStudy
        Its config, the name of its encoder, all that is finished, and whether it was watched. The tables of
        ``finished`` are those of `rlm.study.BlockResult`.

    Raises
    ------
    InputError
        If there is no such file or study, the file is not a store or is damaged, or no block is finished.

    Examples
    --------
    >>> import tempfile, rlm
    >>> config = rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = rlm.run_study(config, 2, db=f"{folder}/study.db", n_jobs=1, progress=False)
    ...     stored = rlm.read_study(f"{folder}/study.db")
    >>> stored.finished.results.equals(results), stored.watched
    (True, False)
    """
    return read_stored(path, TRIPLETS, StudyConfig, study)


def find_task(path: Path | str | sqlite3.Connection, study: int | None = None) -> str:
    """Return the experiment of a study; without its number the only one in the store, or else `TRIPLETS`."""
    with reading(path) as (connection, name):
        tasks = {number: read_record(connection, name, number).study.task for number in read_numbers(connection)}
    only = set(tasks.values())
    return tasks.get(study, only.pop() if len(only) == 1 else TRIPLETS)


def read_stored(
    path: Path | str | sqlite3.Connection, task: str, kind: type[BaseModel], study: int | None = None
) -> StoredStudy:
    """Read one study of an experiment, whose config is of a kind, by its number or the only one."""
    with reading(path) as (connection, name):
        record = find_study(connection, name, task, study)
        if not record.blocks:
            raise InputError(
                f"expected a study with a finished block of seeds, found none in {name}; let it run longer"
            )
        # Arms that were asked for last come first.
        asked = dict.fromkeys(arm for plan in reversed(record.plans) for arm in plan.arms)
        known = {arm for arm, _ in record.runs}
        arms = [arm for arm in asked if arm in known]
        tables = {name: sort_runs(table, arms) for name, table in read_tables(connection, name, record).items()}
        last = record.plans[-1]
        watched = find_watched(record) or not record.runs.issuperset(product(last.arms, last.seeds))
        finished = mark(namedtuple("Finished", tables)(**tables), **find_notes(record) | {"watched": watched})
        return StoredStudy(_config(name, record, arms, kind), _encoder(record), finished, watched)


def find_study(connection: sqlite3.Connection, path: str, task: str | None, study: int | None) -> Record:
    """Read and verify one study, of an experiment or of any; without its number, the only one."""
    if study is not None and study in read_numbers(connection):
        record = read_record(connection, path, int(study))
        if task in (None, record.study.task):
            return record
    known = _records(connection, path, task)
    if study is None and len(known) == 1:
        return known[0]
    others = {one.study.task for one in (read_record(connection, path, n) for n in read_numbers(connection))} - {task}
    table = _list(known).drop(columns=["experiment", "note", "finished"]).dropna(axis=1, how="all")
    listed = f"\n{table.to_string()}" if known else " none"
    if not known and others:
        listed += f"; its studies are of {' and '.join(sorted(others))}"
    wanted = f"one study of {task}" if task else "one study"
    raise InputError(f"expected --study, the number of {wanted} in {path}, found {study}; there are:{listed}")


def _config(path: str, record: Record, arms: Sequence[str], kind: type[C]) -> C:
    try:
        config = kind.model_validate_json(record.study.config)
    except ValidationError as error:
        raise InputError(
            f"expected settings that this version of rlm has, found others in study {record.study.study} of {path}; "
            "read it with the version that wrote it"
        ) from error
    return config.model_copy(update={"arms": tuple(arms)})


class Progress(NamedTuple):
    """
    Progress of a study.

    `start` counts all starts of studies in the store. `config`, `plan` and `seeds` are those last asked for. `arms` has
    a row per arm: planned and finished runs, and seconds (mean of a run, missing before the first). `data` is a hash,
    `source` that of an encoder of the user, and `about` name, note and tags.
    """

    start: int
    study: int
    config: Any
    plan: Plan
    arms: pd.DataFrame
    seeds: tuple[int, ...]
    data: str
    source: str | None
    about: dict[str, str]

    @property
    def is_complete(self) -> bool:
        """Return whether all runs that were asked for are finished."""
        return bool((self.arms["finished"] >= self.arms["planned"]).all())

    @property
    def knobs(self) -> tuple[StudyConfig, Plan] | None:
        """Return config and plan of a study of triplets; None for other studies."""
        return (self.config, self.plan) if isinstance(self.config, StudyConfig) else None


def read_progress(
    path: Path | str, study: int | None = None, kinds: Mapping[str, type[BaseModel]] = KINDS
) -> Progress | None:
    """
    Read the progress of a study, by default of the one that was started last; fast enough for several times a second.

    `kinds` has the class of the config of each experiment that counts. Returns None where there is no file, an empty
    one, or no such study has been started. The file is never changed.
    """
    if not _is_written(path):
        return None
    with reading(path) as (connection, name):
        started = _list_started(connection, kinds)
        if study not in (None, *started) or not started:
            return None
        record = read_record(connection, name, started[0] if study is None else study)
        tables = (read_table(connection, name, record, table) for table in ("results", "runs"))
        results = next(table for table in tables if "seconds" in table)
    last = record.plans[-1]
    mine = results[results["seed"].isin(last.seeds)].groupby("arm")["seconds"].agg(finished="size", seconds="mean")
    table = mine.reindex(last.arms).fillna({"finished": 0}).astype({"finished": int}).assign(planned=len(last.seeds))
    config = _config(name, record, last.arms, kinds[record.study.task])
    fixed = find_notes(record)
    fixed.pop("watched")
    plan = Plan.model_construct(seeds=len(last.seeds), until=last.rules.until, **fixed)  # of any metric
    columns = ["planned", "finished", "seconds"]
    about = record.study.dataset_hash, record.study.encoder, record.study.about
    return Progress(last.plan, record.study.study, config, plan, table[columns], tuple(last.seeds), *about)


def list_data(path: Path | str) -> list[tuple[int, StudyConfig, str]]:
    """List number, config and hash of the data of the studies that were started, the latest first."""
    if not _is_written(path):
        return []
    with reading(path) as (connection, name):
        records = [read_record(connection, name, number) for number in _list_started(connection, KINDS)]
    return [
        (one.study.study, _config(name, one, one.plans[-1].arms, StudyConfig), one.study.dataset_hash)
        for one in records
    ]


def _is_written(path: Path | str) -> bool:
    found = check_file(path)
    return found.exists() and found.stat().st_size > 0


def _list_started(connection: sqlite3.Connection, tasks: Collection[str]) -> list[int]:
    """List the studies of some experiments that were started, the latest first."""
    asked = "SELECT study, task FROM plans JOIN studies USING (study) GROUP BY study ORDER BY max(plan) DESC"
    return [number for number, task in connection.execute(asked) if task in tasks]


def read_origin(path: Path | str, study: int) -> dict[str, str]:
    """Read where the numbers of a study come from, as texts by name: data, seeds, versions, commit, device, dates."""
    with reading(path) as (connection, name):
        record = find_study(connection, name, TRIPLETS, study)
        if not record.blocks:
            raise InputError(f"expected the number of a study with a finished block of seeds, found {study} in {name}")
        seconds = read_table(connection, name, record, "results")["seconds"].sum()
    seeds = sorted({seed for block in record.blocks for seed in block.seeds})
    commits = dict.fromkeys(block.git_commit for block in record.blocks if block.git_commit)
    dates = min(plan.started for plan in record.plans), max(block.finished for block in record.blocks)
    versions = json.loads(record.study.versions)
    return {
        "data, SHA-256": record.study.dataset_hash,
        "seeds": f"{len(seeds)} ({format_seeds(seeds)}), in {len(record.runs)} runs",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": ", ".join(commits) or "of an installed package",
        "device": ", ".join(dict.fromkeys(block.device for block in record.blocks)),
        "training": f"{seconds / 60:.1f} minutes of all runs together",
        "date": " to ".join(date[:16].replace("T", " ") for date in dates) + " UTC",
    }
