"""Negatives: phrases that are not known to be relevant, drawn from the candidates of a split."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32

from rlm.data.similarity import most_alike, trigrams
from rlm.errors import InputError

Triplets = Int32[np.ndarray, "triplet 3"]

KINDS = ("random", "similar", "manual")
SPARE = 20  # so many of the most alike may turn out to be relevant
PLACES_AT_ONCE = 2**22


class Relevance:
    """
    What is known to be relevant to what.

    Parameters
    ----------
    pairs
        Phrase indices; relevance goes in both directions.
    group
        Of every phrase, where all phrases of a group are relevant to each other.
    """

    def __init__(self, pairs: Int[np.ndarray, "pair 2"], group: Int[np.ndarray, " phrase"] | None = None) -> None:
        self.keys = np.unique(np.concatenate([_key(*pairs.T), _key(*pairs.T[::-1])]))
        self.group = group

    def __call__(
        self, query: Int[np.ndarray, " draw"], candidate: Int[np.ndarray, " draw"]
    ) -> Bool[np.ndarray, " draw"]:
        """
        Whether candidates are known to be relevant to queries; a phrase is to itself.

        Parameters
        ----------
        query, candidate
            Phrase indices.

        Returns
        -------
        numpy.ndarray
            One value per draw.
        """
        keys = _key(query, candidate)
        found = np.isin(keys, self.keys) | (query == candidate)
        return found if self.group is None else found | (self.group[query] == self.group[candidate])


def draw_negatives(
    pairs: Int32[np.ndarray, "pair 2"],
    negatives: int,
    rng: np.random.Generator,
    texts: Sequence[str],
    *,
    relevance: Relevance | None = None,
    kinds: Mapping[str, float | int] | None = None,
    irrelevant: Int32[np.ndarray, "irrelevant 2"] | None = None,
) -> tuple[Triplets, int]:
    """
    Give each pair its negatives, alternately (anchor, positive, positive') and (positive, anchor, anchor').

    A random negative is drawn from the same side of the other pairs, with repeats, so that the candidate alone does
    not tell positives from negatives. A similar one is of that side as well, without regard to how often it stands
    there. A manual one may be any phrase; where it is known for the other side of the pair only, that side becomes the
    anchor. None is the query itself or known to be relevant to it.

    Parameters
    ----------
    pairs
        Phrase indices of anchor and positive.
    negatives
        Triplets per pair, at least 1.
    rng
        Source of the draws.
    texts
        Texts of the phrases.
    relevance
        What is relevant; by default the pairs alone.
    kinds
        Shares of ``"random"`` negatives, ``"similar"`` ones (the most alike to the query by character trigrams) and
        ``"manual"`` ones (known to be irrelevant to the query); all random by default.
    irrelevant
        Pairs of phrases, for manual negatives.

    Returns
    -------
    numpy.ndarray
        ``len(pairs) * negatives`` triplets, those of one pair together; with manual negatives none twice, and so fewer.
    int
        How many negatives are random because there was none of the kind that was wanted.

    Raises
    ------
    InputError
        If `negatives` is not positive, or a phrase is relevant to every candidate.
    """
    if negatives < 1:
        raise InputError(f"expected at least 1 negative per pair, found {negatives}")
    relevance = relevance or Relevance(pairs)
    triplets = np.empty((len(pairs), negatives, 3), np.int32)
    for side in (0, 1):
        mine = triplets[:, side::2]
        mine[..., 0] = pairs[:, side, None]
        mine[..., 1] = pairs[:, 1 - side, None]
        drawn = _draw_irrelevant(mine[..., 0].ravel(), pairs[:, 1 - side], relevance, rng, texts)
        mine[..., 2] = drawn.reshape(mine.shape[:2])
    missing = 0
    for kind, where in _deal_kinds(kinds or {"random": 1}, triplets.shape[:2], rng).items():
        wanted = triplets[where]
        if kind == "similar":
            sides, ranks = _sides_and_ranks(where)
            found = _most_similar(wanted[:, 0], sides, ranks, pairs, relevance, texts)
        elif irrelevant is None or not len(irrelevant):
            found = np.full(len(wanted), -1)
        else:
            found = _choose_irrelevant(wanted[:, 0], irrelevant, rng)
            other = np.where(found < 0, _choose_irrelevant(wanted[:, 1], irrelevant, rng), -1)
            wanted[other >= 0, :2] = wanted[other >= 0, 1::-1]
            found = np.maximum(found, other)
        wanted[:, 2] = np.where(found >= 0, found, wanted[:, 2])
        triplets[where] = wanted
        missing += int((found < 0).sum())
    triplets = triplets.reshape(-1, 3)
    if kinds and "manual" in kinds:  # few are known: the same one again would only weigh more
        triplets = triplets[~pd.DataFrame(triplets).duplicated().to_numpy()]
    return triplets, missing


def check_kinds(kinds: Mapping[str, float | int]) -> None:
    """
    Require shares of the known kinds of negatives.

    Parameters
    ----------
    kinds
        Share of each kind.

    Raises
    ------
    InputError
        If a kind is unknown, or the shares are negative or do not sum to 1.
    """
    if not set(kinds) <= set(KINDS) or min(kinds.values(), default=-1) < 0 or not np.isclose(sum(kinds.values()), 1):
        raise InputError(f"expected shares of {', '.join(KINDS)} negatives with the sum 1, found {dict(kinds)}")


def _deal_kinds(
    kinds: Mapping[str, float | int], shape: tuple[int, int], rng: np.random.Generator
) -> dict[str, Bool[np.ndarray, "pair negative"]]:
    """Which negatives are to be of which kind, other than random."""
    check_kinds(kinds)
    shares = np.array(list(kinds.values()), float)
    dealt = rng.choice(len(kinds), shape, p=shares / shares.sum()) if len(kinds) > 1 else np.zeros(shape, int)
    return {kind: dealt == number for number, kind in enumerate(kinds) if kind != "random"}


def _sides_and_ranks(
    where: Bool[np.ndarray, "pair negative"],
) -> tuple[Int[np.ndarray, " draw"], Int[np.ndarray, " draw"]]:
    """The side that each of these negatives' query is from, and how many of the same side its pair has before it."""
    sides = np.broadcast_to(np.arange(where.shape[1]) % 2, where.shape)
    ranks = np.empty(where.shape, int)
    for side in (0, 1):
        ranks[:, side::2] = where[:, side::2].cumsum(axis=1) - 1
    return sides[where], ranks[where]


