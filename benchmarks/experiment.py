"""
Answer the question at full length: does memorising a million random triplets help? Write docs/experiment.md.

python -m benchmarks.experiment

It takes many hours on two cores. Parts that docs/benchmarks/experiment.csv has already are not trained again;
--parts N stops after N new ones, --only "pqa mean 20" computes those whose key contains this, and --page writes the
page from what there is. Parts named "alone" were trained without controls, before all arms were trained together.
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
SEEDS_AT_ONCE, SEEDS, MAX_EPOCHS = 10, 20, 200
LOOKS = SEEDS_AT_ONCE, SEEDS  # the page is written after either
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, TEMPLATE = DOCS / "benchmarks" / "experiment.csv", Path(__file__).with_name("experiment.md.jinja")
KEYS = ["dataset", "encoder", "pretrain_epochs", "triplets", "from_seed"]
RUN = ["dataset", "encoder", "pretrain_epochs", "arm", "seed"]
COLUMNS = ["arm", "seed", "test_accuracy", "top_1", "best_epoch", "epochs", "start_change"]
SEEN = "seen", "unseen"  # random triplets
SEEN_ACCURACY = [f"{name}_accuracy" for name in SEEN]


def configure(dataset: str, encoder: str, epochs: int, triplets: str) -> rlm.StudyConfig:
    """Return the config of a part and of those of fewer epochs, which its pre-training passes; scratch has none."""
    fewer = [f"{arm} {one}: {arm}, pretrain_epochs={one}" for one in EPOCHS if one < epochs for arm in ARMS[triplets]]
    settings = DATASETS[dataset] | {"pretrain_epochs": epochs, "random_triplets": 1_000_000}
    settings |= {"arms": (*ARMS[triplets], *fewer), "patience": 20, "max_epochs": MAX_EPOCHS}
    return rlm.StudyConfig(dataset=dataset, encoder=encoder, **settings)


def train(dataset: str, encoder: str, epochs: int, triplets: str, from_seed: int) -> pd.DataFrame:
    """Train a part; its rows also have the accuracy on random triplets after the last epoch of pre-training."""
    config, seeds = configure(dataset, encoder, epochs, triplets), range(from_seed, from_seed + SEEDS_AT_ONCE)
    blocks = rlm.study.join(list(rlm.iter_study(config, seeds)), config.arms)
    results = blocks.results[COLUMNS].assign(machine=hardware(), **dict.fromkeys(SEEN_ACCURACY))
    if not blocks.pretraining.empty:
        last = blocks.pretraining.groupby(["arm", "seed"], as_index=False).last()
        results = results.drop(columns=SEEN_ACCURACY).merge(last[["arm", "seed", *SEEN_ACCURACY]], on=["arm", "seed"])
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


def list_settings(results: pd.DataFrame) -> dict[tuple[str, str, int], pd.DataFrame]:
    """List the runs of each setting, which has some arm beside scratch."""
    found = {}
    for (dataset, encoder), cell in results.groupby(["dataset", "encoder"], sort=False):
        scratch = cell[cell["triplets"] == "scratch"]
        for epochs in EPOCHS:
            others = cell[cell["pretrain_epochs"] == epochs]
            if len(scratch) and len(others):
                found[dataset, encoder, epochs] = pd.concat([scratch, others])
    return found


def tabulate(settings: dict[tuple[str, str, int], pd.DataFrame]) -> pd.DataFrame:
    """Compare every arm with scratch, on the same seeds."""
    rows = []
    for key, runs in settings.items():
        arms = [arm for arm in (*ARMS["fixed"], *ARMS["redrawn"]) if (runs["arm"] == arm).any()]
        how = {"arms": arms, "watched": LOOKS}
        verdicts, of_choices = rlm.compare_all(runs, **how), rlm.compare_all(runs, metric="top_1", **how)
        for arm, found in verdicts.items():
            mine = runs[runs["arm"] == arm]
            row = dict(zip(("dataset", "encoder", "epochs"), key, strict=True)) | {"arm": arm, "pairs": found.pairs}
            row |= {"difference": found.judged, "decision": found.decision, "top-1 difference": of_choices[arm].judged}
            row |= {"test %": 100 * found.means[1], "scratch %": 100 * found.means[0]}
            row["changed %"] = 100 * mine["start_change"].mean()
            memorised = {} if arm in CONTROLS else {name: 100 * mine[f"{name}_accuracy"].mean() for name in SEEN}
            rows.append(row | {f"{name} %": value for name, value in memorised.items()})
    return pd.DataFrame(rows)


def answer(table: pd.DataFrame, controlled: dict[str, pd.DataFrame]) -> str:
    """Answer in three sentences: does it help, does the scale of the weights explain it, was anything memorised."""
    main = table[table["arm"].isin(["pretrained", "pretrained_once"])]
    good, bad = main[main["decision"] == "helps"], main[main["decision"] == "hurts"]
    points = 100 * main["difference"].map(lambda found: found.value)
    said = (
        f"In {len(main)} comparisons with scratch, on {len(main[['dataset', 'encoder']].drop_duplicates())} "
        f"combinations of data and encoder, pre-training on a million random triplets helps {len(good)} times and "
        f"hurts {len(bad)} times; the mean differences range from {span(points, '+.2f')} points."
    )
    against = [
        rlm.compare_all(runs, "pretrained", arms=CONTROLS, watched=LOOKS)["rescaled"].decision
        for runs in controlled.values()
    ]
    gaps = main["seen %"] - main["unseen %"]
    return (
        f"{said} Compared with initial weights that are only brought to the scale of the pre-trained ones, it is "
        f"better in {against.count('hurts')} of {len(against)} settings and worse in {against.count('helps')}. Random "
        f"triplets that it saw are right {span(gaps, '.1f')} points more often than others."
    )


def span(values: pd.Series, digits: str) -> str:
    """Spell the smallest and the largest value, or the only one."""
    ends = dict.fromkeys([f"{values.min():{digits}}", f"{values.max():{digits}}"])
    return " to ".join(ends)


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
        ax.axvspan(-1, 1, color="0.93")
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
    settings = list_settings(results)
    controlled = {
        f"{dataset}, {encoder}, {epochs} epochs": runs
        for (dataset, encoder, epochs), runs in settings.items()
        if {"pretrained", *CONTROLS} <= set(runs["arm"])
    }
    table = tabulate(settings)
    draw(table).savefig(DOCS / "experiment.png")
    spelt = {name: table[name].map(lambda found: found.format(100, "+")) for name in ("difference", "top-1 difference")}
    shown, cell = table.astype(object).where(table.notna(), "").assign(**spelt), ["dataset", "encoder"]
    cut = results[results["epochs"] == MAX_EPOCHS]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        answer=answer(table, controlled),
        explained={name: rlm.explain.controls(runs, watched=LOOKS) for name, runs in controlled.items()},
        tables={
            ", ".join(name): mine.drop(columns=cell).to_markdown(index=False, floatfmt=".1f", missingval="")
            for name, mine in shown.groupby(cell, sort=False)
        },
        missing=len(set(list_parts()) - finished),
        parts=len(list_parts()),
        machines=results["machine"].unique(),
        settings=DATASETS,
        max_epochs=MAX_EPOCHS,
        cut=cut.groupby([*cell, "arm"], sort=False).size().to_dict(),
        looks=LOOKS,
    )
    write_whole(DOCS / "experiment.md", page + "\n")


def main() -> None:
    wanted = ask_for_parts(__doc__)
    parts = {key: partial(train, *key) for key in list_parts()}
    write_page(complete(RESULTS, KEYS, parts, wanted))


if __name__ == "__main__":
    main()
