"""Results of a study of random labels: tables of its runs in, estimates with intervals and sentences out."""

from collections.abc import Callable, Hashable, Sequence

import pandas as pd

from rlm.errors import InputError
from rlm.sentences import count, escape_markdown
from rlm.stats.estimates import FEWEST_PAIRS, Estimate, spell_p
from rlm.stats.judging import Watched
from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.stats.tables import DIFFERENCE, arrange_by_seed, compare_columns, drop_diverged, epochs_to_reach
from rlm.variants import BASELINE, CONTROLS
from rlm.verdict import find_watched

MEMORISED = 0.9
MEMORISER = "pretrained"  # the arm of the claim
FASTER = {"helps": "faster", "hurts": "slower"}
SPEED = tuple(FASTER.values())
SHORT = {"no evidence either way": "no evidence"}


def summarise_shuffles(
    memorising: pd.DataFrame, accuracy: float = MEMORISED, *, watched: bool | Sequence[int] | None = None
) -> pd.DataFrame:
    """
    Describe the epochs that memorising takes, shuffle by shuffle, and compare them with the first shuffle.

    Parameters
    ----------
    memorising
        History of memorising of one arm, see `rlm.labels.run_labels`.
    accuracy
        Accuracy on the random labels that counts as memorised.
    watched
        As in `rlm.compare`.

    Returns
    -------
    pandas.DataFrame
        One row per shuffle, counted from 1: seeds, reached (share of seeds that memorised), epochs, low, high,
        difference to the first shuffle, difference_low, difference_high, p and decision ("faster", "slower", ...),
        corrected for the number of shuffles as in `rlm.compare_all`. A seed that never memorised counts with all its
        epochs, so that the mean is too small. As figure 1 of arXiv 1811.01640.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> memorising = pd.DataFrame({"seed": 0, "shuffle": 0, "shuffle_epoch": range(3), "accuracy": [0.1, 0.5, 1.0]})
    >>> rlm.labels.summarise_shuffles(memorising)["epochs"].tolist()
    [2.0]
    """
    found = epochs_to_reach(memorising, accuracy, "accuracy", "shuffle_epoch").sort_values("shuffle", kind="stable")
    table = _compare_epochs(found, "shuffle", 0, float(found["epochs"].max()), find_watched(memorising, watched))
    table.loc[0, DIFFERENCE], table.attrs["accuracy"] = 0.0, accuracy  # which sentences quote
    return table.set_index(table.index + 1).rename_axis("shuffle")


def tabulate_effects(results: pd.DataFrame, *, watched: bool | Sequence[int] | None = None) -> pd.DataFrame:
    """
    Tabulate the test accuracy of every arm, and its difference to scratch, for each number of labelled samples.

    Parameters
    ----------
    results
        As `rlm.labels.run_labels` returns them. A failed seed counts as its column ``chance``, where there is one.
    watched
        As in `rlm.compare`.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy, low, high, difference,
        difference_low, difference_high, p (Holm-corrected over the arms), decision. The difference is missing for
        scratch, and for an arm that has no seed in common with it yet.

    Raises
    ------
    InputError
        If there is no scratch.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> results = pd.DataFrame({"labelled": 0, "arm": ["scratch", "pretrained"], "seed": 0, "test_accuracy": 0.5})
    >>> rlm.labels.tabulate_effects(results).loc[("all", "pretrained"), "decision"]
    'too few seeds'
    """
    metric, watched = find_metric("test_accuracy", results), find_watched(results, watched)

    def tabulate(mine: pd.DataFrame) -> pd.DataFrame:
        by_seed = arrange_by_seed(count_failed(mine, metric), metric.name)
        table = compare_columns(by_seed, BASELINE, metric, watched=watched)
        return table.drop(columns="sd").rename(columns={"mean": "accuracy"})

    return _for_each_size(results, tabulate)


