"""What a study of random labels shows: tables of its runs in, estimates with intervals and words out."""

import numpy as np
import pandas as pd

from rlm.errors import InputError
from rlm.estimates import FEWEST_PAIRS, Estimate, holm, mean_with_interval, sign_flip_p
from rlm.explain import CONTROLS
from rlm.stats import BASELINE, compare_all, decide, summarise

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
        theirs, against = epochs[shuffle].to_numpy(), differences[shuffle].to_numpy()
        mean, low, high = _bounded(mean_with_interval(theirs, 0.0, float(found["epochs"].max())), theirs)
        difference = _bounded(mean_with_interval(against), against) if shuffle else Estimate(0.0, 0.0, 0.0)
        rows.append([len(epochs), reached[shuffle].mean(), mean, low, high, *difference, p.get(shuffle, np.nan)])
    columns = ["seeds", "reached", "epochs", "low", "high", "difference", "difference_low", "difference_high", "p"]
    return pd.DataFrame(rows, columns=columns, index=epochs.columns + 1).rename_axis("shuffle")


def tabulate_effects(results: pd.DataFrame) -> pd.DataFrame:
    """
    Test accuracy of every arm, and its difference to scratch, for each number of labelled samples.

    Parameters
    ----------
    results
        See `LabelsResult`.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy, low, high, difference,
        difference_low, difference_high, p (Holm-corrected over the arms), decision. The difference of scratch to
        itself is missing.

    Raises
    ------
    InputError
        If there is no scratch.
    """
    parts = {}
    for labelled, mine in results.groupby("labelled", sort=False):
        _require_baseline(mine)
        verdicts = compare_all(mine) if mine["arm"].nunique() > 1 else {}
        table = summarise(mine)[["seeds", "mean", "low", "high"]].rename(columns={"mean": "accuracy"})
        table = table.reindex(columns=[*table, *DIFFERENCE])
        table["decision"] = table["decision"].astype(object)
        for arm, verdict in verdicts.items():
            table.loc[arm, DIFFERENCE] = [*verdict.difference, verdict.difference_p, verdict.decision]
        parts[labelled or "all"] = table
    return pd.concat(parts, names=["labelled", "arm"])


