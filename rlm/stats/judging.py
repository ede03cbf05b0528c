"""Judge paired differences of several arms: an interval, a p value and a decision that never contradict each other."""

from collections.abc import Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.stats.anytime import ConfidenceSequence, confidence_sequence, sides_of_zero, smallest_p
from rlm.stats.estimates import FEWEST_PAIRS, LEVEL, Estimate, MeanTest, Name, holm
from rlm.stats.metrics import Metric
from rlm.stats.planned import PlannedLooks, spend

Decision = Literal["helps", "hurts", "the same", "no evidence either way", "too few seeds"]
# Whether somebody looked at results before all seeds were finished: never, at any time, or at planned numbers of pairs.
Watched = bool | tuple[int, ...]


class Judged(NamedTuple):
    """
    Result of the tests of one arm; no decision is possible with fewer than `enough` pairs.

    The interval of `difference` has 1 - `level` confidence, Holm-corrected for several arms. The corrected `p` is below
    0.05 exactly where the interval excludes 0.
    """

    difference: Estimate
    p: float
    pairs: int
    enough: int
    level: float

    def decide(self, metric: Metric) -> Decision:
        """Decide where the interval excludes 0, or lies within the difference that counts as the same."""
        if self.pairs < self.enough:
            return "too few seeds"
        if self.difference.excludes(0.0):
            return "helps" if (self.difference.value > 0) == (metric.better == "higher") else "hurts"
        return "the same" if self.difference.is_within(metric.same_within) else "no evidence either way"


def judge(
    differences: Mapping[Name, np.ndarray], reach: float | int = 1, *, watched: Watched = False
) -> dict[Name, Judged]:
    """
    Judge paired differences to one baseline by arm, with Holm's correction.

    The p value and the interval come from the same tests: `MeanTest`, for planned looks `PlannedLooks`, or the
    confidence sequence at its last look if the study was watched at any time. The interval has the level that Holm's
    procedure compares the p value with, so both agree.
    """
    if not differences:
        return {}
    enough = pairs_to_judge(len(differences), watched=watched)
    tests = {arm: _test(found, reach, watched) for arm, found in differences.items()}
    judged = {}
    for arm, (p, level) in holm({arm: test.p for arm, test in tests.items()}).items():
        interval = tests[arm].interval(level, -reach, reach)
        if not np.isfinite(interval.low):  # without an interval nothing is excluded
            p = 1.0
        judged[arm] = Judged(interval, p, len(differences[arm]), enough, level)
    return {arm: judged[arm] for arm in differences}


def _test(
    differences: np.ndarray, reach: float | int, watched: Watched
) -> MeanTest | ConfidenceSequence | PlannedLooks:
    if isinstance(watched, tuple):
        return PlannedLooks(differences, watched, reach)
    return confidence_sequence(differences, reach) if watched else MeanTest(differences, reach)


def pairs_to_judge(arms: int, *, watched: Watched = False) -> int:
    """
    Count the pairs, at least 10, from which on the smallest possible corrected p value of an arm is significant.

    That is 2 sign patterns of 2^pairs in the sign-flip test, or that of the confidence sequence. Of planned looks, the
    first at which that is so counts, or the last.
    """
    if arms < 1:
        raise InputError(f"expected at least one arm to compare, found {arms}; pass arms beside the baseline")
    if isinstance(watched, tuple):
        levels = zip(watched, spend(watched, LEVEL / arms), strict=True)
        return next((look for look, level in levels if 2.0 ** (1 - look) < level), watched[-1])
    pairs = FEWEST_PAIRS
    while arms * (smallest_p(pairs) if watched else 2.0 ** (1 - pairs)) >= LEVEL:
        pairs += 1
    return pairs


# Successive elimination (Even-Dar, Mannor and Mansour, Journal of Machine Learning Research 7, 2006) with confidence
# sequences of the paired differences. The best of k settings is dropped only if one of its k - 1 differences, none of
# which is below 0 in truth, has a sequence that lies below 0. Each has the level 0.05 / (k - 1), so the union bound
# keeps the best with 95 % probability, at whatever number of seeds the race stops.
def race_level(settings: int) -> float:
    """Return the level of each confidence sequence in a race of a number of settings."""
    return LEVEL / max(1, settings - 1)


def find_beaten(by_seed: pd.DataFrame, settings: int, reach: float | int = 1) -> dict[str, str]:
    """Return the columns that are certainly worse than another, in a race that began with `settings`, with that one."""
    values, pairs = by_seed.to_numpy(dtype=float), list(combinations(range(by_seed.shape[1]), 2))
    first, second = (values[:, [pair[place] for pair in pairs]] for place in (0, 1))
    beaten = {}
    for pair, side in zip(pairs, sides_of_zero(first - second, race_level(settings), reach), strict=True):
        if side:
            worse, better = pair[::-1] if side > 0 else pair
            beaten.setdefault(by_seed.columns[worse], by_seed.columns[better])
    return beaten


def plan_looks(seeds: int, every: int) -> tuple[int, ...]:
    """List the numbers of pairs at which a study of these seeds is looked at, the last one included."""
    if not FEWEST_PAIRS <= every < seeds:
        raise InputError(
            f"expected a look after every {FEWEST_PAIRS} seeds or more, and before the last, found every {every} of "
            f"{seeds} seeds; plan more seeds or fewer looks"
        )
    return (*range(every, seeds, every), seeds)
