"""The sentences of a verdict, derived from its numbers."""

import re

import numpy as np

from rlm.config import CONTROLS, REDRAW
from rlm.stats.crossed import FEWEST_CLUSTERS
from rlm.stats.estimates import FEWEST_DIFFERING, FEWEST_PAIRS, Estimate, detectable_difference, pairs_needed, spell_p
from rlm.stats.paired import PairedEstimates

MANY_FAILED = 0.2
FIXED_ONLY = (
    "The intervals of the probability of improvement and of the variances hold for a number of seeds that was fixed "
    "beforehand, not for a study that was watched."
)
ONE_SPLIT = "All seeds share one split, so the intervals cover the choice of seed, not of test data."
OWN_SPLITS = (
    "Every seed has its own split of the same data; these overlap, so the intervals are too narrow, the more so the "
    "more seeds there are."
)

_MARKS = re.compile(r"[!#$&()*+:<=>@\[\\\]^_`{|}~]|^[-\d]")  # the last two begin a list or a rule


def count(number: float | int, what: str) -> str:
    """Spell a number of things: 1 seed, 2 seeds."""
    return f"{number:,.0f} {what}" if number == 1 else f"{number:,.0f} {what}s"


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


def headline(found: PairedEstimates) -> str:
    """State the decision, and whether many seeds failed."""
    if found.decision == "too few seeds":
        verb = "is" if found.pairs == 1 else "are"
        said = (
            f"Too few seeds: no verdict is given on fewer than {found.deciding.enough} pairs, and here {verb} "
            f"{found.pairs}."
        )
    elif found.decision == "no evidence either way":
        said = f"No evidence either way: this study cannot tell {found.arm} from {found.baseline}."
    else:
        scope = " on this split" if found.basis.is_fixed else ""
        if found.new_data is not None and found.new_data.difference.excludes(0):
            scope = ", on this split and on data like these"
        said = f"The arm {found.arm} {found.decision}{scope}, compared with {found.baseline}."
    many = [
        f"{share.value:.0%} of the seeds of {arm}" for arm, share in found.failed.items() if share.value > MANY_FAILED
    ]
    if many:
        advice = "these runs hardly beat chance, so train longer before you rely on it"
        if found.basis.clusters is None:
            advice = "these runs have no value, so look for the cause before you rely on it"
        said += f" But {' and '.join(many)} failed: {advice}."
    return said


def details(found: PairedEstimates) -> str:
    """Write the paragraph behind the decision."""
    parts = [
        describe_difference(found),
        explain_no_interval(found),
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
    test += f"corrected for {found.compared} arms, " if found.compared > 1 else ""
    return (
        f"Over {count(found.pairs, 'paired seed')} the mean {metric.label} was {means[0]} for {found.baseline} and "
        f"{means[1]} for {found.arm}: a difference of {metric.spell_difference(difference)} "
        f"({test}p {spell_p(found.judged_p)})."
    )


def explain_no_interval(found: PairedEstimates) -> str:
    """Give the reason why a difference has no interval."""
    if np.isfinite(found.judged.low) or found.pairs < FEWEST_PAIRS:
        return ""
    if found.differing < FEWEST_DIFFERING:
        return (
            f"There is no interval, since {found.pairs - found.differing} of the {found.pairs} differences are the "
            f"same: it takes at least {FEWEST_DIFFERING} that differ from them."
        )
    return "There is no interval, since too few of the differences differ for resampling."


def describe_power(found: PairedEstimates) -> str:
    """Give the difference that a study of this size detects, for one arm that nobody watched."""
    is_simple = found.compared == 1 and not found.watched
    if not is_simple or found.decision != "no evidence either way" or not np.isfinite(found.judged.width):
        return ""
    smallest = detectable_difference(found.judged, found.pairs)
    if not found.metric.is_share:
        return f"A study of this size detects a difference of about {smallest:.2g} with 80 % power."
    digits = Estimate(100 * smallest, 0.0, 100 * smallest).digits()
    return (
        f"A study of this size detects a difference of about {100 * smallest:.{digits}f} points with 80 % power; "
        f"a difference of 1 point takes about {pairs_needed(0.01, found.sd):,} seeds."
    )


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
    if not any(share.value for share in found.failed.values()):
        is_decided = found.failed and found.decision in ("helps", "hurts")
        most = max((share.high for share in found.failed.values()), default=0.0)
        return f"No seed failed; of an arm's other seeds up to {most:.0%} may." if is_decided else ""
    shares = " and ".join(f"{share.format(100, digits=0, unit='%')} with {arm}" for arm, share in found.failed.items())
    what = "diverged, or within noise of chance" if found.metric.name == "test_accuracy" else "diverged"
    what = "no value" if found.basis.clusters is None else what
    return f"Failed ({what}): {shares}."


def describe_controls(found: PairedEstimates) -> str:
    """Point out that a gain without controls is not explained."""
    is_pretrained = found.arm in REDRAW and found.arm not in CONTROLS
    is_controlled = "rescaled" in found.arms and found.arms & {"shuffled", "shuffled_change"}
    if found.decision != "helps" or not is_pretrained or is_controlled:
        return ""
    return (
        "Whether it helps by what was memorised or by the scale of the weights, this study cannot tell: add the arms "
        "rescaled and shuffled_change."
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
    sizes = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in found.basis[:3]]
    return (
        f"The test split rests on {sizes[0]} anchors in {sizes[1]} clusters ({sizes[2]} triplets). "
        f"{ONE_SPLIT if found.basis.is_fixed else OWN_SPLITS}"
    )


def describe_new_data(found: PairedEstimates) -> str:
    """Give the difference on data like those of the test split, or why it is not known."""
    if found.new_data is None or found.pairs < FEWEST_PAIRS:
        return ""
    difference, clusters, effective = found.new_data
    worth = f"{count(clusters, 'cluster')}, worth {effective:,.0f} of equal size"
    if not np.isfinite(difference.low):
        return (
            f"Of other data like these nothing is said: the test split has {worth}, and an interval takes "
            f"{FEWEST_CLUSTERS}."
            if effective < FEWEST_CLUSTERS
            else ""
        )
    said = (
        f"On other data like these, over seeds and {worth}, the difference is "
        f"{found.metric.spell_difference(difference)}"
    )
    is_lost = found.judged.excludes(0) and not difference.excludes(0)
    return f"{said}; there this study cannot tell." if is_lost else f"{said}."
