"""The verdict of a study: a tidy table of results in, estimates with intervals and what they support in words out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.sentences import (
    FIXED_ONLY,
    describe_basis,
    describe_controls,
    describe_difference,
    describe_failures,
    describe_left_out,
    describe_power,
    describe_spread,
    describe_wins,
    explain_no_interval,
    headline,
    is_fixed,
)
from rlm.stats.estimates import (
    CONFIDENCE,
    Estimate,
    count_differing,
    mean_with_interval,
    pairs_needed,
    proportion,
    ratio_of_variances,
)
from rlm.stats.judging import Decision, judge
from rlm.stats.metrics import CHANCE, Metric, check_table, count_failed, find_metric

BASELINE = "scratch"


@dataclass(frozen=True)
class Verdict:
    """
    What paired runs of two arms support.

    Attributes
    ----------
    decision
        ``"helps"`` or ``"hurts"`` only where the interval excludes 0; of a watched study, that of the confidence
        sequence.
    headline, details
        The decision as a sentence, and the paragraph behind it, in plain words.
    pairs
        Number of seeds that both arms have.
    difference
        Mean paired difference, arm minus baseline, in the metric's unit (1.0 is 100 points); for a number of seeds
        that was fixed beforehand. Among several arms its interval is as wide as Holm's correction asks.
    difference_p
        Below 0.05 exactly where that interval excludes 0: the largest p value of Student's t, the studentised bootstrap
        and the sign-flip permutation test; Holm-corrected among several arms.
    anytime
        The same difference with an interval that holds however often one looked, see `rlm.stats.confidence_sequence`.
    anytime_p
        As `difference_p`, for anybody who looked.
    improvement
        Probability that a seed does better with the arm than with the baseline; ties are left out.
    variance_ratio
        Variance over seeds in the arm by that in the baseline.
    variance_p
        Of equal variances: Student's t test of the paired differences of squared deviations.
    failed
        By arm, the share of seeds that diverged or whose test accuracy is within noise of chance; empty where the
        results do not say how large their test splits are.
    sd
        Standard deviation of the paired differences, missing for one pair.
    watched
        Whether the confidence sequence decides.
    """

    decision: Decision
    headline: str
    details: str
    pairs: int
    difference: Estimate
    difference_p: float
    anytime: Estimate
    anytime_p: float
    improvement: Estimate
    variance_ratio: Estimate
    variance_p: float
    failed: dict[str, Estimate]
    sd: float
    watched: bool

    @property
    def judged(self) -> Estimate:
        """The mean difference with the interval that decides: `anytime` of a watched study, else `difference`."""
        return self.anytime if self.watched else self.difference

    @property
    def judged_p(self) -> float:
        """The p value of `judged`."""
        return self.anytime_p if self.watched else self.difference_p

    @property
    def text(self) -> str:
        """Headline and details as one paragraph."""
        return f"{self.headline} {self.details}"

    def table(self) -> pd.DataFrame:
        """
        The estimates.

        Returns
        -------
        pandas.DataFrame
            One row per estimate: value, low, high (95 % interval) and p where there is a test.
        """
        rows = {
            "mean difference": (*self.difference, self.difference_p),
            "mean difference, if watched": (*self.anytime, self.anytime_p),
            "probability of improvement": (*self.improvement, np.nan),
            "ratio of variances": (*self.variance_ratio, self.variance_p),
        } | {f"failed seeds, {arm}": (*share, np.nan) for arm, share in self.failed.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "p"])
        return table.rename_axis("estimate")

    def pairs_needed(self, difference: float | int = 0.01) -> int:
        """
        How many seeds, in all, would find a difference of this size four times out of five.

        Parameters
        ----------
        difference
            In the metric's unit, not 0; 0.01 is one point.

        Returns
        -------
        int
            By the spread of the differences found here; at least 10.

        Raises
        ------
        InputError
            If the difference is 0, or there are not at least two pairs.
        """
        if not np.isfinite(difference) or difference == 0 or not np.isfinite(self.sd):
            raise InputError(
                f"expected a difference other than 0 and at least 2 pairs, found {difference} and {self.pairs}; "
                "name the smallest difference that would matter to you, after a study of a few seeds"
            )
        return pairs_needed(difference, self.sd)


def is_watched(results: pd.DataFrame, watched: bool | None) -> bool:
    """
    Whether somebody looked at results before all seeds were in.

    Parameters
    ----------
    results
        As `rlm.run_study` and `rlm.read_study` give them, which note it in ``attrs["watched"]``.
    watched
        What the caller says of it; None to read the note. Without a note: no.

    Returns
    -------
    bool
        The answer.
    """
    return bool(results.attrs.get("watched", False)) if watched is None else watched


def summarise(results: pd.DataFrame, metric: str | Metric = "test_accuracy") -> pd.DataFrame:
    """
    Describe each arm.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`. A failed seed, which has no value, counts as what the
        metric says; chance, of accuracies.
    metric
        The column to describe.

    Returns
    -------
    pandas.DataFrame
        One row per arm, in order of appearance: seeds, mean with its 95 % interval (low, high), sd (ddof 1),
        min, q25, median, q75, max.

    Raises
    ------
    InputError
        If a column is missing, or a value is outside of the metric's range.
    """
    try:
        known = find_metric(metric)
    except InputError:
        known = Metric(metric)  # without a comparison the direction makes no difference
    counted = count_failed(results, known)
    rows = {}
    for arm, values in counted[known.name].groupby(counted["arm"], sort=False):
        mean, low, high = mean_with_interval(values.to_numpy(), known.low, known.high)
        quartiles = values.quantile([0.25, 0.5, 0.75])
        rows[arm] = [len(values), mean, low, high, values.std(), values.min(), *quartiles, values.max()]
    columns = ["seeds", "mean", "low", "high", "sd", "min", "q25", "median", "q75", "max"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def compare(
    results: pd.DataFrame,
    arm: str = "pretrained",
    baseline: str = BASELINE,
    metric: str | Metric = "test_accuracy",
    *,
    watched: bool | None = None,
) -> Verdict:
    """
    Compare two arms seed by seed.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`; where ``test_triplets``, ``test_anchors``,
        ``test_components`` and ``split`` stand beside them, the verdict says what it rests on.
    arm, baseline
        Arms of `results`; seeds that only one of them has are left out, and counted.
    metric
        Name of a known metric (accuracies, roc_auc, top_1, mrr, eer, losses, seconds, epochs), or a `Metric`, which
        says range and direction. A failed seed, which has no value, counts as what the metric says.
    watched
        Whether somebody looked at results before all seeds were in, and might have stopped there. The verdict is then
        that of the confidence sequence, in the order of the seeds. By default what ``results.attrs["watched"]`` says,
        which `rlm.run_study` and `rlm.read_study` set.

    Returns
    -------
    Verdict
        Decision, words and estimates.

    Raises
    ------
    InputError
        If a column or an arm is missing, a value is no number or outside of the metric's range, an arm has a seed
        twice, or the arms have no seed in common.

    Notes
    -----
    How often each of these is wrong was measured, see docs/calibration.md. Mean difference: see
    `rlm.stats.estimates.MeanTest`. Probability of improvement: Bouthillier et al., "Accounting for variance in machine
    learning benchmarks", MLSys 2021, section 4, with a Clopper-Pearson interval. Ratio of variances with Fieller's
    interval.
    """
    return compare_all(results, baseline, metric, arms=[arm], watched=watched)[arm]


def compare_all(
    results: pd.DataFrame,
    baseline: str = BASELINE,
    metric: str | Metric = "test_accuracy",
    *,
    arms: Sequence[str] | None = None,
    watched: bool | None = None,
) -> dict[str, Verdict]:
    """
    Compare several arms with one baseline, with Holm's correction.

    Parameters
    ----------
    results, baseline, metric, watched
        As in `compare`.
    arms
        Arms of `results`; by default all but the baseline.

    Returns
    -------
    dict
        A verdict by arm.

    Raises
    ------
    InputError
        As `compare`.
    """
    check_table(results)
    watched, metric = is_watched(results, watched), find_metric(metric)
    counted = count_failed(results, metric)
    if arms is None:
        arms = [arm for arm in counted["arm"].unique() if arm != baseline]
    arms = list(dict.fromkeys(arms))
    paired = {arm: pair(counted, arm, baseline, metric.name) for arm in arms}
    differences = {arm: (pairs[arm] - pairs[baseline]).to_numpy() for arm, pairs in paired.items()}
    fixed, anytime = (judge(differences, metric.reach, watched=how) for how in (False, True))
    failed = _failed(results, metric)
    verdicts = {}
    for arm, found in differences.items():
        treated, control = paired[arm][arm].to_numpy(), paired[arm][baseline].to_numpy()
        judged = anytime[arm] if watched else fixed[arm]
        decision = judged.decide(metric.better)
        gains = found if metric.better == "higher" else -found
        improvement = proportion(int((gains > 0).sum()), int((gains != 0).sum()))
        variance_ratio, variance_p = ratio_of_variances(treated, control)
        theirs = {name: failed[name] for name in (baseline, arm) if name in failed}
        left_out = counted.loc[counted["arm"].isin([arm, baseline]), "seed"].nunique() - len(found)
        corrected = f"corrected for {len(arms)} arms, " if len(arms) > 1 else ""
        test = f"confidence sequence, {corrected}" if watched else corrected
        is_simple = len(arms) == 1 and not watched
        sd = float(found.std(ddof=1)) if len(found) > 1 else np.nan
        sentences = [
            describe_difference(treated, control, judged, metric, arm, baseline, test),
            explain_no_interval(found, judged, count_differing(found)),
            describe_power(decision, judged, sd, metric) if is_simple else "",
            describe_controls(decision, arm, counted["arm"].unique()),
            describe_wins(found, improvement, metric, arm),
            describe_spread(treated, control, variance_ratio, variance_p, metric, arm, baseline),
            describe_failures(theirs, metric),
            FIXED_ONLY if watched else "",
            describe_left_out(left_out, arm, baseline),
            describe_basis(results),
        ]
        verdicts[arm] = Verdict(
            decision=decision,
            headline=headline(decision, arm, baseline, judged, " on this split" if is_fixed(results) else "", theirs),
            details=" ".join(sentence for sentence in sentences if sentence),
            pairs=len(found),
            difference=fixed[arm].difference,
            difference_p=fixed[arm].p,
            anytime=anytime[arm].difference,
            anytime_p=anytime[arm].p,
            improvement=improvement,
            variance_ratio=variance_ratio,
            variance_p=variance_p,
            failed=theirs,
            sd=sd,
            watched=watched,
        )
    return verdicts


def paired_arms(results: pd.DataFrame) -> list[str]:
    """
    Arms that can be compared with scratch already, though a study is not finished.

    Parameters
    ----------
    results
        Columns arm and seed.

    Returns
    -------
    list of str
        All but scratch that have a seed in common with it.
    """
    seeds = results.groupby("arm", sort=False)["seed"].agg(set)
    return [arm for arm, theirs in seeds.items() if arm != BASELINE and theirs & seeds.get(BASELINE, set())]


def noise_of_chance(groups: pd.Series) -> pd.Series:
    """
    The accuracy that guessing does not exceed 95 times out of 100.

    Parameters
    ----------
    groups
        Unrelated groups of each run's test split.

    Returns
    -------
    pandas.Series
        Values above 0.5, at most 1.
    """
    return (CHANCE + stats.norm.ppf(CONFIDENCE) * 0.5 / np.sqrt(groups)).clip(upper=1.0)


def _failed(results: pd.DataFrame, metric: Metric) -> dict[str, Estimate]:
    """Give the share of failed seeds by arm, where the results say how large their test splits are."""
    if "test_components" not in results:
        return {}
    is_failed = results[metric.name].isna()
    if metric.name == "test_accuracy":
        is_failed |= results[metric.name] <= noise_of_chance(results["test_components"])
    counts = is_failed.groupby(results["arm"], sort=False).agg(["sum", "size"])
    return {str(row.Index): proportion(int(row.sum), int(row.size)) for row in counts.itertuples()}


def pair(counted: pd.DataFrame, arm: str, baseline: str, metric: str) -> pd.DataFrame:
    """
    Put the values of two arms side by side, by seed.

    Parameters
    ----------
    counted
        As of `rlm.stats.metrics.count_failed`.
    arm, baseline, metric
        As in `compare`.

    Returns
    -------
    pandas.DataFrame
        One row per seed that both have, in ascending order; a column by arm.

    Raises
    ------
    InputError
        As `compare`.
    """
    arms = list(counted["arm"].unique())
    if arm == baseline:
        raise InputError(
            f"expected two different arms, found {arm!r} twice; the results have: {', '.join(map(str, arms))}"
        )
    for name in (arm, baseline):
        if name not in arms:
            raise InputError(f"arm {name!r} not found; the results have: {', '.join(map(str, arms))}")
    twice = counted.duplicated(["arm", "seed"])
    if twice.any():
        first = counted[twice].iloc[0]
        raise InputError(
            f"expected one row per arm and seed, found seed {first['seed']} of arm {first['arm']!r} more than once; "
            "compare the results of one study at a time"
        )
    paired = counted.pivot(index="seed", columns="arm", values=metric)[[arm, baseline]].dropna().sort_index()
    if paired.empty:
        raise InputError(f"expected seeds that both {arm!r} and {baseline!r} have, found none; run the same seeds")
    return paired
