"""Tables of systems: their accuracies, the effect of pre-training in each, and in general."""

from typing import Any

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.stats.estimates import Estimate
from rlm.stats.judging import judge
from rlm.stats.meta import pool_effects
from rlm.stats.metrics import count_failed, find_metric
from rlm.stats.tables import arrange_by_seed, describe, paired_differences
from rlm.store.pair import read_pair as read_pair  # a lazy package takes names from its own modules alone
from rlm.variants import BASELINE
from rlm.verdict import find_watched

METRICS = ("test_accuracy", "roc_auc", "top_1", "seconds")
UNTRAINED, SYSTEM = "untrained", ["dataset", "encoder", "loss"]
# Column of the table, factor of its numbers, decimals.
SHOWN = {
    "test_accuracy": ("test accuracy, %", 100, 1),
    "roc_auc": ("ROC AUC", 1, 3),
    "top_1": ("top-1, %", 100, 1),
    "seconds": ("seconds per seed", 1, 1),
}


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """
    Describe each system under each arm.

    Parameters
    ----------
    results
        As `run` returns them, for one dataset or several. A diverged seed counts as `rlm.stats.count_failed` says.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, arm, metric, seeds, mean, low, high (95 % interval over seeds) and sd (ddof 1).
        The untrained baseline, which has no seeds, has only the mean; so have seconds, which the seeds of a block
        share. Systems are in descending order of the mean test accuracy of their first arm.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("pqa", encoder, "triplet", "scratch", 0, score) for encoder, score in [("mean", 0.6), ("lstm", 0.7)]]
    >>> results = pd.DataFrame(runs, columns=["dataset", "encoder", "loss", "arm", "seed", "test_accuracy"])
    >>> rlm.systems.summarise(results.assign(roc_auc=0.5, top_1=0.1, seconds=1))["encoder"].unique().tolist()
    ['lstm', 'mean']
    """
    columns = ["seeds", "mean", "low", "high", "sd"]
    rows = []
    for (*system, arm), runs in results.groupby([*SYSTEM, "arm"], sort=False):
        for metric in METRICS:
            described = dict.fromkeys(columns, np.nan)
            if arm == UNTRAINED or metric == "seconds":
                described |= {"seeds": 0 if arm == UNTRAINED else len(runs), "mean": runs[metric].mean()}
            else:
                described = describe(count_failed(runs, metric)[metric], find_metric(metric))
            rows.append((*system, arm, metric, *(described[column] for column in columns)))
    summary = pd.DataFrame(rows, columns=[*SYSTEM, "arm", "metric", *columns])
    first = summary[summary["metric"] == METRICS[0]].drop_duplicates(SYSTEM)
    ranked = first.sort_values("mean", ascending=False, kind="stable")[SYSTEM]
    return pd.concat([ranked[ranked["dataset"] == name] for name in results["dataset"].unique()]).merge(summary)


def tabulate(summary: pd.DataFrame) -> pd.DataFrame:
    """
    Format the estimates, one row per system and arm.

    Parameters
    ----------
    summary
        As `summarise` returns it.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, arm, seeds, and by metric the mean with its interval.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> columns = ["dataset", "encoder", "loss", "arm", "metric", "seeds", "mean", "low", "high"]
    >>> summary = pd.DataFrame([("pqa", "mean", "triplet", "scratch", "roc_auc", 9, 0.7, 0.6, 0.8)], columns=columns)
    >>> rlm.systems.tabulate(summary)["ROC AUC"].item()
    '0.700 [0.600, 0.800]'
    """

    def spell(row: Any) -> str:  # noqa: ANN401
        _, scale, digits = SHOWN[row.metric]
        estimate = Estimate(row.mean, row.low, row.high)
        return "" if np.isnan(row.mean) else estimate.format(scale, digits=digits, missing="")

    keys = [*SYSTEM, "arm", "seeds"]
    shown = summary.assign(shown=[spell(row) for row in summary.itertuples()]).set_index([*keys, "metric"])["shown"]
    table = shown.unstack().reindex(shown.index.droplevel("metric").unique())[summary["metric"].unique()].reset_index()
    return table.rename(columns={metric: heading for metric, (heading, *_) in SHOWN.items()}).rename_axis(columns=None)


