"""Estimates with intervals, tests, and the number of pairs they need; `benchmarks/calibration.py` measures them."""

import warnings
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.05
CONFIDENCE = 1 - LEVEL
RESAMPLES = 4_999
# With fewer values there are too few different resamples, and bimodal accuracies defeat every test.
FEWEST_PAIRS = 10
FEWEST_DIFFERING = 4  # resamples of fewer are too often constant
EXACT_PAIRS = 20  # half a million sign patterns take milliseconds
MAX_DIGITS = 6
SAME = 1e-5  # share of the largest value up to which values count as equal: float32 rounds by less
FLOAT32 = 1.2e-7  # share of a value that float32 rounds off: differences of such values are less exact than they are
TIE = 1e-9
Name = TypeVar("Name", bound=Hashable)


class Estimate(NamedTuple):
    """
    A number with the bounds of its 95 % interval, which are NaN where the data determine none.

    Examples
    --------
    >>> import rlm
    >>> gain = rlm.stats.Estimate(0.0042, 0.0002, 0.0073)
    >>> gain.excludes(0), gain.format(100, "+")
    (True, '+0.42 [+0.02, +0.73]')
    """

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance from the lower bound to the upper one."""
        return self.high - self.low

    def excludes(self, value: float | int) -> bool:
        """Return True if the interval lies entirely to one side of a value."""
        return self.low > value or self.high < value

    def is_within(self, distance: float | int | None) -> bool:
        """Return True if the interval lies within this distance from 0."""
        return distance is not None and max(abs(self.low), abs(self.high)) <= distance

    def bounded(self, lowest: float | int, highest: float | int, keep_zero: bool = False) -> "Estimate":
        """Clip the interval to possible means; an unbounded interval becomes missing."""
        low, high = self.low, self.high
        if not np.isfinite([low, high]).all():
            return Estimate(self.value, np.nan, np.nan)
        if keep_zero:  # by rounding a bound could lie beyond 0 although the test keeps 0
            low, high = min(low, 0.0), max(high, 0.0)
        return Estimate(self.value, max(low, float(lowest)), min(high, float(highest)))

    def digits(self, apart_from: float = 0.0, least: int = 1) -> int:
        """Count the decimals that show an eighth of the width, and on which side of a number a bound is."""
        digits = least
        if not np.isfinite(self.low):
            return digits
        while digits < MAX_DIGITS and (
            10.0**-digits > 0.126 * self.width > 0
            or (
                (self.excludes(apart_from) or digits == least)
                and any(round(bound, digits) == apart_from != bound for bound in self[1:])
            )
        ):
            digits += 1
        return digits

    def format(
        self,
        scale: float | int = 1,
        sign: str = "",
        digits: int | None = None,
        unit: str = "",
        missing: str = " [no interval]",
    ) -> str:
        """
        Format as ``"+1.2 [-0.3, +2.7]"``, with the decimals that the width justifies; ``"unknown"`` without a value.

        `scale` multiplies all numbers, `sign` is ``"+"`` to write that of positive ones, `unit` follows every number
        and `missing` replaces a missing interval.
        """
        if not np.isfinite(self.value):
            return "unknown"
        value, low, high = self.spell(scale, sign, digits, unit)
        if not np.isfinite(self.low):
            return f"{value}{missing}"
        return f"{value} [{low}, {high}]" if np.isfinite(self.high) else f"{value} [{low} or more]"

    def spell(self, scale: float | int = 1, sign: str = "", digits: int | None = None, unit: str = "") -> list[str]:
        """Spell value, low and high as `format` does."""
        scaled = Estimate(*(scale * number for number in self))
        places = scaled.digits() if digits is None else digits
        return [f"{number:{sign}z.{places}f}{unit}" for number in scaled]

    def __str__(self) -> str:
        return self.format(digits=2)


def intersect(
    low: Float[np.ndarray, " look"], high: Float[np.ndarray, " look"], means: Float[np.ndarray, " look"]
) -> Float[np.ndarray, "2 look"]:
    """
    Intersect intervals that hold simultaneously, up to each look, and keep the mean of each look inside.

    The bounds are missing from where on intervals have no point in common, or the mean is on the other side of 0 than
    an interval before it: then the intervals cannot hold.
    """
    low, high = np.maximum.accumulate(low), np.minimum.accumulate(high)
    is_contradicted = (low > high) | ((low > 0) & (means <= 0)) | ((high < 0) & (means >= 0))
    bounds = np.stack([np.minimum(low, means), np.maximum(high, means)])
    return np.where(np.logical_or.accumulate(is_contradicted), np.nan, bounds)


def spell_p(p: float) -> str:
    """Format a p value so that it is on the same side of 0.05 as the number."""
    if np.isnan(p):
        return "unknown"
    if p < 1e-4:
        return "< 0.0001"
    digits = 2
    while digits < MAX_DIGITS and (float(f"{p:.{digits}g}") < LEVEL) != (p < LEVEL):
        digits += 1
    return f"= {p:.{digits}g}"


class MeanTest:
    """
    Test of a zero mean of independent values, with an interval that agrees with it at every level.

    The largest p value of three tests counts: Student's t, the studentised bootstrap and, for paired differences, all
    sign flips. Student's t covers too little where two arms differ in skewness, the studentised bootstrap where values
    are bimodal or heavy-tailed; where one fails the other does not. Below 10 values only t is used. See Efron and
    Tibshirani, "An introduction to the bootstrap", 1993, section 12.5, and arXiv 2511.19794 for sign flips.
    """

    def __init__(self, values: np.ndarray, reach: float | int | None = None) -> None:
        """Prepare the test; values with a `reach`, see `ConfidenceSequence`, are paired differences."""
        rounding = find_rounding(reach)
        sign = -1 if values.mean() < 0 else 1
        values = np.sort(sign * values)  # neither the numbers of the seeds nor which arm comes first make a difference
        self.mean, self.n = sign * float(values.mean()), len(values)
        self.error = float(stats.sem(values)) if self.n > 1 and np.ptp(values) > 0 else 0.0
        self.differing = count_differing(values, rounding)
        self._scores: np.ndarray | None = None
        self._flips: SignFlips | None = None
        if self.can_tell and self.n >= FEWEST_PAIRS:
            self._scores = sign * _studentised(values, abs(self.mean))
            self._flips = None if reach is None else SignFlips(values, rounding)

    @property
    def can_tell(self) -> bool:
        """True if enough values differ for an interval."""
        return self.error > 0 and (self.n < FEWEST_PAIRS or self.differing >= FEWEST_DIFFERING)

    @property
    def t(self) -> float:
        """Student's t statistic."""
        return self.mean / self.error

    @cached_property
    def p(self) -> float:
        """Smallest level at which the interval excludes 0; 1 without an interval."""
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
        """Return the mean and its interval at a level, clipped to possible means; bounds may be missing."""
        if not self.can_tell:
            return Estimate(self.mean, np.nan, np.nan)
        below, above = (self._reach(sign, level) * self.error for sign in (1, -1))
        found = Estimate(self.mean, self.mean - below, self.mean + above)
        return found.bounded(lowest, highest, keep_zero=self._flips is not None and self.p >= level)

    def _reach(self, sign: int, level: float) -> float:
        """Return the standard errors from the mean to the bound that the widest test gives."""
        found = [float(stats.t.ppf(1 - level / 2, self.n - 1))]
        if self._scores is not None:
            found.append(_exceeded_by(sign * self._scores, level / 2))
        if self._flips is not None:
            found.append(self._flips.reach(level))
        return max(found)


