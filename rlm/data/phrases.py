"""Phrases: the different texts of a dataset, tokenised once and identified by an index."""

import re
import sys
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int32

from rlm.config import MIN_COUNT, Padding
from rlm.errors import InputError, naming_extras

PAD, UNKNOWN = 0, 1


# Han, kana, Thai, Lao, Burmese, Khmer.
_WITHOUT_SPACES = (
    "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)


_INVISIBLE = "\u00ad\u2060\ufeff"  # soft hyphen, word joiner, byte order mark: they divide no word


_SIMPLE_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


@cache
def _harder_words() -> tuple[frozenset[str], re.Pattern[str]]:
    """Return the characters that need a more general pattern than `_SIMPLE_WORD`, and that pattern, 20 times slower."""
    # Python's \w excludes combining marks, which spell vowels in Hindi, Tamil or Thai, and the joiners inside
    # Persian words.
    everything = list(map(chr, range(sys.maxunicode + 1)))
    marks = "".join(c for c in everything if unicodedata.category(c).startswith("M"))
    marks += "\u200c\u200d"
    letters = rf"(?:(?![{_WITHOUT_SPACES}])[^\W_][{marks}]*)+"
    word = re.compile(rf"(?=[{_WITHOUT_SPACES}])[^\W_][{marks}]*|{letters}(?:['-]{letters})*")
    return frozenset(marks).union(filter(re.compile(f"[{_WITHOUT_SPACES}]").match, everything)), word


def word_pattern() -> str:
    """Return the pattern of a word in a text that is normalised as by `tokenise`."""
    return _harder_words()[1].pattern


def is_read_by_character(text: str) -> bool:
    """Return True if most letters of a text are from a script without spaces between words."""
    letters = [letter for letter in text if letter.isalpha()]
    return 2 * sum(bool(re.match(f"[{_WITHOUT_SPACES}]", letter)) for letter in letters) > len(letters)


def tokenise(text: str) -> list[str]:
    """
    Split a text into words: Unicode NFC, lower case, ``ё`` as ``е``, ``’`` as ``'``, no punctuation, no soft hyphens.

    In scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) every character is a word.

    >>> tokenise("Don't wait: всё идёт кое-как!"), tokenise("ラー、5杯")
    (["don't", 'wait', 'все', 'идет', 'кое-как'], ['ラ', 'ー', '5', '杯'])
    """
    normal = unicodedata.normalize("NFC", text).lower().replace("ё", "е").replace("’", "'")
    if not normal.isascii():
        for letter in _INVISIBLE:
            normal = normal.replace(letter, "")
    hard, word = _harder_words()
    if hard.isdisjoint(normal):
        return _SIMPLE_WORD.findall(normal)
    return [found.rstrip("\u200c\u200d") for found in word.findall(normal)]


def find_split(tokenizer: str | None = None) -> Callable[[str], list[str]]:
    """Return what splits a text into tokens: `tokenise`, or a tokenizer's file, which splits words into pieces."""
    if tokenizer is None:
        return tokenise
    try:
        return _split_by(Path(tokenizer).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected a tokenizer.json of the library tokenizers, found {tokenizer}: {error}; write one with "
            "Tokenizer.save"
        ) from error


@cache
def _split_by(content: str) -> Callable[[str], list[str]]:
    with naming_extras():
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises no other class
        raise ValueError(error) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).tokens


@dataclass(frozen=True)
class Phrases:
    """
    The different phrases of a dataset, longest first: an encoder that reads sorted indices skips the padding.

    Texts with the same words, up to the maximum length, are one phrase, so case cannot bring it into two splits. Word
    ``i`` of `words` has token ``i + 2`` (0 is padding, 1 the unknown word). The last row of `tokens` is the empty
    phrase, which fills incomplete batches. `cut` counts the phrases that are longer than the maximum.
    """

    texts: tuple[str, ...]
    words: tuple[str, ...]
    tokens: Int32[np.ndarray, "row token"]
    lengths: Int32[np.ndarray, " row"]
    cut: int

    def __len__(self) -> int:
        return len(self.texts)


def index_phrases(
    texts: Sequence[str] | pd.Index, max_tokens: int, split: Callable[[str], list[str]] = tokenise
) -> tuple[Phrases, Int32[np.ndarray, " text"]]:
    """Store each different phrase once, cut to `max_tokens`; return also the phrase of every text, -1 without words."""
    if max_tokens < 1:
        raise InputError(f"expected max_tokens of at least 1, found {max_tokens}")
    phrase_of_text = np.full(len(texts), -1, np.int32)
    number_of: dict[bytes, int] = {}  # by word numbers: millions of word lists would fill the memory
    first_texts: list[str] = []
    word_number: dict[str, int] = {}
    longer: set[int] = set()
    for i, text in enumerate(texts):
        words = split(text)
        read = words[:max_tokens]  # phrases differ only in words that an encoder reads
        key = array("i", [word_number.setdefault(word, len(word_number) + 2) for word in read]).tobytes()
        if not key:
            continue
        if key not in number_of:
            number_of[key] = len(number_of)
            first_texts.append(text)
        phrase_of_text[i] = number_of[key]
        if len(words) > max_tokens:
            longer.add(number_of[key])

    lengths = np.fromiter(map(len, number_of), np.int32, len(number_of)) // array("i").itemsize
    tokens = np.zeros((len(lengths) + 1, int(lengths.max(initial=0))), np.int32)
    is_word = np.arange(tokens.shape[1]) < np.append(lengths, 0)[:, None]
    tokens[is_word] = np.frombuffer(b"".join(number_of), np.int32)
    longest_first = np.argsort(-lengths, kind="stable")
    tokens[:-1] = tokens[longest_first]
    rank = np.empty(len(lengths) + 1, np.int32)
    rank[longest_first] = np.arange(len(lengths), dtype=np.int32)
    rank[-1] = -1
    phrases = Phrases(
        texts=tuple(first_texts[i] for i in longest_first),
        words=tuple(word_number),
        tokens=tokens,
        lengths=np.append(lengths[longest_first], np.int32(0)),
        cut=len(longer),
    )
    return phrases, rank[phrase_of_text]


def known_words(
    phrases: Phrases, train: Int32[np.ndarray, "..."], min_count: int = MIN_COUNT
) -> Int32[np.ndarray, "row token"]:
    """Return the token table with the unknown word in place of all words of fewer than `min_count` training phrases."""
    rows = np.sort(phrases.tokens[np.unique(train)], axis=1)
    is_first = np.diff(rows, axis=1, prepend=-1) != 0  # a word counts once in a phrase
    count = np.bincount(rows[is_first], minlength=len(phrases.words) + 2)
    count[PAD] = min_count
    known = np.where(count >= min_count, np.arange(len(count), dtype=np.int32), np.int32(UNKNOWN))
    return known[phrases.tokens]


def pad_tokens(tokens: Int32[np.ndarray, "row token"], padding: Padding) -> Int32[np.ndarray, "row token"]:
    """
    Put the unknown word in place of padding, on the left or right, so that encoders read it.

    Rows without a word, such as the last one, stay empty. Koziev's nn_relevancy_tripleloss has no mask: its LSTM reads
    vectors of zeros beside a phrase, up to the length of the longest one.
    """
    if padding == "masked":
        return tokens
    lengths = (tokens != PAD).sum(axis=1, keepdims=True)
    if padding == "left":
        tokens = np.take_along_axis(tokens, (np.arange(tokens.shape[1]) + lengths) % tokens.shape[1], axis=1)
    return np.where((tokens == PAD) & (lengths > 0), np.int32(UNKNOWN), tokens)
