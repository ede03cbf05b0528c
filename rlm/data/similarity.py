"""Likeness of texts by their character trigrams, without any training."""

from collections.abc import Sequence
from multiprocessing import parent_process

import joblib
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, csr_matrix
from sparse_dot_topn import sp_matmul_topn

from rlm.data.phrases import tokenise


def trigrams(texts: Sequence[str]) -> csr_array:
    """
    Which character trigrams a text has.

    Parameters
    ----------
    texts
        At least one, with a word each; read as `rlm.data.phrases.tokenise` reads them.

    Returns
    -------
    scipy.sparse.csr_array
        One row per text, ones and zeros, float32.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # takes a second; few processes need it

    vectorizer = CountVectorizer(
        analyzer="char",
        ngram_range=(3, 3),
        binary=True,
        preprocessor=lambda text: f" {' '.join(tokenise(text))} ",  # so that a word of one letter has a trigram
        dtype=np.float32,
    )
    return csr_array(vectorizer.fit_transform(texts))


def jaccard(first: csr_array, second: csr_array) -> Float[np.ndarray, " row"]:
    """
    Likeness of texts, row by row: trigrams that both have over trigrams that either has.

    Parameters
    ----------
    first, second
        From one call of `trigrams`, of the same number of rows.

    Returns
    -------
    numpy.ndarray
        From 0 to 1.
    """
    common = first.multiply(second).sum(axis=1)
    return common / (first.sum(axis=1) + second.sum(axis=1) - common)


def threads() -> int:
    """One in a worker process, of which there is one per core; otherwise as many as there are cores."""
    return joblib.cpu_count() if parent_process() is None else 1


def most_alike(queries: csr_array, candidates: csr_array, top: int) -> Int[np.ndarray, "query top"]:
    """
    The candidates that are most alike, by the cosine of their trigrams.

    Parameters
    ----------
    queries, candidates
        Rows from one call of `trigrams`.
    top
        How many.

    Returns
    -------
    numpy.ndarray
        Rows of `candidates`, the most alike first; -1 where fewer have a trigram in common with the query.
    """
    from sklearn.preprocessing import normalize

    # In 32-bit indices, which the library wants.
    left, right = (csr_matrix(normalize(part), dtype=np.float32) for part in (queries, candidates))
    found = sp_matmul_topn(left, right.T.tocsr(), top_n=top, sort=True, n_threads=threads())
    sizes = np.diff(found.indptr)
    table = np.full((len(sizes), top), -1, np.int64)
    table[np.arange(top) < sizes[:, None]] = found.indices
    return table