def compare(results: pd.DataFrame, arm: str = "pretrained", baseline: str = BASELINE) -> pd.DataFrame:
    """
    Compare an arm with a baseline in every system, by test accuracy.

    Parameters
    ----------
    results
        As `run` returns them.
    arm, baseline
        The arms to compare.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, pairs, difference, low, high, error (standard error of the difference), points
        (these as text), p and decision, as in `rlm.compare`, all corrected over the systems of a dataset.

    Raises
    ------
    InputError
        If an arm is missing.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("pqa", "mean", "triplet", arm, seed, 0.6) for arm in ("scratch", "pretrained") for seed in range(2)]
    >>> results = pd.DataFrame(runs, columns=["dataset", "encoder", "loss", "arm", "seed", "test_accuracy"])
    >>> rlm.systems.compare(results)["decision"].tolist()
    ['too few seeds']
    """
    trained, metric = results[results["arm"] != UNTRAINED], find_metric("test_accuracy", results)
    if trained.empty:
        raise InputError(f"expected systems with the arms {baseline} and {arm}, found none; see rlm.systems.run")
    rows = []
    for _, of_dataset in count_failed(trained, metric).groupby("dataset", sort=False):
        by_system = {
            system: paired_differences(arrange_by_seed(runs, metric.name), arm, baseline)
            for system, runs in of_dataset.groupby(SYSTEM, sort=False)
        }
        for system, found in judge(by_system, watched=find_watched(results, None)).items():
            error = by_system[system].std(ddof=1) / found.pairs**0.5 if found.pairs > 1 else np.nan
            points = found.difference.format(100, "+")
            rows.append((*system, found.pairs, *found.difference, error, points, found.p, found.decide(metric)))
    columns = [*SYSTEM, "pairs", "difference", "low", "high", "error", "points", "p", "decision"]
    return pd.DataFrame(rows, columns=columns)


def generalise(results: pd.DataFrame, arm: str = "pretrained", baseline: str = BASELINE) -> pd.DataFrame:
    """
    Estimate the mean effect of an arm over systems, and its effect in a new system like these.

    Parameters
    ----------
    results
        As `run` returns them, of at least three systems, perhaps on several datasets.
    arm, baseline
        The arms to compare.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, and one for the means of each system over all of them (dataset ``"all"``): systems, mean,
        low, high (95 % interval of the mean effect), tau (standard deviation of the true effects), new_low, new_high
        (95 % prediction interval), see `rlm.stats.pool_effects`.

    Raises
    ------
    InputError
        If there are fewer than three systems, or an arm is missing.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> encoders = "mean", "lstm", "dssm"
    >>> runs = [(encoder, "scratch", seed, 0.6) for encoder in encoders for seed in range(2)]
    >>> runs += [(encoder, "pretrained", seed, 0.61 + seed / 100) for encoder in encoders for seed in range(2)]
    >>> results = pd.DataFrame(runs, columns=["encoder", "arm", "seed", "test_accuracy"])
    >>> results = results.assign(dataset="pqa", loss="triplet")
    >>> rlm.systems.generalise(results)[["dataset", "systems"]].to_dict("list")
    {'dataset': ['pqa'], 'systems': [3]}
    """
    effects = compare(results, arm, baseline)
    parts = {name: mine for name, mine in effects.groupby("dataset", sort=False)}
    if len(parts) > 1:
        by_system = effects.groupby(SYSTEM[1:], sort=False)
        errors = by_system["error"].agg(lambda each: np.sqrt(np.square(each).mean() / len(each)))
        parts["all"] = by_system["difference"].mean().to_frame().assign(error=errors)
    rows = []
    for name, mine in parts.items():
        pooled = pool_effects(mine["difference"], mine["error"])
        rows.append((name, len(mine), *pooled.mean, pooled.tau.value, *pooled.new[1:]))
    return pd.DataFrame(rows, columns=["dataset", "systems", "mean", "low", "high", "tau", "new_low", "new_high"])
