"""Training with early stopping, for a block of seeds at once: each seed keeps the weights of its best epoch."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from tqdm.auto import trange

from rlm.block import Block
from rlm.engine.trainer import Trainable, Trainer

log = logging.getLogger(__name__)


@runtime_checkable
class Lesson(Protocol):
    """What a block of seeds is trained on and judged by."""

    def batches(self, epoch: int) -> Iterable[Trainable]:
        """The training steps of an epoch."""

    def accuracy(self, block: Block) -> Float[np.ndarray, " seed"]:
        """Validation accuracy of each seed."""

    def keep(self, rows: Int[np.ndarray, " row"]) -> "Lesson":
        """The same for some of the seeds."""


def train_to_best(
    trainer: Trainer, lesson: Lesson, *, max_epochs: int, patience: int, progress: bool
) -> tuple[Block, pd.DataFrame]:
    """
    Train until each seed's validation accuracy stops rising.

    Parameters
    ----------
    trainer
        Of the block to start from.
    lesson
        Of the same seeds.
    max_epochs
        No seed trains longer.
    patience
        A seed stops after this many epochs without a new best validation accuracy.
    progress
        Show a progress bar.

    Returns
    -------
    Block, pandas.DataFrame
        As of `rlm.finetune`.
    """
    block = trainer.block
    best = {name: weight.clone() for name, weight in block.weights.items()}
    best_accuracy = np.full(len(block.seeds), -np.inf)
    best_epoch = np.zeros(len(block.seeds), int)
    is_running = np.ones(len(block.seeds), bool)
    rows = np.arange(len(block.seeds))  # of the block, in the trainer
    history = []
    for epoch in trange(max_epochs + 1, desc="fine-tuning", unit="epoch", disable=not progress, leave=False):
        mean_loss = trainer.train(lesson.batches(epoch)) if epoch else np.full(len(rows), np.nan)
        accuracy = lesson.accuracy(trainer.block)
        history.append(per_seed(trainer.block, epoch, loss=mean_loss, validation_accuracy=accuracy)[is_running[rows]])

        is_better = is_running[rows] & (accuracy > best_accuracy[rows])
        improved = rows[is_better]
        best_accuracy[improved], best_epoch[improved] = accuracy[is_better], epoch
        for name, weight in trainer.block.weights.items():
            best[name][improved] = weight[is_better]
        diverged = rows[is_running[rows] & ~np.isfinite(mean_loss)] if epoch else rows[:0]
        if len(diverged):
            log.warning(
                "seed(s) %s diverged: the loss is not finite; lower learning_rate",
                [block.seeds[row] for row in diverged],
            )
        is_running &= epoch - best_epoch < patience
        is_running[diverged] = False
        if not is_running.any():
            break
        stay = np.flatnonzero(is_running[rows])
        if len(stay) <= trainer.largest_to_shrink_to:
            rows = rows[stay]
            trainer.keep(stay)
            lesson = lesson.keep(stay)
    return dataclasses.replace(block, weights=best), pd.concat(history, ignore_index=True)


def per_seed(block: Block, epoch: int, **columns: np.ndarray | Sequence[float]) -> pd.DataFrame:
    """
    Rows of a history.

    Parameters
    ----------
    block
        Has the seeds.
    epoch
        The same for all.
    columns
        One value per seed.

    Returns
    -------
    pandas.DataFrame
        One row per seed: seed, epoch and the columns.
    """
    return pd.DataFrame({"seed": block.seeds, "epoch": epoch} | columns)
