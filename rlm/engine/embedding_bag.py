"""Sums of a table's rows, for all seeds of a block at once, with their own backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from rlm.engine.native import call


class SumOfRows(Function):
    """
    The sum of some rows of a table ``[seed, row, dim]``; `rows` ``[seed, phrase, place]`` count from 1, 0 adds nothing.

    ``torch.func.vmap`` cannot stack PyTorch's ``embedding_bag``, and padding to the longest phrase takes several times
    as long. Returns the sums ``[seed, phrase, dim]``; vmap joins its dimension to the seeds.
    """

    @staticmethod
    def forward(
        table: Float[Tensor, "seed row dim"], rows: Int64[Tensor, "seed phrase place"]
    ) -> Float[Tensor, "seed phrase dim"]:
        low, high = rows.aminmax() if rows.numel() else (0, 0)
        if low < 0 or high > table.shape[1]:  # the pass in C and the joined tables would not notice
            raise IndexError(f"expected rows from 0 to {table.shape[1]}, found {int(low)} to {int(high)}")
        sums = table.new_zeros(*rows.shape[:2], table.shape[2])
        if _passed(table.contiguous(), rows, sums, 0):
            return sums
        used, counts = _list_used(rows, table.shape[1])
        starts = counts.cumsum(0) - counts
        return F.embedding_bag(used, table.flatten(0, 1), starts, mode="sum").view_as(sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:  # noqa: ANN401
        table, rows = inputs
        ctx.shape = table.shape
        ctx.save_for_backward(rows)

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, of_sums: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (rows,) = ctx.saved_tensors
        of_table = of_sums.new_zeros(ctx.shape)
        if _passed(of_table, rows, of_sums.contiguous(), 1):
            return of_table, None
        used, counts = _list_used(rows, ctx.shape[1])
        phrase = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        of_rows = F.embedding(phrase, of_sums.flatten(0, 1))
        seeds, size, _ = ctx.shape
        return torch.ops.aten.embedding_dense_backward(of_rows, used, seeds * size, -1, False).view(ctx.shape), None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        table: Tensor,
        rows: Tensor,
    ) -> tuple[Tensor, int]:
        if in_dims[0] is None and len(table) == 1:  # shared by the seeds, and too large to copy for each
            phrases = rows.movedim(in_dims[1] or 0, 0).flatten(0, 2)
            return SumOfRows.apply(table, phrases[None]).unflatten(1, (info.batch_size, 1, -1))[0], 0
        sums = SumOfRows.apply(*join_mapped((table, rows), in_dims, info.batch_size))
        return sums.unflatten(0, (info.batch_size, -1)), 0


def _passed(table: Tensor, rows: Tensor, sums: Tensor, back: int) -> bool:
    """Add rows to sums, or `back` to their rows, by the pass in C; return False where there is none."""
    if table.device.type != "cpu" or (table.dtype, rows.dtype) != (torch.float32, torch.int64):
        return False
    return call("add_rows", table, rows.contiguous(), sums, *table.shape[:2], *rows.shape[1:], table.shape[2], back)


def _list_used(rows: Int64[Tensor, "seed phrase place"], size: int) -> tuple[Tensor, Tensor]:
    """Return the rows that are used, in the joined tables of all seeds, and their number for each phrase."""
    is_row = rows != 0
    first = torch.arange(0, len(rows) * size, size, device=rows.device)[:, None, None]
    return (rows - 1 + first)[is_row], is_row.sum(dim=2).flatten()


def join_mapped(tensors: Sequence[Tensor], dims: Sequence[int | None], size: int) -> list[Tensor]:
    """Join the dimension that ``torch.func.vmap`` maps to the first one, that of the seeds."""
    return [
        (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
