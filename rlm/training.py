"""Pre-training on random triplets and fine-tuning on real ones, for a block of seeds at once."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm.auto import trange

from rlm.block import Block
from rlm.engine.batches import Batch, PhraseTable, cut, epoch_batches, one_batch
from rlm.engine.compiling import is_worth_compiling
from rlm.engine.optimizer import Optimizer
from rlm.engine.trainer import Trainer
from rlm.evaluation.triplets import embed, one_per_seed, triplet_accuracy
from rlm.loss import squared_distance
from rlm.sampler import Batching, RandomTriplets, RealTriplets, Redraw, triplets_per_pair
from rlm.slicer import Slices
from rlm.stopping import per_seed, train_to_best
from rlm.zoo.mining import KnownRelevance, Mining
from rlm.zoo.objective import Loss, Objective, make_objective

Precision = Literal["fp32", "bf16"]
DIAGNOSED_TRIPLETS = 10_000
log = logging.getLogger(__name__)


def pretrain(
    block: Block,
    slices: Slices | Sequence[Slices],
    *,
    epochs: int = 10,
    random_triplets: int | None = None,
    redraw: Redraw = "epoch",
    loss: Loss = "triplet",
    margin: float | int | None = None,
    mining: Mining | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 150,
    epoch_triplets: int | None = None,
    batching: Batching = "flat",
    optimizer: Optimizer = "adam",
    precision: Precision = "fp32",
    compile: bool | None = None,
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
    loss, margin, mining
        What to minimise, see `make_objective`.
    learning_rate
        Of Adam (Kingma and Ba 2015), other settings as in ``torch.optim.Adam``.
    batch_size
        Triplets per step and seed.
    epoch_triplets
        See `random_triplets`.
    batching
        ``"flat"``: all triplets are drawn independently. ``"grouped"``: as many as a pair has negatives share their
        random anchor and positive, see `RealTriplets`.
    optimizer, precision
        See `Trainer`.
    compile
        Whether to compile the step, see `Trainer.compile`; by default where the run is long enough to win back
        what that takes, see `is_worth_compiling`.
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
    objective, known = make_objective(loss, margin, mining), KnownRelevance(device=block.device)
    mine = one_per_seed(block, slices)
    table = PhraseTable(mine, block.device)
    sources = []
    for seed, one in zip(block.seeds, mine, strict=True):
        size = random_triplets or len(RealTriplets(one.train, seed, epoch_triplets))
        per_pair = 1 if batching == "flat" else triplets_per_pair(one.train)
        sources.append(RandomTriplets(one.components, seed, size, redraw, per_pair, block.device))
    trainer = Trainer(block, learning_rate, objective, known, optimizer, precision, _same_size(sources))
    if _compiles(compile, sources, table, epochs):
        trainer.compile(epoch_batches(sources, table, 1, batch_size))
    diagnose = partial(_diagnose, sources=sources, table=table, objective=objective, known=known, batch_size=batch_size)
    history = [diagnose(block, 0)]
    for epoch in trange(1, epochs + 1, desc="pre-training", unit="epoch", disable=not progress, leave=False):
        trainer.train(epoch_batches(sources, table, epoch, batch_size))
        history.append(diagnose(trainer.block, epoch))
    return trainer.block, pd.concat(history, ignore_index=True)


def finetune(
    block: Block,
    slices: Slices | Sequence[Slices],
    *,
    max_epochs: int = 50,
    patience: int = 20,
    loss: Loss = "triplet",
    margin: float | int | None = None,
    mining: Mining | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 150,
    epoch_triplets: int | None = None,
    batching: Batching = "flat",
    optimizer: Optimizer = "adam",
    precision: Precision = "fp32",
    compile: bool | None = None,
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
    loss, margin, mining, learning_rate, batch_size, progress
        As in `pretrain`.
    epoch_triplets
        An epoch ends after this many triplets, see `RealTriplets`.
    batching
        ``"flat"`` or ``"grouped"``, see `RealTriplets`.
    optimizer, precision
        See `Trainer`.
    compile
        Whether to compile the step, see `Trainer.compile`; by default where the run is long enough to win back
        what that takes, see `is_worth_compiling`.

    Returns
    -------
    Block
        Each seed with the weights of its best epoch, the earliest of equals; epoch 0, before any step, counts.
    pandas.DataFrame
        One row per seed and epoch it was trained for: seed, epoch, loss (mean over the epoch's steps; missing
        for epoch 0), validation_accuracy. A seed stops at the first loss that is not finite.
    """
    mine = one_per_seed(block, slices)
    objective, known = make_objective(loss, margin, mining), KnownRelevance(mine[0].relevance, block.device)
    sources = [
        RealTriplets(one.train, seed, epoch_triplets, batching, block.device)
        for seed, one in zip(block.seeds, mine, strict=True)
    ]
    lesson = _Lesson(sources, mine, batch_size)
    if objective.output:
        objective.check(embed(block, lesson.validation), lesson.validation.tokens)
    trainer = Trainer(block, learning_rate, objective, known, optimizer, precision, _same_size(sources))
    if _compiles(compile, sources, lesson.table, min(max_epochs, 2 * patience)):
        trainer.compile(lesson.batches(1))
    return train_to_best(trainer, lesson, max_epochs=max_epochs, patience=patience, progress=progress)