def _most_similar(
    query: Int[np.ndarray, " draw"],
    sides: Int[np.ndarray, " draw"],
    ranks: Int[np.ndarray, " draw"],
    pairs: Int32[np.ndarray, "pair 2"],
    relevance: Relevance,
    texts: Sequence[str],
) -> Int[np.ndarray, " draw"]:
    """For each query the irrelevant candidate of that rank; -1 where there are not so many."""
    used = np.unique(pairs)
    grams = trigrams([texts[phrase] for phrase in used])
    found = np.full(len(query), -1)
    for side in np.unique(sides):
        mine = np.flatnonzero(sides == side)
        pool = np.unique(pairs[:, 1 - side])
        wanted = int(ranks[mine].max()) + 1
        top = wanted + SPARE
        while len(mine):
            queries, row = np.unique(query[mine], return_inverse=True)
            ranked, has_more = [], []
            for some in np.array_split(queries, -(-len(queries) * top // PLACES_AT_ONCE)):
                places = most_alike(grams[np.searchsorted(used, some)], grams[np.searchsorted(used, pool)], top)
                asked = np.broadcast_to(some[:, None], places.shape)
                is_usable = (places >= 0) & ~relevance(asked.ravel(), pool[places].ravel()).reshape(places.shape)
                order = np.argsort(~is_usable, axis=1, kind="stable")[:, :wanted]  # usable ones first, most alike ahead
                of_rank = pool[np.take_along_axis(places, order, 1)]
                ranked.append(np.where(np.take_along_axis(is_usable, order, 1), of_rank, -1))
                has_more.append(places[:, -1] >= 0)
            found[mine] = np.concatenate(ranked)[row, ranks[mine]]
            # Where all of the most alike were relevant, look further.
            mine = mine[(found[mine] < 0) & np.concatenate(has_more)[row]]
            top *= 4
    return found


def _choose_irrelevant(
    query: Int[np.ndarray, " draw"], irrelevant: Int32[np.ndarray, "irrelevant 2"], rng: np.random.Generator
) -> Int[np.ndarray, " draw"]:
    """For each query one of the phrases known to be irrelevant to it; -1 where there is none."""
    both = np.concatenate([irrelevant, irrelevant[:, ::-1]])
    both = both[np.lexsort(both.T[::-1])]
    start, stop = (np.searchsorted(both[:, 0], query, side) for side in ("left", "right"))
    chosen = start + (rng.random(len(query)) * (stop - start)).astype(int)
    return np.where(stop > start, both[np.minimum(chosen, len(both) - 1), 1], -1)


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
    triplets[where, 2] = _draw_irrelevant(rows[where, 0], rows[:, 1], Relevance(rows[:, :2]), rng, texts)
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
    return Relevance(rows[:, :2])(rows[:, 0], rows[:, 2])


def _key(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first.astype(np.int64) << 32 | second


def _draw_irrelevant(
    query: Int32[np.ndarray, " draw"],
    pool: Int32[np.ndarray, " candidate"],
    relevance: Relevance,
    rng: np.random.Generator,
    texts: Sequence[str],
) -> Int32[np.ndarray, " draw"]:
    drawn = rng.choice(pool, len(query))
    wrong = np.flatnonzero(relevance(query, drawn))
    for _ in range(10):
        if not len(wrong):
            return drawn
        drawn[wrong] = rng.choice(pool, len(wrong))
        wrong = wrong[relevance(query[wrong], drawn[wrong])]
    # What rejection has not settled by now is relevant to most of the pool: choose from the rest.
    for phrase in np.unique(query[wrong]):
        rest = pool[~relevance(np.full(len(pool), phrase, np.int32), pool)]
        if not len(rest):
            raise InputError(
                f"no negative can be drawn for {texts[phrase]!r}: all {len(np.unique(pool))} candidates are "
                "relevant to it; give more pairs"
            )
        mine = wrong[query[wrong] == phrase]
        drawn[mine] = rng.choice(rest, len(mine))
    return drawn
