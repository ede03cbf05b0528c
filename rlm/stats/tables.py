"""Tables by arm: values side by side by seed, described and compared with a baseline."""

from collections.abc import Hashable

import pandas as pd

from rlm.errors import InputError
from rlm.stats.estimates import mean_with_interval
from rlm.stats.judging import Judged, judge
from rlm.stats.metrics import Metric

DESCRIBED = ["seeds", "mean", "low", "high", "sd", "min", "q25", "median", "q75", "max"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]
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


def judge_columns(
    by_seed: pd.DataFrame, baseline: Hashable, reach: float | int = 1, *, watched: bool = False
) -> dict[Hashable, Judged]:
    """Judge each column that shares seeds with the baseline's column."""
    differences = by_seed.drop(columns=[baseline]).sub(by_seed[baseline], axis=0)
    paired = {arm: differences[arm].dropna().to_numpy() for arm in differences}
    return judge({arm: found for arm, found in paired.items() if len(found)}, reach, watched=watched)


def compare_columns(
    by_seed: pd.DataFrame, baseline: Hashable, metric: Metric, *, watched: bool = False
) -> pd.DataFrame:
    """Describe each column, and its difference to the baseline's column where they share seeds."""
    judged = judge_columns(by_seed, baseline, metric.reach, watched=watched)
    rows = {arm: describe(by_seed[arm].dropna(), metric) for arm in by_seed}
    for arm, found in judged.items():
        compared = [*found.difference, found.p, found.decide(metric.better)]
        rows[arm] |= dict(zip(COMPARED, compared, strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=[*DESCRIBED[:5], *COMPARED])
