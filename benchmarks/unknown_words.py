"""
Compare what encoders read for words that training does not see, and write docs/unknown_words.md.

python -m benchmarks.unknown_words

It takes hours on two cores. Settings that docs/benchmarks/unknown_words.csv has already are not trained again;
--parts N stops after N new ones, --page writes the page from what there is.
"""

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Template
from torch import Tensor, nn
from torch.nn import functional as F

import rlm
from benchmarks.resume import ask_for_parts, complete
from rlm.runtime.atomic import write_whole

DATASETS = {
    "chatterbot-english": {"pretrain_epochs": 3, "max_epochs": 12},
    "pqa": {"pretrain_epochs": 2, "max_epochs": 8},
}
COMMON = {"patience": 3, "batching": "grouped"}
ENCODERS, SEEDS = ("mean", "lstm"), 40
ARMS = ("scratch", "pretrained", "rescaled")
PAIRS_OF_ARMS = [("pretrained", "scratch"), ("pretrained", "rescaled")]
BEFORE, ZEROS, MEAN, RARE = "random vector", "zeros", "mean vector", "trained by rare words"
KEYS = ["dataset", "encoder", "treatment"]
TREATMENTS = {ZEROS: 1, RARE: 2, BEFORE: 1, MEAN: 1}  # and their min_count
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, TEMPLATE = DOCS / "benchmarks" / "unknown_words.csv", Path(__file__).with_name("unknown_words.md.jinja")
UNKNOWN = 1


class MeanForUnknown(nn.Module):
    """Word vectors with the mean of the words that training sees in place of the unknown word's vector."""

    def __init__(self, table: nn.Embedding, seen: Tensor) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("seen", seen)

    def forward(self, tokens: Tensor) -> Tensor:
        mean = self.table.weight[self.seen].mean(dim=0)
        return torch.where((tokens == UNKNOWN)[..., None], mean, F.embedding(tokens, self.table.weight))


def make_encoder(encoder: str, treatment: str, seen: Tensor, vocabulary_size: int) -> nn.Module:
    made = rlm.zoo.ENCODERS[encoder](vocabulary_size)
    if treatment == BEFORE:
        nn.init.normal_(made.words.weight[UNKNOWN])
    elif treatment == MEAN:
        made.words = MeanForUnknown(made.words, seen)
    return made


def configure(dataset: str, encoder: str, treatment: str) -> rlm.StudyConfig:
    settings = DATASETS[dataset] | COMMON | {"min_count": TREATMENTS[treatment]}
    return rlm.StudyConfig(dataset=dataset, encoder=encoder, arms=ARMS, **settings)


def study(dataset: str, encoder: str, treatment: str) -> pd.DataFrame:
    config, make = configure(dataset, encoder, treatment), None
    if treatment in (BEFORE, MEAN):
        tokens = np.unique(rlm.prepare(config).tokens)
        make = partial(make_encoder, encoder, treatment, torch.from_numpy(tokens[tokens > UNKNOWN]))
    return rlm.run_study(config, SEEDS, make_encoder=make)[["arm", "seed", "test_accuracy"]]


def tabulate(results: pd.DataFrame) -> pd.DataFrame:
    """Compare every treatment with zeros, seed by seed; and arms within each treatment."""
    rows = []
    for (dataset, encoder), runs in results.groupby(["dataset", "encoder"]):
        scratch = runs[runs["arm"] == "scratch"].drop(columns="arm").rename(columns={"treatment": "arm"})
        for treatment, mine in runs.groupby("treatment", sort=False):
            summary = rlm.summarise(mine).loc["scratch"]
            row = [dataset, encoder, treatment, f"{summary['mean']:.1%}", f"{100 * summary['sd']:.1f}"]
            row.append("" if treatment == ZEROS else show(scratch, treatment, ZEROS))
            rows.append([*row, *(show(mine, *pair) for pair in PAIRS_OF_ARMS)])
    columns = ["dataset", "encoder", "unknown word reads", "scratch", "SD", f"minus {ZEROS}"]
    return pd.DataFrame(rows, columns=[*columns, *(" minus ".join(pair) for pair in PAIRS_OF_ARMS)])


def show(results: pd.DataFrame, arm: str, baseline: str) -> str:
    return rlm.compare(results, arm, baseline, watched=False).difference.format(100, "+")


def measure_share(dataset: str) -> dict[str, tuple[float, float]]:
    """Return the share of unknown words of the validation and the test split, by min_count."""
    shares = {}
    for count in sorted(set(TREATMENTS.values())):
        summary = rlm.prepare(rlm.StudyConfig(dataset=dataset, min_count=count)).summary.set_index("split")
        shares[count] = tuple(summary.loc[["validation", "test"], "unknown_words"])
    return shares


def main() -> None:
    wanted = ask_for_parts(__doc__)
    parts = {key: partial(study, *key) for key in product(DATASETS, ENCODERS, TREATMENTS)}
    first = sorted(parts, key=lambda key: list(TREATMENTS).index(key[2]))
    results = complete(RESULTS, KEYS, {key: parts[key] for key in first}, wanted)
    shares = {dataset: measure_share(dataset) for dataset in DATASETS}
    page = Template(TEMPLATE.read_text(encoding="utf-8"))
    text = page.render(
        shares=shares,
        seeds=SEEDS,
        settings={name: mine | COMMON for name, mine in DATASETS.items()},
        missing=len(parts) - len(results.drop_duplicates(KEYS)),
        table=tabulate(results).to_markdown(index=False),
    )
    write_whole(DOCS / "unknown_words.md", text + "\n")


if __name__ == "__main__":
    main()
