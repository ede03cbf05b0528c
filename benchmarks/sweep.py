"""
Simulate sweeps: how often the race keeps the truly best setting, and what it saves; write docs/sweep.md.

python -m benchmarks.sweep --out docs/sweep.md
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from jinja2 import Template
from scipy import stats

from rlm.runtime.atomic import write_whole
from rlm.stats.estimates import FEWEST_PAIRS, LEVEL
from rlm.systems.sweeps import STEP, race

SEEDS = 30
SD = 0.02  # of a setting's accuracy over seeds, beside the part that all settings share
POOLS = Path(__file__).parents[1] / "docs" / "benchmarks" / "pools.csv"
# True mean accuracies, in standard deviations below the best; "all equal" has no best, so that the first one counts.
SCENES = {
    "2 settings, equal": [0.0, 0.0],
    "6 settings, all equal": [0.0] * 6,
    "6 settings, one ahead by 0.5 sd": [0.0] + [0.5] * 5,
    "6 settings, one ahead by 1 sd": [0.0] + [1.0] * 5,
    "6 settings, a ladder of 0.5 sd": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
}


def draw(rng: np.random.Generator, behind: list[float], pool: np.ndarray | None) -> pd.DataFrame:
    """Draw accuracies by seed and setting: Gaussian, or real accuracies of a pool, moved by the true differences."""
    if pool is None:
        values = 0.7 + rng.normal(0, SD, (SEEDS, 1)) + rng.normal(0, SD, (SEEDS, len(behind)))
        moved = values - SD * np.array(behind)
    else:
        moved = rng.choice(pool, (SEEDS, len(behind))) - pool.std() * np.array(behind)
    return pd.DataFrame(moved.clip(0, 1), columns=[f"setting {number}" for number in range(len(behind))])


def naive(by_seed: pd.DataFrame, arms: list[str]) -> list[str]:
    """Race by t tests at 5 % at the same looks, without a correction, as is often done."""
    left = arms
    for look in [*range(FEWEST_PAIRS, SEEDS, STEP), SEEDS]:
        seen = by_seed.iloc[:look]
        best = seen[left].mean().idxmax()
        apart = seen[left].to_numpy() - seen[[best]].to_numpy()
        errors = stats.t.isf(LEVEL / 2, look - 1) * apart.std(axis=0, ddof=1) / look**0.5
        left = [arm for arm, one, error in zip(left, apart.mean(axis=0), errors, strict=True) if one >= -error]
    return left


def simulate(scene: str, source: str, number: int) -> dict[str, object]:
    """Run one simulated sweep."""
    behind, rng = SCENES[scene], np.random.default_rng([number, *scene.encode(), *source.encode()])
    pool = None
    if source != "Gaussian":
        pools = pd.read_csv(POOLS)
        pool = pools.loc[pools["pool"] == source, "test_accuracy"].to_numpy()
    by_seed = draw(rng, behind, pool)
    arms = list(by_seed)
    beaten, seen = race(arms, SEEDS, lambda arms, seeds: by_seed.loc[list(seeds), arms])
    left = [arm for arm in arms if arm not in beaten]
    means = seen[left].mean()
    truth = (0.7 if pool is None else pool.mean()) - (SD if pool is None else pool.std()) * np.array(behind)
    looked = means.max() - truth[arms.index(means.idxmax())]
    return {
        "accuracies": source,
        "true means": scene,
        "best kept": arms[0] in left,
        "best kept by t tests": arms[0] in naive(by_seed, arms),
        "settings left": len(left),
        "runs": seen.notna().to_numpy().sum() / (len(arms) * SEEDS),
        "looked better by, points": 100 * looked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated sweeps of each kind")
    parser.add_argument("--out", type=Path, default=Path("docs/sweep.md"))
    parser.add_argument("--jobs", type=int, default=-1)
    asked = parser.parse_args()
    kinds = [(scene, "Gaussian") for scene in SCENES]
    kinds += [("6 settings, all equal", pool) for pool in ("one-humped", "skewed")]
    work = (joblib.delayed(simulate)(*kind, number) for kind in kinds for number in range(asked.sweeps))
    found = pd.DataFrame(joblib.Parallel(n_jobs=asked.jobs, batch_size=50)(work))
    table = found.groupby(["accuracies", "true means"], sort=False).mean()
    bound = stats.binom.ppf(0.025, asked.sweeps, 1 - LEVEL) / asked.sweeps
    page = Template((Path(__file__).parent / "sweep.md.jinja").read_text(encoding="utf-8")).render(
        sweeps=asked.sweeps,
        seeds=SEEDS,
        fewest=FEWEST_PAIRS,
        step=STEP,
        table=table.reset_index().to_markdown(index=False, floatfmt=".3f"),
        worst=table["best kept"].min(),
        bound=bound,
        naive=table["best kept by t tests"].min(),
        cheapest=table["runs"].min(),
        dearest=table["runs"].max(),
    )
    write_whole(asked.out, page + "\n")
    print(table.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
