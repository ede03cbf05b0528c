"""Adam and SGD for a block of seeds, each with its own steps; word vectors all at once or only those that are used."""

from collections.abc import Collection, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.optim.adam import adam
from torch.optim.nadam import nadam
from torch.optim.sgd import sgd

from rlm.engine.native import call

BETAS = 0.9, 0.999
EPS = 1e-8
MOMENTUM_DECAY = 4e-3


class BlockAdam:
    """
    A copy of a block's weights, and the moments and step counts by which Adam changes them in place.

    Rows of `tables` move only in steps that use them, so the cost of a step does not grow with the vocabulary. One call
    serves all `synchronous` seeds, which always step together; otherwise each has its own. Kingma and Ba, "Adam", ICLR
    2015, algorithm 1, by ``torch.optim.adam``; the tables as in ``torch.optim.SparseAdam``. With `nesterov`: Dozat,
    "Incorporating Nesterov momentum into Adam", 2016, by ``torch.optim.NAdam``, which has the formula of Keras's Nadam.
    `weight_decay` is that of ``torch.optim.AdamW``: Loshchilov and Hutter, "Decoupled weight decay regularization",
    ICLR 2019, algorithm 2. In its first `warmup` steps, a seed moves by a rising share of what it would move otherwise.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        learning_rate: float,
        tables: Collection[str],
        synchronous: bool,
        nesterov: bool = False,
        weight_decay: float | int = 0.0,
        warmup: int = 0,
    ) -> None:
        self.learning_rate, self.nesterov = learning_rate, nesterov
        self.weight_decay, self.warmup = weight_decay, warmup
        self.synchronous = synchronous
        self.tables = {name: _with_spare_row(weights[name]) for name in tables}
        self.table_moments = {
            name: (torch.zeros_like(table), torch.zeros_like(table)) for name, table in self.tables.items()
        }
        dense = {name: weight for name, weight in weights.items() if name not in tables}
        self.dense = {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in dense.items()}
        self.means, self.squares = (
            {name: torch.zeros_like(weight) for name, weight in self.dense.items()} for _ in "12"
        )
        # A count per seed and weight, since PyTorch's function raises each that it is given.
        self.steps = {name: weight.new_zeros(len(weight)) for name, weight in self.dense.items()}
        self.products = {name: torch.ones_like(steps) for name, steps in self.steps.items()}  # of Nadam's momenta
        some = next(iter(weights.values()))
        self.taken = some.new_zeros(len(some))  # steps of each seed

    @property
    def weights(self) -> dict[str, Tensor]:
        """The current weights; the next step changes their content."""
        seeds = len(self.taken)
        return self.dense | {name: table[:-1].unflatten(0, (seeds, -1)) for name, table in self.tables.items()}

    def count(self, present: Sequence[int]) -> None:
        """Count a step of the seeds that are `present`; it comes before the update."""
        is_everyone = self.synchronous or len(present) == len(self.taken)
        self.taken[slice(None) if is_everyone else list(present)] += 1

    @property
    def share(self) -> Float[Tensor, " seed"]:
        """What warm-up leaves of each seed's learning rate, linear as in ``torch.optim.lr_scheduler.LinearLR``."""
        return (self.taken / max(self.warmup, 1)).clamp(max=1)

    def step(self, gradients: dict[str, Tensor], present: Sequence[int]) -> None:
        """Update all weights but the tables, of the seeds that are `present`; the others do not count the step."""
        # A graph of CUDA repeats what it once did; to ask it would also be a wait.
        is_warming = self.warmup and (self.taken.is_cuda or bool((self.taken < self.warmup).any()))
        before = {name: weight.clone() for name, weight in self.dense.items()} if is_warming else {}
        parts: Sequence[int | slice] = [slice(None)] if self.synchronous else present
        weights, slopes, means, squares, steps, products = (
            [tensors[name][part] for part in parts for name in self.dense]
            for tensors in (self.dense, gradients, self.means, self.squares, self.steps, self.products)
        )
        slopes = [gradient.contiguous() for gradient in slopes]  # the fused kernel ignores strides
        if self.weight_decay:
            for weight in weights:
                weight.mul_(1 - self.learning_rate * self.weight_decay)
        steps, products = ([one if one.dim() == 0 else one[0] for one in counts] for counts in (steps, products))
        settings = {"beta1": BETAS[0], "beta2": BETAS[1], "lr": self.learning_rate, "weight_decay": 0.0, "eps": EPS}
        if self.nesterov:
            settings |= {"momentum_decay": MOMENTUM_DECAY, "capturable": steps[0].is_cuda}
            nadam(weights, slopes, means, squares, products, steps, **settings)
        else:
            adam(weights, slopes, means, squares, [], steps, fused=True, amsgrad=False, maximize=False, **settings)
        for name, old in before.items():  # a step is linear in the learning rate, of which PyTorch takes one for all
            share = self.share.view(-1, *[1] * (old.dim() - 1))
            self.dense[name].copy_(old.lerp(self.dense[name], share))

    def find_rows(self, name: str, words: Int64[Tensor, "seed word"]) -> Int64[Tensor, " row"]:
        """Return the rows of ``tables[name]`` that hold each seed's words; an unused slot gets the spare row."""
        seeds = len(words)
        spare = len(self.tables[name]) - 1
        rows = spare // seeds
        first = torch.arange(0, spare, rows, device=words.device)[:, None]
        return torch.where(words < rows, words + first, spare).flatten()

    def row_sizes(self) -> Float[Tensor, "2 seed"]:
        """Return each seed's step size in tables, whose powers a compiler would repeat per row, and share of decay."""
        steps, rates = self.taken.clamp(min=1), self.learning_rate * self.share
        return torch.stack(
            [rates * (1 - BETAS[1] ** steps).sqrt() / (1 - BETAS[0] ** steps), rates * self.weight_decay]
        )

    def step_rows(
        self,
        name: str,
        rows: Int64[Tensor, " row"],
        gradient: Float[Tensor, "seed word dim"],
        sizes: Float[Tensor, "2 seed"],
    ) -> None:
        """Update the used rows of a table and their moments; only the spare row, without gradient, may repeat."""
        table, (means, squares) = self.tables[name], self.table_moments[name]
        kinds = {table.dtype, gradient.dtype, sizes.dtype}
        if table.device.type == "cpu" and kinds == {torch.float32} and not torch.compiler.is_compiling():
            tensors = table, means, squares, rows, gradient.contiguous(), *sizes.contiguous().unbind()
            if call("step_rows", *tensors, *gradient.shape, 1 - BETAS[0], 1 - BETAS[1], EPS):
                return
        # F.embedding moves whole rows, several times faster than indexing does.
        mean, square, weight = (F.embedding(rows, part).view_as(gradient) for part in (means, squares, table))
        mean = mean.lerp(gradient, 1 - BETAS[0])
        square = square.lerp(gradient.square(), 1 - BETAS[1])
        step, decay = sizes[..., None, None]
        weight = weight - decay * weight if self.weight_decay else weight
        weight = weight - step * mean / (square.sqrt() + EPS)
        for part, updated in ((means, mean), (squares, square), (table, weight)):
            part.index_copy_(0, rows, updated.flatten(0, 1))

    def restart(self, rows: Int[np.ndarray, " row"]) -> None:
        """Reset moments and step counts of the seeds at these places (all seeds, if they are synchronous)."""
        for tensors in (self.means, self.squares, self.steps):
            for tensor in tensors.values():
                tensor[rows] = 0
        for product in self.products.values():
            product[rows] = 1
        self.taken[rows] = 0
        for moment in chain.from_iterable(self.table_moments.values()):
            moment[:-1].unflatten(0, (len(self.taken), -1))[rows] = 0

    def resume(self, other: "BlockAdam") -> None:
        """Continue with the moments and step counts of another optimizer of the same seeds and weights."""
        counted = [0] * len(self.taken) if other.synchronous else list(range(len(self.taken)))
        for name in self.dense:
            self.means[name].copy_(other.means[name])
            self.squares[name].copy_(other.squares[name])
            self.steps[name].copy_(other.steps[name][counted])
            self.products[name].copy_(other.products[name][counted])
        for name, moments in self.table_moments.items():
            for mine, theirs in zip(moments, other.table_moments[name], strict=True):
                mine.copy_(theirs)
        self.taken.copy_(other.taken)
        self.synchronous = self.synchronous and other.synchronous  # else the first seed's count would be that of all

    def keep(self, rows: Int[np.ndarray, " row"]) -> None:
        """Keep only the seeds at these places."""
        seeds = len(self.taken)

        def kept(table: Tensor) -> Tensor:
            return _with_spare_row(table[:-1].unflatten(0, (seeds, -1))[rows])

        self.tables = {name: kept(table) for name, table in self.tables.items()}
        self.table_moments = {name: (kept(mean), kept(square)) for name, (mean, square) in self.table_moments.items()}
        for tensors in (self.dense, self.means, self.squares):
            tensors.update({name: tensor[rows].contiguous() for name, tensor in tensors.items()})
        # Of synchronous seeds, PyTorch counts for the first only.
        counted = np.zeros_like(rows) if self.synchronous else rows
        self.steps = {name: steps[counted] for name, steps in self.steps.items()}
        self.products = {name: products[counted] for name, products in self.products.items()}
        self.taken = self.taken[rows]


