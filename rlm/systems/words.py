"""What the results of systems mean, in words."""

import pandas as pd
from scipy import stats

from rlm.sentences import count, escape_markdown
from rlm.stats.estimates import FEWEST_PAIRS, LEVEL, Estimate, spell_p
from rlm.stats.judging import Watched, pairs_to_judge
from rlm.stats.meta import FEWEST_EFFECTS
from rlm.stats.metrics import count_failed
from rlm.systems.tables import SYSTEM, UNTRAINED, compare, generalise, summarise
from rlm.variants import BASELINE, CONTROLS
from rlm.verdict import find_watched


def explain(results: pd.DataFrame) -> str:
    """
    Explain which systems beat the untrained baseline, how their stability differs, and which gain from pre-training.

    Parameters
    ----------
    results
        As `run` returns them, with the arms scratch and pretrained.

    Returns
    -------
    str
        Markdown: for each dataset its decision in one line, and a list of details.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> systems = [("mean", "scratch"), ("mean", "pretrained"), ("trigram overlap", "untrained")]
    >>> runs = [("pqa", encoder, "triplet", arm, 0, 0.6, 0.5, 0.1, 1) for encoder, arm in systems]
    >>> columns = ["dataset", "encoder", "loss", "arm", "seed", *rlm.systems.METRICS]
    >>> rlm.systems.explain(pd.DataFrame(runs, columns=columns)).splitlines()[0]
    '**pqa: too few seeds for a verdict on 1 system.**'
    """
    compared, summary = compare(results), summarise(results)
    parts = []
    for name, verdicts in compared.groupby("dataset", sort=False):
        accuracy = summary[(summary["dataset"] == name) & (summary["metric"] == "test_accuracy")]
        sentences = [
            *_gains(verdicts, find_watched(results, None)),
            *_in_general(results[results["dataset"] == name]),
            _stability(results[results["dataset"] == name], accuracy),
            *_beside_untrained(accuracy),
        ]
        decision = f"**{escape_markdown(name)}: {_decide(verdicts)}.**"
        parts.append("\n".join([decision, "", *(f"- {sentence}" for sentence in sentences)]))
    return "\n\n".join(parts)


def _decide(verdicts: pd.DataFrame) -> str:
    """Count the systems by what pre-training does to them."""
    found, systems = verdicts["decision"].value_counts().to_dict(), count(len(verdicts), "system")
    if found.keys() == {"too few seeds"}:
        return f"too few seeds for a verdict on {systems}"
    return f"pre-training helps {found.get('helps', 0)} of {systems} and hurts {found.get('hurts', 0)}"


def _beside_untrained(accuracy: pd.DataFrame) -> list[str]:
    overlap = accuracy.loc[accuracy["arm"] == UNTRAINED, "mean"].iloc[0]
    scratch = accuracy[(accuracy["arm"] == BASELINE) & (accuracy["seeds"] >= FEWEST_PAIRS)]
    above, below = (
        ", ".join(_names(scratch[is_apart])) or "none"
        for is_apart in (scratch["low"] > overlap, scratch["high"] < overlap)
    )
    return [
        f"The overlap of character trigrams, which learns nothing, is right about {overlap:.1%} of the test triplets.",
        f"Systems whose interval from scratch ({FEWEST_PAIRS} seeds or more) is above that: {above}; below: {below}.",
    ]


def _stability(results: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    enough = accuracy[(accuracy["arm"] == BASELINE) & (accuracy["seeds"] >= FEWEST_PAIRS)].sort_values("sd")
    if len(enough) < 2:
        return f"Stability: too few systems with {FEWEST_PAIRS} seeds or more to compare their spread."
    counted = count_failed(results[results["arm"] == BASELINE])
    scratch = counted.set_index(["encoder", "loss"])["test_accuracy"]
    p = stats.levene(*(scratch.loc[row.encoder, row.loss] for row in enough.itertuples())).pvalue
    spreads = _names(enough.assign(points=(100 * enough["sd"]).map("{:.1f}".format)), "points")
    finding = "the spreads differ" if p < LEVEL else "no evidence that the spreads differ"
    return (
        f"Stability: the standard deviation over seeds from scratch, in points, goes from {spreads[0]} to "
        f"{spreads[-1]}; {finding} (Brown-Forsythe test of all {len(enough)} systems, p {spell_p(p)})."
    )


def _gains(verdicts: pd.DataFrame, watched: Watched) -> list[str]:
    pairs = pairs_to_judge(len(verdicts), watched=watched)
    told = {
        "helps": "Gains from random-triplet pre-training",
        "hurts": "Losses from it",
        "the same": "The same with and without it",
        "no evidence either way": "No evidence either way",
        "too few seeds": f"Too few seeds for a verdict (fewer than the {pairs} pairs that it needs here)",
    }
    found = dict(tuple(verdicts.groupby("decision")))
    corrected = f" P values are Holm-corrected over {len(verdicts)} systems." if len(verdicts) > 1 else ""
    sentences = [
        f"{words}: {', '.join(_names(found[decision], 'points'))} points."
        for decision, words in told.items()
        if decision in found
    ]
    return [*sentences[:-1], sentences[-1] + corrected]


def _in_general(results: pd.DataFrame) -> list[str]:
    """State the mean effect over the systems of a dataset and that in a new one, also compared with controls."""
    if results.groupby(SYSTEM[1:]).ngroups <= FEWEST_EFFECTS:  # one of them is untrained
        return []
    said = []
    for baseline in [one for one in (BASELINE, *CONTROLS) if one in set(results["arm"])]:
        compared = compare(results, baseline=baseline)
        if (compared["pairs"] < FEWEST_PAIRS).any() or not (compared["error"] > 0).all():  # all pairs of a system alike
            continue
        found = generalise(results, baseline=baseline).iloc[0]
        mean = Estimate(*map(float, found[["mean", "low", "high"]])).format(100, "+")
        _, low, high = Estimate(*map(float, found[["mean", "new_low", "new_high"]])).spell(100, "+")
        said.append(
            f"compared with {baseline}, {mean} points on average over {found['systems']} systems, and from "
            f"{low} to {high} points in a new system like these"
        )
    return [f"In general pre-training adds, {'; '.join(said)}."] if said else []


def _names(rows: pd.DataFrame, *columns: str) -> list[str]:
    """Name each system, followed by the values of these columns."""
    return (rows["encoder"] + " + " + rows["loss"]).str.cat([rows[column] for column in columns], sep=" ").tolist()
