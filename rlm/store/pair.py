"""Two studies of a store as one, to be compared seed by seed."""

from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pandas as pd

from rlm.errors import InputError
from rlm.runtime.results import mark
from rlm.store.read import TRIPLETS, find_study, read_study
from rlm.store.schema import reading
from rlm.variants import find_arm

# Settings that decide the test triplets; the hash of the data covers the tokens, too.
SPLIT = ("negatives", "negative_kinds", "fractions", "train_fraction", "split", "split_by", "split_seed", "max_tokens")


def read_pair(path: Path | str | Connection, first: int, second: int, arm: str | None = None) -> Any:  # noqa: ANN401
    """
    Read one arm of two studies of a store as the two arms of one study, to be compared by `rlm.compare`.

    Parameters
    ----------
    path
        The file, or a connection to it.
    first, second
        Numbers of the studies, see `list_studies`; the first is the baseline.
    arm
        An arm that both studies have; optional where there is only one.

    Returns
    -------
    NamedTuple
        Tables as ``StoredStudy.finished``, with arms such as ``"#1 scratch"`` and ``"#2 scratch"``. They are those of a
        watched study if either was watched, or if planned looks differ. The smaller difference counts as the same.

    Raises
    ------
    InputError
        If the studies differ in data, splits or negatives, or have no seed or arm in common.

    Examples
    --------
    >>> import rlm, tempfile
    >>> config = {"encoder": "mean", "arms": ("scratch",), "max_epochs": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for dim in (8, 16):
    ...         results = rlm.run_study(rlm.StudyConfig(dim=dim, **config), 2, db=f"{folder}/s.db", progress=False)
    ...     pair = rlm.systems.read_pair(f"{folder}/s.db", 1, 2)
    >>> rlm.compare(pair.results, "#2 scratch").baseline
    '#1 scratch'
    """
    with reading(path) as (connection, name):
        both = [read_study(connection, number) for number in (first, second)]
        data = [find_study(connection, name, TRIPLETS, number).study.dataset_hash for number in (first, second)]
    differ = [field for field in SPLIT if len({repr(getattr(one.config, field)) for one in both}) > 1]
    if first == second or data[0] != data[1] or differ:
        found = ", ".join(["data"] * (data[0] != data[1]) + differ)
        found = f"different {found}" if found else f"study {first} twice"
        raise InputError(
            f"expected two studies with the same data, splits and negatives, found {found} in {first} and {second}; "
            "run them alike in these settings"
        )
    common = [one for one in both[0].config.arms if one in both[1].config.arms]
    chosen = common[0] if arm is None and len(common) == 1 else find_arm(common, str(arm))
    of_arm = (one.finished.results.loc[one.finished.results["arm"] == chosen, "seed"] for one in both)
    seeds = [set(found) for found in of_arm]
    if chosen not in common or not seeds[0] & seeds[1]:
        listed = ", ".join(common) or "none"
        found = f"no common seed of {chosen}" if chosen in common else arm or "none"
        raise InputError(f"expected a common arm with common seeds, of {listed}, found {found}; name another arm")
    labels = {number: f"#{number} {chosen}" for number in (first, second)}
    tables = [
        [table[table["arm"] == chosen].assign(arm=labels[number]) for table in one.finished]
        for number, one in zip(labels, both, strict=True)
    ]
    joined = [pd.concat(pair, ignore_index=True) for pair in zip(*tables, strict=True)]
    watched = both[0].watched if both[0].watched == both[1].watched else True
    theirs = [one.finished.results.attrs for one in both]
    notes = {"watched": watched, "baseline": labels[first], "same_within": min(one["same_within"] for one in theirs)}
    notes |= {"metric": theirs[0]["metric"]} if theirs[0]["metric"] == theirs[1]["metric"] else {}
    return mark(both[0].finished._make(joined), **notes)
