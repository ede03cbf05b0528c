"""
Decide the defaults of batching and optimizer, and write docs/defaults.md.

python -m benchmarks.defaults

It takes an hour on two free cores. Settings that docs/benchmarks/defaults.csv has already are not trained again; delete
the file to measure anew. `--speed` times the settings, on a machine without other work.
"""

import argparse
import json
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from benchmarks.resume import complete
from rlm.runtime.atomic import write_whole

DATASETS = {
    "chatterbot-english": ({}, 40),
    "pqa": ({"pretrain_epochs": 3, "max_epochs": 15, "patience": 5}, 10),
}
SETTINGS = [", ".join(chosen) for chosen in product(("flat", "grouped"), ("adam", "rowwise_adam"))]
BASELINE = SETTINGS[0]
MARGIN = 0.005  # half a point: a faster setting whose interval lies within it is as good
ROUNDS = 3  # of timing; the fastest counts
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, SPEED = DOCS / "benchmarks" / "defaults.csv", DOCS / "benchmarks" / "defaults.json"
TEMPLATE = Path(__file__).with_name("defaults.md.jinja")


def configure(dataset: str, setting: str, **changed: object) -> rlm.StudyConfig:
    batching, optimizer = setting.split(", ")
    return rlm.StudyConfig(dataset=dataset, batching=batching, optimizer=optimizer, **DATASETS[dataset][0] | changed)


def train() -> pd.DataFrame:
    """Run the studies that are missing, and write each as it is finished."""

    def study(dataset: str, setting: str) -> pd.DataFrame:
        results = rlm.run_study(configure(dataset, setting), DATASETS[dataset][1])
        return results[["arm", "seed", "test_accuracy"]]

    return complete(RESULTS, ["dataset", "setting"], {key: partial(study, *key) for key in product(DATASETS, SETTINGS)})


def measure_speed() -> dict[str, dict[str, float]]:
    """Time a block of five seeds under every setting, round by round; seconds of the fastest round."""
    times = {}
    for dataset, setting in product(list(DATASETS) * ROUNDS, SETTINGS):
        config = configure(dataset, setting, arms=("scratch",), max_epochs=3, patience=3)
        seconds = rlm.run_study(config, 5, n_jobs=1, progress=False)["seconds"].sum()
        mine = times.setdefault(dataset, {})
        mine[setting] = min(seconds, mine.get(setting, seconds))
    return times


def tabulate(results: pd.DataFrame, speed: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Compare every setting with the first one, arm by arm, on the same seeds."""
    rows = []
    for (dataset, arm), runs in results.groupby(["dataset", "arm"], sort=False):
        by_setting = runs.drop(columns="arm").rename(columns={"setting": "arm"})
        for setting in SETTINGS[1:]:
            verdict = rlm.compare(by_setting, setting, BASELINE, watched=False)
            difference = verdict.difference
            is_within = difference.low > -MARGIN and difference.high < MARGIN
            times = speed[dataset][BASELINE] / speed[dataset][setting]
            shown = difference.format(100, "+", digits=2)
            rows.append((dataset, arm, setting, verdict.pairs, shown, "yes" if is_within else "no", times))
    columns = ["dataset", "arm", "setting", "pairs", "difference, points", "within half a point", "times as fast"]
    return pd.DataFrame(rows, columns=columns)


def choose(table: pd.DataFrame) -> str:
    """Return the fastest setting that is as good as the first one for every arm and dataset, and faster on both."""
    fits = (table["within half a point"] == "yes") & (table["times as fast"] > 1)
    settings = table[fits.groupby(table["setting"]).transform("all")]
    return settings.groupby("setting")["times as fast"].min().idxmax() if len(settings) else BASELINE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", action="store_true", help="time the settings anew")
    if parser.parse_args().speed or not SPEED.exists():
        write_whole(SPEED, json.dumps({"machine": machine(), "rounds": ROUNDS, "seconds": measure_speed()}, indent=1))
    timed = json.loads(SPEED.read_text())
    settings = {
        name: ", ".join(f"{key} {value}" for key, value in mine.items()) or "the defaults"
        for name, (mine, _) in DATASETS.items()
    }
    table = tabulate(train(), timed["seconds"])
    page = Template(TEMPLATE.read_text(encoding="utf-8"))
    text = page.render(
        **{name: timed[name] for name in ("machine", "rounds")},
        settings=settings,
        default=choose(table),
        baseline=BASELINE,
        table=table.to_markdown(index=False, floatfmt=".2f"),
    )
    write_whole(DOCS / "defaults.md", text + "\n")


if __name__ == "__main__":
    main()
