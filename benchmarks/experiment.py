"""
Answer the question at full length: does memorising a million random triplets help? Write docs/experiment.md.

python -m benchmarks.experiment

It takes many hours on two cores. Parts that docs/benchmarks/experiment.csv has already are not trained again;
--parts N stops after N new ones, --page writes the page from what there is.
"""

from functools import partial
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from benchmarks.resume import ask_for_parts, complete
from rlm.runtime.atomic import write_whole

DATASETS = {"chatterbot-english": {}, "pqa": {"negatives": 1, "epoch_triplets": 100_000}}
ENCODERS, EPOCHS = ("mean", "lstm"), (20, 10)
CONTROLS = ("rescaled", "shuffled", "shuffled_change")
ARMS = {
    "scratch": ("scratch",),
    "redrawn": ("pretrained", *CONTROLS),
    "fixed": ("pretrained_once",),
}
SEEDS_AT_ONCE, SEEDS = 10, 20
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, TEMPLATE = DOCS / "benchmarks" / "experiment.csv", Path(__file__).with_name("experiment.md.jinja")
KEYS = ["dataset", "encoder", "pretrain_epochs", "triplets", "from_seed"]
RUN = ["dataset", "encoder", "pretrain_epochs", "arm", "seed"]
COLUMNS = ["arm", "seed", "test_accuracy", "top_1", "best_epoch", "epochs", "start_change"]
SEEN = ["seen_accuracy", "unseen_accuracy"]


def configure(dataset: str, encoder: str, epochs: int, triplets: str) -> rlm.StudyConfig:
    """Return the config of a part and of those of fewer epochs, which its pre-training passes; scratch has none."""
    fewer = [f"{arm} {one}: {arm}, pretrain_epochs={one}" for one in EPOCHS if one < epochs for arm in ARMS[triplets]]
    settings = DATASETS[dataset] | {"pretrain_epochs": epochs, "random_triplets": 1_000_000}
    settings |= {"arms": (*ARMS[triplets], *fewer), "patience": 20, "max_epochs": 200}
    return rlm.StudyConfig(dataset=dataset, encoder=encoder, **settings)


def train(dataset: str, encoder: str, epochs: int, triplets: str, from_seed: int) -> pd.DataFrame:
    """Train a part; its rows also have the accuracy on random triplets after the last epoch of pre-training."""
    config, seeds = configure(dataset, encoder, epochs, triplets), range(from_seed, from_seed + SEEDS_AT_ONCE)
    blocks = rlm.study.join(list(rlm.iter_study(config, seeds)), config.arms)
    results = blocks.results[COLUMNS].assign(machine=hardware(), **dict.fromkeys(SEEN))
    if not blocks.pretraining.empty:
        last = blocks.pretraining.groupby(["arm", "seed"], as_index=False).last()
        results = results.drop(columns=SEEN).merge(last[["arm", "seed", *SEEN]], on=["arm", "seed"])
    epochs_of = {arm: config.of(arm).pretrain_epochs for arm in config.arms}
    starts = {arm: rlm.variants.find_variant(arm).start for arm in config.arms}
    return results.assign(pretrain_epochs=results["arm"].map(epochs_of), arm=results["arm"].map(starts))


def hardware() -> str:
    """Name what trains a part: the GPU, where there is one."""
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}" if torch.cuda.is_available() else machine()


def list_parts() -> list[tuple[str, str, int, str, int]]:
    """List the parts, one dataset and encoder after the other, those of most epochs first, which give others, too."""
    parts = []
    for encoder, dataset, from_seed in product(ENCODERS, DATASETS, range(0, SEEDS, SEEDS_AT_ONCE)):
        parts.append((dataset, encoder, 0, "scratch", from_seed))
        parts += [(dataset, encoder, *more, from_seed) for more in product(EPOCHS, ("redrawn", "fixed"))]
    return parts


def tabulate(results: pd.DataFrame) -> pd.DataFrame:
    """Compare every arm with scratch, and pretrained with its controls, on the same seeds."""
    rows = []
    for (dataset, encoder), cell in results.groupby(["dataset", "encoder"], sort=False):
        scratch = cell[cell["triplets"] == "scratch"]
        for epochs in EPOCHS:
            runs = pd.concat([scratch, cell[cell["pretrain_epochs"] == epochs]])
            arms = [arm for arm in (*ARMS["fixed"], *ARMS["redrawn"]) if (runs["arm"] == arm).any()]
            if not arms or scratch.empty:
                continue
            verdicts = rlm.compare_all(runs, arms=arms, watched=False)
            for arm, found in verdicts.items():
                mine = runs[runs["arm"] == arm]
                row = {"dataset": dataset, "encoder": encoder, "epochs": epochs, "arm": arm, "pairs": found.pairs}
                row |= {"difference": found.difference, "decision": found.decision, "test %": 100 * found.means[1]}
                row |= {"scratch %": 100 * found.means[0], "changed %": 100 * mine["start_change"].mean()}
                rows.append(row | {f"{name} %": 100 * mine[name].mean() for name in SEEN})
    return pd.DataFrame(rows)


