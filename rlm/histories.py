"""What the histories of training show: curves that can be averaged, and words about pre-training."""

import pandas as pd

from rlm.sentences import count
from rlm.stats.estimates import FEWEST_PAIRS, mean_with_interval
from rlm.stats.metrics import find_metric

COLLAPSED = 0.01  # of the first spread
MEMORISED = 0.95  # of the seen triplets


def best_so_far(history: pd.DataFrame, metric: str = "validation_accuracy") -> pd.DataFrame:
    """
    Learning curves that can be averaged: each seed's best value up to each epoch, kept after it has stopped.

    Without this the late epochs of an average would show only the seeds that early stopping left in.

    Parameters
    ----------
    history
        One row per arm, seed and epoch: columns arm, seed, epoch and `metric`.
    metric
        The column to follow; the more the better.

    Returns
    -------
    pandas.DataFrame
        One row per arm, seed and epoch up to the last of any seed; the column is named ``best_<metric>``. A seed that
        has diverged, and has no value, counts from there on as the verdict counts it.
    """
    runs = history.set_index(["arm", "seed", "epoch"])[metric]
    by_epoch, is_failed = (
        of.unstack("epoch", sort=False, fill_value=filler).sort_index(axis=1)
        for of, filler in ((runs, None), (runs.isna(), False))
    )
    best = by_epoch.cummax(axis=1).ffill(axis=1).mask(is_failed.cummax(axis=1), find_metric(metric).failed)
    return best.stack().rename(f"best_{metric}").reset_index()


def explain_pretraining(history: pd.DataFrame) -> str:
    """
    Say whether pre-training memorised, collapsed or neither.

    Parameters
    ----------
    history
        As `rlm.pretrain` returns it, with at least one epoch.

    Returns
    -------
    str
        One sentence: accuracy on seen and unseen random triplets, with the interval of their difference over seeds,
        and what became of the spread. Fewer than 10 seeds that show no sign of memorising cannot tell.

    Notes
    -----
    Accuracy on unseen random triplets can exceed one half without any memory, because phrases that are positives
    more often than negatives can be told apart. Only what seen triplets have beyond it is memorised.
    """
    last = history[history["epoch"] == history["epoch"].max()]
    first = history[history["epoch"] == history["epoch"].min()]
    gap = mean_with_interval((last["seen_accuracy"] - last["unseen_accuracy"]).to_numpy())
    seeds, who = count(len(last), "seed"), "Pre-training"
    finding = "Pre-training shows no sign of memorising"
    if len(last) < FEWEST_PAIRS:
        finding = f"{seeds} cannot tell whether pre-training memorised"
        who = "This seed" if len(last) == 1 else f"These {seeds}"
    if gap.low > 0:
        finding = f"{who} memorised"
        finding += " in part" if last["seen_accuracy"].mean() < MEMORISED else ""
    if last["spread"].mean() < COLLAPSED * first["spread"].mean():
        finding = f"{who} collapsed"
    return (
        f"{finding}: it is right on {last['seen_accuracy'].mean():.1%} of the random triplets it was trained on and on "
        f"{last['unseen_accuracy'].mean():.1%} of those it never saw (difference {gap.in_points()} points, {seeds}); "
        f"the spread went from {first['spread'].mean():.2f} to {last['spread'].mean():.2f}."
    )
