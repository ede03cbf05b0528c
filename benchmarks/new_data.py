"""
Measure how often the interval for other data holds the truth, and write docs/new_data.md.

python -m benchmarks.new_data

Differences of simulated studies have an effect of the seed, one of the cluster, and a rest; the clusters have the
sizes of a real test split.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import rlm
from rlm.runtime.atomic import write_whole
from rlm.stats.crossed import generalise, generalise_arms
from rlm.stats.judging import judge, plan_looks
from rlm.stats.metrics import find_metric

DOCS = Path(__file__).parents[1] / "docs"
TRUTH, REST = 0.01, 0.2  # mean difference; standard deviation of a cluster's rest with one triplet
# Standard deviations of the seeds' and of the clusters' effects.
VARIANCES = {
    "seeds dominate": (0.02, 0.02),
    "both matter": (0.02, 0.08),
    "clusters dominate": (0.002, 0.08),
    "neither": (0.0, 0.0),
}
KINDS = {
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape) / 3**0.5,
    "skewed": lambda rng, shape: rng.exponential(1, shape) - 1,
}
PAIRS, FEW = (10, 20, 40), 30
ACCURACY = find_metric("test_accuracy")
LOOKS = {"planned, every 10": plan_looks(40, 10), "at any time": True}


def cluster_sizes() -> dict[str, np.ndarray]:
    """Return the triplets of each cluster of a real test split, and those of some of its clusters."""
    config = rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0)
    (block,) = rlm.iter_study(config, 1, n_jobs=1, progress=False)
    sizes = block.clusters["triplets"].to_numpy(float)
    some = np.sort(sizes)[:: -(-len(sizes) // FEW)]
    return {f"{len(one)} clusters, worth {one.sum() ** 2 / np.square(one).sum():.0f}": one for one in (sizes, some)}


def draw_differences(
    rng: np.random.Generator, draw: Callable[..., np.ndarray], sizes: np.ndarray, pairs: int, variances: str
) -> np.ndarray:
    of_seeds, of_clusters = VARIANCES[variances]
    table = TRUTH + of_clusters * draw(rng, (len(sizes), 1)) + of_seeds * draw(rng, (1, pairs))
    return table + REST / np.sqrt(sizes)[:, None] * draw(rng, (len(sizes), pairs))


def simulate_looks(sizes: np.ndarray, variances: str, kind: str, looks: str, studies: int) -> dict[str, float]:
    """Return how often the intervals hold at all looks up to 40 pairs: that for the split, and that for other data."""
    pairs, watched, rng = 40, LOOKS[looks], np.random.default_rng([1, len(sizes)])
    share, seeds, found = sizes / sizes.sum(), pd.RangeIndex(pairs), []
    cells = pd.MultiIndex.from_product([range(len(sizes)), seeds], names=["cluster", "seed"]).to_frame(index=False)
    cells["triplets"] = np.repeat(sizes, pairs)
    for _ in range(studies):
        table = draw_differences(rng, KINDS[kind], sizes, pairs, variances)
        arms = [cells.assign(arm="a", test_accuracy=table.ravel()), cells.assign(arm="b", test_accuracy=0.0)]
        judged = judge({"a": share @ table}, ACCURACY.reach, watched=watched)["a"]
        both = generalise_arms(pd.concat(arms), "a", "b", seeds, judged, ACCURACY, watched)
        found.append([not judged.difference.excludes(TRUTH), not both.difference.excludes(TRUTH)])
    held = 100 * np.mean(found, axis=0)
    return {"over seeds": held[0], "over seeds and clusters": held[1]}


def simulate(sizes: np.ndarray, pairs: int, variances: str, kind: str, studies: int) -> dict[str, float]:
    """Return how often the interval over seeds and that over seeds and clusters hold, and how wide they are."""
    draw, rng = KINDS[kind], np.random.default_rng([pairs, len(sizes)])
    share, found = sizes / sizes.sum(), []
    for _ in range(studies):
        table = draw_differences(rng, draw, sizes, pairs, variances)
        by_seed = share @ table
        reach = stats.t.ppf(0.975, pairs - 1) * stats.sem(by_seed)
        both = generalise(table, sizes, 0.05).difference
        found.append([abs(by_seed.mean() - TRUTH) < reach, not both.excludes(TRUTH), both.width / 2 / reach])
    seeds, clusters, _ = np.mean(found, axis=0)
    wider = float(np.median(np.array(found)[:, 2]))
    return {"over seeds": 100 * seeds, "over seeds and clusters": 100 * clusters, "times as wide": wider}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=DOCS / "new_data.md")
    options = parser.parse_args()
    rows = []
    for (name, sizes), variances, kind, pairs in product(cluster_sizes().items(), VARIANCES, KINDS, PAIRS):
        cell = {"test split": name, "variances": variances, "effects": kind, "pairs": pairs}
        rows.append(cell | simulate(sizes, pairs, variances, kind, options.studies))
    table = pd.DataFrame(rows)
    looked = []
    for (name, sizes), variances, looks in product(cluster_sizes().items(), list(VARIANCES)[:3], LOOKS):
        cell = {"test split": name, "variances": variances, "looks": looks}
        looked.append(cell | simulate_looks(sizes, variances, "normal", looks, options.studies // 4))
    least, mean = table["over seeds and clusters"].agg(["min", "mean"])
    only, worst = table["over seeds"].agg(["mean", "min"])
    page = f"""# Does the verdict hold for other data?

By `python -m benchmarks.new_data`, {options.studies:,} simulated studies a cell, so that 95 % is measured to within
{196 * (0.95 * 0.05 / options.studies) ** 0.5:.1f} points. The truth is the mean over new seeds *and* new clusters.
**The interval over seeds and clusters holds it in {mean:.1f} % of the studies on average, and in {least:.1f} % in the
worst cell; Student's interval over seeds alone in {only:.1f} %, and in {worst:.1f} % in the worst.** The interval of
`Verdict.new_data` is never narrower than the one here: it contains that for the split.

Clusters have the sizes of the test split of the English chat corpus, or of some of its clusters; a split worth fewer
than ten clusters of equal size gets no interval. Effects of seed and cluster, and the rest, have the standard
deviations and shapes of `benchmarks/new_data.py`. None of this covers the choice of the training set, which all runs
share. The interval is that of crossed random effects with Satterthwaite's degrees of freedom, see `rlm.stats.crossed`.

{table.to_markdown(index=False, floatfmt=("", "", "", ".0f", ".1f", ".1f", ".2f"))}

## With several looks

How often the intervals hold at *all* looks up to 40 pairs, of {options.studies // 4:,} studies with normal effects.
A look at any time adds the error of the data to a confidence sequence; that is wider than necessary.

{pd.DataFrame(looked).to_markdown(index=False, floatfmt=("", "", "", ".1f", ".1f"))}
"""
    write_whole(options.out, page)


if __name__ == "__main__":
    main()
