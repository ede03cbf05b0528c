"""The words of a verdict, from its numbers."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from rlm.stats.estimates import FEWEST_DIFFERING, FEWEST_PAIRS, Estimate, detectable_difference, pairs_needed, spell_p
from rlm.stats.judging import Decision, Judged
from rlm.stats.metrics import Metric

PRETRAINED = ("pretrained", "pretrained_once")
CONTROLS = {
    "rescaled": "random weights with the scale of the pre-trained ones",
    "shuffled": "the pre-trained weights in random order",
}
MANY_FAILED = 0.2
FIXED_ONLY = (
    "The intervals of the probability of improvement and of the variances hold for a number of seeds that was fixed "
    "beforehand, not for a study that was watched."
)
OWN_SPLITS = (
    "Every seed has its own split of the same data; these overlap, so the intervals are too narrow, the more so the "
    "more seeds there are."
)


def headline(
    decision: Decision, arm: str, baseline: str, judged: Judged, scope: str, failed: Mapping[str, Estimate]
) -> str:
    """Say the decision in one sentence, and in a second one that many seeds failed."""
    if decision == "too few seeds":
        found = (
            f"Too few seeds: no verdict is given on fewer than {judged.enough} pairs, and here "
            f"{'is' if judged.pairs == 1 else 'are'} {judged.pairs}."
        )
    elif decision == "no evidence either way":
        found = f"No evidence either way: this study cannot tell {arm} from {baseline}."
    else:
        found = f"The arm {arm} {decision}{scope}, compared with {baseline}."
    many = [f"{share.value:.0%} of the seeds of {name}" for name, share in failed.items() if share.value > MANY_FAILED]
    if many:
        found += (
            f" But {' and '.join(many)} failed: these runs hardly beat chance, so train longer before you rely on it."
        )
    return found


def count(number: float | int, what: str) -> str:
    """Spell a number of things: 1 seed, 2 seeds."""
    return f"{number:,.0f} {what}" if number == 1 else f"{number:,.0f} {what}s"


def describe_difference(
    treated: np.ndarray, control: np.ndarray, judged: Judged, metric: Metric, arm: str, baseline: str, test: str
) -> str:
    """Give both means and their difference, with the interval and the p value that decide."""
    pairs, difference = judged.pairs, judged.difference
    digits = 1 + (Estimate(*(100 * bound for bound in difference)).digits() if metric.is_share else 1)
    means = [metric.spell(values.mean(), digits) for values in (control, treated)]
    return (
        f"Over {count(pairs, 'paired seed')} the mean {metric.label} was {means[0]} for {baseline} and {means[1]} for "
        f"{arm}: a difference of "
        f"{metric.spell_difference(difference)} ({test}p {spell_p(judged.p)})."
    )


def explain_no_interval(differences: np.ndarray, judged: Judged, differing: int) -> str:
    """Give the reason why a difference has no interval."""
    if np.isfinite(judged.difference.low) or judged.pairs < FEWEST_PAIRS:
        return ""
    if differing < FEWEST_DIFFERING:
        return (
            f"There is no interval, since {len(differences) - differing} of the {len(differences)} differences are the "
            f"same: it takes at least {FEWEST_DIFFERING} that differ from them."
        )
    return "There is no interval, since too few of the differences differ for resampling."


def describe_power(decision: Decision, judged: Judged, sd: float, metric: Metric) -> str:
    """Say which difference such a study finds, by the rule for one arm that nobody watched."""
    if decision != "no evidence either way" or not np.isfinite(judged.difference.width):
        return ""
    found = detectable_difference(judged.difference, judged.pairs)
    if not metric.is_share:
        return f"A study of this size finds a difference of about {found:.2g} with 80 % power."
    points = Estimate(100 * found, 0.0, 100 * found)
    return (
        f"A study of this size finds a difference of about {100 * found:.{points.digits()}f} points with 80 % power; "
        f"for one of 1 point it takes about {pairs_needed(0.01, sd):,} seeds."
    )


def describe_wins(differences: np.ndarray, improvement: Estimate, metric: Metric, arm: str) -> str:
    """Count the seeds that did better, worse and the same."""
    gains = differences if metric.better == "higher" else -differences
    better, worse, same = (int(count) for count in ((gains > 0).sum(), (gains < 0).sum(), (gains == 0).sum()))
    return (
        f"With {arm} {count(better, 'seed')} did better, {worse} worse and {same} the same "
        f"(probability of improvement, ties left out, {improvement})."
    )


def describe_spread(
    treated: np.ndarray, control: np.ndarray, ratio: Estimate, p: float, metric: Metric, arm: str, baseline: str
) -> str:
    """Compare the standard deviations over seeds."""
    if np.isnan(ratio.value) or np.isnan(p):
        return ""
    finding = "no evidence that the spread differs"
    if ratio.excludes(1.0):
        finding = "the spread " + ("grew" if ratio.value > 1 else "shrank")
    deviations = [float(values.std(ddof=1)) for values in (control, treated)]
    unit = " points" if metric.is_share else ""
    spelt = [f"{100 * value:.1f}" if metric.is_share else f"{value:.2g}" for value in deviations]
    return (
        f"The standard deviation over seeds was {spelt[0]}{unit} for {baseline} and {spelt[1]} for {arm}: {finding} "
        f"(ratio of variances {ratio.format(digits=ratio.digits(apart_from=1.0, least=2))}, p {spell_p(p)})."
    )


def describe_failures(failed: Mapping[str, Estimate], metric: Metric) -> str:
    """Give the shares of failed seeds, where there are any."""
    if not any(share.value for share in failed.values()):
        return ""
    shares = " and ".join(
        f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] with {arm}" for arm, share in failed.items()
    )
    what = "diverged, or within noise of chance" if metric.name == "test_accuracy" else "diverged"
    return f"Failed ({what}): {shares}."


def describe_controls(decision: Decision, arm: str, arms: Iterable[str]) -> str:
    """Say that a gain without controls is not explained."""
    if decision != "helps" or arm not in PRETRAINED or set(CONTROLS) <= set(arms):
        return ""
    return (
        "Whether it helps by what was memorised or by the scale of the weights, this study cannot tell: add the arms "
        f"{' and '.join(CONTROLS)}."
    )


def describe_left_out(left_out: int, arm: str, baseline: str) -> str:
    """Count the seeds that only one arm has."""
    if not left_out:
        return ""
    verb = "is" if left_out == 1 else "are"
    return (
        f"{count(left_out, 'seed')} that only one of {arm} and {baseline} has {verb} dropped; if the other run is "
        "missing because it failed, the means are too good."
    )


def describe_basis(results: pd.DataFrame) -> str:
    """Say what the test split rests on, and what the intervals cover."""
    columns = ("test_triplets", "test_anchors", "test_components")
    if not {*columns, "split"} <= set(results):
        return ""
    triplets, anchors, components = (_range(results[column]) for column in columns)
    scope = (
        "All seeds share one split, so the intervals speak of the choice of seed, not of the choice of test data."
        if is_fixed(results)
        else OWN_SPLITS
    )
    return f"The test split rests on {anchors} anchors in {components} unrelated groups ({triplets} triplets). {scope}"


def is_fixed(results: pd.DataFrame) -> bool:
    """Whether all seeds share one split."""
    return "split" in results and bool((results["split"] == "fixed").all())


def _range(values: Iterable[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
