"""Metrics: the range of a column, which direction is better, and what a failed seed counts as."""

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.stats.estimates import CONFIDENCE, MAX_DIGITS, Estimate, proportion

CHANCE = 0.5
SAME_WITHIN = 0.01  # of a share; that of `rlm.config.Plan`
LARGEST = 1e100  # larger numbers overflow when they are squared
Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """
    Range and direction of a column of results, and the value that a failed seed counts as.

    Attributes
    ----------
    name
        The column.
    low, high
        Range of its values. A metric from 0 to 1 is a share: it is printed in percent, a difference in points.
    better
        ``"higher"`` or ``"lower"``.
    failed
        Value that a failed seed (a missing value) counts as, or the name of a column that holds it for each run. None
        if there is no such value; missing values are then an error.
    same_within
        Largest difference that counts as the same; by default 0.01 (a point) of a share, and none of others.

    Raises
    ------
    InputError
        If the range is empty, the direction is unknown, `failed` is outside the range, or `same_within` is not
        positive.

    Examples
    --------
    >>> import rlm
    >>> rlm.stats.Metric("perplexity", low=1, better="lower").is_share
    False
    """

    name: str
    low: float | int = -np.inf
    high: float | int = np.inf
    better: str = "higher"
    failed: float | int | str | None = None
    same_within: float | int | None = None

    def __post_init__(self) -> None:
        if self.better not in get_args(Direction):
            raise InputError(f'expected better="higher" or better="lower" for {self.name}, found {self.better!r}')
        if not self.low < self.high:
            raise InputError(f"expected low below high for {self.name}, found {self.low} and {self.high}")
        if self.same_within is None and self.is_share:
            object.__setattr__(self, "same_within", SAME_WITHIN)
        if self.same_within is not None and not 0 < self.same_within < np.inf:
            raise InputError(
                f"expected same_within above 0 for {self.name}, found {self.same_within}; pass the largest difference "
                "that counts as the same, such as 0.01 for a point"
            )
        if isinstance(self.failed, str | None):
            return
        if not (self.low <= self.failed <= self.high and abs(self.failed) <= LARGEST):
            raise InputError(
                f"expected failed from {self.low:g} to {self.high:g} for {self.name}, found {self.failed}; pass "
                "the value that a failed seed counts as, the name of a column, or None"
            )

    @property
    def is_share(self) -> bool:
        """True if values are shares, printed in percent and points."""
        return (self.low, self.high) == (0, 1)

    @property
    def label(self) -> str:
        """The name with spaces, and ``@`` for a rank: ``"ndcg@10"``."""
        return self.name.replace("_at_", "@").replace("_", " ")

    @property
    def title(self) -> str:
        """The label with a capital letter, to begin a heading."""
        return self.label[0].upper() + self.label[1:]

    @property
    def reach(self) -> float:
        """Largest possible difference of two values."""
        return float(self.high - self.low)

    def spell(self, value: float | int, digits: int = 1) -> str:
        """Format a value: a share in percent with `digits` decimals, others with `digits` + 2 significant digits."""
        return f"{100 * value:.{digits}f}%" if self.is_share else f"{value:.{digits + 2}g}"

    @property
    def scale(self) -> int:
        """What a number is multiplied with to be shown: shares are shown in percent, and differences in points."""
        return 100 if self.is_share else 1

    def spell_amount(self, amount: float, low: float | None = None, high: float | None = None) -> str:
        """Format a distance with its unit, and its bounds if given: ``"1 point"``, ``"0.8 points (0.6 to 1.2)"``."""
        sizes = [self.scale * value for value in (amount, low, high) if value is not None]
        texts = [f"{size:.0f}" if self.is_share and size >= 10 else f"{size:.2g}" for size in sizes]
        unit = f" point{'s' * (texts[0] != '1')}" if self.is_share else ""
        return f"{texts[0]}{unit}" + (f" ({texts[1]} to {texts[2]})" if len(texts) > 1 else "")

    def spell_difference(self, difference: Estimate) -> str:
        """Format a difference with its interval and unit."""
        unit = " points" if self.is_share else ""
        return f"{difference.format(self.scale, '+', self.digits_of(difference))}{unit}"

    def digits_of(self, difference: Estimate) -> int:
        """Count the decimals that show on which side of 0 and of `same_within` the bounds of a difference are."""
        scaled, same = Estimate(*(self.scale * number for number in difference)), self.scale * (self.same_within or 0)
        digits = scaled.digits()
        while (
            same
            and digits < MAX_DIGITS
            and any(round(abs(bound), digits) == same != abs(bound) for bound in scaled[1:])
        ):
            digits += 1
        return digits


