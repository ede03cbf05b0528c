"""Planned looks: intervals for a mean at a few numbers of pairs that were fixed before the study."""

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from scipy import optimize, stats

from rlm.stats.estimates import Estimate, MeanTest, intersect

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)  # to integrate over the statistic between two looks
LEVELS = [*np.geomspace(1e-9, 0.5, 100).tolist(), 0.6, 0.7, 0.8, 0.9, 0.99, 1 - 1e-9]  # p values are searched between
TOLERANCE = 1e-5  # relative, of a p value


class PlannedLooks:
    """
    Test of a zero mean of paired differences at planned numbers of pairs, with intervals that hold at all of them.

    Each look is a `MeanTest` at the level of `spend`: repeated confidence intervals, whose intersection is taken.
    Jennison and Turnbull, "Interim analyses: the repeated confidence interval approach", Journal of the Royal
    Statistical Society B 51, 1989.
    """

    def __init__(self, differences: np.ndarray, looks: Sequence[int], reach: float | int = 1) -> None:
        self.differences, self.looks = differences, tuple(looks)
        done = [look for look in self.looks if look <= len(differences)]
        self.tests = [MeanTest(differences[:look], reach) for look in done]

    @cached_property
    def p(self) -> float:
        """Smallest level at which the interval excludes 0; 1 before the first look."""
        if not self._excludes_zero(LEVELS[-1]):
            return 1.0
        place = next(place for place, level in enumerate(LEVELS) if self._excludes_zero(level))
        low, high = LEVELS[max(place - 1, 0)], LEVELS[place]
        while high > low * (1 + TOLERANCE):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self._excludes_zero(middle) else (middle, high)
        return high

    def interval(self, level: float, lowest: float | int = -np.inf, highest: float | int = np.inf) -> Estimate:
        """Return the mean of all pairs and its interval at a level, clipped to possible means; it may be missing."""
        mean = float(self.differences.mean())
        found = [test.interval(share) for test, share in zip(self.tests, spend(self.looks, level), strict=False)]
        told = [(one.low, one.high, one.value) for one in found if np.isfinite(one.low)]
        if not told:
            return Estimate(mean, np.nan, np.nan)
        low, high, means = np.transpose(told)
        bounds = intersect(low, high, np.append(means[:-1], mean))[:, -1]
        return Estimate(mean, *map(float, bounds)).bounded(lowest, highest, keep_zero=not self._excludes_zero(level))

    def _excludes_zero(self, level: float) -> bool:
        return any(test.p < share for test, share in zip(self.tests, spend(self.looks, level), strict=False))


@lru_cache(maxsize=4096)
def spend(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """
    Divide a level among looks at these numbers of pairs: the level of the test at each of them.

    By the share t of the planned pairs, 2 - 2 Φ(z / √t) of the level is spent on either side up to a look, as O'Brien
    and Fleming do: little early, nearly all at the end. Lan and DeMets, "Discrete sequential boundaries for clinical
    trials", Biometrika 70, 1983. The levels follow by integration: Armitage, McPherson and Rowe, "Repeated
    significance tests on accumulating data", Journal of the Royal Statistical Society A 132, 1969.
    """
    times = np.sqrt(np.array(looks) / looks[-1])
    spent = 4 * stats.norm.sf(stats.norm.isf(level / 4) / times)
    bound, levels = float(stats.norm.isf(spent[0] / 2)), [float(spent[0])]
    places, mass = bound * times[0] * NODES, bound * times[0] * WEIGHTS
    mass = mass * stats.norm.pdf(places, scale=times[0])  # of the studies that go on, by their statistic
    for look in range(1, len(looks)):
        step, due = (times[look] ** 2 - times[look - 1] ** 2) ** 0.5, spent[look] - spent[look - 1]

        def excess(bound: float) -> float:
            crossed = 2 * mass @ stats.norm.sf(bound * times[look], places, step)  # noqa: B023 - called here only
            return float(crossed - due)  # noqa: B023

        bound = optimize.brentq(excess, 0, 40)
        levels.append(float(2 * stats.norm.sf(bound)))
        ends = bound * times[look] * NODES
        mass = bound * times[look] * WEIGHTS * (stats.norm.pdf(ends[:, None], places, step) @ mass)
        places = ends
    return tuple(levels)
