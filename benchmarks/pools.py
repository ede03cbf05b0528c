"""
Accuracies of many real runs from scratch, for calibration to draw from.

python -m benchmarks.pools --db pools.db --out docs/benchmarks/pools.csv
"""

import argparse
from pathlib import Path

import pandas as pd

from rlm.config import StudyConfig
from rlm.runtime.atomic import write_whole
from rlm.study import run_study

SHARED = {"arms": ("scratch",), "max_epochs": 12, "patience": 3}
POOLS = {
    "one-humped": StudyConfig(encoder="lstm", **SHARED),
    # Stopped at the first epoch that is no better, most runs of this encoder get nowhere.
    "skewed": StudyConfig(encoder="mean", **SHARED | {"max_epochs": 40, "patience": 1}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=240, help="runs a pool")
    parser.add_argument("--db", type=Path, default=Path("pools.db"), help="store; an interrupted command continues")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/pools.csv"))
    parser.add_argument("--jobs", type=int, default=-1)
    asked = parser.parse_args()
    pools = []
    for name, config in POOLS.items():
        runs = run_study(config, asked.seeds, db=asked.db, n_jobs=asked.jobs)
        pools.append(runs[["seed", "test_accuracy"]].assign(pool=name))
    write_whole(asked.out, pd.concat(pools).to_csv(index=False, float_format="%.6f"))


if __name__ == "__main__":
    main()
