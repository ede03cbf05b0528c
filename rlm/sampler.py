"""Samplers: the order in which a seed sees triplets, real or random ones, made on the device that trains."""

from collections.abc import Iterator
from copy import copy
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, Int32, Int64
from torch import Tensor

from rlm.config import Batching
from rlm.data.corpus import Triplets
from rlm.errors import InputError
from rlm.seeding import stream
from rlm.slicer import Components
from rlm.variants import Redraw

Device = torch.device | str
TripletRows = Int32[Tensor, "triplet 3"]
SHUFFLE_ROUNDS = 16
CHUNKS_ON_GPU = 32  # drawn at once there, since every launch for every seed costs more than its numbers do
S = TypeVar("S", bound="RealTriplets | RandomTriplets")


class RealTriplets:
    """
    The training triplets, in a new random order every epoch.

    Parameters
    ----------
    triplets
        Phrase indices ``[triplet, 3]``, at least one triplet.
    seed
        Owner of the stream ``order``.
    size
        An epoch ends after this many triplets, at least 1, a new random choice each time; by default after all.
    batching
        ``"flat"``: every triplet has its own place in the order. ``"grouped"``: the triplets of one pair of anchor and
        positive, in either role, follow each other, so that a batch has fewer different phrases and costs less.
    device
        Where the triplets are made.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> real = rlm.RealTriplets(np.array([[0, 1, 2], [0, 1, 3], [4, 5, 2]], np.int32), seed=0)
    >>> [chunk.tolist() for chunk in real.epoch(1, chunk=2)]
    [[[0, 1, 2], [0, 1, 3]], [[4, 5, 2]]]
    """

    def __init__(
        self,
        triplets: Triplets,
        seed: int,
        size: int | None = None,
        batching: Batching = "flat",
        device: Device = "cpu",
    ) -> None:
        if size is not None and size < 1:
            raise InputError(f"expected at least one triplet per epoch, found {size}")
        self.seed, self.lengths = seed, None
        self.size = len(triplets) if size is None else min(size, len(triplets))
        if batching == "grouped":
            triplets, self.lengths = _sort_by_pair(triplets)
        self.triplets = torch.from_numpy(triplets).to(device)

    def __len__(self) -> int:
        return self.size

    def with_seed(self, seed: int) -> "RealTriplets":
        """Return the same triplets, which are held once, in the order of another seed."""
        return _with_seed(self, seed)

    def epoch(self, epoch: int, chunk: int) -> Iterator[TripletRows]:
        """Yield the triplets of an epoch, none twice, up to `chunk` at a time."""
        order = torch.from_numpy(self._order(epoch)).to(self.triplets.device)
        yield from (self.triplets[rows] for rows in order.split(chunk))

    def _order(self, epoch: int) -> Int[np.ndarray, " triplet"]:
        generator = stream(self.seed, "order", epoch)
        if self.lengths is None:
            return generator.choice(len(self.triplets), self.size, replace=False)
        pairs = generator.permutation(len(self.lengths))[: self.size]
        pairs = pairs[: np.searchsorted(self.lengths[pairs].cumsum(), self.size) + 1]  # as many as fill the epoch
        starts, lengths = (self.lengths.cumsum() - self.lengths)[pairs], self.lengths[pairs]
        within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        return (np.repeat(starts, lengths) + within)[: self.size]


def _with_seed(source: S, seed: int) -> S:
    other = copy(source)
    other.seed = seed
    return other


def triplets_per_pair(triplets: Triplets) -> int:
    """Return how many negatives a pair of anchor and positive has: the rounded mean over different pairs."""
    return round(_sort_by_pair(triplets)[1].mean())


def _sort_by_pair(triplets: Triplets) -> tuple[Triplets, Int64[np.ndarray, " pair"]]:
    """Sort triplets by their pair, whichever of the two is the anchor; return them and how many each pair has."""
    pairs = np.sort(triplets[:, :2], axis=1)
    order = np.lexsort(pairs.T)
    pairs = pairs[order]
    is_first = np.append(True, (pairs[1:] != pairs[:-1]).any(axis=1))
    return triplets[order], np.diff(np.append(np.flatnonzero(is_first), len(pairs)))


