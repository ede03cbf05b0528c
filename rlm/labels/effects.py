"""What a study of random labels shows: tables of its runs in, estimates with intervals out."""

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.stats.estimates import Estimate, mean_with_interval
from rlm.stats.judging import judge
from rlm.verdict import BASELINE, compare_all, is_watched, paired_arms, summarise

MEMORISED = 0.9
DIFFERENCE = ["difference", "difference_low", "difference_high", "p", "decision"]


def epochs_to_reach(
    history: pd.DataFrame, accuracy: float, metric: str = "validation_accuracy", epoch: str = "epoch"
) -> pd.DataFrame:
    """
    How many epochs each run takes to an accuracy.

    Parameters
    ----------
    history
        One row per run and epoch: columns `epoch`, `metric`, and what tells runs apart of labelled, arm, seed and
        shuffle.
    accuracy
        To reach.
    metric, epoch
        Columns of `history`.

    Returns
    -------
    pandas.DataFrame
        One row per run: what tells it apart, epochs (all that it was trained for, if it never got there), reached.

    Raises
    ------
    InputError
        If a column is missing.
    """
    missing = [name for name in (epoch, metric) if name not in history]
    if missing:
        raise InputError(
            f"expected the columns {epoch} and {metric}, found no {missing[0]}; pass a history as run_labels returns it"
        )
    runs = [name for name in ("labelled", "arm", "seed", "shuffle") if name in history]
    first = history[epoch].where(history[metric] >= accuracy)
    found = history.assign(first=first).groupby(runs, sort=False).agg(first=("first", "min"), last=(epoch, "max"))
    reached = found["first"].notna()
    return found.assign(epochs=found["first"].fillna(found["last"]), reached=reached)[
        ["epochs", "reached"]
    ].reset_index()


def summarise_shuffles(
    memorising: pd.DataFrame, accuracy: float = MEMORISED, *, watched: bool | None = None
) -> pd.DataFrame:
    """
    Epochs that memorising takes, shuffle by shuffle, and whether that is fewer than the first time.

    Parameters
    ----------
    memorising
        Of one arm, see `LabelsResult`.
    accuracy
        On the random labels, that counts as memorised.
    watched
        As in `rlm.compare`.

    Returns
    -------
    pandas.DataFrame
        One row per shuffle, counted from 1: seeds, reached (share of seeds that got there), epochs with its interval
        (low, high), difference to the first shuffle with its interval (difference_low, difference_high), p and decision
        ("faster", "slower", ...), all corrected for the number of shuffles, see `rlm.compare_all`. A seed that never
        got there counts with all its epochs, so that the mean is too small.

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, figure 1.
    """
    found = epochs_to_reach(memorising, accuracy, "accuracy", "shuffle_epoch")
    epochs, reached = (found.pivot(index="seed", columns="shuffle", values=name) for name in ("epochs", "reached"))
    most = max(float(found["epochs"].max()), 1.0)
    differences = {shuffle: (epochs[shuffle] - epochs[0]).dropna().to_numpy() for shuffle in epochs.columns[1:]}
    judged = judge(differences, most, watched=is_watched(memorising, watched))
    rows = []
    for shuffle in epochs:
        theirs = epochs[shuffle].dropna().to_numpy()
        row = [len(theirs), reached[shuffle].mean(), *mean_with_interval(theirs, 0.0, most)]
        if shuffle in judged:
            rows.append([*row, *judged[shuffle].difference, judged[shuffle].p, _speed_of(judged[shuffle].decide())])
        else:
            rows.append([*row, *Estimate(0.0, 0.0, 0.0), np.nan, np.nan])
    columns = ["seeds", "reached", "epochs", "low", "high", *DIFFERENCE]
    return pd.DataFrame(rows, columns=columns, index=epochs.columns + 1).rename_axis("shuffle")


def tabulate_effects(results: pd.DataFrame, *, watched: bool | None = None) -> pd.DataFrame:
    """
    Test accuracy of every arm, and its difference to scratch, for each number of labelled samples.

    Parameters
    ----------
    results
        See `LabelsResult`.
    watched
        As in `rlm.compare`.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy, low, high, difference,
        difference_low, difference_high, p (Holm-corrected over the arms), decision. The difference of scratch to
        itself is missing, and that of an arm which has no seed in common with it yet.

    Raises
    ------
    InputError
        If there is no scratch.
    """
    watched = is_watched(results, watched)
    parts = {}
    for labelled, mine in results.groupby("labelled", sort=False):
        _require_baseline(mine)
        verdicts = compare_all(mine, arms=paired_arms(mine), watched=watched)
        table = summarise(mine)[["seeds", "mean", "low", "high"]].rename(columns={"mean": "accuracy"})
        table = table.reindex(columns=[*table, *DIFFERENCE])
        table["decision"] = table["decision"].astype(object)
        for arm, verdict in verdicts.items():
            table.loc[arm, DIFFERENCE] = [*verdict.judged, verdict.judged_p, verdict.decision]
        parts[labelled or "all"] = table
    return pd.concat(parts, names=["labelled", "arm"])


def tabulate_speed(history: pd.DataFrame, share: float = 0.95, *, watched: bool | None = None) -> pd.DataFrame:
    """
    Epochs of fine-tuning to a given validation accuracy, of every arm, and their difference to scratch.

    Parameters
    ----------
    history
        See `LabelsResult`.
    share
        Of the best validation accuracy that scratch reaches on average: this is to be reached.
    watched
        As in `rlm.compare`.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy (to reach), reached (share of
        seeds), epochs, low, high, difference, difference_low, difference_high, p, decision ("faster", "slower", …). A
        run that never got there counts with all the epochs that any run had.

    Raises
    ------
    InputError
        If there is no scratch.
    """
    watched = is_watched(history, watched)
    parts = {}
    for labelled, mine in history.groupby("labelled", sort=False):
        _require_baseline(mine)
        best = mine.groupby(["arm", "seed"], sort=False)["validation_accuracy"].max()
        target = share * best.loc[BASELINE].mean()
        found = epochs_to_reach(mine, target)
        most = float(mine["epoch"].max())
        counted = found.assign(epochs=found["epochs"].where(found["reached"], most))
        epochs = counted.pivot(index="seed", columns="arm", values="epochs")[list(mine["arm"].unique())]
        reached = found.groupby("arm")["reached"].mean()
        differences = {arm: (epochs[arm] - epochs[BASELINE]).dropna().to_numpy() for arm in paired_arms(mine)}
        judged = judge(differences, max(most, 1.0), watched=watched)
        rows = {}
        for arm in epochs:
            theirs = epochs[arm].dropna().to_numpy()
            rows[arm] = [len(theirs), target, reached[arm], *mean_with_interval(theirs, 0.0, most)]
            if arm in judged:
                rows[arm] += [*judged[arm].difference, judged[arm].p, _speed_of(judged[arm].decide())]
            else:
                rows[arm] += [np.nan] * len(DIFFERENCE)
        columns = ["seeds", "accuracy", "reached", "epochs", "low", "high", *DIFFERENCE]
        parts[labelled or "all"] = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")
    return pd.concat(parts, names=["labelled", "arm"])


def _speed_of(decision: str) -> str:
    """Say a decision on epochs, of which more are worse."""
    return {"helps": "slower", "hurts": "faster"}.get(decision, decision)


def _require_baseline(table: pd.DataFrame) -> None:
    if BASELINE not in set(table["arm"]):
        raise InputError(
            f"expected the arm {BASELINE}, to compare others with, found {', '.join(table['arm'].unique()) or 'none'}; "
            "run it, or let the study run longer"
        )
