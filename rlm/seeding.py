"""Named random streams: one seed owns many, and using one never moves another."""

import zlib

import numpy as np

from rlm.errors import InputError

STREAMS = (
    "split",
    "negatives",
    "init",
    "order",
    "random_triplets",
    "random_order",
    "audit",
    "shuffle",
    "train_fraction",
    "random_labels",
    "head",
    "motion",
)


def stream(seed: int, name: str, *keys: int) -> np.random.Generator:
    """
    The generator of one named stream of a seed.

    Parameters
    ----------
    seed
        Non-negative integer.
    name
        One of ``STREAMS``.
    keys
        Further non-negative integers (an epoch, say) that choose an independent part of the stream.

    Returns
    -------
    numpy.random.Generator
        The same one for the same arguments, on every machine.

    Raises
    ------
    InputError
        If the name is unknown or the seed negative.

    Notes
    -----
    Derived with ``numpy.random.SeedSequence``, whose spawn keys give independent streams. The name enters as
    a checksum, so that a new name moves no existing stream.
    """
    if seed < 0:
        raise InputError(f"expected a seed of at least 0, found {seed}")
    if name not in STREAMS:
        raise InputError(f"unknown random stream {name!r}; known streams: {', '.join(STREAMS)}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *keys)))
