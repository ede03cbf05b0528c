"""Phrases: every different text of a dataset, tokenised once and known by its index from then on."""

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from jaxtyping import Int32

from rlm.errors import InputError

PAD, UNKNOWN = 0, 1


@cache
def _word() -> re.Pattern[str]:
    # Python's \w leaves out the combining marks, which spell vowels in Hindi, Tamil or Thai.
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c).startswith("M"))
    letters = rf"(?:[^\W_][{marks}]*)+"
    return re.compile(rf"{letters}(?:['-]{letters})*")


def tokenise(text: str) -> list[str]:
    """
    Words of a text: Unicode NFC, lower case, ``ё`` as ``е``, ``’`` as ``'``, other punctuation dropped.

    What is written without spaces between words, as Chinese and Japanese are, stays one word per clause.

    Examples
    --------
    >>> tokenise("Don't wait: всё идёт кое-как!")
    ["don't", 'wait', 'все', 'идет', 'кое-как']
    """
    normal = unicodedata.normalize("NFC", text).lower().replace("ё", "е").replace("’", "'")
    return _word().findall(normal)


@dataclass(frozen=True)
class Phrases:
    """
    The different phrases of a dataset, longest first.

    Two texts with the same words, as far as they are read, are the same phrase, so a change of case or of a full
    stop cannot carry a phrase from one split into another. Because indices grow as lengths fall, sorting indices
    sorts by length, which is what lets an encoder skip the padding.

    Attributes
    ----------
    texts
        One text per phrase, as it first stood in the data.
    words
        The word forms; word ``i`` has token ``i + 2`` (0 is padding, 1 stands for an unknown word).
    tokens
        Token ids, zeros after the end. The last row, one past the last phrase, is the empty phrase that fills
        incomplete batches.
    lengths
        Tokens per row of `tokens`, falling.
    cut
        How many different phrases were longer than `max_tokens` and are read only so far.
    """

    texts: tuple[str, ...]
    words: tuple[str, ...]
    tokens: Int32[np.ndarray, "row token"]
    lengths: Int32[np.ndarray, " row"]
    cut: int

    def __len__(self) -> int:
        return len(self.texts)


def index_phrases(texts: Sequence[str] | np.ndarray, max_tokens: int) -> tuple[Phrases, Int32[np.ndarray, " text"]]:
    """
    Store each different phrase once.

    Parameters
    ----------
    texts
        Texts of at least one word each.
    max_tokens
        Width of the token table; longer phrases are cut (and counted in `Phrases.cut`).

    Returns
    -------
    Phrases
        The different phrases.
    numpy.ndarray
        The phrase index of every text.

    Raises
    ------
    InputError
        If a text has no word or `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise InputError(f"expected max_tokens of at least 1, found {max_tokens}")
    text_of_row, distinct = pd.factorize(np.asarray(texts, dtype=object))
    phrase_of_text = np.empty(len(distinct), np.int64)
    number_of: dict[tuple[str, ...], int] = {}
    first_texts: list[str] = []
    word_number: dict[str, int] = {}
    numbered: list[list[int]] = []
    longer: set[tuple[str, ...]] = set()
    for i, text in enumerate(distinct):
        words = tuple(tokenise(text))
        if not words:
            raise InputError(
                f"expected at least one word in every phrase, found none in {text!r}; remove the row or give it words"
            )
        if len(words) > max_tokens:
            longer.add(words)
            words = words[:max_tokens]  # what no encoder reads tells no phrases apart
        if words not in number_of:
            number_of[words] = len(number_of)
            first_texts.append(text)
            numbered.append([word_number.setdefault(word, len(word_number) + 2) for word in words])
        phrase_of_text[i] = number_of[words]

    lengths = np.fromiter(map(len, numbered), np.int32, len(numbered))
    longest_first = np.argsort(-lengths, kind="stable")
    lengths = lengths[longest_first]
    tokens = np.zeros((len(numbered) + 1, int(lengths.max(initial=0))), np.int32)
    for row, phrase in enumerate(longest_first):
        tokens[row, : lengths[row]] = numbered[phrase]
    rank = np.empty(len(numbered), np.int32)
    rank[longest_first] = np.arange(len(numbered), dtype=np.int32)
    phrases = Phrases(
        texts=tuple(first_texts[i] for i in longest_first),
        words=tuple(word_number),
        tokens=tokens,
        lengths=np.append(lengths, np.int32(0)),
        cut=len(longer),
    )
    return phrases, rank[phrase_of_text[text_of_row]]
