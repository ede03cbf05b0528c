"""The corpus: text pairs or triplets as indices, and the rows that cannot be used."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlm.data.columns import check_labels, choose_columns, index_name, make_pairs, name_row, spell_label
from rlm.data.phrases import Phrases, find_split, index_phrases
from rlm.data.textfiles import is_text, shorten
from rlm.errors import InputError

COLUMNS = ("anchor", "positive", "negative")
Rows = Int32[np.ndarray, "row columns"]
Triplets = Int32[np.ndarray, "triplet 3"]
Texts = pd.Series | np.ndarray | Sequence[str]


class Relevance:
    """Which phrases are relevant to each other: given pairs and, with `cluster`, all phrases of one cluster."""

    def __init__(self, pairs: Int[np.ndarray, "pair 2"], cluster: Int[np.ndarray, " phrase"] | None = None) -> None:
        self.keys = np.unique(np.concatenate([pair_keys(*pairs.T), pair_keys(*pairs.T[::-1])]))
        self.cluster = cluster

    def __call__(
        self, query: Int[np.ndarray, " draw"], candidate: Int[np.ndarray, " draw"]
    ) -> Bool[np.ndarray, " draw"]:
        """Return True where the candidate is relevant to the query or is the query itself."""
        found = np.isin(pair_keys(query, candidate), self.keys) | (query == candidate)
        return found if self.cluster is None else found | (self.cluster[query] == self.cluster[candidate])


def pair_keys(first: Int[np.ndarray, " pair"], second: Int[np.ndarray, " pair"]) -> Int64[np.ndarray, " pair"]:
    """Pack the two phrase indices of every pair into one integer."""
    return first.astype(np.int64) << 32 | second


def unordered_keys(rows: Int[np.ndarray, "row _"]) -> Int64[np.ndarray, " row"]:
    """Return one key per row for its anchor and positive in either order, since triplets have both."""
    return pair_keys(*np.sort(rows[:, :2], axis=1).T)


def is_contradicted(rows: Triplets) -> Bool[np.ndarray, " triplet"]:
    """Return True for triplets whose negative is relevant to the anchor by another row."""
    return Relevance(rows[:, :2])(rows[:, 0], rows[:, 2])


def relevance_clusters(pairs: Int[np.ndarray, "pair 2"], phrases: int) -> Int32[np.ndarray, " phrase"]:
    """Number the clusters, the connected components of the graph whose edges are relevant pairs; one per phrase."""
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(phrases, phrases))
    return connected_components(edges, directed=False)[1].astype(np.int32)


@dataclass(frozen=True)
class Corpus:
    """
    A dataset as indices: its different phrases, and its rows of phrase indices, of which none is repeated.

    The columns of `rows` are anchor, positive and, where the data have it, negative. `irrelevant` has pairs that the
    data mark as such. With labels the corpus `is_transitive`: all phrases of a cluster are relevant to each other, and
    never serve as negatives. `dropped` lists unused rows of the data (label in their index, reason); `not_read` counts
    the items that the loader could not turn into rows, by reason. `texts` are the phrases of unlabelled texts, with
    repeats, if there are such; `labelled` is then the fingerprint of the corpus without them.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> data = pd.DataFrame({"anchor": ["Snow is white", "..."], "positive": ["What is white?", "Who?"]})
    >>> corpus = rlm.index_corpus(data)
    >>> corpus.rows.tolist(), corpus.explain_dropped()
    ([[0, 1]], '1 without words (row 1)')
    """

    phrases: Phrases
    rows: Rows
    irrelevant: Int32[np.ndarray, "irrelevant 2"]
    is_transitive: bool
    dropped: pd.DataFrame
    not_read: Mapping[str, int]
    texts: Int32[np.ndarray, " text"] | None = None
    labelled: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that slices are made from."""
        digest = hashlib.sha256(json.dumps([self.phrases.texts, self.phrases.words, self.is_transitive]).encode())
        texts = [] if self.texts is None else [self.texts]
        for part in (self.phrases.tokens, self.rows, self.irrelevant, *texts):
            digest.update(str(part.shape).encode() + np.ascontiguousarray(part, "<i4").tobytes())
        return digest.hexdigest()

    @property
    def has_negatives(self) -> bool:
        """True if the rows are triplets."""
        return self.rows.shape[1] == 3

    @property
    def clusters(self) -> Int32[np.ndarray, " phrase"]:
        """The cluster of every phrase, see `relevance_clusters`."""
        return relevance_clusters(self.rows[:, :2], len(self.phrases))

    @property
    def relevance(self) -> Relevance:
        """Which phrases are relevant to each other."""
        return Relevance(self.rows[:, :2], self.clusters if self.is_transitive else None)

    def explain_dropped(self, examples: int = 3) -> str:
        """Describe what is dropped by reason: ``"2 without words (line 7, 9), 1 repeated (line 8)"``, ``"nothing"``."""
        not_read = [f"{count:,} {reason}" for reason, count in self.not_read.items() if count]
        return ", ".join(not_read + _explain(self.dropped, examples)) or "nothing"

    def explain_unused(self) -> str:
        """Describe irrelevant pairs that give no negatives, since neither phrase is in a relevant pair; or ``""``."""
        in_data = np.isin(self.irrelevant, self.rows[:, :2])
        unused = np.flatnonzero(~in_data.any(axis=1))
        if not len(unused):
            return ""
        first, second = (shorten(self.phrases.texts[phrase]) for phrase in self.irrelevant[unused[0]])
        return (
            f"of {len(in_data):,} irrelevant pairs {in_data[:, 0].sum():,} have a premise (anchor) and "
            f"{in_data[:, 1].sum():,} a question (positive) of the data; {len(unused):,} have neither and give no "
            f"negatives, such as {first} and {second}; spell them as in the data"
        )


