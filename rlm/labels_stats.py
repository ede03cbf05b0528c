"""What a study of random labels shows: tables of its runs in, estimates with intervals and words out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.estimates import FEWEST_PAIRS, Estimate, holm, mean_with_interval, sign_flip_p
from rlm.stats import BASELINE, compare_all, decide, summarise

MEMORISED = 0.9


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


def summarise_shuffles(memorising: pd.DataFrame, accuracy: float = MEMORISED) -> pd.DataFrame:
    """
    Epochs that memorising takes, shuffle by shuffle, and whether that is fewer than the first time.

    Parameters
    ----------
    memorising
        Of one arm, see `LabelsResult`.
    accuracy
        On the random labels, that counts as memorised.

    Returns
    -------
    pandas.DataFrame
        One row per shuffle, counted from 1: seeds, reached (share of seeds that got there), epochs with its interval
        (low, high), difference to the first shuffle with its interval (difference_low, difference_high), p (sign-flip
        test, Holm-corrected). A seed that never got there counts with all its epochs, so that the mean is too small.

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, figure 1.
    """
    found = epochs_to_reach(memorising, accuracy, "accuracy", "shuffle_epoch")
    epochs, reached = (found.pivot(index="seed", columns="shuffle", values=name) for name in ("epochs", "reached"))
    differences = epochs.sub(epochs[0], axis=0)
    p = holm({shuffle: sign_flip_p(differences[shuffle].to_numpy()) for shuffle in epochs.columns[1:]})
    rows = []
    for shuffle in epochs:
        mean, low, high = mean_with_interval(epochs[shuffle].to_numpy(), lowest=0.0)
        difference = mean_with_interval(differences[shuffle].to_numpy()) if shuffle else Estimate(0.0, 0.0, 0.0)
        rows.append([len(epochs), reached[shuffle].mean(), mean, low, high, *difference, p.get(shuffle, np.nan)])
    columns = ["seeds", "reached", "epochs", "low", "high", "difference", "difference_low", "difference_high", "p"]
    return pd.DataFrame(rows, columns=columns, index=epochs.columns + 1).rename_axis("shuffle")


def tabulate_effects(results: pd.DataFrame, baseline: str = BASELINE) -> pd.DataFrame:
    """
    Test accuracy of every arm, and its difference to the baseline, for each number of labelled samples.

    Parameters
    ----------
    results
        See `LabelsResult`.
    baseline
        An arm.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy, low, high, difference,
        difference_low, difference_high, p (Holm-corrected over the arms), decision. The difference of the baseline to
        itself is missing.
    """
    parts = {}
    for labelled, mine in results.groupby("labelled", sort=False):
        verdicts = compare_all(mine, baseline) if mine["arm"].nunique() > 1 else {}
        table = summarise(mine)[["seeds", "mean", "low", "high"]].rename(columns={"mean": "accuracy"})
        for arm, verdict in verdicts.items():
            found = [*verdict.difference, verdict.difference_p, verdict.decision]
            table.loc[arm, ["difference", "difference_low", "difference_high", "p", "decision"]] = found
        parts[labelled or "all"] = table
    return pd.concat(parts, names=["labelled", "arm"])


def tabulate_speed(history: pd.DataFrame, share: float = 0.9, baseline: str = BASELINE) -> pd.DataFrame:
    """
    Epochs of fine-tuning to a given validation accuracy, of every arm, and their difference to the baseline.

    Parameters
    ----------
    history
        See `LabelsResult`.
    share
        Of the best validation accuracy that the baseline reaches on average: this is to be reached.
    baseline
        An arm.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy (to reach), reached (share of
        seeds), epochs, low, high, difference, difference_low, difference_high, p, decision ("faster", "slower", …). A
        run that never got there counts with all the epochs that any run had.
    """
    parts = {}
    for labelled, mine in history.groupby("labelled", sort=False):
        best = mine.groupby(["arm", "seed"], sort=False)["validation_accuracy"].max()
        target = share * best.loc[baseline].mean()
        found = epochs_to_reach(mine, target)
        counted = found.assign(epochs=found["epochs"].where(found["reached"], mine["epoch"].max()))
        epochs = counted.pivot(index="seed", columns="arm", values="epochs")[list(mine["arm"].unique())]
        reached = found.groupby("arm")["reached"].mean()
        differences = {arm: (epochs[arm] - epochs[baseline]).to_numpy() for arm in epochs if arm != baseline}
        p = holm({arm: sign_flip_p(values) for arm, values in differences.items()})
        rows = {}
        for arm in epochs:
            mean = mean_with_interval(epochs[arm].to_numpy(), lowest=0.0)
            rows[arm] = [len(epochs), target, reached[arm], *mean]
            if arm in differences:
                difference = mean_with_interval(differences[arm])
                decision = decide(difference, p[arm], len(epochs))
                words = {"helps": "slower", "hurts": "faster"}  # more epochs are worse
                rows[arm] += [*difference, p[arm], words.get(decision, decision)]
        columns = ["seeds", "accuracy", "reached", "epochs", "low", "high"]
        columns += ["difference", "difference_low", "difference_high", "p", "decision"]
        parts[labelled or "all"] = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")
    return pd.concat(parts, names=["labelled", "arm"])


def explain_shuffles(shuffles: pd.DataFrame, accuracy: float = MEMORISED) -> str:
    """
    Say whether memorising became faster.

    Parameters
    ----------
    shuffles
        From `summarise_shuffles`, of at least two shuffles.
    accuracy
        The same as there.

    Returns
    -------
    str
        Of the second and of the last shuffle, each against the first.
    """
    first, last = shuffles.iloc[0], shuffles.index[-1]
    text = (
        f"Memorising {accuracy:.0%} of the random labels took {first['epochs']:.1f} "
        f"[{first['low']:.1f}, {first['high']:.1f}] epochs the first time ({int(first['seeds'])} seeds)."
    )
    for shuffle in dict.fromkeys((2, last)):
        row = shuffles.loc[shuffle]
        difference = Estimate(*row[["difference", "difference_low", "difference_high"]])
        decision = decide(difference, row["p"], int(row["seeds"]))
        words = {"helps": "slower than the first", "hurts": "faster than the first"}
        said = words.get(decision, "not shown to differ from the first")
        if decision == "too few seeds":
            said = f"not judged: fewer than {FEWEST_PAIRS} seeds"
        text += (
            f" Shuffle {shuffle} is {said}: {difference.value:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}] "
            f"epochs (p = {row['p']:.2g})."
        )
        if row["reached"] < 1:
            text += f" Only {row['reached']:.0%} of the seeds got there."
    return text


def explain_effects(effects: pd.DataFrame, arms: Sequence[str] = ("pretrained",)) -> str:
    """
    Say what pre-training did to test accuracy.

    Parameters
    ----------
    effects
        From `tabulate_effects`.
    arms
        Which to speak of.

    Returns
    -------
    str
        A sentence for each number of labelled samples and arm.
    """
    said = []
    for (labelled, arm), row in effects.iterrows():
        if arm not in arms:
            continue
        difference = Estimate(*100 * row[["difference", "difference_low", "difference_high"]].astype(float))
        words = {"helps": "it helps", "hurts": "it hurts"}.get(row["decision"], row["decision"])
        said.append(
            f"With {labelled} labelled samples {arm} differs from scratch by {difference.value:+.1f} "
            f"[{difference.low:+.1f}, {difference.high:+.1f}] points (p = {row['p']:.2g}): {words}."
        )
    return " ".join(said)


def explain_speed(speed: pd.DataFrame, arms: Sequence[str] = ("pretrained",)) -> str:
    """
    Say what pre-training did to the epochs of fine-tuning.

    Parameters
    ----------
    speed
        From `tabulate_speed`.
    arms
        Which to speak of.

    Returns
    -------
    str
        A sentence for each number of labelled samples and arm.
    """
    said = []
    for (labelled, arm), row in speed.iterrows():
        if arm not in arms:
            continue
        words = {"faster": "it is faster", "slower": "it is slower"}.get(row["decision"], row["decision"])
        said.append(
            f"To {row['accuracy']:.0%} validation accuracy with {labelled} labelled samples {arm} takes "
            f"{row['difference']:+.1f} [{row['difference_low']:+.1f}, {row['difference_high']:+.1f}] epochs more or "
            f"fewer than scratch (p = {row['p']:.2g}): {words}."
        )
    return " ".join(said)
