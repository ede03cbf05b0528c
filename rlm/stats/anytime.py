"""Confidence sequences: intervals for a mean that hold simultaneously, at every look and for any stopping rule."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlm.errors import InputError
from rlm.stats.estimates import FEWEST_DIFFERING, FEWEST_PAIRS, LEVEL, Estimate, count_differing

PRIOR_SHARE = 0.25  # makes the sequence narrowest at a few dozen pairs
SMALLEST = 1e-4  # share of the largest possible difference below which deviations do not set the prior
BISECTIONS = 50


@dataclass(frozen=True)
class ConfidenceSequence:
    """
    Mean of paired `differences`, none larger than `reach`, after each pair, with intervals that hold simultaneously.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> gains = np.random.default_rng(0).normal(0.02, 0.01, size=12)
    >>> list(rlm.stats.confidence_sequence(gains).table["pairs"])
    [10, 11, 12]
    """

    differences: np.ndarray
    reach: float

    @property
    def table(self) -> pd.DataFrame:
        """One row per pair from the 10th on: pairs, value, low, high (95 %); one row without bounds before that."""
        return self.table_at(LEVEL)

    def table_at(self, level: float) -> pd.DataFrame:
        """Return `table` with bounds at another level."""
        pairs = len(self.differences)
        if pairs < FEWEST_PAIRS:
            value = [self.differences.mean()]
            return pd.DataFrame({"pairs": [pairs], "value": value, "low": np.nan, "high": np.nan})
        low, high = self._bounds(level)
        looks = np.arange(FEWEST_PAIRS, pairs + 1)
        return pd.DataFrame({"pairs": looks, "value": self._means, "low": low, "high": high})

    @property
    def p(self) -> float:
        """P value, valid for any stopping rule; 1 before the 10th pair, and if all but three differences are equal."""
        if not self._can_tell:
            return 1.0
        return float(min(1.0, np.exp(-self._log_evidence(0.0)[-1])))

    @property
    def last(self) -> Estimate:
        """Latest mean with its 95 % interval; without bounds where `p` cannot be computed."""
        return self.interval(LEVEL)

    def interval(self, level: float, lowest: float | int = -np.inf, highest: float | int = np.inf) -> Estimate:
        """Return the latest mean and its interval at a level, clipped to possible means; bounds may be missing."""
        mean = float(self.differences.mean())
        if not self._can_tell:
            return Estimate(mean, np.nan, np.nan)
        low, high = (float(bound[-1]) for bound in self._bounds(level))
        return Estimate(mean, low, high).bounded(lowest, highest, keep_zero=self.p >= level)

    @property
    def _can_tell(self) -> bool:
        return len(self.differences) >= FEWEST_PAIRS and count_differing(self.differences) >= FEWEST_DIFFERING

    @property
    def _far(self) -> float:
        """A finite bound on the mean, even if the metric has none."""
        return self.reach if np.isfinite(self.reach) else 1e3 * max(float(np.abs(self.differences).max()), 1e-300)

    @property
    def _means(self) -> np.ndarray:
        return (self.differences.cumsum() / np.arange(1, len(self.differences) + 1))[FEWEST_PAIRS - 1 :]

    def _log_evidence(self, m: np.ndarray | float) -> np.ndarray:
        """Compute the logarithm of the supermartingale against the mean m, at every look."""
        pairs = np.arange(FEWEST_PAIRS, len(self.differences) + 1)
        mean, square = self._means, np.square(self.differences).cumsum()[FEWEST_PAIRS - 1 :]
        spread = square - 2 * m * pairs * mean + pairs * np.square(m)
        start = square[0] - 2 * m * pairs[0] * mean[0] + pairs[0] * np.square(m)
        # Ties among the first pairs carry no information on the scale.
        prior = PRIOR_SHARE * np.maximum(start, FEWEST_PAIRS * (SMALLEST * self._far) ** 2)
        spread = np.maximum(spread, start)  # monotone except for rounding
        return np.square(pairs * (mean - m)) / (2 * (prior + spread)) - np.log1p(spread / prior) / 2

    def _bounds(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Bisect for the farthest means on either side that are not excluded, at every look."""

        def bound(far: float) -> np.ndarray:
            inside, outside = self._means.copy(), np.full_like(self._means, far)
            reaches = self._log_evidence(outside) >= -np.log(level)
            for _ in range(BISECTIONS):
                middle = (inside + outside) / 2
                is_outside = self._log_evidence(middle) >= -np.log(level)
                inside, outside = np.where(is_outside, inside, middle), np.where(is_outside, middle, outside)
            return np.where(reaches, outside, far)

        return bound(-self._far), bound(self._far)


def confidence_sequence(differences: ArrayLike, reach: float | int = 1) -> ConfidenceSequence:
    """
    Compute intervals for a mean difference that hold simultaneously with 95 % probability.

    Parameters
    ----------
    differences
        Numbers from -reach to reach, in an order that does not depend on their values, such as that of the seeds.
    reach
        Largest possible difference: 1 for accuracies.

    Returns
    -------
    ConfidenceSequence
        Intervals clipped to [-reach, reach].

    Raises
    ------
    InputError
        If there are no differences, or one is missing or farther from 0 than `reach`.

    Notes
    -----
    Given their distances from the mean m, differences that are symmetric around m are distances with random signs. So
    exp(k S - k² V / 2), with S the sum of the deviations and V the sum of their squares, is a supermartingale for every
    k. So is its mean over normal k with variance 1 / r, which is sqrt(r / (r + V)) exp(S² / (2 (r + V))). With 95 %
    probability it never reaches 20; an interval holds all m for which it has not. r is a share of V after the 10th
    pair, which the signs do not change. Differences of equal arms are symmetric for any distribution of the
    accuracies; otherwise the intervals rely on the central limit theorem, and their coverage was measured.

    References
    ----------
    de la Peña, "A general class of exponential inequalities for martingales and ratios", Annals of Probability 27,
    1999; Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
    Annals of Statistics 49, 2021, section 3.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> gains = np.random.default_rng(0).normal(0.02, 0.01, size=30)
    >>> rlm.stats.confidence_sequence(gains).last.excludes(0)
    True
    """
    try:
        values = np.asarray(differences, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected differences that are numbers, found {differences!r}; convert them") from error
    if values.ndim != 1 or not len(values) or not (np.abs(values) <= reach).all() or not np.isfinite(values).all():
        raise InputError(
            f"expected a list of at least one difference from {-reach:g} to {reach:g}, none missing, found "
            f"{np.array2string(values, threshold=6)}; give a failed seed a value first, or pass a larger reach"
        )
    return ConfidenceSequence(values, float(reach))


def smallest_p(pairs: int) -> float:
    """Return the smallest p value a sequence of at least 10 pairs can reach: equal differences of one sign."""
    prior = PRIOR_SHARE * FEWEST_PAIRS
    return float(np.exp(np.log1p(pairs / prior) / 2 - pairs**2 / (2 * (prior + pairs))))