def index_corpus(
    data: pd.DataFrame, max_tokens: int = 32, texts: Texts | None = None, tokenizer: str | None = None
) -> Corpus:
    """
    Turn text pairs or triplets into indices.

    Parameters
    ----------
    data
        Text columns ``anchor``, ``positive`` and optionally one of ``negative``, ``relevance`` (1 for a relevant pair,
        0 for an irrelevant one) and ``label`` (the name of a class; phrases that pairs connect are then relevant to
        each other). Alternatively columns ``text`` and ``label``: such pairs are made from them, as by `rlm.read`.
    max_tokens
        Longer phrases are cut to this many tokens.
    texts
        Unlabelled texts, for pre-training; those without words are dropped.
    tokenizer
        File of a tokenizer whose pieces are the tokens, see `StudyConfig`; by default words are.

    Returns
    -------
    Corpus
        The phrases, and the different rows of `data` as phrase indices, in order. Rows are dropped and listed if a text
        has no words, if two phrases are the same up to `max_tokens`, if they repeat an earlier row (it would
        count twice in every accuracy), or if they mark as irrelevant what another row marks as relevant.

    Raises
    ------
    InputError
        If a column is missing or cannot be used, a cell is not text, a relevance is neither 0 nor 1, labels of pairs
        look like their relevance, no relevant row remains, or no text has a word.

    Warns
    -----
    UserWarning
        If pairs of one label share no phrase.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> data = pd.DataFrame({"anchor": ["a cat", "A cat!"], "positive": ["it purrs", "it barks"], "relevance": [1, 0]})
    >>> corpus = rlm.index_corpus(data)
    >>> corpus.phrases.texts, corpus.rows.tolist(), corpus.irrelevant.tolist()
    (('a cat', 'it purrs', 'it barks'), [[0, 1]], [[0, 2]])
    """
    if data.columns.has_duplicates:
        raise InputError(f"expected different column names, found: {', '.join(map(str, data.columns))}; drop repeats")
    chosen = choose_columns(data.columns.tolist(), source="data")
    if data.empty:
        raise InputError("expected at least one pair, found an empty table; give other data")
    not_read = data.attrs.get("dropped", {})
    if "text" in chosen:
        data, unpaired = make_pairs(data.assign(text=_texts(data["text"])))
        not_read = {**not_read, **unpaired}
    else:
        check_labels(data)
    columns = [column for column in COLUMNS if column in data]
    cells = [_texts(data[column]).reset_index(drop=True) for column in columns]
    by_column, different = pd.factorize(pd.concat(cells, ignore_index=True))
    # Row after row instead of column after column, so that words are numbered in reading order.
    by_row, order = pd.factorize(by_column.reshape(len(columns), -1).T.ravel())
    split = find_split(tokenizer)
    phrases, phrase_of_text = index_phrases(different.take(order), max_tokens, split)
    rows = phrase_of_text[by_row].reshape(-1, len(columns))
    is_relevant, is_transitive = _relevance(data), "label" in data

    relevant = rows[is_relevant & (rows >= 0).all(axis=1), :2]
    cluster = relevance_clusters(relevant, len(phrases)) if is_transitive else None
    ordered = np.sort(rows, axis=1)
    reason = np.full(len(data), None, object)  # of several reasons the last one below counts
    reason[pd.DataFrame(rows).assign(is_relevant=is_relevant).duplicated().to_numpy()] = "repeated"
    reason[~is_relevant & Relevance(relevant, cluster)(*rows[:, :2].T)] = "relevant elsewhere"
    reason[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)] = "same phrase twice"
    reason[(rows < 0).any(axis=1)] = "without words"
    is_kept = pd.isna(reason)
    labels = data.index[~is_kept].to_flat_index()
    dropped = pd.DataFrame({index_name(data.index): labels, "reason": pd.Series(reason[~is_kept], dtype=object)})
    is_pair = is_kept & is_relevant
    if not is_pair.any():
        raise InputError(
            "expected at least one row of different phrases, found none that can be used: "
            f"{', '.join(_explain(dropped, 3))}; give other data or a larger max_tokens"
        )
    if cluster is not None:
        _warn_of_apart(data["label"][is_pair], cluster[rows[is_pair, 0]])
    corpus = Corpus(phrases, rows[is_pair], rows[is_kept & ~is_relevant, :2], is_transitive, dropped, not_read)
    return corpus if texts is None else _add_texts(corpus, texts, max_tokens, split)


