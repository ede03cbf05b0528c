"""Sums of a table's rows, for all seeds of a block at once, with their own backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F


class SumOfRows(Function):
    """
    The sum of some rows of a table ``[seed, row, dim]``; `rows` ``[seed, phrase, place]`` count from 1, 0 adds nothing.

    ``torch.func.vmap`` cannot stack PyTorch's ``embedding_bag``, and padding to the longest phrase takes several times
    as long. Returns the sums ``[seed, phrase, dim]``, then what the backward pass needs; vmap joins its dimension to
    the seeds.
    """

    @staticmethod
    def forward(
        table: Float[Tensor, "seed row dim"], rows: Int64[Tensor, "seed phrase place"]
    ) -> tuple[Float[Tensor, "seed phrase dim"], Int64[Tensor, " used"], Int64[Tensor, " bag"]]:
        seeds, size, _ = table.shape
        first = torch.arange(0, seeds * size, size, device=rows.device)[:, None, None]
        is_row = rows != 0
        used = (rows - 1 + first)[is_row]
        counts = is_row.sum(dim=2).flatten()
        sums = F.embedding_bag(used, table.flatten(0, 1), counts.cumsum(0) - counts, mode="sum")
        return sums.unflatten(0, (seeds, -1)), used, counts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        ctx.shape = inputs[0].shape
        _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*kept)

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, of_sums: Tensor, *_: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        used, counts = ctx.saved_tensors
        phrase = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        of_rows = F.embedding(phrase, of_sums.flatten(0, 1))
        size = ctx.shape[0] * ctx.shape[1]
        of_table = torch.ops.aten.embedding_dense_backward(of_rows, used, size, -1, False)
        return of_table.view(ctx.shape), None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        *arguments: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        sums, *kept = SumOfRows.apply(*join_mapped(arguments, in_dims, info.batch_size))
        return (sums.unflatten(0, (info.batch_size, -1)), *kept), (0, None, None)


def join_mapped(tensors: Sequence[Tensor], dims: Sequence[int | None], size: int) -> list[Tensor]:
    """Join the dimension that ``torch.func.vmap`` maps to the first one, that of the seeds."""
    return [
        (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
