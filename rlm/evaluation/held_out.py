"""Evaluation of a trained block on the test split, which nothing else looks at."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd

from rlm.block import Block
from rlm.config import MetricName
from rlm.data.corpus import Corpus, relevance_clusters
from rlm.data.datasets import load_corpus
from rlm.engine.accuracy import TIE, triplet_scores
from rlm.errors import InputError
from rlm.evaluation.retrieval import find_first
from rlm.evaluation.triplets import embedded_split, roc_aucs
from rlm.runtime.results import Table
from rlm.slicer import Slices, slice_for
from rlm.stats.tables import find_collapse
from rlm.stats.variance import tabulate_triplets
from rlm.store.read import TRIPLETS, read_study

MOST_QUERIES = 20_000  # every query meets every candidate: a large test split would take longer than training
_RUN = {"arm": str, "seed": int}
_EPOCH = {**_RUN, "epoch": int}


class BlockResult(NamedTuple):
    """
    What a study, or a block of its seeds, gave.

    Attributes
    ----------
    results
        One row per arm and seed, see `rlm.run_study`.
    clusters
        One row per arm, seed and cluster of the test split: cluster (its number there), triplets, test_accuracy.
    triplets
        One row per arm and seed that did not diverge, see `rlm.stats.tabulate_triplets`.
    history
        One row per arm, seed and epoch of fine-tuning: arm and the columns of the history of `rlm.finetune`.
    pretraining
        One row per arm, seed and epoch of pre-training: arm and the columns of the history of `rlm.pretrain`.
    """

    results: pd.DataFrame
    clusters: pd.DataFrame
    triplets: pd.DataFrame
    history: pd.DataFrame
    pretraining: pd.DataFrame

    TASK = TRIPLETS
    TABLES = {  # noqa: RUF012 - an annotation would make it a field
        "results": Table(
            _RUN,
            dict.fromkeys(["validation_accuracy", *get_args(MetricName)], float)
            | {"best_epoch": int, "epochs": int, **dict.fromkeys(["collapsed", "start_change", "seconds"], float)}
            | {"split": str}
            | dict.fromkeys(["train_triplets", "test_triplets", "test_anchors", "test_clusters"], int),
        ),
        "clusters": Table({**_RUN, "cluster": int}, {"triplets": int, "test_accuracy": float}),
        "triplets": Table(_RUN, {"test": str, "triplets": int, "right": bytes, "tied": bytes}),
        "history": Table(_EPOCH, dict.fromkeys(["loss", "validation_accuracy", "relative_spread"], float)),
        "pretraining": Table(_EPOCH, dict.fromkeys(["loss", "seen_accuracy", "unseen_accuracy", "spread"], float)),
    }


RESULTS = [*BlockResult.TABLES["results"].keys, *BlockResult.TABLES["results"].values]


def judge_block(
    block: Block, slices: Sequence[Slices], corpus: Corpus, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the rows of trained seeds in `BlockResult.results`, `clusters` and `triplets`."""
    judged = judge_history(history, block.seeds)
    batch, embeddings = embedded_split(block, slices, "test", "distance")
    scores = triplet_scores(embeddings, batch).cpu().numpy()
    scores = [mine[:size] for mine, size in zip(scores, batch.sizes, strict=True)]
    different = {id(one): one for one in slices}  # one, of a fixed split
    cluster_of = {key: clusters_of_test(one) for key, one in different.items()}
    clusters = []
    for seed, one, score, is_failed in zip(block.seeds, slices, scores, judged["has_diverged"], strict=True):
        cluster, triplets = cluster_of[id(one)]
        accuracy = np.where(is_failed, np.nan, np.bincount(cluster, score) / triplets)
        found = {"seed": seed, "cluster": range(len(triplets)), "triplets": triplets, "test_accuracy": accuracy}
        clusters.append(pd.DataFrame(found))
    found = find_first(embeddings, batch, slices, corpus, most_queries=MOST_QUERIES)
    test = pd.DataFrame([one.summary.set_index("split").loc["test"] for one in slices])
    accuracy = {"test_accuracy": [score.mean() for score in scores], "roc_auc": roc_aucs(embeddings, batch)}
    metrics = found.drop(columns=["queries", "candidates"]).assign(**accuracy)
    metrics = metrics.set_index(judged.index).mask(judged["has_diverged"])
    columns = {"test_triplets": "triplets", "test_anchors": "anchors", "test_clusters": "clusters"}
    sizes = {"train_triplets": [len(one.train) for one in slices]}
    sizes |= {name: test[column].astype(int).to_numpy() for name, column in columns.items()}
    judged["collapsed"] = find_collapse(history)
    results = judged.drop(columns="has_diverged").join(metrics).assign(**sizes).reset_index()
    hashes = {key: hash_test(one) for key, one in different.items()}
    triplets = pd.DataFrame(
        {
            "seed": block.seeds,
            "test": [hashes[id(one)] for one in slices],
            "triplets": results["test_triplets"],
            "right": [np.packbits(score == 1).tobytes() for score in scores],
            "tied": [np.packbits(score == TIE).tobytes() for score in scores],
        }
    )
    is_finite = results["test_accuracy"].notna()
    return results, pd.concat(clusters, ignore_index=True), triplets[is_finite].reset_index(drop=True)


