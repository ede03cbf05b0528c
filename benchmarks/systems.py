"""
Train every system on both packaged datasets, and write docs/systems.md with its figure.

python -m benchmarks.systems --db systems.db

It takes an hour; what the file holds already is not trained again, and an interrupted run goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from rlm.runtime.atomic import write_whole
from rlm.systems import ALL

SEEDS = 10
SETTINGS = {
    "chatterbot-english": {"pretrain_epochs": 2, "max_epochs": 5, "batching": "grouped"},
    "pqa": {"pretrain_epochs": 1, "max_epochs": 3, "epoch_triplets": 10_000, "batching": "grouped"},
}
DOCS = Path(__file__).parents[1] / "docs"
TEMPLATE = Path(__file__).with_name("systems.md.jinja")


def train(db: Path, datasets: Sequence[str]) -> pd.DataFrame:
    tables = []
    for dataset in datasets:
        config = rlm.StudyConfig(dataset=dataset, **SETTINGS[dataset])
        tables.append(rlm.systems.run(config, ALL, SEEDS, db=db))
    return pd.concat(tables)


def write_page(results: pd.DataFrame) -> None:
    sns.set_theme(style="ticks")
    summary, compared = rlm.systems.summarise(results), rlm.systems.compare(results)
    rlm.systems.draw(summary)[0].figure.savefig(DOCS / "systems.png", dpi=110)
    columns = ["dataset", "encoder", "loss", "pairs", "points", "p", "holm_p", "decision"]
    names = {"points": "pretrained minus scratch, points", "holm_p": "Holm-corrected p"}
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        machine=machine(),
        seeds=SEEDS,
        settings={name: ", ".join(f"{key} {value}" for key, value in mine.items()) for name, mine in SETTINGS.items()},
        words=rlm.systems.explain(results),
        table=rlm.systems.tabulate(summary).to_markdown(index=False, disable_numparse=True),
        compared=compared[columns].rename(columns=names).to_markdown(index=False, floatfmt=".2g"),
    )
    write_whole(DOCS / "systems.md", page + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="file to keep every finished study in")
    parser.add_argument("--datasets", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    options = parser.parse_args()
    results = train(options.db, options.datasets)
    write_whole(DOCS / "benchmarks" / "systems.csv", results.to_csv(index=False, float_format="%.6g"))
    write_page(results)


if __name__ == "__main__":
    main()
