"""The verdict of a study: a tidy table of results in, estimates with intervals and what they support in words out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.estimates import (
    CONFIDENCE,
    FEWEST_PAIRS,
    Estimate,
    detectable_difference,
    holm,
    mean_with_interval,
    pairs_needed,
    proportion,
    ratio_of_variances,
    sign_flip_p,
)
from rlm.sequence import confidence_sequence

CHANCE = 0.5
BASELINE = "scratch"

Decision = Literal["helps", "hurts", "no evidence either way", "too few seeds"]


@dataclass(frozen=True)
class Verdict:
    """
    What paired runs of two arms support.

    Attributes
    ----------
    decision
        ``"helps"`` or ``"hurts"`` only where the interval excludes 0 and the test agrees; of a watched study, where
        the confidence sequence does.
    headline, details
        The decision as a sentence, and the paragraph behind it, in plain words.
    pairs
        Number of seeds that both arms have.
    difference
        Mean paired difference, arm minus baseline, in the metric's unit (1.0 is 100 points); for a number of seeds
        that was fixed beforehand.
    difference_p
        Sign-flip permutation test of a zero mean difference, two-sided; Holm-corrected among several arms.
    anytime
        The same difference with an interval that holds however often one looked, see `rlm.confidence_sequence`.
    anytime_p
        As `difference_p`, for anybody who looked.
    improvement
        Probability that a seed does better with the arm than with the baseline; ties are left out.
    variance_ratio
        Variance over seeds in the arm by that in the baseline.
    variance_p
        Brown-Forsythe test of equal variances.
    failed
        By arm, the share of seeds that diverged or whose accuracy is within noise of chance; empty where the results
        do not say how large their test splits are.
    sd
        Standard deviation of the paired differences, missing for one pair.
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
        if difference == 0 or not np.isfinite(self.sd):
            raise InputError(
                f"expected a difference other than 0 and at least 2 pairs, found {difference} and {self.pairs}; "
                "name the smallest difference that would matter to you, after a study of a few seeds"
            )
        return pairs_needed(difference, self.sd)


