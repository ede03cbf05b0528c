"""The recurrence of an LSTM over packed phrases, for all seeds of a block at once, with its own backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import Function

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward

Inputs = Float[Tensor, "seed packed word_dim"]


class Recurrence(Function):
    """
    Final hidden states of an LSTM that reads packed phrases from their last word to their first.

    Reading backwards, the rows of a step are those of the step before and the ones that begin, so no work is
    spent on padding; all rows end together at the first word.

    Autograd could differentiate the loop, but keeps more and passes over it oftener; a compiler does that better, see
    `rlm.engine.packed`. Within a step the features come first and the rows last, ``[seed, 4 dim, row]``: each gate
    lies in one piece of memory.

    ``Recurrence.apply(inputs, weight_ih, weight_hh, bias, is_word, batch_sizes, every_step)`` takes

    - inputs ``[seed, packed, word_dim]``: the word vectors of the first position of all rows, then of the second,
      as in ``torch.nn.utils.rnn.PackedSequence``;
    - weight_ih ``[seed, 4 dim, word_dim]``, weight_hh ``[seed, 4 dim, dim]`` and bias ``[seed, 4 dim]``, gates in
      the order of ``torch.nn.LSTM``; products are computed in the type of weight_ih and weight_hh, all else in that
      of the bias;
    - is_word ``[seed, packed]``: False where a row has ended already, which keeps its state at zero;
    - batch_sizes: rows of each position, falling;
    - every_step: whether to return the hidden states of all positions instead of the first;

    and returns the hidden states ``[seed, row, dim]``, or packed as the inputs are, followed by what the backward pass
    needs. Under ``torch.func.vmap`` the mapped dimension joins the seeds.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; equations as in
    ``torch.nn.LSTM``.
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
        """See the class."""
        dim = weight_hh.shape[2]
        kept: list[Tensor] = []
        rows_before = 0
        hidden = state = bias[:, :, None]  # of no row yet
        for words, open_ in reversed(
            list(zip(inputs.split(batch_sizes, 1), is_word.split(batch_sizes, 1), strict=True))
        ):
            rows = words.shape[1]
            gates = bias[:, :, None].repeat(1, 1, rows)
            _add_product(gates, weight_ih, words.mT)
            if rows_before:
                _add_product(gates[:, :, :rows_before], weight_hh, hidden)
            gates[:, : 2 * dim].sigmoid_()
            gates[:, 2 * dim : 3 * dim].tanh_()
            gates[:, 3 * dim :].sigmoid_()
            i, f, g, o = gates.chunk(4, dim=1)
            i.mul_(open_[:, None])
            state_before, state = state, i * g
            if rows_before:
                state[:, :, :rows_before].addcmul_(f[:, :, :rows_before], state_before)
            squashed = state.tanh()
            hidden = o * squashed
            kept += [gates, state, squashed, hidden]
            rows_before = rows
        if every_step:
            hidden = torch.cat(kept[::-4], dim=2)
        return hidden.mT, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        """Keep the activations of all steps."""
        words, weight_ih, weight_hh, _, _, ctx.batch_sizes, ctx.every_step = inputs
        _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(words, weight_ih, weight_hh, *kept)

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, of_hidden: Tensor, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Back through the steps, from the first word to the last."""
        inputs, weight_ih, weight_hh, *kept = ctx.saved_tensors
        steps = [kept[start : start + 4] for start in range(0, len(kept), 4)][::-1]
        of_hidden = of_hidden.mT.contiguous()
        of_steps = of_hidden.split(ctx.batch_sizes, 2) if ctx.every_step else None
        if of_steps:
            of_hidden = of_steps[0]
        of_inputs = []
        of_weight_ih, of_weight_hh = (
            torch.zeros_like(weight, dtype=of_hidden.dtype) for weight in (weight_ih, weight_hh)
        )
        of_bias = of_hidden.new_zeros(weight_ih.shape[:2])
        of_next_state = None
        for position, words in enumerate(inputs.split(ctx.batch_sizes, 1)):
            gates, _, squashed, _ = steps[position]
            i, f, g, o = gates.chunk(4, dim=1)
            of_gates = torch.empty_like(gates)
            of_i, of_f, of_g, of_o = of_gates.chunk(4, dim=1)

            torch.mul(of_hidden, squashed, out=of_o)
            of_state = of_hidden * o
            tanh_backward.grad_input(of_state, squashed, grad_input=of_state)
            if of_next_state is not None:
                of_state += of_next_state
            torch.mul(of_state, g, out=of_i)
            torch.mul(of_state, i, out=of_g)
            is_last = position + 1 == len(steps)
            rows = 0 if is_last else ctx.batch_sizes[position + 1]
            of_f[:, :, rows:] = 0
            if rows:
                torch.mul(of_state[:, :, :rows], steps[position + 1][1], out=of_f[:, :, :rows])
                of_next_state = of_state[:, :, :rows] * f[:, :, :rows]
            for of_gate, gate in ((of_i, i), (of_f, f), (of_o, o)):
                sigmoid_backward.grad_input(of_gate, gate, grad_input=of_gate)
            tanh_backward.grad_input(of_g, g, grad_input=of_g)

            low = of_gates.to(weight_ih.dtype)
            of_inputs.append(torch.bmm(low.mT, weight_ih))
            _add_product(of_weight_ih, low, words)
            of_bias += of_gates.sum(dim=2)
            if rows:
                low = low[:, :, :rows]
                _add_product(of_weight_hh, low, steps[position + 1][3].mT)
                of_hidden = torch.bmm(weight_hh.mT, low).to(of_hidden.dtype)
                if of_steps:
                    of_hidden += of_steps[position + 1]
        gradients = torch.cat(of_inputs, dim=1), of_weight_ih.to(weight_ih.dtype), of_weight_hh.to(weight_hh.dtype)
        return *gradients, of_bias, None, None, None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[Any, ...],
        *arguments: Any,  # noqa: ANN401
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The mapped dimension joins the seeds."""
        *tensors, batch_sizes, every_step = arguments
        size = info.batch_size
        joined = [
            (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
            for tensor, dim in zip(tensors, in_dims[:-2], strict=True)
        ]
        outputs = Recurrence.apply(*joined, batch_sizes, every_step)
        return tuple(output.unflatten(0, (size, -1)) for output in outputs), (0,) * len(outputs)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the matrix product, computed in the type of `left`, to `total`, in place."""
    right = right.to(left.dtype)
    if left.dtype == total.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)
