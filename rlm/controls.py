"""Controls: they keep scale or values of trained weights, and destroy what training put into them."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from rlm.block import Block
from rlm.errors import InputError
from rlm.seeding import stream
from rlm.variants import Arm

__all__ = ["rescale", "shuffle", "shuffle_change"]

Weights = Mapping[str, Tensor]
Control = Callable[[Weights, Weights, int], dict[str, Tensor]]


def rescale(initial: Weights, trained: Weights, seed: int = 0) -> dict[str, Tensor]:
    """
    Give initial weights the mean and standard deviation of the trained ones, tensor by tensor.

    This keeps what training gains by the scale of the weights alone. Weights whose initial values are all equal become
    the trained ones.

    Parameters
    ----------
    initial, trained
        State dicts of one module before and after training. Rows that training did not change stay as they are; so do
        tensors of integers.
    seed
        Not used, since nothing is drawn.

    Returns
    -------
    dict
        A new state dict.

    Raises
    ------
    InputError
        If the two do not have the same names and shapes.

    References
    ----------
    Maennel et al., "What do neural networks learn when trained with random labels?", NeurIPS 2020, arXiv 2006.10455,
    section 3.

    Examples
    --------
    >>> import rlm, torch
    >>> initial, trained = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    >>> control = rlm.controls.rescale(initial.state_dict(), trained.state_dict())
    >>> torch.allclose(control["weight"].std(), trained.weight.std())
    True
    """
    return _change_moved(initial, trained, seed, lambda before, after, _: _rescaled(before, after))


def shuffle(initial: Weights, trained: Weights, seed: int = 0) -> dict[str, Tensor]:
    """
    Put trained weights in random order inside each tensor.

    Parameters
    ----------
    initial, trained
        As in `rescale`.
    seed
        Owner of the stream ``shuffle``.

    Returns
    -------
    dict
        A new state dict.

    Raises
    ------
    InputError
        As in `rescale`.

    Examples
    --------
    >>> import rlm, torch
    >>> control = rlm.controls.shuffle({"weight": torch.zeros(4)}, {"weight": torch.tensor([1.0, 2, 3, 0])}, seed=1)
    >>> control["weight"].sort().values.tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    return _change_moved(initial, trained, seed, lambda before, after, rng: _permute(after, rng))


def shuffle_change(initial: Weights, trained: Weights, seed: int = 0) -> dict[str, Tensor]:
    """
    Add the change by training to the initial weights, in random order inside each tensor.

    Parameters
    ----------
    initial, trained, seed
        As in `shuffle`.

    Returns
    -------
    dict
        A new state dict.

    Raises
    ------
    InputError
        As in `rescale`.

    Examples
    --------
    >>> import rlm, torch
    >>> rlm.controls.shuffle_change({"bias": torch.ones(2)}, {"bias": torch.tensor([3.0, 3.0])})
    {'bias': tensor([3., 3.])}
    """
    return _change_moved(initial, trained, seed, lambda before, after, rng: before + _permute(after - before, rng))


# From initial and pre-trained weights to the start of fine-tuning, for arms that do not start from the latter.
CONTROLS: dict[Arm, Control] = {"rescaled": rescale, "shuffled": shuffle, "shuffled_change": shuffle_change}


def control_block(control: Control, initial: Block, trained: Block) -> Block:
    """Apply a control to every seed of a block."""
    rows = [
        control(*({name: weight[row] for name, weight in one.weights.items()} for one in (initial, trained)), seed)
        for row, seed in enumerate(trained.seeds)
    ]
    return dataclasses.replace(trained, weights={name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def check_weights(expected: Weights, found: Weights, what: str) -> None:
    """Raise InputError unless two state dicts have the same names and shapes."""
    shapes = [{name: list(weight.shape) for name, weight in one.items()} for one in (expected, found)]
    for name in dict.fromkeys([*expected, *found]):
        mine, theirs = (shape.get(name, "none") for shape in shapes)
        if mine != theirs:
            raise InputError(f"expected {name} of shape {mine} in {what}, found {theirs}; give weights of one module")


def _rescaled(before: Tensor, after: Tensor) -> Tensor:
    (spread, mean), (wanted, centre) = (torch.std_mean(one.double(), correction=0) for one in (before, after))
    return after if spread == 0 else ((before.double() - mean) / spread * wanted + centre).to(after.dtype)


def _permute(weights: Tensor, rng: np.random.Generator) -> Tensor:
    return weights.flatten()[torch.from_numpy(rng.permutation(weights.numel())).to(weights.device)].view_as(weights)


def _change_moved(
    initial: Weights, trained: Weights, seed: int, change: Callable[[Tensor, Tensor, np.random.Generator], Tensor]
) -> dict[str, Tensor]:
    """Change the rows of each weight that training moved; a word it never read keeps its vector in every arm."""
    check_weights(initial, trained, "the trained weights")
    rng, changed = stream(seed, "shuffle"), {}
    for name, after in trained.items():
        before, changed[name] = initial[name], after.clone()
        is_moved = (before != after).reshape(len(after), -1).any(dim=1) if after.ndim else before != after
        if after.is_floating_point() and is_moved.any():
            changed[name][is_moved] = change(before[is_moved], after[is_moved], rng)
    return changed
