"""Named random streams: each seed has many, and draws from one never affect another."""

import zlib

import numpy as np

from rlm.errors import InputError

STREAMS = (
    *("split", "negatives", "init", "order", "random_triplets", "random_order", "audit", "shuffle", "train_fraction"),
    *("random_labels", "head", "motion", "dropout"),
)


def stream(seed: int, name: str, *keys: int) -> np.random.Generator:
    """
    Return the generator of a named stream of a seed; `keys`, such as an epoch, select an independent part of it.

    The name enters as a checksum, so that a new name changes no existing stream. Spawn keys of
    ``numpy.random.SeedSequence`` give independent streams, the same on every machine.
    """
    if seed < 0:
        raise InputError(f"expected a seed of at least 0, found {seed}")
    if name not in STREAMS:
        raise InputError(f"unknown random stream {name!r}; known streams: {', '.join(STREAMS)}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *keys)))
