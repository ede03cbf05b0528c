"""The slicer: text in, index triplets out, split so that no phrase is in two splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlm.errors import InputError
from rlm.negatives import draw_negatives, is_contradicted, redraw_negatives
from rlm.phrases import PAD, UNKNOWN, Phrases, index_phrases
from rlm.seeding import stream

COLUMNS = ("anchor", "positive", "negative")
SPLITS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.21, 0.09)

Rows = Int32[np.ndarray, "row columns"]


class Components(NamedTuple):
    """
    The anchors, positives and negatives of the training triplets, with repeats.

    Random triplets are dealt from these three lists.
    """

    anchors: Int32[np.ndarray, " triplet"]
    positives: Int32[np.ndarray, " triplet"]
    negatives: Int32[np.ndarray, " triplet"]


@dataclass(frozen=True)
class Corpus:
    """
    A dataset as indices: its phrases, and its pairs (two columns) or triplets (three) of phrase indices.

    Attributes
    ----------
    phrases
        The different phrases.
    rows
        Columns anchor, positive and, where the data came with them, negative; no row twice.
    repeated
        How many rows of the data repeated an earlier one, and were dropped.
    """

    phrases: Phrases
    rows: Rows
    repeated: int


@dataclass(frozen=True)
class Slices:
    """
    A corpus cut into training, validation and test triplets that share no phrase.

    Attributes
    ----------
    phrases
        All phrases of the corpus.
    tokens
        The token table of `phrases`, with every word that training never sees replaced by the unknown word.
    train, validation, test
        Columns anchor, positive, negative: phrase indices.
    summary
        One row per split: how much it holds, how many anchors it rests on, how many words are unknown.
    """

    phrases: Phrases
    tokens: Int32[np.ndarray, "row token"]
    train: Int32[np.ndarray, "train_triplet 3"]
    validation: Int32[np.ndarray, "validation_triplet 3"]
    test: Int32[np.ndarray, "test_triplet 3"]
    summary: pd.DataFrame

    @property
    def components(self) -> Components:
        """The component lists of the training triplets."""
        return Components(*self.train.T)

    @property
    def vocabulary_size(self) -> int:
        """
        Rows that a word-vector table needs: all words of the corpus, padding and the unknown word.

        Rows of words outside the training split are never looked up. They are there so that the table, and
        with it every random draw of an initialisation, does not depend on the split.
        """
        return len(self.phrases.words) + 2


def index_corpus(data: pd.DataFrame, max_tokens: int = 32) -> Corpus:
    """
    Turn text pairs or triplets into indices.

    Parameters
    ----------
    data
        Columns ``anchor``, ``positive`` and optionally ``negative``, all text.
    max_tokens
        Longer phrases are cut to this many tokens.

    Returns
    -------
    Corpus
        The phrases, and the different rows of `data` as phrase indices, in order. A row that stands there many times
        would weigh as much in every accuracy.

    Raises
    ------
    InputError
        If a column is missing, there are no rows, a cell is not text or has no word, or the phrases of a row
        are not all different.
    """
    missing = [column for column in COLUMNS[:2] if column not in data]
    if missing:
        raise InputError(
            f"column {missing[0]!r} not found; the data has: {', '.join(map(str, data.columns))}. "
            "Rename its columns to anchor, positive and, if there are negatives, negative"
        )
    if data.empty:
        raise InputError("expected at least one pair, found an empty table")
    columns = [column for column in COLUMNS if column in data]
    for column in columns:
        is_text = data[column].map(lambda cell: isinstance(cell, str)).to_numpy(bool)
        if not is_text.all():
            row = int(np.argmin(is_text))
            raise InputError(
                f"expected text in column {column!r}, found {data[column].iloc[row]!r} in row {row} "
                f"({(~is_text).sum()} such rows); drop or fill these rows"
            )
    phrases, flat = index_phrases(data[columns].to_numpy(object).ravel(), max_tokens)
    rows = flat.reshape(-1, len(columns))
    _require_different(rows, columns, phrases.texts)
    _, first = np.unique(rows, axis=0, return_index=True)
    return Corpus(phrases, rows[np.sort(first)], repeated=len(rows) - len(first))


def _require_different(rows: Rows, columns: Sequence[str], texts: Sequence[str]) -> None:
    for i, first in enumerate(columns):
        for j in range(i + 1, len(columns)):
            same = rows[:, i] == rows[:, j]
            if same.any():
                row = int(np.argmax(same))
                raise InputError(
                    f"expected different phrases in a row, found the {columns[j]} equal to the {first} in row {row}: "
                    f"{texts[rows[row, i]]!r} ({same.sum()} such rows; phrases are compared by the tokens that are "
                    "read, see max_tokens); remove these rows"
                )


def slice_corpus(
    corpus: Corpus,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    negatives: int = 5,
) -> Slices:
    """
    Split a corpus by connected component of its relevance graph and give every pair its negatives.

    Phrases that are relevant to each other, directly or through others, stay together, so no phrase is in two
    splits. Negatives are drawn inside their split. Where the corpus brings its own negatives they are kept,
    except those that lie in another split or that another row calls relevant: these are drawn again, and counted in
    the summary.

    Parameters
    ----------
    corpus
        Pairs or triplets.
    seed
        Owner of the streams ``split`` and ``negatives``.
    fractions
        Shares of the rows for training, validation and test; positive, with the sum 1. A component is never
        divided, so they are met approximately.
    negatives
        Negatives per pair (ignored where the corpus has its own).

    Returns
    -------
    Slices
        The three splits.

    Raises
    ------
    InputError
        If the fractions are not positive or do not sum to 1, if a split would be empty, or if a phrase is
        relevant to every candidate of its split.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise InputError(
            f"expected three positive fractions (train, validation, test) with the sum 1, found {fractions}"
        )
    rows, phrases = corpus.rows, corpus.phrases
    component = relevance_components(rows[:, :2], len(phrases))
    split_of_row = _split_rows(component[rows[:, 0]], fractions, stream(seed, "split"))
    rng = stream(seed, "negatives")
    unusable = None
    if rows.shape[1] == 3:
        unusable = _negatives_of_other_splits(rows, split_of_row) | is_contradicted(rows)
    triplets, summary = [], []
    for number, name in enumerate(SPLITS):
        mine = split_of_row == number
        try:
            if rows.shape[1] == 2:
                split, redrawn = draw_negatives(rows[mine], negatives, rng, phrases.texts), 0
            else:
                foreign = unusable[mine]
                split, redrawn = redraw_negatives(rows[mine], foreign, rng, phrases.texts), int(foreign.sum())
        except InputError as error:
            raise InputError(f"{name} split: {error}") from error
        triplets.append(split)
        summary.append(
            {
                "split": name,
                "pairs": len(np.unique(rows[mine, :2], axis=0)),
                "anchors": len(np.unique(rows[mine, 0])),
                "components": len(np.unique(component[rows[mine, 0]])),
                "phrases": len(np.unique(split)),
                "triplets": len(split),
                "redrawn_negatives": redrawn,
            }
        )

    known = np.full(len(phrases.words) + 2, UNKNOWN, np.int32)
    training_tokens = np.unique(phrases.tokens[np.unique(triplets[0])])
    known[training_tokens] = training_tokens
    known[PAD] = PAD
    tokens = known[phrases.tokens]
    for row, split in zip(summary, triplets, strict=True):
        read = tokens[np.unique(split)]
        row["unknown_words"] = float((read == UNKNOWN).sum() / (read != PAD).sum())
    return Slices(phrases, tokens, *triplets, summary=pd.DataFrame(summary))


