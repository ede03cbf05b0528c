"""Confidence sequences: intervals for a mean that hold simultaneously, at every look and for any stopping rule."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import stats

from rlm.errors import InputError
from rlm.stats.estimates import (
    FEWEST_DIFFERING,
    FEWEST_PAIRS,
    LEVEL,
    Estimate,
    count_differing,
    find_rounding,
    intersect,
)

PRIOR_SHARE = 0.25  # makes the sequence narrowest at a few dozen pairs
SMALLEST = 1e-4  # share of the largest possible difference below which deviations do not set the prior
NODES = np.arange(1, 41) * 0.15  # of the standard normal distribution that is mixed over, on either side of 0
BESIDE_ZERO = 1e-3  # share of a mean
GRID = 201  # means for which the evidence is computed; bounds are interpolated between them


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
        """Return `table` with bounds at another level; bounds are missing where no look can tell."""
        pairs = len(self.differences)
        looks = np.arange(min(FEWEST_PAIRS, pairs), pairs + 1)
        means = (self.differences.cumsum() / np.arange(1, pairs + 1))[looks - 1]
        bounds = np.full((2, len(looks)), np.nan)
        first = self._first_look
        if first is not None:
            counted = slice(first - FEWEST_PAIRS, None)
            bounds[:, counted] = intersect(*self._bounds(level), means[counted])
        return pd.DataFrame({"pairs": looks, "value": means, "low": bounds[0], "high": bounds[1]})

    @property
    def p(self) -> float:
        """P value, valid for any stopping rule; 1 before the 10th pair, and if all but three differences are equal."""
        if self._first_look is None:
            return 1.0
        means, evidence = self._evidence
        return float(min(1.0, np.exp(-evidence[:, np.searchsorted(means, 0.0)].max())))

    @property
    def last(self) -> Estimate:
        """Latest mean with its 95 % interval; without bounds where `p` cannot be computed."""
        return self.interval(LEVEL)

    def interval(self, level: float, lowest: float | int = -np.inf, highest: float | int = np.inf) -> Estimate:
        """Return the latest mean and its interval at a level, clipped to possible means; bounds may be missing."""
        last = self.table_at(level).iloc[-1]
        found = Estimate(float(last["value"]), float(last["low"]), float(last["high"]))
        return found.bounded(lowest, highest, keep_zero=self.p >= level)

    @cached_property
    def _first_look(self) -> int | None:
        """The number of pairs from which on enough differences differ; an earlier look could show a false certainty."""
        for pairs in range(FEWEST_PAIRS, len(self.differences) + 1):
            if count_differing(self.differences[:pairs], find_rounding(self.reach)) >= FEWEST_DIFFERING:
                return pairs
        return None

    def _far(self, pairs: int | None = None) -> float:
        """Return a finite bound on the mean, even if the metric has none; by the first pairs alone if that is asked."""
        if np.isfinite(self.reach):
            return self.reach
        return 1e3 * max(float(np.abs(self.differences[:pairs]).max()), 1e-300)

    @cached_property
    def _evidence(self) -> tuple[Float[np.ndarray, " mean"], Float[np.ndarray, "look mean"]]:
        """The means that were tried, 0 among them, and the logarithm of the evidence against each at every look."""
        mean, far = float(self.differences.mean()), self._far()
        unit = float(self.differences.std()) / 4  # the means are as close as this, and less close farther away
        spaced = mean + unit * np.sinh(np.linspace(-1, 1, GRID) * np.arcsinh(2 * far / unit))
        means = np.unique(np.append(spaced[np.abs(spaced) < far], [-far, 0.0, far]))
        apart = self.differences[:, None] - means
        # Ties among the first pairs carry no information on the scale.
        start = np.square(apart[:FEWEST_PAIRS]).sum(axis=0)
        smallest = SMALLEST * self._far(self._first_look)  # later pairs must not change what an earlier look tells
        prior = PRIOR_SHARE * np.maximum(start, FEWEST_PAIRS * smallest**2)
        return means, _log_mixture(apart / np.sqrt(prior))[(self._first_look or 1) - 1 :]

    def _bounds(self, level: float) -> tuple[Float[np.ndarray, " look"], Float[np.ndarray, " look"]]:
        """Return the farthest means on either side that are not excluded, at every look."""
        means, evidence = self._evidence
        over = evidence + np.log(level)  # 0 where a mean is just excluded
        looks, inside = np.arange(len(over)), over < 0

        def between(place: np.ndarray, beyond: np.ndarray) -> np.ndarray:
            near, out = over[looks, place], over[looks, beyond]
            share = np.where(place == beyond, 0.0, near / np.where(near == out, 1.0, near - out))
            return means[place] + share * (means[beyond] - means[place])

        low, high = inside.argmax(axis=1), len(means) - 1 - inside[:, ::-1].argmax(axis=1)
        low, high = between(low, np.maximum(low - 1, 0)), between(high, np.minimum(high + 1, len(means) - 1))
        # Where early differences are much closer than later ones, all means that are left lie between two neighbours.
        pairs = len(self.differences) - len(over) + 1 + looks
        latest = self.differences.cumsum()[pairs - 1] / pairs
        cell = np.searchsorted(means, latest).clip(1, len(means) - 1)
        is_found = inside.any(axis=1)
        low, high = np.where(is_found, low, means[cell - 1]), np.where(is_found, high, means[cell])
        # There a bound can be 0 itself, even where the evidence, and so p, excludes 0.
        edge = np.where(inside[:, np.searchsorted(means, 0.0)], 0.0, BESIDE_ZERO * latest)
        return np.where(edge > 0, np.maximum(low, edge), low), np.where(edge < 0, np.minimum(high, edge), high)


def _log_mixture(scaled: Float[np.ndarray, "pair mean"]) -> Float[np.ndarray, "pair mean"]:
    """
    Mix prod exp(k x) / cosh(k x) over standard normal k, up to each pair x, and take the logarithm.

    The mean over random signs of each factor is 1. So this holds for any nodes of k; more of them gain nothing.
    """
    sums = scaled.cumsum(axis=0)
    weights = np.append(stats.norm.pdf(0.0), 2 * stats.norm.pdf(NODES))
    mixed = np.full_like(sums, np.log(weights[0]))
    for node, weight in zip(NODES, weights[1:], strict=True):
        mixed = np.logaddexp(mixed, np.log(weight) + _log_cosh(node * sums) - _log_cosh(node * scaled).cumsum(axis=0))
    return mixed - np.log(weights.sum())


def _log_cosh(x: np.ndarray) -> np.ndarray:
    size = np.abs(x)
    return size + np.log1p(np.exp(-2 * size)) - np.log(2)


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
        Intervals clipped to [-reach, reach]. Each is inside the one before it, so a decision is not taken back. The
        bounds are missing if the looks contradict each other: then the assumption below is wrong.

    Raises
    ------
    InputError
        If there are no differences, or one is missing or farther from 0 than `reach`.

    Notes
    -----
    Given their distances from the mean m, differences that are symmetric around m are distances x with random signs. So
    the product of exp(k x) / cosh(k x) is a martingale for every k, and so is its mean over normal k with variance
    1 / r. With 95 % probability it never reaches 20; the intervals hold all m for which it never has. r is a share of
    the sum of the first ten x², which the signs do not change. Differences of equal arms are symmetric for any
    distribution of the accuracies; for arms of unlike shape the coverage was measured, see docs/calibration.md.

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


def sides_of_zero(
    differences: Float[np.ndarray, "pair column"], level: float, reach: float | int = 1
) -> Int[np.ndarray, " column"]:
    """Return by column 1 or -1 where the sequence at a level lies above or below 0, else 0, without the intervals."""
    first = np.array([ConfidenceSequence(one, float(reach))._first_look or len(one) + 1 for one in differences.T])
    start = np.square(differences[:FEWEST_PAIRS]).sum(axis=0)
    prior = PRIOR_SHARE * np.maximum(start, FEWEST_PAIRS * (SMALLEST * reach) ** 2)
    pairs = np.arange(1, len(differences) + 1)[:, None]
    evidence = np.where(pairs < first, -np.inf, _log_mixture(differences / np.sqrt(prior)))
    look = evidence.argmax(axis=0), np.arange(len(first))
    return np.where(evidence[look] > -np.log(level), np.sign(differences.cumsum(axis=0)[look]), 0).astype(int)


def smallest_p(pairs: int) -> float:
    """Return the smallest p value a sequence of at least 10 pairs can reach: equal differences of one sign."""
    equal = np.full((pairs, 1), 1 / np.sqrt(PRIOR_SHARE * FEWEST_PAIRS))
    return float(np.exp(-_log_mixture(equal)[-1, 0]))
