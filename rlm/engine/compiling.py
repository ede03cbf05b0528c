"""Compilation of a training step: static shapes, so that one graph serves a whole run."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.nn import functional as F

from rlm.engine.batches import Batch

# A graph has a piece for each position, so compiling takes longer the longer the phrases are: for LSTMs 20 s where they
# have 6 words and nothing is cached, 90 s where they have 32. So many triplets win that back.
WON_BACK_AFTER = 4_000_000
PLUS_PER_POSITION = 200_000
MOST_POSITIONS = 32
SAMPLED_BATCHES = 1000
ROUNDED_TO = 8


def is_worth_compiling(triplets: int, positions: int) -> bool:
    """
    Whether a run is long enough, and its phrases are short enough, to compile its steps.

    Parameters
    ----------
    triplets
        That the block will be trained on.
    positions
        Tokens of the longest phrase; beyond 32 the graph would be too long.

    Returns
    -------
    bool
        Decided by measurement, see ``docs/performance.md``.
    """
    return positions <= MOST_POSITIONS and triplets >= WON_BACK_AFTER + PLUS_PER_POSITION * positions


def static_batch_sizes(batches: Iterable[Batch]) -> tuple[int, ...]:
    """
    Batch sizes that hold for (nearly) all batches of a run.

    Parameters
    ----------
    batches
        A sample of them; at most 1,000 are looked at.

    Returns
    -------
    tuple of int
        For each position the largest number of phrases that reach it, rounded up.
    """
    sizes: list[int] = []
    for batch in islice(batches, SAMPLED_BATCHES):
        sizes += [0] * (len(batch.batch_sizes) - len(sizes))
        sizes[: len(batch.batch_sizes)] = map(max, sizes, batch.batch_sizes)
    return tuple(map(round_up, sizes))


def round_up(size: int) -> int:
    """
    Leave a static size some room.

    Parameters
    ----------
    size
        The largest that was seen.

    Returns
    -------
    int
        The next multiple of 8.
    """
    return -(-size // ROUNDED_TO) * ROUNDED_TO


def fit(batch: Batch, batch_sizes: tuple[int, ...]) -> Batch | None:
    """
    Bring a batch to static shapes.

    Parameters
    ----------
    batch
        As it comes.
    batch_sizes
        From `static_batch_sizes`.

    Returns
    -------
    Batch or None
        Filled up with empty phrases; none if it is larger somewhere.
    """
    if len(batch.batch_sizes) > len(batch_sizes) or any(map(int.__gt__, batch.batch_sizes, batch_sizes)):
        return None
    missing = len(batch_sizes) - batch.tokens.shape[2], batch_sizes[0] - batch.tokens.shape[1]
    tokens = F.pad(batch.tokens, (0, missing[0], 0, missing[1]))
    phrases = F.pad(batch.phrases, (0, missing[1]))
    return dataclasses.replace(
        batch, phrases=phrases, tokens=tokens, batch_sizes=batch_sizes, triplets=batch.triplets.contiguous()
    )


def try_to_compile(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """
    Compile a function; it runs uncompiled, with one warning, where that turns out to be impossible.

    Parameters
    ----------
    function
        Of tensors with static shapes.
    device
        Of the tensors; on a GPU its kernels are launched together, as one CUDA graph.

    Returns
    -------
    callable
        Does what `function` does.
    """
    if _why_not(device):
        return function
    function = _renewed(function)
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: Callable[..., Any] | None = torch.compile(function, dynamic=False, fullgraph=True, mode=mode)

    def run(*arguments: Any) -> Any:  # noqa: ANN401
        nonlocal compiled
        if compiled is None:
            return function(*arguments)
        try:
            with torch.no_grad():  # gradients are taken within
                return compiled(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an encoder is anybody's code; what fails uncompiled as well fails below
            compiled = None
            _warn(error)
            return function(*arguments)

    return run


def _renewed(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Copy a function with its code.

    PyTorch keeps graphs, and counts recompilations against its limit, by code object: another block's would count as
    well. `torch.compiler.reset` would drop the graphs of the whole process, which may have others than ours.
    """
    if isinstance(function, MethodType):
        return MethodType(_renewed(function.__func__), function.__self__)
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace()
    copied = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


@cache
def _why_not(device: torch.device) -> str | None:
    """What keeps even the smallest function from being compiled, such as that there is no C++ compiler; said once."""
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # of whatever lies between PyTorch and a compiler
        return _warn(error)
    return None


def _warn(error: Exception) -> str:
    first, _, rest = str(error).strip().partition("\n")
    reason = f"{first} {rest.partition(chr(10))[0]}" if first.endswith(":") else first
    warnings.warn(f"training goes on without compilation, which failed: {reason}", stacklevel=3)
    return reason
