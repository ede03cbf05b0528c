"""Batches: from triplets of phrase indices, one list per seed, to the tensors of one training step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from rlm.sampler import RandomTriplets, RealTriplets
from rlm.slicer import Slices

# Not `sampler.TripletRows`: seeds may have different numbers of them.
TripletRows = Int32[Tensor, "_ 3"]
Source = RealTriplets | RandomTriplets
STEPS_AT_ONCE = 32


@dataclass(frozen=True)
class Batch:
    """
    Triplets of S seeds, with each phrase of a seed once.

    Attributes
    ----------
    phrases
        Indices of each seed's phrases, rising; any number for empty ones, which come last.
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
    sizes
        Triplets of each seed that do not fill up, known without asking the device.
    """

    phrases: Int32[Tensor, "seed phrase"]
    tokens: Int32[Tensor, "seed phrase token"]
    batch_sizes: tuple[int, ...]
    triplets: Int64[Tensor, "seed triplet 3"]
    is_real: Bool[Tensor, "seed triplet"]
    sizes: tuple[int, ...]

    @property
    def inputs(self) -> tuple[Tensor, tuple[int, ...]]:
        """What `Block.embed` takes."""
        return self.tokens, self.batch_sizes

    @property
    def targets(self) -> Int64[Tensor, "seed triplet 3"]:
        """What the loss compares embeddings by."""
        return self.triplets

    @property
    def weights(self) -> Float32[Tensor, "seed triplet"]:
        """Share of each triplet in the mean of its seed; all zero for a seed without triplets."""
        return self.is_real / self.is_real.sum(dim=1, keepdim=True).clamp(min=1)


class PhraseTable:
    """
    The tokens of all phrases, as each seed of a block reads them, on the device that trains.

    Parameters
    ----------
    slices
        One per seed, of one corpus.
    device
        Where to keep them.
    """

    def __init__(self, slices: Sequence[Slices], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.lengths = torch.from_numpy(slices[0].phrases.lengths).to(device)
        self.filler = len(slices[0].phrases)  # the empty phrase, which sorts behind all others
        tables = {id(one): torch.from_numpy(one.tokens).to(device) for one in slices}
        # Seeds that share a split share its table; seeds with a split of their own do not know the same words.
        self.tokens = list(tables.values()) if len(tables) == 1 else [tables[id(one)] for one in slices]

    def __call__(self, phrases: Int[Tensor, "seed phrase"], width: int) -> Int32[Tensor, "seed phrase token"]:
        """
        Look up phrases.

        Parameters
        ----------
        phrases
            Phrase indices of each seed.
        width
            How many tokens of each.

        Returns
        -------
        torch.Tensor
            Their tokens.
        """
        if len(self.tokens) == 1:
            return self.tokens[0][phrases, :width]
        return torch.stack([tokens[rows, :width] for tokens, rows in zip(self.tokens, phrases, strict=True)])


def epoch_batches(sources: Sequence[Source], table: PhraseTable, epoch: int, batch_size: int) -> Iterator[Batch]:
    """
    The batches of one epoch, for a block of seeds.

    The last batch of a seed is as small as its triplets leave it; a seed that has fewer batches than another
    gets empty ones.

    Parameters
    ----------
    sources
        One per seed.
    table
        Of the same seeds.
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
    nothing = torch.empty((0, 3), dtype=torch.int32, device=table.device)
    for chunk in zip_longest(*chunks, fillvalue=nothing):
        yield from cut(chunk, table, batch_size)


def one_batch(triplets: Sequence[TripletRows], table: PhraseTable) -> Batch:
    """
    All given triplets as a single batch.

    Parameters
    ----------
    triplets
        One list per seed.
    table
        Of the same seeds.

    Returns
    -------
    Batch
        For evaluation: every phrase is in it once.
    """
    return next(cut(triplets, table, max(map(len, triplets))))


def cut(triplets: Sequence[TripletRows], table: PhraseTable, batch_size: int) -> Iterator[Batch]:
    """
    Cut each seed's triplets into batches; building many at once is what makes them cheap.

    Parameters
    ----------
    triplets
        One list per seed.
    table
        Of the same seeds.
    batch_size
        Triplets per batch and seed; the last one has what is left.

    Yields
    ------
    Batch
        One step.
    """
    steps = -(-max(map(len, triplets)) // batch_size)
    padded = torch.full((len(triplets), steps * batch_size, 3), table.filler, dtype=torch.int32, device=table.device)
    for row, mine in zip(padded, triplets, strict=True):
        row[: len(mine)] = mine
    indices = padded.view(len(triplets), steps, batch_size, 3)
    phrases, places = distinct(indices.flatten(2), table.filler)
    is_real = indices[..., 0] != table.filler
    places = places.view(indices.shape) * is_real[..., None]  # what only fills up may name any phrase
    lengths = table.lengths[phrases.long()]
    positions = torch.arange(table.tokens[0].shape[1], dtype=lengths.dtype, device=table.device)
    # Lengths fall along a step's phrases: the first one that is too short tells how many reach a position.
    reach = torch.searchsorted(-lengths, (-positions).expand(*lengths.shape[:2], -1).contiguous())
    for step, sizes in enumerate(reach.amax(dim=0).tolist()):  # the only wait for the device in so many steps
        batch_sizes = tuple(size for size in sizes if size)
        mine = phrases[:, step, : sizes[0]]
        yield Batch(
            phrases=mine,
            tokens=table(mine, len(batch_sizes)),
            batch_sizes=batch_sizes,
            triplets=places[:, step],
            is_real=is_real[:, step],
            sizes=tuple(min(max(len(rows) - step * batch_size, 0), batch_size) for rows in triplets),
        )


def distinct(
    values: Int[Tensor, "*row slot"], filler: int
) -> tuple[Int[Tensor, "*row slot"], Int64[Tensor, "*row slot"]]:
    """
    As `torch.unique` of every row, without waiting for the device to say how many there are.

    Parameters
    ----------
    values
        Any numbers.
    filler
        What stands behind the last different value of a row.

    Returns
    -------
    torch.Tensor
        The different values, rising, then fillers.
    torch.Tensor
        For every value its place among them.
    """
    if values.device.type == "cpu":  # NumPy sorts several numbers at a time, and takes a fifth as long
        order = torch.from_numpy(np.argsort(values.numpy(), axis=-1))
        ordered = values.gather(-1, order)
    else:
        ordered, order = values.sort(dim=-1)
    is_first = F.pad(ordered[..., 1:] != ordered[..., :-1], (1, 0), value=True)
    rank = is_first.cumsum(dim=-1) - 1
    compact = torch.full_like(values, filler).scatter_(-1, rank, ordered)
    return compact, torch.empty_like(order).scatter_(-1, order, rank)
