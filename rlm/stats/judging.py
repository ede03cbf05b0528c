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
    What paired differences support.

    Attributes
    ----------
    difference
        The mean, with the interval that decides: for one arm of 95 %, for several as wide as Holm's correction asks.
    p
        Corrected p value: below 0.05 exactly where the interval excludes 0.
    pairs
        How many it rests on.
    enough
        The fewest pairs with which anything could be found.
    level
        Of the interval: one minus its confidence.
    """

    difference: Estimate
    p: float
    pairs: int
    enough: int
    level: float

    def decide(self, better: Literal["higher", "lower"] = "higher") -> Decision:
        """
        Decide: for or against the arm only where the interval excludes 0.

        Parameters
        ----------
        better
            Which direction of the metric is better.

        Returns
        -------
        str
            The decision of a `Verdict`.
        """
        if self.pairs < self.enough:
            return "too few seeds"
        if not self.difference.excludes(0.0):
            return "no evidence either way"
        return "helps" if (self.difference.value > 0) == (better == "higher") else "hurts"


def judge(
    differences: Mapping[Name, np.ndarray], reach: float | int = 1, *, watched: bool = False
) -> dict[Name, Judged]:
    """
    Judge the paired differences of several arms to one baseline, with Holm's correction.

    Parameters
    ----------
    differences
        By arm, of pairs, in the order of the seeds.
    reach
        The largest difference that is possible.
    watched
        Whether somebody looked before all seeds were in: then the confidence sequence judges.

    Returns
    -------
    dict
        By arm.

    Notes
    -----
    An arm is judged by the interval of the level that Holm's procedure compares its p value with, and both come from
    the same tests: `rlm.stats.estimates.MeanTest`, or the confidence sequence at its last look. So they agree.
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
    With how few pairs one of several arms can be found to differ.

    Parameters
    ----------
    arms
        That are compared with one baseline.
    watched
        Whether the confidence sequence judges.

    Returns
    -------
    int
        From there on the smallest possible p value survives the correction: that of a sign-flip test, of 2 sign
        patterns in 2^pairs, or that of the sequence. At least 10.

    Raises
    ------
    InputError
        If there are no arms.
    """
    if arms < 1:
        raise InputError(f"expected at least one arm to compare, found {arms}; pass arms beside the baseline")
    pairs = FEWEST_PAIRS
    while arms * (smallest_p(pairs) if watched else 2.0 ** (1 - pairs)) >= LEVEL:
        pairs += 1
    return pairs
