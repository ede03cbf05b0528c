"""Packed rows: one position after the other, without padding, and an LSTM that reads them."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.lstm import Recurrence


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
    An LSTM over packed rows, from their last position to their first; see `rlm.lstm.Recurrence`.

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
    """`rlm.lstm.Recurrence` of one model, in as few words as possible."""
    dim = weight_hh.shape[1]
    steps = F.linear(inputs, weight_ih, bias.to(weight_ih.dtype)).to(bias.dtype).split(list(batch_sizes))
    hidden = state = bias.new_zeros(0, dim)
    kept = []
    for step, open_ in zip(reversed(steps), reversed(is_word[:, None].split(list(batch_sizes))), strict=True):
        rows = len(hidden)
        i, _, g, o = step[rows:].chunk(4, dim=1)  # the rows that begin have no state to forget
        new_state = torch.where(open_[rows:], i.sigmoid() * g.tanh(), 0)
        new_hidden = o.sigmoid() * new_state.tanh()
        if rows:
            i, f, g, o = (step[:rows] + F.linear(hidden.to(weight_hh.dtype), weight_hh)).chunk(4, dim=1)
            state = f.sigmoid() * state + torch.where(open_[:rows], i.sigmoid() * g.tanh(), 0)
            hidden = o.sigmoid() * state.tanh()
        hidden, state = torch.cat([hidden, new_hidden]), torch.cat([state, new_state])
        kept.append(hidden)
    return torch.cat(kept[::-1]) if every_step else hidden
