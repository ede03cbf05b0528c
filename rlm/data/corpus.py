"""The corpus: text pairs or triplets as indices, and what of the data cannot be used."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlm.data.columns import check_labels, choose_columns, index_name, make_pairs, name_row, spell_label
from rlm.data.negatives import Relevance
from rlm.data.phrases import Phrases, index_phrases
from rlm.data.textfiles import is_broken, shorten
from rlm.errors import InputError

COLUMNS = ("anchor", "positive", "negative")
Rows = Int32[np.ndarray, "row columns"]


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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that slices are made of."""
        digest = hashlib.sha256(json.dumps([self.phrases.texts, self.phrases.words, self.is_transitive]).encode())
        for part in (self.phrases.tokens, self.rows, self.irrelevant):
            digest.update(str(part.shape).encode() + np.ascontiguousarray(part, "<i4").tobytes())
        return digest.hexdigest()

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


def index_corpus(data: pd.DataFrame, max_tokens: int = 32) -> Corpus:
    """
    Turn text pairs or triplets into indices.

    Parameters
    ----------
    data
        Text columns ``anchor``, ``positive`` and, optionally, one more: ``negative``; ``relevance``, 1 for pairs that
        are relevant and 0 for others; or ``label``, the name of a class, where phrases that are connected through
        pairs are relevant to each other. Or columns ``text`` and ``label``, from which such pairs are made, as by
        `rlm.read`, so that all texts of a label are connected.
    max_tokens
        Longer phrases are cut to this many tokens.

    Returns
    -------
    Corpus
        The phrases, and the different rows of `data` as phrase indices, in order. Rows are dropped, and listed, in
        which a text is missing or has no word, in which two phrases are the same as far as they are read, which
        repeat an earlier row (left in, it would weigh as much in every accuracy), or which call irrelevant what
        another row calls relevant.

    Warns
    -----
    UserWarning
        If pairs of one label share no phrase.

    Raises
    ------
    InputError
        If a column is missing, or has a role but cannot be used; if a cell is not text, a relevance is neither 0 nor
        1, a label beside pairs may be meant as their relevance, or no relevant row is left.
    """
    if data.columns.has_duplicates:
        raise InputError(
            f"expected every column once, found: {', '.join(map(str, data.columns))}. Leave the others out"
        )
    chosen = choose_columns(data.columns.tolist(), source="data")
    if data.empty:
        raise InputError("expected at least one pair, found an empty table")
    not_read = data.attrs.get("dropped", {})
    if "text" in chosen:
        data, left_out = make_pairs(data.assign(text=_texts(data["text"])))
        not_read = {**not_read, **left_out}
    else:
        check_labels(data)
    columns = [column for column in COLUMNS if column in data]
    cells = [_texts(data[column]).reset_index(drop=True) for column in columns]
    by_column, texts = pd.factorize(pd.concat(cells, ignore_index=True))
    # From column after column to row after row, so that words are numbered in the order in which one reads them.
    by_row, order = pd.factorize(by_column.reshape(len(columns), -1).T.ravel())
    phrases, phrase_of_text = index_phrases(texts.take(order), max_tokens)
    rows = phrase_of_text[by_row].reshape(-1, len(columns))
    is_relevant = _relevance(data)

    is_transitive = "label" in data
    ordered = np.sort(rows, axis=1)
    reason = np.full(len(data), None, object)
    reason[pd.DataFrame(rows).assign(is_relevant=is_relevant).duplicated().to_numpy()] = "repeated"
    relevant = rows[is_relevant & (rows >= 0).all(axis=1), :2]
    group = relevance_components(relevant, len(phrases)) if is_transitive else None
    reason[~is_relevant & Relevance(relevant, group)(*rows[:, :2].T)] = "relevant elsewhere"
    reason[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)] = "same phrase twice"
    reason[(rows < 0).any(axis=1)] = "without words"
    is_kept = pd.isna(reason)
    labels = data.index[~is_kept].to_flat_index()
    dropped = pd.DataFrame({index_name(data.index): labels, "reason": pd.Series(reason[~is_kept], dtype=object)})
    if not (is_kept & is_relevant).any():
        raise InputError(
            "expected at least one row of different phrases, found none that can be used: "
            f"{', '.join(_explain(dropped, 3))}; give other data or a larger max_tokens"
        )
    if group is not None:
        _warn_of_apart(data["label"][is_kept & is_relevant], group[rows[is_kept & is_relevant, 0]])
    irrelevant = rows[is_kept & ~is_relevant, :2]
    return Corpus(phrases, rows[is_kept & is_relevant], irrelevant, is_transitive, dropped, not_read)


def _warn_of_apart(labels: pd.Series, group: Int32[np.ndarray, " row"]) -> None:
    """Warn of pairs of one label that share no phrase: they pass for irrelevant to each other."""
    labels = labels.map(spell_label, na_action=None)
    groups = pd.Series(group, labels.index).groupby(labels.to_numpy()).nunique()
    groups = groups[(groups > 1) & (groups.index != "")]
    if len(groups):
        warnings.warn(
            f"expected the pairs of a label to be connected by phrases that they share, found {groups.iloc[0]} groups "
            f"with label {str(groups.index[0])!r} that share none and count as irrelevant to each other; give texts "
            "and their labels as columns text and label",
            stacklevel=3,
        )


def _texts(column: pd.Series) -> pd.Series:
    """Text cells, empty where one is missing."""
    if isinstance(column.dtype, pd.StringDtype) and column.dtype.storage == "pyarrow":
        return column.fillna("")
    cells, is_missing = column.astype(object), column.isna().to_numpy(bool)
    is_text = np.array([isinstance(cell, str) and not is_broken(cell) for cell in cells]) | is_missing
    if not is_text.all():
        row = int(np.argmin(is_text))
        raise InputError(
            f"expected text in column {column.name!r}, found {shorten(ascii(cells.iloc[row]))} in "
            f"{name_row(column, row)} ({(~is_text).sum()} such rows); convert or drop these rows"
        )
    return cells.mask(is_missing, "")


def _relevance(data: pd.DataFrame) -> Bool[np.ndarray, " row"]:
    if "relevance" not in data:
        return np.ones(len(data), bool)
    words = data["relevance"].astype(object).map(lambda cell: str(cell).strip().lower(), na_action=None)
    relevance = pd.to_numeric(words.replace({"true": "1", "false": "0"}), errors="coerce").to_numpy(float)
    is_known = np.isin(relevance, (0, 1))
    if not is_known.all():
        row = int(np.argmin(is_known))
        raise InputError(
            f"expected relevance 1 or 0, found {str(data['relevance'].iloc[row])!r} in {name_row(data, row)} "
            f"({(~is_known).sum()} such rows); convert or drop these rows"
        )
    return relevance == 1


def _explain(dropped: pd.DataFrame, examples: int) -> list[str]:
    name = dropped.columns[0]
    parts = []
    for reason, rows in dropped.groupby("reason", sort=False)[name]:
        named = ", ".join(map(str, rows.head(examples))) + (", ..." if len(rows) > examples else "")
        parts.append(f"{len(rows):,} {reason} ({name} {named})")
    return parts


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
