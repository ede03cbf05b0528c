"""Word vectors from elsewhere: word2vec's text and binary files, GloVe's, fastText's text files and models."""

import functools
import io
import logging
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from rlm.errors import InputError
from rlm.phrases import PAD, UNKNOWN
from rlm.textfiles import open_bytes

log = logging.getLogger(__name__)
FASTTEXT_MAGIC = struct.pack("<i", 793712314)  # the first bytes of a fastText model


@functools.lru_cache(maxsize=1)  # every block of seeds asks for the same
def read_vectors(path: Path, words: tuple[str, ...]) -> Float32[np.ndarray, "token word_dim"]:
    """
    Read the vectors of words.

    Parameters
    ----------
    path
        ``.bin`` (word2vec's binary format, or a fastText model, which makes vectors for words that it does not know
        from their character n-grams) or any other name (text: ``.vec``, or GloVe's, which has no first line of
        counts); may be compressed as ``.gz``.
    words
        Word ``i`` has token ``i + 2``, see `Phrases`.

    Returns
    -------
    numpy.ndarray
        One row per token. Padding has zeros; the unknown word, and words without a vector, the mean of the others.

    Raises
    ------
    InputError
        If the file cannot be read, or has no vector for any word, or gensim is missing.

    References
    ----------
    Mikolov et al., "Distributed representations of words and phrases and their compositionality", NeurIPS 2013;
    Pennington et al., "GloVe: global vectors for word representation", EMNLP 2014;
    Bojanowski et al., "Enriching word vectors with subword information", TACL 5, 2017, section 3.2.
    """
    try:
        from gensim.models import KeyedVectors
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise InputError(
            "expected the package gensim, which reads word vectors, found none: pip install 'rlm[vectors]'"
        ) from error
    try:
        if _is_fasttext_model(path):
            vectors = load_facebook_vectors(str(path))
        else:
            is_binary = ".bin" in path.suffixes
            is_glove = not is_binary and _is_glove(path)
            vectors = KeyedVectors.load_word2vec_format(
                str(path), binary=is_binary, unicode_errors="replace", no_header=is_glove
            )
    except (OSError, ValueError, EOFError, UnicodeError, struct.error) as error:
        raise InputError(
            f"expected word vectors in {path} (word2vec text or .bin, GloVe text, fastText .vec or .bin), "
            f"found: {error}; give another file"
        ) from error
    table = np.zeros((len(words) + 2, vectors.vector_size), np.float32)
    found = np.array([word in vectors for word in words])
    if not found.any():
        raise InputError(
            f"expected vectors for words of the data, found none of {len(words)} words in {path}; give vectors of the "
            "same language, in lower case"
        )
    table[2:][found] = [vectors[word] for word, is_there in zip(words, found, strict=True) if is_there]
    table[2:][~found] = table[UNKNOWN] = table[2:][found].mean(axis=0)
    table[PAD] = 0
    log.info("word vectors: %d of %d words are in %s", found.sum(), len(words), path)
    return table


def _is_fasttext_model(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(FASTTEXT_MAGIC)) == FASTTEXT_MAGIC


def _is_glove(path: Path) -> bool:
    """Whether a text file begins with a word and its vector, not with two counts."""
    with open_bytes(path) as stream, io.BufferedReader(stream) as file:
        return len(file.readline().split()) > 2
