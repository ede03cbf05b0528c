"""Training of heads on the embeddings of a frozen block, each seed its own head."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.func import grad_and_value

from rlm.block import Block, init_block, of_triplets
from rlm.engine.batches import Batch
from rlm.engine.optimizer import BlockAdam
from rlm.errors import InputError
from rlm.evaluation.heads import HEADS, head_loss, score
from rlm.evaluation.triplets import embed, one_per_seed, split_batch
from rlm.seeding import stream
from rlm.slicer import Slices


def head_accuracy(
    heads: Block, embeddings: Float[Tensor, "seed phrase dim"], batch: Batch
) -> Float64[np.ndarray, " seed"]:
    """
    Share of triplets whose positive scores higher than the negative; a tie counts one half.

    Parameters
    ----------
    heads
        From `train_head`.
    embeddings
        Of the batch's phrases.
    batch
        Triplets.

    Returns
    -------
    numpy.ndarray
        Values in [0, 1], one per seed.
    """
    anchor, positive, negative = of_triplets(embeddings, batch.triplets)
    gap = score(heads, anchor, positive) - score(heads, anchor, negative)
    is_right = (gap > 0).double() + (gap == 0).double() / 2
    return (is_right * batch.is_real).sum(dim=1).div(batch.is_real.sum(dim=1)).cpu().numpy()


def train_head(
    block: Block,
    slices: Slices | Sequence[Slices],
    head: str = "classifier",
    *,
    max_epochs: int = 50,
    patience: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 150,
) -> tuple[Block, pd.DataFrame]:
    """
    Train a head on the embeddings of a block, which stay as they are.

    Parameters
    ----------
    block
        Encoders.
    slices
        One for all seeds, or one per seed.
    head
        A name in `HEADS`.
    max_epochs
        Most epochs.
    patience
        A seed stops after this many epochs without a new best validation accuracy.
    learning_rate
        Of Adam.
    batch_size
        Triplets per step and seed.

    Returns
    -------
    Block
        The heads, each with the weights of its best epoch, the earliest of equals; see `score`.
    pandas.DataFrame
        One row per seed and epoch, 0 before the first: seed, epoch, loss, validation_accuracy (of triplets, by score).

    Raises
    ------
    InputError
        If there is no such head.
    """
    if head not in HEADS:
        raise InputError(f"expected a head of {', '.join(HEADS)}, found {head!r}; choose one of them")
    mine = one_per_seed(block, slices)
    train, validation = (split_batch(block, mine, split) for split in ("train", "validation"))
    known, unknown = embed(block, train), embed(block, validation)
    heads = init_block(lambda: HEADS[head](known.shape[2]).to(known.dtype), block.seeds).to(block.device)
    adam = BlockAdam(heads.weights, learning_rate, (), in_unison=len(set(train.sizes)) == 1)
    best = {name: weight.clone() for name, weight in heads.weights.items()}
    best_accuracy, best_epoch = np.full(len(mine), -np.inf), np.zeros(len(mine), int)
    history = []
    for epoch in range(max_epochs + 1):
        is_running = epoch - best_epoch <= patience
        if not is_running.any():
            break
        loss = _epoch(heads, adam, known, train, epoch, batch_size) if epoch else np.full(len(mine), np.nan)
        heads = dataclasses.replace(heads, weights=adam.weights)
        accuracy = head_accuracy(heads, unknown, validation)
        row = {"seed": block.seeds, "epoch": epoch, "loss": loss, "validation_accuracy": accuracy}
        history.append(pd.DataFrame(row)[is_running])
        is_better = is_running & (accuracy > best_accuracy)
        best_accuracy[is_better], best_epoch[is_better] = accuracy[is_better], epoch
        for name, weight in heads.weights.items():
            best[name][is_better] = weight[is_better]
    return dataclasses.replace(heads, weights=best), pd.concat(history, ignore_index=True)


def _epoch(
    heads: Block, adam: BlockAdam, embeddings: Tensor, train: Batch, epoch: int, batch_size: int
) -> Float[np.ndarray, " seed"]:
    """One epoch in random order; mean loss of each seed."""
    total = embeddings.new_zeros(len(heads.seeds))
    for rows in _order(heads.seeds, train, epoch).split(batch_size, dim=1):
        is_real = train.is_real.gather(1, rows)
        triplets = train.triplets.gather(1, rows[..., None].expand(-1, -1, 3))
        step = partial(_loss, heads, of_triplets(embeddings, triplets), is_real)
        gradients, (_, loss) = grad_and_value(step, has_aux=True)(adam.weights)
        adam.step(gradients, [row for row, count in enumerate(is_real.sum(dim=1).tolist()) if count])
        total += loss.detach() * is_real.sum(dim=1)
    return (total / train.is_real.sum(dim=1)).cpu().numpy()


def _loss(
    heads: Block, embeddings: tuple[Tensor, Tensor, Tensor], is_real: Tensor, weights: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    anchor, positive, negative = embeddings
    heads = dataclasses.replace(heads, weights=weights)
    loss = head_loss(heads.encoder, score(heads, anchor, positive), score(heads, anchor, negative))
    loss = (loss * is_real).sum(dim=1) / is_real.sum(dim=1).clamp(min=1)
    return loss.sum(), loss  # seeds share no weight, so the gradient of the sum is every seed's own


def _order(seeds: Sequence[int], train: Batch, epoch: int) -> Int64[Tensor, "seed triplet"]:
    """Each seed's triplets in random order, what only fills up behind them."""
    count = train.triplets.shape[1]
    rows = [
        np.append(stream(seed, "order", epoch).permutation(size), np.arange(size, count))
        for seed, size in zip(seeds, train.sizes, strict=True)
    ]
    return torch.from_numpy(np.stack(rows)).to(train.triplets.device)
