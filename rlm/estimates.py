"""Estimates: numbers with intervals, tests and the pairs that it takes. `benchmarks/calibration.py` measures them."""

import warnings
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 4_999
# With fewer values resampling repeats too few different samples, and two-humped accuracies defeat every test.
FEWEST_PAIRS = 10
Name = TypeVar("Name", bound=Hashable)


class Estimate(NamedTuple):
    """A number with its 95 % interval; the bounds are missing where the data cannot tell."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """From the lower bound to the upper one."""
        return self.high - self.low

    def excludes(self, value: float) -> bool:
        """Whether the interval lies entirely to one side of `value`."""
        return self.low > value or self.high < value

    def in_points(self) -> str:
        """Spell a difference of accuracies in percentage points."""
        value, low, high = (100 * number for number in self)
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else f"{value:+.1f} [no interval]"

    def __str__(self) -> str:
        """Spell the number and its interval."""
        if not np.isfinite(self.value):
            return "unknown"
        bounds = "no interval"
        if np.isfinite(self.low):
            bounds = f"{self.low:.2f}, {self.high:.2f}" if np.isfinite(self.high) else f"{self.low:.2f} or more"
        return f"{self.value:.2f} [{bounds}]"


def mean_with_interval(values: np.ndarray, lowest: float = -np.inf, highest: float = np.inf) -> Estimate:
    """
    Mean of independent values, with the wider of Student's t bound and the studentised bootstrap's on each side.

    Parameters
    ----------
    values
        At least one number. One alone has no interval, and neither have fewer than 10 that are all the same.
    lowest, highest
        What a mean can be; the interval goes no farther.

    Returns
    -------
    Estimate
        In the unit of the values.

    Notes
    -----
    Student's t covers too little where two arms differ in skewness, the studentised bootstrap where values have two
    humps or heavy tails; where one fails the other does not. Below 10 values it is t alone.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 12.5.
    """
    mean, n = float(values.mean()), len(values)
    error = float(stats.sem(values)) if n > 1 else 0.0
    if n < FEWEST_PAIRS and error == 0:
        return Estimate(mean, np.nan, np.nan)
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    below, above = t, t
    if n >= FEWEST_PAIRS and error > 0:

        def studentised(sample: np.ndarray, axis: int) -> np.ndarray:
            return (sample.mean(axis=axis) - mean) / stats.sem(sample, axis=axis)

        # A resample of one value repeated has no error; it is as far out as can be.
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):
            resampled = stats.bootstrap(
                (values,), studentised, method="percentile", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
            ).bootstrap_distribution
        tail = (1 + CONFIDENCE) / 2
        below, above = (
            max(t, float(np.nanquantile(scores, tail, method="inverted_cdf"))) for scores in (resampled, -resampled)
        )
    return Estimate(mean, max(mean - below * error, lowest), min(mean + above * error, highest))


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """
    Sign-flip permutation test of a zero mean, two-sided.

    Exact for differences of arms that do not differ; complete up to 13 differences, else 4,999 random flips.

    Parameters
    ----------
    differences
        Of pairs.
    seed
        Of the flips.

    Returns
    -------
    float
        1 for a single difference.

    References
    ----------
    arXiv 2511.19794, of paired runs with many seeds.
    """
    if len(differences) < 2:
        return 1.0
    rng = np.random.default_rng(seed)
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, rng=rng
    )
    return float(test.pvalue)


def proportion(count: int, of: int) -> Estimate:
    """
    A share with its Clopper-Pearson interval, which never covers less than it says.

    Parameters
    ----------
    count, of
        How many of how many.

    Returns
    -------
    Estimate
        In [0, 1]; one half, and anything, of none.
    """
    if not of:
        return Estimate(0.5, 0.0, 1.0)
    interval = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(count / of, float(interval.low), float(interval.high))


def ratio_of_variances(treated: np.ndarray, control: np.ndarray) -> Estimate:
    """
    Variance of one sample by that of another, paired, with Fieller's interval for a ratio of means.

    A variance is a mean of squared deviations, so a ratio r is kept where the deviations' paired differences
    (treated² - r control²) have a mean that Student's t cannot tell from 0.

    Parameters
    ----------
    treated, control
        Paired values.

    Returns
    -------
    Estimate
        0 or more; the upper bound is infinite where the data allow the control not to vary. All missing with fewer
        than three pairs or where one sample does not vary.

    References
    ----------
    Fieller, "Some problems in interval estimation", Journal of the Royal Statistical Society B 16, 1954.
    """
    n = len(treated)
    if n < 3 or np.ptp(treated) == 0 or np.ptp(control) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    squares = np.stack([(sample - sample.mean()) ** 2 * n / (n - 1) for sample in (treated, control)])
    squares /= squares[1].mean()
    value, (top, both, _, bottom) = float(squares[0].mean()), (np.cov(squares).ravel() / n).tolist()
    t_squared = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) ** 2
    # The bounds solve (value - r)² = t² (top - 2 r both + r² bottom), which is a r² - 2 b r + c = 0.
    a, b, c = 1 - t_squared * bottom, value - t_squared * both, value**2 - t_squared * top
    root = float(np.sqrt(max(b**2 - a * c, 0.0)))
    if a > 0:
        return Estimate(value, max((b - root) / a, 0.0), (b + root) / a)
    # The control's variance may be 0: what is kept lies outside of the bounds.
    low = (b - root) / a if a < 0 and root > 0 else 0.0
    return Estimate(value, low if 0 < low <= value else 0.0, np.inf)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """
    P values that may be compared with 5 % each though there are several.

    Parameters
    ----------
    p_values
        By name.

    Returns
    -------
    dict
        None smaller than before.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def detectable_difference(differences: np.ndarray) -> float:
    """
    The mean difference that a study of so many pairs, so far apart, finds four times out of five.

    Parameters
    ----------
    differences
        Of at least two pairs.

    Returns
    -------
    float
        In their unit.
    """
    n = len(differences)
    t = stats.t.ppf([(1 + CONFIDENCE) / 2, POWER], n - 1).sum()
    return float(t * differences.std(ddof=1) / np.sqrt(n))


def pairs_needed(difference: float, sd: float) -> int:
    """
    How many pairs find a mean difference four times out of five.

    Parameters
    ----------
    difference
        The true mean, not 0.
    sd
        Standard deviation of the pairs' differences.

    Returns
    -------
    int
        At least 10, what a verdict takes.

    References
    ----------
    Guenther, "Sample size formulas for normal theory t tests", The American Statistician 35, 1981.
    """
    confidence, power = stats.norm.ppf([(1 + CONFIDENCE) / 2, POWER])
    return max(FEWEST_PAIRS, int(np.ceil(((confidence + power) * sd / difference) ** 2 + confidence**2 / 2)))
