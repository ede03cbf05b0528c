"""How many pairs a study needs, and what a study of a size detects, by the test that decides."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.stats.anytime import PRIOR_SHARE
from rlm.stats.crossed import limit_new_data
from rlm.stats.estimates import CONFIDENCE, FEWEST_PAIRS, LEVEL, Estimate
from rlm.stats.judging import Watched
from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.stats.planned import spend
from rlm.stats.tables import arrange_by_seed, paired_differences

POWER = 0.8
CERTAINTY = 0.8  # that the standard deviation is below its bound
INTERSECTED = 0.87  # width of the confidence sequence over that of one look at normal mixtures, docs/calibration.md
MOST_PAIRS = 10**7


def detectable_difference(judged: Estimate, sd: float, pairs: int, reach: float | int = np.inf) -> Estimate:
    """
    Estimate the mean difference that a study with this interval detects with 80 % power.

    Its bounds are those of the standard deviation, by the chi-square distribution. A bound of the interval that is the
    largest possible difference tells nothing; missing if both are.
    """
    sides = [abs(bound - judged.value) for bound in judged[1:] if abs(bound) < reach]
    value = float(np.mean(sides or [np.nan])) + float(stats.norm.ppf(POWER)) * sd / pairs**0.5
    tails = (1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2
    return Estimate(value, *(value * float(((pairs - 1) / stats.chi2.ppf(tail, pairs - 1)) ** 0.5) for tail in tails))


def pairs_needed(
    difference: float,
    sd: float,
    level: float = LEVEL,
    watched: Watched = False,
    *,
    of_pilot: int | None = None,
    power: float = POWER,
) -> int:
    """
    Count the pairs, at least 10, that detect a mean difference with 80 % power, or another.

    Parameters
    ----------
    difference
        The mean difference, in the metric's unit: 0.01 is a point.
    sd
        Standard deviation of the paired differences.
    level
        Level of the test; divide 0.05 by the number of arms that are compared.
    watched
        False for a number of seeds that is fixed before the study. True to look at any time: a confidence sequence
        needs more. Planned numbers of pairs, such as ``(10, 20, 30, 40)``: the looks of a longer study are at the same
        shares of it.
    of_pilot
        Number of pairs that `sd` was estimated from. The study then needs as many as the upper 80 % bound of the
        standard deviation takes; with the estimate itself half of all studies would be too small.

    power
        Probability of detecting the difference. With 0.5 the half-width of the interval is about the difference.

    Returns
    -------
    int
        Number of pairs.

    Raises
    ------
    InputError
        If the difference is 0, the standard deviation is not positive, or more than ten million pairs are needed.

    Notes
    -----
    For a fixed number, Guenther, "Sample size formulas for normal theory t tests", The American Statistician 35, 1981.
    Bound: Browne, "On the use of a pilot sample for sample size determination", Statistics in Medicine 14, 1995.

    Examples
    --------
    >>> import rlm
    >>> rlm.stats.pairs_needed(0.01, sd=0.02), rlm.stats.pairs_needed(0.01, sd=0.02, of_pilot=10)
    (34, 55)
    >>> rlm.stats.pairs_needed(0.01, sd=0.02, watched=True)
    50
    """
    if not (np.isfinite(difference) and difference and np.isfinite(sd) and sd > 0 and 0 < level < 1):
        raise InputError(
            f"expected a difference other than 0, a standard deviation above 0 and a level between 0 and 1, found "
            f"{difference}, {sd} and {level}; train a few seeds first, then name the smallest difference that matters"
        )
    if of_pilot is not None:
        sd *= float(((of_pilot - 1) / stats.chi2.ppf(1 - CERTAINTY, of_pilot - 1)) ** 0.5)
    ratio, power = abs(difference) / sd, float(stats.norm.ppf(power))
    if watched is True:
        pairs = np.unique(np.geomspace(FEWEST_PAIRS, MOST_PAIRS, 4_000).astype(int))
        prior = PRIOR_SHARE * FEWEST_PAIRS
        half = INTERSECTED * np.sqrt((prior + pairs) * (np.log1p(pairs / prior) - 2 * np.log(level))) / pairs
        found = pairs[half + power / np.sqrt(pairs) <= ratio]
        needed = found[0] if len(found) else np.inf
    else:
        last = spend(watched, level)[-1] if watched else level
        quantile = float(stats.norm.isf(last / 2))
        needed = np.ceil(((quantile + power) / ratio) ** 2 + quantile**2 / 2)
    if needed > MOST_PAIRS:
        raise InputError(
            f"expected a difference that {MOST_PAIRS:,} pairs detect, found {difference}; name a larger one"
        )
    return max(FEWEST_PAIRS, int(needed))


class Forecast(NamedTuple):
    """
    What an interval of plus or minus `half_width` takes for every arm, by the differences of `pilot` pairs.

    `pairs` is an estimate, and `enough` suffices with a certainty of 80 %. `new_data` is the half-width that remains of
    a statement on data like those of the test split, with any number of seeds; missing without clusters.

    Examples
    --------
    >>> import rlm
    >>> rlm.stats.Forecast(rlm.stats.Metric("f1", 0, 1), 0.01, pairs=14, enough=33, pilot=5, new_data=0.021).enough
    33
    """

    metric: Metric
    half_width: float
    pairs: int
    enough: int
    pilot: int
    new_data: float


def forecast(
    results: pd.DataFrame,
    half_width: float,
    baseline: str,
    metric: str | Metric,
    *,
    watched: Watched = False,
    clusters: pd.DataFrame | None = None,
) -> Forecast:
    """Estimate the pairs that a narrow interval takes, from two or more; `clusters` are as in a verdict."""
    metric = find_metric(metric, results)
    by_seed = arrange_by_seed(count_failed(results, metric), metric.name)
    differences = {arm: paired_differences(by_seed, arm, baseline) for arm in by_seed if arm != baseline}
    pilot = min(map(len, differences.values()), default=0)
    if pilot < 2:
        raise InputError(f"expected at least 2 pairs to plan by, found {pilot}; train more seeds of every arm")
    level, arm = LEVEL / len(differences), max(differences, key=lambda arm: differences[arm].std(ddof=1))
    sd = float(differences[arm].std(ddof=1))
    if sd == 0:
        raise InputError(f"expected pairs that differ, found {pilot} equal differences; train longer, or more seeds")
    pairs, enough = (
        pairs_needed(half_width, sd, level, watched, of_pilot=known, power=0.5)
        for known in (None, len(differences[arm]))
    )
    seeds = by_seed[[arm, baseline]].dropna().index
    limit = np.nan if clusters is None else limit_new_data(clusters, arm, baseline, seeds, level, metric)
    return Forecast(metric, half_width, pairs, enough, pilot, limit)
