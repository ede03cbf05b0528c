"""Samplers: the order in which a seed sees triplets, real ones or random ones."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Int, Int32, UInt64

from rlm.errors import InputError
from rlm.negatives import Triplets
from rlm.seeding import stream
from rlm.slicer import Components

Redraw = Literal["epoch", "once"]


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
    """

    def __init__(self, triplets: Triplets, seed: int, size: int | None = None) -> None:
        if size is not None and size < 1:
            raise InputError(f"expected at least one triplet per epoch, found {size}")
        self.triplets = triplets
        self.seed = seed
        self.size = len(triplets) if size is None else min(size, len(triplets))

    def __len__(self) -> int:
        return self.size

    def epoch(self, epoch: int, chunk: int) -> Iterator[Triplets]:
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
        numpy.ndarray
            Up to `chunk` triplets.
        """
        order = stream(self.seed, "order", epoch).permutation(len(self.triplets))[: self.size]
        for start in range(0, self.size, chunk):
            yield self.triplets[order[start : start + chunk]]


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
    """

    def __init__(self, components: Components, seed: int, size: int, redraw: Redraw = "epoch") -> None:
        if redraw not in ("epoch", "once"):
            raise InputError(f"expected redraw 'epoch' or 'once', found {redraw!r}")
        if size < 1:
            raise InputError(f"expected at least one random triplet per epoch, found {size}")
        self.components = components
        self.seed = seed
        self.size = size
        self.redraw = redraw

    def __len__(self) -> int:
        return self.size

    def draw(self, epoch: int, index: Int[np.ndarray, " triplet"]) -> Triplets:
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
        numpy.ndarray
            One triplet per number, the same whenever it is asked for.
        """
        key = stream(self.seed, "random_triplets", 0 if self.redraw == "once" else epoch)
        bits = _splitmix(key.integers(2**64, dtype=np.uint64), index.astype(np.uint64)[:, None] * 3 + SLOTS)
        columns = [part[bits[:, slot] % np.uint64(len(part))] for slot, part in enumerate(self.components)]
        return np.stack(columns, axis=1)

    def epoch(self, epoch: int, chunk: int) -> Iterator[Triplets]:
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
        numpy.ndarray
            Up to `chunk` triplets.
        """
        order = self._order(epoch)
        for start in range(0, self.size, chunk):
            index = np.arange(start, min(start + chunk, self.size))
            yield self.draw(epoch, index if order is None else order[index])

    def _order(self, epoch: int) -> Int32[np.ndarray, " triplet"] | None:
        if self.redraw == "epoch":
            return None
        return stream(self.seed, "random_order", epoch).permutation(np.arange(self.size, dtype=np.int32))


SLOTS = np.arange(3, dtype=np.uint64)


def _splitmix(key: np.uint64, counter: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """
    Outputs number `counter` of the SplitMix64 generator that starts at `key`.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17. Unsigned
    arithmetic wraps around, as the algorithm requires.
    """
    z = key + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
