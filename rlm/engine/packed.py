"""Packed rows: one position after the other, without padding, and an LSTM that reads them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.engine.lstm import Recurrence


def pack(rows: Shaped[Tensor, "phrase position *rest"], batch_sizes: Sequence[int]) -> Shaped[Tensor, "packed *rest"]:
    """
    What stands at the first position of all rows, then at the second, as in ``torch.nn.utils.rnn.PackedSequence``.

    Parameters
    ----------
    rows
        Longest first.
    batch_sizes
        For each position, how many rows to take it from; falling.

    Returns
    -------
    torch.Tensor
        One position after the other.
    """
    return torch.cat([rows[:count, position] for position, count in enumerate(batch_sizes)])


def backwards(
    rows: Shaped[Tensor, "phrase position *rest"], lengths: Int[Tensor, "phrase 1"]
) -> Shaped[Tensor, "phrase position *rest"]:
    """
    Each row from its end to its beginning; padding stays behind.

    Parameters
    ----------
    rows
        Padded behind their ends.
    lengths
        Of the rows.

    Returns
    -------
    torch.Tensor
        The same rows, reversed.
    """
    positions = rows.shape[1]
    order = (lengths - 1 - torch.arange(positions, device=rows.device)) % positions
    return torch.take_along_dim(rows, order.view(*order.shape, *[1] * (rows.dim() - 2)), dim=1)


class PackedLSTM(nn.LSTMCell):
    """
    An LSTM over packed rows, from their last position to their first; see `rlm.engine.lstm.Recurrence`.

    It equals ``torch.nn.LSTM``, which ``torch.func.vmap`` cannot batch.
    """

    def forward(
        self,
        inputs: Float[Tensor, "packed input"],
        is_word: Bool[Tensor, " packed"],
        batch_sizes: Sequence[int],
        every_step: bool = False,
    ) -> Float[Tensor, "row dim"]:
        """
        Read.

        Parameters
        ----------
        inputs
            See `pack`.
        is_word
            False where a row has ended already.
        batch_sizes
            Rows of each position.
        every_step
            Return the hidden states of all positions, packed as the inputs are, instead of those at the first.

        Returns
        -------
        torch.Tensor
            Hidden states.
        """
        weights = self.weight_ih, self.weight_hh
        if torch.is_autocast_enabled(inputs.device.type):
            lower = torch.get_autocast_dtype(inputs.device.type)
            weights = tuple(weight.to(lower) for weight in weights)
        bias = self.bias_ih + self.bias_hh
        if torch.compiler.is_compiling():  # the compiler fuses the steps, and their backward pass, by itself
            return _recurrence(inputs, *weights, bias, is_word, tuple(batch_sizes), every_step)
        # The recurrence takes seeds first; one model is one of them.
        arguments = (argument[None] for argument in (inputs, *weights, bias, is_word))
        hidden, *_ = Recurrence.apply(*arguments, tuple(batch_sizes), every_step)
        return hidden[0]


def _recurrence(
    inputs: Float[Tensor, "packed word_dim"],
    weight_ih: Float[Tensor, "gates word_dim"],
    weight_hh: Float[Tensor, "gates dim"],
    bias: Float[Tensor, " gates"],
    is_word: Bool[Tensor, " packed"],
    batch_sizes: Sequence[int],
    every_step: bool,
) -> Float[Tensor, "row dim"]:
    """
    `rlm.engine.lstm.Recurrence` of one model, in the words that compile to the fastest code.

    A row meets no state at its first word, so all rows read theirs together; at any other word one matrix multiplies
    word and state.
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
    """Gates before their sigmoid or tanh; the product in the type of the weight, the sum in that of the bias."""
    return (F.linear(inputs.to(weight.dtype), weight).to(bias.dtype) + bias).chunk(4, dim=1)


def _tanh(values: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim"]:
    """By the sigmoid, which compiles to code more than twice as fast; in float32 it is off by 2e-7 at the most."""
    return 2 * (2 * values).sigmoid() - 1