def hash_test(slices: Slices) -> str:
    """Return the SHA-256 of the texts of all test triplets, in their order."""
    texts = slices.phrases.texts
    return hashlib.sha256("\n".join(texts[phrase] for phrase in slices.test.ravel()).encode()).hexdigest()


def list_triplets(path: Path | str, study: int | None = None, *, data: pd.DataFrame | None = None) -> pd.DataFrame:
    """
    List the test triplets of a stored study with their texts, and how often the seeds get each right.

    Parameters
    ----------
    path, study
        As in `rlm.read_study`.
    data
        The table that `rlm.run_study` was given as `data`, if any; the data that the config names by default.

    Returns
    -------
    pandas.DataFrame
        One row per test triplet: anchor, positive, negative, and the columns of `rlm.stats.tabulate_triplets`.

    Raises
    ------
    InputError
        If there is no such study, its seeds have different test splits, or the data are not those it was trained on.

    Examples
    --------
    >>> import tempfile, rlm
    >>> config = rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = rlm.run_study(config, 2, db=f"{folder}/study.db", n_jobs=1, progress=False)
    ...     triplets = rlm.evaluation.list_triplets(f"{folder}/study.db")
    >>> bool(triplets["scratch"].mean() == results["test_accuracy"].mean())
    True
    """
    stored = read_study(path, study)
    found = tabulate_triplets(stored.finished.triplets)
    corpus = load_corpus(stored.config, data)
    (slices,) = slice_for(stored.config, corpus, [0])
    if hash_test(slices) != stored.finished.triplets["test"].iloc[0]:
        raise InputError(
            f"expected the data of the study in {path}, found other test triplets in {stored.config.dataset}; restore "
            "the data, or pass the table that the study was given"
        )
    texts = np.array(slices.phrases.texts, dtype=object)[slices.test]
    return pd.DataFrame(texts, found.index, ["anchor", "positive", "negative"]).join(found)


def judge_history(history: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Return by seed: validation_accuracy (none if a loss was not finite), best_epoch, epochs, has_diverged."""
    score = -history["validation_loss"] if "validation_loss" in history else history["validation_accuracy"]
    lowest = np.finfo(np.float32).min  # pandas before 3.0 finds no maximum among infinities
    by_seed = history.assign(score=score.fillna(lowest).clip(lower=lowest)).groupby("seed")
    best = history.loc[by_seed["score"].idxmax()].set_index("seed").loc[list(seeds)]
    is_lost = ~np.isfinite(history["loss"]) & (history["epoch"] > 0)
    has_diverged = is_lost.groupby(history["seed"]).any().loc[list(seeds)]
    return pd.DataFrame(
        {
            "validation_accuracy": best["validation_accuracy"].mask(has_diverged),
            "best_epoch": best["epoch"].mask(has_diverged, 0),
            "epochs": by_seed["epoch"].max().loc[list(seeds)],
            "has_diverged": has_diverged,
        }
    )


def clusters_of_test(slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of every test triplet, numbered from 0, and the number of triplets in each cluster."""
    cluster = relevance_clusters(slices.test[:, :2], len(slices.phrases))[slices.test[:, 0]]
    _, number, triplets = np.unique(cluster, return_inverse=True, return_counts=True)
    return number, triplets
