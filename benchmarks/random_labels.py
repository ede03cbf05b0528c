"""
Run the paper's own experiment with twenty seeds, and write docs/random_labels.md with its figures.

python -m benchmarks.random_labels --db labels.db

It takes long; what the file holds already is not trained again, and an interrupted run continues. With --part NAME it
runs one of the studies, without a page; with --quick it runs all with two seeds and few epochs, and writes the page to
the folder of --out.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from rlm.labels.study import LabelsResult
from rlm.runtime.atomic import write_whole

SEEDS = 20
ARMS = ("scratch", "pretrained", "rescaled", "shuffled")
DIGITS = {"arms": ARMS, "dim": 256, "until": 0.9, "shuffle_epochs": 60, "labelled": (50, 200, "all"), "patience": 15}
# Is it the method, or Adam, or a head worn by old labels, that makes late memorisations slow? Plain arms suffice.
CONTROL = DIGITS | {"arms": ("scratch", "pretrained"), "labelled": (200, "all")}
SGD = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9}
MOVING = DIGITS | {"dataset": "moving-digits", "dim": 128, "labelled": (200, "all"), "max_epochs": 60}
CONFIGS = {
    "digits": rlm.labels.LabelsConfig(**DIGITS),
    "digits, three shuffles": rlm.labels.LabelsConfig(**DIGITS, shuffles=3),
    "digits, three shuffles, first layer": rlm.labels.LabelsConfig(**DIGITS, shuffles=3, transfer=1),
    "digits, new heads": rlm.labels.LabelsConfig(**CONTROL, new_head=True),
    "digits, SGD": rlm.labels.LabelsConfig(**CONTROL | SGD),
    "digits, SGD with weight decay": rlm.labels.LabelsConfig(**CONTROL | SGD, weight_decay=5e-4),
    "digits, SGD, new heads": rlm.labels.LabelsConfig(**CONTROL | SGD, new_head=True),
    "moving-digits": rlm.labels.LabelsConfig(**MOVING),
}
SAMPLES = {"digits": rlm.labels.load_digits(), "moving-digits": rlm.labels.make_moving_digits(900)}
DOCS = Path(__file__).parents[1] / "docs"
TEMPLATE = Path(__file__).with_name("random_labels.md.jinja")


QUICK = {"shuffles": 2, "shuffle_epochs": 2, "max_epochs": 2, "dim": 8}


def aligned(seeds: int, epochs: int) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The first layer of an MLP before and after it memorised the digits' random labels: curves, misalignments."""
    samples, config = SAMPLES["digits"], rlm.labels.LabelsConfig(encoder="mlp")
    parts = [rlm.labels.divide(samples, seed)[0] for seed in range(seeds)]
    untrained = rlm.labels.new_classifiers(config, samples, len(samples.classes), range(seeds))
    labels = [rlm.labels.RandomLabels(seed, len(one.train), len(samples.classes)) for seed, one in enumerate(parts)]
    memorised, _ = rlm.labels.memorise(
        untrained, rlm.labels.tabulate(samples, parts), parts, labels, shuffles=1, epochs=epochs
    )
    covariance = rlm.labels.input_covariance(untrained.encoder.encoder, samples, parts[0].train)
    curves, apart = {}, {}
    for name, block in {"at initialisation": untrained, "after memorising": memorised}.items():
        weights = rlm.labels.first_layer(block)
        spread = np.cov(weights, rowvar=False)
        curves[name] = rlm.labels.align(weights, covariance)
        apart[name] = [rlm.labels.misalignment(spread, covariance), rlm.labels.misalignment_by_chance(spread)]
    kinds = ["with the data's components", "with random ones, mean"]
    return curves, pd.DataFrame.from_dict(apart, orient="index", columns=kinds).rename_axis("misalignment")


def spell(table: pd.DataFrame, number: str) -> str:
    flat = table.reset_index()
    return flat.astype(object).where(flat.notna(), None).to_markdown(index=False, floatfmt=number, missingval="")


def write_page(studies: dict[str, LabelsResult], configs: dict[str, rlm.labels.LabelsConfig], out: Path) -> None:
    sns.set_theme(style="ticks")
    faster, effects, speed, words = {}, {}, {}, {}
    for name, study in studies.items():
        memorising = study.memorising[study.memorising["arm"] == "pretrained"]
        faster[name] = rlm.labels.summarise_shuffles(memorising)
        effects[name], speed[name] = (
            rlm.labels.tabulate_effects(study.results),
            rlm.labels.tabulate_speed(study.history),
        )
        settings = rlm.labels.explain_settings(configs[name], studies[name].results["seed"].nunique())
        words[name] = rlm.labels.explain(name, settings, faster[name], effects[name], speed[name])
    # The first three of ten shuffles are those of the studies with three.
    shown = [name for name in studies if "three shuffles" not in name]
    fig, axes = plt.subplots(len(shown), 2, figsize=(9.5, 3.2 * len(shown)), layout="constrained")
    for row, name in zip(axes, shown, strict=True):
        memorising = studies[name].memorising
        rlm.labels.plots.memorising(memorising[memorising["arm"] == "pretrained"], row[0])
        rlm.labels.plots.shuffles(faster[name], row[1])
        for ax in row:
            ax.set_title(f"{name}: {ax.get_title()}", fontsize=10)
    fig.savefig(out / "random_labels_memorising.png", dpi=110)
    fig, axes = plt.subplots(len(studies), 2, figsize=(9.5, 3.2 * len(studies)), layout="constrained")
    for row, name in zip(axes, studies, strict=True):
        rlm.labels.plots.effects(effects[name], "points", row[0])
        rlm.labels.plots.effects(speed[name], "epochs", row[1])
        for ax, what in zip(row, ("accuracy", "epochs"), strict=True):
            ax.set_title(f"{name}: {what} minus scratch", fontsize=10)
    fig.savefig(out / "random_labels_effects.png", dpi=110)
    seeds = studies["digits"].results["seed"].nunique()
    curves, apart = aligned(seeds, 40 if configs is CONFIGS else 1)
    rlm.labels.plots.alignment(curves).figure.savefig(out / "random_labels_alignment.png", dpi=110)
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        machine=machine(),
        seeds=seeds,
        settings={name: config.model_dump_json(exclude_defaults=True) for name, config in configs.items()},
        words=words,
        faster={name: spell(faster[name], ".3g") for name in shown},
        effects={name: spell(table, ".3f") for name, table in effects.items()},
        speed={name: spell(table, ".2f") for name, table in speed.items()},
        apart=apart.to_markdown(floatfmt=".2f"),
    )
    write_whole(out / "random_labels.md", page + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="file to keep every finished block of seeds in")
    parser.add_argument("--part", choices=CONFIGS, help="run one study alone, and write no page")
    parser.add_argument("--quick", action="store_true", help="two seeds and few epochs, to try it out")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the page and its figures")
    options = parser.parse_args()
    if options.quick and options.out == DOCS and not options.part:
        parser.error("expected --out with --quick, whose numbers mean nothing, found none; give another folder")
    studies, configs, seeds = {}, CONFIGS, 2 if options.quick else SEEDS
    if options.quick:
        configs = {name: config.model_copy(update=QUICK) for name, config in CONFIGS.items()}
    for name in [options.part] if options.part else configs:
        config = configs[name]
        studies[name] = rlm.labels.run_labels(config, seeds, samples=SAMPLES[config.dataset], db=options.db)
    if not options.part:
        write_page(studies, configs, options.out)


if __name__ == "__main__":
    main()