def summarise(results: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """
    Describe each arm.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`. A seed that diverged, and has none, counts as 0.5.
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
        If a column is missing.
    """
    _require_columns(results, metric)
    limits = (0.0, 1.0) if metric.endswith("accuracy") else ()
    rows = {}
    for arm, values in results[metric].fillna(CHANCE).groupby(results["arm"], sort=False):
        mean, low, high = mean_with_interval(values.to_numpy(), *limits)
        quartiles = values.quantile([0.25, 0.5, 0.75])
        rows[arm] = [len(values), mean, low, high, values.std(), values.min(), *quartiles, values.max()]
    columns = ["seeds", "mean", "low", "high", "sd", "min", "q25", "median", "q75", "max"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def compare(
    results: pd.DataFrame,
    arm: str = "pretrained",
    baseline: str = BASELINE,
    metric: str = "test_accuracy",
    *,
    watched: bool = False,
) -> Verdict:
    """
    Compare two arms seed by seed.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`; where ``test_triplets``, ``test_anchors``,
        ``test_components`` and ``split`` stand beside them, the verdict says what it rests on.
    arm, baseline
        Arms of `results`; seeds that only one of them has are left out.
    metric
        An accuracy in [0, 1]; 0.5 counts for a seed that diverged and has none.
    watched
        Whether somebody looked at results before all seeds were in, and might have stopped there. The verdict is then
        that of the confidence sequence, in the order of the seeds.

    Returns
    -------
    Verdict
        Decision, words and estimates.

    Raises
    ------
    InputError
        If a column or an arm is missing, an arm has a seed twice, or the arms have no seed in common.

    Notes
    -----
    How often each of these is wrong was measured, see docs/calibration.md. Mean difference: see `rlm.estimates`;
    sign-flip permutation test as in arXiv 2511.19794. Probability of improvement: Bouthillier et al., "Accounting for
    variance in machine learning benchmarks", MLSys 2021, section 4, with a Clopper-Pearson interval. Ratio of
    variances with Fieller's interval; Brown and Forsythe, JASA 69, 1974.
    """
    return compare_all(results, baseline, metric, arms=[arm], watched=watched)[arm]


def compare_all(
    results: pd.DataFrame,
    baseline: str = BASELINE,
    metric: str = "test_accuracy",
    *,
    arms: Sequence[str] | None = None,
    watched: bool = False,
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
    _require_columns(results, metric)
    if arms is None:
        arms = [arm for arm in results["arm"].unique() if arm != baseline]
    paired = {arm: _pair(results, arm, baseline, metric) for arm in arms}
    differences = {arm: (pairs[arm] - pairs[baseline]).to_numpy() for arm, pairs in paired.items()}
    p = holm({arm: sign_flip_p(found) for arm, found in differences.items()})
    sequences = {arm: confidence_sequence(found) for arm, found in differences.items()}
    anytime_p = holm({arm: sequence.p for arm, sequence in sequences.items()})
    failed = _failed(results, metric)
    verdicts = {}
    for arm, found in differences.items():
        treated, control = paired[arm][arm].to_numpy(), paired[arm][baseline].to_numpy()
        difference = mean_with_interval(found, -1.0, 1.0)
        anytime = sequences[arm].last
        judged, judged_p = (anytime, anytime_p[arm]) if watched else (difference, p[arm])
        decision = decide(judged, judged_p, len(found))
        improvement = proportion(int((found > 0).sum()), int((found != 0).sum()))
        variance_ratio, variance_p = _compare_variances(treated, control)
        theirs = {name: failed[name] for name in (baseline, arm) if name in failed}
        test = "confidence sequence" if watched else "sign-flip"
        corrected = f", Holm-corrected over {len(arms)} arms" if len(arms) > 1 else ""
        sentences = [
            f"Over {len(found)} paired seeds the mean {metric.replace('_', ' ')} was {control.mean():.1%} for "
            f"{baseline} and {treated.mean():.1%} for {arm}: a difference of {judged.in_points()} points "
            f"({test} p = {judged_p:.2g}{corrected}).",
            _power(decision, found),
            f"With {arm} {(found > 0).sum()} seeds did better, {(found < 0).sum()} worse and "
            f"{(found == 0).sum()} the same (probability of improvement, ties left out, {improvement}).",
            _spread(treated, control, variance_ratio, variance_p, arm, baseline),
            _failures(theirs),
            _basis(results),
        ]
        verdicts[arm] = Verdict(
            decision=decision,
            headline=_headline(decision, arm, baseline, len(found), " on this split" if _is_fixed(results) else ""),
            details=" ".join(sentence for sentence in sentences if sentence),
            pairs=len(found),
            difference=difference,
            difference_p=p[arm],
            anytime=anytime,
            anytime_p=anytime_p[arm],
            improvement=improvement,
            variance_ratio=variance_ratio,
            variance_p=variance_p,
            failed=theirs,
            sd=float(found.std(ddof=1)) if len(found) > 1 else np.nan,
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


def decide(difference: Estimate, p: float, pairs: int) -> Decision:
    """
    What a difference supports: something only where its interval excludes 0 and the test agrees.

    Parameters
    ----------
    difference
        With its interval.
    p
        Of the test of no difference.
    pairs
        How many it rests on.

    Returns
    -------
    str
        The decision of a `Verdict`.
    """
    if pairs < FEWEST_PAIRS:
        return "too few seeds"
    if difference.excludes(0.0) and p < 1 - CONFIDENCE:
        return "helps" if difference.value > 0 else "hurts"
    return "no evidence either way"


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


def _failed(results: pd.DataFrame, metric: str) -> dict[str, Estimate]:
    if "test_components" not in results:
        return {}
    is_failed = results[metric].isna() | (results[metric] <= noise_of_chance(results["test_components"]))
    counts = is_failed.groupby(results["arm"], sort=False).agg(["sum", "size"])
    return {str(row.Index): proportion(int(row.sum), int(row.size)) for row in counts.itertuples()}


def _require_columns(results: pd.DataFrame, metric: str) -> None:
    missing = [column for column in ("arm", "seed", metric) if column not in results]
    if missing:
        raise InputError(
            f"column {missing[0]!r} not found; the results have: {', '.join(map(str, results.columns))}. "
            "Pass a table as run_study returns it"
        )


def _pair(results: pd.DataFrame, arm: str, baseline: str, metric: str) -> pd.DataFrame:
    arms = list(results["arm"].unique())
    if arm == baseline:
        raise InputError(f"expected two different arms, found {arm!r} twice; the results have: {', '.join(arms)}")
    for name in (arm, baseline):
        if name not in arms:
            raise InputError(f"arm {name!r} not found; the results have: {', '.join(map(str, arms))}")
    twice = results.duplicated(["arm", "seed"])
    if twice.any():
        first = results[twice].iloc[0]
        raise InputError(
            f"expected one row per arm and seed, found seed {first['seed']} of arm {first['arm']!r} more than once; "
            "compare the results of one study at a time"
        )
    counted = results.assign(**{metric: results[metric].fillna(CHANCE)})
    paired = counted.pivot(index="seed", columns="arm", values=metric)[[arm, baseline]].dropna().sort_index()
    if paired.empty:
        raise InputError(f"expected seeds that both {arm!r} and {baseline!r} have, found none; run the same seeds")
    return paired


def _compare_variances(treated: np.ndarray, control: np.ndarray) -> tuple[Estimate, float]:
    ratio = ratio_of_variances(treated, control)
    if not np.isfinite(ratio.value):
        return ratio, np.nan
    return ratio, float(stats.levene(treated, control, center="median").pvalue)


def _power(decision: Decision, differences: np.ndarray) -> str:
    if decision != "no evidence either way" or np.ptp(differences) == 0:
        return ""
    found, sd = detectable_difference(differences), differences.std(ddof=1)
    return (
        f"Four studies of this size out of five would have found a difference of {100 * found:.1f} points; for one of "
        f"1 point it takes about {pairs_needed(0.01, sd):,} seeds."
    )


def _failures(failed: dict[str, Estimate]) -> str:
    if not any(share.value for share in failed.values()):
        return ""
    shares = " and ".join(
        f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] with {arm}" for arm, share in failed.items()
    )
    return f"Failed (diverged, or within noise of chance): {shares}."


def _headline(decision: Decision, arm: str, baseline: str, pairs: int, scope: str) -> str:
    if decision == "too few seeds":
        return f"Too few seeds: no verdict is given on fewer than {FEWEST_PAIRS} pairs, and here are {pairs}."
    if decision == "no evidence either way":
        return f"No evidence either way: this study cannot tell {arm} from {baseline}."
    return f"The arm {arm} {decision}{scope}, compared with {baseline}."


def _is_fixed(results: pd.DataFrame) -> bool:
    return "split" in results and bool((results["split"] == "fixed").all())


def _spread(treated: np.ndarray, control: np.ndarray, ratio: Estimate, p: float, arm: str, baseline: str) -> str:
    if np.isnan(ratio.value):
        return ""
    finding = "no evidence that the spread differs"
    if ratio.excludes(1.0) and p < 1 - CONFIDENCE:
        finding = "the spread " + ("grew" if ratio.value > 1 else "shrank")
    elif ratio.excludes(1.0) or p < 1 - CONFIDENCE:
        finding = "interval and test disagree about the spread"
    return (
        f"The standard deviation over seeds was {100 * control.std(ddof=1):.1f} points for {baseline} and "
        f"{100 * treated.std(ddof=1):.1f} for {arm}: {finding} (ratio of variances {ratio}, "
        f"Brown-Forsythe p = {p:.2g})."
    )


def _basis(results: pd.DataFrame) -> str:
    if not {"test_triplets", "test_anchors", "test_components", "split"} <= set(results):
        return ""
    columns = ("test_triplets", "test_anchors", "test_components")
    triplets, anchors, components = (_range(results[column]) for column in columns)
    scope = (
        "All seeds share one split, so the intervals speak of the choice of seed, not of the choice of test data."
        if _is_fixed(results)
        else "Every seed has its own split of the same data; these overlap, so the intervals are somewhat too narrow."
    )
    return f"The test split rests on {anchors} anchors in {components} unrelated groups ({triplets} triplets). {scope}"


def _range(values: Iterable[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
