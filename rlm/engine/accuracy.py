"""Embeddings of phrases under every seed of a block, outside of training, and the accuracy on their triplets."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from rlm.block import Block
from rlm.engine.batches import Batch
from rlm.loss import squared_distance

TIE = 0.5  # score of a triplet with equal distances
PHRASES_AT_ONCE = 2048
ROWS_ON_GPU = 2**18  # phrases times seeds, where launching costs more than memory does
Embeddings = Float[Tensor, "seed phrase dim"]
Distances = Float[Tensor, "seed triplet"]
PerSeed = Float64[np.ndarray, " seed"]


def embed(block: Block, batch: Batch) -> Embeddings:
    """Embed every phrase of a batch once under every seed, without gradients."""
    return embed_phrases(block, batch.tokens, batch.batch_sizes)


def embed_phrases(block: Block, tokens: Int[Tensor, "seed phrase token"], batch_sizes: Sequence[int]) -> Embeddings:
    """Embed phrases under every seed, without gradients, as many at once as fit into the caches of a CPU."""
    at_once = PHRASES_AT_ONCE if tokens.device.type == "cpu" else max(PHRASES_AT_ONCE, ROWS_ON_GPU // len(tokens))
    parts = []
    with torch.no_grad():
        for start in range(0, batch_sizes[0], at_once):
            stop = min(start + at_once, batch_sizes[0])
            sizes = tuple(min(size, stop) - start for size in batch_sizes if size > start)
            parts.append(block.embed(tokens[:, start:stop, : len(sizes)], sizes))
    return torch.cat(parts, dim=1)


def unify(embeddings: Float[Tensor, "phrase dim"], tokens: Int[Tensor, "phrase token"]) -> Float[Tensor, "phrase dim"]:
    """Give equal token rows of one model bit-identical embeddings: a product's last bits may depend on the row."""
    _, first, place = np.unique(tokens.cpu().numpy(), axis=0, return_index=True, return_inverse=True)
    return embeddings[torch.from_numpy(first[place.ravel()])]


def mean_distance(embeddings: Embeddings, batch: Batch) -> PerSeed:
    """Compute the mean squared distance of two phrases of a batch: twice the variance of the embeddings."""
    phrases = batch.tokens.bool().any(dim=2, keepdim=True).float()
    mean = (embeddings * phrases).sum(dim=1, keepdim=True) / phrases.sum(dim=1, keepdim=True)
    squares = squared_distance(embeddings, mean.expand_as(embeddings)) * phrases[..., 0]
    return 2 * (squares.sum(dim=1) / phrases.sum(dim=(1, 2))).double().cpu().numpy()


def triplet_accuracy(embeddings: Embeddings, batch: Batch) -> PerSeed:
    """Compute each seed's share of triplets with the positive nearer; a tie counts 0.5, and not finite is NaN."""
    return mean_accuracy(triplet_scores(embeddings, batch), batch)


def mean_accuracy(scores: Float64[Tensor, "seed triplet"], batch: Batch) -> PerSeed:
    """Return the mean score of each seed's triplets, without padding."""
    return (scores * batch.mask).sum(dim=1).div(batch.mask.sum(dim=1)).cpu().numpy()


def triplet_scores(embeddings: Embeddings, batch: Batch) -> Float64[Tensor, "seed triplet"]:
    """Score triplets: 1 for right, 0 for wrong, 0.5 for a tie, NaN where an embedding is not finite."""
    positive, negative = triplet_distances(embeddings, batch)
    scores = (positive < negative).double() + TIE * (positive == negative)
    return scores.masked_fill((positive - negative).isnan(), torch.nan)


def triplet_distances(embeddings: Embeddings, batch: Batch) -> tuple[Distances, Distances]:
    """Compute the squared distances from the anchors to the positives, and to the negatives."""
    to_positive, to_negative = [], []  # seed by seed: all at once would take S times the memory
    for mine, triplets in zip(embeddings, batch.triplets, strict=True):
        anchor, positive, negative = (mine[rows] for rows in triplets.T)
        to_positive.append(squared_distance(anchor, positive))
        to_negative.append(squared_distance(anchor, negative))
    return torch.stack(to_positive), torch.stack(to_negative)
