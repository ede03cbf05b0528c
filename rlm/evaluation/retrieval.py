"""Retrieval: at which rank a query finds what is relevant to it."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int, Int64, Real
from torch import Tensor

from rlm.block import Block
from rlm.data.corpus import Corpus, relevance_clusters
from rlm.engine.batches import Batch
from rlm.engine.embedding import unify
from rlm.evaluation.triplets import Similarity, embedded_split, one_per_seed
from rlm.slicer import Slices

CUTOFFS = (1, 5, 10)
SCORES_AT_ONCE = 2**24
Pairs = Int[np.ndarray, "_ 2"]


class Search(NamedTuple):
    """
    Who asks for whom in a split.

    Attributes
    ----------
    queries, candidates
        Phrase indices, rising.
    relevant, excluded
        Rows of `queries` and of `candidates`: what is right, and what is no candidate for that query.
    groups
        Of queries and of candidates, in place of `relevant`: of one group all are right, but for what is excluded. The
        pairs of a large group are too many to be listed.
    """

    queries: Int[np.ndarray, " query"]
    candidates: Int[np.ndarray, " candidate"]
    relevant: Pairs
    excluded: Pairs
    groups: tuple[Int[np.ndarray, " query"], Int[np.ndarray, " candidate"]] | None = None


def retrieve(
    block: Block,
    slices: Slices | Sequence[Slices],
    corpus: Corpus,
    split: str = "test",
    *,
    query: Literal["anchor", "positive"] = "positive",
    similarity: Similarity = "distance",
) -> pd.DataFrame:
    """
    How often a query finds a relevant phrase as the first, or among the first 5 or 10, of all candidates of a split.

    The queries are the different phrases on one side of the split's pairs, the candidates those on the other side; a
    phrase that stands on both is no candidate for itself. Any candidate known to be relevant to the query is right.

    Parameters
    ----------
    block
        Encoders.
    slices
        One for all seeds, or one per seed.
    corpus
        What was sliced: it knows the sides of a pair, and what is relevant to what.
    split
        ``"train"``, ``"validation"`` or ``"test"``.
    query
        The side that asks. Of premises and questions, ``"positive"``: a question looks for its premise.
    similarity
        As in `rlm.evaluate`.

    Returns
    -------
    pandas.DataFrame
        Columns seed, queries and candidates (how many), top_1, top_5, top_10 and mean_reciprocal_rank, in [0, 1].
        Ties count against the encoder, see `first_relevant_ranks`.
    """
    batch, embeddings = embedded_split(block, slices, split, similarity)
    found = find_first(embeddings, batch, one_per_seed(block, slices), corpus, split, query=query)
    return found.assign(seed=block.seeds)[["seed", *found]]


def find_first(
    embeddings: Float[Tensor, "seed phrase dim"],
    batch: Batch,
    slices: Sequence[Slices],
    corpus: Corpus,
    split: str = "test",
    *,
    query: Literal["anchor", "positive"] = "positive",
    most_queries: int | None = None,
) -> pd.DataFrame:
    """
    As `retrieve`, of embeddings that are there already.

    Parameters
    ----------
    embeddings, batch
        As `rlm.evaluation.triplets.embedded_split` gives them.
    slices
        One per seed.
    corpus, split, query
        As in `retrieve`.
    most_queries
        Where there are more, so many of them ask, evenly spread over the phrases.

    Returns
    -------
    pandas.DataFrame
        Columns of `retrieve` but for seed.
    """
    different = {id(one): one for one in slices}  # one, of a fixed split
    searches = {key: search_of(one, corpus, split, query, most_queries) for key, one in different.items()}
    found = []
    for one, tokens, mine in zip(slices, batch.tokens, embeddings, strict=True):
        phrases = np.unique(getattr(one, split))  # the batch has them in this order
        search = searches[id(one)]
        vectors = unify(mine, tokens)
        queries, candidates = (vectors[np.searchsorted(phrases, side)] for side in search[:2])
        ranks = first_relevant_ranks(queries, candidates, search.relevant, search.excluded, search.groups)
        found.append({"queries": len(queries), "candidates": len(candidates)} | scores_of(ranks))
    return pd.DataFrame(found)


def search_of(
    slices: Slices,
    corpus: Corpus,
    split: str = "test",
    query: Literal["anchor", "positive"] = "positive",
    most_queries: int | None = None,
) -> Search:
    """
    The queries and candidates of a split.

    Parameters
    ----------
    slices, corpus, split, query, most_queries
        As in `find_first`.

    Returns
    -------
    Search
        Of all phrases of the split that stand in its pairs.
    """
    pairs = corpus.rows[np.isin(corpus.rows[:, :2], np.unique(getattr(slices, split))).all(axis=1), :2]
    candidates, queries = map(np.unique, (pairs if query == "positive" else pairs[:, ::-1]).T)
    if most_queries is not None and len(queries) > most_queries:
        queries = queries[np.linspace(0, len(queries) - 1, most_queries).astype(int)]
    excluded = _places(np.stack([queries, queries], axis=1), queries, candidates)
    if corpus.is_transitive:
        group = relevance_clusters(corpus.rows[:, :2], len(corpus.phrases))
        return Search(queries, candidates, np.empty((0, 2), np.int64), excluded, (group[queries], group[candidates]))
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    return Search(queries, candidates, _places(both, queries, candidates), excluded)


def first_relevant_ranks(
    queries: Real[Tensor, "query dim"],
    candidates: Real[Tensor, "candidate dim"],
    relevant: Pairs,
    excluded: Pairs | None = None,
    groups: tuple[Int[np.ndarray, " query"], Int[np.ndarray, " candidate"]] | None = None,
) -> Int64[np.ndarray, " query"]:
    """
    Rank of the nearest relevant candidate of every query, by Euclidean distance.

    An irrelevant candidate that is as near stands before it, so that an encoder that maps everything to one point
    gets the worst ranks, as does one whose embeddings are no numbers.

    Parameters
    ----------
    queries, candidates
        Embeddings, of length one to rank by cosine.
    relevant
        Rows of `queries` and of `candidates`, no pair twice, at least one for every query.
    excluded
        Pairs to leave out: the candidate is none for that query.
    groups
        In place of `relevant`, see `Search`.

    Returns
    -------
    numpy.ndarray
        From 1; above the number of candidates only where embeddings are no numbers.
    """
    # Equal candidates are compared once, so that they tie exactly whatever the order of summation.
    unique, place = candidates.double().unique(dim=0, return_inverse=True)
    lengths = unique.square().sum(dim=1)
    excluded = np.empty((0, 2), np.int64) if excluded is None else excluded
    return ranks_by(
        lambda rows: (2 * queries[rows].double() @ unique.T - lengths)[:, place],
        Search(np.arange(len(queries)), np.arange(len(candidates)), relevant, excluded, groups),
    )


def ranks_by(
    likeness: Callable[[slice], Float64[Tensor, "_ candidate"]], search: Search
) -> Int64[np.ndarray, " query"]:
    """
    Rank of the most alike relevant candidate of every query, ties as in `first_relevant_ranks`.

    Parameters
    ----------
    likeness
        Of some queries to all candidates.
    search
        What is relevant to what.

    Returns
    -------
    numpy.ndarray
        From 1.
    """
    ranks = []
    step = max(1, SCORES_AT_ONCE // len(search.candidates))
    for start in range(0, len(search.queries), step):
        scores = likeness(slice(start, start + step))
        is_relevant = torch.zeros_like(scores, dtype=torch.bool)
        if search.groups is None:
            is_relevant[_between(search.relevant, start, step)] = True
        else:
            of_queries, of_candidates = (torch.from_numpy(group).to(scores.device) for group in search.groups)
            is_relevant = of_queries[start : start + step, None] == of_candidates
        excluded = _between(search.excluded, start, step)
        is_relevant[excluded] = False
        scores[excluded] = -torch.inf
        best = scores.masked_fill(~is_relevant, -torch.inf).amax(dim=1, keepdim=True)
        not_behind = (~(scores < best)).sum(dim=1)  # so written, it is true of what is no number
        ranks.append(not_behind - (is_relevant & (scores == best)).sum(dim=1) + 1)
    return torch.cat(ranks).cpu().numpy()


def scores_of(ranks: Int[np.ndarray, " query"]) -> dict[str, float]:
    """
    Top-1, top-5 and top-10 accuracy and mean reciprocal rank.

    Parameters
    ----------
    ranks
        As of `first_relevant_ranks`.

    Returns
    -------
    dict
        top_1, top_5, top_10, mean_reciprocal_rank, each in [0, 1].

    References
    ----------
    Mean reciprocal rank: Voorhees, "The TREC-8 question answering track report", 1999, section 3.
    """
    return {name: float(values.mean()) for name, values in scores_by_query(ranks).items()}


def scores_by_query(ranks: Int[np.ndarray, " query"]) -> dict[str, np.ndarray]:
    """
    What every query contributes to the means of `scores_of`.

    Parameters
    ----------
    ranks
        As of `first_relevant_ranks`.

    Returns
    -------
    dict
        Arrays of floats in [0, 1] by the same names.
    """
    hits = {f"top_{cutoff}": (ranks <= cutoff).astype(float) for cutoff in CUTOFFS}
    return hits | {"mean_reciprocal_rank": 1 / ranks}


def _places(pairs: Pairs, queries: Int[np.ndarray, " query"], candidates: Int[np.ndarray, " candidate"]) -> Pairs:
    """Rows among sorted queries and candidates, of those pairs that are of a query and a candidate."""
    pairs = pairs[np.isin(pairs[:, 0], queries) & np.isin(pairs[:, 1], candidates)]
    return np.stack([np.searchsorted(queries, pairs[:, 0]), np.searchsorted(candidates, pairs[:, 1])], axis=1)


def _between(pairs: Pairs, start: int, count: int) -> tuple[Int64[Tensor, " _"], Int64[Tensor, " _"]]:
    """Those of some queries, counted from the first of these, as indices of their scores."""
    query, candidate = torch.from_numpy(np.asarray(pairs, np.int64)).T
    is_mine = (query >= start) & (query < start + count)
    return query[is_mine] - start, candidate[is_mine]
