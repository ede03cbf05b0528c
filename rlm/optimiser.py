"""Adam for a block of seeds: every seed its own steps, word vectors all at once or only those that are used."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.optim.adam import adam

Optimizer = Literal["adam", "rowwise_adam"]
BETAS = 0.9, 0.999
EPS = 1e-8


class BlockAdam:
    """
    A block's weights, and the moments and step counts by which Adam changes them in place.

    Parameters
    ----------
    weights
        With a leading seed dimension; copied.
    learning_rate
        Step size.
    tables
        Names of the weights whose rows move only in steps that use them: a word that is absent from a step stays
        where it is, where Adam would let it coast on its moments, and the cost of a step does not grow with the
        vocabulary.
    in_unison
        Whether all seeds always step together. Then one call serves them all, otherwise each has its own.

    Attributes
    ----------
    weights
        The current ones.

    References
    ----------
    Kingma and Ba, "Adam", ICLR 2015, algorithm 1, by ``torch.optim.adam``; the tables as in
    ``torch.optim.SparseAdam``.
    """

    def __init__(
        self, weights: dict[str, Tensor], learning_rate: float, tables: Collection[str], in_unison: bool
    ) -> None:
        self.learning_rate = learning_rate
        self.in_unison = in_unison
        self.tables = tables
        self.dense = [name for name in weights if name not in tables]
        self.weights = {name: self._own(name, weight) for name, weight in weights.items()}
        self.means = {name: self._own(name, torch.zeros_like(weight)) for name, weight in weights.items()}
        self.squares = {name: self._own(name, torch.zeros_like(weight)) for name, weight in weights.items()}
        # A count per seed and weight, since PyTorch's function raises each that it is given.
        self.steps = {name: weight.new_zeros(len(weight)) for name, weight in weights.items()}

    def step(self, gradients: dict[str, Tensor], present: Sequence[int]) -> None:
        """
        Update all weights but the tables.

        Parameters
        ----------
        gradients
            By name of the weight.
        present
            The seeds that step; the others neither move nor count it.
        """
        parts: Sequence[int | slice] = [slice(None)] if self.in_unison else present

        def listed(tensors: dict[str, Tensor]) -> list[Tensor]:
            return [tensors[name][part] for part in parts for name in self.dense]

        adam(
            listed(self.weights),
            [gradient.contiguous() for gradient in listed(gradients)],  # fused, it takes no heed of strides
            listed(self.means),
            listed(self.squares),
            [],
            [steps if steps.dim() == 0 else steps[0] for steps in listed(self.steps)],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )

    def look_up(self, name: str, words: Int64[Tensor, "seed word"]) -> Float[Tensor, "seed word dim"]:
        """
        Rows of a table.

        Parameters
        ----------
        name
            Of the table.
        words
            Row numbers of each seed; the number of rows where there is none.

        Returns
        -------
        torch.Tensor
            A copy of these rows.
        """
        return _with_spare_row(self.weights[name])[self._flat(name, words)]

    def step_rows(
        self,
        name: str,
        words: Int64[Tensor, "seed word"],
        gradient: Float[Tensor, "seed word dim"],
        present: Sequence[int],
    ) -> None:
        """
        Update the used rows of a table, and only their moments.

        Parameters
        ----------
        name
            Of the table.
        words
            As in `look_up`, none twice.
        gradient
            Of these rows.
        present
            See `step`.
        """
        steps = self.steps[name]
        steps[slice(None) if self.in_unison else list(present)] += 1
        mean_rate, square_rate = (1 - beta for beta in BETAS)
        steps = steps.clamp(min=1)
        size = self.learning_rate * (1 - BETAS[1] ** steps).sqrt() / (1 - BETAS[0] ** steps)
        table, means, squares = (_with_spare_row(state[name]) for state in (self.weights, self.means, self.squares))
        flat = self._flat(name, words)
        mean = means[flat].lerp_(gradient, mean_rate)
        square = squares[flat].mul_(1 - square_rate).addcmul_(gradient, gradient, value=square_rate)
        means[flat] = mean
        squares[flat] = square
        table[flat] -= size[:, None, None] * mean / square.sqrt_().add_(EPS)

    def keep(self, rows: Int[np.ndarray, " row"]) -> None:
        """
        Go on with some of the seeds.

        Parameters
        ----------
        rows
            Their places.
        """
        for state in (self.weights, self.means, self.squares):
            for name, tensor in state.items():
                state[name] = self._own(name, tensor[rows])
        self.steps = {name: steps[rows] for name, steps in self.steps.items()}

    def _own(self, name: str, tensor: Tensor) -> Tensor:
        """A contiguous copy; behind that of a table lies a spare row, for what only fills up to write to."""
        if name not in self.tables:
            return tensor.clone(memory_format=torch.contiguous_format)
        storage = tensor.new_zeros(tensor.shape[0] * tensor.shape[1] + 1, tensor.shape[2])
        storage[:-1] = tensor.flatten(0, 1)
        return storage[:-1].view(tensor.shape)

    def _flat(self, name: str, words: Int64[Tensor, "seed word"]) -> Int64[Tensor, "seed word"]:
        seeds, rows, _ = self.weights[name].shape
        first = torch.arange(0, seeds * rows, rows, device=words.device)[:, None]
        return torch.where(words < rows, words + first, seeds * rows)


def _with_spare_row(table: Float[Tensor, "seed row dim"]) -> Float[Tensor, "rows dim"]:
    seeds, rows, dim = table.shape
    return table.as_strided((seeds * rows + 1, dim), (dim, 1))
