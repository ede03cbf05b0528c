"""A confidence sequence: intervals for a mean that hold together, however often one looks and whenever one stops."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from rlm.estimates import CONFIDENCE, FEWEST_PAIRS, Estimate

PRIOR_SHARE = 0.25  # tunes the sequence to be narrowest at some tens of pairs
BISECTIONS = 50


class Sequence(NamedTuple):
    """
    What could be said of a mean paired difference after each pair.

    Attributes
    ----------
    table
        One row per pair from the 10th on: pairs, value, low, high.
    p
        The smallest level at which the sequence has excluded 0 so far; may be read at any time.
    """

    table: pd.DataFrame
    p: float

    @property
    def last(self) -> Estimate:
        """The latest mean and its interval; without bounds before the 10th pair."""
        return Estimate(*self.table[["value", "low", "high"]].iloc[-1])


def confidence_sequence(differences: Float[np.ndarray, " pair"]) -> Sequence:
    """
    Intervals for a mean difference of accuracies; with 95 % probability all of them hold it.

    Parameters
    ----------
    differences
        Values in [-1, 1], in an order that does not depend on them, such as that of the seeds.

    Returns
    -------
    Sequence
        Its intervals go no farther than [-1, 1].

    Notes
    -----
    Given their distances from the mean m, differences that lie symmetrically around it are distances with random
    signs. So exp(k S - k² V / 2), with S the sum of the deviations and V that of their squares, is a supermartingale
    for every k, and so is its mean over normal k of variance 1 / r, which is sqrt(r / (r + V)) exp(S² / (2 (r + V))).
    With 95 % probability it never reaches 20; an interval holds the m at which it has not. r is a share of V after
    the 10th pair, which the signs do not change. Differences of arms that do not differ are symmetric, whatever the
    shape of the accuracies; for other shapes it holds by the central limit theorem, and as measured.

    References
    ----------
    de la Peña, "A general class of exponential inequalities for martingales and ratios", Annals of Probability 27,
    1999; Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
    Annals of Statistics 49, 2021, section 3.
    """
    pairs = np.arange(1, len(differences) + 1)
    mean = differences.cumsum() / pairs
    if len(pairs) < FEWEST_PAIRS:
        table = pd.DataFrame({"pairs": pairs[-1:], "value": mean[-1:], "low": np.nan, "high": np.nan})
        return Sequence(table, 1.0)
    square = np.square(differences).cumsum()
    looks = slice(FEWEST_PAIRS - 1, None)
    pairs, mean, square = pairs[looks], mean[looks], square[looks]

    def log_evidence(m: np.ndarray | float) -> np.ndarray:
        """Logarithm of the supermartingale at every look."""
        spread = square - 2 * m * pairs * mean + pairs * np.square(m)
        start = square[0] - 2 * m * pairs[0] * mean[0] + pairs[0] * np.square(m)
        prior = np.maximum(PRIOR_SHARE * start, np.finfo(float).tiny)
        spread = np.maximum(spread, start)  # rounding aside it never falls
        return np.square(pairs * (mean - m)) / (2 * (prior + spread)) - np.log1p(spread / prior) / 2

    limit = -np.log(1 - CONFIDENCE)

    def bound(far: float) -> np.ndarray:
        inside, outside = mean.copy(), np.full_like(mean, far)
        reaches = log_evidence(outside) >= limit
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            is_outside = log_evidence(middle) >= limit
            inside, outside = np.where(is_outside, inside, middle), np.where(is_outside, middle, outside)
        return np.where(reaches, outside, far)

    table = pd.DataFrame({"pairs": pairs, "value": mean, "low": bound(-1.0), "high": bound(1.0)})
    return Sequence(table, float(min(1.0, np.exp(-log_evidence(0.0).max()))))
