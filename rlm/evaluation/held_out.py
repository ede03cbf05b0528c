"""Evaluation of a trained block on the test split, which nothing else looks at."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlm.block import Block
from rlm.data.corpus import Corpus, relevance_clusters
from rlm.engine.accuracy import triplet_scores
from rlm.evaluation.retrieval import find_first
from rlm.evaluation.triplets import embedded_split, roc_aucs
from rlm.slicer import Slices

MOST_QUERIES = 20_000  # every query meets every candidate: a large test split would take longer than training


def judge_block(
    block: Block, slices: Sequence[Slices], corpus: Corpus, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of trained seeds in `rlm.study.BlockResult.results` and `BlockResult.clusters`."""
    judged = judge_history(history, block.seeds)
    batch, embeddings = embedded_split(block, slices, "test", "distance")
    scores = triplet_scores(embeddings, batch).cpu().numpy()
    scores = [mine[:size] for mine, size in zip(scores, batch.sizes, strict=True)]
    different = {id(one): one for one in slices}  # one, of a fixed split
    cluster_of = {key: _test_clusters(one) for key, one in different.items()}
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
    results = judged.drop(columns="has_diverged").join(metrics).assign(**sizes).reset_index()
    return results, pd.concat(clusters, ignore_index=True)


def judge_history(history: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Return by seed: validation_accuracy (none if a loss was not finite), best_epoch, epochs, has_diverged."""
    score = -history["validation_loss"] if "validation_loss" in history else history["validation_accuracy"]
    by_seed = history.assign(score=score.fillna(-np.inf)).groupby("seed")
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


def _test_clusters(slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of every test triplet, numbered from 0, and the number of triplets in each cluster."""
    cluster = relevance_clusters(slices.test[:, :2], len(slices.phrases))[slices.test[:, 0]]
    _, number, triplets = np.unique(cluster, return_inverse=True, return_counts=True)
    return number, triplets
