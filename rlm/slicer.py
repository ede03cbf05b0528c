"""The slicer: text in, index triplets out, split so that no phrase is in two splits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlm.errors import InputError
from rlm.negatives import Relevance, draw_negatives, is_contradicted, redraw_negatives
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
    irrelevant
        Pairs of phrases that the data call irrelevant to each other.
    is_transitive
        Whether phrases that are relevant to each other through others, as those of one label are, are relevant
        themselves and serve as no negatives.
    dropped
        Rows of the data that are not used: row (its label in the data's index) and reason.
    not_read
        What its loader could not make into rows: how much of it, by reason.
    """

    phrases: Phrases
    rows: Rows
    irrelevant: Int32[np.ndarray, "irrelevant 2"]
    is_transitive: bool
    dropped: pd.DataFrame
    not_read: Mapping[str, int]

    @property
    def relevance(self) -> Relevance:
        """What is known to be relevant to what."""
        group = relevance_components(self.rows[:, :2], len(self.phrases)) if self.is_transitive else None
        return Relevance(self.rows[:, :2], group)

    def explain_left_out(self, examples: int = 3) -> str:
        """
        Say what of the data is not used, how much of it, why, and which rows come first.

        Parameters
        ----------
        examples
            How many rows to name for a reason.

        Returns
        -------
        str
            Such as ``"2 without words (line 7, 9), 1 repeated (line 8)"``, or ``"nothing"``.
        """
        not_read = [f"{count:,} {reason}" for reason, count in self.not_read.items() if count]
        return ", ".join(not_read + _explain(self.dropped, examples)) or "nothing"


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
    def fingerprint(self) -> str:
        """SHA-256 of what training and evaluation see: phrases, splits and known words."""
        digest = hashlib.sha256("\n".join(self.phrases.texts).encode())
        for part in (self.tokens, self.train, self.validation, self.test):
            digest.update(np.ascontiguousarray(part, "<i4").tobytes())
        return digest.hexdigest()

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
        Text columns ``anchor``, ``positive`` and, optionally, one more: ``negative``; ``relevance``, 1 for pairs that
        are relevant and 0 for others; or ``label``, where all phrases of one label are relevant to each other.
    max_tokens
        Longer phrases are cut to this many tokens.

    Returns
    -------
    Corpus
        The phrases, and the different rows of `data` as phrase indices, in order. Rows are dropped, and listed, in
        which a text is missing or has no word, in which two phrases are the same as far as they are read, which
        repeat an earlier row (left in, it would weigh as much in every accuracy), or which call irrelevant what
        another row calls relevant.

    Raises
    ------
    InputError
        If a column is missing, a cell is not text, a relevance is neither 0 nor 1, or no relevant row is left.
    """
    if data.columns.has_duplicates or {"negative", "relevance"} <= {*data.columns}:
        raise InputError(
            "expected every column once, and either negative or relevance; found: "
            f"{', '.join(map(str, data.columns))}. Leave the others out"
        )
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
        _require_text(data[column])
    by_column, texts = pd.factorize(pd.concat([data[column].fillna("") for column in columns], ignore_index=True))
    # From column after column to row after row, so that words are numbered in the order in which one reads them.
    by_row, order = pd.factorize(by_column.reshape(len(columns), -1).T.ravel())
    phrases, phrase_of_text = index_phrases(texts.take(order), max_tokens)
    rows = phrase_of_text[by_row].reshape(-1, len(columns))
    is_relevant = _relevance(data)

    is_transitive = "label" in data
    ordered = np.sort(rows, axis=1)
    reason = pd.Series(None, data.index, dtype=object)
    reason[pd.DataFrame(rows).assign(is_relevant=is_relevant).duplicated().to_numpy()] = "repeated"
    relevant = rows[is_relevant & (rows >= 0).all(axis=1), :2]
    group = relevance_components(relevant, len(phrases)) if is_transitive else None
    reason[~is_relevant & Relevance(relevant, group)(*rows[:, :2].T)] = "relevant elsewhere"
    reason[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)] = "same phrase twice"
    reason[(rows < 0).any(axis=1)] = "without words"
    is_kept = reason.isna().to_numpy()
    dropped = reason[~is_kept].rename("reason").rename_axis(data.index.name or "row").reset_index()
    if not (is_kept & is_relevant).any():
        raise InputError(
            "expected at least one row of different phrases, found none that can be used: "
            f"{', '.join(_explain(dropped, 3))}; give other data or a larger max_tokens"
        )
    irrelevant = rows[is_kept & ~is_relevant, :2]
    not_read = data.attrs.get("dropped", {})
    return Corpus(phrases, rows[is_kept & is_relevant], irrelevant, is_transitive, dropped, not_read)


def _require_text(column: pd.Series) -> None:
    if isinstance(column.dtype, pd.StringDtype):
        return
    is_text = column.map(lambda cell: isinstance(cell, str)).to_numpy(bool) | column.isna().to_numpy()
    if not is_text.all():
        row = int(np.argmin(is_text))
        raise InputError(
            f"expected text in column {column.name!r}, found {column.iloc[row]!r} in {_name(column, row)} "
            f"({(~is_text).sum()} such rows); convert or drop these rows"
        )


def _relevance(data: pd.DataFrame) -> Bool[np.ndarray, " row"]:
    if "relevance" not in data:
        return np.ones(len(data), bool)
    relevance = data["relevance"].map(lambda cell: {"true": 1, "false": 0}.get(str(cell).strip().lower(), cell))
    relevance = pd.to_numeric(relevance, errors="coerce").to_numpy(float, na_value=np.nan)
    is_known = np.isin(relevance, (0, 1))
    if not is_known.all():
        row = int(np.argmin(is_known))
        raise InputError(
            f"expected relevance 1 or 0, found {str(data['relevance'].iloc[row])!r} in {_name(data, row)} "
            f"({(~is_known).sum()} such rows); convert or drop these rows"
        )
    return relevance == 1


def _name(data: pd.DataFrame | pd.Series, row: int) -> str:
    return f"{data.index.name or 'row'} {data.index[row]}"


def _explain(dropped: pd.DataFrame, examples: int) -> list[str]:
    name = dropped.columns[0]
    parts = []
    for reason, rows in dropped.groupby("reason", sort=False)[name]:
        named = ", ".join(map(str, rows.head(examples))) + (", ..." if len(rows) > examples else "")
        parts.append(f"{len(rows):,} {reason} ({name} {named})")
    return parts


def slice_corpus(
    corpus: Corpus,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    negatives: int = 5,
    negative_kinds: Mapping[str, float | int] | None = None,
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
    negative_kinds
        Shares of random, similar and manual negatives, see `rlm.negatives.draw_negatives`; by default all manual where
        the corpus has irrelevant pairs, and all random elsewhere. Where there is none of a kind, it is drawn at random
        instead, and counted in the summary.

    Returns
    -------
    Slices
        The three splits.

    Raises
    ------
    InputError
        If the fractions are not positive or do not sum to 1, if a split would be empty, if a phrase is
        relevant to every candidate of its split, or if manual negatives are wanted of a corpus without irrelevant
        pairs.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise InputError(
            f"expected three positive fractions (train, validation, test) with the sum 1, found {fractions}"
        )
    rows, phrases = corpus.rows, corpus.phrases
    component = relevance_components(rows[:, :2], len(phrases))
    split_of_row = _split_rows(component[rows[:, 0]], fractions, stream(seed, "split"))
    rng = stream(seed, "negatives")
    relevance = corpus.relevance
    if negative_kinds is not None and rows.shape[1] == 3:
        raise InputError("expected pairs for negative_kinds, found triplets, which have negatives; leave it out")
    kinds = negative_kinds or {"manual" if len(corpus.irrelevant) else "random": 1}
    if "manual" in kinds and not len(corpus.irrelevant):
        raise InputError(
            "expected pairs known to be irrelevant, for manual negatives, found none; give a column relevance with 0 "
            "and 1, or a file of premise|question lines as irrelevant"
        )
    split_of_irrelevant = _split_irrelevant(corpus, split_of_row)
    if rows.shape[1] == 3:
        unusable = _negatives_of_other_splits(rows, split_of_row) | is_contradicted(rows)
    triplets, summary = [], []
    for number, name in enumerate(SPLITS):
        mine = split_of_row == number
        try:
            if rows.shape[1] == 2:
                known = corpus.irrelevant[split_of_irrelevant == number]
                split, redrawn = draw_negatives(
                    rows[mine], negatives, rng, phrases.texts, relevance=relevance, kinds=kinds, irrelevant=known
                )
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

    tokens = _known_words(phrases, triplets[0])
    for row, split in zip(summary, triplets, strict=True):
        read = tokens[np.unique(split)]
        row["unknown_words"] = float((read == UNKNOWN).sum() / (read != PAD).sum())
    return Slices(phrases, tokens, *triplets, summary=pd.DataFrame(summary))


def slice_at_random(slices: Slices, seed: int = 0) -> Slices:
    """
    Deal the same triplets to the splits at random, as is usual, to see what that leaks.

    Parameters
    ----------
    slices
        An honest split.
    seed
        Owner of the stream ``split``.

    Returns
    -------
    Slices
        Splits of the same sizes, whose phrases stand in each other; the summary says which share of a split's triplets
        has a phrase that training has.
    """
    triplets = [getattr(slices, name) for name in SPLITS]
    ends = np.cumsum([len(split) for split in triplets])[:2]
    splits = np.split(stream(seed, "split").permutation(np.concatenate(triplets)), ends)
    leaked = [float(np.isin(split, splits[0]).any(axis=1).mean()) for split in splits]
    summary = pd.DataFrame({"split": SPLITS, "triplets": list(map(len, splits)), "leaked": leaked})
    return Slices(slices.phrases, _known_words(slices.phrases, splits[0]), *splits, summary=summary)


def _known_words(phrases: Phrases, train: Int32[np.ndarray, "triplet 3"]) -> Int32[np.ndarray, "row token"]:
    """The token table, with the unknown word in place of all that training does not see."""
    known = np.full(len(phrases.words) + 2, UNKNOWN, np.int32)
    training_tokens = np.unique(phrases.tokens[np.unique(train)])
    known[training_tokens] = training_tokens
    known[PAD] = PAD
    return known[phrases.tokens]


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


def _split_irrelevant(corpus: Corpus, split_of_row: Int[np.ndarray, " row"]) -> Int[np.ndarray, " irrelevant"]:
    """The split that both phrases of an irrelevant pair belong to; -1 where there is none."""
    home = np.full(len(corpus.phrases), -1)
    home[corpus.rows[:, 0]] = home[corpus.rows[:, 1]] = split_of_row
    # A phrase that is in no relevant pair belongs to the split that uses it first.
    for query, candidate in (corpus.irrelevant[::-1].T, corpus.irrelevant[::-1, ::-1].T):
        is_free = (home[candidate] < 0) & (home[query] >= 0)
        home[candidate[is_free]] = home[query[is_free]]
    first, second = home[corpus.irrelevant].T
    return np.where(first == second, first, -1)


def _negatives_of_other_splits(rows: Rows, split_of_row: Int[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Where the negative belongs to another split than its row."""
    home = np.full(int(rows.max()) + 1, -1)
    # A phrase that only ever serves as a negative belongs to the split that uses it first. numpy keeps the last of
    # several values assigned to one place, hence the reversal.
    home[rows[::-1, 2]] = split_of_row[::-1]
    home[rows[:, 0]] = home[rows[:, 1]] = split_of_row
    return home[rows[:, 2]] != split_of_row