def _exceeded_by(scores: np.ndarray, share: float) -> float:
    """Return the smallest score s such that at most this share of the scores are larger than s."""
    place = int(np.ceil(share * len(scores) * (1 - 1e-12)))  # counted from the largest score
    return float(np.partition(scores, len(scores) - place)[len(scores) - place]) if place else np.inf


def _studentised(values: np.ndarray, mean: float) -> np.ndarray:
    """Resample the t statistic around the mean."""

    def statistic(sample: np.ndarray, axis: int) -> np.ndarray:
        return (sample.mean(axis=axis) - mean) / stats.sem(sample, axis=axis)

    # A resample of one repeated value has no standard error; its t is infinite.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(action="ignore"):
        scores = stats.bootstrap(
            (values,), statistic, method="percentile", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).bootstrap_distribution
    return scores[~np.isnan(scores)]


class SignFlips:
    """
    Sign-flip permutation test: all flips of up to 20 differences, else random flips.

    Random flips cannot tell p values below one by their number apart, which planned looks ask for; Student's t does.
    """

    def __init__(self, differences: np.ndarray, rounding: float = 0.0) -> None:
        self.n, self.square = len(differences), float(np.square(differences).sum())
        self.found = abs(float(differences.sum()))
        self.sums = np.abs(_flipped_sums(differences))
        self.tie = max(TIE * float(np.abs(differences).sum()), self.n * rounding)  # equal sums differ by rounding

    @property
    def p(self) -> float:
        """Share of flips whose sum is at least as far from 0 as the observed one."""
        return float(np.mean(self.sums >= self.found - self.tie))

    def reach(self, level: float) -> float:
        """Return the |t| that less than this share of the flips exceed; |t| grows with the sum."""
        total = _exceeded_by(self.sums, level) + self.tie
        spread = self.square - total**2 / self.n
        return total / self.n / float(np.sqrt(spread / (self.n * (self.n - 1)))) if spread > 0 else np.inf


