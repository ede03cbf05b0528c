"""One task of a study: train one block of seeds under one arm, from initialisation to test accuracy."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from torch import nn

from rlm.arms import train_arms
from rlm.block import Block
from rlm.config import Arm, StudyConfig
from rlm.data.corpus import Corpus, index_corpus, relevance_components
from rlm.data.datasets import load
from rlm.evaluation.retrieval import find_first
from rlm.evaluation.triplets import embedded_split, roc_aucs, triplet_scores
from rlm.slicer import Slices, slice_corpus

RESULTS = [
    *("arm", "seed", "validation_accuracy", "test_accuracy", "roc_auc", "top_1", "best_epoch", "epochs", "seconds"),
    *("split", "test_triplets", "test_anchors", "test_components"),
]
R = TypeVar("R", bound=tuple[pd.DataFrame, ...])
MOST_QUERIES = 20_000  # every query meets every candidate: a large test split would take longer than training


class BlockResult(NamedTuple):
    """
    What one block of seeds gave.

    Attributes
    ----------
    results
        One row per arm and seed, see `rlm.run_study`.
    groups
        One row per arm, seed and component of the test split: component (its number in that split), triplets,
        test_accuracy.
    history
        One row per arm, seed and epoch of fine-tuning: arm and the columns of `rlm.finetune`'s history.
    pretraining
        One row per arm, seed and epoch of pre-training: arm and the columns of `rlm.pretrain`'s history.
    """

    results: pd.DataFrame
    groups: pd.DataFrame
    history: pd.DataFrame
    pretraining: pd.DataFrame


def join(blocks: Sequence[R], arms: Sequence[Arm]) -> R:
    """
    Bring finished blocks, which come in any order, into the order of arms and seeds.

    Parameters
    ----------
    blocks
        At least one, of a study of triplets or of random labels.
    arms
        In their order.

    Returns
    -------
    BlockResult or LabelsResult
        All rows of all blocks. The tables were watched, see `mark`, if any of the blocks was.
    """
    rank = {arm: number for number, arm in enumerate(arms)}

    def order(column: pd.Series) -> pd.Series:
        if column.name == "labelled":
            return column.replace(0, np.inf)  # all come last
        return column.map(rank) if column.name == "arm" else column

    joined = []
    for tables in zip(*blocks, strict=True):
        filled = [table for table in tables if len(table)]
        table = pd.concat(filled) if filled else tables[0]
        keys = [key for key in ("labelled", "arm", "seed", "epoch", "component", "shuffle") if key in table]
        joined.append(table.sort_values(keys, key=order, ignore_index=True))
    said = [table.attrs["watched"] for block in blocks for table in block if "watched" in table.attrs]
    result = type(blocks[0])(*joined)
    return mark(result, any(said)) if said else result


def mark(result: R, watched: bool) -> R:
    """
    Note in tables whether a study was watched, so that a verdict on them knows.

    Parameters
    ----------
    result
        Its tables get it as ``attrs["watched"]``.
    watched
        As in `rlm.compare`.

    Returns
    -------
    BlockResult or LabelsResult
        The same.
    """
    for table in result:
        table.attrs["watched"] = watched
    return result


def run_block(
    config: StudyConfig,
    corpus: Corpus,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
) -> BlockResult:
    """
    Train one block of seeds, from initialisation to test accuracy.

    Parameters
    ----------
    config
        What to study.
    corpus
        The indexed dataset.
    arms
        Those to train; they share one pre-training, see `REDRAW`.
    seeds
        Trained together; a seed's draws do not depend on which others are.
    make_encoder
        As in `rlm.run_study`.

    Returns
    -------
    BlockResult
        Results and history of these arms and seeds.
    """
    start = time.perf_counter()
    slices = slices_of(config, corpus, seeds)
    blocks = []
    for arm, trained in zip(arms, train_arms(config, slices, arms, seeds, make_encoder), strict=True):
        results, groups = _judge(trained.block, slices, corpus, trained.history)
        tables = results.assign(split=config.split), groups, trained.history, trained.pretraining
        blocks.append(BlockResult(*(table.assign(arm=arm) for table in tables)))
    joined = join(blocks, arms)
    seconds = (time.perf_counter() - start) / len(joined.results)
    return joined._replace(results=joined.results.assign(seconds=seconds)[RESULTS])


def _judge(
    block: Block, slices: Sequence[Slices], corpus: Corpus, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The seeds' rows of `BlockResult.results` and `BlockResult.groups`."""
    seeds = list(block.seeds)
    epochs = history.groupby("seed")["epoch"].max().loc[seeds].to_numpy()
    history = history.fillna({"validation_accuracy": -np.inf})
    best = history.loc[history.groupby("seed")["validation_accuracy"].idxmax()].set_index("seed").loc[seeds]
    is_lost = ~np.isfinite(history["loss"]) & (history["epoch"] > 0)
    has_diverged = is_lost.groupby(history["seed"]).any()[seeds].to_numpy()
    batch, embeddings = embedded_split(block, slices, "test", "distance")
    scores = triplet_scores(embeddings, batch).cpu().numpy()
    scores = [mine[:size] for mine, size in zip(scores, batch.sizes, strict=True)]
    different = {id(one): one for one in slices}  # one, of a fixed split
    component_of = {key: _test_components(one) for key, one in different.items()}
    groups = []
    for seed, one, score, is_failed in zip(seeds, slices, scores, has_diverged, strict=True):
        component, triplets = component_of[id(one)]
        accuracy = np.where(is_failed, np.nan, np.bincount(component, score) / triplets)
        found = {"seed": seed, "component": range(len(triplets)), "triplets": triplets, "test_accuracy": accuracy}
        groups.append(pd.DataFrame(found))
    found = find_first(embeddings, batch, slices, corpus, most_queries=MOST_QUERIES)
    test = [one.summary.set_index("split").loc["test"] for one in slices]
    results = pd.DataFrame(
        {
            "seed": seeds,
            "validation_accuracy": best["validation_accuracy"].where(~has_diverged).to_numpy(),
            "test_accuracy": np.where(has_diverged, np.nan, [score.mean() for score in scores]),
            "roc_auc": np.where(has_diverged, np.nan, roc_aucs(embeddings, batch)),
            "top_1": found["top_1"].where(~has_diverged),
            "best_epoch": np.where(has_diverged, 0, best["epoch"].to_numpy()),
            "epochs": epochs,
            "test_triplets": [int(split["triplets"]) for split in test],
            "test_anchors": [int(split["anchors"]) for split in test],
            "test_components": [int(split["components"]) for split in test],
        }
    )
    return results, pd.concat(groups, ignore_index=True)


