"""Pre-training on random triplets and fine-tuning on real ones, for a block of seeds at once."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm.auto import trange

from rlm.block import Block
from rlm.config import Recipe, StopBy
from rlm.engine.accuracy import embed, mean_distance, triplet_accuracy
from rlm.engine.batches import (
    Batch,
    PhraseTable,
    Source,
    Step,
    cut,
    epoch_batches,
    for_seeds,
    one_batch,
    one_per_seed,
)
from rlm.engine.compile import is_worth_compiling
from rlm.engine.relevance import RelevanceMask
from rlm.engine.trainer import Trainer
from rlm.sampler import RandomTriplets, RealTriplets, triplets_per_pair
from rlm.sentences import ON_COLLAPSE
from rlm.slicer import Slices
from rlm.stats.tables import COLLAPSED, find_collapse
from rlm.variants import Redraw
from rlm.zoo.losses import make_objective

DIAGNOSED_TRIPLETS = 10_000
log = logging.getLogger(__name__)


def pretrain(
    block: Block,
    slices: Slices | Sequence[Slices],
    recipe: Recipe = Recipe(),  # noqa: B008
    *,
    epochs: int = 10,
    random_triplets: int | None = None,
    redraw: Redraw = "epoch",
    progress: bool = True,
) -> tuple[Block, pd.DataFrame]:
    """
    Train on random triplets, drawn from the components of the training triplets or from unlabelled texts.

    Parameters
    ----------
    block
        Where to start from; not changed.
    slices
        One for all seeds, or one per seed. With unlabelled texts the encoders also learn their words, so that
        ``slices.after_pretraining`` are those to fine-tune and to evaluate them on.
    recipe
        Settings. ``batching="grouped"``: as many triplets as a pair has negatives share a random anchor and positive.
    epochs
        0 returns the block unchanged.
    random_triplets
        Random triplets per epoch; by default as many as there are training triplets, or texts, but at most
        ``recipe.epoch_triplets``.
    redraw
        ``"epoch"`` or ``"once"``, see `RandomTriplets`.
    progress
        Show a progress bar.

    Returns
    -------
    Block
        The pre-trained encoders.
    pandas.DataFrame
        One row per seed and epoch (0 is before the first): seed, epoch, loss and seen_accuracy on at most 10,000 of the
        epoch's triplets after the epoch, unseen_accuracy on as many others, spread (mean squared distance of phrases).

    Raises
    ------
    InputError
        If the slices do not match the seeds, or embeddings are not in the range that the loss requires.

    Notes
    -----
    An encoder that maps all phrases to one point has a loss of exactly the margin, an accuracy of one half and no
    spread. A falling loss alone shows nothing, because shrinking all distances lowers it. Memorising shows as
    seen_accuracy above unseen_accuracy, which can exceed one half, because some phrases are mostly positives.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size), seeds=[0, 1])
    >>> block, history = rlm.pretrain(block, slices, epochs=1, random_triplets=1000, progress=False)
    >>> history[["seed", "epoch"]].to_numpy().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    mine = [one.after_pretraining for one in one_per_seed(block, slices)]
    settings = {"epochs": [epochs], "random_triplets": random_triplets, "redraw": redraw, "progress": progress}
    ((trainer, history),) = train_on_random(block, mine, recipe, **settings)
    return trainer.block, history


def train_on_random(
    block: Block,
    mine: Sequence[Slices],
    recipe: Recipe,
    *,
    epochs: Sequence[int],
    random_triplets: int | None,
    redraw: Redraw,
    progress: bool,
) -> Iterator[tuple[Trainer, pd.DataFrame]]:
    """Do the same as `pretrain`, up to each number of epochs; yield the trainer, which has block and moments."""
    table = PhraseTable(mine, block.device)

    def make(one: Slices) -> RandomTriplets:
        most = len(one.components.anchors)
        size = random_triplets or min(most, recipe.epoch_triplets or most)
        per_pair = 1 if recipe.batching == "flat" else triplets_per_pair(one.train)
        return RandomTriplets(one.components, 0, size, redraw, per_pair, block.device)

    sources = for_seeds(make, mine, block.seeds)
    trainer = _make_trainer(block, recipe, RelevanceMask(device=block.device), sources, table, epochs[-1])
    history = [_diagnose(trainer, sources, table, recipe.batch_size, 0)]
    bar = {"desc": "pre-training", "unit": "epoch", "disable": not progress, "leave": False}
    for end in epochs:
        for epoch in trange(len(history), end + 1, **bar):
            trainer.train(epoch_batches(sources, table, epoch, recipe.batch_size))
            history.append(_diagnose(trainer, sources, table, recipe.batch_size, epoch))
        yield trainer, pd.concat(history, ignore_index=True)


