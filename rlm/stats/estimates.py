"""Estimates: numbers with intervals, tests and the pairs that it takes. `benchmarks/calibration.py` measures them."""

import warnings
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

LEVEL = 0.05
CONFIDENCE = 1 - LEVEL
POWER = 0.8
RESAMPLES = 4_999
# With fewer values resampling repeats too few different samples, and two-humped accuracies defeat every test.
FEWEST_PAIRS = 10
FEWEST_DIFFERING = 4  # resamples of fewer are too often all the same
EXACT_PAIRS = 20  # half a million sign patterns take milliseconds
MOST_DIGITS = 6
SAME = 1e-5  # values are the same that differ by less than this share of the largest: float32 rounds by less
TIE = 1e-9
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

    def excludes(self, value: float | int) -> bool:
        """Whether the interval lies entirely to one side of `value`."""
        return self.low > value or self.high < value

    def digits(self, apart_from: float = 0.0, least: int = 1) -> int:
        """Count the decimals that show an eighth of the width, and on which side of a number a bound is."""
        digits = least
        if not np.isfinite(self.low):
            return digits
        while digits < MOST_DIGITS and (
            10.0**-digits > 0.126 * self.width > 0
            or (
                (self.excludes(apart_from) or digits == least)
                and any(round(bound, digits) == apart_from != bound for bound in self[1:])
            )
        ):
            digits += 1
        return digits

    def format(self, scale: float | int = 1, sign: str = "", digits: int | None = None) -> str:
        """Spell the number and its interval; the decimals follow the width."""
        scaled = Estimate(*(scale * number for number in self))
        if not np.isfinite(scaled.value):
            return "unknown"
        places = scaled.digits() if digits is None else digits

        def spell(number: float) -> str:
            return f"{number:{sign}z.{places}f}"

        bounds = "no interval"
        if np.isfinite(scaled.low):
            high = f", {spell(scaled.high)}" if np.isfinite(scaled.high) else " or more"
            bounds = f"{spell(scaled.low)}{high}"
        return f"{spell(scaled.value)} [{bounds}]"

    def in_points(self) -> str:
        """Spell a difference of accuracies in percentage points."""
        return self.format(100, "+")

    def __str__(self) -> str:
        """Spell the number and its interval, with two decimals."""
        return self.format(digits=2)


def spell_p(p: float) -> str:
    """Spell a p value so that it is on the same side of 0.05 as the number is."""
    if np.isnan(p):
        return "unknown"
    if p < 1e-4:
        return "< 0.0001"
    digits = 2
    while digits < MOST_DIGITS and (float(f"{p:.{digits}g}") < LEVEL) != (p < LEVEL):
        digits += 1
    return f"= {p:.{digits}g}"


