"""Batches: from triplets of phrase indices, one list per seed, to the tensors of one training step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from rlm.block import Block
from rlm.data.phrases import PAD
from rlm.errors import InputError
from rlm.sampler import RandomTriplets, RealTriplets, S
from rlm.seeding import stream
from rlm.slicer import Slices

# Not `sampler.TripletRows`: seeds may have different numbers of them.
TripletRows = Int32[Tensor, "_ 3"]
Source = RealTriplets | RandomTriplets
STEPS_AT_ONCE = 32


@dataclass(frozen=True)
class Step:
    """
    The data of one training step for S seeds.

    `inputs` are arguments of `Block.embed`; `targets` are triplets of rows of the embeddings, or labels. `mask` is
    False for padding. `sizes` counts each seed's targets without padding, known without asking the device.
    """

    inputs: tuple[Any, ...]
    targets: Int64[Tensor, "seed target *slot"]
    mask: Bool[Tensor, "seed target"]
    sizes: tuple[int, ...]

    @property
    def weights(self) -> Float32[Tensor, "seed target"]:
        """Weight of each target in its seed's mean loss; zero for padding."""
        return self.mask / self.mask.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class Batch(Step):
    """Triplets of S seeds, with each phrase of a seed once; `phrases` are rising indices, then any for padding."""

    phrases: Int32[Tensor, "seed phrase"]

    @property
    def tokens(self) -> Int32[Tensor, "seed phrase token"]:
        """Token ids, longest phrase first, zeros after its end; empty phrases pad seeds that have fewer."""
        return self.inputs[0]

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """How many phrases of any seed may have a token at each position, as in ``rnn.PackedSequence``."""
        return self.inputs[1]

    @property
    def triplets(self) -> Int64[Tensor, "seed triplet 3"]:
        """Rows of `tokens`."""
        return self.targets

    def rows(self, rows: Int[np.ndarray, " row"]) -> "Batch":
        """Return the triplets of the seeds at these places."""
        sizes = tuple(self.sizes[row] for row in rows)
        inputs = self.tokens[rows], self.batch_sizes
        return Batch(inputs, self.targets[rows], self.mask[rows], sizes, self.phrases[rows])