def _flipped_sums(differences: np.ndarray) -> np.ndarray:
    """Sum the sorted differences under flips of their signs, up to the sign of the sum."""
    sizes = np.sort(np.abs(differences))
    if len(sizes) <= EXACT_PAIRS:
        sums = sizes[-1:]
        for size in sizes[:-1]:
            sums = np.concatenate([sums + size, sums - size])
        return sums
    rng = np.random.default_rng(0)
    return np.where(rng.random((RESAMPLES, len(sizes))) < 0.5, -sizes, sizes).sum(axis=1)


def find_rounding(reach: float | int | None) -> float:
    """Return how far the difference of two values in float32 may be off, by the largest possible difference."""
    return FLOAT32 * reach if reach is not None and np.isfinite(reach) else 0.0


def count_differing(values: np.ndarray, rounding: float = 0.0) -> int:
    """Count the values that differ from the most frequent one by more than rounding."""
    unit = max(float(np.abs(values).max()) * SAME, 2 * rounding)
    group = np.cumsum(np.diff(np.sort(values), prepend=-np.inf) > unit)
    return len(values) - int(np.bincount(group).max())


def mean_with_interval(values: np.ndarray, lowest: float | int = -np.inf, highest: float | int = np.inf) -> Estimate:
    """Estimate the mean of independent values, see `MeanTest`; the interval is clipped to possible means."""
    return MeanTest(values).interval(lowest=lowest, highest=highest)


def proportion(count: int, of: int) -> Estimate:
    """Estimate a share with its Clopper-Pearson interval; 0.5 [0, 1] of nothing."""
    if not of:
        return Estimate(0.5, 0.0, 1.0)
    interval = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(count / of, float(interval.low), float(interval.high))


def ratio_of_variances(treated: np.ndarray, control: np.ndarray) -> tuple[Estimate, float]:
    """
    Estimate the ratio of two paired samples' variances, and the p value of a ratio of 1.

    A variance is a mean of squared deviations, so the interval is Fieller's for a ratio of means: it keeps each ratio r
    for which the differences treated² - r control² have a mean that Student's t cannot distinguish from 0. The upper
    bound is infinite where the data allow the control not to vary. All is missing with fewer than three pairs, or where
    all but three values of a sample are equal. Fieller, "Some problems in interval estimation", Journal of the Royal
    Statistical Society B 16, 1954.
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
    # The control's variance may be 0: the kept ratios lie outside the bounds. Where they lie on both sides, the
    # interval includes the gap between them.
    other, low = sorted(((b + root) / a, (b - root) / a)) if a < 0 and root > 0 else (0.0, 0.0)
    found = Estimate(value, low if other <= 0 < low <= value else 0.0, np.inf)
    return found, p if found.excludes(1.0) else max(p, LEVEL)


def holm(p_values: Mapping[Name, float]) -> dict[Name, tuple[float, float]]:
    """
    Correct p values for their number: by name, the corrected p value and the level of the interval that agrees with it.

    The level is 5 % divided by the number of p values not smaller, up to the first that is not below its level. So the
    order of equal p values makes no difference. Holm,
    "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, largest, level = {}, 0.0, LEVEL
    for p in sorted(set(p_values.values())):
        left = sum(other >= p for other in p_values.values())
        if largest < LEVEL:  # all smaller ones are significant, so the next may use a larger level
            level = LEVEL / left
        largest = max(largest, min(1.0, left * p))
        adjusted |= {name: (largest, level) for name in p_values if p_values[name] == p}
    return adjusted
