"""LSTMs over packed phrases, without a step spent on padding, for all seeds of a block at once."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from rlm.engine.embedding_bag import join_mapped
from rlm.engine.native import call
from rlm.errors import InputError

Inputs = Float[Tensor, "seed packed word_dim"]


def pack(rows: Shaped[Tensor, "phrase position *rest"], batch_sizes: Sequence[int]) -> Shaped[Tensor, "packed *rest"]:
    """Concatenate the first position of all rows, the second, and so on, as in ``rnn.PackedSequence``."""
    return torch.cat([rows[:count, position] for position, count in enumerate(batch_sizes)])


def reverse(
    rows: Shaped[Tensor, "phrase position *rest"], lengths: Int[Tensor, "phrase 1"]
) -> Shaped[Tensor, "phrase position *rest"]:
    """Reverse each row from its end to its beginning; padding stays behind."""
    positions = rows.shape[1]
    order = (lengths - 1 - torch.arange(positions, device=rows.device)) % positions
    return torch.take_along_dim(rows, order.view(*order.shape, *[1] * (rows.dim() - 2)), dim=1)


class PackedLSTM(nn.LSTMCell):
    """``torch.nn.LSTM``, which vmap cannot batch, over packed rows from their last position to their first."""

    def forward(
        self,
        inputs: Float[Tensor, "packed input"],
        is_word: Bool[Tensor, " packed"],
        batch_sizes: Sequence[int],
        every_step: bool = False,
    ) -> Float[Tensor, "row dim"]:
        weights = self.weight_ih, self.weight_hh
        if torch.is_autocast_enabled(inputs.device.type):
            lower = torch.get_autocast_dtype(inputs.device.type)
            weights = tuple(weight.to(lower) for weight in weights)
        bias, batch_sizes = self.bias_ih + self.bias_hh, tuple(map(int, batch_sizes))
        if torch.compiler.is_compiling():  # the compiler fuses the steps, and their backward pass, by itself
            return compiled_recurrence(inputs, *weights, bias, is_word, batch_sizes, every_step)
        # The recurrence takes a leading seed dimension, here of size 1.
        arguments = (argument[None] for argument in (inputs, *weights, bias, is_word))
        hidden, *_ = Recurrence.apply(*arguments, batch_sizes, every_step)
        return hidden[0]


class Recurrence(Function):
    """
    Final hidden states of an LSTM that reads packed phrases from their last word to their first.

    Reading backwards, the rows of a step are those of the previous step and the ones that begin, so no work is spent on
    padding; all rows end together at the first word. Autograd would keep more and pass over it more often.

    ``Recurrence.apply`` takes inputs ``[seed, packed, word_dim]``, packed as in ``torch.nn.utils.rnn.PackedSequence``;
    weight_ih ``[seed, 4 dim, word_dim]``, weight_hh ``[seed, 4 dim, dim]`` and bias ``[seed, 4 dim]``, gates in the
    order of ``torch.nn.LSTM``; is_word ``[seed, packed]``, False beyond the end of a row, which keeps its state at
    zero; batch_sizes, the falling rows of each position; and every_step, to return the states of all positions instead
    of the first. Products, and what waits for the backward pass but the states, have the type of the weights, all else
    that of the bias. It returns the states ``[seed, row, dim]``, or packed, then what the backward pass needs. Vmap
    joins its dimension to the seeds.

    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    """

    @staticmethod
    def forward(
        inputs: Inputs,
        weight_ih: Float[Tensor, "seed gates word_dim"],
        weight_hh: Float[Tensor, "seed gates dim"],
        bias: Float[Tensor, "seed gates"],
        is_word: Bool[Tensor, "seed packed"],
        batch_sizes: Sequence[int],
        every_step: bool,
    ) -> tuple[Tensor, ...]:
        seeds, packed, _ = inputs.shape
        if sum(batch_sizes) != packed or any(map(int.__lt__, batch_sizes, batch_sizes[1:])):
            raise InputError(
                f"expected batch sizes that never rise and count all {packed} words, found {list(batch_sizes)}; take "
                "those of torch.nn.utils.rnn.PackedSequence"
            )
        slots = seeds, batch_sizes[0] + packed, weight_hh.shape[2]
        # The products of a whole batch are faster by weights that are laid out as they are read.
        gates = torch.bmm(inputs.to(weight_ih.dtype), weight_ih.mT.contiguous())
        kept = States(gates, bias.new_empty(slots), gates.new_empty(slots))
        bias, is_word, weight = bias.contiguous(), is_word.contiguous(), weight_hh.mT.contiguous()
        places = positions(batch_sizes)
        for at in reversed(places):
            read(kept, at, torch.bmm(kept.before(at)[1][:, : at.begun], weight), bias, is_word)
        hidden = torch.cat([kept.after(at)[1] for at in places], dim=1) if every_step else kept.after(places[0])[1]
        return hidden.to(bias.dtype, copy=True), *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        words, weight_ih, weight_hh, _, _, ctx.batch_sizes, ctx.every_step = inputs
        _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(words, weight_ih, weight_hh, *kept)

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, of_output: Tensor, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        inputs, weight_ih, weight_hh, *saved = ctx.saved_tensors
        kept, places = States(*saved), positions(ctx.batch_sizes)
        of_steps = of_output.split(ctx.batch_sizes, 1) if ctx.every_step else [of_output]
        of_hidden = of_steps[0].to(kept.gates.dtype)
        of_states, of_bias = (of_output.new_zeros(shape) for shape in (of_steps[0].shape, weight_ih.shape[:2]))
        of_gates = torch.empty_like(kept.gates)
        for number, at in enumerate(places):
            read_back(kept, at, of_hidden, of_states, of_gates, of_bias)
            if at.begun:
                of_hidden = torch.bmm(of_gates[:, at.start :][:, : at.begun], weight_hh)
                if ctx.every_step:
                    of_hidden += of_steps[number + 1]
        of_weight_ih = torch.bmm(of_gates.mT, inputs.to(weight_ih.dtype))
        of_weight_hh = torch.bmm(of_gates.mT, kept.hiddens[:, places[0].rows :])
        of_inputs = torch.bmm(of_gates, weight_ih).to(inputs.dtype)
        return of_inputs, of_weight_ih, of_weight_hh, of_bias, None, None, None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[Any, ...],
        *arguments: Any,  # noqa: ANN401
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        *tensors, batch_sizes, every_step = arguments
        joined = join_mapped(tensors, in_dims[:-2], info.batch_size)
        outputs = Recurrence.apply(*joined, batch_sizes, every_step)
        return tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs), (0,) * len(outputs)


class Position(NamedTuple):
    """Where the rows of a position begin, how many there are, how many have begun, and where their states go."""

    start: int
    rows: int
    begun: int
    after: int


class States(NamedTuple):
    """
    What the rows of packed phrases hold while an LSTM reads them, from their last position to the first.

    `gates` ``[seed, packed, 4 dim]`` are products with words until their position is read. `states` and `hiddens`
    ``[seed, first + packed, dim]`` are what the rows of the first position end with, and then what each row has before
    its word: zero where it begins.
    """

    gates: Float[Tensor, "seed packed gates"]
    states: Float[Tensor, "seed slot dim"]
    hiddens: Float[Tensor, "seed slot dim"]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Seeds, packed rows and rows of the first position."""
        seeds, packed, _ = self.gates.shape
        return seeds, packed, self.hiddens.shape[1] - packed

    def before(self, at: Position) -> tuple[Tensor, Tensor]:
        """Return states and hidden states of a position's rows before its word."""
        return tuple(part[:, self.sizes[2] + at.start :][:, : at.rows] for part in (self.states, self.hiddens))

    def after(self, at: Position) -> tuple[Tensor, Tensor]:
        """Return states and hidden states of a position's rows after its word."""
        return tuple(part[:, at.after :][:, : at.rows] for part in (self.states, self.hiddens))

    def gates_of(self, at: Position) -> Float[Tensor, "seed row gates"]:
        """Return the gates of a position's rows."""
        return self.gates[:, at.start :][:, : at.rows]


