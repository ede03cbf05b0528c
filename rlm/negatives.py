"""Negatives: phrases that are not known to be relevant, drawn from the candidates of a split."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32

from rlm.errors import InputError

Triplets = Int32[np.ndarray, "triplet 3"]


def draw_negatives(
    pairs: Int32[np.ndarray, "pair 2"],
    negatives: int,
    rng: np.random.Generator,
    texts: Sequence[str],
) -> Triplets:
    """
    Give each pair its negatives, alternately (anchor, positive, positive') and (positive, anchor, anchor').

    A negative is drawn from the same side of the other pairs, with repeats, so that the candidate alone does
    not tell positives from negatives. It is never the query itself nor a phrase known to be relevant to it.

    Parameters
    ----------
    pairs
        Phrase indices of anchor and positive.
    negatives
        Triplets per pair, at least 1.
    rng
        Source of the draws.
    texts
        Texts of the phrases, for error messages.

    Returns
    -------
    numpy.ndarray
        ``len(pairs) * negatives`` triplets, those of one pair together.

    Raises
    ------
    InputError
        If `negatives` is not positive or a phrase is relevant to every candidate.
    """
    if negatives < 1:
        raise InputError(f"expected at least 1 negative per pair, found {negatives}")
    known = _relevance_keys(pairs)
    triplets = np.empty((len(pairs), negatives, 3), np.int32)
    for side in (0, 1):
        mine = triplets[:, side::2]
        mine[..., 0] = pairs[:, side, None]
        mine[..., 1] = pairs[:, 1 - side, None]
        drawn = _draw_irrelevant(mine[..., 0].ravel(), pairs[:, 1 - side], known, rng, texts)
        mine[..., 2] = drawn.reshape(mine.shape[:2])
    return triplets.reshape(-1, 3)


def redraw_negatives(
    rows: Triplets, where: Bool[np.ndarray, " triplet"], rng: np.random.Generator, texts: Sequence[str]
) -> Triplets:
    """
    Replace some of the negatives that triplets came with.

    Parameters
    ----------
    rows
        Triplets; the candidates are their positives.
    where
        Which negatives to replace.
    rng
        Source of the draws.
    texts
        Texts of the phrases, for error messages.

    Returns
    -------
    numpy.ndarray
        All triplets.

    Raises
    ------
    InputError
        If a phrase is relevant to every candidate.
    """
    triplets = rows.copy()
    known = _relevance_keys(rows[:, :2])
    triplets[where, 2] = _draw_irrelevant(rows[where, 0], rows[:, 1], known, rng, texts)
    return triplets


def is_contradicted(rows: Triplets) -> Bool[np.ndarray, " triplet"]:
    """
    Where a negative is known, from other rows, to be relevant to the anchor.

    Parameters
    ----------
    rows
        Triplets.

    Returns
    -------
    numpy.ndarray
        One value per triplet.
    """
    return _is_relevant(rows[:, 0], rows[:, 2], _relevance_keys(rows[:, :2]))


def _key(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first.astype(np.int64) << 32 | second


def _relevance_keys(pairs: Int[np.ndarray, "pair 2"]) -> np.ndarray:
    """Sorted keys of all relevant (query, candidate) pairs, in both directions."""
    return np.unique(np.concatenate([_key(*pairs.T), _key(*pairs.T[::-1])]))


def _is_relevant(query: np.ndarray, candidate: np.ndarray, known: np.ndarray) -> np.ndarray:
    keys = _key(query, candidate)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return (known[place] == keys) | (query == candidate)


def _draw_irrelevant(
    query: Int32[np.ndarray, " draw"],
    pool: Int32[np.ndarray, " candidate"],
    known: Int[np.ndarray, " key"],
    rng: np.random.Generator,
    texts: Sequence[str],
) -> Int32[np.ndarray, " draw"]:
    drawn = rng.choice(pool, len(query))
    wrong = np.flatnonzero(_is_relevant(query, drawn, known))
    for _ in range(10):
        if not len(wrong):
            return drawn
        drawn[wrong] = rng.choice(pool, len(wrong))
        wrong = wrong[_is_relevant(query[wrong], drawn[wrong], known)]
    # What rejection has not settled by now is relevant to most of the pool: choose from the rest.
    for phrase in np.unique(query[wrong]):
        rest = pool[~_is_relevant(np.full(len(pool), phrase, np.int32), pool, known)]
        if not len(rest):
            raise InputError(
                f"no negative can be drawn for {texts[phrase]!r}: all {len(np.unique(pool))} candidates are "
                "relevant to it; give more pairs"
            )
        mine = wrong[query[wrong] == phrase]
        drawn[mine] = rng.choice(rest, len(mine))
    return drawn
