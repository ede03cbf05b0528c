"""Tables of finished blocks of seeds: what every experiment returns, and how blocks are joined."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd


class Table(NamedTuple):
    """The columns of a table and their types, by name; `keys` identify a row. A float may be missing."""

    keys: Mapping[str, type]
    values: Mapping[str, type]


@runtime_checkable
class Result(Protocol):
    """
    Tables of one or more blocks of seeds, a NamedTuple; each has the columns arm and seed, and `results` is the first.

    A run that failed has no ``test_accuracy``. `TASK` names the experiment, and `TABLES` describes each table by name.
    """

    TASK: ClassVar[str]
    TABLES: ClassVar[Mapping[str, Table]]
    results: pd.DataFrame

    @classmethod
    def _make(cls, iterable: Iterable[pd.DataFrame]) -> Any: ...  # noqa: ANN401


R = TypeVar("R", bound=Result)


def join(blocks: Sequence[R], arms: Sequence[str]) -> R:
    """Join finished blocks, in any order, in the order of arms and seeds; watched if any of them was, see `mark`."""
    rank = {arm: number for number, arm in enumerate(arms)}

    def order(column: pd.Series) -> pd.Series:
        if column.name == "labelled":
            return column.replace(0, np.inf)  # all come last
        return column.map(rank) if column.name == "arm" else column

    kind, joined = type(blocks[0]), []
    for tables, columns in zip(zip(*blocks, strict=True), kind.TABLES.values(), strict=True):
        filled = [table for table in tables if len(table)]
        table = pd.concat(filled) if filled else tables[0]
        keys = [key for key in columns.keys if key in table]  # an empty table may lack them
        joined.append(table.sort_values(keys, key=order, ignore_index=True))
    marks = [table.attrs["watched"] for block in blocks for table in block if "watched" in table.attrs]
    result = kind._make(joined)
    return mark(result, any(marks)) if marks else result


def mark(result: R, watched: bool) -> R:
    """Note as ``attrs["watched"]`` of all tables whether a study was watched; a verdict on them reads the note."""
    for table in result:
        table.attrs["watched"] = watched
    return result


def select(result: R, arms: Sequence[str], seeds: Sequence[int]) -> R:
    """Select the rows of some arms and seeds."""
    return type(result)._make(
        table[table["arm"].isin(arms) & table["seed"].isin(seeds)].reset_index(drop=True) for table in result
    )


def count_runs(result: Result) -> int:
    """Count the pairs of arm and seed."""
    return len(result.results[["arm", "seed"]].drop_duplicates())
