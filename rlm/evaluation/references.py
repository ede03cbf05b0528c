"""References that every encoder must beat: trigram overlap, TF-IDF, and a classifier that never sees the anchor."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int, Int32
from scipy.sparse import csr_array
from scipy.stats import bootstrap
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from rlm.data.corpus import Corpus, unordered_keys
from rlm.data.negatives import Triplets, draw_negatives
from rlm.data.phrases import tokenise
from rlm.data.similarity import jaccard, trigrams
from rlm.errors import InputError
from rlm.evaluation.retrieval import Likeness, ranks_by, scores_of, search_of
from rlm.seeding import stream
from rlm.slicer import Slices
from rlm.stats.estimates import Estimate

LOOKED_AT = 20_000
OVERLAP, TFIDF, BLIND = "trigram overlap", "TF-IDF cosine", "anchor-blind classifier"


def tabulate(corpus: Corpus, slices: Slices, cluster: Int32[np.ndarray, " phrase"], seed: int) -> pd.DataFrame:
    """Return accuracy with a 95 % interval of every reference."""
    test = some_of(slices.test, stream(seed, "audit", 0))
    contestants = {
        OVERLAP: (_by_overlap, test),
        "trigram overlap, most similar negatives": (_by_overlap, _hard_triplets(corpus, slices, seed)),
        TFIDF: (_by_tfidf, test),
        BLIND: (_by_candidate, test),
    }
    found = {}
    for name, (score, triplets) in contestants.items():
        right = is_right(score(slices, triplets)) if len(triplets) else np.empty(0)
        found[name] = with_interval(right, cluster[triplets[:, 0]])
    return pd.DataFrame.from_dict(found, orient="index", columns=["accuracy", "low", "high"]).rename_axis("reference")


def _hard_triplets(corpus: Corpus, slices: Slices, seed: int) -> Triplets:
    """Draw the most similar negatives for at most 3,000 test pairs; none if all candidates are relevant."""
    rng = stream(seed, "audit", 2)
    pairs = np.unique(corpus.rows[np.isin(unordered_keys(corpus.rows), unordered_keys(slices.test)), :2], axis=0)
    pairs = pairs[rng.permutation(len(pairs))[:3000]]
    try:
        triplets, _ = draw_negatives(
            pairs, 2, rng, corpus.phrases.texts, relevance=corpus.relevance, kinds={"similar": 1}
        )
    except InputError:
        return np.empty((0, 3), np.int32)
    return triplets


def is_right(margin: Float[np.ndarray, "*triplet"]) -> Float[np.ndarray, "*triplet"]:
    """Return 1 if the positive is nearer, and one half for a tie."""
    return (margin > 0) + 0.5 * (margin == 0)


def with_interval(
    values: Float[np.ndarray, " value"], cluster: Int[np.ndarray, " value"]
) -> tuple[float, float, float]:
    """Return mean and 95 % bootstrap interval over independent clusters; NaN for fewer than two."""
    if not len(values):
        return np.nan, np.nan, np.nan
    by_cluster = pd.DataFrame({"sum": values, "of": 1.0}).groupby(cluster).sum()
    if len(by_cluster) < 2:
        return float(values.mean()), np.nan, np.nan
    interval = bootstrap(
        (by_cluster["sum"], by_cluster["of"]),
        lambda total, of, axis: total.sum(axis) / of.sum(axis),
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(values.mean()), float(interval.low), float(interval.high)


def percent(estimate: tuple[float, float, float]) -> str:
    return Estimate(*estimate).format(100, digits=1, unit="%")


def _by_overlap(slices: Slices, test: Triplets) -> Float[np.ndarray, " triplet"]:
    used, place = np.unique(test, return_inverse=True)
    grams = trigrams([slices.phrases.texts[phrase] for phrase in used])
    anchor, positive, negative = (grams[column] for column in place.reshape(test.shape).T)
    return jaccard(anchor, positive) - jaccard(anchor, negative)


def _by_tfidf(slices: Slices, test: Triplets) -> Float[np.ndarray, " triplet"]:
    texts = np.array(slices.phrases.texts, dtype=object)
    vectorizer = TfidfVectorizer(analyzer=tokenise).fit(texts[np.unique(slices.train)])
    used, place = np.unique(test, return_inverse=True)
    anchor, positive, negative = place.reshape(test.shape).T
    vectors = vectorizer.transform(texts[used])
    return vectors[anchor].multiply(vectors[positive] - vectors[negative]).sum(axis=1).A1


def _by_candidate(slices: Slices, test: Triplets) -> Float[np.ndarray, " triplet"]:
    """Score candidates by logistic regression, without the anchor."""
    texts = np.array(slices.phrases.texts, dtype=object)
    train = some_of(slices.train, stream(0, "audit", 4))
    used, place = np.unique(np.concatenate([train, test])[:, 1:], return_inverse=True)
    seen = np.isin(used, train[:, 1:])
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    vectors = vectorizer.fit(texts[used[seen]]).transform(texts[used])
    candidates, held_out = np.split(place.reshape(-1, 2), [len(train)])
    model = LogisticRegression(max_iter=200).fit(vectors[candidates.T.ravel()], np.repeat([1, 0], len(train)))
    positive, negative = model.decision_function(vectors)[held_out].T
    return positive - negative


def overlap_scores(corpus: Corpus, slices: Slices) -> dict[str, float]:
    """
    Score the overlap of character trigrams (Jaccard) on the test split, without training.

    Parameters
    ----------
    corpus, slices
        The data and their splits.

    Returns
    -------
    dict
        test_accuracy (of the triplets), roc_auc (of the different pairs of anchor and candidate) and top_1, as in
        `rlm.evaluate` and `rlm.evaluation.retrieve`.

    Examples
    --------
    >>> import rlm
    >>> corpus = rlm.index_corpus(rlm.load("chatterbot-english"))
    >>> list(rlm.evaluation.overlap_scores(corpus, rlm.slice_corpus(corpus)))
    ['test_accuracy', 'roc_auc', 'top_1']
    """
    used, place = np.unique(slices.test, return_inverse=True)
    grams = trigrams([slices.phrases.texts[phrase] for phrase in used])
    place = place.reshape(slices.test.shape)
    pairs, first = np.unique(np.concatenate([place[:, :2], place[:, ::2]]), axis=0, return_index=True)
    search = search_of(slices, corpus, "test")
    likeness = _overlap(*(grams[np.searchsorted(used, side)] for side in search[:2]))
    return {
        "test_accuracy": is_right(_by_overlap(slices, slices.test)).mean(),
        "roc_auc": roc_auc_score(first < len(slices.test), jaccard(grams[pairs[:, 0]], grams[pairs[:, 1]])),
        "top_1": scores_of(ranks_by(likeness, search))["top_1"],
    }


def text_likeness(queries: Sequence[str], candidates: Sequence[str]) -> dict[str, Likeness]:
    """Return what compares texts without training: trigram overlap, and TF-IDF weighted by the candidates."""
    grams = trigrams([*queries, *candidates])
    vectorizer = TfidfVectorizer(analyzer=tokenise).fit(candidates)
    asked, known = vectorizer.transform(queries), vectorizer.transform(candidates)
    return {
        OVERLAP: _overlap(grams[: len(queries)], grams[len(queries) :]),
        TFIDF: lambda rows: torch.from_numpy((asked[rows] @ known.T).toarray()).double(),
    }


def _overlap(queries: csr_array, candidates: csr_array) -> Likeness:
    sizes = candidates.sum(axis=1)

    def likeness(rows: slice | Int[np.ndarray, " query"]) -> Float64[Tensor, "query candidate"]:
        some = queries[rows]
        common = (some @ candidates.T).toarray()
        return torch.from_numpy(common / (some.sum(axis=1)[:, None] + sizes - common)).double()

    return likeness


def some_of(triplets: Triplets, rng: np.random.Generator) -> Triplets:
    """Return at most 20,000 of the triplets, chosen at random."""
    return triplets if len(triplets) <= LOOKED_AT else triplets[rng.choice(len(triplets), LOOKED_AT, replace=False)]