def positions(batch_sizes: Sequence[int]) -> list[Position]:
    """Return all positions, the first one first."""
    starts = [0, *accumulate(batch_sizes)]
    after = [0, *(batch_sizes[0] + start for start in starts)]
    return list(map(Position, starts, batch_sizes, (*batch_sizes[1:], 0), after))


def read(
    kept: States,
    at: Position,
    products: Float[Tensor, "seed begun gates"],
    bias: Float[Tensor, "seed gates"],
    is_word: Bool[Tensor, "seed packed"],
) -> None:
    """
    Make gates of a position's products, and states of gates, in place; a state stays at zero before the first word.

    `products` are those of hidden states, of the rows that have begun.
    """
    tensors = kept.gates, products, bias, is_word, kept.states, kept.hiddens
    if _passed(kept, "forward", *tensors, *kept.sizes, *at, bias.shape[1] // 4):
        return
    gates, (state, hidden), (next_state, next_hidden) = kept.gates_of(at), kept.before(at), kept.after(at)
    state[:, at.begun :] = 0
    hidden[:, at.begun :] = 0
    made = gates.to(bias.dtype)  # the gates themselves, if they have that type
    made[:, : at.begun] += products
    made += bias[:, None]
    i, f, g, o = made.chunk(4, dim=2)
    for gate in (i, f, o):
        gate.sigmoid_()
    g.tanh_()
    i.mul_(is_word[:, at.start :][:, : at.rows, None])
    torch.addcmul(i * g, f, state, out=next_state)
    next_hidden.copy_(o * next_state.tanh())
    gates.copy_(made)


def read_back(
    kept: States,
    at: Position,
    of_hidden: Float[Tensor, "seed row dim"],
    of_states: Float[Tensor, "seed first dim"],
    of_gates: Float[Tensor, "seed packed gates"],
    of_bias: Float[Tensor, "seed gates"],
) -> None:
    """
    Write the gradients of a position's products by those of its hidden states and of the states that they came with.

    `of_states` become those of the states before, and `of_bias` grows.
    """
    tensors = kept.gates, kept.states, of_hidden.contiguous(), of_states, of_gates, of_bias
    if _passed(kept, "backward", *tensors, *kept.sizes, at.start, at.rows, of_bias.shape[1] // 4):
        return
    gates, state, of_state = kept.gates_of(at), kept.before(at)[0], of_states[:, : at.rows]
    i, f, g, o = gates.to(of_states.dtype).chunk(4, dim=2)
    squashed, of_hidden = (f * state + i * g).tanh(), of_hidden.to(of_states.dtype)
    of_next = of_state + of_hidden * o * (1 - squashed.square())
    parts = of_next * g * i * (1 - i), of_next * state * f * (1 - f), of_next * i * (1 - g.square())
    parts = *parts, of_hidden * squashed * o * (1 - o)
    targets = of_gates[:, at.start :][:, : at.rows].chunk(4, dim=2)
    for part, target, total in zip(parts, targets, of_bias.chunk(4, dim=1), strict=True):
        target.copy_(part)
        total += part.sum(dim=1)
    torch.mul(of_next, f, out=of_state)


def _passed(kept: States, direction: str, *arguments: Tensor | int) -> bool:
    """Call the pass in C for numbers of these types; return False where there is none."""
    is_known = kept.gates.device.type == "cpu" and kept.states.dtype == torch.float32
    kind = {torch.float32: "float32", torch.bfloat16: "bfloat16"}.get(kept.gates.dtype)
    return is_known and kind is not None and call(f"{direction}_{kind}", *arguments)


def compiled_recurrence(
    inputs: Float[Tensor, "packed word_dim"],
    weight_ih: Float[Tensor, "gates word_dim"],
    weight_hh: Float[Tensor, "gates dim"],
    bias: Float[Tensor, " gates"],
    is_word: Bool[Tensor, " packed"],
    batch_sizes: Sequence[int],
    every_step: bool,
) -> Float[Tensor, "row dim"]:
    """
    Compute `Recurrence` for one model with operations that compile to the fastest code.

    All rows read their first word together, without a state; then one matrix multiplies word and state.
    """
    # From the last position on: the rows that begin there, then those that have begun, of which the last has none.
    before = (*batch_sizes[1:], 0)
    parts = [size for old, rows in zip(before, batch_sizes, strict=True) for size in (old, rows - old)]
    words, is_open = (packed.split(parts)[::-1] for packed in (inputs, is_word[:, None]))

    i, _, g, o = _gates(torch.cat(words[::2]), weight_ih, bias)
    states = torch.where(torch.cat(is_open[::2]), i.sigmoid() * _tanh(g), 0)
    hiddens = o.sigmoid() * _tanh(states)
    begin = parts[::-2]
    (hidden, *hiddens), (state, *states) = hiddens.split(begin), states.split(begin)

    kept = [hidden]
    weight = torch.cat([weight_ih, weight_hh], dim=1)
    for step, open_, new_hidden, new_state in zip(words[3::2], is_open[3::2], hiddens, states, strict=True):
        i, f, g, o = _gates(torch.cat([step, hidden], dim=1), weight, bias)
        state = f.sigmoid() * state + torch.where(open_, i.sigmoid() * _tanh(g), 0)
        hidden = o.sigmoid() * _tanh(state)
        hidden, state = torch.cat([hidden, new_hidden]), torch.cat([state, new_state])
        kept.append(hidden)
    return torch.cat(kept[::-1]) if every_step else hidden


def _gates(
    inputs: Float[Tensor, "row in"], weight: Float[Tensor, "gates in"], bias: Float[Tensor, " gates"]
) -> tuple[Tensor, ...]:
    """Compute gates before sigmoid or tanh: the product in the type of the weight, the sum in that of the bias."""
    return (F.linear(inputs.to(weight.dtype), weight).to(bias.dtype) + bias).chunk(4, dim=1)


def _tanh(values: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
    """Compute tanh by the sigmoid, which compiles to code more than twice as fast; the error is 2e-7 in float32."""
    return 2 * (2 * values).sigmoid() - 1
