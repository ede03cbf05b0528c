"""The sentences of a verdict, derived from its numbers."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from rlm.stats.crossed import FEWEST_CLUSTERS
from rlm.stats.estimates import FEWEST_DIFFERING, FEWEST_PAIRS, Estimate, spell_p
from rlm.stats.metrics import Metric
from rlm.stats.paired import PairedEstimates
from rlm.stats.power import Forecast, detectable_difference, pairs_needed
from rlm.variants import CONTROLS, REDRAW

MANY_FAILED = 0.2
ON_COLLAPSE = (
    "a high learning rate, hard negatives or a margin that does not suit the loss are likely causes: lower "
    "learning_rate, use mining semi_hard, or change margin"
)
FIXED_ONLY = (
    "The intervals of the probability of improvement and of the variances hold for a number of seeds that was fixed "
    "beforehand, not for a study that was watched."
)
ONE_SPLIT = "All seeds share one split, so the intervals cover the choice of seed, not of test data."
OWN_SPLITS = (
    "Every seed has its own split of the same data. The splits overlap, so the intervals are too narrow for other "
    "data, and more seeds make this worse."
)

_MARKS = re.compile(r"[!#$&()*+:<=>@\[\\\]^_`{|}~]|^[-\d]")  # the last two begin a list or a rule


def count(number: float | int, what: str) -> str:
    """Spell a number of things: 1 seed, 2 seeds."""
    return f"{number:,.0f} {what}" if number == 1 else f"{number:,.0f} {what}s"


def count_span(numbers: Sequence[int], noun: str) -> str:
    """Spell the least and the most of several numbers of things: ``"6 to 30 epochs"``."""
    return f"{min(numbers):,} to " * (min(numbers) < max(numbers)) + count(max(numbers), noun)


def escape_markdown(text: str) -> str:
    """
    Escape a text so that Markdown shows it as it is.

    Parameters
    ----------
    text
        Text from any source.

    Returns
    -------
    str
        One line of Markdown, without emphasis, links, pictures, HTML or formulas.

    Notes
    -----
    Marks become character references: a backslash before a bracket would begin a formula.

    Examples
    --------
    >>> import rlm
    >>> rlm.report.escape_markdown("a*b")
    'a&#42;b'
    """
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", " ".join(text.split()))


def explain_metric(results: pd.DataFrame, metric: Metric) -> str:
    """Warn of a metric that is not the one which the study was meant for; empty for that one."""
    meant = replace(metric, name=results.attrs.get("metric", metric.name))
    if meant == metric:
        return ""
    return (
        f"This study was meant for {meant.label}. The best of several metrics looks better than it is: "
        f"confirm a result by {metric.label} with new seeds."
    )


def explain_forecast(found: Forecast, seconds: Sequence[float], memory: float | int | None = None) -> str:
    """State what an interval takes; `seconds` are those of the estimated pairs, and of as many as are enough."""
    spelt, certain = map(spell_seconds, seconds)
    enough = "this number is" if found.enough == found.pairs else f"{count(found.enough, 'pair')} ({certain}) are"
    pairs, needs = count(found.pairs, "pair"), "" if memory is None else f" and {memory / 2**30:.1f} GB of memory"
    said = (
        f"About {pairs}, {spelt}{needs}, for an interval of ±{found.metric.spell_amount(found.half_width)} by "
        f"{found.metric.label}. The spread is estimated from {count(found.pilot, 'pair')}: with 80 % certainty, "
        f"{enough} enough."
    )
    if np.isfinite(found.new_data):
        limit = f"about ±{found.metric.spell_amount(found.new_data)}"
        said += f" The test split itself limits any statement about new data to {limit}, with any number of seeds."
    return said


def spell_seconds(seconds: float) -> str:
    """Spell how long something takes, rounded: 40 s, 6 minutes, 3.5 hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return count(round(seconds / 60), "minute") if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def headline(found: PairedEstimates) -> str:
    """State the decision, and whether many seeds failed."""
    if found.decision == "too few seeds":
        said = (
            f"Too few seeds: a verdict needs at least {found.deciding.enough} pairs, and this study has {found.pairs}."
        )
    elif found.decision == "no evidence either way":
        said = f"No evidence either way: this study cannot tell {found.arm} from {found.baseline}."
    elif found.decision == "the same":
        is_general = found.new_data is not None and found.new_data.difference.is_within(found.metric.same_within)
        within = found.metric.spell_amount(found.metric.same_within)
        said = f"The arms {found.arm} and {found.baseline} are the same within {within}{_scope(found, is_general)}."
    else:
        is_general = found.new_data is not None and found.new_data.difference.excludes(0)
        said = f"The arm {found.arm} {found.decision}{_scope(found, is_general)}, compared with {found.baseline}."
    many = [
        f"{one.share.value:.0%} of the seeds of {arm}"
        for arm, one in found.failed.items()
        if one.share.value > MANY_FAILED
    ]
    if many:
        advice = "these runs are close to chance, so train longer before you rely on it"
        if any(one.collapsed for one in found.failed.values()):
            advice = "embeddings collapsed, so change the settings before you rely on it"
        elif found.basis.clusters is None:
            advice = "these runs have no value, so look for the cause before you rely on it"
        said += f" But {' and '.join(many)} failed: {advice}."
    return said


