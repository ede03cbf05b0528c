"""What a store keeps of a training function: its settings, its tables, and how they are read."""

import sqlite3
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import ConfigDict, Field

from rlm.errors import Settings
from rlm.external.metrics import add_chance
from rlm.runtime.results import Table, sort_runs, widen
from rlm.stats.metrics import Metric, find_metric
from rlm.store.read import StoredStudy, find_task, read_stored, read_study

TASK = "functions"
_RUN = {"arm": str, "seed": int}
_VALUE = {**_RUN, "metric": str}


class FunctionResult(NamedTuple):
    """
    Tables of a study of a training function.

    Attributes
    ----------
    results
        One row per arm, seed and metric: value, missing for a run that failed.
    clusters
        One row per arm, seed, metric and cluster, of the metrics that have them: items, value.
    runs
        One row per arm and seed: seconds, and error, the traceback of a run that failed, or an empty text.
    """

    results: pd.DataFrame
    clusters: pd.DataFrame
    runs: pd.DataFrame

    TASK = TASK
    TABLES = {  # noqa: RUF012 - an annotation would make it a field
        "results": Table(_VALUE, {"value": float}),
        "clusters": Table({**_VALUE, "cluster": str}, {"items": int, "value": float}),
        "runs": Table(_RUN, {"seconds": float, "error": str}),
    }


class FunctionConfig(Settings):
    """
    What is asked of a training function; only its name, its version and the names of the metrics identify it.

    `arguments` are others that the function takes, for those who read the store.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    function: str
    version: str | None
    baseline: str
    metrics: tuple[Metric, ...]
    arms: tuple[str, ...] = ()
    arguments: dict[str, str] = Field(default_factory=dict)

    def choose(self, metric: str | None) -> Metric:
        """Return one of the metrics by its name, or else the first."""
        return next((one for one in self.metrics if one.name == metric), self.metrics[0])

    def describe(self) -> dict[str, str]:
        """Return all settings as texts."""
        fields = {"function": self.function, "version": self.version or "by source", "baseline": self.baseline}
        names = {"metrics": ", ".join(one.name for one in self.metrics), "arms": ", ".join(self.arms)}
        return fields | names | self.arguments


def read_judged(path: Path | str | sqlite3.Connection, study: int | None = None) -> StoredStudy:
    """
    Read one study of `rlm.judge` from a store, also while a run is writing it.

    Parameters
    ----------
    path, study
        As in `rlm.read_study`.

    Returns
    -------
    rlm.store.read.StoredStudy
        Its config, with baseline and metrics; the name of the function; what is finished: ``finished.results``, as
        `rlm.judge` returns them, and ``finished.clusters``, for `rlm.compare`; and whether it was watched.

    Raises
    ------
    InputError
        As in `rlm.read_study`.

    Examples
    --------
    >>> import rlm
    >>> rlm.external.read_judged("none.db")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    rlm.errors.InputError: expected a store of studies, found no file ...
    """
    stored = read_stored(path, TASK, FunctionConfig, study)
    config = stored.config
    arms = sorted(config.arms, key=lambda arm: arm != config.baseline)
    tables = {name: sort_runs(getattr(stored.finished, name), arms) for name in FunctionResult.TABLES}
    results = tabulate(FunctionResult(**tables), config)
    results.attrs |= stored.finished.results.attrs
    return stored._replace(finished=stored.finished._replace(**tables | {"results": results}))


def read_any(path: Path | str | sqlite3.Connection, study: int | None = None) -> StoredStudy:
    """Read a study of a store: one of `judge`, or else one of triplets."""
    return (read_judged if find_task(path, study) == TASK else read_study)(path, study)


def shorten_errors(results: pd.DataFrame) -> pd.DataFrame:
    """Return runs with the last line of each traceback."""
    return results.assign(error=results["error"].str.strip().str.split("\n").str[-1]) if "error" in results else results


def tabulate(found: FunctionResult, config: FunctionConfig) -> pd.DataFrame:
    """Return the results as `judge` describes them."""
    values = widen(found.results)[["arm", "seed", *(metric.name for metric in config.metrics)]]
    results = add_chance(
        found.runs[["arm", "seed"]].merge(values).merge(found.runs, on=["arm", "seed"]), config.metrics
    )
    results.attrs = dict(found.results.attrs)
    return results


def find_stored_metric(stored: StoredStudy, name: str | None) -> Metric:
    """Return a metric of a study by its name, by default its own; a function may not have the named one."""
    results, config = stored.finished.results, stored.config
    if isinstance(config, FunctionConfig):
        return find_metric(config.choose(name), results)
    return find_metric(name or results.attrs["metric"], results)


def describe_stored(stored: StoredStudy) -> dict[str, str]:
    """Return the settings of a study as texts."""
    if isinstance(stored.config, FunctionConfig):
        return stored.config.describe()
    settings = stored.config.model_dump(mode="json") | {"encoder": stored.encoder}
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in settings.items()
    }