class _Lesson:
    """Real triplets, and the accuracy on those of the validation split; see `rlm.stopping.Lesson`."""

    def __init__(self, sources: Sequence[RealTriplets], slices: Sequence[Slices], batch_size: int) -> None:
        self.sources = sources
        self.slices = slices
        self.batch_size = batch_size
        self.table = PhraseTable(slices, sources[0].triplets.device)
        validation = [torch.from_numpy(one.validation).to(self.table.device) for one in slices]
        self.validation = one_batch(validation, self.table)

    def batches(self, epoch: int) -> Iterator[Batch]:
        return epoch_batches(self.sources, self.table, epoch, self.batch_size)

    def accuracy(self, block: Block) -> Float[np.ndarray, " seed"]:
        return triplet_accuracy(embed(block, self.validation), self.validation)

    def keep(self, rows: Int[np.ndarray, " row"]) -> "_Lesson":
        return _Lesson([self.sources[row] for row in rows], [self.slices[row] for row in rows], self.batch_size)


def _compiles(
    compile: bool | None, sources: Sequence[RealTriplets | RandomTriplets], table: PhraseTable, epochs: int
) -> bool:
    planned = epochs * sum(map(len, sources))
    if compile is None:
        compile = is_worth_compiling(planned, table.tokens[0].shape[1])
    log.log(
        logging.INFO if compile else logging.DEBUG,
        "%s steps for at most %d triplets",
        "compiled" if compile else "eager",
        planned,
    )
    return compile


def _same_size(sources: Sequence[RealTriplets | RandomTriplets]) -> bool:
    return len({len(source) for source in sources}) == 1


def _diagnose(
    block: Block,
    epoch: int,
    sources: Sequence[RandomTriplets],
    table: PhraseTable,
    objective: Objective,
    known: KnownRelevance,
    batch_size: int,
) -> pd.DataFrame:
    """What pre-training has done so far; epoch 0 is judged by the triplets of epoch 1."""
    epoch_drawn = max(epoch, 1)
    # Spread over the epoch: what was trained on last is remembered best.
    shown = [
        torch.arange(0, len(source), -(-len(source) // DIAGNOSED_TRIPLETS), device=block.device) for source in sources
    ]
    paired = list(zip(sources, shown, strict=True))
    triplets = [source.draw(epoch_drawn, index) for source, index in paired]
    seen = one_batch(triplets, table)
    unseen = one_batch([source.draw(epoch_drawn, len(source) + index) for source, index in paired], table)
    embeddings = embed(block, seen)
    if epoch == 0:
        objective.check(embeddings, seen.tokens)
    if objective.compares:  # with phrases of its own batch, as in training
        loss = torch.zeros(len(block.seeds), device=block.device)
        for batch in cut(triplets, table, batch_size):
            share = batch.is_real.sum(dim=1) / seen.is_real.sum(dim=1)
            loss += share * objective(embed(block, batch), batch.triplets, batch.weights, known(batch))
    else:
        loss = objective(embeddings, seen.triplets, seen.weights)
    phrases = seen.tokens.bool().any(dim=2, keepdim=True).float()
    mean = (embeddings * phrases).sum(dim=1, keepdim=True) / phrases.sum(dim=1, keepdim=True)
    variance = (squared_distance(embeddings, mean.expand_as(embeddings)) * phrases[..., 0]).sum(dim=1) / phrases.sum(
        dim=(1, 2)
    )
    return per_seed(
        block,
        epoch,
        loss=loss.double().cpu().numpy(),
        seen_accuracy=triplet_accuracy(embeddings, seen),
        unseen_accuracy=triplet_accuracy(embed(block, unseen), unseen),
        spread=2 * variance.double().cpu().numpy(),
    )


def judge_history(history: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """
    Return by seed: validation_accuracy of the best epoch, best_epoch, epochs, has_diverged.

    A seed diverged if a loss was not finite. It then has no accuracy, and its best epoch is 0.
    """
    by_seed = history.fillna({"validation_accuracy": -np.inf}).groupby("seed")
    best = history.loc[by_seed["validation_accuracy"].idxmax()].set_index("seed").loc[list(seeds)]
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