def _scope(found: PairedEstimates, is_general: bool) -> str:
    """Name the data that a decision holds for, if the results tell."""
    if found.basis.anchors is None and not found.basis.is_fixed:
        return ""
    here = "this split" if found.basis.is_fixed else "these splits"
    return f" on {here} and on data like these" if is_general else f" on {here}"


def details(found: PairedEstimates) -> str:
    """Write the paragraph behind the decision."""
    parts = [
        describe_difference(found),
        explain_no_interval(found),
        describe_excluded(found),
        describe_power(found),
        describe_controls(found),
        describe_wins(found),
        describe_spread(found),
        describe_failures(found),
        FIXED_ONLY if found.watched else "",
        describe_dropped(found),
        describe_basis(found),
        describe_new_data(found),
    ]
    return " ".join(part for part in parts if part)


def describe_difference(found: PairedEstimates) -> str:
    """Give both means and their difference, with the interval and the p value that decide."""
    metric, difference = found.metric, found.judged
    digits = 1 + (Estimate(*(100 * bound for bound in difference)).digits() if metric.is_share else 1)
    means = [metric.spell(mean, digits) for mean in found.means]
    test = "confidence sequence, " if found.watched else ""
    if isinstance(found.watched, tuple):
        *first, last = map(str, found.watched)
        test = f"planned looks at {' and '.join([', '.join(first), last] if first else [last])} pairs, "
    test += f"corrected for {found.compared} arms, " if found.compared > 1 else ""
    return (
        f"Over {count(found.pairs, 'paired seed')} the mean {metric.label} was {means[0]} for {found.baseline} and "
        f"{means[1]} for {found.arm}: a difference of {metric.spell_difference(difference)} "
        f"({test}p {spell_p(found.judged_p)})."
    )


def explain_no_interval(found: PairedEstimates) -> str:
    """Give the reason why a difference has no interval."""
    if np.isfinite(found.judged.low) or found.pairs < found.deciding.enough:
        return ""
    if found.differing < FEWEST_DIFFERING:
        equal = f"{found.pairs - found.differing} of the" if found.differing else "all"
        return (
            f"There is no interval, since {equal} {found.pairs} differences are equal: an interval needs at least "
            f"{FEWEST_DIFFERING} with other values."
        )
    if found.watched:
        return (
            "There is no interval, since the intervals of different looks contradict each other: the differences are "
            "not symmetric around one mean. Run a study of a fixed number of seeds."
        )
    return "There is no interval, since too few differences are distinct for resampling."


def describe_excluded(found: PairedEstimates) -> str:
    """Give the differences that are excluded where there is no evidence, and call a small effect small."""
    same = found.metric.same_within
    if found.decision in ("helps", "hurts") and found.judged.is_within(same):
        return f"The effect is small: less than {found.metric.spell_amount(same)}, which counts as the same."
    if found.decision != "no evidence either way" or not np.isfinite(found.judged.low):
        return ""
    _, low, high = found.judged.spell(found.metric.scale, "+", found.metric.digits_of(found.judged))
    unit, reach = " points" if found.metric.is_share else "", found.metric.reach
    below = [f"below {low}"] if found.judged.low > -reach else []  # else nothing is excluded on that side
    above = [f"above {high}"] if found.judged.high < reach else []
    return f"Differences {' and '.join(below + above)}{unit} are excluded." if below or above else ""


def describe_power(found: PairedEstimates) -> str:
    """Give the difference that a study of this size detects by the test that decides, and the seeds for a small one."""
    if found.decision != "no evidence either way" or not np.isfinite(found.judged.low):
        return ""
    metric = found.metric
    smallest = detectable_difference(found.judged, found.sd, found.pairs, metric.reach)
    if np.isnan(smallest.value):
        return ""
    spelt = metric.spell_amount(*smallest)
    said = f"A study of this size detects a difference of about {spelt} with 80 % power"
    if metric.same_within is None:
        return f"{said}."
    seeds = pairs_needed(metric.same_within, found.sd, found.deciding.level, found.watched, of_pilot=found.pairs)
    return f"{said}; to detect one of {metric.spell_amount(metric.same_within)}, plan {seeds:,} seeds."


def describe_wins(found: PairedEstimates) -> str:
    """Count the seeds that did better, worse and the same."""
    same = found.pairs - found.better - found.worse
    return (
        f"With {found.arm} {count(found.better, 'seed')} did better, {found.worse} worse and {same} the same "
        f"(probability of improvement, without ties, {found.improvement})."
    )


