"""One training step of a block of seeds: forward, backward and optimizer."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from torch.func import grad_and_value
from torch.nn import functional as F

from rlm.block import Block
from rlm.config import Optimizer, Precision
from rlm.data.phrases import PAD
from rlm.engine.accuracy import embed
from rlm.engine.batches import Batch, Step, distinct
from rlm.engine.compile import Replayed, fit, round_up, static_batch_sizes, try_to_compile
from rlm.engine.dropout import Dropout, mix
from rlm.engine.native import keep_freed_memory
from rlm.engine.optimizer import SGD, BlockAdam, BlockSGD
from rlm.engine.relevance import RelevanceMask
from rlm.errors import InputError
from rlm.seeding import stream


@runtime_checkable
class Criterion(Protocol):
    """What a block is trained to minimise: an `Objective`, cross-entropy, or the loss of a head."""

    needs_relevance: bool

    def __call__(
        self, embeddings: Tensor, targets: Tensor, weights: Tensor, relevant: Tensor | None = None
    ) -> Float[Tensor, " seed"]:
        """Return the loss of each seed; `weights` are those of its targets in the mean."""


class Trainer:
    """
    Trains a copy of a block's weights; `relevance` is required if the objective needs it.

    ``"rowwise_adam"`` gives the encoder a batch's own numbering of words, 0 for padding. ``"bf16"`` computes products
    in bfloat16, also where that is slower. `synchronous` is True if every seed has targets in every batch.
    """

    def __init__(
        self,
        block: Block,
        learning_rate: float,
        objective: Criterion,
        relevance: RelevanceMask | None = None,
        optimizer: Optimizer | SGD = "adam",
        precision: Precision = "fp32",
        *,
        synchronous: bool,
        weight_decay: float | int = 0.0,
        warmup: int = 0,
        clip: float | int | None = None,
    ) -> None:
        keep_freed_memory()
        self.objective = objective
        self.clip = clip
        self.relevance = relevance
        self.lower = precision == "bf16"
        trained = {name for name, parameter in block.encoder.named_parameters() if parameter.requires_grad}
        tables = word_tables(block.encoder)
        self.tables = tables if optimizer == "rowwise_adam" and tables <= trained else set()
        self.is_checked = not self.tables
        weights = {name: weight for name, weight in block.weights.items() if name in trained}
        how = synchronous, optimizer == "nadam", weight_decay, warmup
        self.adam = BlockAdam(weights, learning_rate, self.tables, *how)
        if isinstance(optimizer, SGD):
            self.adam = BlockSGD(weights, learning_rate, optimizer)
        kept = {name: weight if name in weights else weight.clone() for name, weight in block.weights.items()}
        self.frozen = dataclasses.replace(block, weights=kept)
        self.drops = _first_draws(block)
        self.vocabulary_size = max((block.weights[name].shape[1] for name in self.tables), default=0)
        self.batch_sizes: tuple[int, ...] = ()
        self.most_words = 0
        self.replayed: Replayed | None = None

    @property
    def block(self) -> Block:
        """The current block; its weights change with the next step."""
        return dataclasses.replace(self.frozen, weights=self.frozen.weights | self.adam.weights)

    def compile(self, sample: Iterable[Batch]) -> None:
        """Compile forward, backward and the tables' update into one graph; batches that do not fit it run without."""
        counts = [1]

        def counted() -> Iterator[Batch]:
            for batch in sample:
                if self.tables:
                    counts.append(_own_vocabulary(*batch.inputs, self.vocabulary_size)[0].shape[1])
                yield batch

        self.batch_sizes = static_batch_sizes(counted())
        # On a GPU words are not counted: there may be a different one in every place.
        self.most_words = round_up(max(counts)) if self.frozen.device.type == "cpu" else 1 + sum(self.batch_sizes)
        self.compiled = try_to_compile(self._gradients, self.frozen.device)
        self.replayed = Replayed() if self.frozen.device.type == "cuda" else None

    @property
    def largest_to_shrink_to(self) -> int:
        """Largest number of remaining seeds for which shrinking the block pays off: compiled, half of them."""
        seeds = len(self.frozen.seeds)
        if self.replayed is not None:  # a graph's step of 30 seeds takes twice as long as that of one, no longer
            return 0
        return seeds // 2 if self.batch_sizes else seeds - 1

    def keep(self, rows: Int[np.ndarray, " row"]) -> None:
        """Shrink the block to the seeds at these places, without compilation, which would have to be repeated."""
        self.adam.keep(rows)
        self.batch_sizes, self.replayed = (), None
        self.drops = {name: first[rows] for name, first in self.drops.items()}
        self.frozen = self.frozen.rows(rows)

    def train(self, batches: Iterable[Step]) -> Float[np.ndarray, " seed"]:
        """Take one step per batch; return each seed's mean loss over its targets, not finite if it has diverged."""
        total = torch.zeros(len(self.frozen.seeds), device=self.frozen.device)
        targets = np.zeros(len(self.frozen.seeds))
        for batch in batches:
            if not self.is_checked:
                self._check_numbering(batch)
            total += self._step(batch) * batch.mask.sum(dim=1)
            targets += batch.sizes
        return total.cpu().numpy() / targets

    def mean_loss(
        self, whole: Batch, embeddings: Float[Tensor, "seed phrase dim"], cuts: Iterable[Batch]
    ) -> Float[np.ndarray, " seed"]:
        """Compute each seed's mean loss of a batch with its embeddings; `cuts` are its parts of training's size."""
        objective = self.objective
        if self.relevance is None or not objective.needs_relevance:
            return objective(embeddings, whole.triplets, whole.weights).double().cpu().numpy()
        loss = torch.zeros(len(whole.sizes), device=embeddings.device)
        for batch in cuts:  # with phrases of its own batch, as in training
            share = batch.mask.sum(dim=1) / whole.mask.sum(dim=1)
            loss += share * objective(embed(self.block, batch), batch.triplets, batch.weights, self.relevance(batch))
        return loss.double().cpu().numpy()

    def _check_numbering(self, batch: Step) -> None:
        """Raise InputError for an encoder to which a word's number matters beyond its row in the tables."""
        inputs, *shape = batch.inputs
        words, own = _own_vocabulary(inputs, *shape, self.vocabulary_size)
        rows = {name: self.adam.find_rows(name, words) for name in self.tables}
        used = {name: F.embedding(rows[name], self.adam.tables[name]).unflatten(0, words.shape) for name in rows}
        block = self.block
        with torch.no_grad():
            expected = block.embed(inputs, *shape)
            found = dataclasses.replace(block, weights=block.weights | used).embed(own, *shape)
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise InputError(
                "expected an encoder that reads tokens only through its trained word vectors for the optimizer "
                f"rowwise_adam, found that renumbering the words of a batch changes {type(block.encoder).__name__}'s "
                "embeddings; use the optimizer adam"
            )
        self.is_checked = True

    def _step(self, batch: Step) -> Float[Tensor, " seed"]:
        present = [place for place, size in enumerate(batch.sizes) if size]
        fitted = fit(batch, self.batch_sizes) if self.batch_sizes and len(present) == len(batch.sizes) else None
        batch = fitted or batch
        relevant = self.relevance(batch) if self.relevance is not None and self.objective.needs_relevance else None
        inputs, *shape = batch.inputs
        update = partial(self._update, shape, present, fitted is not None)
        tensors = inputs, batch.targets, batch.weights, relevant
        return update(*tensors) if fitted is None or self.replayed is None else self.replayed(update, *tensors)

    def _update(
        self,
        shape: Sequence[Any],
        present: Sequence[int],
        is_fitted: bool,
        inputs: Tensor,
        targets: Int64[Tensor, "seed target *slot"],
        weights: Float[Tensor, "seed target"],
        relevant: Bool[Tensor, "seed phrase phrase"] | None,
    ) -> Float[Tensor, " seed"]:
        """Take one step in place, compiled if the inputs are fitted; `shape` are the other arguments of the encoder."""
        step, words, row_sizes = self.compiled if is_fitted else self._gradients, None, None
        self.adam.count(present)
        draws = {name: mix(first + self.adam.taken.long()) for name, first in self.drops.items()}
        if self.tables:
            words, inputs = _own_vocabulary(inputs, *shape, self.vocabulary_size)
            row_sizes = self.adam.row_sizes()
            if is_fitted and words.shape[1] <= self.most_words:
                words = F.pad(words, (0, self.most_words - words.shape[1]), value=self.vocabulary_size)
            else:
                step = self._gradients
        loss, gradients = step((inputs, *shape), words, row_sizes, targets, weights, relevant, draws)
        self.adam.step(gradients, present)
        return loss.detach()

    def _gradients(
        self,
        inputs: tuple[Any, ...],
        words: Int64[Tensor, "seed word"] | None,
        row_sizes: Float[Tensor, "2 seed"] | None,
        targets: Int64[Tensor, "seed target *slot"],
        weights: Float[Tensor, "seed target"],
        relevant: Bool[Tensor, "seed phrase phrase"] | None,
        draws: dict[str, Int64[Tensor, " seed"]],
    ) -> tuple[Float[Tensor, " seed"], dict[str, Tensor]]:
        """Compute losses and gradients, and update tables in place."""
        leaves, rows = dict(self.adam.dense), {}
        # The used rows replace the tables, so that nothing has the size of the vocabulary.
        for name, table in self.adam.tables.items():
            rows[name] = self.adam.find_rows(name, words)
            leaves[name] = F.embedding(rows[name], table).unflatten(0, words.shape)  # type: ignore[union-attr]

        def total(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            """Return the sum of all seeds' losses, and each seed's own."""
            block = dataclasses.replace(self.frozen, weights=self.frozen.weights | leaves | draws)
            with torch.autocast(targets.device.type, torch.bfloat16, enabled=self.lower, cache_enabled=False):
                embeddings = block.embed(*inputs)
            embeddings = embeddings.to(next(iter(leaves.values())).dtype)
            loss = self.objective(embeddings, targets, weights, relevant)
            return loss.sum(), loss

        # Seeds share no weight, so the gradient of the sum is every seed's own gradient.
        if torch.compiler.is_compiling():
            gradients, (_, loss) = grad_and_value(total, has_aux=True)(leaves)
        else:  # where torch.func would prepare second derivatives as well
            leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
            value, loss = total(leaves)
            gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            gradients = dict(zip(leaves, gradients, strict=True))
        if self.clip is not None:
            gradients = _clip(gradients, self.clip)
        for name in self.tables:
            self.adam.step_rows(name, rows[name], gradients.pop(name), row_sizes)
        return loss, gradients


def _first_draws(block: Block) -> dict[str, Int64[Tensor, " seed"]]:
    """Return what the draws of every `Dropout` of an encoder begin with, by the name of its buffer."""
    drops = [name for name, module in block.encoder.named_modules() if isinstance(module, Dropout) and module.p]
    streams = [stream(seed, "dropout") for seed in block.seeds]
    first = np.stack([one.integers(2**31, size=len(drops)) for one in streams], axis=1)
    names = [f"{name}.draw".lstrip(".") for name in drops]
    return dict(zip(names, torch.from_numpy(first).to(block.device), strict=True))


def _clip(gradients: dict[str, Tensor], most: float | int) -> dict[str, Tensor]:
    """Shorten each seed's gradient, over all its weights, to a norm, as ``torch.nn.utils.clip_grad_norm_`` does."""
    norms = torch.stack([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients.values()])
    shares = (most / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1)
    return {name: one * shares.view(-1, *[1] * (one.dim() - 1)) for name, one in gradients.items()}


def word_tables(encoder: nn.Module) -> set[str]:
    """Return the names of the weights with one row per word: those of the largest ``torch.nn.Embedding`` modules."""
    tables = {f"{name}.weight": module for name, module in encoder.named_modules() if isinstance(module, nn.Embedding)}
    rows = max((table.num_embeddings for table in tables.values()), default=0)
    return {name for name, table in tables.items() if table.num_embeddings == rows}


def _own_vocabulary(
    tokens: Int[Tensor, "seed phrase token"], batch_sizes: tuple[int, ...], vocabulary_size: int
) -> tuple[Int64[Tensor, "seed word"], Int64[Tensor, "seed phrase token"]]:
    """Return the different words of each seed's batch, the empty one first, and the tokens renumbered by them."""
    packed = [tokens[:, :rows, position] for position, rows in enumerate(batch_sizes)]
    empty = tokens.new_full((len(tokens), 1), PAD)
    words, places = distinct(torch.cat([empty, *packed], dim=1), vocabulary_size)
    if tokens.device.type == "cpu":  # elsewhere, to know how many there are would take a wait
        words = words[:, : int(places.max()) + 1]
    columns = places[:, 1:].split(batch_sizes, dim=1)
    phrases = tokens.shape[1]
    padded = [F.pad(column, (0, phrases - column.shape[1]), value=PAD) for column in columns]
    return words.long(), torch.stack(padded, dim=2)
