"""Statistics of a study: a tidy table of results in, estimates with intervals and a verdict in words out."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 9_999
# With fewer pairs t and sign-flip tests of the two-humped accuracies of such studies are wrong too often.
FEWEST_PAIRS = 10

Decision = Literal["helps", "hurts", "no evidence either way", "too few seeds"]


class Estimate(NamedTuple):
    """A number with its 95 % interval; the bounds are missing where the data cannot tell."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval lies entirely to one side of `value`."""
        return self.low > value or self.high < value

    def in_points(self) -> str:
        """Spell a difference of accuracies in percentage points."""
        value, low, high = (100 * number for number in self)
        return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else f"{value:+.1f} [no interval]"

    def __str__(self) -> str:
        """Spell the number and its interval."""
        bounds = f"{self.low:.2f}, {self.high:.2f}" if np.isfinite(self.low) else "no interval"
        return f"{self.value:.2f} [{bounds}]"


@dataclass(frozen=True)
class Verdict:
    """
    What paired runs of two arms support.

    Attributes
    ----------
    decision
        ``"helps"`` or ``"hurts"`` only where the interval excludes 0 and the test agrees.
    headline, details
        The decision as a sentence, and the paragraph behind it, in plain words.
    pairs
        Number of seeds that both arms have.
    difference
        Mean paired difference, arm minus baseline, in the metric's unit (1.0 is 100 points).
    difference_p
        Sign-flip permutation test of a zero mean difference, two-sided.
    improvement
        Probability that a seed does better with the arm than with the baseline; ties are left out.
    variance_ratio
        Variance over seeds in the arm by that in the baseline.
    variance_p
        Brown-Forsythe test of equal variances.
    """

    decision: Decision
    headline: str
    details: str
    pairs: int
    difference: Estimate
    difference_p: float
    improvement: Estimate
    variance_ratio: Estimate
    variance_p: float

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
        return pd.DataFrame(
            [
                (*self.difference, self.difference_p),
                (*self.improvement, np.nan),
                (*self.variance_ratio, self.variance_p),
            ],
            index=pd.Index(["mean difference", "probability of improvement", "ratio of variances"], name="estimate"),
            columns=["value", "low", "high", "p"],
        )


def summarise(results: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """
    Describe each arm.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`.
    metric
        The column to describe.

    Returns
    -------
    pandas.DataFrame
        One row per arm, in order of appearance: seeds, mean with its 95 % t interval (low, high), sd (ddof 1),
        min, q25, median, q75, max.

    Raises
    ------
    InputError
        If a column is missing.
    """
    _require_columns(results, metric)
    rows = {}
    for arm, values in results.dropna(subset=metric).groupby("arm", sort=False)[metric]:
        mean, low, high = mean_with_interval(values.to_numpy())
        quartiles = values.quantile([0.25, 0.5, 0.75])
        rows[arm] = [len(values), mean, low, high, values.std(), values.min(), *quartiles, values.max()]
    columns = ["seeds", "mean", "low", "high", "sd", "min", "q25", "median", "q75", "max"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def compare(
    results: pd.DataFrame,
    arm: str = "pretrained",
    baseline: str = "scratch",
    metric: str = "test_accuracy",
    seed: int = 0,
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
        An accuracy in [0, 1].
    seed
        Of the resampling.

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
    Mean difference: Student's t interval, because BCa bootstrap intervals cover too little on the two-humped
    accuracies that studies of this kind produce. Test: sign-flip
    permutation (exact up to 13 pairs), as in arXiv 2511.19794. Probability of improvement: Bouthillier et al.,
    "Accounting for variance in machine learning benchmarks", MLSys 2021, section 4, with a Wilson interval. Ratio of
    variances: paired percentile bootstrap of its logarithm; Brown and Forsythe, JASA 69, 1974.
    """
    _require_columns(results, metric)
    paired = _pair(results, arm, baseline, metric)
    treated, control = paired[arm].to_numpy(), paired[baseline].to_numpy()
    rng = np.random.default_rng(seed)
    difference = mean_with_interval(treated - control)
    difference_p = _sign_flip_p(treated - control, rng)
    improvement = _probability_of_improvement(treated - control)
    variance_ratio, variance_p = _compare_variances(treated, control, rng)
    decision: Decision = "no evidence either way"
    if len(paired) < FEWEST_PAIRS:
        decision = "too few seeds"
    elif difference.excludes(0.0) and difference_p < 1 - CONFIDENCE:
        decision = "helps" if difference.value > 0 else "hurts"
    sentences = [
        f"Over {len(paired)} paired seeds the mean {metric.replace('_', ' ')} was {control.mean():.1%} for {baseline} "
        f"and {treated.mean():.1%} for {arm}: a difference of {difference.in_points()} points "
        f"(sign-flip p = {difference_p:.2g}).",
        f"With {arm} {(treated > control).sum()} seeds did better, {(treated < control).sum()} worse and "
        f"{(treated == control).sum()} the same (probability of improvement, ties left out, {improvement}).",
        _spread(treated, control, variance_ratio, variance_p, arm, baseline),
        _basis(results),
    ]
    return Verdict(
        decision,
        _headline(decision, arm, baseline, len(paired), " on this split" if _is_fixed(results) else ""),
        " ".join(sentence for sentence in sentences if sentence),
        len(paired),
        difference,
        difference_p,
        improvement,
        variance_ratio,
        variance_p,
    )


def mean_with_interval(values: np.ndarray) -> Estimate:
    """
    Mean of independent values with Student's t interval.

    Parameters
    ----------
    values
        At least one number; one alone has no interval.

    Returns
    -------
    Estimate
        In the unit of the values.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, np.nan, np.nan)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half)


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
    paired = results.pivot(index="seed", columns="arm", values=metric)[[arm, baseline]].dropna()
    if paired.empty:
        raise InputError(f"expected seeds that both {arm!r} and {baseline!r} have, found none; run the same seeds")
    return paired


def _sign_flip_p(difference: np.ndarray, rng: np.random.Generator) -> float:
    if len(difference) < 2:
        return 1.0
    test = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, rng=rng
    )
    return float(test.pvalue)


def _probability_of_improvement(difference: np.ndarray) -> Estimate:
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    if not wins + losses:
        return Estimate(0.5, 0.0, 1.0)
    interval = stats.binomtest(wins, wins + losses).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(wins / (wins + losses), float(interval.low), float(interval.high))


def _compare_variances(treated: np.ndarray, control: np.ndarray, rng: np.random.Generator) -> tuple[Estimate, float]:
    if len(treated) < 3 or np.ptp(treated) == 0 or np.ptp(control) == 0:
        return Estimate(np.nan, np.nan, np.nan), np.nan

    def log_ratio(treated: np.ndarray, control: np.ndarray, axis: int) -> np.ndarray:
        return np.log(treated.var(axis=axis, ddof=1)) - np.log(control.var(axis=axis, ddof=1))

    # Resamples of one value repeated have no variance and warn; they are left out.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        resampled = stats.bootstrap(
            (treated, control), log_ratio, paired=True, method="percentile", n_resamples=RESAMPLES, rng=rng
        ).bootstrap_distribution
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(resampled[np.isfinite(resampled)], [tail, 1 - tail]))
    value = float(treated.var(ddof=1) / control.var(ddof=1))
    p = float(stats.levene(treated, control, center="median").pvalue)
    return Estimate(value, float(low), float(high)), p


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