class RandomTriplets:
    """
    Random triplets: anchor, positive and negative drawn independently from their component lists.

    Each triplet is a function of (seed, epoch, index), so that a set of any size needs no storage. The lists have
    repeats: a phrase is drawn as often as training uses it.

    Parameters
    ----------
    components
        The lists to draw from, see `Slices.components`.
    seed
        Owner of the streams ``random_triplets`` and ``random_order``.
    size
        Triplets per epoch, at least 1.
    redraw
        ``"epoch"``: new triplets every epoch, as arXiv 1811.01640 reshuffles its labels (section 3). ``"once"``: one
        fixed set to memorise, in a new order every epoch.
    per_pair
        This many consecutive triplets share their random anchor and positive, as in grouped batches.
    device
        Where the triplets are made.

    Examples
    --------
    >>> import numpy as np, rlm, torch
    >>> from rlm.slicer import Components
    >>> anchors, positives, negatives = np.arange(30, dtype=np.int32).reshape(3, 10)
    >>> random = rlm.RandomTriplets(Components(anchors, positives, negatives), seed=0, size=4)
    >>> random.draw(1, torch.tensor([0, 1])).tolist()
    [[5, 15, 21], [1, 15, 24]]
    """

    def __init__(
        self,
        components: Components,
        seed: int,
        size: int,
        redraw: Redraw = "epoch",
        per_pair: int = 1,
        device: Device = "cpu",
    ) -> None:
        if redraw not in ("epoch", "once"):
            raise InputError(f"expected redraw 'epoch' or 'once', found {redraw!r}")
        if size < 1:
            raise InputError(f"expected at least one random triplet per epoch, found {size}")
        if per_pair < 1:
            raise InputError(f"expected at least one triplet per pair, found {per_pair}")
        self.components = [torch.from_numpy(part).to(device) for part in components]
        self.seed, self.size, self.redraw, self.per_pair, self.device = seed, size, redraw, per_pair, device

    def __len__(self) -> int:
        return self.size

    def with_seed(self, seed: int) -> "RandomTriplets":
        """Return the draws of another seed from the same lists, which are held once."""
        return _with_seed(self, seed)

    def draw(self, epoch: int, index: Int64[Tensor, " triplet"]) -> TripletRows:
        """Return the random triplets with the given numbers, from 0: the same in every call and on every device."""
        key = stream(self.seed, "random_triplets", 0 if self.redraw == "once" else epoch)
        key = int(key.integers(2**64, dtype=np.uint64).astype(np.int64))
        pair = index // self.per_pair
        columns = [
            part[_splitmix(key, number * 3 + slot).remainder(len(part))]
            for slot, (part, number) in enumerate(zip(self.components, (pair, pair, index), strict=True))
        ]
        return torch.stack(columns, dim=1)

    def epoch(self, epoch: int, chunk: int) -> Iterator[TripletRows]:
        """Yield all random triplets of an epoch, up to `chunk` at a time."""
        at_once = chunk if self.components[0].device.type == "cpu" else chunk * CHUNKS_ON_GPU
        for start in range(0, self.size, at_once):
            index = torch.arange(start, min(start + at_once, self.size), device=self.device)
            drawn = self.draw(epoch, index if self.redraw == "epoch" else self._shuffled(epoch, index))
            yield from drawn.split(chunk)

    def _shuffled(self, epoch: int, index: Int64[Tensor, " triplet"]) -> Int64[Tensor, " triplet"]:
        pairs = max(self.size // self.per_pair, 1)  # a last pair with fewer triplets stays last
        pair = index // self.per_pair
        shuffled = _swap_or_not(pair.clamp(max=pairs - 1), pairs, stream(self.seed, "random_order", epoch))
        return torch.where(pair < pairs, shuffled * self.per_pair + index % self.per_pair, index)


def _swap_or_not(index: Int64[Tensor, " draw"], size: int, generator: np.random.Generator) -> Int64[Tensor, " draw"]:
    """
    Apply a random permutation of ``range(size)`` to these numbers, without storing it.

    Hoang, Morris and Rogaway, "An enciphering scheme based on a card shuffle", CRYPTO 2012, figure 1. Multiply-shift
    hashing decides (Dietzfelbinger et al., Journal of Algorithms 25, 1997, section 2.3): the order need not be secret.
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
    Return the upper 63 bits of outputs number `counter` of the SplitMix64 generator that starts at `key`.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17. Its numbers
    are unsigned, PyTorch's signed: factors are complements, shifts are masked, products wrap around to the same bits.
    """
    z = (counter + 1) * (0x9E3779B97F4A7C15 - 2**64) + key
    z = (z ^ (z >> 30 & 2**34 - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ (z >> 27 & 2**37 - 1)) * (0x94D049BB133111EB - 2**64)
    return (z ^ (z >> 31 & 2**33 - 1)) >> 1 & 2**63 - 1
