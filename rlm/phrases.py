"""Phrases: every different text of a dataset, tokenised once and known by its index from then on."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int32

from rlm.errors import InputError

PAD, UNKNOWN = 0, 1
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def tokenise(text: str) -> list[str]:
    """
    Words of a text: lower case, ``ё`` as ``е``, punctuation dropped.

    Examples
    --------
    >>> tokenise("Don't wait: всё идёт кое-как!")
    ["don't", 'wait', 'все', 'идет', 'кое-как']
    """
    return WORD.findall(text.lower().replace("ё", "е"))


@dataclass(frozen=True)
class Phrases:
    """
    The different phrases of a dataset, longest first.

    Two texts with the same words are the same phrase, so a change of case or of a full stop cannot carry a
    phrase from one split into another. Because indices grow as lengths fall, sorting indices sorts by length,
    which is what lets an encoder skip the padding.

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
        How many phrases were longer than the table is wide; only their first tokens are read.
    """

    texts: tuple[str, ...]
    words: tuple[str, ...]
    tokens: Int32[np.ndarray, "row token"]
    lengths: Int32[np.ndarray, " row"]
    cut: int

    def __len__(self) -> int:
        return len(self.texts)


def index_phrases(texts: Iterable[str], max_tokens: int) -> tuple[Phrases, Int32[np.ndarray, " text"]]:
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
        If a text has no word.
    """
    text_of_row, distinct = pd.factorize(np.asarray(texts, dtype=object))
    number_of: dict[str, int] = {}
    phrase_of_text = np.empty(len(distinct), np.int64)
    first_texts: list[str] = []
    word_number: dict[str, int] = {}
    numbered: list[list[int]] = []
    for i, text in enumerate(distinct):
        found = tokenise(text)
        if not found:
            row = int(np.argmax(text_of_row == i))
            raise InputError(
                f"expected at least one word in every phrase, found none in {text!r} (text {row}); "
                "remove the row or give it words"
            )
        key = " ".join(found)
        if key not in number_of:
            number_of[key] = len(number_of)
            first_texts.append(text)
            numbered.append([word_number.setdefault(word, len(word_number) + 2) for word in found])
        phrase_of_text[i] = number_of[key]

    full_lengths = np.fromiter(map(len, numbered), np.int64, len(numbered))
    longest_first = np.argsort(-full_lengths, kind="stable")
    lengths = np.minimum(full_lengths[longest_first], max_tokens)
    tokens = np.zeros((len(numbered) + 1, int(lengths.max(initial=0))), np.int32)
    for row, phrase in enumerate(longest_first):
        tokens[row, : lengths[row]] = numbered[phrase][:max_tokens]
    rank = np.empty(len(numbered), np.int32)
    rank[longest_first] = np.arange(len(numbered), dtype=np.int32)
    phrases = Phrases(
        texts=tuple(first_texts[i] for i in longest_first),
        words=tuple(word_number),
        tokens=tokens,
        lengths=np.append(lengths, 0).astype(np.int32),
        cut=int((full_lengths > max_tokens).sum()),
    )
    return phrases, rank[phrase_of_text[text_of_row]]
