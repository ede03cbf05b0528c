"""The mean difference on data like those of the test split: over new seeds and new clusters."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from rlm.stats.anytime import confidence_sequence
from rlm.stats.estimates import FEWEST_PAIRS, Estimate
from rlm.stats.judging import Judged, Watched
from rlm.stats.metrics import Metric
from rlm.stats.planned import spend

FEWEST_CLUSTERS = 10  # of equal size: with fewer the interval covers too little


class NewData(NamedTuple):
    """
    A mean paired difference on data like those of the test split.

    With one split the interval is over seeds and over its `clusters`, which estimate it as well as `effective` ones of
    equal size. If each seed has its own split, these are None, and the interval accounts for the overlap of the splits.
    The bounds are missing for fewer than 10 pairs, or 10 effective clusters.

    Examples
    --------
    >>> import rlm
    >>> rlm.stats.NewData(rlm.stats.Estimate(0.01, -0.01, 0.03), clusters=76, effective=53.1).difference.excludes(0)
    False
    """

    difference: Estimate
    clusters: int | None = None
    effective: float | None = None


def generalise(
    differences: Float[np.ndarray, "cluster seed"], triplets: Float[np.ndarray, " cluster"], level: float
) -> NewData:
    """
    Estimate the difference in the share of right triplets, for new seeds and new clusters of the same kind.

    Seeds and clusters are crossed random effects, the clusters weighted by their triplets. The variance is the two-way
    one of Cameron, Gelbach and Miller, "Robust inference with multiway clustering", Journal of Business and Economic
    Statistics 29, 2011. Degrees of freedom: Satterthwaite, "An approximate distribution of estimates of variance
    components", Biometrics Bulletin 2, 1946.
    """
    count, seeds = differences.shape
    effective = _effective(triplets)
    mean, of_seeds, of_clusters, of_rest = _variances(differences, triplets)
    if seeds < FEWEST_PAIRS or effective < FEWEST_CLUSTERS:
        return NewData(Estimate(mean, np.nan, np.nan), count, effective)
    # That of the rest is in both of the others. A difference below one of them is an estimate of a negative variance.
    variance = max(of_seeds + of_clusters - of_rest, of_seeds, of_clusters)
    if variance == 0:
        return NewData(Estimate(mean, np.nan, np.nan), count, effective)
    free = seeds - 1, effective - 1, (seeds - 1) * (effective - 1)
    parts = np.square([of_seeds, of_clusters, of_rest]) / free
    reach = float(stats.t.ppf(1 - level / 2, variance**2 / parts.sum())) * variance**0.5
    return NewData(Estimate(mean, mean - reach, mean + reach), count, effective)


def _variances(
    differences: Float[np.ndarray, "cluster seed"], triplets: Float[np.ndarray, " cluster"]
) -> tuple[float, float, float, float]:
    """Return the mean of at least two seeds and clusters, and its variance by seeds, by clusters, and of the rest."""
    count, seeds = differences.shape
    share = (triplets / triplets.sum())[:, None]
    by_seed, by_cluster = (share * differences).sum(axis=0), differences.mean(axis=1, keepdims=True)
    mean, scale = float(by_seed.mean()), count / max(1, count - 1)
    rest = differences - by_cluster - by_seed + mean
    of_clusters = scale * float(np.square(share * (by_cluster - mean)).sum())
    of_rest = scale * float(np.square(share * rest).sum()) / max(1, seeds - 1) / seeds
    return mean, float(by_seed.var()) / max(1, seeds - 1), of_clusters, of_rest


def limit_new_data(
    clusters: pd.DataFrame, arm: str, baseline: str, seeds: pd.Index, level: float, metric: Metric
) -> float:
    """Return the half-width on data like these that any number of seeds leaves; missing if it is not to be seen."""
    crossed = _cross(clusters, arm, baseline, seeds, metric) if metric.name in clusters else None
    if crossed is None or _effective(crossed[1]) < FEWEST_CLUSTERS:
        return np.nan
    _, _, of_clusters, of_rest = _variances(*crossed)
    if of_clusters <= of_rest:
        return np.nan
    return float(stats.t.ppf(1 - level / 2, _effective(crossed[1]) - 1)) * (of_clusters - of_rest) ** 0.5


def _effective(triplets: np.ndarray | pd.Series) -> float:
    """Return the number of equal clusters that estimate a mean as well; Kish, "Survey sampling", 1965."""
    return float(triplets.sum() ** 2 / np.square(triplets).sum())


def count_effective(clusters: pd.DataFrame) -> pd.Series:
    """Count the effective clusters of each run's test split, by arm and seed."""
    return clusters.groupby(["arm", "seed"])["triplets"].agg(_effective)