def _add_texts(corpus: Corpus, texts: Texts, max_tokens: int, split: Callable[[str], list[str]]) -> Corpus:
    """Index the phrases of a corpus anew, together with those of unlabelled texts; their order stays."""
    if isinstance(texts, str):
        raise InputError("expected a column or a list of texts, found one text; a file is named by pretrain_texts")
    code, different = pd.factorize(_texts(pd.Series(texts, dtype=object, name="texts")))
    phrases, number = index_phrases([*corpus.phrases.texts, *different], max_tokens, split)
    old, new = number[: len(corpus.phrases)], number[len(corpus.phrases) :][code]
    if not (new >= 0).any():
        raise InputError(f"expected unlabelled texts with words, found none in {len(new):,}; give others")
    indexed = {"rows": old[corpus.rows], "irrelevant": old[corpus.irrelevant], "texts": new[new >= 0]}
    return replace(corpus, phrases=phrases, labelled=corpus.fingerprint, **indexed)


def _warn_of_apart(labels: pd.Series, cluster: Int32[np.ndarray, " row"]) -> None:
    """Warn if pairs of one label share no phrase, because they count as irrelevant to each other."""
    labels = labels.map(spell_label, na_action=None)
    clusters = pd.Series(cluster, labels.index).groupby(labels.to_numpy()).nunique()
    clusters = clusters[(clusters > 1) & (clusters.index != "")]
    if len(clusters):
        warnings.warn(
            f"expected shared phrases to connect all pairs of a label, found {clusters.iloc[0]} groups "
            f"with label {str(clusters.index[0])!r} that share none and count as irrelevant to each other; give texts "
            "and their labels as columns text and label",
            stacklevel=3,
        )


def _texts(column: pd.Series) -> pd.Series:
    """Return the cells of a text column, with empty strings for missing ones."""
    if isinstance(column.dtype, pd.StringDtype) and column.dtype.storage == "pyarrow":
        return column.fillna("")
    cells, is_missing = column.astype(object), column.isna().to_numpy(bool)
    is_usable = np.array([is_text(cell) for cell in cells], bool) | is_missing
    if not is_usable.all():
        row = int(np.argmin(is_usable))
        raise InputError(
            f"expected text in column {column.name!r}, found {shorten(ascii(cells.iloc[row]))} in "
            f"{name_row(column, row)} (rows like this: {(~is_usable).sum():,}); convert or drop them"
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
            f"(rows like this: {(~is_known).sum():,}); convert or drop them"
        )
    return relevance == 1


def _explain(dropped: pd.DataFrame, examples: int) -> list[str]:
    name = dropped.columns[0]
    parts = []
    for reason, rows in dropped.groupby("reason", sort=False)[name]:
        named = ", ".join(map(str, rows.head(examples))) + (", ..." if len(rows) > examples else "")
        parts.append(f"{len(rows):,} {reason} ({name} {named})")
    return parts
