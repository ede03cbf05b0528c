"""Compilation of a training step: static shapes, so that one graph serves a whole run."""

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import islice
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlm.block import Block
from rlm.engine import native
from rlm.engine.batches import Batch
from rlm.engine.lstm import PackedLSTM

# A graph has a piece for each position, so compiling takes longer the longer the phrases are. This many triplets win
# that back (docs/performance.md).
BREAK_EVEN_TRIPLETS = 4_000_000
BREAK_EVEN_PER_TOKEN = 200_000
MAX_TOKENS_COMPILED, MAX_TOKENS_WITH_PASSES = 32, 8
SAMPLED_BATCHES = 1000
ROUNDED_TO = 8
CALLS_BEFORE_CAPTURE = 4


def is_worth_compiling(block: Block, triplets: int, tokens: int) -> bool:
    """Return True if a block trains on enough triplets, of short enough phrases, by steps that gain by compilation."""
    is_lstm = any(isinstance(module, PackedLSTM) for module in block.encoder.modules())
    has_passes = is_lstm and block.device.type == "cpu" and native.is_there()  # nearly as fast, without a wait
    most = MAX_TOKENS_WITH_PASSES if has_passes else MAX_TOKENS_COMPILED
    return tokens <= most and triplets >= BREAK_EVEN_TRIPLETS + BREAK_EVEN_PER_TOKEN * tokens


def static_batch_sizes(batches: Iterable[Batch]) -> tuple[int, ...]:
    """Return batch sizes that hold for (nearly) all batches of a run, by the largest of a sample, rounded up."""
    sizes: list[int] = []
    for batch in islice(batches, SAMPLED_BATCHES):
        sizes += [0] * (len(batch.batch_sizes) - len(sizes))
        sizes[: len(batch.batch_sizes)] = map(max, sizes, batch.batch_sizes)
    return tuple(map(round_up, sizes))


def round_up(size: int) -> int:
    """Round up to a multiple of 8, so that a static size has some room."""
    return -(-size // ROUNDED_TO) * ROUNDED_TO


def fit(batch: Batch, batch_sizes: tuple[int, ...]) -> Batch | None:
    """Pad a batch to static shapes with empty phrases; return None if it is larger at any position."""
    if len(batch.batch_sizes) > len(batch_sizes) or any(map(int.__gt__, batch.batch_sizes, batch_sizes)):
        return None
    missing = len(batch_sizes) - batch.tokens.shape[2], batch_sizes[0] - batch.tokens.shape[1]
    tokens = F.pad(batch.tokens, (0, missing[0], 0, missing[1]))
    phrases = F.pad(batch.phrases, (0, missing[1]))
    return dataclasses.replace(batch, inputs=(tokens, batch_sizes), targets=batch.targets.contiguous(), phrases=phrases)


def try_to_compile(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Compile a function of static shapes; if that fails, warn once and run it eagerly."""
    if _why_not(device):
        return function
    function = _copy_code(function)
    compiled: Callable[..., Any] | None = torch.compile(function, dynamic=False, fullgraph=True)

    is_first = True

    def run(*arguments: Any) -> Any:  # noqa: ANN401
        nonlocal compiled, is_first
        if compiled is None:
            return function(*arguments)
        try:
            with torch.no_grad(), _without_advice() if is_first else nullcontext():  # gradients are taken within
                found = compiled(*arguments)
            is_first = False
            return found
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an encoder is arbitrary code; what fails uncompiled as well fails below
            compiled = None
            _warn(error)
            return function(*arguments)

    return run


@contextmanager
def _without_advice() -> Iterator[None]:
    """Ignore PyTorch's advice to compute less precisely: float32 is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TensorFloat32")
        yield


class Replayed:
    """
    Calls of a function as one CUDA graph, which costs the CPU one launch instead of hundreds.

    Its tensors must have the same shapes in every call, and it may change others in place. The first calls run as they
    are: what compiles or allocates for the first time cannot be captured. The next call overwrites the result.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        """Return the function's result for these tensors; it is captured once, and must be the same in every call."""
        self.calls += 1
        if self.calls == CALLS_BEFORE_CAPTURE and not self._capture(function, tensors):
            self.calls = -sys.maxsize
        if self.graph is None:
            return function(*tensors)
        for mine, new in zip(self.inputs, tensors, strict=True):
            if mine is not None:
                mine.copy_(new)  # type: ignore[arg-type]
        self.graph.replay()
        return self.result

    def _capture(self, function: Callable[..., Tensor], tensors: Sequence[Tensor | None]) -> bool:
        self.inputs = [None if tensor is None else tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.result = function(*self.inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an encoder may wait for the device, which a graph cannot
            _warn(error)
            return False
        self.graph = graph
        return True


def _copy_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function with its code: PyTorch keeps graphs and limits recompilations by code object."""
    if isinstance(function, MethodType):
        return MethodType(_copy_code(function.__func__), function.__self__)
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace()
    copied = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


@cache
def _why_not(device: torch.device) -> str | None:
    """Return why even the smallest function cannot be compiled (such as a missing C++ compiler), or None."""
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # of anything between PyTorch and a compiler
        return _warn(error)
    return None


def _warn(error: Exception) -> str:
    first, _, rest = str(error).strip().partition("\n")
    reason = f"{first} {rest.partition(chr(10))[0]}" if first.endswith(":") else first
    warnings.warn(f"training continues without compilation, which failed: {reason}", stacklevel=3)
    return reason