def answer(table: pd.DataFrame, settings: dict[str, pd.DataFrame]) -> str:
    """Answer in three sentences: does it help, does what was memorised explain it, was anything memorised."""
    main = table[table["arm"].isin(["pretrained", "pretrained_once"])]
    good, bad = main[main["decision"] == "helps"], main[main["decision"] == "hurts"]
    points = 100 * main["difference"].map(lambda found: found.value)
    said = (
        f"In {len(main)} comparisons with scratch, pre-training on a million random triplets helps {len(good)} times "
        f"and hurts {len(bad)} times; the mean differences range from {span(points, '+.2f')} points."
    )
    found = [rlm.compare(runs, "pretrained", "rescaled", watched=False).decision for runs in settings.values()]
    said += (
        f" It does better than fresh weights of the same scale, which hold nothing memorised, in "
        f"{found.count('helps')} of {len(found)} settings, and worse in {found.count('hurts')}."
    )
    seen, unseen = (span(main[f"{name} %"], ".0f") for name in SEEN)
    return f"{said} After pre-training, {seen} % of the random triplets it saw are right, and {unseen} % of others."


def span(values: pd.Series, digits: str) -> str:
    """Spell the smallest and the largest value, or the only one."""
    ends = dict.fromkeys([f"{values.min():{digits}}", f"{values.max():{digits}}"])
    return " to ".join(ends)


def find_controlled(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Find the settings with all controls."""
    found = {}
    for (dataset, encoder), cell in results.groupby(["dataset", "encoder"], sort=False):
        for epochs in EPOCHS:
            runs = cell[(cell["triplets"] == "scratch") | (cell["pretrain_epochs"] == epochs)]
            if {"scratch", "pretrained", *CONTROLS} <= set(runs["arm"]):
                found[f"{dataset}, {encoder}, {epochs} epochs"] = runs
    return found


def draw(table: pd.DataFrame) -> plt.Figure:
    """Draw the differences to scratch with their intervals, one panel per dataset and encoder."""
    sns.set_theme(style="ticks", rc={"figure.dpi": 120})
    cells = list(table.groupby(["dataset", "encoder"], sort=False))
    figure, axes = plt.subplots(1, len(cells), figsize=(3.4 * len(cells) + 1.5, 3.8), sharey=True, layout="constrained")
    names = list(dict.fromkeys(table["arm"]))[::-1]
    for ax, ((dataset, encoder), cell) in zip([axes] if len(cells) == 1 else axes, cells, strict=True):
        for shift, colour, epochs in zip((0.12, -0.12), sns.color_palette(), EPOCHS, strict=False):
            mine = cell[cell["epochs"] == epochs]
            if mine.empty:
                continue
            found = [100 * np.array(difference[:3]) for difference in mine["difference"]]
            value, low, high = np.transpose(found)
            places = [names.index(arm) + shift for arm in mine["arm"]]
            style = {"fmt": "D", "capsize": 3, "color": colour, "label": f"{epochs} epochs"}
            ax.errorbar(value, places, xerr=[value - low, high - value], **style)
        ax.axvline(0, color="grey", linewidth=1)
        ax.set(
            title=f"{dataset}, {encoder}",
            xlabel="points compared with scratch",
            yticks=range(len(names)),
            ylim=(-0.5, len(names) - 0.5),
        )
        ax.set_yticklabels(names)
    labels = dict(pair[::-1] for ax in figure.axes for pair in zip(*ax.get_legend_handles_labels(), strict=True))
    figure.legend(labels.values(), labels, title="pre-training", fontsize="small", loc="outside right upper")
    return figure


def write_page(results: pd.DataFrame) -> None:
    finished = set(results[KEYS].itertuples(index=False, name=None))
    results = results.drop_duplicates(RUN, keep="last")  # some were first trained without their controls
    table, settings = tabulate(results), find_controlled(results)
    draw(table).savefig(DOCS / "experiment.png")
    cell = ["dataset", "encoder"]
    shown = table.assign(difference=table["difference"].map(lambda found: found.format(100, "+")))
    shown = shown.rename(columns={f"{name} %": f"{name.removesuffix('_accuracy')} %" for name in SEEN})
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        answer=answer(table, settings),
        explained={name: rlm.explain.controls(runs, watched=False) for name, runs in settings.items()},
        tables={
            ", ".join(name): mine.drop(columns=cell).to_markdown(index=False, floatfmt=".1f", missingval="")
            for name, mine in shown.groupby(cell, sort=False)
        },
        missing=len(set(list_parts()) - finished),
        machines=results["machine"].unique(),
        settings=DATASETS,
    )
    write_whole(DOCS / "experiment.md", page + "\n")


def main() -> None:
    wanted = ask_for_parts(__doc__)
    parts = {key: partial(train, *key) for key in list_parts()}
    write_page(complete(RESULTS, KEYS, parts, wanted))


if __name__ == "__main__":
    main()