def describe_spread(found: PairedEstimates) -> str:
    """Compare the standard deviations over seeds."""
    ratio, p, metric = found.variance_ratio, found.variance_p, found.metric
    if np.isnan(ratio.value) or np.isnan(p):
        return ""
    finding = "no evidence that the spread differs"
    if ratio.excludes(1.0):
        finding = "the spread " + ("grew" if ratio.value > 1 else "shrank")
    unit = " points" if metric.is_share else ""
    spelt = [f"{100 * value:.1f}" if metric.is_share else f"{value:.2g}" for value in found.sds]
    return (
        f"The standard deviation over seeds was {spelt[0]}{unit} for {found.baseline} and {spelt[1]} for {found.arm}: "
        f"{finding} (ratio of variances {ratio.format(digits=ratio.digits(apart_from=1.0, least=2))}, p {spell_p(p)})."
    )


def describe_failures(found: PairedEstimates) -> str:
    """Give the shares of failed seeds; without any, beside a decision, how many may fail that no seed has shown."""
    if not any(one.share.value for one in found.failed.values()):
        is_decided = found.failed and found.decision in ("helps", "hurts", "the same")
        most = max((one.share.high for one in found.failed.values()), default=0.0)
        return f"No seed failed; up to {most:.0%} of an arm's other seeds may fail." if is_decided else ""
    has_noise, failed = found.metric.name == "test_accuracy", "diverged"
    if found.basis.clusters is None:
        has_noise, failed = False, "without a value"
    shares = " and ".join(
        f"{one.share.format(100, digits=0, unit='%')} with {arm} ({one.diverged} {failed}"
        f"{f', {one.collapsed} collapsed' if one.collapsed else ''}"
        f"{f', {one.noise} within noise of chance' if has_noise else ''})"
        for arm, one in found.failed.items()
    )
    if any(one.collapsed for one in found.failed.values()):
        return f"Failed: {shares}. Where embeddings collapse, {ON_COLLAPSE}."
    return f"Failed: {shares}."


def describe_controls(found: PairedEstimates) -> str:
    """Point out that a gain without controls is not explained."""
    is_pretrained = found.arm in REDRAW and found.arm not in CONTROLS
    is_controlled = "rescaled" in found.arms and found.arms & {"shuffled", "shuffled_change"}
    if found.decision != "helps" or not is_pretrained or is_controlled:
        return ""
    return (
        "This study cannot tell whether the gain comes from what was memorised or from the scale of the weights: add "
        "the arms rescaled and shuffled_change."
    )


def describe_dropped(found: PairedEstimates) -> str:
    """Count the seeds that only one arm has."""
    if not found.dropped:
        return ""
    verb = "is" if found.dropped == 1 else "are"
    return (
        f"{count(found.dropped, 'seed')} that only one of {found.arm} and {found.baseline} has {verb} dropped; if the "
        "other run is missing because it failed, the means are too good."
    )


def describe_basis(found: PairedEstimates) -> str:
    """Give the size of the test split, and what the intervals cover."""
    if found.basis.anchors is None:
        return ""
    anchors, clusters, triplets = map(count_span, found.basis[:3], ("anchor", "cluster", "triplet"))
    return (
        f"The test split rests on {anchors} in {clusters} ({triplets}). "
        f"{ONE_SPLIT if found.basis.is_fixed else OWN_SPLITS}"
    )


def describe_new_data(found: PairedEstimates) -> str:
    """Give the difference on data like those of the test split, or why it is not known."""
    if found.new_data is None or found.pairs < FEWEST_PAIRS:
        return ""
    difference, clusters, effective = found.new_data
    if clusters is None or effective is None:
        return (
            f"On other data like these, with a correction for the overlap, the difference is "
            f"{found.metric.spell_difference(difference)}{_lost(found, difference)}."
            if np.isfinite(difference.low)
            else ""
        )
    size = f"{effective:,.0f}" if effective >= FEWEST_CLUSTERS else f"{np.floor(10 * effective) / 10:g}"
    worth = f"{count(clusters, 'cluster')}, worth {size} of equal size"
    if not np.isfinite(difference.low):
        return (
            f"There is no statement on other data like these: the test split has {worth}, and an interval needs "
            f"{FEWEST_CLUSTERS}."
            if effective < FEWEST_CLUSTERS
            else ""
        )
    return (
        f"On other data like these, over seeds and {worth}, the difference is "
        f"{found.metric.spell_difference(difference)}{_lost(found, difference)}."
    )


def _lost(found: PairedEstimates, difference: Estimate) -> str:
    """Point out a decision that does not extend to other data."""
    is_lost = found.judged.excludes(0) and not difference.excludes(0)
    return "; for such data this study cannot tell" if is_lost else ""