def finetune(
    block: Block,
    slices: Slices | Sequence[Slices],
    recipe: Recipe = Recipe(),  # noqa: B008
    *,
    max_epochs: int = 50,
    patience: int = 20,
    stop_by: StopBy = "accuracy",
    progress: bool = True,
    after: Trainer | None = None,
) -> tuple[Block, pd.DataFrame]:
    """
    Train on the real triplets until each seed's validation accuracy stops rising, or its validation loss falling.

    Parameters
    ----------
    block, slices, recipe
        As in `pretrain`.
    max_epochs
        Maximum number of epochs.
    patience
        A seed stops after this many epochs without a new best.
    stop_by
        What is best: the highest ``"accuracy"`` of the validation triplets or their lowest mean ``"loss"``.
    progress
        As in `pretrain`.
    after
        Trainer of the same recipe, see `train_on_random`, whose moments to continue with; by default they are zero.

    Returns
    -------
    Block
        Each seed with the weights of its best epoch, the earliest of equals; epoch 0, before any step, counts.
    pandas.DataFrame
        One row per seed and epoch it was trained for: seed, epoch, loss (mean over the epoch's steps; missing
        for epoch 0), validation_accuracy, relative_spread (mean squared distance of validation phrases as a share
        of the first, or of a smaller margin of embeddings of any length) and, if it decides, validation_loss. A seed
        stops at the first loss that is not finite.

    Raises
    ------
    InputError
        As `pretrain`.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size), seeds=[0, 1])
    >>> best, history = rlm.finetune(block, slices, rlm.Recipe(learning_rate=0.01), max_epochs=1, progress=False)
    >>> bool(history["validation_accuracy"].max() > 0.5)
    True
    """
    mine = one_per_seed(block, slices)

    def make(one: Slices) -> RealTriplets:
        return RealTriplets(one.train, 0, recipe.epoch_triplets, recipe.batching, block.device)

    sources = for_seeds(make, mine, block.seeds)
    data = _TripletData(sources, mine, recipe.batch_size)
    relevance, epochs = RelevanceMask(mine[0].relevance, block.device), min(max_epochs, 2 * patience)
    trainer = _make_trainer(block, recipe, relevance, sources, data.table, epochs)
    objective = trainer.objective
    if objective.margin and not objective.output:
        data.full_spread = objective.margin  # embeddings of any length may shrink that far
    if stop_by == "loss":
        data.trainer = trainer
    if after is not None:
        trainer.adam.resume(after.adam)
    if objective.output:
        objective.check(embed(block, data.validation), data.validation.tokens)
    return train_to_best(trainer, data, max_epochs=max_epochs, patience=patience, progress=progress)


@runtime_checkable
class TrainingData(Protocol):
    """What a block of seeds is trained on and judged by."""

    def batches(self, epoch: int) -> Iterable[Step]:
        """Return the training steps of an epoch."""

    def validate(self, block: Block) -> dict[str, Float[np.ndarray, " seed"]]:
        """Compute each seed's validation_accuracy and, if the lowest is best, its validation_loss."""

    def keep(self, rows: Int[np.ndarray, " row"]) -> "TrainingData":
        """Return the data of the seeds at these places."""


def train_to_best(
    trainer: Trainer, data: TrainingData, *, max_epochs: int, patience: int, progress: bool
) -> tuple[Block, pd.DataFrame]:
    """Train until each seed's validation loss stops falling, else its accuracy rising; return what `finetune` does."""
    block = trainer.block
    best = {name: weight.clone() for name, weight in block.weights.items()}
    best_score, best_epoch = np.full(len(block.seeds), -np.inf), np.zeros(len(block.seeds), int)
    is_running = np.ones(len(block.seeds), bool)
    history, rows = [], np.arange(len(block.seeds))  # places in `block` of the seeds that the trainer still has
    for epoch in trange(max_epochs + 1, desc="fine-tuning", unit="epoch", disable=not progress, leave=False):
        mean_loss = trainer.train(data.batches(epoch)) if epoch else np.full(len(rows), np.nan)
        found = data.validate(trainer.block)
        score = -found["validation_loss"] if "validation_loss" in found else found["validation_accuracy"]
        history.append(per_seed(trainer.block, epoch, loss=mean_loss, **found)[is_running[rows]])
        if "relative_spread" in found:
            _warn_of_collapse(history)
        is_better = is_running[rows] & (score > best_score[rows])  # NaN is never better
        improved = rows[is_better]
        best_score[improved], best_epoch[improved] = score[is_better], epoch
        for name, weight in trainer.block.weights.items():
            best[name][improved] = weight[is_better]
        diverged = rows[is_running[rows] & ~np.isfinite(mean_loss)] if epoch else rows[:0]
        if len(diverged):
            seeds = [block.seeds[row] for row in diverged]
            log.warning("seed(s) %s diverged: the loss is not finite; lower learning_rate", seeds)
        is_running &= epoch - best_epoch < patience
        is_running[diverged] = False
        if not is_running.any():
            break
        remaining = np.flatnonzero(is_running[rows])
        if len(remaining) <= trainer.largest_to_shrink_to:
            rows = rows[remaining]
            trainer.keep(remaining)
            data = data.keep(remaining)
    return dataclasses.replace(block, weights=best), pd.concat(history, ignore_index=True)


