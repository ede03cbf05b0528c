"""Tables by arm: values side by side by seed, described and compared with a baseline; histories of runs."""

from collections.abc import Hashable

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.stats.estimates import mean_with_interval
from rlm.stats.judging import Judged, Watched, judge
from rlm.stats.metrics import Metric, find_metric

DESCRIBED = ["seeds", "mean", "low", "high", "sd", "min", "q25", "median", "q75", "max"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]
COLLAPSED = 0.05  # of the first spread; healthy runs keep three times as much, see docs/collapse.md
COMPARED = [*DIFFERENCE, "p", "decision"]


def describe(values: pd.Series, metric: Metric) -> dict[str, float | int]:
    """Describe the values of one arm: number of seeds, mean with its interval, standard deviation and quartiles."""
    mean = mean_with_interval(values.to_numpy(), metric.low, metric.high)
    quartiles = values.quantile([0, 0.25, 0.5, 0.75, 1]).tolist()
    return dict(zip(DESCRIBED, [len(values), *mean, float(values.std()), *quartiles], strict=True))


def arrange_by_seed(counted: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one row per seed, in ascending order, and one column per arm; missing where the arm has no such run."""
    twice = counted.duplicated(["arm", "seed"])
    if twice.any():
        first = counted[twice].iloc[0]
        raise InputError(
            f"expected one row per arm and seed, found seed {first['seed']} of arm {first['arm']!r} more than once; "
            "compare the results of one study at a time"
        )
    return counted.pivot(index="seed", columns="arm", values=column).sort_index()[list(counted["arm"].unique())]


def pair(by_seed: pd.DataFrame, arm: str, baseline: str) -> pd.DataFrame:
    """Return the columns of two arms with the seeds that both have."""
    listed = f"the results have: {', '.join(map(str, by_seed))}"
    if arm == baseline:
        raise InputError(f"expected two different arms, found {arm!r} twice; {listed}")
    for name in (arm, baseline):
        if name not in by_seed:
            raise InputError(f"arm {name!r} not found; {listed}")
    paired = by_seed[[arm, baseline]].dropna()
    if paired.empty:
        raise InputError(f"expected seeds that both {arm!r} and {baseline!r} have, found none; run the same seeds")
    return paired


def paired_differences(by_seed: pd.DataFrame, arm: str, baseline: str) -> np.ndarray:
    """Subtract the baseline's column from an arm's, for the seeds that both have."""
    both = pair(by_seed, arm, baseline)
    return (both[arm] - both[baseline]).to_numpy()


def judge_columns(
    by_seed: pd.DataFrame, baseline: Hashable, reach: float | int = 1, *, watched: Watched = False
) -> dict[Hashable, Judged]:
    """Judge each column that shares seeds with the baseline's column."""
    differences = by_seed.drop(columns=[baseline]).sub(by_seed[baseline], axis=0)
    paired = {arm: differences[arm].dropna().to_numpy() for arm in differences}
    return judge({arm: found for arm, found in paired.items() if len(found)}, reach, watched=watched)


def compare_columns(
    by_seed: pd.DataFrame, baseline: Hashable, metric: Metric, *, watched: Watched = False
) -> pd.DataFrame:
    """Describe each column, and its difference to the baseline's column where they share seeds."""
    judged = judge_columns(by_seed, baseline, metric.reach, watched=watched)
    rows = {arm: describe(by_seed[arm].dropna(), metric) for arm in by_seed}
    for arm, found in judged.items():
        compared = [*found.difference, found.p, found.decide(metric)]
        rows[arm] |= dict(zip(COMPARED, compared, strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=[*DESCRIBED[:5], *COMPARED])


def best_so_far(history: pd.DataFrame, metric: str = "validation_accuracy") -> pd.DataFrame:
    """
    Compute each seed's best value up to each epoch, kept after it stopped, so that curves can be averaged.

    Parameters
    ----------
    history
        One row per arm, seed and epoch: columns arm, seed, epoch and `metric`.
    metric
        The column to follow; higher is better.

    Returns
    -------
    pandas.DataFrame
        One row per arm, seed and epoch up to the last of any seed, with the column ``best_<metric>``. A seed that
        diverged counts from there on as in the verdict.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> history = pd.DataFrame({"arm": "scratch", "seed": 0, "epoch": range(3), "validation_accuracy": [0.5, 0.7, 0.6]})
    >>> rlm.plots.best_so_far(history)["best_validation_accuracy"].tolist()
    [0.5, 0.7, 0.7]
    """
    runs = history.set_index(["arm", "seed", "epoch"])[metric]
    order = runs.index.droplevel("epoch").unique()  # unstack(sort=False) mixes rows up in pandas before 3.0.1
    by_epoch, is_failed = (
        of.unstack("epoch", fill_value=filler).reindex(order) for of, filler in ((runs, None), (runs.isna(), False))
    )
    best = by_epoch.cummax(axis=1).ffill(axis=1).mask(is_failed.cummax(axis=1), find_metric(metric).failed)
    return best.stack().rename(f"best_{metric}").reset_index()


def epochs_to_reach(
    history: pd.DataFrame, accuracy: float, metric: str = "validation_accuracy", epoch: str = "epoch"
) -> pd.DataFrame:
    """Count the epochs (all of them, if it never does) that each run takes to reach an accuracy, and whether."""
    missing = [name for name in (epoch, metric) if name not in history]
    if missing:
        raise InputError(
            f"expected the columns {epoch} and {metric}, found no {missing[0]}; pass a history as run_labels returns it"
        )
    if "shuffle" in history:
        check_one_arm(history)
    runs = [name for name in ("labelled", "arm", "seed", "shuffle") if name in history]
    first = history[epoch].where(history[metric] >= accuracy)
    found = history.assign(first=first).groupby(runs, sort=False).agg(first=("first", "min"), last=(epoch, "max"))
    found = found.assign(epochs=found["first"].fillna(found["last"]), reached=found["first"].notna())
    return found[["epochs", "reached"]].reset_index()


def check_one_arm(memorising: pd.DataFrame) -> None:
    """Raise InputError for the rows of several arms, which may share a pre-training."""
    arms = memorising["arm"].unique() if "arm" in memorising else []
    if len(arms) > 1:
        raise InputError(
            f"expected the memorising of one arm, found {', '.join(arms)}; select one: "
            f'memorising[memorising["arm"] == "{arms[0]}"]'
        )


def find_collapse(history: pd.DataFrame) -> pd.Series:
    """Return by seed the epoch since which all phrases are at one point, for two epochs or more; else missing."""
    is_apart = ~(history["relative_spread"] < COLLAPSED)
    since = history["epoch"].where(is_apart).groupby(history["seed"]).max() + 1
    return since.where(history.groupby("seed")["epoch"].max() > since)


def drop_diverged(history: pd.DataFrame) -> pd.DataFrame:
    """Remove all validation accuracies of a run with a loss that is not finite."""
    is_lost = (history["epoch"] > 0) & ~np.isfinite(history.get("loss", history["epoch"]))
    has_diverged = is_lost.groupby([history["arm"], history["seed"]]).transform("any")
    return history.assign(validation_accuracy=history["validation_accuracy"].mask(has_diverged))