def relevance_components(pairs: Int[np.ndarray, "pair 2"], phrases: int) -> Int32[np.ndarray, " phrase"]:
    """
    Connected component of every phrase in the relevance graph, whose edges are the pairs.

    Parameters
    ----------
    pairs
        Phrase indices.
    phrases
        Number of phrases; a phrase in no pair is a component of its own.

    Returns
    -------
    numpy.ndarray
        Component numbers from 0.
    """
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(phrases, phrases))
    return connected_components(edges, directed=False)[1].astype(np.int32)


def _split_rows(
    component_of_row: Int32[np.ndarray, " row"],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> Int[np.ndarray, " row"]:
    _, group, weight = np.unique(component_of_row, return_inverse=True, return_counts=True)
    share = weight / weight.sum()
    # Components too heavy for the smallest split come first, the heaviest ahead, which is in training: chance must
    # not hand half of the data to the test split.
    order = np.lexsort((rng.random(len(weight)), np.where(share < min(fractions), 0, -share)))
    middle = np.empty(len(weight))
    middle[order] = np.cumsum(share[order]) - share[order] / 2
    split = np.searchsorted(np.cumsum(fractions)[:2], middle, side="right")
    empty = [name for number, name in enumerate(SPLITS) if not (split == number).any()]
    if empty:
        raise InputError(
            f"the {empty[0]} split would be empty: {len(component_of_row)} rows form {len(weight)} connected "
            f"component(s) of relevant phrases, the largest with {share.max():.0%} of the rows, and a component "
            "is never divided; give more data or other fractions"
        )
    return split[group]


def _negatives_of_other_splits(rows: Rows, split_of_row: Int[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Where the negative belongs to another split than its row."""
    home = np.full(int(rows.max()) + 1, -1)
    # A phrase that only ever serves as a negative belongs to the split that uses it first. numpy keeps the last of
    # several values assigned to one place, hence the reversal.
    home[rows[::-1, 2]] = split_of_row[::-1]
    home[rows[:, 0]] = home[rows[:, 1]] = split_of_row
    return home[rows[:, 2]] != split_of_row
