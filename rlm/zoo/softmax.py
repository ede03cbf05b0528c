"""Softmax losses: the positive against sampled negatives, or against all candidates of the batch."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rlm.block import of_triplets


def in_batch_loss(
    embeddings: Float[Tensor, "seed phrase dim"],
    triplets: Int64[Tensor, "seed triplet 3"],
    shares: Float[Tensor, "seed triplet"],
    relevant: Bool[Tensor, "seed phrase phrase"],
    scale: float | int = 20,
) -> Float[Tensor, " seed"]:
    """
    Cross-entropy of an anchor's own positive among all positives and negatives of the batch.

    Parameters
    ----------
    embeddings
        Of the batch's phrases, of length 1.
    triplets
        Rows of `embeddings`.
    shares
        Of each triplet in the mean; 0 where it only fills up.
    relevant
        Phrases that are no negatives of each other, see `rlm.zoo.mining.KnownRelevance`.
    scale
        Factor of the cosines.

    Returns
    -------
    torch.Tensor
        Mean over the triplets.

    References
    ----------
    Henderson et al., "Efficient natural language response suggestion for Smart Reply", arXiv 1705.00652, section 4.4
    (multiple negatives); scale and the triplets' own negatives as in sentence-transformers'
    ``MultipleNegativesRankingLoss``.
    """
    anchor, positive, negative = of_triplets(embeddings, triplets)
    scores = scale * anchor @ torch.cat([positive, negative], dim=1).mT
    candidates = torch.cat([triplets[..., 1], triplets[..., 2]], dim=1)
    is_barred = _lookup(relevant, triplets[..., 0], candidates) | (shares == 0).repeat(1, 2)[:, None]
    is_own = torch.eye(*scores.shape[1:], dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(is_barred & ~is_own, -torch.inf)
    own = scores.diagonal(dim1=1, dim2=2)
    return ((scores.logsumexp(dim=2) - own) * shares).sum(dim=1)


def dssm_loss(
    embeddings: Float[Tensor, "seed phrase dim"],
    triplets: Int64[Tensor, "seed triplet 3"],
    shares: Float[Tensor, "seed triplet"],
    relevant: Bool[Tensor, "seed phrase phrase"],
    gamma: float | int = 10,
    negatives: int = 4,
) -> Float[Tensor, " seed"]:
    """
    -log P(positive | anchor), P the softmax of gamma cos(anchor, candidate) over the positive and sampled negatives.

    Parameters
    ----------
    embeddings
        Of the batch's phrases, of length 1.
    triplets
        Rows of `embeddings`. Their order is random, so that the negatives of the triplets that follow are samples too.
    shares
        Of each triplet in the mean; 0 where it only fills up, behind all others.
    relevant
        Phrases that are no negatives of each other, see `rlm.zoo.mining.KnownRelevance`.
    gamma
        Smoothing factor. The paper sets it on held-out data and does not say to what.
    negatives
        How many: the triplet's own, and those of the triplets that follow it, from the first again after the last.

    Returns
    -------
    torch.Tensor
        Mean over the triplets.

    References
    ----------
    Huang et al., "Learning deep structured semantic models for web search using clickthrough data", CIKM 2013,
    section 3.3, equations 5 and 6, with four negatives as in section 3.3.
    """
    anchor, positive, negative = of_triplets(embeddings, triplets)
    places = torch.arange(triplets.shape[1], device=triplets.device)
    count = (shares > 0).sum(dim=1)[:, None, None]
    step = torch.arange(negatives, device=triplets.device)
    sampled = (places[:, None] + step) % count.clamp(min=1)
    is_barred = _lookup(relevant, triplets[..., 0], triplets[..., 2]).gather(2, sampled) | (step >= count)
    irrelevant = (anchor @ negative.mT).gather(2, sampled)
    own = (anchor * positive).sum(dim=2, keepdim=True)
    scores = gamma * torch.cat([own, irrelevant.masked_fill(is_barred, -torch.inf)], dim=2)
    return ((scores.logsumexp(dim=2) - scores[..., 0]) * shares).sum(dim=1)


def _lookup(
    relevant: Bool[Tensor, "seed phrase phrase"],
    anchor: Int64[Tensor, "seed anchor"],
    candidate: Int64[Tensor, "seed candidate"],
) -> Bool[Tensor, "seed anchor candidate"]:
    rows = relevant.gather(1, anchor[..., None].expand(-1, -1, relevant.shape[2]))
    return rows.gather(2, candidate[:, None].expand(-1, anchor.shape[1], -1))
