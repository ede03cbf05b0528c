"""The spread of accuracies in parts (seed, split, finite test set), and the triplets that the seed decides."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from scipy import stats

from rlm.errors import InputError
from rlm.stats.estimates import CONFIDENCE, RESAMPLES, Estimate, mean_with_interval
from rlm.stats.metrics import count_failed, find_metric

FEWEST_SPLITS = 3
FEWEST_SEEDS = 2
FEWEST_SPLITS_TO_RANK = 10  # with fewer a share is known too badly to name the largest
PARTS = ("seed", "split", "test set")
KINDS = ("right", "wrong", "tied", "flips")


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


def tabulate_triplets(triplets: pd.DataFrame) -> pd.DataFrame:
    """
    Tell how often the seeds get each test triplet right.

    Parameters
    ----------
    triplets
        One row per run on one test split, such as ``rlm.read_study(db).finished.triplets``: columns arm, seed, test (a
        hash of the split), triplets (their number), and the packed bits right and tied.

    Returns
    -------
    pandas.DataFrame
        One row per test triplet, in the order of the split: by arm the share of its seeds that are right, where a tie
        counts one half; and kind, over all runs: ``"right"``, ``"wrong"`` or ``"tied"`` under every seed, or
        ``"flips"``.

    Raises
    ------
    InputError
        If there is no run, or the runs have different test splits.

    Examples
    --------
    >>> import numpy as np, pandas as pd, rlm
    >>> right = [np.packbits(bits).tobytes() for bits in ([1, 0, 1], [1, 0, 0])]
    >>> runs = {"arm": "scratch", "seed": [0, 1], "test": "split", "triplets": 3, "right": right, "tied": bytes(1)}
    >>> rlm.stats.tabulate_triplets(pd.DataFrame(runs)).to_numpy().tolist()
    [[1.0, 'right'], [0.0, 'wrong'], [0.5, 'flips']]
    """
    halves = _unpack_halves(triplets)
    table = pd.DataFrame({arm: mine.mean(axis=0) / 2 for arm, mine in halves.items()}).rename_axis("triplet")
    return table.assign(kind=_name_kinds(np.concatenate(list(halves.values()))))


def tabulate_luck(triplets: pd.DataFrame) -> pd.DataFrame:
    """
    Count the test triplets whose answer depends on the seed, beside what independent seeds would give.

    Parameters
    ----------
    triplets
        As in `tabulate_triplets`.

    Returns
    -------
    pandas.DataFrame
        One row per arm: seeds, test_accuracy (their mean); right, wrong and tied under every seed, and flips, as
        numbers of triplets; churn, the share of triplets on which two seeds disagree; wrong_independent and
        churn_independent, the same if the errors of seeds were independent. For arms after the first, over the seeds
        that both have: gained and lost, the shares of triplets that are right with this arm only, and with the first
        arm only. A tie counts one half everywhere.

    Raises
    ------
    InputError
        As `tabulate_triplets`.

    Examples
    --------
    >>> import numpy as np, pandas as pd, rlm
    >>> right = [np.packbits(bits).tobytes() for bits in ([1, 0, 1], [1, 0, 0])]
    >>> runs = {"arm": "scratch", "seed": [0, 1], "test": "split", "triplets": 3, "right": right, "tied": bytes(1)}
    >>> rlm.stats.tabulate_luck(pd.DataFrame(runs))[["right", "wrong", "flips"]].loc["scratch"].tolist()
    [1, 1, 1]
    """
    halves, rows = _unpack_halves(triplets), {}
    baseline = next(iter(halves.values()))
    for arm, mine in halves.items():
        accuracy = mine.mean(axis=1).to_numpy() / 2
        kinds = pd.Series(_name_kinds(mine.to_numpy())).value_counts().reindex(KINDS, fill_value=0)
        rows[arm] = {"seeds": len(mine), "test_accuracy": accuracy.mean()} | kinds.to_dict() | _measure_churn(mine)
        rows[arm]["wrong_independent"] = mine.shape[1] * np.prod(1 - accuracy)
        seeds = mine.index.intersection(baseline.index)
        if mine is not baseline and len(seeds):
            gain = mine.loc[seeds].to_numpy(np.int8) - baseline.loc[seeds].to_numpy(np.int8)
            rows[arm] |= {"gained": gain.clip(min=0).mean() / 2, "lost": -gain.clip(max=0).mean() / 2}
    columns = ["seeds", "test_accuracy", *KINDS, "wrong_independent", "churn", "churn_independent", "gained", "lost"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).rename_axis("arm")


def count_hits(triplets: pd.DataFrame) -> pd.DataFrame:
    """
    Count the triplets that 0, 1, ... seeds get right, beside what independent seeds of the same accuracies would give.

    Returns columns arm, right (number of seeds), share (of them), triplets and independent, both as shares of triplets.
    """
    parts = []
    for arm, mine in _unpack_halves(triplets).items():
        expected = np.ones(1)
        for accuracy in mine.mean(axis=1) / 2:
            expected = np.convolve(expected, [1 - accuracy, accuracy])
        found = np.bincount(mine.sum(axis=0) // 2, minlength=len(mine) + 1) / mine.shape[1]
        right = np.arange(len(mine) + 1)
        columns = {"arm": arm, "right": right, "share": right / len(mine), "triplets": found, "independent": expected}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _unpack_halves(triplets: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return by arm a row per seed and a column per triplet: 2 for right, 1 for a tie, 0 for wrong."""
    if triplets["test"].nunique() != 1:
        raise InputError(
            f"expected runs on one test split, found {triplets['test'].nunique()} splits; study the triplets of a "
            'config with split="fixed"'
        )
    (size,) = triplets["triplets"].unique()

    def unpack(blobs: pd.Series) -> np.ndarray:
        return np.array([np.unpackbits(np.frombuffer(blob, np.uint8), count=size) for blob in blobs])

    return {
        str(arm): pd.DataFrame(2 * unpack(mine["right"]) + unpack(mine["tied"]), index=mine["seed"])
        for arm, mine in triplets.groupby("arm", sort=False)
    }


def _name_kinds(halves: UInt8[np.ndarray, "run triplet"]) -> np.ndarray:
    is_constant = (halves == halves[0]).all(axis=0)
    return np.where(is_constant, np.array(["wrong", "tied", "right"])[halves[0]], "flips")


def _measure_churn(halves: pd.DataFrame) -> dict[str, float]:
    """Compute the mean difference of two seeds' scores of a triplet, and that of independent seeds as accurate."""
    if len(halves) < 2:
        return {}
    wrong, tied, right = ((halves == score).sum(axis=0).to_numpy(float) for score in range(3))
    pairs = len(halves) * (len(halves) - 1) / 2
    accuracy = halves.mean(axis=1).to_numpy() / 2
    independent = (len(halves) - 1) * accuracy.sum() - accuracy.sum() ** 2 + (accuracy**2).sum()
    churn = (wrong * right + (wrong * tied + tied * right) / 2).mean()
    return {"churn": churn / pairs, "churn_independent": independent / pairs}