def tabulate_speed(
    history: pd.DataFrame, share: float = 0.95, *, watched: bool | Sequence[int] | None = None
) -> pd.DataFrame:
    """
    Tabulate the epochs of fine-tuning that every arm takes to a validation accuracy, and their difference to scratch.

    Parameters
    ----------
    history
        As `rlm.labels.run_labels` returns it.
    share
        The accuracy to reach, as a share of the mean of scratch's best validation accuracies. A seed that diverged
        counts with its accuracy before any step, that of guessing, whatever it had reached.
    watched
        As in `rlm.compare`.

    Returns
    -------
    pandas.DataFrame
        One row per number of labelled samples ("all", where 0) and arm: seeds, accuracy (to reach), reached (share of
        seeds), epochs, low, high, difference, difference_low, difference_high, p, decision ("faster", "slower", ...). A
        run that never reached it, or diverged, counts with the largest number of epochs of any run.

    Raises
    ------
    InputError
        If there is no scratch.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [(0, "scratch", 0, epoch, accuracy) for epoch, accuracy in enumerate([0.1, 0.7, 0.8])]
    >>> history = pd.DataFrame(runs, columns=["labelled", "arm", "seed", "epoch", "validation_accuracy"])
    >>> rlm.labels.tabulate_speed(history)["epochs"].tolist()
    [2.0]
    """

    def tabulate(mine: pd.DataFrame) -> pd.DataFrame:
        kept, most = drop_diverged(mine), float(mine["epoch"].max())
        scratch, chance = (of[of["arm"] == BASELINE].groupby("seed")["validation_accuracy"] for of in (kept, mine))
        runs = pd.DataFrame({"arm": BASELINE, "validation_accuracy": scratch.max(), "chance": chance.first()})
        counted = count_failed(runs.reset_index(), "validation_accuracy")
        target = share * counted["validation_accuracy"].mean()
        found = epochs_to_reach(kept, target)
        found["epochs"] = found["epochs"].where(found["reached"], most)
        table = _compare_epochs(found, "arm", BASELINE, most, find_watched(history, watched))
        table.insert(1, "accuracy", target)
        return table

    return _for_each_size(history, tabulate)


def _compare_epochs(
    found: pd.DataFrame, column: str, baseline: Hashable, most: float, watched: Watched
) -> pd.DataFrame:
    """Describe the epochs by the values of a column, and compare them with one of these values."""
    epochs = found.pivot(index="seed", columns=column, values="epochs")[list(found[column].unique())]
    table = compare_columns(epochs, baseline, Metric("epochs", 0, max(most, 1.0), "lower"), watched=watched)
    table["decision"] = table["decision"].replace(FASTER)
    table.insert(1, "reached", found.groupby(column)["reached"].mean())
    return table.drop(columns="sd").rename(columns={"mean": "epochs"})


