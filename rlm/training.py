"""Pre-training on random triplets and fine-tuning on real ones, for a block of seeds at once."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import trange

from rlm.batching import Batch, epoch_batches, one_batch
from rlm.block import Block, of_triplets
from rlm.errors import InputError
from rlm.evaluation import embed, one_per_seed, split_batch, triplet_accuracy
from rlm.loss import squared_distance, triplet_loss
from rlm.sampler import RandomTriplets, RealTriplets, Redraw
from rlm.slicer import Slices

DIAGNOSED_TRIPLETS = 10_000


def pretrain(
    block: Block,
    slices: Slices | Sequence[Slices],
    *,
    epochs: int = 10,
    random_triplets: int | None = None,
    redraw: Redraw = "epoch",
    margin: float = 0.5,
    learning_rate: float = 1e-3,
    batch_size: int = 150,
    epoch_triplets: int | None = None,
    progress: bool = True,
) -> tuple[Block, pd.DataFrame]:
    """
    Train on random triplets, dealt from the components of the training triplets.

    The history tells memorising from collapsing. An encoder that maps all phrases to one point has a loss of
    exactly the margin, an accuracy of one half and no spread; a falling loss alone says nothing, because
    shrinking all distances lowers it too. Memorising shows as an accuracy on the triplets it was trained on
    that exceeds the accuracy on random triplets that it never saw. The latter can exceed one half as well:
    phrases that are positives more often than negatives are told apart by how often each was which.

    Parameters
    ----------
    block
        Where to start from; not changed.
    slices
        One for all seeds, or one per seed.
    epochs
        0 returns the block as it is.
    random_triplets
        Random triplets per epoch; by default as many as there are training triplets, at most `epoch_triplets`.
    redraw
        ``"epoch"`` or ``"once"``, see `RandomTriplets`.
    margin
        Of the triplet loss, in squared distance.
    learning_rate
        Of Adam (Kingma and Ba 2015), other settings as in ``torch.optim.Adam``.
    batch_size
        Triplets per step and seed.
    epoch_triplets
        See `random_triplets`.
    progress
        Show a progress bar.

    Returns
    -------
    Block
        The pre-trained encoders.
    pandas.DataFrame
        One row per seed and epoch (0 is before the first): seed, epoch, loss and seen_accuracy on (at most
        10,000 of) the epoch's random triplets after the epoch, unseen_accuracy on as many that are never
        trained on, spread (mean squared distance of two phrases, in the unit of the margin).
    """
    mine = one_per_seed(block, slices)
    sources = [
        RandomTriplets(
            one.components,
            seed,
            len(RealTriplets(one.train, seed, epoch_triplets)) if random_triplets is None else random_triplets,
            redraw,
        )
        for seed, one in zip(block.seeds, mine, strict=True)
    ]
    trainer = _Trainer(block, learning_rate, margin)
    history = [_diagnose(block, sources, mine, margin)]
    for epoch in trange(1, epochs + 1, desc="pre-training", unit="epoch", disable=not progress, leave=False):
        trainer.train(np.arange(len(mine)), epoch_batches(sources, mine, epoch, batch_size))
        history.append(_diagnose(trainer.block, sources, mine, margin, epoch))
    return trainer.block, pd.concat(history, ignore_index=True)


def finetune(
    block: Block,
    slices: Slices | Sequence[Slices],
    *,
    max_epochs: int = 50,
    patience: int = 20,
    margin: float = 0.5,
    learning_rate: float = 1e-3,
    batch_size: int = 150,
    epoch_triplets: int | None = None,
    progress: bool = True,
) -> tuple[Block, pd.DataFrame]:
    """
    Train on the real triplets until each seed's validation accuracy stops rising.

    Parameters
    ----------
    block
        Where to start from; not changed.
    slices
        One for all seeds, or one per seed.
    max_epochs
        No seed trains longer.
    patience
        A seed stops after this many epochs without a new best validation triplet accuracy.
    margin, learning_rate, batch_size, progress
        As in `pretrain`.
    epoch_triplets
        An epoch ends after this many triplets, see `RealTriplets`.

    Returns
    -------
    Block
        Each seed with the weights of its best epoch, the earliest of equals; epoch 0, before any step, counts.
    pandas.DataFrame
        One row per seed and epoch it was trained for: seed, epoch, loss (mean over the epoch's steps; missing
        for epoch 0), validation_accuracy.
    """
    mine = one_per_seed(block, slices)
    sources = [RealTriplets(one.train, seed, epoch_triplets) for seed, one in zip(block.seeds, mine, strict=True)]
    trainer = _Trainer(block, learning_rate, margin)
    best = {name: weight.clone() for name, weight in block.weights.items()}
    best_accuracy = np.full(len(mine), -np.inf)
    best_epoch = np.zeros(len(mine), int)
    running = np.arange(len(mine))
    validation = split_batch(block, mine, "validation")
    history = []
    for epoch in trange(max_epochs + 1, desc="fine-tuning", unit="epoch", disable=not progress, leave=False):
        theirs = [mine[row] for row in running]
        if epoch == 0:
            loss = np.full(len(mine), np.nan)
        else:
            batches = epoch_batches([sources[row] for row in running], theirs, epoch, batch_size)
            loss = trainer.train(running, batches)
        current = trainer.rows(running)
        if len(running) < validation.tokens.shape[0]:
            validation = split_batch(current, theirs, "validation")
        accuracy = triplet_accuracy(embed(current, validation), validation)
        history.append(_per_seed(current, epoch, loss=loss, validation_accuracy=accuracy))

        is_better = accuracy > best_accuracy[running]
        improved = running[is_better]
        best_accuracy[improved], best_epoch[improved] = accuracy[is_better], epoch
        for name, weight in trainer.block.weights.items():
            best[name][improved] = weight[improved]
        running = running[epoch - best_epoch[running] < patience]
        if not len(running):
            break
    return dataclasses.replace(block, weights=best), pd.concat(history, ignore_index=True)


class _Trainer:
    """Weights that Adam changes in place, each seed on its own."""

    def __init__(self, block: Block, learning_rate: float, margin: float) -> None:
        contiguous = torch.contiguous_format  # fused Adam reads memory in order, whatever the strides say
        weights = {name: weight.clone(memory_format=contiguous) for name, weight in block.weights.items()}
        self.block = dataclasses.replace(block, weights=weights)
        self.margin = margin
        # One view per seed and weight: Adam passes over a view without gradient, so a seed that has stopped, or
        # has no triplets left in this epoch, neither moves nor counts the step.
        self.trained = [name for name, parameter in block.encoder.named_parameters() if parameter.requires_grad]
        self.views = [[weights[name][row] for name in self.trained] for row in range(len(block.seeds))]
        self.adam = torch.optim.Adam([view for views in self.views for view in views], lr=learning_rate, fused=True)

    def rows(self, rows: np.ndarray) -> Block:
        """The chosen seeds; the block itself, not a copy, where that is all of them."""
        if len(rows) == len(self.block.seeds):
            return self.block
        weights = {name: weight[rows] for name, weight in self.block.weights.items()}
        return Block(self.block.encoder, tuple(self.block.seeds[row] for row in rows), weights)

    def train(self, rows: np.ndarray, batches: Iterable[Batch]) -> np.ndarray:
        """Take one step per batch with the chosen seeds; mean loss of each over its triplets."""
        total, triplets = torch.zeros(len(rows)), torch.zeros(len(rows))
        for batch in batches:
            count = batch.is_real.sum(dim=1)
            loss = self._step(rows, batch, has_triplets=count.bool().tolist())
            total, triplets = total + loss * count, triplets + count
        diverged = [self.block.seeds[row] for row, loss in zip(rows, total, strict=True) if not loss.isfinite()]
        if diverged:
            raise InputError(
                f"expected a finite loss, found none for seed(s) {', '.join(map(str, diverged))}; lower learning_rate"
            )
        return (total / triplets).numpy()

    def _step(self, rows: np.ndarray, batch: Batch, has_triplets: list[bool]) -> Float[Tensor, " seed"]:
        current = self.rows(rows)
        leaves = {name: current.weights[name].detach().requires_grad_() for name in self.trained}
        embeddings = dataclasses.replace(current, weights=current.weights | leaves).embed(
            batch.tokens, batch.batch_sizes
        )
        loss = (triplet_loss(*of_triplets(embeddings, batch), self.margin) * batch.weights).sum(dim=1)
        # Seeds share no weight, so the gradient of the sum is every seed's own gradient.
        gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), materialize_grads=True)
        for place, row in enumerate(rows):
            if has_triplets[place]:
                for view, gradient in zip(self.views[row], gradients, strict=True):
                    view.grad = gradient[place].contiguous()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return loss.detach()


def _per_seed(block: Block, epoch: int, **columns: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"seed": block.seeds, "epoch": epoch} | columns)


def _diagnose(
    block: Block, sources: Sequence[RandomTriplets], slices: Sequence[Slices], margin: float, epoch: int = 0
) -> pd.DataFrame:
    """What pre-training has done so far; epoch 0 is judged by the triplets of epoch 1."""
    epoch_drawn = max(epoch, 1)
    # Spread over the epoch: what was trained on last is remembered best.
    shown = [np.arange(0, len(source), -(-len(source) // DIAGNOSED_TRIPLETS)) for source in sources]
    paired = list(zip(sources, shown, strict=True))
    seen = one_batch([source.draw(epoch_drawn, index) for source, index in paired], slices)
    unseen = one_batch([source.draw(epoch_drawn, len(source) + index) for source, index in paired], slices)
    embeddings = embed(block, seen)
    loss = (triplet_loss(*of_triplets(embeddings, seen), margin) * seen.weights).sum(dim=1)
    phrases = seen.tokens.bool().any(dim=2, keepdim=True).float()
    mean = (embeddings * phrases).sum(dim=1, keepdim=True) / phrases.sum(dim=1, keepdim=True)
    variance = (squared_distance(embeddings, mean.expand_as(embeddings)) * phrases[..., 0]).sum(dim=1) / phrases.sum(
        dim=(1, 2)
    )
    return _per_seed(
        block,
        epoch,
        loss=loss.numpy(),
        seen_accuracy=triplet_accuracy(embeddings, seen),
        unseen_accuracy=triplet_accuracy(embed(block, unseen), unseen),
        spread=2 * variance.numpy(),
    )
