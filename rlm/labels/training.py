"""Memorising random labels, as pre-training, and learning the true ones, for a block of seeds at once."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from tqdm.auto import tqdm

from rlm.block import Block
from rlm.config import Optimizer
from rlm.engine.batches import Step
from rlm.engine.optimizer import SGD
from rlm.engine.trainer import Trainer
from rlm.labels.batches import CrossEntropy, Labelled, RandomLabels, Rows, SampleTable, attach
from rlm.labels.samples import Parts, Samples
from rlm.seeding import stream
from rlm.training import per_seed, train_to_best


def memorise(
    block: Block,
    table: SampleTable,
    parts: Sequence[Parts],
    labels: Sequence[RandomLabels],
    *,
    shuffles: int = 10,
    epochs: int = 20,
    until: float | None = None,
    new_head: bool = False,
    optimizer: Optimizer | SGD = "adam",
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[Block, pd.DataFrame]:
    """
    Train classifiers to memorise random labels, which are shuffled again and again.

    Parameters
    ----------
    block
        Classifiers with as many classes as `labels` have; not changed.
    table
        All samples, see `rlm.labels.tabulate`.
    parts
        Training, validation and test samples of each seed; the training samples are memorised, without their true
        labels.
    labels
        Random labels of each seed.
    shuffles
        How often labels are dealt, at least once. 1 means that they are never shuffled.
    epochs
        Epochs of a shuffle, or their maximum if `until` is given.
    until
        A shuffle ends when this accuracy on the samples is reached, for each seed separately.
    new_head
        Draw a new head at each shuffle; by default the old one is kept.
    optimizer
        Adam, or `rlm.labels.SGD`. It restarts at each shuffle, so that shuffles differ from the first by weights only.
    learning_rate
        Learning rate of the optimizer.
    batch_size
        Samples per step and seed.
    progress
        Show a progress bar.

    Returns
    -------
    Block
        Each seed after its last epoch.
    pandas.DataFrame
        One row per seed, shuffle and epoch of that shuffle, 0 before its first step: seed, epoch (trained in all),
        shuffle, shuffle_epoch, loss (mean over the epoch's steps), accuracy (on all memorised samples, afterwards).

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, section 3 and figure 1.

    Examples
    --------
    >>> import rlm
    >>> digits = rlm.labels.load_digits(100)
    >>> parts, _ = rlm.labels.divide(digits, seed=0)
    >>> block = rlm.labels.new_classifiers(rlm.labels.LabelsConfig(encoder="mlp"), digits, 10, [0])
    >>> table, labels = rlm.labels.tabulate(digits, [parts]), [rlm.labels.RandomLabels(0, len(parts.train), classes=10)]
    >>> memorised, history = rlm.labels.memorise(block, table, [parts], labels, shuffles=1, epochs=2, progress=False)
    >>> history[["seed", "shuffle", "shuffle_epoch"]].to_numpy().tolist()
    [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    """

    def deal() -> Labelled:
        drawn = [labels[row].draw(int(number)) for row, number in zip(rows, shuffle, strict=True)]
        mine = [parts[row].train for row in rows]
        return attach(
            table.rows(rows), trainer.block.seeds, mine, drawn, order="random_order"
        )  # not that of fine-tuning

    def judge(epoch: int, loss: Float[np.ndarray, " seed"]) -> pd.DataFrame:
        found = {"shuffle": shuffle, "shuffle_epoch": shuffle_epoch, "loss": loss}
        return per_seed(trainer.block, epoch, **found, accuracy=task.accuracy(trainer.block))

    together = until is None and len({len(one.train) for one in parts}) == 1
    trainer = Trainer(block, learning_rate, CrossEntropy(), optimizer=optimizer, synchronous=together)
    finished = {name: weight.clone() for name, weight in block.weights.items()}
    rows = np.arange(len(block.seeds))  # places in `block` of the seeds that the trainer still has
    shuffle, shuffle_epoch = np.zeros(len(rows), int), np.zeros(len(rows), int)
    task = deal()
    history = [judge(0, np.full(len(rows), np.nan))]
    with tqdm(total=shuffles * epochs, desc="memorising", unit="epoch", disable=not progress, leave=False) as bar:
        for epoch in range(1, shuffles * epochs + 1):
            loss = trainer.train(task.batches(epoch, batch_size))
            bar.update()
            shuffle_epoch = shuffle_epoch + 1
            history.append(judge(epoch, loss))
            is_over = shuffle_epoch == epochs
            if until is not None:
                is_over |= history[-1]["accuracy"].to_numpy() >= until
            if not is_over.any():
                continue
            is_done = is_over & (shuffle == shuffles - 1)
            for name, weight in trainer.block.weights.items():
                finished[name][rows[is_done]] = weight[is_done]
            if is_done.all():
                break
            stay = np.flatnonzero(~is_done)
            rows, is_over = rows[stay], is_over[stay]
            shuffle, shuffle_epoch = shuffle[stay] + is_over, np.where(is_over, 0, shuffle_epoch[stay])
            if is_done.any():
                trainer.keep(stay)
            trainer.adam.restart(np.flatnonzero(is_over))
            if new_head:
                _renew_heads(trainer, shuffle, is_over)
            task = deal()
            history.append(judge(epoch, np.full(len(rows), np.nan))[is_over])
    return dataclasses.replace(block, weights=finished), pd.concat(history, ignore_index=True)


def learn(
    block: Block,
    table: SampleTable,
    samples: Samples,
    parts: Sequence[Parts],
    labelled: Sequence[Rows],
    *,
    max_epochs: int = 50,
    patience: int = 10,
    optimizer: Optimizer | SGD = "adam",
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[Block, pd.DataFrame]:
    """Fine-tune on the true labels of the `labelled` training samples, as `rlm.finetune` does on triplets."""
    train, validation = (
        attach(table, block.seeds, rows, [samples.labels[mine] for mine in rows])
        for rows in (list(labelled), [one.validation for one in parts])
    )
    together = len(set(train.sizes)) == 1
    trainer = Trainer(block, learning_rate, CrossEntropy(), optimizer=optimizer, synchronous=together)
    data = _LabelData(train, validation, batch_size)
    return train_to_best(trainer, data, max_epochs=max_epochs, patience=patience, progress=progress)


@dataclasses.dataclass(frozen=True)
class _LabelData:
    train: Labelled
    validation: Labelled
    batch_size: int

    def batches(self, epoch: int) -> Iterator[Step]:
        return self.train.batches(epoch, self.batch_size)

    def validate(self, block: Block) -> dict[str, Float[np.ndarray, " seed"]]:
        return {"validation_accuracy": self.validation.accuracy(block)}

    def keep(self, rows: Int[np.ndarray, " row"]) -> "_LabelData":
        return _LabelData(self.train.keep(rows), self.validation.keep(rows), self.batch_size)


def _renew_heads(trainer: Trainer, shuffle: Int[np.ndarray, " seed"], is_over: Bool[np.ndarray, " seed"]) -> None:
    """Draw new heads for the seeds whose labels were shuffled, by the stream ``head`` of the seed and shuffle."""
    block = trainer.block
    head = copy.deepcopy(block.encoder.head).cpu()  # whose generator draws the same on any training device
    for place in np.flatnonzero(is_over):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(block.seeds[place], "head", int(shuffle[place])).integers(2**63)))
            head.reset_parameters()
        for name, weight in head.named_parameters():
            block.weights[f"head.{name}"][place] = weight.detach()