def _test_components(slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """The component of every test triplet, numbered from 0, and how many triplets each has."""
    component = relevance_components(slices.test[:, :2], len(slices.phrases))[slices.test[:, 0]]
    _, number, triplets = np.unique(component, return_inverse=True, return_counts=True)
    return number, triplets


def load_corpus(config: StudyConfig) -> Corpus:
    """
    Load the data of a study, by its config.

    Parameters
    ----------
    config
        Says what to load and how to read it.

    Returns
    -------
    Corpus
        As indices.
    """
    return index_corpus(load(config.dataset, **config.reading.model_dump()), config.max_tokens)


def slices_of(config: StudyConfig, corpus: Corpus, seeds: Sequence[int]) -> list[Slices]:
    """
    Slice the data of a study, by its config.

    Parameters
    ----------
    config
        Says how.
    corpus
        The data.
    seeds
        Of the study.

    Returns
    -------
    list of Slices
        One per seed; of a fixed split all the same.
    """
    names = ["fractions", "negatives", "negative_kinds", "train_fraction"]
    settings = {name: getattr(config, name) for name in names}
    split_seeds = [config.split_seed] if config.split == "fixed" else seeds
    slices = [slice_corpus(corpus, seed, **settings) for seed in split_seeds]
    if config.keeps_unseen_words:
        slices = [dataclasses.replace(one, tokens=corpus.phrases.tokens) for one in slices]
    return slices * len(seeds) if config.split == "fixed" else slices
