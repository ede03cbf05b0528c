"""Decompose the spread of accuracies into parts: the seed, the split, and the finite test set."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from rlm.errors import InputError
from rlm.stats.estimates import CONFIDENCE, RESAMPLES, Estimate, mean_with_interval
from rlm.stats.metrics import count_failed, find_metric

FEWEST_SPLITS = 3
FEWEST_SEEDS = 2
FEWEST_SPLITS_TO_RANK = 10  # with fewer a share is known too badly to name the largest
PARTS = ("seed", "split", "test set")


class Spread(NamedTuple):
    """
    Variances of the test accuracy of single runs, in squared accuracy, and their `shares` in the sum by name.

    `seed` is over initial weights and order, of one split; `split` over held-out anchors, beyond the test set; and
    `test_set` over test sets of the same size, drawn from unrelated clusters.

    Examples
    --------
    >>> import rlm
    >>> half, none = rlm.stats.Estimate(0.5, 0.4, 0.6), rlm.stats.Estimate(0.0, 0.0, 0.0)
    >>> shares = {"seed": half, "split": none, "test set": half}
    >>> rlm.stats.Spread(half, none, half, shares, splits=10).table()["share"].tolist()
    [0.5, 0.0, 0.5]
    """

    seed: Estimate
    split: Estimate
    test_set: Estimate
    shares: dict[str, Estimate]
    splits: int

    def table(self) -> pd.DataFrame:
        """Return one row per part: standard deviation with its 95 % interval (sd, low, high), share of the variance."""
        rows = {
            name: (*np.sqrt(part), self.shares[name].value)
            for name, part in zip(PARTS, (self.seed, self.split, self.test_set), strict=True)
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["sd", "low", "high", "share"]).rename_axis("part")


def decompose_spread(clusters: pd.DataFrame, seed: int = 0) -> Spread:
    """
    Decompose the spread of single runs into the parts of seed, split and test set.

    Parameters
    ----------
    clusters
        Runs of one arm with the same number of seeds on several splits, one row per run and cluster of the test set:
        columns split_seed, seed, cluster, triplets and test_accuracy.
    seed
        Seed of the resampling.

    Returns
    -------
    Spread
        Variances with their intervals.

    Raises
    ------
    InputError
        If there are fewer than three splits or two seeds, or the numbers of seeds differ between splits.

    Notes
    -----
    A one-way random-effects analysis: the variance between the means of splits contains a share of the variance between
    seeds, and that of the finite test set, which is a bootstrap over the clusters of each test split. The intervals are
    generalised pivotal ones: mean squares divided by draws of chi-square. Burdick, Borror and Montgomery, "Design and
    analysis of gauge R&R studies", 2005.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> index = pd.MultiIndex.from_product([range(4), range(3), range(20)], names=["split_seed", "seed", "cluster"])
    >>> clusters = pd.DataFrame({"triplets": 5, "test_accuracy": 0.6}, index=index).reset_index()
    >>> clusters["test_accuracy"] += 0.01 * clusters["seed"]
    >>> round(rlm.stats.decompose_spread(clusters).shares["seed"].value, 6)
    1.0
    """
    seeds = clusters.groupby("split_seed")["seed"].nunique()
    if len(seeds) < FEWEST_SPLITS or seeds.min() < 2 or seeds.nunique() > 1:
        raise InputError(
            f"expected at least {FEWEST_SPLITS} splits with the same number of seeds, 2 or more, found "
            f"{', '.join(map(str, seeds)) or 'none'} seeds; run the study once for each of several values of split_seed"
        )
    rng = np.random.default_rng(seed)
    clusters = clusters.fillna({"test_accuracy": find_metric("test_accuracy").failed})
    parts = []
    for _, split in clusters.groupby("split_seed"):
        triplets = split.pivot(index="seed", columns="cluster", values="triplets").to_numpy(float)
        right = triplets * split.pivot(index="seed", columns="cluster", values="test_accuracy").to_numpy()
        accuracy = right.sum(axis=1) / triplets.sum(axis=1)
        draws = rng.multinomial(triplets.shape[1], np.full(triplets.shape[1], 1 / triplets.shape[1]), size=RESAMPLES)
        resampled = (draws @ right.mean(axis=0)) / (draws @ triplets.mean(axis=0))
        parts.append((accuracy.mean(), accuracy.var(ddof=1), resampled.var()))

    means, within, finite = np.array(parts).T
    splits, each = len(seeds), int(seeds.iloc[0])
    squares = np.array([within.mean(), means.var(ddof=1), finite.mean()])
    # Satterthwaite's degrees of freedom for the mean of the test sets' variances.
    free_finite = 2 * splits * squares[2] ** 2 / max(float(finite.var(ddof=1)), np.finfo(float).tiny)
    free = np.array([splits * (each - 1), splits - 1, min(free_finite, 1e6)])
    drawn = squares * free / rng.chisquare(free, (RESAMPLES, 3))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(_parts_and_shares(*drawn.T, each), tails, axis=-1)
    found = _parts_and_shares(*squares, each)
    estimates = [Estimate(*map(float, part)) for part in zip(found, low, high, strict=True)]
    return Spread(*estimates[:3], dict(zip(PARTS, estimates[3:], strict=True)), splits)


def _parts_and_shares(
    own: np.ndarray | float, between: np.ndarray | float, test_set: np.ndarray | float, seeds: int
) -> np.ndarray:
    """Return the variances of seed, split and test set, and their shares, from the mean squares."""
    found = np.stack([own, np.maximum(between - own / seeds - test_set, 0), test_set])
    return np.concatenate([found, found / np.maximum(found.sum(axis=0), np.finfo(float).tiny)])


def tabulate_spread(runs: pd.DataFrame) -> pd.DataFrame:
    """
    Tabulate the spread of runs under several settings, and how much of it each setting removes.

    Parameters
    ----------
    runs
        Columns setting, seed and test_accuracy; each setting removes something from the one before it, and has the same
        seeds. A seed that diverged counts as chance.

    Returns
    -------
    pandas.DataFrame
        By setting: seeds, mean, mean_low, mean_high, sd, sd_low, sd_high, and removed, removed_low, removed_high: the
        standard deviation under the setting before minus that under this one.

    Raises
    ------
    InputError
        If there are fewer than two seeds, or the settings have different ones.

    Notes
    -----
    The intervals are Student's t on jackknife pseudo-values, of the logarithm of the variance for sd; missing for two
    seeds. Miller, "The
    jackknife: a review", Biometrika 61, 1974.

    Examples
    --------
    >>> import pandas as pd
    >>> import rlm
    >>> wide = pd.DataFrame({"setting": "wide", "seed": range(12), "test_accuracy": [0.4, 0.6] * 6})
    >>> narrow = wide.assign(setting="narrow", test_accuracy=wide["test_accuracy"] / 2)
    >>> rlm.stats.tabulate_spread(pd.concat([wide, narrow]))["sd"].round(3).to_dict()
    {'wide': 0.104, 'narrow': 0.052}
    """
    counted = count_failed(runs.assign(arm=runs["setting"]))
    by_seed = counted.pivot(index="seed", columns="setting", values="test_accuracy")[list(runs["setting"].unique())]
    if len(by_seed) < FEWEST_SEEDS or by_seed.isna().any(axis=None):
        raise InputError(
            f"expected at least {FEWEST_SEEDS} seeds, the same under every setting, found "
            f"{', '.join(f'{count} with {setting}' for setting, count in by_seed.count().items())}"
        )
    values = by_seed.to_numpy()
    others = ~np.eye(len(values), dtype=bool)
    ddof = int(len(values) > FEWEST_SEEDS)
    left_out = np.stack([values[rows].std(axis=0, ddof=ddof) for rows in others])
    sd = values.std(axis=0, ddof=1)
    rows = []
    for place, mean in enumerate(values.T):
        # Equal accuracies have no spread, and no logarithm.
        logs = [np.log(np.maximum(one[..., place], np.finfo(float).tiny)) for one in (sd, left_out)]
        spread = [float(np.exp(bound)) for bound in _jackknife(*logs)] if sd[place] > 0 else [0.0] * 3
        before = max(place - 1, 0)
        removed = (
            _jackknife(sd[before] - sd[place], left_out[:, before] - left_out[:, place]) if place else [np.nan] * 3
        )
        rows.append([len(values), *mean_with_interval(mean, 0, 1), sd[place], *spread[1:], *removed])
    columns = ["seeds"] + [f"{name}{end}" for name in ("mean", "sd", "removed") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=columns, index=by_seed.columns)


def _jackknife(value: float, left_out: Float[np.ndarray, " seed"]) -> Estimate:
    """Estimate a statistic from its values without each of the seeds; no interval for two seeds."""
    if len(left_out) <= FEWEST_SEEDS:
        return Estimate(float(value), np.nan, np.nan)
    pseudo = len(left_out) * value - (len(left_out) - 1) * left_out
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(pseudo) - 1) * pseudo.std(ddof=1) / np.sqrt(len(pseudo))
    return Estimate(float(value), float(pseudo.mean() - reach), float(pseudo.mean() + reach))
