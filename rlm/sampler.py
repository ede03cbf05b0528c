"""Samplers: the order in which a seed sees triplets, real ones or random ones, made on the device that trains."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, Int32, Int64
from torch import Tensor

from rlm.data.negatives import Triplets
from rlm.errors import InputError
from rlm.seeding import stream
from rlm.slicer import Components

Redraw = Literal["epoch", "once"]
Batching = Literal["flat", "grouped"]
TripletRows = Int32[Tensor, "triplet 3"]
SHUFFLE_ROUNDS = 16


class RealTriplets:
    """
    The training triplets, in a new random order every epoch.

    Parameters
    ----------
    triplets
        Phrase indices, at least one triplet.
    seed
        Owner of the stream ``order``.
    size
        An epoch ends after this many triplets, a new random choice each time; all of them by default, and never
        more.
    batching
        ``"flat"``: every triplet has its own place in the order. ``"grouped"``: the triplets of one pair of
        anchor and positive, in either role, follow each other, so that a batch has fewer different phrases and
        costs less.
    device
        Where the triplets are made.
    """

    def __init__(
        self,
        triplets: Triplets,
        seed: int,
        size: int | None = None,
        batching: Batching = "flat",
        device: torch.device | str = "cpu",
    ) -> None:
        if size is not None and size < 1:
            raise InputError(f"expected at least one triplet per epoch, found {size}")
        self.seed = seed
        self.size = len(triplets) if size is None else min(size, len(triplets))
        if batching == "grouped":
            triplets, self.lengths = _by_pair(triplets)
            self.starts = self.lengths.cumsum() - self.lengths
        else:
            self.lengths = None
        self.triplets = torch.from_numpy(triplets).to(device)

    def __len__(self) -> int:
        return self.size

    def epoch(self, epoch: int, chunk: int) -> Iterator[TripletRows]:
        """
        The triplets of an epoch, none twice.

        Parameters
        ----------
        epoch
            Number of the epoch.
        chunk
            Triplets per item; the last item may have fewer.

        Yields
        ------
        torch.Tensor
            Up to `chunk` triplets.
        """
        order = torch.from_numpy(self._order(epoch)).to(self.triplets.device)
        for rows in order.split(chunk):
            yield self.triplets[rows]

    def _order(self, epoch: int) -> Int[np.ndarray, " triplet"]:
        generator = stream(self.seed, "order", epoch)
        if self.lengths is None:
            return generator.choice(len(self.triplets), self.size, replace=False)
        groups = generator.permutation(len(self.lengths))[: self.size]
        ends = self.lengths[groups].cumsum()
        groups = groups[: np.searchsorted(ends, self.size) + 1]  # as many as fill the epoch
        starts, lengths = self.starts[groups], self.lengths[groups]
        within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        return (np.repeat(starts, lengths) + within)[: self.size]


def triplets_per_pair(triplets: Triplets) -> int:
    """
    How many negatives a pair of anchor and positive has.

    Parameters
    ----------
    triplets
        At least one.

    Returns
    -------
    int
        The mean over different pairs, rounded.
    """
    return round(_by_pair(triplets)[1].mean())


def _by_pair(triplets: Triplets) -> tuple[Triplets, Int64[np.ndarray, " pair"]]:
    """The triplets in order of their pairs, whichever of a pair is the anchor, and how many each pair has."""
    pairs = np.sort(triplets[:, :2], axis=1)
    order = np.lexsort(pairs.T)
    pairs = pairs[order]
    is_first = np.append(True, (pairs[1:] != pairs[:-1]).any(axis=1))
    return triplets[order], np.diff(np.append(np.flatnonzero(is_first), len(pairs)))


class RandomTriplets:
    """
    Random triplets: anchor, positive and negative drawn independently from their component lists.

    Any triplet is computed from (seed, epoch, index) when it is asked for, so that a set of any size needs no
    storage. The component lists keep their repeats: a phrase is drawn as often as training uses it.

    Parameters
    ----------
    components
        The lists to draw from.
    seed
        Owner of the stream ``random_triplets``.
    size
        Triplets per epoch.
    redraw
        ``"epoch"``: new triplets every epoch, as arXiv 1811.01640 reshuffles its labels (section 3).
        ``"once"``: the same triplets for ever, in a new order every epoch: one fixed set to memorise.
    per_pair
        So many triplets in a row share one random anchor and one random positive; see `RealTriplets` on grouped
        batches.
    device
        Where the triplets are made.
    """

    def __init__(
        self,
        components: Components,
        seed: int,
        size: int,
        redraw: Redraw = "epoch",
        per_pair: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if redraw not in ("epoch", "once"):
            raise InputError(f"expected redraw 'epoch' or 'once', found {redraw!r}")
        if size < 1:
            raise InputError(f"expected at least one random triplet per epoch, found {size}")
        if per_pair < 1:
            raise InputError(f"expected at least one triplet per pair, found {per_pair}")
        self.components = [torch.from_numpy(part).to(device) for part in components]
        self.per_pair = per_pair
        self.device = device
        self.seed = seed
        self.size = size
        self.redraw = redraw

    def __len__(self) -> int:
        return self.size

    def draw(self, epoch: int, index: Int64[Tensor, " triplet"]) -> TripletRows:
        """
        The random triplets with the given numbers.

        Parameters
        ----------
        epoch
            Number of the epoch; makes no difference under ``redraw="once"``.
        index
            Numbers from 0, in any order.

        Returns
        -------
        torch.Tensor
            One triplet per number, the same whenever it is asked for and on every device.
        """
        key = stream(self.seed, "random_triplets", 0 if self.redraw == "once" else epoch)
        key = int(key.integers(2**64, dtype=np.uint64).astype(np.int64))
        pair = index // self.per_pair
        columns = [
            part[_splitmix(key, number * 3 + slot).remainder(len(part))]
            for slot, (part, number) in enumerate(zip(self.components, (pair, pair, index), strict=True))
        ]
        return torch.stack(columns, dim=1)

    def epoch(self, epoch: int, chunk: int) -> Iterator[TripletRows]:
        """
        All random triplets of an epoch; see `RealTriplets.epoch`.

        Parameters
        ----------
        epoch
            Number of the epoch.
        chunk
            Triplets per item; the last item may have fewer.

        Yields
        ------
        torch.Tensor
            Up to `chunk` triplets.
        """
        for start in range(0, self.size, chunk):
            index = torch.arange(start, min(start + chunk, self.size), device=self.device)
            yield self.draw(epoch, index if self.redraw == "epoch" else self._shuffled(epoch, index))

    def _shuffled(self, epoch: int, index: Int64[Tensor, " triplet"]) -> Int64[Tensor, " triplet"]:
        pairs = max(self.size // self.per_pair, 1)  # a last one that has fewer triplets stays last
        pair = index // self.per_pair
        shuffled = _swap_or_not(pair.clamp(max=pairs - 1), pairs, stream(self.seed, "random_order", epoch))
        return torch.where(pair < pairs, shuffled * self.per_pair + index % self.per_pair, index)


def _swap_or_not(index: Int64[Tensor, " draw"], size: int, generator: np.random.Generator) -> Int64[Tensor, " draw"]:
    """
    Where a random permutation of ``range(size)`` takes these numbers, without storing it.

    Hoang, Morris and Rogaway, "An enciphering scheme based on a card shuffle", CRYPTO 2012, figure 1: every round
    matches each number with another one, and swaps the two or not. That is decided by multiply-shift hashing
    (Dietzfelbinger et al., Journal of Algorithms 25, 1997, section 2.3): no secret is kept here.
    """
    for _ in range(SHUFFLE_ROUNDS):
        partner = int(generator.integers(size)) - index
        partner = torch.where(partner < 0, partner + size, partner)
        factor, offset = map(int, generator.integers(-(2**63), 2**63, 2))
        is_swapped = torch.maximum(index, partner) * (factor | 1) + offset < 0
        index = torch.where(is_swapped, partner, index)
    return index


def _splitmix(key: int, counter: Int64[Tensor, " draw"]) -> Int64[Tensor, " draw"]:
    """
    The upper 63 bits of the outputs number `counter` of the SplitMix64 generator that starts at `key`.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17. Its numbers
    are unsigned, PyTorch's signed: products and sums wrap around to the same bits, shifts are masked.
    """
    z = (counter + 1) * _signed(0x9E3779B97F4A7C15) + key
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return _shift(z ^ _shift(z, 31), 1)


def _shift(bits: Int64[Tensor, " draw"], by: int) -> Int64[Tensor, " draw"]:
    return (bits >> by) & (2 ** (64 - by) - 1)


def _signed(bits: int) -> int:
    return bits - 2**64
