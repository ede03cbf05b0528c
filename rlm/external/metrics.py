"""Metrics of other people's training, of which nobody knows the accuracy of guessing."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from rlm.stats.metrics import Metric, find_metric

CHANCE = "chance"  # the column that `find_metric` takes as the value of a failed seed
NO_METRIC = ("arm", "seed", "seconds", CHANCE, "error")  # columns that nobody judges unless they are named


def resolve_metric(metric: str | Metric) -> Metric:
    """Return a known metric, or the one given; by an accuracy that is named, a failed run counts as 0."""
    known = find_metric(metric, pd.DataFrame(columns=[CHANCE]))
    return replace(known, failed=0.0) if known.failed == CHANCE and isinstance(metric, str) else known


def add_chance(results: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Add what makes `rlm.compare` count a failed run as `resolve_metric` does, where an accuracy is named."""
    known = [metric for metric in metrics if metric.name.endswith("accuracy") and metric == resolve_metric(metric.name)]
    return results.assign(**{CHANCE: 0.0}) if known and CHANCE not in results else results
