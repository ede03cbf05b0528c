"""The numbers of a paired comparison of two arms."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlm.stats.crossed import NewData
from rlm.stats.estimates import Estimate, count_differing, find_rounding, proportion, ratio_of_variances
from rlm.stats.judging import Decision, Judged, Watched
from rlm.stats.metrics import Failed, Metric


class Basis(NamedTuple):
    """
    Size of the test split, as the smallest and the largest of all runs; and whether all runs share one split.

    `test_share` is the mean number of test triplets over that of training triplets.
    """

    anchors: tuple[int, int] | None
    clusters: tuple[int, int] | None
    triplets: tuple[int, int] | None
    is_fixed: bool
    test_share: float | None = None


@dataclass(frozen=True)
class PairedEstimates:
    """Estimates of a comparison of two arms; `rlm.Verdict` documents the attributes."""

    arm: str
    baseline: str
    metric: Metric
    pairs: int
    means: tuple[float, float]
    sds: tuple[float, float]
    fixed: Judged
    sequence: Judged
    sd: float
    differing: int
    better: int
    worse: int
    improvement: Estimate
    variance_ratio: Estimate
    variance_p: float
    failed: dict[str, Failed]
    dropped: int
    arms: frozenset[str]
    compared: int
    basis: Basis
    watched: Watched
    planned: Judged | None = None
    new_data: NewData | None = None

    @property
    def difference(self) -> Estimate:
        """Mean paired difference, arm minus baseline, in the metric's unit, for a number of seeds fixed in advance."""
        return self.fixed.difference

    @property
    def difference_p(self) -> float:
        """P value of `difference`, Holm-corrected: below 0.05 exactly where its interval excludes 0."""
        return self.fixed.p

    @property
    def anytime(self) -> Estimate:
        """The same difference with an interval that holds for any number of looks."""
        return self.sequence.difference

    @property
    def anytime_p(self) -> float:
        """P value of `anytime`."""
        return self.sequence.p

    @property
    def deciding(self) -> Judged:
        """The test that decides: of planned looks, else `sequence` if the study was watched, else `fixed`."""
        return self.planned or (self.sequence if self.watched else self.fixed)

    @property
    def judged(self) -> Estimate:
        """The mean difference with the interval that decides."""
        return self.deciding.difference

    @property
    def judged_p(self) -> float:
        """The p value that decides."""
        return self.deciding.p

    @property
    def decision(self) -> Decision:
        """Decision by the interval that decides, see `Judged.decide`."""
        return self.deciding.decide(self.metric)


def describe_pairs(treated: np.ndarray, control: np.ndarray, metric: Metric) -> dict[str, object]:
    """Estimate what the paired values of two arms determine without a correction for other arms."""
    differences = treated - control
    gains = differences if metric.better == "higher" else -differences
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    variance_ratio, variance_p = ratio_of_variances(treated, control)
    return {
        "pairs": len(differences),
        "means": (float(control.mean()), float(treated.mean())),
        "sds": (_sd(control), _sd(treated)),
        "sd": _sd(differences),
        "differing": count_differing(differences, find_rounding(metric.reach)),
        "better": better,
        "worse": worse,
        "improvement": proportion(better, better + worse),
        "variance_ratio": variance_ratio,
        "variance_p": variance_p,
    }


def find_basis(results: pd.DataFrame) -> Basis:
    """Read the size of the test split from the results, as far as they contain it."""
    columns = ["test_anchors", "test_clusters", "test_triplets"]
    ranges = [None] * 3
    if {*columns, "split"} <= set(results):
        ranges = [(int(results[column].min()), int(results[column].max())) for column in columns]
    is_fixed = "split" in results and bool((results["split"] == "fixed").all())
    has_sizes = ranges[2] is not None and "train_triplets" in results
    test_share = float(results["test_triplets"].mean() / results["train_triplets"].mean()) if has_sizes else None
    return Basis(*ranges, is_fixed, test_share)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan
