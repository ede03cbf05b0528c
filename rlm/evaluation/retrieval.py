"""Retrieval: the rank at which a query finds a relevant candidate."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Real
from torch import Tensor

from rlm.block import Block
from rlm.data.corpus import Corpus
from rlm.engine.accuracy import unify
from rlm.engine.batches import Batch, one_per_seed
from rlm.evaluation.triplets import Similarity, embedded_split
from rlm.slicer import Slices

CUTOFFS = (1, 5, 10)
DEEPEST = 10  # rank that nDCG looks at
SCORES_AT_ONCE = 2**24
Query = Literal["anchor", "positive"]
Pairs = Int[np.ndarray, "_ 2"]
Scores = Float64[Tensor, "query candidate"]
Likeness = Callable[[slice | Int[np.ndarray, " query"]], Scores]
Clusters = tuple[Int[np.ndarray, " query"], Int[np.ndarray, " candidate"]]


class Search(NamedTuple):
    """
    The queries and candidates of a split: phrase indices, ascending.

    `relevant` and `excluded` are pairs of rows of `queries` and `candidates`. `clusters` of queries and candidates
    replace `relevant` where all phrases of a cluster are relevant to each other: too many pairs to list.
    """

    queries: Int[np.ndarray, " query"]
    candidates: Int[np.ndarray, " candidate"]
    relevant: Pairs
    excluded: Pairs
    clusters: Clusters | None = None


def retrieve(
    block: Block,
    slices: Slices | Sequence[Slices],
    corpus: Corpus,
    split: str = "test",
    *,
    query: Query = "positive",
    similarity: Similarity = "distance",
) -> pd.DataFrame:
    """
    Measure how often a query finds a relevant phrase at rank 1, or in the first 5 or 10, of all candidates of a split.

    The queries are the different phrases on one side of the split's pairs, the candidates those on the other side; a
    phrase on both sides is no candidate for itself. Any candidate that is relevant to the query counts as right.

    Parameters
    ----------
    block, slices
        As in `rlm.evaluate`.
    corpus
        The corpus of the slices, which knows the sides of a pair and the relevant phrases.
    split
        As in `rlm.evaluate`.
    query
        The side of the queries. With premises and questions, ``"positive"``: a question searches its premise.
    similarity
        As in `rlm.evaluate`.

    Returns
    -------
    pandas.DataFrame
        Columns seed, queries and candidates (their numbers), and in [0, 1]: top_1, top_5 and top_10 (Recall@k in metric
        learning), mean_reciprocal_rank, ndcg_at_10, and map_at_r, the mean of the precisions at the relevant ones of
        the R nearest, for a query with R relevant candidates. Ties count against the encoder.

    References
    ----------
    Mean reciprocal rank: Voorhees, "The TREC-8 question answering track report", 1999, section 3. nDCG: Järvelin and
    Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20, 2002. MAP@R: Musgrave, Belongie and
    Lim, "A metric learning reality check", ECCV 2020.

    Examples
    --------
    >>> import rlm
    >>> corpus = rlm.index_corpus(rlm.load("chatterbot-english"))
    >>> slices = rlm.slice_corpus(corpus)
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size, 8, 8), (0, 1))
    >>> rlm.evaluation.retrieve(block, slices, corpus)["seed"].tolist()
    [0, 1]
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
    query: Query = "positive",
    most_queries: int | None = None,
) -> pd.DataFrame:
    """Do the same as `retrieve` for given embeddings; of more than `most_queries` evenly spaced ones are used."""
    different = {id(one): one for one in slices}  # one, of a fixed split
    searches = {key: search_of(one, corpus, split, query, most_queries) for key, one in different.items()}
    found = []
    for one, tokens, mine in zip(slices, batch.tokens, embeddings, strict=True):
        phrases = np.unique(getattr(one, split))  # the batch has them in this order
        search = searches[id(one)]
        vectors = unify(mine, tokens)
        queries, candidates = (vectors[np.searchsorted(phrases, side)] for side in search[:2])
        found.append({"queries": len(queries), "candidates": len(candidates)} | score_all(queries, candidates, search))
    return pd.DataFrame(found)


def search_of(
    slices: Slices, corpus: Corpus, split: str = "test", query: Query = "positive", most_queries: int | None = None
) -> Search:
    """List the queries and candidates of a split, see `find_first`."""
    pairs = corpus.rows[np.isin(corpus.rows[:, :2], np.unique(getattr(slices, split))).all(axis=1), :2]
    candidates, queries = map(np.unique, (pairs if query == "positive" else pairs[:, ::-1]).T)
    if most_queries is not None and len(queries) > most_queries:
        queries = queries[np.linspace(0, len(queries) - 1, most_queries).astype(int)]
    excluded = _places(np.stack([queries, queries], axis=1), queries, candidates)
    if corpus.is_transitive:
        cluster = corpus.clusters
        return Search(
            queries, candidates, np.empty((0, 2), np.int64), excluded, (cluster[queries], cluster[candidates])
        )
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    return Search(queries, candidates, _places(both, queries, candidates), excluded)


def first_relevant_ranks(
    queries: Real[Tensor, "query dim"],
    candidates: Real[Tensor, "candidate dim"],
    relevant: Pairs,
    excluded: Pairs | None = None,
    clusters: Clusters | None = None,
) -> Int64[np.ndarray, " query"]:
    """
    Rank the nearest relevant candidate of every query from 1, by Euclidean distance; arguments as in `Search`.

    An irrelevant candidate at the same distance comes first, so an encoder that maps everything to one point gets the
    worst ranks, and so do embeddings that are NaN.
    """
    excluded = np.empty((0, 2), np.int64) if excluded is None else excluded
    return ranks_by(
        nearness(queries, candidates),
        Search(np.arange(len(queries)), np.arange(len(candidates)), relevant, excluded, clusters),
    )


def nearness(queries: Real[Tensor, "query dim"], candidates: Real[Tensor, "candidate dim"]) -> Likeness:
    """Return what compares some queries with all candidates: the more, the smaller their Euclidean distance."""
    # Equal candidates are compared once, so that they tie exactly whatever the order of summation.
    unique, place = candidates.double().unique(dim=0, return_inverse=True)
    lengths = unique.square().sum(dim=1)
    return lambda rows: (2 * queries[rows].double() @ unique.T - lengths)[:, place]


def ranks_by(likeness: Likeness, search: Search) -> Int64[np.ndarray, " query"]:
    """Rank the most similar relevant candidate of every query, with ties as in `first_relevant_ranks`."""
    return torch.cat([_first_ranks(*step) for step in _steps(likeness, search)]).cpu().numpy()


def nearest_by(likeness: Likeness, search: Search) -> tuple[Int64[np.ndarray, " query"], Int64[np.ndarray, " query"]]:
    """Return the rows of the most similar relevant and of the most similar other candidate of every query."""
    right, other = [], []
    for scores, is_relevant in _steps(likeness, search):
        right.append(scores.masked_fill(~is_relevant, -torch.inf).argmax(dim=1))
        other.append(scores.masked_fill(is_relevant, -torch.inf).argmax(dim=1))
    return torch.cat(right).numpy(), torch.cat(other).numpy()


