"""
Measure what made runs of the author's setting differ, and write docs/instability.md.

python -m benchmarks.instability

It takes hours on two cores. Parts that docs/benchmarks/instability.csv has already are not trained again; --parts N
stops after N new ones, --page writes the page from what there is.
"""

from functools import partial
from pathlib import Path

import pandas as pd
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from benchmarks.resume import ask_for_parts, complete
from rlm.runtime.atomic import write_whole
from rlm.stats.estimates import Estimate

DATASETS = {"chatterbot-english": {}, "pqa": {"max_epochs": 30, "patience": 5}}
SEEDS, SPLITS, SEEDS_PER_SPLIT = 20, 10, 3
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, SPLIT_RESULTS = DOCS / "benchmarks" / "instability.csv", DOCS / "benchmarks" / "instability_splits.csv"
TEMPLATE = Path(__file__).with_name("instability.md.jinja")


def configure(dataset: str, setting: str) -> rlm.StudyConfig:
    """Return the author's setting without pre-training, and without the causes up to this setting."""
    settings = dict(rlm.PRESETS["the author's setting"].config) | {"dataset": dataset, "arms": ("scratch",)}
    for name, change in rlm.presets.CAUSES.items():
        settings |= change
        if name == setting:
            break
    return rlm.StudyConfig(**settings | DATASETS[dataset])


def train(dataset: str, setting: str) -> pd.DataFrame:
    results = rlm.run_study(configure(dataset, setting), SEEDS)
    return results[["seed", "test_accuracy", "best_epoch", "epochs"]].assign(machine=machine())


def train_on_split(dataset: str, split_seed: int) -> pd.DataFrame:
    """Train the last setting on a split of its own, for the accuracy by cluster."""
    config = configure(dataset, list(rlm.presets.CAUSES)[-1]).model_copy(update={"split_seed": split_seed})
    clusters = pd.concat([block.clusters for block in rlm.iter_study(config, SEEDS_PER_SPLIT)])
    return clusters[["seed", "cluster", "triplets", "test_accuracy"]]


def main() -> None:
    wanted = ask_for_parts(__doc__)
    settings = [(dataset, setting) for dataset in DATASETS for setting in rlm.presets.CAUSES]
    runs = complete(RESULTS, ["dataset", "setting"], {key: partial(train, *key) for key in settings}, wanted)
    splits = [(dataset, split) for dataset in DATASETS for split in range(SPLITS)]
    keys = ["dataset", "split_seed"]
    clusters = complete(SPLIT_RESULTS, keys, {key: partial(train_on_split, *key) for key in splits}, wanted)
    pages = {}
    for dataset, mine in runs.groupby("dataset", sort=False):
        table = rlm.stats.tabulate_spread(mine)
        ends = rlm.stats.tabulate_spread(mine[mine["setting"].isin([table.index[0], table.index[-1]])]).iloc[-1]
        shown = (100 * table.drop(columns="seeds")).reset_index().astype(object)
        theirs = clusters[clusters["dataset"] == dataset]
        spread = ""
        if theirs["split_seed"].nunique() >= SPLITS:
            spread = rlm.explain.spread(rlm.stats.decompose_spread(theirs))
        pages[dataset] = {
            "causes": rlm.explain.causes(table),
            "is_shown": ((table["removed_low"] > 0) | (table["removed_high"] < 0)).any(),
            "in_all": Estimate(*ends[["removed", "removed_low", "removed_high"]]).format(100, "+"),
            "table": shown.where(shown.notna(), "").to_markdown(index=False, floatfmt=".1f", missingval=""),
            "spread": spread,
            "triplets": len(rlm.prepare(configure(dataset, table.index[0])).test),
        }
    page = Template(TEMPLATE.read_text(encoding="utf-8"))
    text = page.render(
        pages=pages,
        seeds=SEEDS,
        missing=len(settings) - runs.groupby(["dataset", "setting"]).ngroups,
        splits=len(splits) - clusters.groupby(keys).ngroups,
        machines=runs["machine"].unique(),
        settings=DATASETS,
    )
    write_whole(DOCS / "instability.md", text + "\n")


if __name__ == "__main__":
    main()
