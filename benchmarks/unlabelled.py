"""
Compare pre-training on unlabelled texts with none, for few and many labelled pairs, and write docs/unlabelled.md.

python -m benchmarks.unlabelled

It takes hours on two cores. Parts that docs/benchmarks/unlabelled.csv has already are not trained again; --parts N
stops after N new ones, --page writes the page from what there is.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from benchmarks.resume import ask_for_parts, complete
from rlm.data.datasets import load_texts
from rlm.runtime.atomic import write_whole
from rlm.slicer import Slices

DATASETS = ("pqa", "chatterbot-english")
LABELLED = (50, 200, 1_000, 0)  # 0 is all
TEXTS = ("none", "own", "more")
ARMS = ("scratch", "pretrained", "rescaled", "shuffled")
SETTINGS = {
    **{"encoder": "mean", "pretrain_epochs": 10, "max_epochs": 60, "patience": 10},
    **{"batching": "grouped", "optimizer": "rowwise_adam"},
}
SEEDS, MORE = 20, 100_000
PACKAGES = ("numpy", "pandas", "scipy", "sklearn", "torch")
BETWEEN = re.compile(r"(?<=[.?!:;,])\s+|\n\s*\n|[()]|\n(?=\S+ : )")
CLAUSE = re.compile(r"[A-Za-z][\w'-]*( [\w',-]+){2,11}[.?!:;]?")
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, TEMPLATE = DOCS / "benchmarks" / "unlabelled.csv", Path(__file__).with_name("unlabelled.md.jinja")
KEYS = ["dataset", "labelled", "texts"]
COLUMNS = ["arm", "seed", "test_accuracy", "top_1", "best_epoch"]


@cache
def whole(dataset: str) -> Slices:
    """Return the slices with all labelled pairs; a share of the pairs leaves their splits as they are."""
    return rlm.prepare(rlm.StudyConfig(dataset=dataset))


def labelled_pairs(dataset: str) -> int:
    """Count the pairs of the training split, in either order, which `train_fraction` divides."""
    return len(np.unique(np.sort(whole(dataset).train[:, :2], axis=1), axis=0))


def configure(dataset: str, labelled: int) -> rlm.StudyConfig:
    share = labelled / labelled_pairs(dataset) if labelled else 1.0
    return rlm.StudyConfig(dataset=dataset, arms=ARMS, train_fraction=share, **SETTINGS)


@cache
def find_texts(dataset: str, kind: str) -> Sequence[str] | None:
    """Return the unlabelled texts: none, every phrase of the training split once, or as many as `MORE`."""
    if kind == "none":
        return None
    if kind == "own":
        return [whole(dataset).phrases.texts[phrase] for phrase in np.unique(whole(dataset).train)]
    if dataset == "pqa":
        texts = [*load_texts("pqa"), *load_texts("chatterbot-russian")]
    else:
        texts = [*load_texts(dataset), *dict.fromkeys(read_docstrings())]
    order = np.random.default_rng(0).permutation(len(texts))[:MORE]
    return [texts[place] for place in order]


def read_docstrings() -> Iterator[str]:
    """Yield the clauses of 3 to 12 words in the docstrings of large Python packages, which are installed."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for path in sorted(Path(spec.origin).parent.rglob("*.py")) if spec and spec.origin else ():
            try:
                tree = ast.parse(path.read_bytes())
            except SyntaxError:  # of a newer Python
                continue
            nodes = (node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
            for text in filter(None, map(ast.get_docstring, nodes)):
                clauses = (" ".join(clause.split()) for clause in BETWEEN.split(text.replace("`", "")))
                yield from filter(CLAUSE.fullmatch, clauses)


def train(dataset: str, labelled: int, texts: str) -> pd.DataFrame:
    results = rlm.run_study(configure(dataset, labelled), SEEDS, pretrain_texts=find_texts(dataset, texts))
    return results[COLUMNS].assign(machine=machine())


def list_parts() -> list[tuple[str, int, str]]:
    """List the parts, without numbers of labelled pairs that a dataset does not have."""
    sizes = {name: [size for size in LABELLED if size < labelled_pairs(name)] for name in DATASETS}
    return [(name, size, texts) for name in DATASETS for size, texts in product(sizes[name], TEXTS)]


def tabulate(results: pd.DataFrame) -> pd.DataFrame:
    """Compare pretrained with scratch and with its controls, on the same seeds of the same part."""
    rows = []
    named = results.assign(labelled=results["labelled"].map(lambda size: f"{size:,}" if size else "all"))
    for key, runs in named.groupby(KEYS, sort=False):
        for baseline in ARMS[:1] + ARMS[2:]:
            found = rlm.compare(runs, "pretrained", baseline, watched=False)
            row = {"compared with": baseline, "pairs": found.pairs, "accuracy of that arm %": 100 * found.means[0]}
            rows.append(dict(zip(KEYS, key, strict=True)) | row | {"difference": found.difference})
    return pd.DataFrame(rows)


def answer(table: pd.DataFrame) -> str:
    """Count where unlabelled texts help, and where pre-training on them does better than rescaled weights."""
    # All phrases of all labelled pairs are no more texts than there were.
    more = table[(table["texts"] != "none") & ((table["texts"] != "own") | (table["labelled"] != "all"))]
    if more.empty:
        return "No part with unlabelled texts is trained yet."
    counts = {
        name: (len(found), sum(one.low > 0 for one in found), sum(one.high < 0 for one in found))
        for name, found in more.groupby("compared with", sort=False)["difference"]
    }
    largest = max(more[more["compared with"] == "scratch"]["difference"], key=lambda one: one.value)
    cases, good, bad = counts.pop("scratch")
    said = ", ".join(f"better than {name} in {high} and worse in {low}" for name, (_, high, low) in counts.items())
    return (
        f"In {cases} cases with unlabelled texts, pre-training is better than scratch in {good} and worse in {bad}, by "
        f"intervals that are not corrected for their number; the largest gain is {largest.format(100, '+')} points. It "
        f"is {said}: these controls know the same words, and keep nothing memorised."
    )


def draw(table: pd.DataFrame) -> plt.Figure:
    """Draw the paired differences with their intervals by labelled pairs: a row per dataset, a column per baseline."""
    sns.set_theme(style="ticks", rc={"figure.dpi": 120})
    datasets, baselines = (list(dict.fromkeys(table[name])) for name in ("dataset", "compared with"))
    size = 3.4 * len(baselines) + 1.5, 2.9 * len(datasets)
    figure, axes = plt.subplots(len(datasets), len(baselines), figsize=size, squeeze=False, layout="constrained")
    for (dataset, baseline), ax in zip(product(datasets, baselines), axes.flat, strict=True):
        mine = table[(table["dataset"] == dataset) & (table["compared with"] == baseline)]
        sizes = list(dict.fromkeys(mine["labelled"]))[::-1]
        for shift, (kind, some) in zip((0.2, 0, -0.2), mine.groupby("texts", sort=False), strict=False):
            value, low, high = np.transpose([100 * np.array(one[:3], float) for one in some["difference"]])
            places = [sizes.index(size) + shift for size in some["labelled"]]
            ax.errorbar(value, places, xerr=[value - low, high - value], fmt="D", capsize=3, label=kind)
        ax.axvline(0, color="grey", linewidth=1)
        ax.set(title=f"{dataset}\npretrained minus {baseline}", xlabel="points", yticks=range(len(sizes)))
        ax.set_yticklabels(sizes)
    axes[0, 0].set_ylabel("labelled pairs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), title="unlabelled texts", loc="outside right center")
    return figure


def write_page(results: pd.DataFrame) -> None:
    table, trained = tabulate(results), list(results["dataset"].unique())
    draw(table).savefig(DOCS / "unlabelled.png")
    shown = table.assign(difference=table["difference"].map(lambda found: found.format(100, "+")))
    counts = {f"{name}, {kind}": len(find_texts(name, kind) or ()) for name, kind in product(trained, TEXTS[1:])}
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        **{
            "seeds": SEEDS,
            "settings": SETTINGS,
            "counts": counts,
            "packages": PACKAGES,
            "machines": results["machine"].unique(),
        },
        table=shown.to_markdown(index=False, floatfmt=".1f"),
        most=configure("chatterbot-english", 0).epoch_triplets,
        sizes=list(dict.fromkeys(table["labelled"])),
        pairs={name: labelled_pairs(name) for name in DATASETS},
        answer=answer(table),
        trained=trained,
        missing=len(list_parts()) - len(results[KEYS].drop_duplicates()),
    )
    write_whole(DOCS / "unlabelled.md", page + "\n")


def main() -> None:
    wanted = ask_for_parts(__doc__)
    parts = {key: partial(train, *key) for key in list_parts()}
    write_page(complete(RESULTS, KEYS, parts, wanted))


if __name__ == "__main__":
    main()