def tabulate_speed(history: pd.DataFrame, share: float = 0.95) -> pd.DataFrame:
    """
    Epochs of fine-tuning to a given validation accuracy, of every arm, and their difference to scratch.

    Parameters
    ----------
    history
        See `LabelsResult`.
    share
        Of the best validation accuracy that scratch reaches on average: this is to be reached.

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
    parts = {}
    for labelled, mine in history.groupby("labelled", sort=False):
        _require_baseline(mine)
        best = mine.groupby(["arm", "seed"], sort=False)["validation_accuracy"].max()
        target = share * best.loc[BASELINE].mean()
        found = epochs_to_reach(mine, target)
        counted = found.assign(epochs=found["epochs"].where(found["reached"], mine["epoch"].max()))
        epochs = counted.pivot(index="seed", columns="arm", values="epochs")[list(mine["arm"].unique())]
        reached = found.groupby("arm")["reached"].mean()
        differences = {arm: (epochs[arm] - epochs[BASELINE]).dropna().to_numpy() for arm in epochs if arm != BASELINE}
        p = holm({arm: sign_flip_p(values) for arm, values in differences.items()})
        rows = {}
        for arm in epochs:
            theirs = epochs[arm].dropna().to_numpy()
            mean = _bounded(mean_with_interval(theirs, 0.0, float(mine["epoch"].max())), theirs)
            rows[arm] = [len(theirs), target, reached[arm], *mean]
            if arm in differences:
                difference = _bounded(mean_with_interval(differences[arm]), differences[arm])
                decision = decide(difference, p[arm], len(differences[arm]))
                words = {"helps": "slower", "hurts": "faster"}  # more epochs are worse
                rows[arm] += [*difference, p[arm], words.get(decision, decision)]
            else:
                rows[arm] += [np.nan] * len(DIFFERENCE)
        columns = ["seeds", "accuracy", "reached", "epochs", "low", "high", *DIFFERENCE]
        parts[labelled or "all"] = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")
    return pd.concat(parts, names=["labelled", "arm"])


def _bounded(estimate: Estimate, values: np.ndarray) -> Estimate:
    """Where all values but one or two are the same, a bound can be infinite: then none is known."""
    free = mean_with_interval(values)
    return estimate if np.isfinite([free.low, free.high]).all() else Estimate(estimate.value, np.nan, np.nan)


def _require_baseline(table: pd.DataFrame) -> None:
    if BASELINE not in set(table["arm"]):
        raise InputError(
            f"expected the arm {BASELINE}, to compare others with, found {', '.join(table['arm'].unique()) or 'none'}; "
            "run it, or let the study run longer"
        )


def explain_shuffles(shuffles: pd.DataFrame, accuracy: float = MEMORISED) -> str:
    """
    Say whether memorising became faster.

    Parameters
    ----------
    shuffles
        From `summarise_shuffles`.
    accuracy
        The same as there.

    Returns
    -------
    str
        Of the second and of the last shuffle, each against the first.
    """
    first, last = shuffles.iloc[0], shuffles.index[-1]
    text = (
        f"Memorising {accuracy:.0%} of the random labels took {_spell(first[['epochs', 'low', 'high']], '')} epochs "
        f"the first time ({int(first['seeds'])} seeds)."
    )
    if first["reached"] < 1:
        text += f" Only {first['reached']:.0%} of the seeds got there."
    for shuffle in dict.fromkeys((2, last) if last > 1 else ()):
        row = shuffles.loc[shuffle]
        difference = row[["difference", "difference_low", "difference_high"]]
        decision = decide(Estimate(*difference), row["p"], int(row["seeds"]))
        said = {
            "helps": "is slower than the first",
            "hurts": "is faster than the first",
            "too few seeds": f"cannot be judged by fewer than {FEWEST_PAIRS} seeds",
        }.get(decision, "is not shown to differ from the first")
        text += f" Shuffle {shuffle} {said}: {_spell(difference)} epochs (p = {row['p']:.2g})."
        if row["reached"] < 1:
            text += f" Only {row['reached']:.0%} of the seeds got there."
    return text


def _spell(estimate: pd.Series, sign: str = "+") -> str:
    value, low, high = estimate.astype(float)
    bounds = f"{low:{sign}.1f}, {high:{sign}.1f}" if np.isfinite(low) else "no interval"
    return f"{value:{sign}.1f} [{bounds}]"


def explain_effects(effects: pd.DataFrame) -> str:
    """
    Say what every arm did to test accuracy.

    Parameters
    ----------
    effects
        From `tabulate_effects`.

    Returns
    -------
    str
        A sentence for each number of labelled samples.
    """
    return _compared(effects, "Test accuracy, minus scratch, in points", scale=100)


def explain_speed(speed: pd.DataFrame) -> str:
    """
    Say what every arm did to the epochs of fine-tuning.

    Parameters
    ----------
    speed
        From `tabulate_speed`.

    Returns
    -------
    str
        A sentence for each number of labelled samples.
    """
    return _compared(speed, "Epochs of fine-tuning, minus scratch", scale=1)


def _compared(table: pd.DataFrame, what: str, scale: int) -> str:
    words = {"no evidence either way": "no evidence"}
    parts = []
    for labelled, rows in table.dropna(subset=["difference"]).groupby("labelled", sort=False):
        arms = []
        for (_, arm), row in rows.iterrows():
            difference = scale * row[["difference", "difference_low", "difference_high"]]
            arms.append(f"{arm} {_spell(difference)} ({words.get(row['decision'], row['decision'])})")
        parts.append(f"with {labelled} labelled samples {', '.join(arms)}")
    return f"{what}: {'; '.join(parts)}."


def explain_claim(shuffles: pd.DataFrame, effects: pd.DataFrame, speed: pd.DataFrame, arm: str = "pretrained") -> str:
    """
    Say what held of the paper's claim, and whether a control does as well.

    Parameters
    ----------
    shuffles, effects, speed
        From `summarise_shuffles`, `tabulate_effects` and `tabulate_speed` of one study.
    arm
        The one that memorised.

    Returns
    -------
    str
        Three sentences: on memorising, on accuracy, on speed.

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, figure 1 and section 4; Maennel et al., arXiv 2006.10455, section 3.
    """
    if (shuffles["seeds"] < FEWEST_PAIRS).any():
        return f"Nothing is said of the paper's claim on fewer than {FEWEST_PAIRS} seeds."
    later = [
        decide(Estimate(*row[["difference", "difference_low", "difference_high"]]), row["p"], int(row["seeds"]))
        for _, row in shuffles.iloc[1:].iterrows()
    ]
    faster, slower = later.count("hurts"), later.count("helps")  # fewer epochs, more epochs
    held = "did not hold"
    if faster:
        held = (
            "held"
            if faster == len(later)
            else f"held for {faster} and was reversed for {slower}"
            if slower
            else "held in part"
        )
    sentences = [
        f"That memorising becomes faster, the paper's figure 1, {held}: of the memorisations after the first, "
        f"{len(later)} in all, {faster} took fewer epochs than the first and {slower} more."
        if later
        else "Labels were never shuffled, so that nothing is said of the paper's figure 1."
    ]
    for table, better, worse, what in ((effects, "helps", "hurts", "accuracy"), (speed, "faster", "slower", "speed")):
        decisions = table["decision"].dropna().unstack("arm")
        good, bad = ((decisions[arm] == word) for word in (better, worse))
        controls = decisions.loc[good, [name for name in decisions if name in CONTROLS]]
        text = f"In {what}, {arm} gained in {good.sum()} of {len(decisions)} cases and lost in {bad.sum()}"
        if good.any() and controls.shape[1]:
            as_well = (controls == better).any(axis=1).sum()
            text += f"; in {as_well} of the {good.sum()} a control gained too, whose weights remember nothing"
        sentences.append(f"{text}.")
    return " ".join(sentences)
