"""Results that were made elsewhere: a file with a table, or a folder of logs, as arms, seeds and one metric."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.external.logs import LOGS, find_log, read_mlflow
from rlm.external.metrics import NO_METRIC, resolve_metric
from rlm.stats.metrics import Direction, Metric, find_metric
from rlm.store.file import ALONE, is_store

log = logging.getLogger(__name__)
Unit = Literal["fraction", "percent"]
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
NO_ARM = frozenset({*NO_METRIC, "epoch", "step", "index"})
NAMELESS = re.compile(r"(Unnamed: \d+)?")  # such as the index that pandas writes
WIDE = "value"  # what the numbers of a wide table are called without a name


class Results(NamedTuple):
    """
    A table that `rlm.compare_all` takes, and its metric.

    Attributes
    ----------
    results
        One row per run: arm, seed and the metric, missing for a run that failed.
    metric
        The column that was chosen, with range and direction.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> table = pd.DataFrame({"arm": "plain", "seed": [0], "test_loss": 0.5})
    >>> rlm.external.Results(table, rlm.stats.Metric("test_loss", better="lower")).metric.label
    'test loss'
    """

    results: pd.DataFrame
    metric: Metric


def read_results(
    path: Path | str,
    metric: str | None = None,
    *,
    unit: Unit | None = None,
    better: Direction | None = None,
    arm_column: str = "arm",
    seed_column: str = "seed",
) -> Results:
    r"""
    Read the results of many runs that were trained elsewhere.

    Parameters
    ----------
    path
        A file ending in .csv, .tsv, .jsonl, .json or .parquet: either with a row per run and the columns arm, seed and
        metrics, or with a row per seed and a column per arm. Or a folder of Hugging Face's ``trainer_state.json``
        files, or of TensorBoard event files (``pip install 'rlm[tensorboard]'``), in folders such as ``wide/seed3`` or
        ``wide-3``. Or an MLflow store (``pip install 'rlm[mlflow]'``): its folder, its SQLite file, or its address.
        Of a log the last value of each metric counts, so choose runs by nothing that uses test data.
    metric
        The column to judge; by default test_accuracy, or the only one. It names the numbers of a table with a column
        per arm.
    unit
        ``"fraction"`` for numbers from 0 to 1, ``"percent"`` for numbers from 0 to 100, which are divided by 100. By
        default the range of the metric is that of its name, see `rlm.compare`, or unlimited.
    better
        ``"higher"`` or ``"lower"``; needed for a name that is not known.
    arm_column, seed_column
        Columns of the table; parameters or tags of an MLflow run. A table with a row per run needs no seeds; its arms
        are then compared without pairs.

    Returns
    -------
    Results
        The table and the metric. A number that is missing is a failed run, which counts as 0 by accuracies; an empty
        cell of a table with a column per arm is no run. There, columns such as epoch, step or an index are no arms.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, holds texts in place of numbers, or percent without `unit`.

    Examples
    --------
    >>> import pathlib, rlm, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "runs.csv")
    ...     _ = path.write_text("seed,plain,wide\n0,67.5,68\n1,66,67.5")
    ...     results, metric = rlm.external.read_results(path, "accuracy", unit="percent")
    >>> results["accuracy"].tolist(), metric.is_share
    ([0.675, 0.66, 0.68, 0.675], True)
    """
    table = _load(path, arm_column, seed_column)
    if arm_column not in table:
        table, metric = _melt(table, seed_column, metric or WIDE), metric or WIDE
    else:
        table = table.rename(columns={arm_column: "arm", seed_column: "seed"})
        if "seed" not in table:
            log.warning("%s has no column %s: its arms are compared without pairs", path, seed_column)
            table = table.assign(seed=range(len(table)))
        metric = metric or _choose([name for name in table if name not in NO_METRIC])
    if metric not in table:
        raise InputError(f"column {metric!r} not found in {path}; it has: {_listed(table)}. Pass another metric")
    known = _describe(metric, unit, better)
    if "test_triplets" in table and unit is None and better is None:
        known = find_metric(metric)  # results of this package, of which chance is known
    results = pd.DataFrame(
        {"arm": table["arm"].map(str), "seed": _seeds(table["seed"]), metric: _numbers(table, metric)}
    )
    return Results(_scale(results.reset_index(drop=True), known, unit), known)


def _load(path: Path | str, arm_column: str, seed_column: str) -> pd.DataFrame:
    if "://" in str(path):
        return read_mlflow(str(path), arm_column, seed_column)
    path = Path(path)
    try:
        if path.is_dir():
            return LOGS[find_log(path)](path, arm_column, seed_column)
        if not path.is_file():
            raise InputError(f"expected a file or a folder of results, found none at {path}; check the path")
        with ALONE, path.open("rb") as file:
            is_sqlite = file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise InputError(f"expected a file of results, found {path}: {error.strerror}; give another") from error
    if is_sqlite and is_store(path):
        raise InputError(f"expected a file of results, found a store of studies, {path}; read it by rlm.read_study")
    if is_sqlite:
        return read_mlflow(f"sqlite:///{path.resolve()}", arm_column, seed_column)
    if path.suffix not in _READERS:
        raise InputError(f"expected a file ending in {', '.join(_READERS)}, found {path}; convert it")
    try:
        table = _READERS[path.suffix](path)
    except (ValueError, OSError) as error:  # those of pandas, pyarrow, json and of decoding are among them
        raise InputError(f"expected a table in {path}, found other content: {error}; correct the file") from error
    table.columns = [str(name).strip() for name in table]
    table = table[[name for name in table if name in (arm_column, seed_column) or not NAMELESS.fullmatch(name)]]
    if table.empty or not table.columns.is_unique:
        raise InputError(f"expected rows and different columns in {path}, found {_listed(table)}; correct the file")
    return table


def _read_lines(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return pd.DataFrame.from_records([json.loads(line) for line in lines if line.strip()])


def _read_json(path: Path) -> pd.DataFrame:
    return pd.DataFrame.from_records(json.loads(path.read_text(encoding="utf-8-sig")))


# Everything is text at first: pandas would take an arm named NA for a missing value.
_READ_TEXT = partial(pd.read_csv, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _READ_TEXT,
    ".tsv": partial(_READ_TEXT, sep="\t"),
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".parquet": pd.read_parquet,
}


def _melt(table: pd.DataFrame, seed_column: str, metric: str) -> pd.DataFrame:
    """Return a row per run of a table with a row per seed and a column per arm."""
    is_blank = table.isna() | table.map(lambda cell: str(cell).strip() == "")
    others = [name for name in table if name != seed_column]
    arms = [name for name in others if name.lower() not in NO_ARM and not is_blank[name].all()]
    if seed_column not in table or len(arms) < 2:
        raise InputError(
            f"expected columns arm, seed and a metric, or seed and at least two arms, found {_listed(table)}; name "
            "them with arm_column (--arm-column) and seed_column (--seed-column)"
        )
    if ignored := [name for name in others if name not in arms]:
        log.warning("the columns %s are not arms and are ignored; arms: %s", ", ".join(ignored), ", ".join(arms))
    values = table[arms].mask(is_blank[arms])
    runs = values.assign(seed=table[seed_column]).melt("seed", arms, "arm", metric)
    return runs[runs[metric].notna()].reset_index(drop=True)


def _choose(names: Sequence[str]) -> str:
    if "test_accuracy" in names:
        return "test_accuracy"
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise InputError(f"expected the metric to judge, found none; pass metric= (--metric), one of: {listed}")
    return names[0]


def _describe(name: str, unit: Unit | None, better: Direction | None) -> Metric:
    """Return the metric of a name, with what is given of it."""
    try:
        known = resolve_metric(name)
    except InputError as error:
        if better is None:
            raise InputError(
                f"expected a known metric, or whether higher or lower is better, found {name!r} alone; pass "
                'better="higher" or "lower" (--higher-is-better or --lower-is-better), or another --metric'
            ) from error
        known = Metric(name)
    known = known if unit is None else replace(known, low=0, high=1)
    return known if better is None else replace(known, better=better)


def _numbers(table: pd.DataFrame, metric: str) -> pd.Series:
    """Return a column as floats, which may be missing."""
    column = table[metric]
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_complex_dtype(column):
        raise InputError(f"expected numbers in the column {metric}, found {column.dtype} values; convert them")
    texts = column.map(lambda value: str(value).strip()) if column.dtype == object or _is_text(column) else column
    is_missing = column.isna() | texts.map(lambda value: isinstance(value, str) and value.lower() in MISSING)
    values = pd.to_numeric(texts.mask(is_missing), errors="coerce").astype(float)
    if (wrong := values.isna() & ~is_missing).any():
        first = int(np.flatnonzero(wrong)[0])
        remedy = "write 67.5% as 67.5 and pass --unit percent" if "%" in str(texts.iloc[first]) else "correct the row"
        run = f"arm {table['arm'].iloc[first]}, seed {table['seed'].iloc[first]}"
        raise InputError(f"expected a number as {metric}, found {texts.iloc[first]!r} ({run}); {remedy}")
    return values


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(column)


def _seeds(column: pd.Series) -> pd.Series:
    """Return whole numbers where all seeds are, else texts."""
    if (column.isna() | (column.astype(str).str.strip() == "")).any():
        raise InputError("expected a seed in every row, found a row without; complete or remove it")
    numbers = pd.to_numeric(column, errors="coerce")
    is_whole = numbers.notna().all() and (numbers % 1 == 0).all() and (numbers.abs() < 2**53).all()
    return numbers.astype("int64") if is_whole else column.astype(str)


def _scale(results: pd.DataFrame, metric: Metric, unit: Unit | None) -> pd.DataFrame:
    """Turn percent into fractions; raise InputError where the numbers contradict the unit."""
    values = results[metric.name]
    largest = values.max()
    if unit == "percent":
        if metric.better == "higher" and 0 < largest <= 1:
            raise InputError(
                f"expected {metric.name} in percent, found at most {largest:g}; drop --unit percent, or multiply by 100"
            )
        return results.assign(**{metric.name: values / 100})
    if metric.is_share and 1 < largest <= 100:
        first = results.loc[values.idxmax()]
        raise InputError(
            f"expected {metric.name} in [0, 1], found {largest:g} (arm {first['arm']}, seed {first['seed']}); pass "
            'unit="percent" (--unit percent) if these are percent, else correct the run'
        )
    return results


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns)) or "no columns"