class PhraseTable:
    """The tokens of all phrases, as each seed of a block reads them, on the device that trains."""

    def __init__(self, slices: Sequence[Slices], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        lengths = (slices[0].tokens != PAD).sum(axis=1, dtype=np.int32)  # not those of phrases: padding may be read
        self.lengths = torch.from_numpy(lengths).to(device)
        self.filler = len(slices[0].phrases)  # the empty phrase, which sorts behind all others
        tables = {id(one): torch.from_numpy(one.tokens).to(device) for one in slices}
        # Seeds with the same split share its table; seeds with different splits do not know the same words.
        self.tokens = list(tables.values()) if len(tables) == 1 else [tables[id(one)] for one in slices]

    def __call__(self, phrases: Int[Tensor, "seed phrase"], width: int) -> Int32[Tensor, "seed phrase token"]:
        """Look up the first `width` tokens of each seed's phrases."""
        if len(self.tokens) == 1:
            return self.tokens[0][phrases, :width]
        return torch.stack([tokens[rows, :width] for tokens, rows in zip(self.tokens, phrases, strict=True)])


def one_per_seed(block: Block, slices: Slices | Sequence[Slices]) -> Sequence[Slices]:
    """Return the slices of every seed of a block: the given ones, or one for all seeds."""
    mine = [slices] * len(block.seeds) if isinstance(slices, Slices) else slices
    if len(mine) != len(block.seeds):
        raise InputError(
            f"expected one Slices, or one per seed ({len(block.seeds)}), found {len(mine)}; "
            "slice the corpus once per seed"
        )
    if any(one.phrases is not mine[0].phrases for one in mine):
        raise InputError("expected slices of one corpus, found several corpora; slice the same one for every seed")
    return mine


def for_seeds(make: Callable[[Slices], S], slices: Sequence[Slices], seeds: Sequence[int]) -> list[S]:
    """Make one source per seed; seeds with the same slices share what it holds."""
    made = {key: make(one) for key, one in {id(one): one for one in slices}.items()}
    return [made[id(one)].with_seed(seed) for seed, one in zip(seeds, slices, strict=True)]


def epoch_order(
    seeds: Sequence[int], sizes: Sequence[int], epoch: int, name: str = "order"
) -> Int64[np.ndarray, "seed row"]:
    """Shuffle the rows of each seed by its stream `name`; padding stays behind them."""
    return np.stack(
        [
            np.append(stream(seed, name, epoch).permutation(size), np.arange(size, max(sizes)))
            for seed, size in zip(seeds, sizes, strict=True)
        ]
    )


def step_sizes(sizes: Sequence[int], start: int, batch_size: int) -> tuple[int, ...]:
    """Return how many of each seed's targets the batch has that begins at `start`."""
    return tuple(min(max(size - start, 0), batch_size) for size in sizes)


def epoch_batches(sources: Sequence[Source], table: PhraseTable, epoch: int, batch_size: int) -> Iterator[Batch]:
    """Yield the batches of an epoch, for one source per seed; a seed with fewer batches than others gets empty ones."""
    chunks = (source.epoch(epoch, batch_size * STEPS_AT_ONCE) for source in sources)
    nothing = torch.empty((0, 3), dtype=torch.int32, device=table.device)
    for chunk in zip_longest(*chunks, fillvalue=nothing):
        yield from cut(chunk, table, batch_size)


def one_batch(triplets: Sequence[TripletRows], table: PhraseTable) -> Batch:
    """Return all triplets, one list per seed, as a single batch."""
    return next(cut(triplets, table, max(map(len, triplets))))


def split_batch(block: Block, slices: Slices | Sequence[Slices], split: str) -> Batch:
    """Return all triplets of a split as one batch."""
    mine = one_per_seed(block, slices)
    triplets = [torch.from_numpy(getattr(one, split)).to(block.device) for one in mine]
    return one_batch(triplets, PhraseTable(mine, block.device))


def cut(triplets: Sequence[TripletRows], table: PhraseTable, batch_size: int) -> Iterator[Batch]:
    """Cut each seed's triplets into batches; building many at once is what makes them cheap."""
    steps = -(-max(map(len, triplets)) // batch_size)
    padded = torch.full((len(triplets), steps * batch_size, 3), table.filler, dtype=torch.int32, device=table.device)
    for row, mine in zip(padded, triplets, strict=True):
        row[: len(mine)] = mine
    indices = padded.view(len(triplets), steps, batch_size, 3)
    phrases, places = distinct(indices.flatten(2), table.filler)
    mask = indices[..., 0] != table.filler
    places = places.view(indices.shape) * mask[..., None]  # padding may name any phrase
    lengths = table.lengths[phrases.long()]
    positions = torch.arange(table.tokens[0].shape[1], dtype=lengths.dtype, device=table.device)
    # Lengths fall along a step's phrases, so the first one that is too short tells how many reach a position.
    reach = torch.searchsorted(-lengths, (-positions).expand(*lengths.shape[:2], -1).contiguous())
    counts = list(map(len, triplets))
    for step, sizes in enumerate(reach.amax(dim=0).tolist()):  # the only wait for the device in STEPS_AT_ONCE steps
        batch_sizes = tuple(size for size in sizes if size)
        mine = phrases[:, step, : sizes[0]]
        yield Batch(
            inputs=(table(mine, len(batch_sizes)), batch_sizes),
            targets=places[:, step],
            mask=mask[:, step],
            sizes=step_sizes(counts, step * batch_size, batch_size),
            phrases=mine,
        )


def distinct(
    values: Int[Tensor, "*row slot"], filler: int
) -> tuple[Int[Tensor, "*row slot"], Int64[Tensor, "*row slot"]]:
    """Return each row's distinct values, rising, then fillers, and every value's place; torch.unique would block."""
    if values.device.type == "cpu":  # NumPy sorts several numbers at a time, in a fifth of the time
        order = torch.from_numpy(np.argsort(values.numpy(), axis=-1))
        ordered = values.gather(-1, order)
    else:
        ordered, order = values.sort(dim=-1)
    is_first = F.pad(ordered[..., 1:] != ordered[..., :-1], (1, 0), value=True)
    rank = is_first.cumsum(dim=-1) - 1
    compact = torch.full_like(values, filler).scatter_(-1, rank, ordered)
    return compact, torch.empty_like(order).scatter_(-1, order, rank)
