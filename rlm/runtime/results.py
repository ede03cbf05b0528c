"""Tables of finished blocks of seeds: what every experiment returns, and how blocks are joined."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd

from rlm.stats.metrics import SAME_WITHIN
from rlm.variants import BASELINE

KEYS = ("labelled", "arm", "seed", "metric", "epoch", "cluster", "shuffle")  # of all tables, as far as they have them


class Rules(NamedTuple):
    """
    How results are looked at, what counts as the same, and the arm to compare with; fixed before a study starts.

    The study stops once intervals are narrower than `until`, or at one of the planned `looks` if every arm is decided,
    by a metric: that of the experiment if it is empty.
    """

    until: float | None = None
    watched: bool = False
    looks: tuple[int, ...] | None = None
    same_within: float = SAME_WITHIN
    baseline: str = BASELINE
    metric: str = ""


class Table(NamedTuple):
    """The columns of a table and their types, by name; `keys` identify a row. A float may be missing."""

    keys: Mapping[str, type]
    values: Mapping[str, type]


@runtime_checkable
class Result(Protocol):
    """
    Tables of one or more blocks of seeds, a NamedTuple; each has the columns arm and seed, and `results` is the first.

    A run that failed has no value of the experiment's metric. `results` may be long, see `widen`. The result class of
    an experiment has two more attributes: `TASK` names the experiment, and `TABLES` has a `Table` for each field.
    """

    @property
    def results(self) -> pd.DataFrame: ...

    def __iter__(self) -> Iterator[pd.DataFrame]: ...

    @classmethod
    def _make(cls, iterable: Iterable[pd.DataFrame]) -> Any: ...  # noqa: ANN401


R = TypeVar("R", bound=Result)


def join(blocks: Sequence[R], arms: Sequence[str]) -> R:
    """Join finished blocks, in any order, in the order of arms and seeds; with the marks of the last, see `mark`."""
    joined = []
    for tables in zip(*blocks, strict=True):
        filled = [table for table in tables if len(table)]
        joined.append(sort_runs(pd.concat(filled) if filled else tables[0], arms))
    return mark(type(blocks[0])._make(joined), **blocks[-1].results.attrs)


def sort_runs(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Sort the rows of a table by arm, in the order given, seed and the other keys that it has."""
    rank = {arm: number for number, arm in enumerate(arms)}

    def order(column: pd.Series) -> pd.Series:
        if column.name == "labelled":
            return column.replace(0, np.inf)  # all come last
        return column.map(rank) if column.name == "arm" else column

    return table.sort_values([key for key in KEYS if key in table], key=order, ignore_index=True)


def mark(result: R, **notes: Any) -> R:  # noqa: ANN401
    """Note in ``attrs`` of all tables what a verdict reads: watched, same_within, metric, baseline."""
    for table in result:
        table.attrs |= notes
    return result


def select(result: R, arms: Sequence[str], seeds: Sequence[int]) -> R:
    """Select the rows of some arms and seeds."""
    return type(result)._make(
        table[table["arm"].isin(arms) & table["seed"].isin(seeds)].reset_index(drop=True) for table in result
    )


def widen(results: pd.DataFrame) -> pd.DataFrame:
    """Give a table with the columns metric and value a column per metric; any other table is returned as it is."""
    if "metric" not in results:
        return results
    wide = results.pivot(index=["arm", "seed"], columns="metric", values="value")
    return wide.rename_axis(columns=None).reset_index()


def count_runs(result: Result) -> int:
    """Count the pairs of arm and seed."""
    return len(result.results[["arm", "seed"]].drop_duplicates())
