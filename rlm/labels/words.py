"""What a study of random labels shows, in words: from the tables of `rlm.labels.effects`."""

import pandas as pd

from rlm.labels.effects import MEMORISED
from rlm.sentences import CONTROLS, count
from rlm.stats.estimates import FEWEST_PAIRS, Estimate, spell_p

SHORT = {"no evidence either way": "no evidence"}


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
    if first["reached"] == 0:
        within = count(float(first["epochs"]), "epoch")
        return (
            f"No seed memorised {accuracy:.0%} of the random labels within {within} the first time ({_seeds(first)}); "
            "raise shuffle_epochs, or reach for less."
        )
    text = (
        f"Memorising {accuracy:.0%} of the random labels took {_spell(first[['epochs', 'low', 'high']], '')} epochs "
        f"the first time ({_seeds(first)}).{_reached(first)}"
    )
    for shuffle in dict.fromkeys((2, last) if last > 1 else ()):
        row = shuffles.loc[shuffle]
        difference = row[["difference", "difference_low", "difference_high"]]
        said = {
            "slower": "is slower than the first",
            "faster": "is faster than the first",
            "too few seeds": f"cannot be judged by {_seeds(row)}",
        }.get(row["decision"], "is not shown to differ from the first")
        text += f" Shuffle {shuffle} {said}: {_spell(difference)} epochs (p {spell_p(row['p'])}).{_reached(row)}"
    return text


def _seeds(row: pd.Series) -> str:
    return count(int(row["seeds"]), "seed")


def _reached(row: pd.Series) -> str:
    """Say how many seeds got there, where not all did."""
    if row["reached"] == 1:
        return ""
    if row["reached"] == 0:
        return " No seed reached it, so this is only how long they were trained."
    return f" Only {row['reached']:.0%} of the seeds reached it; the others count with all their epochs."


def _spell(estimate: pd.Series, sign: str = "+") -> str:
    return Estimate(*estimate.astype(float)).format(sign=sign)


def spell_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """
    Join every estimate with its interval, to be read.

    Parameters
    ----------
    table
        From `summarise_shuffles`, `tabulate_effects` or `tabulate_speed`.

    Returns
    -------
    pandas.DataFrame
        Of texts, with the same rows: accuracies and their differences in percent and points, epochs as they are.
    """
    is_speed = "epochs" in table
    value, scale = ("epochs", 1) if is_speed else ("accuracy", 100)
    found = table.drop(columns=["low", "high", "difference_low", "difference_high"]).astype(object)
    found[value] = [_spell(scale * row, "") for _, row in table[[value, "low", "high"]].iterrows()]
    differences = table[["difference", "difference_low", "difference_high"]].astype(float)
    found["difference"] = [_spell(scale * row) for _, row in differences.iterrows()]
    found["p"] = [spell_p(p).removeprefix("= ") for p in table["p"].astype(float)]
    if "decision" in found:
        found["decision"] = found["decision"].replace(SHORT)
    for share in {"reached", "accuracy"} & {*found} - {value}:
        found[share] = [f"{part:.0%}" for part in table[share]]
    later = [name for name in ("difference", "p", "decision") if name in found]
    found.loc[table["p"].isna(), later] = ""  # the first shuffle, or scratch: compared with itself
    names = {"accuracy": "to reach", "difference": "difference, epochs"}
    if not is_speed:
        names = {"accuracy": "accuracy, %", "difference": "difference, points"}
    return found.rename(columns=names)


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
    parts = []
    for labelled, rows in table.dropna(subset=["difference"]).groupby("labelled", sort=False):
        arms = []
        for (_, arm), row in rows.iterrows():
            difference = scale * row[["difference", "difference_low", "difference_high"]]
            arms.append(f"{arm} {_spell(difference)} ({SHORT.get(row['decision'], row['decision'])})")
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
    decisions = shuffles["decision"].iloc[1:].tolist()
    later = len(decisions)
    faster, slower = decisions.count("faster"), decisions.count("slower")
    if faster and slower:
        shown = f"was shown for {faster} of the {later} memorisations after the first and reversed for {slower}"
    elif faster or slower:
        verb, number = ("shown", faster) if faster else ("reversed", slower)
        shown = f"was {verb} for {number} of the {later} memorisations after the first"
    else:
        shown = f"was not shown for any of the {later} memorisations after the first"
    sentences = [
        f"That memorising becomes faster, the paper's figure 1, {shown}."
        if later
        else "Labels were never shuffled, so that nothing is said of the paper's figure 1."
    ]
    for table, better, worse, what in ((effects, "helps", "hurts", "accuracy"), (speed, "faster", "slower", "speed")):
        decisions = table["decision"].dropna().unstack("arm")
        good, bad = ((decisions[arm] == word) for word in (better, worse))
        controls = decisions.loc[good, [name for name in decisions if name in CONTROLS]]
        cases = count(len(decisions), "case")
        text = f"In {what}, {arm} is shown to gain in {good.sum()} of {cases} and to lose in {bad.sum()}"
        if good.any() and controls.shape[1]:
            as_well = (controls == better).any(axis=1).sum()
            text += f"; in {as_well} of the {good.sum()} a control gained too, whose weights remember nothing"
        sentences.append(f"{text}.")
    return " ".join(sentences)
