"""What a store holds: its studies, what is finished of them, and how far the last one is."""

import json
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rlm.config import Plan, StudyConfig
from rlm.database import connect, explained, finished_of, open_store
from rlm.errors import InputError
from rlm.task import BlockResult


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
                (SELECT group_concat(DISTINCT arm) FROM results WHERE results.study = studies.study),
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
    if study not in known.index and not (study is None and len(known) == 1):
        listed = known[["dataset", "encoder", "loss", "arms", "seeds"]].to_string() if len(known) else "none"
        raise InputError(f"expected --study, the number of one study of {path}, found {study}; there are:\n{listed}")
    number = int(known.index[0]) if study is None else study
    with closing(open_store(path)) as connection:
        (written,) = connection.execute("SELECT config FROM studies WHERE study = ?", (number,)).fetchone()
        asked = "SELECT arms, seeds, until, watched FROM plans WHERE study = ?"
        plans = connection.execute(asked, (number,)).fetchall()
        finished = finished_of(connection, number, BlockResult)
    if finished.results.empty:
        raise InputError(f"expected a study with a finished block of seeds, found none in {path}; let it run longer")
    arms = tuple(dict.fromkeys([*json.loads(plans[-1][0]), *finished.results["arm"]]))
    arms = tuple(arm for arm in arms if arm in set(finished.results["arm"]))
    config = StudyConfig.model_validate_json(written).model_copy(update={"arms": arms})
    wanted = {(arm, seed) for arm in json.loads(plans[-1][0]) for seed in json.loads(plans[-1][1])}
    has_all = wanted <= set(finished.results[["arm", "seed"]].itertuples(index=False, name=None))
    is_extended = len({seeds for _, seeds, *_ in plans}) > 1
    is_watched = is_extended or not has_all or any(until is not None or watched for *_, until, watched in plans)
    return StoredStudy(config, str(known.loc[number, "encoder"]), finished, is_watched)


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
