"""Embeddings of phrases under every seed of a block, outside of training."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlm.block import Block
from rlm.engine.batches import Batch

PHRASES_AT_ONCE = 2048


def embed(block: Block, batch: Batch) -> Float[Tensor, "seed phrase dim"]:
    """
    Embed every phrase of a batch under every seed, once, without gradients.

    Parameters
    ----------
    block
        Encoders.
    batch
        Phrases of as many seeds as `block` has.

    Returns
    -------
    torch.Tensor
        Embeddings.
    """
    return embed_phrases(block, batch.tokens, batch.batch_sizes)


def embed_phrases(
    block: Block, tokens: Int[Tensor, "seed phrase token"], batch_sizes: Sequence[int]
) -> Float[Tensor, "seed phrase dim"]:
    """
    Embed phrases under every seed, without gradients, so many at once that they fit into the caches.

    Parameters
    ----------
    block
        Encoders.
    tokens, batch_sizes
        See `Batch`.

    Returns
    -------
    torch.Tensor
        Embeddings.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, batch_sizes[0], PHRASES_AT_ONCE):
            stop = min(start + PHRASES_AT_ONCE, batch_sizes[0])
            sizes = tuple(min(size, stop) - start for size in batch_sizes if size > start)
            parts.append(block.embed(tokens[:, start:stop, : len(sizes)], sizes))
    return torch.cat(parts, dim=1)


def unify(embeddings: Float[Tensor, "phrase dim"], tokens: Int[Tensor, "phrase token"]) -> Float[Tensor, "phrase dim"]:
    """
    Give phrases that read the same, because they differ in unknown words only, the same embedding bit for bit.

    They should have it, but the last bits of a matrix product can depend on the row: what should tie would not.

    Parameters
    ----------
    embeddings, tokens
        Of one model's phrases.

    Returns
    -------
    torch.Tensor
        The embedding of the first phrase that reads so.
    """
    _, first, place = np.unique(tokens.cpu().numpy(), axis=0, return_index=True, return_inverse=True)
    return embeddings[torch.from_numpy(first[place.ravel()])]