def _warn_of_collapse(history: Sequence[pd.DataFrame]) -> None:
    """Name the seeds whose second epoch without any spread has just ended."""
    last = history[-1].set_index("seed")
    if not last["relative_spread"].min() < COLLAPSED:
        return
    since = find_collapse(pd.concat([history[0], *history[1:][-3:]]))
    for seed in since.index[since == last["epoch"].iloc[0] - 1]:
        told = "seed %d collapsed: since epoch %d distances between phrases are %.2g of the first ones; %s"
        log.warning(told, seed, since[seed], np.sqrt(last.at[seed, "relative_spread"]), ON_COLLAPSE)


def per_seed(block: Block, epoch: int, **columns: np.ndarray | Sequence[float]) -> pd.DataFrame:
    """Return rows of a history, one per seed: seed, epoch and the columns."""
    return pd.DataFrame({"seed": block.seeds, "epoch": epoch} | columns)


class _TripletData:
    """Triplets of fine-tuning; the validation loss, which needs the trainer, decides if it has one."""

    def __init__(
        self, sources: Sequence[RealTriplets], slices: Sequence[Slices], batch_size: int, trainer: Trainer | None = None
    ) -> None:
        self.sources, self.slices, self.batch_size, self.trainer = sources, slices, batch_size, trainer
        self.full_spread: Float[np.ndarray, " seed"] | float | int = np.inf  # at most, before the first epoch
        self.table = PhraseTable(slices, sources[0].triplets.device)
        self.triplets = [torch.from_numpy(one.validation).to(self.table.device) for one in slices]
        self.validation = one_batch(self.triplets, self.table)

    def batches(self, epoch: int) -> Iterator[Batch]:
        return epoch_batches(self.sources, self.table, epoch, self.batch_size)

    def validate(self, block: Block) -> dict[str, Float[np.ndarray, " seed"]]:
        embeddings = embed(block, self.validation)
        spread = mean_distance(embeddings, self.validation)
        if np.ndim(self.full_spread) == 0:
            self.full_spread = np.where(spread > 0, spread, np.nan).clip(max=self.full_spread)
        accuracy = triplet_accuracy(embeddings, self.validation)
        found = {"validation_accuracy": accuracy, "relative_spread": spread / self.full_spread}
        if self.trainer is not None:
            cuts = cut(self.triplets, self.table, self.batch_size)
            found["validation_loss"] = self.trainer.mean_loss(self.validation, embeddings, cuts)
        return found

    def keep(self, rows: Int[np.ndarray, " row"]) -> "_TripletData":
        sources, slices = ([some[row] for row in rows] for some in (self.sources, self.slices))
        kept = _TripletData(sources, slices, self.batch_size, self.trainer)
        kept.full_spread = np.asarray(self.full_spread)[rows]
        return kept


def _make_trainer(
    block: Block, recipe: Recipe, relevance: RelevanceMask, sources: Sequence[Source], table: PhraseTable, epochs: int
) -> Trainer:
    objective, is_even = make_objective(recipe.loss, recipe.margin, recipe.mining), len(set(map(len, sources))) == 1
    settings = recipe.model_dump(include={"optimizer", "precision", "weight_decay", "warmup", "clip"})
    trainer = Trainer(block, recipe.learning_rate, objective, relevance, synchronous=is_even, **settings)
    planned = epochs * sum(map(len, sources))
    is_long = recipe.compile is None and is_worth_compiling(block, planned, table.tokens[0].shape[1])
    if recipe.compile or is_long:
        log.info("compiled steps for at most %d triplets", planned)
        trainer.compile(epoch_batches(sources, table, 1, recipe.batch_size))
    return trainer


def _diagnose(
    trainer: Trainer, sources: Sequence[RandomTriplets], table: PhraseTable, batch_size: int, epoch: int
) -> pd.DataFrame:
    """Measure pre-training after an epoch; epoch 0 is judged by the triplets of epoch 1."""
    block, objective = trainer.block, trainer.objective
    epoch_drawn = max(epoch, 1)
    # Spread over the epoch, because the last triplets are remembered best.
    paired = [
        (one, torch.arange(0, len(one), -(-len(one) // DIAGNOSED_TRIPLETS), device=block.device)) for one in sources
    ]
    triplets = [source.draw(epoch_drawn, index) for source, index in paired]
    seen = one_batch(triplets, table)
    unseen = one_batch([source.draw(epoch_drawn, len(source) + index) for source, index in paired], table)
    embeddings = embed(block, seen)
    if epoch == 0:
        objective.check(embeddings, seen.tokens)
    return per_seed(
        block,
        epoch,
        loss=trainer.mean_loss(seen, embeddings, cut(triplets, table, batch_size)),
        seen_accuracy=triplet_accuracy(embeddings, seen),
        unseen_accuracy=triplet_accuracy(embed(block, unseen), unseen),
        spread=mean_distance(embeddings, seen),
    )