def _steps(likeness: Likeness, search: Search) -> Iterator[tuple[Scores, Bool[Tensor, "query candidate"]]]:
    """Yield the scores of some queries with all candidates, -inf for excluded ones, and which are relevant."""
    step = max(1, SCORES_AT_ONCE // len(search.candidates))
    for start in range(0, len(search.queries), step):
        scores = likeness(slice(start, start + step))
        is_relevant = torch.zeros_like(scores, dtype=torch.bool)
        if search.clusters is None:
            is_relevant[_between(search.relevant, start, step)] = True
        else:
            of_queries, of_candidates = (torch.from_numpy(side).to(scores.device) for side in search.clusters)
            is_relevant = of_queries[start : start + step, None] == of_candidates
        excluded = _between(search.excluded, start, step)
        is_relevant[excluded] = False
        scores[excluded] = -torch.inf
        yield scores, is_relevant


def _first_ranks(scores: Scores, is_relevant: Bool[Tensor, "query candidate"]) -> Int64[Tensor, " query"]:
    best = scores.masked_fill(~is_relevant, -torch.inf).amax(dim=1, keepdim=True)
    not_behind = (~(scores < best)).sum(dim=1)  # true for NaN, unlike scores >= best
    return not_behind - (is_relevant & (scores == best)).sum(dim=1) + 1


def score_all(
    queries: Real[Tensor, "query dim"], candidates: Real[Tensor, "candidate dim"], search: Search
) -> dict[str, float]:
    """Return what `retrieve` measures of the embeddings of a search's queries and candidates."""
    ranks, graded = [], []
    for scores, is_relevant in _steps(nearness(queries, candidates), search):
        ranks.append(_first_ranks(scores, is_relevant))
        graded.append(_grade(scores, is_relevant))
    found = torch.cat(graded, dim=1).mean(dim=1).tolist()
    return scores_of(torch.cat(ranks).cpu().numpy()) | dict(zip(["ndcg_at_10", "map_at_r"], found, strict=True))


def _grade(scores: Scores, is_relevant: Bool[Tensor, "query candidate"]) -> Float64[Tensor, "2 query"]:
    """Return nDCG@10 and the average precision at R of each query, with ties as in `first_relevant_ranks`."""
    count = is_relevant.sum(dim=1, keepdim=True)
    place = torch.arange(1, max(1, int(count.max())) + 1, device=scores.device)
    deepest = min(max(DEEPEST, len(place)), scores.shape[1])
    if scores.isnan().any():
        scores = torch.where(scores.isnan(), torch.where(is_relevant, -torch.inf, torch.inf), scores)
    right = scores.masked_fill(~is_relevant, -torch.inf).topk(len(place)).values
    nearest = scores.topk(deepest).values
    last = nearest[:, -1:].contiguous()
    not_behind = deepest - torch.searchsorted(nearest.flip(1), right)  # of the nearest, whose last may tie with others
    not_behind = torch.where(right == last, (scores >= last).sum(dim=1, keepdim=True), not_behind)
    relevant = len(place) - torch.searchsorted(right.flip(1), right)
    rank = torch.where((right < last) | (place > count), torch.inf, not_behind - relevant + place).double()
    gain, ideal = (((at <= DEEPEST) / (at + 1).log2()) for at in (rank, place.double()))
    ideal = ideal.cumsum(dim=0)[(count.clamp(1, DEEPEST) - 1).squeeze(1)]
    precision = torch.where(rank <= count, place / rank, 0).sum(dim=1) / count.clamp(min=1).squeeze(1)
    return torch.stack([gain.sum(dim=1) / ideal, precision])


def scores_of(ranks: Int[np.ndarray, " query"]) -> dict[str, float]:
    """Return top_1, top_5, top_10 and mean_reciprocal_rank, the means of `scores_by_query`."""
    return {name: float(values.mean()) for name, values in scores_by_query(ranks).items()}


def scores_by_query(ranks: Int[np.ndarray, " query"]) -> dict[str, np.ndarray]:
    """Return what every query contributes to the means of `scores_of`."""
    hits = {f"top_{cutoff}": (ranks <= cutoff).astype(float) for cutoff in CUTOFFS}
    return hits | {"mean_reciprocal_rank": 1 / ranks}


def _places(pairs: Pairs, queries: Int[np.ndarray, " query"], candidates: Int[np.ndarray, " candidate"]) -> Pairs:
    """Return the pairs of a query and a candidate as rows among these, which are sorted."""
    pairs = pairs[np.isin(pairs[:, 0], queries) & np.isin(pairs[:, 1], candidates)]
    return np.stack([np.searchsorted(queries, pairs[:, 0]), np.searchsorted(candidates, pairs[:, 1])], axis=1)


def _between(pairs: Pairs, start: int, count: int) -> tuple[Int64[Tensor, " _"], Int64[Tensor, " _"]]:
    """Return the pairs of some queries as indices of their scores."""
    query, candidate = torch.from_numpy(np.asarray(pairs, np.int64)).T
    is_mine = (query >= start) & (query < start + count)
    return query[is_mine] - start, candidate[is_mine]
