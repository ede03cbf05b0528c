"""
Decide the defaults of batching and optimizer, and write docs/defaults.md.

python -m benchmarks.defaults --db defaults.db

It takes an hour; what the file holds already is not trained again, and an interrupted run goes on.
"""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from rlm.runtime.atomic import write_whole

DATASETS = {
    "chatterbot-english": ({}, 40),
    "pqa": ({"pretrain_epochs": 3, "max_epochs": 15, "patience": 5}, 10),
}
BASELINE = "flat, adam"
MARGIN = 0.005  # half a point: a faster setting whose interval lies within it is as good
DOCS = Path(__file__).parents[1] / "docs"
TEMPLATE = Path(__file__).with_name("defaults.md.jinja")


def train(db: Path) -> pd.DataFrame:
    tables = []
    for dataset, (settings, seeds) in DATASETS.items():
        for batching, optimizer in product(("flat", "grouped"), ("adam", "rowwise_adam")):
            config = rlm.StudyConfig(dataset=dataset, batching=batching, optimizer=optimizer, **settings)
            results = rlm.run_study(config, seeds, db=db)
            tables.append(results.assign(dataset=dataset, setting=f"{batching}, {optimizer}"))
    return pd.concat(tables, ignore_index=True)


def tabulate(results: pd.DataFrame) -> pd.DataFrame:
    """Compare every setting with the first one, arm by arm, on the same seeds."""
    rows = []
    for (dataset, arm), runs in results.groupby(["dataset", "arm"], sort=False):
        by_setting = runs.drop(columns="arm").rename(columns={"setting": "arm"})
        seconds = by_setting.groupby("arm", sort=False)["seconds"].mean()
        for setting in seconds.index.drop(BASELINE):
            difference = rlm.compare(by_setting, setting, BASELINE, watched=False).difference
            is_within = difference.low > -MARGIN and difference.high < MARGIN
            pairs = by_setting["seed"].nunique()
            speed = seconds[BASELINE] / seconds[setting]
            rows.append(
                (dataset, arm, setting, pairs, difference.format(100, "+"), "yes" if is_within else "no", speed)
            )
    columns = ["dataset", "arm", "setting", "pairs", "minus flat, adam, points", "within half a point", "times as fast"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="file to keep every finished study in")
    table = tabulate(train(parser.parse_args().db))
    settings = {
        name: ", ".join(f"{key} {value}" for key, value in mine.items()) or "the defaults"
        for name, (mine, _) in DATASETS.items()
    }
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        machine=machine(), settings=settings, table=table.to_markdown(index=False, floatfmt=".2f")
    )
    write_whole(DOCS / "defaults.md", page + "\n")


if __name__ == "__main__":
    main()