# Chance is one half for a choice between two; for other accuracies it is unknown.
KNOWN = {
    r"(test|validation|triplet|seen|unseen)_accuracy|roc_auc": Metric("", 0, 1, "higher", CHANCE),
    r"top_\d+(_accuracy)?|mrr|mean_reciprocal_rank|map_at_r|(ndcg|recall|precision)_at_\d+": Metric(
        "", 0, 1, "higher", 0.0
    ),
    r"(.*_)?accuracy": Metric("", 0, 1, "higher"),
    r"eer": Metric("", 0, 1, "lower", CHANCE),
    r"(.*_)?loss": Metric("", better="lower"),
    r"seconds|epochs|best_epoch": Metric("", low=0, better="lower"),
}


def find_metric(metric: str | Metric, results: pd.DataFrame | None = None) -> Metric:
    """
    Return a metric, or the known one of a name; raise InputError for others, whose direction cannot be guessed.

    In results with a column chance, a failed seed counts as that by an accuracy of which no other value is known. Of
    shares with the default, ``results.attrs["same_within"]`` counts as the same. ``recall_at_K`` means ``top_K`` where
    results have that.
    """
    noted = None if results is None else results.attrs.get("same_within")
    if isinstance(metric, Metric):
        is_default = metric.is_share and metric.same_within == SAME_WITHIN
        return replace(metric, same_within=noted) if noted and is_default else metric
    if results is not None and metric not in results:
        top = re.sub(r"^recall_at_", "top_", metric)
        metric = top if top in results else metric
    for pattern, known in KNOWN.items():
        if re.fullmatch(pattern, metric):
            is_guess = metric.endswith("accuracy") and known.failed in (CHANCE, None)
            failed = "chance" if is_guess and results is not None and "chance" in results else known.failed
            return find_metric(replace(known, name=metric, failed=failed), results)
    raise InputError(
        f"expected a known metric (accuracies, roc_auc, top_1, mean_reciprocal_rank, ndcg_at_10, map_at_r, "
        "recall_at_10, eer, losses, seconds, epochs), "
        f'found {metric!r}; pass rlm.stats.Metric({metric!r}, low, high, better="higher" or "lower")'
    )


def count_failed(results: pd.DataFrame, metric: str | Metric = "test_accuracy") -> pd.DataFrame:
    """
    Check a table of results, and give each failed seed the value that it counts as.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and the metric, and the column that `Metric.failed` names.
    metric
        Name of a known metric, or a `Metric`.

    Returns
    -------
    pandas.DataFrame
        The table, with a float64 column of the metric that has no missing value.

    Raises
    ------
    InputError
        If a column is missing, or an arm, a seed or a value is invalid.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> results = pd.DataFrame({"arm": "scratch", "seed": [0, 1], "test_accuracy": [0.75, None]})
    >>> rlm.stats.count_failed(results)["test_accuracy"].tolist()
    [0.75, 0.5]
    """
    check_table(results)
    metric = find_metric(metric, results)
    _check_columns(results, metric.name)
    column = results[metric.name]
    types = pd.api.types
    if not types.is_numeric_dtype(column) or types.is_bool_dtype(column) or types.is_complex_dtype(column):
        raise InputError(
            f"expected numbers in the column {metric.name}, found {column.dtype} values such as "
            f"{column.iloc[0]!r}; convert it, for instance with pandas.to_numeric"
        )
    values = column.to_numpy(np.float64, na_value=np.nan, copy=True)
    is_outside = ~np.isnan(values) & ~((values >= metric.low) & (values <= metric.high) & (np.abs(values) <= LARGEST))
    if is_outside.any():
        remedy = "correct or remove the run"
        if metric.is_share and 2 < np.nanmax(values) <= 100 and np.nanmin(values) >= 0:
            remedy = "divide percent by 100"
        raise InputError(
            f"expected {metric.name} from {metric.low:g} to {metric.high:g}, found "
            f"{_where(results, values, is_outside)}; {remedy}"
        )
    is_failed = np.isnan(values)
    if is_failed.any():
        if metric.failed is None:
            raise InputError(
                f"expected {metric.name} of every run, found {_where(results, values, is_failed)}; a failed seed has "
                "no value by this metric: remove the seed from all arms, or give one, rlm.stats.Metric(..., failed=...)"
            )
        values[is_failed] = _value_of_failed(results, metric)[is_failed]
    return results.assign(**{metric.name: values})


