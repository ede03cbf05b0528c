"""Judge paired differences of several arms: an interval, a p value and a decision that never contradict each other."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from rlm.errors import InputError
from rlm.stats.anytime import confidence_sequence, smallest_p
from rlm.stats.estimates import FEWEST_PAIRS, LEVEL, Estimate, MeanTest, Name, holm

Decision = Literal["helps", "hurts", "no evidence either way", "too few seeds"]


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

    def decide(self, better: Literal["higher", "lower"] = "higher") -> Decision:
        """Decide for or against the arm, only where the interval excludes 0."""
        if self.pairs < self.enough:
            return "too few seeds"
        if not self.difference.excludes(0.0):
            return "no evidence either way"
        return "helps" if (self.difference.value > 0) == (better == "higher") else "hurts"


def judge(
    differences: Mapping[Name, np.ndarray], reach: float | int = 1, *, watched: bool = False
) -> dict[Name, Judged]:
    """
    Judge paired differences to one baseline by arm, with Holm's correction.

    The p value and the interval come from the same tests: `MeanTest`, or the confidence sequence at its last look if
    the study was watched. The interval has the level that Holm's procedure compares the p value with, so both agree.
    """
    if not differences:
        return {}
    enough = pairs_to_judge(len(differences), watched=watched)
    tests = {
        arm: confidence_sequence(found, reach) if watched else MeanTest(found, are_differences=True)
        for arm, found in differences.items()
    }
    judged = {}
    for arm, (p, level) in holm({arm: test.p for arm, test in tests.items()}).items():
        interval = tests[arm].interval(level, -reach, reach)
        if not np.isfinite(interval.low):  # without an interval nothing is excluded
            p = 1.0
        judged[arm] = Judged(interval, p, len(differences[arm]), enough, level)
    return {arm: judged[arm] for arm in differences}


def pairs_to_judge(arms: int, *, watched: bool = False) -> int:
    """
    Count the pairs, at least 10, from which on the smallest possible corrected p value of an arm is significant.

    That is 2 sign patterns of 2^pairs in the sign-flip test, or that of the confidence sequence.
    """
    if arms < 1:
        raise InputError(f"expected at least one arm to compare, found {arms}; pass arms beside the baseline")
    pairs = FEWEST_PAIRS
    while arms * (smallest_p(pairs) if watched else 2.0 ** (1 - pairs)) >= LEVEL:
        pairs += 1
    return pairs
