"""Similarity of texts by their character trigrams, without training."""

from collections.abc import Sequence
from multiprocessing import parent_process

import joblib
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, csr_matrix
from sparse_dot_topn import sp_matmul_topn

from rlm.data.phrases import tokenise

RARE = 0.02


def trigrams(texts: Sequence[str]) -> csr_array:
    """Return the trigrams of at least one text with words: one row per text, ones and zeros, float32."""
    from sklearn.feature_extraction.text import CountVectorizer  # the import takes a second; few processes need it

    vectorizer = CountVectorizer(
        analyzer="char",
        ngram_range=(3, 3),
        binary=True,
        preprocessor=lambda text: f" {' '.join(tokenise(text))} ",  # so that a word of one letter has a trigram
        dtype=np.float32,
    )
    return csr_array(vectorizer.fit_transform(texts))


def rare_words(texts: Sequence[str]) -> csr_array:
    """Return the words that at most 2 % of the texts have, or two texts: one row per text, ones and zeros."""
    from sklearn.feature_extraction.text import CountVectorizer

    words = csr_array(CountVectorizer(analyzer=tokenise, binary=True, dtype=np.float32).fit_transform(texts))
    return words[:, np.flatnonzero(words.sum(axis=0) <= max(2, RARE * len(texts)))]


def jaccard(first: csr_array, second: csr_array) -> Float[np.ndarray, " row"]:
    """Return the shared trigrams of two texts over all their trigrams, row by row; both from one call of `trigrams`."""
    common = first.multiply(second).sum(axis=1)
    return common / (first.sum(axis=1) + second.sum(axis=1) - common)


def threads() -> int:
    """Return the number of threads: one in a worker process, since each core has a worker; otherwise all cores."""
    return joblib.cpu_count() if parent_process() is None else 1


def most_alike(queries: csr_array, candidates: csr_array, top: int) -> Int[np.ndarray, "query top"]:
    """Return the rows of the most similar candidates by cosine of trigrams; -1 for those that share no trigram."""
    from sklearn.preprocessing import normalize

    # csr_matrix has 32-bit indices, which sparse_dot_topn requires.
    left, right = (csr_matrix(normalize(part), dtype=np.float32) for part in (queries, candidates))
    found = sp_matmul_topn(left, right.T.tocsr(), top_n=top, sort=True, n_threads=threads())
    sizes = np.diff(found.indptr)
    table = np.full((len(sizes), top), -1, np.int64)
    table[np.arange(top) < sizes[:, None]] = found.indices
    return table
