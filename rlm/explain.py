"""What the numbers of a study mean, in words: controls, pre-training, limits, and the parts of the spread."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.sentences import ON_COLLAPSE, count, count_span
from rlm.stats.estimates import FEWEST_PAIRS, Estimate, mean_with_interval
from rlm.stats.judging import judge
from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.stats.tables import COLLAPSED, arrange_by_seed, paired_differences
from rlm.stats.variance import FEWEST_SPLITS_TO_RANK, KINDS, Spread, tabulate_luck
from rlm.variants import BASELINE, CONTROLS, REDRAW
from rlm.verdict import compare_all, find_watched, paired_arms

__all__ = ["causes", "controls", "limits", "luck", "pretraining", "spread"]

TREATED = "pretrained"
UNCHANGED = 0.05  # of the norm of a weight matrix
MEMORISED = 0.95  # of the seen triplets
PARTS = {
    "seed": "the seed: the same data, another initialisation and order",
    "split": "the split: which anchors are held out",
    "test set": "the finite test set: with other clusters of the same kind, the accuracy of the same encoder would "
    "vary by as much",
}


def controls(
    results: pd.DataFrame, metric: str | Metric = "test_accuracy", *, watched: bool | Sequence[int] | None = None
) -> str:
    """
    Explain whether an effect of pre-training needs what was memorised, or only the scale of the weights.

    Parameters
    ----------
    results
        As `rlm.run_study` returns them, with the arms scratch, pretrained and at least one control.
    metric, watched
        As in `rlm.compare`.

    Returns
    -------
    str
        The differences with their intervals, and a conclusion. A gain is explained only where pre-training helps by
        `rlm.compare_all` on all arms. The comparisons with the controls are corrected for their number. A control that
        hardly changes the initial weights is named, and does not count.

    Raises
    ------
    InputError
        If scratch, pretrained or all controls are missing.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> arms = ("scratch", "pretrained", "rescaled", "shuffled")
    >>> runs = [(arm, seed, 0.6) for arm in arms for seed in range(3)]
    >>> rlm.explain.controls(pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"])).split(". ")[-1]
    'These are too few seeds for a conclusion.'
    """
    watched, metric = find_watched(results, watched), find_metric(metric, results)
    arms = paired_arms(results, BASELINE)
    present = [control for control in CONTROLS if control in arms]
    if TREATED not in arms or not present:
        raise InputError(
            f"expected the arms {TREATED} and at least one of {', '.join(CONTROLS)}, found {', '.join(arms)}; train "
            "them with the same seeds"
        )
    verdicts = compare_all(results, BASELINE, metric, arms=arms, watched=watched)
    by_seed = arrange_by_seed(count_failed(results, metric), metric.name)
    differences = {control: paired_differences(by_seed, TREATED, control) for control in present}
    added = judge(differences, metric.reach, watched=watched)
    spelt = {arm: metric.spell_difference(verdict.judged) for arm, verdict in verdicts.items()}
    said = [f"Pre-training changes the {metric.label} by {spelt[TREATED]}."]
    for control in present:
        said.append(
            f"The control {control}, {CONTROLS[control]}, changes it by {spelt[control]}; relative to that control, "
            f"{TREATED} adds {metric.spell_difference(added[control].difference)}."
        )
    change = results.groupby("arm")["start_change"].mean() if "start_change" in results else pd.Series(dtype=float)
    idle = [name for name in present if name in change and change[name] < UNCHANGED <= change[TREATED]]
    said += [
        f"{control} tests nothing here: it changes no weight matrix by more than {change[control]:.1%} of its norm, "
        f"where pre-training changes one by {change[TREATED]:.1%}."
        for control in idle
    ]
    counted = [control for control in present if control not in idle]
    decided = {control: added[control].decide(metric) for control in counted}
    beaten = [control for control in counted if decided[control] == "helps"]
    unbeaten = [control for control in counted if control not in beaten]
    worse = " and ".join(control for control in counted if decided[control] == "hurts")
    better, other = " and ".join(beaten), " or ".join(unbeaten)
    decision, within = verdicts[TREATED].decision, metric.spell_amount(metric.same_within or 0)
    if decision == "too few seeds":
        conclusion = "These are too few seeds for a conclusion."
    elif decision == "the same":
        conclusion = f"Pre-training makes no difference of {within} or more, so there is no gain to explain."
    elif decision == "no evidence either way":
        conclusion = "Pre-training is not shown to help here, so there is no gain to explain."
    elif decision == "hurts":
        conclusion = f"{TREATED.capitalize()} hurts, compared with {BASELINE}; there is no gain to explain."
        conclusion += f" It does worse than {worse}: what these keep of it explains at most a part." if worse else ""
    elif not counted:
        conclusion = "So this study cannot tell what explains the gain."
    elif not unbeaten:
        conclusion = f"It does better than {better}, so what it learnt matters, not only the scale of the weights."
    elif beaten:
        conclusion = (
            f"It does better than {better} and is not shown to do better than {other}: "
            "the scale of the weights may explain part of the gain."
        )
    elif set(decided.values()) == {"the same"}:
        conclusion = (
            f"It is the same as {' and '.join(unbeaten)} within {within}: the scale of the weights explains the gain."
        )
    else:
        conclusion = (
            f"It is not shown to do better than {other}: the scale of the weights may explain the gain, and the "
            "intervals show how much what it learnt could add."
        )
    return " ".join([*said, conclusion])


def pretraining(history: pd.DataFrame) -> str:
    """
    Explain whether pre-training memorised, collapsed or neither.

    Parameters
    ----------
    history
        As `rlm.pretrain` returns it, with at least one epoch.

    Returns
    -------
    str
        Accuracy on seen and unseen random triplets, with the interval of their difference over seeds, and the change of
        the spread. Only the excess on seen triplets is memorised, see `rlm.pretrain`. Fewer than 10 seeds without a
        sign of memorising are inconclusive. Seeds without a value at the end are dropped and named.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> columns = ["seed", "epoch", "seen_accuracy", "unseen_accuracy", "spread"]
    >>> history = pd.DataFrame([(0, 0, 0.5, 0.5, 1.0), (0, 1, 0.75, 0.75, 2.0)], columns=columns)
    >>> rlm.explain.pretraining(history).split(". ")[0]
    '1 seed cannot tell whether pre-training memorised'
    """
    last = history[history["epoch"] == history["epoch"].max()].dropna(subset=["seen_accuracy", "unseen_accuracy"])
    lost = [str(seed) for seed in history["seed"].unique() if seed not in set(last["seed"])]
    dropped = f" Dropped, without a final value: {count(len(lost), 'seed')} ({', '.join(lost)})." if lost else ""
    if last.empty:
        return f"No seed tells whether pre-training memorised.{dropped}"
    first = history[(history["epoch"] == history["epoch"].min()) & history["seed"].isin(last["seed"])]
    gap = mean_with_interval((last["seen_accuracy"] - last["unseen_accuracy"]).to_numpy())
    seeds, who, finding = count(len(last), "seed"), "Pre-training", "Pre-training shows no sign of memorising"
    if len(last) < FEWEST_PAIRS or np.isnan(gap.low):
        finding = f"{seeds} cannot tell whether pre-training memorised"
        who = "This seed" if len(last) == 1 else f"These {seeds}"
    if gap.low > 0:
        finding = f"{who} memorised{' in part' * bool(last['seen_accuracy'].mean() < MEMORISED)}"
    if last["spread"].mean() < COLLAPSED * first["spread"].mean():
        finding = f"{who} collapsed ({ON_COLLAPSE})"
    return (
        f"{finding}. The encoder is right about {last['seen_accuracy'].mean():.1%} of the random triplets it saw and "
        f"{last['unseen_accuracy'].mean():.1%} of those it never saw (difference {gap.format(100, '+')} points, "
        f"{seeds}); the spread went from {first['spread'].mean():.2f} to {last['spread'].mean():.2f}.{dropped}"
    )


def limits(config: StudyConfig, results: pd.DataFrame, encoder: str | None = None, overlap: float | None = None) -> str:
    """
    Explain what limits the verdict of a study.

    Parameters
    ----------
    config, results
        Config of the study, and the results of `rlm.run_study`.
    encoder
        Name of a custom encoder; that of the config by default.
    overlap
        Share of the test triplets that the overlap of character trigrams gets right, see
        `rlm.evaluation.overlap_scores`. It is mentioned where it exceeds the accuracy of the encoder from scratch.

    Returns
    -------
    str
        Sentences: the encoder, its epochs of pre-training and of fine-tuning, how many runs `max_epochs` cut short, and
        the baseline. A run is cut short if it used all epochs and early stopping would have continued.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> columns = ["arm", "seed", "epochs", "best_epoch", "validation_accuracy", "test_accuracy"]
    >>> results = pd.DataFrame([("scratch", 0, 6, 5, 0.75, 0.75)], columns=columns)
    >>> rlm.explain.limits(rlm.StudyConfig(max_epochs=6), results).split(". ")[0]
    'The encoder is lstm, trained for at most 6 epochs of fine-tuning'
    """
    of_arms = {arm: config.of(arm) for arm in results["arm"].unique()}
    pretrained = [one.pretrain_epochs for one in of_arms.values() if one.arms[0] in REDRAW]
    before = f"{count_span(pretrained, 'epoch')} of pre-training and " if pretrained else ""
    after = count_span([one.max_epochs for one in of_arms.values()], "epoch")
    encoders = encoder or " or ".join(dict.fromkeys(one.encoder for one in of_arms.values()))
    said = [f"The encoder is {encoders}, trained for {before}at most {after} of fine-tuning."]
    trained = results[results["validation_accuracy"].notna()]
    most, patience = (
        trained["arm"].map({arm: getattr(one, name) for arm, one in of_arms.items()}).astype(float)
        for name in ("max_epochs", "patience")
    )
    is_cut = (most > 0) & (trained["epochs"] >= most) & (trained["epochs"] - trained["best_epoch"] < patience)
    if is_cut.any():
        verb = "was" if is_cut.sum() == 1 else "were"
        number = "Every run was" if is_cut.all() else f"{is_cut.sum():,} of {count(len(trained), 'run')} {verb}"
        said.append(f"{number} cut short by max_epochs, before early stopping; more epochs could change the verdict.")
    scratch = count_failed(results).loc[results["arm"] == BASELINE, "test_accuracy"].mean()
    if overlap is not None and scratch < overlap:
        said.append(
            f"The overlap of character trigrams, which learns nothing, is right about {overlap:.1%} of the test "
            f"triplets; this encoder from scratch is right about {scratch:.1%}."
        )
    return " ".join(said)


def luck(triplets: pd.DataFrame) -> str:
    """
    Explain which test triplets the seed decides, and on how many two arms disagree.

    Parameters
    ----------
    triplets
        As in `rlm.stats.tabulate_triplets`.

    Returns
    -------
    str
        The numbers of `rlm.stats.tabulate_luck` in words, and where to look for wrong labels.

    Examples
    --------
    >>> import numpy as np, pandas as pd, rlm
    >>> right = [np.packbits(bits).tobytes() for bits in ([1, 0, 1], [1, 0, 0])]
    >>> runs = {"arm": "scratch", "seed": [0, 1], "test": "split", "triplets": 3, "right": right, "tied": bytes(1)}
    >>> rlm.explain.luck(pd.DataFrame(runs)).split(". ")[0]
    'Under every one of 2 seeds, scratch gets 1 of 3 triplets right and 1 wrong; two seeds disagree on 33.3%'
    """
    table, said = tabulate_luck(triplets), []
    for arm, row in table[table["seeds"] > 1].iterrows():
        tied = f", {row['tied']:,.0f} tied (the encoder reads both answers alike)" if row["tied"] else ""
        said += [
            f"Under every one of {row['seeds']:,.0f} seeds, {arm} gets {row['right']:,.0f} of "
            f"{count(row[list(KINDS)].sum(), 'triplet')} right{tied} and {row['wrong']:,.0f} wrong; two seeds disagree "
            f"on {row['churn']:.1%}. Independent seeds of this accuracy would get "
            f"{row['wrong_independent']:,.1f} wrong under every seed, and disagree on {row['churn_independent']:.1%}."
        ]
        if row["wrong"] > 2 * row["wrong_independent"] + 1:
            said.append("Check those that are always wrong for false negatives and wrong labels.")
    for arm, row in table[table["gained"].notna()].iterrows():
        alone = f"right only with {arm}, and {row['lost']:z.1%} only with {table.index[0]}"
        said.append(f"With the same seed, {row['gained']:z.1%} of the triplets are {alone}.")
    return " ".join(said) or "One seed cannot tell which triplets depend on the seed."


def spread(found: Spread) -> str:
    """
    Explain which part of the spread is the largest, if one is certainly above one half.

    Parameters
    ----------
    found
        As `rlm.stats.decompose_spread` returns it.

    Returns
    -------
    str
        The standard deviations with their intervals, and a conclusion.

    Examples
    --------
    >>> import rlm
    >>> part, share = rlm.stats.Estimate(1e-4, 1e-4, 4e-4), rlm.stats.Estimate(1 / 3, 0.2, 0.6)
    >>> shares = dict.fromkeys(["seed", "split", "test set"], share)
    >>> rlm.explain.spread(rlm.stats.Spread(part, part, part, shares, 10)).split(". ")[-1]
    'No part is certainly larger than the others together.'
    """
    parts = ", ".join(
        f"{row.Index} {100 * row.sd:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        for row in found.table().itertuples()
    )
    largest = max(found.shares, key=lambda name: found.shares[name].value)
    said = f"Standard deviations in points: {parts}."
    if found.splits < FEWEST_SPLITS_TO_RANK:
        needed = f"it takes {FEWEST_SPLITS_TO_RANK} or more"
        return f"{said} {found.splits} splits cannot tell which part is the largest; {needed}."
    if found.shares[largest].low > 0.5:
        return f"{said} Most of what looks like instability is {PARTS[largest]}."
    return f"{said} No part is certainly larger than the others together."


def causes(table: pd.DataFrame) -> str:
    """
    Explain how much of the spread of runs each of several causes accounts for.

    Parameters
    ----------
    table
        As `rlm.stats.tabulate_spread` returns it.

    Returns
    -------
    str
        Standard deviations in points with their intervals: under the first setting, what each later one removes or
        adds, and what remains. Settings whose interval includes 0 are not shown to change it.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> wide = pd.DataFrame({"setting": "wide", "seed": range(12), "test_accuracy": [0.4, 0.6] * 6})
    >>> narrow = wide.assign(setting="narrow", test_accuracy=wide["test_accuracy"] / 2)
    >>> rlm.explain.causes(rlm.stats.tabulate_spread(pd.concat([wide, narrow]))).split(". ")[1]
    '"narrow" removes 5.2 [5.2, 5.2] points of it'
    """
    first, last, seeds = table.index[0], table.index[-1], int(table["seeds"].iloc[0])

    def spell(setting: Hashable, name: str, sign: str = "") -> str:
        columns = [name, f"{name}_low", f"{name}_high"]
        return Estimate(*map(float, table.loc[setting, columns])).format(100, sign)

    said = [f'Under "{first}" the standard deviation of {count(seeds, "run")} is {spell(first, "sd")} points.']
    if seeds < FEWEST_PAIRS:
        return f"{said[0]} These are too few runs to identify a cause."
    unclear = []
    for setting, row in table.iloc[1:].iterrows():
        if row["removed_low"] > 0:
            said.append(f'"{setting}" removes {spell(setting, "removed")} points of it.')
        elif row["removed_high"] < 0:
            added = Estimate(*(-row[["removed", "removed_high", "removed_low"]]).astype(float))
            said.append(f'"{setting}" adds {added.format(100)} points to it.')
        else:
            unclear.append(f'"{setting}" ({spell(setting, "removed", "+")})')
    if unclear:
        said.append(f"No change is shown for {', '.join(unclear)}.")
    said.append(f'Under "{last}", {spell(last, "sd")} points remain.')
    said.append(f"The mean goes from {table['mean'].iloc[0]:.1%} to {table['mean'].iloc[-1]:.1%}.")
    return " ".join(said)
