"""Evaluation: triplet accuracy and ROC of a block of seeds."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from rlm.block import Block
from rlm.engine.batches import Batch, PhraseTable, one_batch
from rlm.engine.embedding import embed
from rlm.errors import InputError
from rlm.loss import squared_distance
from rlm.slicer import Slices

Similarity = Literal["distance", "cosine"]


class ScoredPairs(NamedTuple):
    """
    The different (anchor, candidate) pairs of a split under one seed, each once.

    Attributes
    ----------
    anchor
        Phrase of the batch.
    is_relevant
        Whether the candidate is a positive of the anchor.
    score
        Negated squared distance, of unit vectors where similarity is the cosine (it is 2 cos - 2 then).
    """

    anchor: Int[np.ndarray, " pair"]
    is_relevant: Bool[np.ndarray, " pair"]
    score: Float[np.ndarray, " pair"]


def triplet_accuracy(embeddings: Float[Tensor, "seed phrase dim"], batch: Batch) -> Float64[np.ndarray, " seed"]:
    """
    Share of triplets whose anchor is nearer to the positive than to the negative.

    A tie counts one half, so that an encoder that maps everything to one point is at chance, 0.5. Embeddings that
    are not finite have no accuracy, NaN.

    Parameters
    ----------
    embeddings
        Of the batch's phrases.
    batch
        Triplets.

    Returns
    -------
    numpy.ndarray
        Values in [0, 1], one per seed.
    """
    scores = triplet_scores(embeddings, batch)
    return (scores * batch.is_real).sum(dim=1).div(batch.is_real.sum(dim=1)).cpu().numpy()


def triplet_scores(embeddings: Float[Tensor, "seed phrase dim"], batch: Batch) -> Float64[Tensor, "seed triplet"]:
    """
    Which triplets are right: the terms of `triplet_accuracy`.

    Parameters
    ----------
    embeddings
        Of the batch's phrases.
    batch
        Triplets.

    Returns
    -------
    torch.Tensor
        1 for right, 0 for wrong, 0.5 for a tie, NaN where an embedding is not finite.
    """
    positive, negative = triplet_distances(embeddings, batch)
    scores = (positive < negative).double() + (positive == negative).double() / 2
    return scores.masked_fill((positive - negative).isnan(), torch.nan)


def triplet_distances(
    embeddings: Float[Tensor, "seed phrase dim"], batch: Batch
) -> tuple[Float[Tensor, "seed triplet"], Float[Tensor, "seed triplet"]]:
    """
    Squared distances from the anchors to the positives and to the negatives.

    Parameters
    ----------
    embeddings
        Of the batch's phrases.
    batch
        Triplets.

    Returns
    -------
    tuple of torch.Tensor
        To the positives, to the negatives.
    """
    to_positive, to_negative = [], []  # seed by seed: all at once would take S times the memory
    for mine, triplets in zip(embeddings, batch.triplets, strict=True):
        anchor, positive, negative = (mine[rows] for rows in triplets.T)
        to_positive.append(squared_distance(anchor, positive))
        to_negative.append(squared_distance(anchor, negative))
    return torch.stack(to_positive), torch.stack(to_negative)


def evaluate(
    block: Block, slices: Slices | Sequence[Slices], split: str = "test", similarity: Similarity = "distance"
) -> pd.DataFrame:
    """
    Triplet accuracy and ROC AUC on one split.

    Parameters
    ----------
    block
        Encoders.
    slices
        One for all seeds, or one per seed.
    split
        ``"train"``, ``"validation"`` or ``"test"``.
    similarity
        ``"distance"``: phrases are alike whose squared distance is small, as in training. ``"cosine"``: whose angle is.

    Returns
    -------
    pandas.DataFrame
        Columns seed, triplet_accuracy and roc_auc (of the pairs, see `roc`), both in [0, 1], missing where embeddings
        are not finite.
    """
    batch, embeddings = embedded_split(block, slices, split, similarity)
    found = {"triplet_accuracy": triplet_accuracy(embeddings, batch), "roc_auc": roc_aucs(embeddings, batch)}
    return pd.DataFrame({"seed": block.seeds} | found)


def roc(
    block: Block, slices: Slices | Sequence[Slices], split: str = "test", similarity: Similarity = "distance"
) -> pd.DataFrame:
    """
    ROC curve of telling relevant from irrelevant pairs by how alike they are.

    Every different (anchor, candidate) pair of the split's triplets counts once.

    Parameters
    ----------
    block, slices, split, similarity
        As in `evaluate`.

    Returns
    -------
    pandas.DataFrame
        Columns seed, false_positive_rate, true_positive_rate.
    """
    from sklearn.metrics import roc_curve  # takes a second; who starts a study need not wait for it

    batch, embeddings = embedded_split(block, slices, split, similarity)
    curves = []
    for seed, pairs in zip(block.seeds, scored_pairs(embeddings, batch), strict=True):
        false_positives, true_positives, _ = roc_curve(pairs.is_relevant, pairs.score)
        curves.append(
            pd.DataFrame({"seed": seed, "false_positive_rate": false_positives, "true_positive_rate": true_positives})
        )
    return pd.concat(curves, ignore_index=True)


def one_per_seed(block: Block, slices: Slices | Sequence[Slices]) -> Sequence[Slices]:
    """
    The slices of every seed of a block.

    Parameters
    ----------
    block
        S seeds.
    slices
        One for all seeds, or one per seed.

    Returns
    -------
    sequence of Slices
        S of them.

    Raises
    ------
    InputError
        If there are several, but not one per seed, or of different corpora.
    """
    mine = [slices] * len(block.seeds) if isinstance(slices, Slices) else slices
    if len(mine) != len(block.seeds):
        raise InputError(
            f"expected one Slices, or one per seed ({len(block.seeds)}), found {len(mine)}; "
            "slice the corpus once per seed"
        )
    if any(one.phrases is not mine[0].phrases for one in mine):
        raise InputError("expected slices of one corpus, found several corpora; slice the same one for every seed")
    return mine


def split_batch(block: Block, slices: Slices | Sequence[Slices], split: str) -> Batch:
    """
    All triplets of a split as one batch.

    Parameters
    ----------
    block, slices, split
        As in `evaluate`.

    Returns
    -------
    Batch
        One batch for all seeds.
    """
    mine = one_per_seed(block, slices)
    triplets = [torch.from_numpy(getattr(one, split)).to(block.device) for one in mine]
    return one_batch(triplets, PhraseTable(mine, block.device))


def embedded_split(
    block: Block, slices: Slices | Sequence[Slices], split: str, similarity: Similarity
) -> tuple[Batch, Float[Tensor, "seed phrase dim"]]:
    """
    A split's triplets and the embeddings of its phrases.

    Parameters
    ----------
    block, slices, split, similarity
        As in `evaluate`.

    Returns
    -------
    Batch
        Its phrases in rising order.
    torch.Tensor
        Embeddings, of length one for the cosine: the nearest then have the smallest angle.
    """
    batch = split_batch(block, slices, split)
    embeddings = embed(block, batch)
    return batch, F.normalize(embeddings, dim=2) if similarity == "cosine" else embeddings


def roc_aucs(embeddings: Float[Tensor, "seed phrase dim"], batch: Batch) -> list[float]:
    """
    ROC AUC of every seed.

    Parameters
    ----------
    embeddings, batch
        As in `triplet_accuracy`.

    Returns
    -------
    list of float
        In [0, 1]; NaN where embeddings are not finite.
    """
    from sklearn.metrics import roc_auc_score

    return [
        float(roc_auc_score(mine.is_relevant, mine.score)) if np.isfinite(mine.score).all() else np.nan
        for mine in scored_pairs(embeddings, batch)
    ]


def scored_pairs(embeddings: Float[Tensor, "seed phrase dim"], batch: Batch) -> list[ScoredPairs]:
    """
    Every different (anchor, candidate) pair of a batch, for each seed.

    Parameters
    ----------
    embeddings, batch
        As in `triplet_accuracy`.

    Returns
    -------
    list of ScoredPairs
        One per seed.
    """
    pairs_of_seed = []
    for positive, negative, triplets, is_real in zip(
        *triplet_distances(embeddings, batch), batch.triplets, batch.is_real, strict=True
    ):
        pairs = torch.cat([triplets[is_real][:, [0, 1]], triplets[is_real][:, [0, 2]]]).cpu().numpy()
        _, first = np.unique(pairs, axis=0, return_index=True)
        is_relevant = np.arange(len(pairs)) < len(pairs) // 2
        score = -torch.cat([positive[is_real], negative[is_real]]).cpu().numpy()
        pairs_of_seed.append(ScoredPairs(pairs[first, 0], is_relevant[first], score[first]))
    return pairs_of_seed
