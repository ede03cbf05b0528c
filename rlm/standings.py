"""How systems stand: results of `rlm.systems.run_systems` in, estimates with intervals and words out."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.report.markup import escape_markdown
from rlm.stats.estimates import FEWEST_PAIRS, LEVEL, holm, mean_with_interval, spell_p
from rlm.stats.judging import pairs_to_judge
from rlm.stats.metrics import count_failed, find_metric
from rlm.systems import METRICS, UNTRAINED
from rlm.verdict import BASELINE, compare

SYSTEM = ["dataset", "encoder", "loss"]
PERCENT = ["test_accuracy", "top_1"]
HEADINGS = {
    "test_accuracy": "test accuracy, %",
    "roc_auc": "ROC AUC",
    "top_1": "top-1, %",
    "seconds": "seconds per seed",
}
NOT_SHOWN = "not shown after correction"


def summarise_systems(results: pd.DataFrame) -> pd.DataFrame:
    """
    Describe each system under each arm.

    Parameters
    ----------
    results
        As `rlm.systems.run_systems` returns them, of one dataset or several. A seed that diverged counts as guessing.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, arm, metric, seeds, mean, low, high (95 % interval over seeds) and sd (ddof 1).
        The untrained baseline, which has no seeds, has nothing but the mean, nor have seconds, which the seeds of a
        block share. Systems in order of the mean test accuracy of their first arm, the best first.
    """
    rows = []
    for (*system, arm), runs in results.groupby([*SYSTEM, "arm"], sort=False):
        for metric in METRICS:
            is_measured = arm != UNTRAINED and metric != "seconds"
            values = (count_failed(runs, find_metric(metric)) if is_measured else runs)[metric].to_numpy()
            estimate = (values.mean(), np.nan, np.nan, np.nan)
            if is_measured:
                estimate = (*mean_with_interval(values, 0.0, 1.0), values.std(ddof=1) if len(values) > 1 else np.nan)
            rows.append((*system, arm, metric, 0 if arm == UNTRAINED else len(values), *estimate))
    summary = pd.DataFrame(rows, columns=[*SYSTEM, "arm", "metric", "seeds", "mean", "low", "high", "sd"])
    first = summary[summary["metric"] == METRICS[0]].drop_duplicates(SYSTEM)
    ranked = first.sort_values("mean", ascending=False, kind="stable")[SYSTEM]
    return pd.concat([ranked[ranked["dataset"] == name] for name in results["dataset"].unique()]).merge(summary)


def tabulate_systems(summary: pd.DataFrame) -> pd.DataFrame:
    """
    The estimates as text, one row per system and arm.

    Parameters
    ----------
    summary
        As of `summarise_systems`.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, arm, seeds, and by metric the mean with its interval.
    """
    numbers = summary[["mean", "low", "high"]].mul(np.where(summary["metric"].isin(PERCENT), 100, 1), axis=0)
    digits = np.where(summary["metric"] == "roc_auc", 3, 1).tolist()
    shown = [_spell(*row, places) for row, places in zip(numbers.to_numpy(), digits, strict=True)]
    keys = [*SYSTEM, "arm", "seeds"]
    table = summary.assign(shown=shown).set_index([*keys, "metric"])["shown"].unstack(sort=False).reset_index()
    return table.rename(columns=HEADINGS).rename_axis(columns=None)


def _spell(mean: float, low: float, high: float, places: int) -> str:
    if np.isnan(low):
        return "" if np.isnan(mean) else f"{mean:.{places}f}"
    return f"{mean:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def compare_systems(results: pd.DataFrame, arm: str = "pretrained") -> pd.DataFrame:
    """
    Compare an arm with scratch in every system, by test accuracy.

    Parameters
    ----------
    results
        As `rlm.systems.run_systems` returns them.
    arm
        To compare.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, pairs, difference, low, high (as of `rlm.compare`), points (these as text), p
        (of the system alone), holm_p (corrected over the systems of a dataset) and decision: that of `rlm.compare`, but
        ``"not shown after correction"`` where the corrected test does not agree, and ``"too few seeds"`` where it never
        could.

    Raises
    ------
    InputError
        If an arm is missing.
    """
    trained = results[results["arm"] != UNTRAINED]
    verdicts = {system: compare(runs, arm) for system, runs in trained.groupby(SYSTEM, sort=False)}
    if not verdicts:
        raise InputError(
            f"expected systems with the arms {BASELINE} and {arm}, found none; see rlm.systems.run_systems"
        )
    corrected: dict[tuple, float] = {}
    for name in trained["dataset"].unique():
        theirs = {system: verdict.difference_p for system, verdict in verdicts.items() if system[0] == name}
        corrected |= {system: p for system, (p, _) in holm(theirs).items()}
    systems = Counter(system[0] for system in verdicts)
    rows = []
    for system, verdict in verdicts.items():
        holm_p, decision = corrected[system], verdict.decision
        if verdict.pairs < pairs_to_judge(systems[system[0]]):
            decision = "too few seeds"
        elif decision in ("helps", "hurts") and holm_p >= LEVEL:
            decision = NOT_SHOWN
        difference = verdict.difference
        rows.append(
            (*system, verdict.pairs, *difference, difference.in_points(), verdict.difference_p, holm_p, decision)
        )
    columns = [*SYSTEM, "pairs", "difference", "low", "high", "points", "p", "holm_p", "decision"]
    return pd.DataFrame(rows, columns=columns)


def explain_systems(results: pd.DataFrame) -> str:
    """
    Say which systems are worth having, which are stable, and which gain from pre-training.

    Parameters
    ----------
    results
        As `rlm.systems.run_systems` returns them, with the arms scratch and pretrained.

    Returns
    -------
    str
        Markdown, a list for each dataset.
    """
    compared, summary = compare_systems(results), summarise_systems(results)
    parts = []
    for name, verdicts in compared.groupby("dataset", sort=False):
        accuracy = summary[(summary["dataset"] == name) & (summary["metric"] == "test_accuracy")]
        sentences = [
            _beside_untrained(accuracy),
            _stability(results[results["dataset"] == name], accuracy),
            *_gains(verdicts),
        ]
        parts.append("\n".join([f"**{escape_markdown(name)}**", "", *(f"- {sentence}" for sentence in sentences)]))
    return "\n\n".join(parts)


def _beside_untrained(accuracy: pd.DataFrame) -> str:
    overlap = accuracy.loc[accuracy["arm"] == UNTRAINED, "mean"].iloc[0]
    scratch = accuracy[(accuracy["arm"] == BASELINE) & (accuracy["seeds"] >= FEWEST_PAIRS)]
    above, below = _names(scratch[scratch["low"] > overlap]), _names(scratch[scratch["high"] < overlap])
    return (
        f"The overlap of character trigrams, which learns nothing, is right about {overlap:.1%} of the test triplets. "
        f"From scratch, whole intervals of {FEWEST_PAIRS} seeds or more above that: {above}; below: {below}."
    )


def _stability(results: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    enough = accuracy[(accuracy["arm"] == BASELINE) & (accuracy["seeds"] >= FEWEST_PAIRS)].sort_values("sd")
    if len(enough) < 2:
        return f"Stability: too few systems with {FEWEST_PAIRS} seeds or more to compare their spread."
    counted = count_failed(results[results["arm"] == BASELINE], find_metric("test_accuracy"))
    scratch = counted.set_index(["encoder", "loss"])["test_accuracy"]
    p = stats.levene(*(scratch.loc[row.encoder, row.loss] for row in enough.itertuples())).pvalue
    spreads = [f"{_name(row)} {100 * row.sd:.1f}" for row in enough.itertuples()]
    finding = "the spreads differ" if p < LEVEL else "no evidence that the spreads differ"
    return (
        f"Stability: the standard deviation over seeds from scratch, in points, goes from {spreads[0]} to "
        f"{spreads[-1]}; {finding} (Brown-Forsythe test of all {len(enough)} systems, p {spell_p(p)})."
    )


def _gains(verdicts: pd.DataFrame) -> list[str]:
    pairs = pairs_to_judge(len(verdicts))
    told = {
        "helps": "Gains from random-triplet pre-training",
        "hurts": "Loses by it",
        NOT_SHOWN: f"Not shown after correction over {len(verdicts)} systems (found when tested alone)",
        "no evidence either way": "No evidence either way",
        "too few seeds": f"Too few seeds for a verdict (fewer than the {pairs} pairs that it takes here)",
    }
    found = dict(tuple(verdicts.groupby("decision")))
    corrected = f" P values are Holm-corrected over {len(verdicts)} systems." if len(verdicts) > 1 else ""
    sentences = [f"{words}: {_differences(found[decision])}." for decision, words in told.items() if decision in found]
    if found.keys() - {"helps", "too few seeds"} and "helps" not in found:
        sentences.insert(0, "No system is shown to gain from random-triplet pre-training.")
    return [*sentences[:-1], sentences[-1] + corrected]


def _differences(verdicts: pd.DataFrame) -> str:
    return ", ".join(f"{_name(row)} {row.points}" for row in verdicts.itertuples()) + " points"


def _name(row: Any) -> str:  # noqa: ANN401
    return f"{row.encoder} + {row.loss}"


def _names(rows: pd.DataFrame) -> str:
    return ", ".join(map(_name, rows.itertuples())) or "none"
