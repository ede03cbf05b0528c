"""Where the spread of accuracies comes from: the seed, the split, or the finite test set."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rlm.errors import InputError
from rlm.stats.estimates import CONFIDENCE, RESAMPLES, Estimate
from rlm.stats.metrics import CHANCE

FEWEST_SPLITS = 3
FEWEST_SPLITS_TO_RANK = 10  # with fewer the intervals hold the truth far too seldom


PARTS = {
    "seed": "the seed: the same data, another initialisation and order",
    "split": "the split: which anchors are held out",
    "test set": "the finite test set: with other groups of the same kind in it, the same encoder would do better or "
    "worse by as much",
}


class Spread(NamedTuple):
    """
    Variances of the test accuracy of single runs, in squared accuracy.

    Attributes
    ----------
    seed
        Over seeds, that is initial weights and order, of one split.
    split
        Over splits, by which anchors are held out, beyond the test set.
    test_set
        Over test sets of the same size, by which unrelated groups happen to be in them.
    shares
        The share of each part in their sum, by its name.
    splits
        Number of splits.
    """

    seed: Estimate
    split: Estimate
    test_set: Estimate
    shares: dict[str, Estimate]
    splits: int

    def table(self) -> pd.DataFrame:
        """
        The parts.

        Returns
        -------
        pandas.DataFrame
            One row per part: its standard deviation (sd, low, high: 95 % interval) and its share of the variance.
        """
        rows = {
            name: (*np.sqrt(part), self.shares[name].value)
            for name, part in zip(PARTS, (self.seed, self.split, self.test_set), strict=True)
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["sd", "low", "high", "share"]).rename_axis("part")

    @property
    def text(self) -> str:
        """Give the parts, and name one as the largest only where its share is certainly above one half."""
        parts = ", ".join(
            f"{row.Index} {100 * row.sd:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
            for row in self.table().itertuples()
        )
        largest = max(self.shares, key=lambda name: self.shares[name].value)
        said = f"Standard deviations in points: {parts}."
        if self.splits < FEWEST_SPLITS_TO_RANK:
            return (
                f"{said} {self.splits} splits cannot tell which part is the largest; it takes {FEWEST_SPLITS_TO_RANK}, "
                "and with fewer the intervals are too narrow."
            )
        if self.shares[largest].low > 0.5:
            return f"{said} Most of what looks like instability is {PARTS[largest]}."
        return f"{said} No part is certainly larger than the others together."


def decompose_spread(groups: pd.DataFrame, seed: int = 0) -> Spread:
    """
    Split the spread of single runs into seed, split and test set.

    Parameters
    ----------
    groups
        Of one arm, run with the same number of seeds on several splits: the columns of `rlm.study.BlockResult.groups`
        and split_seed.
    seed
        Of the resampling.

    Returns
    -------
    Spread
        With intervals by a bootstrap over splits.

    Raises
    ------
    InputError
        If there are fewer than three splits, or a split with fewer than two seeds, or not all with the same number.

    Notes
    -----
    A one-way random-effects analysis: the variance between the means of splits holds a share of that between seeds,
    and that of the finite test set, which is a bootstrap over the unrelated groups of each test split. Triplets of one
    group are not independent, so groups are resampled, not triplets.
    """
    seeds = groups.groupby("split_seed")["seed"].nunique()
    if len(seeds) < FEWEST_SPLITS or seeds.min() < 2 or seeds.nunique() > 1:
        raise InputError(
            f"expected at least {FEWEST_SPLITS} splits with the same number of seeds, 2 or more, found "
            f"{', '.join(map(str, seeds)) or 'none'} seeds; run the study once for each of several values of split_seed"
        )
    rng = np.random.default_rng(seed)
    groups = groups.fillna({"test_accuracy": CHANCE})
    parts = []
    for _, split in groups.groupby("split_seed"):
        triplets = split.pivot(index="seed", columns="component", values="triplets").to_numpy(float)
        right = triplets * split.pivot(index="seed", columns="component", values="test_accuracy").to_numpy()
        accuracy = right.sum(axis=1) / triplets.sum(axis=1)
        draws = rng.multinomial(triplets.shape[1], np.full(triplets.shape[1], 1 / triplets.shape[1]), size=RESAMPLES)
        resampled = (draws @ right.mean(axis=0)) / (draws @ triplets.mean(axis=0))
        parts.append((accuracy.mean(), accuracy.var(ddof=1), resampled.var()))

    def parts_and_shares(means: np.ndarray, within: np.ndarray, finite: np.ndarray, axis: int = -1) -> np.ndarray:
        own, test_set = within.mean(axis=axis), finite.mean(axis=axis)
        between = means.var(axis=axis, ddof=1) - own / seeds.iloc[0]
        found = np.stack([own, np.maximum(between - test_set, 0), test_set])
        return np.concatenate([found, found / np.maximum(found.sum(axis=0), np.finfo(float).tiny)])

    columns = tuple(np.array(parts).T)
    found = parts_and_shares(*columns)
    interval = stats.bootstrap(
        columns, parts_and_shares, paired=True, method="percentile", confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES, vectorized=True, rng=rng,
    ).confidence_interval  # fmt: skip
    estimates = [Estimate(*map(float, part)) for part in zip(found, interval.low, interval.high, strict=True)]
    return Spread(*estimates[:3], dict(zip(PARTS, estimates[3:], strict=True)), len(seeds))
