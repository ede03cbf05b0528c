"""Evaluation of a block of seeds by triplets: accuracy and ROC."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from rlm.block import Block
from rlm.engine.accuracy import embed, triplet_accuracy, triplet_distances
from rlm.engine.batches import Batch, split_batch
from rlm.slicer import Slices

Similarity = Literal["distance", "cosine"]


class ScoredPairs(NamedTuple):
    """
    The different (anchor, candidate) pairs of a split under one seed; the candidate is relevant if it is a positive.

    `anchor` is a row of the batch. The score is the negated squared distance, for the cosine that of unit vectors.
    """

    anchor: Int[np.ndarray, " pair"]
    is_relevant: Bool[np.ndarray, " pair"]
    score: Float[np.ndarray, " pair"]


def evaluate(
    block: Block, slices: Slices | Sequence[Slices], split: str = "test", similarity: Similarity = "distance"
) -> pd.DataFrame:
    """
    Compute triplet accuracy and ROC AUC on one split.

    Parameters
    ----------
    block
        Encoders.
    slices
        One for all seeds, or one per seed.
    split
        ``"train"``, ``"validation"`` or ``"test"``.
    similarity
        ``"distance"``: by squared Euclidean distance, as in training. ``"cosine"``: by the angle.

    Returns
    -------
    pandas.DataFrame
        Columns seed, triplet_accuracy and roc_auc (of the pairs, see `rlm.evaluation.roc`), both in [0, 1], missing
        if embeddings are not finite.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size), seeds=[0, 1])
    >>> bool(rlm.evaluate(block, slices)["roc_auc"].between(0, 1).all())
    True
    """
    batch, embeddings = embedded_split(block, slices, split, similarity)
    found = {"triplet_accuracy": triplet_accuracy(embeddings, batch), "roc_auc": roc_aucs(embeddings, batch)}
    return pd.DataFrame({"seed": block.seeds} | found)


def roc(
    block: Block, slices: Slices | Sequence[Slices], split: str = "test", similarity: Similarity = "distance"
) -> pd.DataFrame:
    """
    Compute the ROC curve of classifying the split's different (anchor, candidate) pairs by their similarity.

    Parameters
    ----------
    block, slices, split, similarity
        As in `rlm.evaluate`.

    Returns
    -------
    pandas.DataFrame
        Columns seed, false_positive_rate, true_positive_rate.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size), seeds=[0])
    >>> rlm.evaluation.roc(block, slices).iloc[[0, -1], 1:].to_numpy().tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    from sklearn.metrics import roc_curve  # imported here, because it takes a second

    batch, embeddings = embedded_split(block, slices, split, similarity)
    curves = []
    for seed, pairs in zip(block.seeds, scored_pairs(embeddings, batch), strict=True):
        false_positives, true_positives, _ = roc_curve(pairs.is_relevant, pairs.score)
        curves.append(
            pd.DataFrame({"seed": seed, "false_positive_rate": false_positives, "true_positive_rate": true_positives})
        )
    return pd.concat(curves, ignore_index=True)


def embedded_split(
    block: Block, slices: Slices | Sequence[Slices], split: str, similarity: Similarity
) -> tuple[Batch, Float[Tensor, "seed phrase dim"]]:
    """Return a split's triplets as one batch, and its embeddings, of length 1 for the cosine."""
    batch = split_batch(block, slices, split)
    embeddings = embed(block, batch)
    return batch, F.normalize(embeddings, dim=2) if similarity == "cosine" else embeddings


def roc_aucs(embeddings: Float[Tensor, "seed phrase dim"], batch: Batch) -> list[float]:
    """Compute the ROC AUC of every seed, NaN if embeddings are not finite."""
    from sklearn.metrics import roc_auc_score

    return [
        float(roc_auc_score(mine.is_relevant, mine.score)) if np.isfinite(mine.score).all() else np.nan
        for mine in scored_pairs(embeddings, batch)
    ]


def scored_pairs(embeddings: Float[Tensor, "seed phrase dim"], batch: Batch) -> list[ScoredPairs]:
    """Return every different (anchor, candidate) pair of a batch, for each seed."""
    pairs_of_seed = []
    for positive, negative, triplets, mask in zip(
        *triplet_distances(embeddings, batch), batch.triplets, batch.mask, strict=True
    ):
        pairs = torch.cat([triplets[mask][:, [0, 1]], triplets[mask][:, [0, 2]]]).cpu().numpy()
        _, first = np.unique(pairs, axis=0, return_index=True)
        is_relevant = np.arange(len(pairs)) < len(pairs) // 2
        score = -torch.cat([positive[mask], negative[mask]]).cpu().numpy()
        pairs_of_seed.append(ScoredPairs(pairs[first, 0], is_relevant[first], score[first]))
    return pairs_of_seed