class SGD(NamedTuple):
    """
    Stochastic gradient descent with momentum and weight decay, by the formulas of ``torch.optim.SGD``.

    Attributes
    ----------
    momentum
        Share of the last step that the next one keeps, from 0 to less than 1.
    weight_decay
        Factor of each weight that is added to its gradient, from 0.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.SGD(momentum=0.9)
    SGD(momentum=0.9, weight_decay=0.0)
    """

    momentum: float = 0.0
    weight_decay: float = 0.0


class BlockSGD(BlockAdam):
    """A copy of a block's weights, all dense, that SGD changes in place; `means` are its momentum buffers."""

    def __init__(self, weights: dict[str, Tensor], learning_rate: float, settings: SGD) -> None:
        super().__init__(weights, learning_rate, tables=(), synchronous=False)
        self.settings = settings

    def step(self, gradients: dict[str, Tensor], present: Sequence[int]) -> None:
        weights, slopes, velocities = (
            [tensors[name][place] for place in present for name in self.dense]
            for tensors in (self.dense, gradients, self.means)
        )
        settings = self.settings._asdict() | {"lr": self.learning_rate, "dampening": 0.0}
        sgd(weights, slopes, velocities, nesterov=False, maximize=False, **settings)


def _with_spare_row(table: Float[Tensor, "seed row dim"]) -> Float[Tensor, "rows dim"]:
    """Return the rows of all seeds, followed by one that padding may write to."""
    return F.pad(table.flatten(0, 1), (0, 0, 0, 1))