def generalise_splits(
    differences: Float[np.ndarray, " seed"], test_share: float, judged: Judged, reach: float | int, watched: Watched
) -> NewData:
    """
    Estimate the difference for new seeds and new splits, where each seed has its own split of the same data.

    The splits overlap, so the variance of the mean is (1 / seeds + test / training triplets) times that of a seed.
    Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003. The interval contains that
    for these splits.
    """

    def error(seeds: int, share: float = test_share) -> tuple[float, float]:
        return float(differences[:seeds].std(ddof=1)) * share**0.5, float(seeds - 1)

    def interval(seeds: int, level: float) -> Estimate:
        size, free = error(seeds, 1 / seeds + test_share)
        mean, half = float(differences[:seeds].mean()), float(stats.t.ppf(1 - level / 2, free)) * size
        return Estimate(mean, mean - half, mean + half)

    return NewData(_widen(judged, differences, reach, watched, interval, error))


def _widen(
    judged: Judged,
    differences: Float[np.ndarray, " seed"],
    reach: float | int,
    watched: Watched,
    interval: Callable[[int, float], Estimate],
    error: Callable[[int], tuple[float, float]],
) -> Estimate:
    """
    Widen the interval that decides by the error of the data, at all looks, so that no look is taken back.

    `interval` gives that of the first seeds at a level. At planned looks the levels are those of `spend`: since the
    error of the data is the same at all of them, they agree more than it allows for. A confidence sequence and `error`,
    with its degrees of freedom, each have half of the level.
    """
    pairs = len(differences)
    value = float(differences.mean())
    if pairs < FEWEST_PAIRS or not np.isfinite(judged.difference.low):
        return Estimate(value, np.nan, np.nan)
    if watched is True:
        table = confidence_sequence(differences, reach).table_at(judged.level / 2)
        halves = [stats.t.ppf(1 - judged.level / 4, free) * size for size, free in map(error, table["pairs"])]
        low, high = (table["low"] - halves).max(), (table["high"] + halves).min()
    else:
        levels = zip(watched, spend(watched, judged.level), strict=True) if watched else [(pairs, judged.level)]
        found = [interval(look, level) for look, level in levels if look <= pairs]
        low, high = np.nanmax([one.low for one in found]), np.nanmin([one.high for one in found])
    low, high = min(low, judged.difference.low), max(high, judged.difference.high)
    return Estimate(value, float(low), float(high)).bounded(-reach, reach)


def select_clusters(clusters: pd.DataFrame, metric: Metric, *, is_fixed: bool) -> pd.DataFrame | None:
    """
    Return a row per run and cluster: arm, seed, cluster, triplets (or other items) and the metric, if there are any.

    A table of several metrics has the columns metric, value and items. Any other needs runs that share one split.
    """
    if "metric" in clusters:
        theirs = clusters[clusters["metric"] == metric.name]
        return theirs.rename(columns={"value": metric.name, "items": "triplets"}) if len(theirs) else None
    return clusters if is_fixed and metric.name in clusters else None


def generalise_arms(
    clusters: pd.DataFrame,
    arm: str,
    baseline: str,
    seeds: pd.Index,
    judged: Judged,
    metric: Metric,
    watched: Watched,
) -> NewData | None:
    """
    Compare two arms on these seeds, by the metric of each cluster, at the level of the interval for their split.

    The interval contains that for the split. None unless all runs have the same clusters of the same size.
    """
    crossed = _cross(clusters, arm, baseline, seeds, metric)
    if crossed is None:
        return None
    found, (differences, triplets) = generalise(*crossed, judged.level), crossed
    if not np.isfinite(found.difference.low):
        return found

    def error(seeds: int) -> tuple[float, float]:
        return _variances(differences[:, :seeds], triplets)[2] ** 0.5, _effective(triplets) - 1

    def interval(seeds: int, level: float) -> Estimate:
        return generalise(differences[:, :seeds], triplets, level).difference

    by_seed = triplets / triplets.sum() @ differences
    return found._replace(difference=_widen(judged, by_seed, metric.reach, watched, interval, error))


def _cross(
    clusters: pd.DataFrame, arm: str, baseline: str, seeds: pd.Index, metric: Metric
) -> tuple[Float[np.ndarray, "cluster seed"], Float[np.ndarray, " cluster"]] | None:
    """Return the difference of each cluster and seed, and the triplets; None unless all runs have the same clusters."""
    clusters = clusters.loc[clusters["arm"].isin([arm, baseline]) & clusters["seed"].isin(seeds)]
    sizes = clusters.groupby("cluster")["triplets"].agg(["min", "max", "size"])
    if sizes.empty or (sizes["min"] != sizes["max"]).any() or (sizes["size"] != 2 * len(seeds)).any():
        return None
    failed = metric.failed if isinstance(metric.failed, float | int) else np.nan
    values = clusters.pivot(index="cluster", columns=["arm", "seed"], values=metric.name).fillna(failed)
    return (values[arm][seeds] - values[baseline][seeds]).to_numpy(), sizes["min"].to_numpy(float)