def _value_of_failed(results: pd.DataFrame, metric: Metric) -> np.ndarray:
    """Return the value that each run would count as if it had failed."""
    if not isinstance(metric.failed, str):
        return np.full(len(results), metric.failed, dtype=np.float64)
    if metric.failed not in results:
        raise InputError(
            f"column {metric.failed!r} not found, which holds the value of a failed seed; the results have: "
            f"{', '.join(map(str, results.columns))}. Add it, or pass a number as failed"
        )
    values = results[metric.failed].to_numpy(np.float64, na_value=np.nan)
    is_outside = ~((values >= metric.low) & (values <= metric.high) & (np.abs(values) <= LARGEST))
    if is_outside.any():
        raise InputError(
            f"expected {metric.failed} from {metric.low:g} to {metric.high:g}, found "
            f"{_where(results, values, is_outside)}; correct the column"
        )
    return values


def noise_of_chance(clusters: pd.Series) -> pd.Series:
    """Return the accuracy that guessing exceeds in 5 % of test splits with this many clusters."""
    return (CHANCE + stats.norm.ppf(CONFIDENCE) * 0.5 / np.sqrt(clusters)).clip(upper=1.0)


class Failed(NamedTuple):
    """
    The `share` of an arm's seeds that failed: `diverged`, `collapsed`, or within `noise` of chance by test accuracy.

    Examples
    --------
    >>> import rlm
    >>> rlm.stats.Failed(rlm.stats.Estimate(0.1, 0.01, 0.32), diverged=1, noise=1).share.value
    0.1
    """

    share: Estimate
    diverged: int
    noise: int
    collapsed: int = 0


def share_failed(results: pd.DataFrame, metric: Metric, effective: pd.Series | None = None) -> dict[str, Failed]:
    """
    Return the share of failed seeds by arm, if any has no value, or the results have test splits' sizes or errors.

    The noise of chance is that of as many `effective` clusters of equal size, by arm and seed; by default of all.
    """
    diverged, clusters = results[metric.name].isna(), results.get("test_clusters")
    if not diverged.any() and not {"test_clusters", "error"} & set(results):
        return {}
    noise = pd.Series(data=False, index=results.index)
    if effective is not None and clusters is not None:
        runs = pd.MultiIndex.from_frame(results[["arm", "seed"]])
        clusters = pd.Series(effective.reindex(runs).to_numpy(), results.index).fillna(clusters)
    if metric.name == "test_accuracy" and clusters is not None:
        noise = ~diverged & (results[metric.name] <= noise_of_chance(clusters))
    collapsed = ~diverged & results["collapsed"].notna() if "collapsed" in results else noise & False
    counts = pd.DataFrame({"diverged": diverged, "noise": noise & ~collapsed, "collapsed": collapsed}).groupby(
        results["arm"], sort=False
    )
    return {
        str(arm): Failed(proportion(int(runs.to_numpy().sum()), len(runs)), *map(int, runs.sum()))
        for arm, runs in counts
    }


def check_table(results: object) -> None:
    """Raise InputError unless this is a DataFrame."""
    if not isinstance(results, pd.DataFrame):
        raise InputError(
            f"expected a table of results, found {type(results).__name__}; pass the DataFrame of rlm.run_study, or "
            "rlm.read_study(...).finished.results"
        )


def _check_columns(results: pd.DataFrame, name: str) -> None:
    """Raise InputError unless the columns arm, seed and the metric exist once, with a valid arm and seed per row."""
    missing = [column for column in ("arm", "seed", name) if column not in results]
    if missing:
        raise InputError(
            f"column {missing[0]!r} not found; the results have: {', '.join(map(str, results.columns))}. "
            "Pass a table as run_study returns it"
        )
    for column in ("arm", "seed", name):
        if results.columns.tolist().count(column) > 1:
            raise InputError(f"expected one column {column!r}, found several; rename or drop the others")
    for column in ("arm", "seed"):
        if results[column].isna().any():
            raise InputError(f"expected a value of {column} in every row, found a row without; complete or remove it")
    kinds = {"text" if isinstance(seed, str) else "numbers" for seed in results["seed"]}
    if len(kinds) > 1:
        raise InputError("expected seeds that are all numbers or all texts, found both; convert the column seed")


def _where(results: pd.DataFrame, values: np.ndarray, chosen: np.ndarray) -> str:
    """Describe the first of the chosen values with its run, and count the others."""
    first = int(np.flatnonzero(chosen)[0])
    value = "no value" if np.isnan(values[first]) else f"{values[first]:g}"
    others = f" and {chosen.sum() - 1} more" if chosen.sum() > 1 else ""
    return f"{value} (arm {results['arm'].iloc[first]}, seed {results['seed'].iloc[first]}){others}"