class MeanTest:
    """
    Whether the mean of independent values is 0, and an interval that agrees with the answer at every level.

    Three tests are made, and the least certain one counts: Student's t, the studentised bootstrap and, where the values
    are paired differences, all sign flips. The interval at a level excludes 0 exactly where `p` is below the level.

    Parameters
    ----------
    values
        At least one number.
    are_differences
        Whether the values are paired differences, which flip their signs where the arms do not differ.

    Notes
    -----
    Student's t covers too little where two arms differ in skewness, the studentised bootstrap where values have two
    humps or heavy tails; where one fails the other does not. Below 10 values it is t alone.

    References
    ----------
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 12.5; arXiv 2511.19794 for sign flips.
    """

    def __init__(self, values: np.ndarray, are_differences: bool = False) -> None:
        self.mean, self.n = float(values.mean()), len(values)
        self.error = float(stats.sem(values)) if self.n > 1 and np.ptp(values) > 0 else 0.0
        self.differing = count_differing(values)
        self._scores: np.ndarray | None = None
        self._flips: _Flips | None = None
        if self.can_tell and self.n >= FEWEST_PAIRS:
            self._scores = _studentised(values, self.mean)
            self._flips = _Flips(values) if are_differences else None

    @property
    def can_tell(self) -> bool:
        """Whether enough values differ for an interval."""
        return self.error > 0 and (self.n < FEWEST_PAIRS or self.differing >= FEWEST_DIFFERING)

    @property
    def t(self) -> float:
        """Student's t statistic."""
        return self.mean / self.error

    @property
    def p(self) -> float:
        """The level from which on the interval excludes 0; 1 if nothing can be told."""
        if not self.can_tell:
            return 1.0
        far = abs(self.t)
        found = [2 * float(stats.t.sf(far, self.n - 1))]
        if self._scores is not None:
            found.append(2 * float(np.mean((self._scores if self.t > 0 else -self._scores) >= far)))
        if self._flips is not None:
            found.append(self._flips.p)
        return min(1.0, max(found))

    def interval(self, level: float = LEVEL, lowest: float | int = -np.inf, highest: float | int = np.inf) -> Estimate:
        """Give the mean and its interval at a level, no wider than what a mean can be; bounds may be missing."""
        if not self.can_tell:
            return Estimate(self.mean, np.nan, np.nan)
        below, above = (self._reach(sign, level) for sign in (1, -1))
        if not np.isfinite([below, above]).all():
            return Estimate(self.mean, np.nan, np.nan)
        low, high = self.mean - below * self.error, self.mean + above * self.error
        if self._flips is not None and self.p >= level:  # by rounding a bound could lie beyond 0 by a hair
            low, high = min(low, 0.0), max(high, 0.0)
        return Estimate(self.mean, max(low, float(lowest)), min(high, float(highest)))

    def _reach(self, sign: int, level: float) -> float:
        """How many standard errors the interval goes on one side: no test reaches `level` farther out."""
        found = [float(stats.t.ppf(1 - level / 2, self.n - 1))]
        if self._scores is not None:
            found.append(_exceeded_by(sign * self._scores, level / 2))
        if self._flips is not None:
            found.append(self._flips.reach(level))
        return max(found)


def _exceeded_by(scores: np.ndarray, share: float) -> float:
    """Find the least value that no more than this share of the scores exceed or equal, were it any larger."""
    place = int(np.ceil(share * len(scores) * (1 - 1e-12)))  # of the largest scores, the first that is too many
    return float(np.partition(scores, len(scores) - place)[len(scores) - place]) if place else np.inf


def _studentised(values: np.ndarray, mean: float) -> np.ndarray:
    """Resample the t statistic around the mean."""

    def statistic(sample: np.ndarray, axis: int) -> np.ndarray:
        return (sample.mean(axis=axis) - mean) / stats.sem(sample, axis=axis)

    # A resample of one value repeated has no error; it is as far out as can be.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):
        scores = stats.bootstrap(
            (values,), statistic, method="percentile", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).bootstrap_distribution
    return scores[~np.isnan(scores)]


class _Flips:
    """All flips of the signs of up to 20 differences, else random ones and the observed one."""

    def __init__(self, differences: np.ndarray) -> None:
        self.n, self.square = len(differences), float(np.square(differences).sum())
        self.found = abs(float(differences.sum()))
        self.sums = np.abs(_flipped_sums(differences))
        if self.n > EXACT_PAIRS:
            self.sums = np.append(self.sums, self.found)
        self.tie = TIE * float(np.abs(differences).sum())  # equal sums differ by rounding

    @property
    def p(self) -> float:
        """Share of flips whose sum is as far from 0 as the observed one."""
        return float(np.mean(self.sums >= self.found - self.tie))

    def reach(self, level: float) -> float:
        """Give |t| of the flip beyond which fewer than this share are; |t| grows with the sum."""
        total = _exceeded_by(self.sums, level) + self.tie
        spread = self.square - total**2 / self.n
        return total / self.n / float(np.sqrt(spread / (self.n * (self.n - 1)))) if spread > 0 else np.inf


def _flipped_sums(differences: np.ndarray) -> np.ndarray:
    """Sum the differences under flips of their signs, up to the sign of the sum; their order makes no difference."""
    sizes = np.sort(np.abs(differences))
    if len(sizes) <= EXACT_PAIRS:
        sums = sizes[-1:]
        for size in sizes[:-1]:
            sums = np.concatenate([sums + size, sums - size])
        return sums
    rng = np.random.default_rng(0)
    return np.where(rng.random((RESAMPLES, len(sizes))) < 0.5, -sizes, sizes).sum(axis=1)


