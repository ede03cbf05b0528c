"""Negatives: phrases that are not known to be relevant, drawn from the candidates of a split."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32

from rlm.config import check_kinds
from rlm.data.corpus import Corpus, Relevance, Triplets
from rlm.data.similarity import most_alike, rare_words, trigrams
from rlm.errors import InputError

SPARE = 20  # candidates beyond those that are needed, since the most similar ones are often relevant
PLACES_AT_ONCE = 2**22
DRAWS = 10  # of a phrase that may be relevant, before another way is taken
Draws = Int[np.ndarray, " draw"]


def draw_negatives(
    pairs: Int32[np.ndarray, "pair 2"],
    negatives: int,
    rng: np.random.Generator,
    texts: Sequence[str],
    *,
    relevance: Relevance | None = None,
    kinds: Mapping[str, float | int] | None = None,
    irrelevant: Int32[np.ndarray, "irrelevant 2"] | None = None,
) -> tuple[Triplets, Bool[np.ndarray, " triplet"]]:
    """
    Draw `negatives` triplets per pair, alternately (anchor, positive, positive') and (positive, anchor, anchor').

    A random negative is drawn from the same side of the other pairs, with repeats, so that the candidate alone does
    not separate positives from negatives. A similar one (by character trigrams) comes from that side too, regardless of
    how often it occurs there. A manual one is any phrase of `irrelevant`; if it is known for the other side of the pair
    only, that side becomes the anchor. A cascade takes a manual one, else one that shares a word with the query. No
    negative is the query itself or known to be relevant to it.

    Returns the triplets by pair (manual negatives only once, so there may be fewer), and marks the negatives that are
    random because none of the wanted kind exists.
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
    is_missing = np.zeros(triplets.shape[:2], bool)
    for kind, where in _deal_kinds(kinds or {"random": 1}, triplets.shape[:2], rng).items():
        wanted, (sides, ranks) = triplets[where], _sides_and_ranks(where)
        if kind == "similar":
            found = _most_similar(wanted[:, 0], sides, ranks, pairs, relevance, texts)
        elif irrelevant is None or not len(irrelevant):
            found = np.full(len(wanted), -1)
        else:
            found = _choose_irrelevant(wanted[:, 0], irrelevant, rng)
            other = np.where(found < 0, _choose_irrelevant(wanted[:, 1], irrelevant, rng), -1)
            wanted[other >= 0, :2] = wanted[other >= 0, 1::-1]
            found = np.maximum(found, other)
        if kind == "cascade":
            rest = np.flatnonzero(found < 0)
            found[rest] = _sharing_a_word(wanted[rest, 0], sides[rest], pairs, relevance, rng, texts)
        wanted[:, 2] = np.where(found >= 0, found, wanted[:, 2])
        triplets[where] = wanted
        is_missing[where] = found < 0
    triplets, is_missing = triplets.reshape(-1, 3), is_missing.ravel()
    if kinds and kinds.keys() & {"manual", "cascade"}:  # few are known: a repeated one would only get more weight
        is_first = ~pd.DataFrame(triplets).duplicated().to_numpy()
        triplets, is_missing = triplets[is_first], is_missing[is_first]
    return triplets, is_missing


def resolve_kinds(corpus: Corpus, kinds: Mapping[str, float | int] | None) -> Mapping[str, float | int]:
    """Return the wanted kinds of negatives, or the default of the corpus; raise if it cannot have them."""
    if kinds is not None and corpus.has_negatives:
        raise InputError("expected pairs for negative_kinds, found triplets, which have negatives; drop the option")
    kinds = kinds or {"manual" if len(corpus.irrelevant) else "random": 1}
    if "manual" in kinds and not len(corpus.irrelevant):
        raise InputError(
            "expected pairs known to be irrelevant, for manual negatives, found none; give a column relevance with 0 "
            "and 1, or a file of premise|question lines as irrelevant"
        )
    return kinds


def _deal_kinds(
    kinds: Mapping[str, float | int], shape: tuple[int, int], rng: np.random.Generator
) -> dict[str, Bool[np.ndarray, "pair negative"]]:
    """Choose the kind of every negative; return where the kinds other than random are."""
    check_kinds(kinds)
    shares = np.array(list(kinds.values()), float)
    dealt = rng.choice(len(kinds), shape, p=shares / shares.sum()) if len(kinds) > 1 else np.zeros(shape, int)
    return {kind: dealt == number for number, kind in enumerate(kinds) if kind != "random"}


