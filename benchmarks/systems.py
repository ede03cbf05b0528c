"""
Train every system with its controls on both packaged datasets, and write docs/systems.md with its figure.

python -m benchmarks.systems

It takes hours on two cores. Parts that docs/benchmarks/systems_controls.csv has already are not trained again; --parts
N stops after N new ones, --page writes the page from what there is.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import seaborn as sns
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from benchmarks.resume import ask_for_parts, complete
from rlm.runtime.atomic import write_whole
from rlm.systems import ALL
from rlm.systems.tables import SYSTEM

SEEDS = 15
ARMS = ("scratch", "pretrained", "rescaled", "shuffled_change")
SETTINGS = {
    "chatterbot-english": {"pretrain_epochs": 2, "max_epochs": 5, "batching": "grouped"},
    "pqa": {"pretrain_epochs": 1, "max_epochs": 3, "epoch_triplets": 10_000, "batching": "grouped"},
}
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, TEMPLATE = DOCS / "benchmarks" / "systems_controls.csv", Path(__file__).with_name("systems.md.jinja")


def train(dataset: str, system: str) -> pd.DataFrame:
    """Train one system; its rows, and those of the untrained reference, which are the same for all systems."""
    config = rlm.StudyConfig(dataset=dataset, arms=ARMS, **SETTINGS[dataset])
    return rlm.systems.run(config, [tuple(system.split(" + "))], SEEDS)


def write_page(results: pd.DataFrame) -> None:
    sns.set_theme(style="ticks")
    summary = rlm.systems.summarise(results)
    rlm.systems.draw(summary)[0].figure.savefig(DOCS / "systems.png", dpi=110)
    compared = [rlm.systems.compare(results, baseline=arm).assign(baseline=arm) for arm in ARMS if arm != "pretrained"]
    columns = ["dataset", "encoder", "loss", "baseline", "pairs", "points", "p", "decision"]
    names = {"baseline": "pretrained compared with", "points": "difference, points"}
    trained = results[results["arm"] == "scratch"].groupby(SYSTEM).ngroups
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        machine=machine(),
        seeds=SEEDS,
        settings={name: ", ".join(f"{key} {value}" for key, value in mine.items()) for name, mine in SETTINGS.items()},
        missing=len(SETTINGS) * len(ALL) - trained,
        words=rlm.systems.explain(results),
        table=rlm.systems.tabulate(summary).to_markdown(index=False, disable_numparse=True),
        compared=pd.concat(compared)[columns].rename(columns=names).to_markdown(index=False, floatfmt=".2g"),
    )
    write_whole(DOCS / "systems.md", page + "\n")


def main() -> None:
    wanted = ask_for_parts(__doc__)
    keys = [(dataset, " + ".join(system)) for dataset in SETTINGS for system in ALL]
    parts = {key: partial(train, *key) for key in keys}
    write_page(complete(RESULTS, ["dataset", "system"], parts, wanted).drop_duplicates([*SYSTEM, "arm", "seed"]))


if __name__ == "__main__":
    main()
