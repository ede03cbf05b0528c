"""Batches: from triplets of phrase indices, one list per seed, to the tensors of one training step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor

from rlm.sampler import RandomTriplets, RealTriplets
from rlm.slicer import Slices

# Not `Triplets`: seeds may have different numbers of them.
TripletRows = Int32[np.ndarray, "_ 3"]
Source = RealTriplets | RandomTriplets
STEPS_AT_ONCE = 32


@dataclass(frozen=True)
class Batch:
    """
    Triplets of S seeds, with each phrase of a seed once.

    Attributes
    ----------
    tokens
        Token ids of each seed's phrases, longest first, zeros after the end; empty phrases fill up seeds that
        have fewer.
    batch_sizes
        For each position, how many phrases of any seed may have a token there, as in
        ``torch.nn.utils.rnn.PackedSequence``; the first is the number of phrases.
    triplets
        Rows of `tokens`.
    is_real
        False where a triplet only fills up the batch.
    """

    tokens: Int32[Tensor, "seed phrase token"]
    batch_sizes: tuple[int, ...]
    triplets: Int64[Tensor, "seed triplet 3"]
    is_real: Bool[Tensor, "seed triplet"]

    @property
    def weights(self) -> Float32[Tensor, "seed triplet"]:
        """Share of each triplet in the mean of its seed; all zero for a seed without triplets."""
        return self.is_real / self.is_real.sum(dim=1, keepdim=True).clamp(min=1)


def epoch_batches(sources: Sequence[Source], slices: Sequence[Slices], epoch: int, batch_size: int) -> Iterator[Batch]:
    """
    The batches of one epoch, for a block of seeds.

    The last batch of a seed is as small as its triplets leave it; a seed that has fewer batches than another
    gets empty ones.

    Parameters
    ----------
    sources, slices
        One per seed.
    epoch
        Number of the epoch.
    batch_size
        Triplets per batch and seed.

    Yields
    ------
    Batch
        One training step.
    """
    chunks = (source.epoch(epoch, batch_size * STEPS_AT_ONCE) for source in sources)
    nothing = np.empty((0, 3), np.int32)
    for chunk in zip_longest(*chunks, fillvalue=nothing):
        yield from _batches(chunk, slices, batch_size)


def one_batch(triplets: Sequence[TripletRows], slices: Sequence[Slices]) -> Batch:
    """
    All given triplets as a single batch.

    Parameters
    ----------
    triplets, slices
        One per seed.

    Returns
    -------
    Batch
        For evaluation: every phrase is in it once.
    """
    return next(_batches(triplets, slices, max(map(len, triplets))))


def _batches(triplets: Sequence[TripletRows], slices: Sequence[Slices], batch_size: int) -> Iterator[Batch]:
    """Cut each seed's triplets into steps; building many steps at once is what makes them cheap."""
    filler = len(slices[0].phrases)  # the empty phrase, which sorts behind all others
    steps = -(-max(map(len, triplets)) // batch_size)
    indices = np.full((len(triplets), steps * batch_size, 3), filler, np.int32)
    for row, mine in zip(indices, triplets, strict=True):
        row[: len(mine)] = mine
    indices = indices.reshape(len(triplets), steps, batch_size, 3)
    phrases, places, counts = _distinct(indices.reshape(len(triplets), steps, -1), filler)
    lengths = slices[0].phrases.lengths[phrases]
    for step, count in enumerate(counts.max(axis=0)):
        mine, tokens_per_phrase = phrases[:, step, :count], lengths[:, step, :count]
        longest = int(tokens_per_phrase.max())
        reach = (tokens_per_phrase[:, :, None] > np.arange(longest)).sum(axis=1).max(axis=0)
        tokens = [seed.tokens[rows, :longest] for seed, rows in zip(slices, mine, strict=True)]
        yield Batch(
            tokens=torch.from_numpy(np.stack(tokens)),
            batch_sizes=(int(count), *map(int, reach[1:])),
            triplets=torch.from_numpy(places[:, step].reshape(len(triplets), batch_size, 3)),
            is_real=torch.from_numpy(indices[:, step, :, 0] != filler),
        )


def _distinct(
    values: Int32[np.ndarray, "seed step slot"], filler: int
) -> tuple[Int32[np.ndarray, "seed step slot"], Int64[np.ndarray, "seed step slot"], Int64[np.ndarray, "seed step"]]:
    """`numpy.unique` along the last axis: sorted values (then filler), place of every value, how many."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    is_first = np.ones(values.shape, bool)
    is_first[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    rank = is_first.cumsum(axis=-1) - 1
    distinct = np.full_like(values, filler)
    np.put_along_axis(distinct, rank, ordered, axis=-1)
    places = np.empty(values.shape, np.int64)
    np.put_along_axis(places, order, rank, axis=-1)
    return distinct, places, rank[..., -1] + 1