def _sides_and_ranks(where: Bool[np.ndarray, "pair negative"]) -> tuple[Draws, Draws]:
    """Return the side of every query, and the number of earlier negatives of its pair and side."""
    sides = np.broadcast_to(np.arange(where.shape[1]) % 2, where.shape)
    ranks = np.empty(where.shape, int)
    for side in (0, 1):
        ranks[:, side::2] = where[:, side::2].cumsum(axis=1) - 1
    return sides[where], ranks[where]


def _most_similar(
    query: Draws,
    sides: Draws,
    ranks: Draws,
    pairs: Int32[np.ndarray, "pair 2"],
    relevance: Relevance,
    texts: Sequence[str],
) -> Draws:
    """Return the irrelevant candidate of the given rank for each query; -1 if there are fewer."""
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
                order = np.argsort(~is_usable, axis=1, kind="stable")[:, :wanted]  # usable ones first, by similarity
                of_rank = pool[np.take_along_axis(places, order, 1)]
                ranked.append(np.where(np.take_along_axis(is_usable, order, 1), of_rank, -1))
                has_more.append(places[:, -1] >= 0)
            found[mine] = np.concatenate(ranked)[row, ranks[mine]]
            # If too many of the most similar candidates are relevant, look further.
            mine = mine[(found[mine] < 0) & np.concatenate(has_more)[row]]
            top *= 4
    return found


def _choose_irrelevant(query: Draws, irrelevant: Int32[np.ndarray, "irrelevant 2"], rng: np.random.Generator) -> Draws:
    """Choose one of the phrases known to be irrelevant to each query; -1 if there is none."""
    both = np.concatenate([irrelevant, irrelevant[:, ::-1]])
    both = both[np.lexsort(both.T[::-1])]
    start, stop = (np.searchsorted(both[:, 0], query, side) for side in ("left", "right"))
    chosen = start + (rng.random(len(query)) * (stop - start)).astype(int)
    return np.where(stop > start, both[np.minimum(chosen, len(both) - 1), 1], -1)


def _sharing_a_word(
    query: Draws,
    sides: Draws,
    pairs: Int32[np.ndarray, "pair 2"],
    relevance: Relevance,
    rng: np.random.Generator,
    texts: Sequence[str],
) -> Draws:
    """
    Draw an irrelevant candidate that shares a rare word with each query, see `rare_words`; -1 if no draw finds one.

    As among random negatives, a candidate's chance grows with its pairs, and here with the words that it shares. After
    prepare_relevancy_dataset of Koziev's chatbot, which has a list of stop words in place of the rare ones.
    """
    used = np.unique(pairs)
    words = rare_words([texts[phrase] for phrase in used])
    found = np.full(len(query), -1)
    for side in np.unique(sides):
        mine, pool = np.flatnonzero(sides == side), pairs[:, 1 - side]
        having = words[np.searchsorted(used, pool)].tocsc()  # the places in `pool` of each word
        asked = words[np.searchsorted(used, query[mine])]
        ends = np.append(0, np.diff(having.indptr)[asked.indices].cumsum())  # of the candidates by each word of a query
        first, last = ends[asked.indptr[:-1]], ends[asked.indptr[1:]]
        waiting = np.flatnonzero(last > first)
        for _ in range(DRAWS):
            drawn = first[waiting] + (rng.random(len(waiting)) * (last - first)[waiting]).astype(int)
            word = np.searchsorted(ends, drawn, "right") - 1
            candidate = pool[having.indices[having.indptr[asked.indices[word]] + drawn - ends[word]]]
            is_wrong = relevance(query[mine[waiting]], candidate)
            found[mine[waiting]] = np.where(is_wrong, -1, candidate)
            waiting = waiting[is_wrong]
    return found


def redraw_negatives(
    rows: Triplets, where: Bool[np.ndarray, " triplet"], rng: np.random.Generator, texts: Sequence[str]
) -> Triplets:
    """Replace the negatives of some triplets by random positives of the others."""
    triplets = rows.copy()
    triplets[where, 2] = _draw_irrelevant(rows[where, 0], rows[:, 1], Relevance(rows[:, :2]), rng, texts)
    return triplets


def _draw_irrelevant(
    query: Draws,
    pool: Int32[np.ndarray, " candidate"],
    relevance: Relevance,
    rng: np.random.Generator,
    texts: Sequence[str],
) -> Draws:
    drawn = rng.choice(pool, len(query))
    wrong = np.flatnonzero(relevance(query, drawn))
    for _ in range(DRAWS):
        if not len(wrong):
            return drawn
        drawn[wrong] = rng.choice(pool, len(wrong))
        wrong = wrong[relevance(query[wrong], drawn[wrong])]
    # The remaining queries are relevant to most of the pool: choose from the rest directly.
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