def _for_each_size(table: pd.DataFrame, tabulate: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Tabulate the rows of each number of labelled samples; raise InputError without scratch."""
    parts = {}
    for labelled, mine in table.groupby("labelled", sort=False):
        if BASELINE not in set(mine["arm"]):
            raise InputError(
                f"expected the arm {BASELINE}, to compare others with, found "
                f"{', '.join(mine['arm'].unique()) or 'none'}; run it, or let the study run longer"
            )
        parts[labelled or "all"] = tabulate(mine)
    return pd.concat(parts, names=["labelled", "arm"])


def spell_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """
    Format a table for readers, with every estimate and its interval in one column.

    Parameters
    ----------
    table
        From `summarise_shuffles`, `tabulate_effects` or `tabulate_speed`.

    Returns
    -------
    pandas.DataFrame
        Texts, with the same rows: accuracies and their differences in percent and points, epochs as they are.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> results = pd.DataFrame({"labelled": 0, "arm": "scratch", "seed": range(2), "test_accuracy": [0.5, 0.7]})
    >>> rlm.labels.spell_intervals(rlm.labels.tabulate_effects(results)).columns.tolist()
    ['seeds', 'accuracy, %', 'difference, points', 'p', 'decision']
    """
    is_speed = "epochs" in table
    value, scale = ("epochs", 1) if is_speed else ("accuracy", 100)
    found = table.drop(columns=["low", "high", *DIFFERENCE[1:]]).astype(object)
    found[value] = _format(table[[value, "low", "high"]], scale)
    found["difference"] = _format(table[DIFFERENCE], scale, "+")
    found["p"] = [spell_p(p).removeprefix("= ") for p in table["p"].astype(float)]
    found["decision"] = found["decision"].replace(SHORT)
    for share in {"reached", "accuracy"} & {*found} - {value}:
        found[share] = [f"{part:.0%}" for part in table[share]]
    found.loc[table["p"].isna(), ["difference", "p", "decision"]] = ""  # the baseline, compared with itself
    names = ("to reach", "difference, epochs") if is_speed else ("accuracy, %", "difference, points")
    return found.rename(columns=dict(zip(("accuracy", "difference"), names, strict=True)))


def _format(estimates: pd.DataFrame, scale: int = 1, sign: str = "") -> list[str]:
    return [Estimate(*row).format(scale, sign) for row in estimates.to_numpy(float).tolist()]


def explain_shuffles(shuffles: pd.DataFrame) -> str:
    """
    Explain whether memorising became faster.

    Parameters
    ----------
    shuffles
        From `summarise_shuffles`.

    Returns
    -------
    str
        Sentences on the first shuffle, and on the second and the last one compared with it.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> memorising = pd.DataFrame({"seed": 0, "shuffle": 0, "shuffle_epoch": [0, 1], "accuracy": [0.1, 1.0]})
    >>> rlm.labels.explain_shuffles(rlm.labels.summarise_shuffles(memorising))
    'Memorising 90% of the random labels took 1.0 [no interval] epochs the first time (1 seed).'
    """
    first, last, accuracy = shuffles.iloc[0], shuffles.index[-1], shuffles.attrs.get("accuracy", MEMORISED)
    seeds, within = count(int(first["seeds"]), "seed"), count(float(first["epochs"]), "epoch")
    if first["reached"] == 0:
        text = f"No seed memorised {accuracy:.0%} of the random labels within {within} the first time ({seeds}); "
        return text + "raise shuffle_epochs (--shuffle-epochs), or lower the share."
    epochs, differences = _format(shuffles[["epochs", "low", "high"]]), _format(shuffles[DIFFERENCE], sign="+")
    took = f"Memorising {accuracy:.0%} of the random labels took {epochs[0]} epochs the first time ({seeds})."
    text = took + _reached(first)
    for shuffle in dict.fromkeys((2, last) if last > 1 else ()):
        row, difference = shuffles.loc[shuffle], differences[shuffle - 1]
        told = {word: f"is {word} than the first" for word in SPEED}
        told["too few seeds"] = f"cannot be judged by {count(int(row['seeds']), 'seed')}"
        said = told.get(row["decision"], "is not shown to differ from the first")
        text += f" Shuffle {shuffle} {said}: {difference} epochs (p {spell_p(row['p'])}).{_reached(row)}"
    return text


def _reached(row: pd.Series) -> str:
    """Describe the share of seeds that reached the accuracy, unless all did."""
    some = f" Only {100 * row['reached']:.3g}% of the seeds reached it; the others count with the epochs they trained."
    none = " No seed reached it, so this is only how long they were trained."
    return {0: none, 1: ""}.get(row["reached"], some)


def explain_effects(table: pd.DataFrame) -> str:
    """
    Explain the effect of every arm on test accuracy, or on the epochs of fine-tuning.

    Parameters
    ----------
    table
        From `tabulate_effects` or `tabulate_speed`.

    Returns
    -------
    str
        A sentence on each number of labelled samples.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> results = pd.DataFrame({"labelled": 0, "arm": ["scratch", "pretrained"], "seed": 0, "test_accuracy": 0.5})
    >>> rlm.labels.explain_effects(rlm.labels.tabulate_effects(results)).split(": ")[1]
    'with all labelled samples pretrained +0.0 [no interval] (too few seeds).'
    """
    is_speed, parts = "epochs" in table, []
    for labelled, rows in table.dropna(subset=["difference"]).groupby("labelled", sort=False):
        decisions = rows["decision"].replace(SHORT)
        spelt = _format(rows[DIFFERENCE], 1 if is_speed else 100, "+")
        arms = zip(rows.index.get_level_values("arm"), spelt, decisions, strict=True)
        listed = ", ".join(f"{arm} {difference} ({decision})" for arm, difference, decision in arms)
        parts.append(f"with {labelled} labelled samples {listed}")
    what = "Epochs of fine-tuning, minus scratch" if is_speed else "Test accuracy, minus scratch, in points"
    return f"{what}: {'; '.join(parts)}."


def explain(name: str, settings: str, shuffles: pd.DataFrame, effects: pd.DataFrame, speed: pd.DataFrame) -> str:
    """
    Explain which parts of the paper's claim a study reproduces, and whether a control does as well.

    Parameters
    ----------
    name, settings
        What the study is called, and the words of `explain_settings`.
    shuffles, effects, speed
        From `summarise_shuffles`, `tabulate_effects` and `tabulate_speed` of the study.

    Returns
    -------
    str
        Markdown: the decision on accuracy in one line, and a list of the settings, memorising and every difference.

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, figure 1 and section 4; Maennel et al., arXiv 2006.10455, section 3.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> memorising = pd.DataFrame({"seed": 0, "shuffle": 0, "shuffle_epoch": [0, 1], "accuracy": [0.1, 1.0]})
    >>> effects = pd.DataFrame({"labelled": 0, "arm": ["scratch", "pretrained"], "seed": 0, "test_accuracy": 0.5})
    >>> tables = rlm.labels.summarise_shuffles(memorising), *[rlm.labels.tabulate_effects(effects)] * 2
    >>> rlm.labels.explain("digits", "1 seed.", *tables).splitlines()[0]
    "**digits: with fewer than 10 seeds nothing follows about the paper's claim.**"
    """
    decision, *more = _judge_claim(shuffles, effects, speed)
    details = [settings, *more, explain_shuffles(shuffles), explain_effects(effects), explain_effects(speed)]
    return "\n".join([f"**{escape_markdown(name)}: {decision}**", "", *(f"- {one}" for one in details)])


def _judge_claim(shuffles: pd.DataFrame, effects: pd.DataFrame, speed: pd.DataFrame) -> list[str]:
    """Return what follows on accuracy, as the end of a sentence, and sentences on memorising and on speed."""
    if (shuffles["seeds"] < FEWEST_PAIRS).any():
        return [f"with fewer than {FEWEST_PAIRS} seeds nothing follows about the paper's claim."]
    decisions = shuffles["decision"].iloc[1:].tolist()
    counts = {"shown": decisions.count("faster"), "reversed": decisions.count("slower")}
    shown = [f"{verb} for {number}" for verb, number in counts.items() if number] or ["shown for none"]
    shown[0] += f" of {count(len(decisions), 'memorisation')} after the first"
    memorising = f"Faster memorising, as in the paper's figure 1, was {' and '.join(shown)}."
    if not decisions:
        memorising = "Labels were never shuffled, so nothing follows about the paper's figure 1."
    accuracy, faster = _count_gains(effects["decision"], "helps", "hurts"), _count_gains(speed["decision"], *SPEED)
    return [f"in accuracy, {accuracy}", memorising, f"In speed, {faster}"]


def _count_gains(decisions: pd.Series, better: str, worse: str) -> str:
    table = decisions.dropna().unstack("arm")
    if MEMORISER not in table:
        return f"the arm {MEMORISER}, which the claim is about, was not trained."
    good, bad = ((table[MEMORISER] == word) for word in (better, worse))
    controls = table.loc[good, [name for name in table if name in CONTROLS]]
    text = f"{MEMORISER} is shown to gain in {good.sum()} of {count(len(table), 'case')} and to lose in {bad.sum()}"
    if not (good.any() and controls.shape[1]):
        return f"{text}."
    as_well = (controls == better).any(axis=1).sum()
    return f"{text}; in {as_well} of the {good.sum()} a control, whose weights hold nothing memorised, gained too."
