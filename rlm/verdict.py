"""The verdict of a study: a tidy table of results in, estimates with intervals and their meaning in words out."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from rlm import sentences
from rlm.errors import InputError
from rlm.stats.crossed import count_effective, generalise_arms, generalise_splits, select_clusters
from rlm.stats.estimates import FEWEST_PAIRS
from rlm.stats.judging import Watched, judge
from rlm.stats.metrics import Metric, check_table, count_failed, find_metric, share_failed
from rlm.stats.paired import PairedEstimates, describe_pairs, find_basis
from rlm.stats.power import pairs_needed
from rlm.stats.tables import DESCRIBED, arrange_by_seed, describe, pair
from rlm.variants import BASELINE, find_arm


class Verdict(PairedEstimates):
    """
    Comparison of two arms by their paired runs: numbers, and the sentences derived from them.

    Attributes
    ----------
    arm, baseline, metric
        The two arms, of which the baseline comes first in the pairs of numbers below, and the metric.
    decision
        ``"helps"`` or ``"hurts"`` where the deciding interval excludes 0, ``"the same"`` where it contains 0 and no
        difference larger than ``metric.same_within``; else ``"no evidence either way"`` or ``"too few seeds"``.
    pairs, dropped
        Number of seeds that both arms have, and that only one of them has.
    difference, difference_p
        Mean paired difference, arm minus baseline, in the metric's unit (1.0 is 100 points), for a number of seeds that
        was fixed in advance. Its interval and its p value, the largest of Student's t, the studentised bootstrap and
        the sign-flip permutation test, agree; both are Holm-corrected among several arms.
    anytime, anytime_p
        The same for a study that somebody watched, see `rlm.stats.confidence_sequence`.
    judged, judged_p
        Those that decide: of the planned looks, or the latter if `watched`, else the former.
    means, sds, sd
        Means and standard deviations over the paired seeds; that of the paired differences, missing for one pair.
    better, worse, improvement
        Number of seeds that do better or worse with the arm; probability that a seed does better, without ties.
    variance_ratio, variance_p
        Variance in the arm divided by that in the baseline; p value of equal variances by Student's t test of the
        paired differences of squared deviations.
    new_data
        The difference on data like those of the test split, see `rlm.stats.NewData`; its interval contains the one
        that decides. None without clusters, unless each seed has its own split.
    failed
        By arm, a `rlm.stats.Failed`; may be empty if every run has a value, and the size of the test split is unknown.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("scratch", seed, 0.6) for seed in range(12)]
    >>> runs += [("pretrained", seed, 0.61 + seed / 1000) for seed in range(12)]
    >>> verdict = rlm.compare(pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"]))
    >>> verdict.headline, verdict.difference.format(100, "+")
    ('The arm pretrained helps, compared with scratch.', '+1.55 [+1.32, +1.79]')
    """

    @property
    def headline(self) -> str:
        """The decision as a sentence."""
        return sentences.headline(self)

    @property
    def details(self) -> str:
        """The paragraph behind the decision."""
        return sentences.details(self)

    @property
    def text(self) -> str:
        """Headline and details as one paragraph."""
        return f"{self.headline} {self.details}"

    def _repr_markdown_(self) -> str:
        return f"**{sentences.escape_markdown(self.headline)}** {sentences.escape_markdown(self.details)}"

    def table(self) -> pd.DataFrame:
        """Return one row per estimate: value, low, high (95 % interval), and p where there is a test."""
        rows = {
            "mean difference": (*self.difference, self.difference_p),
            "mean difference, if watched": (*self.anytime, self.anytime_p),
        }
        if self.planned is not None:
            rows["mean difference, planned looks"] = (*self.planned.difference, self.planned.p)
        if self.new_data is not None:
            rows["mean difference, on data like these"] = (*self.new_data.difference, np.nan)
        rows |= {
            "probability of improvement": (*self.improvement, np.nan),
            "ratio of variances": (*self.variance_ratio, self.variance_p),
        } | {f"failed seeds, {arm}": (*found.share, np.nan) for arm, found in self.failed.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "p"])
        return table.rename_axis("estimate")

    def pairs_needed(self, difference: float | int = 0.01) -> int:
        """
        Estimate how many seeds, at least 10, detect a difference (0.01 is a point) with 80 % power.

        By the rule that decides, and by an upper bound of the standard deviation, see `rlm.stats.pairs_needed`.
        """
        if not np.isfinite(difference) or difference == 0 or not np.isfinite(self.sd):
            raise InputError(
                f"expected a difference other than 0 and at least 2 pairs, found {difference} and {self.pairs}; "
                "train a few seeds first, then name the smallest difference that matters to you"
            )
        return pairs_needed(difference, self.sd, self.deciding.level, self.watched, of_pilot=self.pairs)


def find_watched(results: pd.DataFrame, watched: bool | Sequence[int] | None) -> Watched:
    """Return `watched`, or if None what ``results.attrs["watched"]`` notes; False without a note."""
    found = results.attrs.get("watched", False) if watched is None else watched
    if isinstance(found, bool | np.bool_):
        return bool(found)
    looks = tuple(int(look) for look in found)
    if not looks or looks[0] < FEWEST_PAIRS or any(after <= before for before, after in pairwise(looks)):
        raise InputError(
            f"expected watched to be True, False or the planned numbers of pairs, rising from at least {FEWEST_PAIRS}, "
            f"found {looks}; pass them as they were fixed before the study"
        )
    return looks


def summarise(results: pd.DataFrame, metric: str | Metric = "test_accuracy") -> pd.DataFrame:
    """
    Describe each arm.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`. A failed seed, which has no value, counts as the
        metric defines: by accuracies as the column ``chance`` if there is one, else as one half.
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
        If a column is missing, or a value is outside the metric's range.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> results = pd.DataFrame({"arm": "scratch", "seed": range(3), "test_accuracy": [0.5, 0.625, 0.75]})
    >>> rlm.summarise(results)[["seeds", "mean", "sd"]].loc["scratch"].tolist()
    [3.0, 0.625, 0.125]
    """
    check_table(results)
    try:
        known = find_metric(metric, results)
    except InputError:
        known = Metric(metric)  # without a comparison the direction makes no difference
    counted = count_failed(results, known)
    rows = {arm: describe(values, known) for arm, values in counted.groupby("arm", sort=False)[known.name]}
    return pd.DataFrame.from_dict(rows, orient="index", columns=DESCRIBED).rename_axis("arm")


def compare(
    results: pd.DataFrame,
    arm: str = "pretrained",
    baseline: str | None = None,
    metric: str | Metric = "test_accuracy",
    *,
    watched: bool | Sequence[int] | None = None,
    clusters: pd.DataFrame | None = None,
    same_within: float | None = None,
) -> Verdict:
    """
    Compare two arms seed by seed.

    Parameters
    ----------
    results
        One row per arm and seed: columns arm, seed and `metric`. With the columns ``test_triplets``, ``test_anchors``,
        ``test_clusters`` and ``split``, the verdict includes the size of the test split.
    arm, baseline
        Arms of `results`, with or without their settings; seeds that only one of them has are dropped and counted. By
        default the baseline is that of the study, ``results.attrs["baseline"]``, else scratch.
    metric
        Name of a known metric (accuracies, roc_auc, top_1, mean_reciprocal_rank, ndcg_at_10, map_at_r, recall_at_10,
        eer, losses, seconds, epochs), or a `Metric`. A failed seed, which has no value, counts as the metric defines.
    watched
        True if somebody saw results before all seeds were finished, and might have stopped there. The confidence
        sequence then decides, in the order of the seeds. Numbers of pairs, such as ``(10, 20, 30, 40)``, if looks at
        these were fixed before the study. By default ``results.attrs["watched"]``, which `rlm.run_study` and
        `rlm.read_study` set.
    clusters
        Test accuracy by arm, seed and cluster of one test split, such as ``rlm.read_study(db).finished.clusters``, or
        any metric, as `rlm.external.read_judged`: then the verdict also speaks of data like these, see
        `Verdict.new_data`.
    same_within
        Largest difference that counts as the same, fixed before the study, in the metric's unit. By default
        ``results.attrs["same_within"]``, else that of the metric: 0.01 (a point) of shares.

    Returns
    -------
    Verdict
        Decision, sentences and estimates.

    Raises
    ------
    InputError
        If a column or an arm is missing, a value is no number or outside the metric's range, an arm has a seed twice,
        or the arms have no seed in common.

    Notes
    -----
    The error rates of these intervals were measured, see docs/calibration.md. Mean difference: see
    `rlm.stats.estimates.MeanTest`. Probability of improvement: Bouthillier et al., "Accounting for variance in machine
    learning benchmarks", MLSys 2021, section 4, with a Clopper-Pearson interval. Ratio of variances: Fieller's.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("scratch", 0, 0.6), ("scratch", 1, 0.65), ("pretrained", 0, 0.7), ("pretrained", 1, 0.75)]
    >>> rlm.compare(pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"])).decision
    'too few seeds'
    """
    settings = {"watched": watched, "clusters": clusters, "same_within": same_within}
    (verdict,) = compare_all(results, baseline, metric, arms=[arm], **settings).values()
    return verdict


def compare_all(
    results: pd.DataFrame,
    baseline: str | None = None,
    metric: str | Metric = "test_accuracy",
    *,
    watched: bool | Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    clusters: pd.DataFrame | None = None,
    same_within: float | None = None,
) -> dict[str, Verdict]:
    """
    Compare several arms with one baseline, with Holm's correction.

    Parameters
    ----------
    results, baseline, metric, watched
        As in `compare`.
    arms
        Arms of `results`; by default all but the baseline.
    clusters, same_within
        As in `compare`.

    Returns
    -------
    dict
        A verdict by arm.

    Raises
    ------
    InputError
        As `compare`.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [(arm, seed, 0.6) for arm in ("scratch", "pretrained", "shuffled") for seed in range(12)]
    >>> verdicts = rlm.compare_all(pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"]))
    >>> {arm: verdict.decision for arm, verdict in verdicts.items()}
    {'pretrained': 'no evidence either way', 'shuffled': 'no evidence either way'}
    """
    check_table(results)
    watched, metric = find_watched(results, watched), find_metric(metric, results)
    if same_within is not None:
        metric = replace(metric, same_within=same_within)
    by_seed = arrange_by_seed(count_failed(results, metric), metric.name)
    baseline = find_baseline(results) if baseline is None else find_arm(by_seed, baseline)
    wanted = by_seed.columns.drop(baseline, errors="ignore") if arms is None else arms
    arms = list(dict.fromkeys(find_arm(by_seed, arm) for arm in wanted))
    paired = {arm: pair(by_seed, arm, baseline) for arm in arms}
    differences = {arm: (both[arm] - both[baseline]).to_numpy() for arm, both in paired.items()}
    fixed, sequence = (judge(differences, metric.reach, watched=how) for how in (False, True))
    planned = judge(differences, metric.reach, watched=watched) if isinstance(watched, tuple) else {}
    effective = None if clusters is None or "triplets" not in clusters else count_effective(clusters)
    failed, basis = share_failed(results, metric, effective), find_basis(results)
    deciding = planned or (sequence if watched else fixed)
    new_data = {}
    tested = None if clusters is None else select_clusters(clusters, metric, is_fixed=basis.is_fixed)
    if tested is not None:
        new_data = {
            arm: generalise_arms(tested, arm, baseline, both.index, deciding[arm], metric, watched)
            for arm, both in paired.items()
        }
    elif basis.test_share is not None and not basis.is_fixed:
        new_data = {
            arm: generalise_splits(differences[arm], basis.test_share, deciding[arm], metric.reach, watched)
            for arm in paired
        }
    return {
        arm: Verdict(
            arm=arm,
            baseline=baseline,
            metric=metric,
            **describe_pairs(both[arm].to_numpy(), both[baseline].to_numpy(), metric),
            fixed=fixed[arm],
            sequence=sequence[arm],
            failed={name: failed[name] for name in (baseline, arm) if name in failed},
            dropped=len(by_seed[[arm, baseline]].dropna(how="all")) - len(both),
            arms=frozenset(by_seed),
            compared=len(arms),
            basis=basis,
            watched=watched,
            planned=planned.get(arm),
            new_data=new_data.get(arm),
        )
        for arm, both in paired.items()
    }


def find_baseline(results: pd.DataFrame) -> str:
    """Return the arm to compare with: the one that was noted when the runs were asked for, or else scratch."""
    return results.attrs.get("baseline", BASELINE)


def paired_arms(results: pd.DataFrame, baseline: str | None = None) -> list[str]:
    """List the arms, other than the baseline, that have a seed in common with it, even if the study is unfinished."""
    baseline = baseline or find_baseline(results)
    seeds = results.groupby("arm", sort=False)["seed"].agg(set)
    return [arm for arm, theirs in seeds.items() if arm != baseline and theirs & seeds.get(baseline, set())]
