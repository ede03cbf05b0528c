"""Results without common seeds: two independent samples, by Welch's t test."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.stats.estimates import FEWEST_DIFFERING, FEWEST_PAIRS, LEVEL, Estimate, count_differing, holm, spell_p
from rlm.stats.judging import Decision, Judged
from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.stats.tables import arrange_by_seed
from rlm.verdict import Verdict, compare_all, find_watched, paired_arms

PAIRING = (
    "The arms share no seeds, so nothing is paired: the interval is Welch's, for independent runs. Pairs of runs with "
    "the same seed need fewer runs for such an interval, to the extent that a seed affects both arms alike."
)


@dataclass(frozen=True)
class Unpaired:
    """
    Comparison of two arms by independent runs.

    Attributes
    ----------
    arm, baseline, metric
        What is compared.
    runs, means, sds
        Number of runs, mean and standard deviation, the baseline's first.
    judged
        The difference of the means, arm minus baseline, with its interval by Welch's t test, Holm-corrected among
        several arms, its p value, and the smaller number of runs.
    compared
        Number of arms that the correction covers.
    failed
        Number of runs without a value, the baseline's first; they count as the metric defines.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("plain", seed, 0.6 + seed / 1000) for seed in range(10)]
    >>> runs += [("wide", seed, 0.6 + seed / 1000) for seed in range(10, 20)]
    >>> table = pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"])
    >>> rlm.external.compare_results(table, "plain")["wide"].headline
    'The arm wide helps, compared with plain.'
    """

    arm: str
    baseline: str
    metric: Metric
    runs: tuple[int, int]
    means: tuple[float, float]
    sds: tuple[float, float]
    judged: Judged
    compared: int
    failed: tuple[int, int] = (0, 0)

    @property
    def decision(self) -> Decision:
        """Decision by the interval, see `rlm.Verdict`."""
        return self.judged.decide(self.metric)

    @property
    def headline(self) -> str:
        """The decision as a sentence."""
        if self.decision == "too few seeds":
            return (
                f"Too few runs: a verdict needs at least {FEWEST_PAIRS} runs of each arm, and here {self.baseline} has "
                f"{self.runs[0]} and {self.arm} has {self.runs[1]}."
            )
        if self.decision == "no evidence either way":
            return f"No evidence either way: these runs cannot tell {self.arm} from {self.baseline}."
        if self.decision == "the same":
            within = self.metric.spell_amount(self.metric.same_within)
            return f"The arms {self.arm} and {self.baseline} are the same within {within}."
        return f"The arm {self.arm} {self.decision}, compared with {self.baseline}."

    @property
    def text(self) -> str:
        """Headline and details as one paragraph."""
        metric = self.metric
        means = [metric.spell(mean, 2) for mean in self.means]
        corrected = f"corrected for {self.compared} arms, " if self.compared > 1 else ""
        failed = f" Runs without a value: {self.failed[0]} of {self.baseline} and {self.failed[1]} of {self.arm}."
        return (
            f"{self.headline} Over {self.runs[0]} and {self.runs[1]} runs the mean {metric.label} was {means[0]} for "
            f"{self.baseline} and {means[1]} for {self.arm}: a difference of "
            f"{metric.spell_difference(self.judged.difference)} ({corrected}p {spell_p(self.judged.p)})."
            f"{failed * any(self.failed)} {PAIRING}"
        )

    def table(self) -> pd.DataFrame:
        """Return the difference: value, low, high (95 % interval), p."""
        row = [*self.judged.difference, self.judged.p]
        table = pd.DataFrame([row], ["mean difference"], ["value", "low", "high", "p"])
        return table.rename_axis("estimate")


def compare_results(
    results: pd.DataFrame,
    baseline: str,
    metric: str | Metric = "test_accuracy",
    *,
    arms: Sequence[str] | None = None,
    watched: bool | None = None,
    clusters: pd.DataFrame | None = None,
) -> dict[str, Verdict] | dict[str, Unpaired]:
    """
    Compare several arms with one baseline: by their common seeds, or as independent runs where there are none.

    Parameters
    ----------
    results, baseline, metric, arms, watched, clusters
        As in `rlm.compare_all`.

    Returns
    -------
    dict
        By arm a `rlm.Verdict`, as `rlm.compare_all` gives, or an `Unpaired`.

    Raises
    ------
    InputError
        As `rlm.compare_all`; or if only some arms share seeds with the baseline, or no arm does and the runs were
        watched, for which there is no interval.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("plain", 0, 0.6), ("plain", 1, 0.65), ("wide", 2, 0.7), ("wide", 3, 0.75)]
    >>> table = pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"])
    >>> rlm.external.compare_results(table, "plain")["wide"].decision
    'too few seeds'
    """
    counted = count_failed(results, metric)
    known = list(counted["arm"].unique())
    wanted = [arm for arm in known if arm != baseline] if arms is None else list(dict.fromkeys(arms))
    if missing := [arm for arm in (baseline, *wanted) if arm not in known]:
        raise InputError(f"arm {missing[0]!r} not found; the results have: {', '.join(map(str, known))}")
    paired = set(paired_arms(counted, baseline)).intersection(wanted)
    if paired or not wanted or baseline in wanted:
        if alone := [arm for arm in wanted if arm not in paired and arm != baseline]:
            raise InputError(
                f"expected seeds that {baseline} shares with all arms or with none, found none of {', '.join(alone)}; "
                "compare these on their own, with arms= (--arm)"
            )
        return compare_all(results, baseline, metric, arms=arms, watched=watched, clusters=clusters)
    if find_watched(results, watched):
        raise InputError(
            f"expected seeds that {baseline} shares with another arm, since the runs were watched, found none; an "
            "interval that holds at any time needs pairs"
        )
    known = find_metric(metric, results)
    lost = results[known.name].isna().groupby(results["arm"]).sum()
    return {
        arm: replace(one, failed=(int(lost[baseline]), int(lost[arm])))
        for arm, one in _compare_unpaired(counted, baseline, known, wanted).items()
    }


def _compare_unpaired(counted: pd.DataFrame, baseline: str, metric: Metric, arms: Sequence[str]) -> dict[str, Unpaired]:
    arrange_by_seed(counted, metric.name)  # raises InputError for a run that comes twice
    samples = {arm: counted.loc[counted["arm"] == arm, metric.name].astype(float) for arm in (baseline, *arms)}
    control = samples[baseline]
    found = {}
    for arm, (p, level) in holm({arm: _welch(samples[arm], control)[0] for arm in arms}).items():
        treated = samples[arm]
        low, high = _welch(treated, control, level)[1]
        difference = Estimate(float(treated.mean() - control.mean()), low, high)
        runs = len(control), len(treated)
        found[arm] = Unpaired(
            arm=arm,
            baseline=baseline,
            metric=metric,
            runs=runs,
            means=(float(control.mean()), float(treated.mean())),
            sds=(float(control.std()), float(treated.std())),
            judged=Judged(difference.bounded(-metric.reach, metric.reach), p, min(runs), FEWEST_PAIRS, level),
            compared=len(arms),
        )
    return {arm: found[arm] for arm in arms}


def _welch(treated: pd.Series, control: pd.Series, level: float = LEVEL) -> tuple[float, tuple[float, float]]:
    """Return the p value and the interval of Welch's t test; 1 and missing bounds where too few values differ."""
    if sum(count_differing(one.to_numpy()) for one in (treated, control)) < FEWEST_DIFFERING:
        return 1.0, (np.nan, np.nan)
    with warnings.catch_warnings(action="ignore"):  # of a sample of one run
        test = stats.ttest_ind(treated, control, equal_var=False)
        low, high = test.confidence_interval(1 - level)
    return (float(test.pvalue), (float(low), float(high))) if np.isfinite(low) else (1.0, (np.nan, np.nan))