def count_differing(values: np.ndarray) -> int:
    """Count the values that differ from the most frequent one, rounding aside."""
    unit = max(float(np.abs(values).max()), 1e-300) * SAME
    return len(values) - int(np.unique(np.round(values / unit), return_counts=True)[1].max())


def mean_with_interval(values: np.ndarray, lowest: float | int = -np.inf, highest: float | int = np.inf) -> Estimate:
    """
    Mean of independent values, with the wider of Student's t bound and the studentised bootstrap's on each side.

    Parameters
    ----------
    values
        At least one number. One alone has no interval, and neither has a sample of which all but three are the same.
    lowest, highest
        What a mean can be; the interval goes no farther.

    Returns
    -------
    Estimate
        In the unit of the values, see `MeanTest`.
    """
    return MeanTest(values).interval(lowest=lowest, highest=highest)


def sign_flip_p(differences: np.ndarray) -> float:
    """
    Sign-flip permutation test of a zero mean, two-sided.

    Exact for differences of arms that do not differ; complete up to 20 differences, else 4,999 random flips.

    Parameters
    ----------
    differences
        Of pairs.

    Returns
    -------
    float
        1 for a single difference.

    References
    ----------
    arXiv 2511.19794, of paired runs with many seeds.
    """
    return _Flips(differences).p


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


def ratio_of_variances(treated: np.ndarray, control: np.ndarray) -> tuple[Estimate, float]:
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
        than three pairs or where all but three values of a sample are the same.
    float
        P value of a ratio of 1, by the test that the interval inverts: below 0.05 where the interval excludes 1.

    References
    ----------
    Fieller, "Some problems in interval estimation", Journal of the Royal Statistical Society B 16, 1954.
    """
    n = len(treated)
    if n < 3 or min(count_differing(sample) for sample in (treated, control)) < min(n - 1, FEWEST_DIFFERING):
        return Estimate(np.nan, np.nan, np.nan), np.nan
    squares = np.stack([(sample - sample.mean()) ** 2 * n / (n - 1) for sample in (treated, control)])
    squares /= squares[1].mean()
    value, (top, both, _, bottom) = float(squares[0].mean()), (np.cov(squares).ravel() / n).tolist()
    apart = top - 2 * both + bottom
    p = float(2 * stats.t.sf(abs(value - 1) / np.sqrt(apart), n - 1)) if apart > TIE * (top + bottom) else np.nan
    t_squared = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) ** 2
    # The bounds solve (value - r)² = t² (top - 2 r both + r² bottom), which is a r² - 2 b r + c = 0.
    a, b, c = 1 - t_squared * bottom, value - t_squared * both, value**2 - t_squared * top
    root = float(np.sqrt(max(b**2 - a * c, 0.0)))
    if a > 0:
        return Estimate(value, max((b - root) / a, 0.0), (b + root) / a), p
    # The control's variance may be 0: what is kept lies outside of the bounds. Where that is on both sides of them, the
    # interval has the gap between.
    other, low = sorted(((b + root) / a, (b - root) / a)) if a < 0 and root > 0 else (0.0, 0.0)
    found = Estimate(value, low if other <= 0 < low <= value else 0.0, np.inf)
    return found, p if found.excludes(1.0) else max(p, LEVEL)


def holm(p_values: Mapping[Name, float]) -> dict[Name, tuple[float, float]]:
    """
    Correct p values for being several, and say by which level each was judged.

    Parameters
    ----------
    p_values
        By name.

    Returns
    -------
    dict
        By name, the p value that may be compared with 5 %, none smaller than before, and the level of the interval that
        agrees with it: 5 % by the number of p values not smaller, up to the first that is not below its level.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, largest, level = {}, 0.0, LEVEL
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        if largest < LEVEL:  # all before were found: a larger level is left
            level = (LEVEL) / (len(p_values) - rank)
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest, level
    return adjusted


def detectable_difference(estimate: Estimate, pairs: int) -> float:
    """
    The mean difference that such a study finds four times out of five, about.

    Parameters
    ----------
    estimate
        With its interval, which decides what is found.
    pairs
        How many it rests on.

    Returns
    -------
    float
        In the unit of the estimate; missing without an interval.
    """
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1))
    return estimate.width / 2 * (1 + float(stats.t.ppf(POWER, pairs - 1)) / t)


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
