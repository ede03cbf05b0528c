"""The slicer: text in, index triplets out, split so that no phrase is in two splits."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32

from rlm.data.corpus import Corpus, Rows, relevance_components
from rlm.data.negatives import Relevance, draw_negatives, is_contradicted, redraw_negatives
from rlm.data.phrases import PAD, UNKNOWN, Phrases
from rlm.errors import InputError
from rlm.seeding import stream

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.21, 0.09)


class Components(NamedTuple):
    """
    The anchors, positives and negatives of the training triplets, with repeats.

    Random triplets are dealt from these three lists.
    """

    anchors: Int32[np.ndarray, " triplet"]
    positives: Int32[np.ndarray, " triplet"]
    negatives: Int32[np.ndarray, " triplet"]


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
    relevance
        What is known to be relevant to what, of all splits.
    train, validation, test
        Columns anchor, positive, negative: phrase indices.
    summary
        One row per split: how much it holds, how many anchors it rests on, how many words are unknown.
    """

    phrases: Phrases
    tokens: Int32[np.ndarray, "row token"]
    relevance: Relevance
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


def slice_corpus(
    corpus: Corpus,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    negatives: int = 5,
    negative_kinds: Mapping[str, float | int] | None = None,
    train_fraction: float | int = 1,
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
        Shares of random, similar and manual negatives, see `rlm.data.negatives.draw_negatives`; by default all manual
        where the corpus has irrelevant pairs, and all random elsewhere. Where there is none of a kind, it is drawn at
        random instead, and counted in the summary.
    train_fraction
        How much of the training pairs to keep, above 0, at most 1; fewer are always among more. Validation and test
        stay as they are, but for the words that training no longer sees.

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
    if not 0 < train_fraction <= 1:
        raise InputError(f"expected a train_fraction above 0 and at most 1, found {train_fraction}; 1 keeps all pairs")
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
        if name == "train" and train_fraction < 1:
            kept = _nested_choice(rows[mine, :2], train_fraction, stream(seed, "train_fraction"))
            mine[mine] = kept(rows[mine, :2])
            split = split[kept(split[:, :2])]
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
    return Slices(phrases, tokens, relevance, *triplets, summary=pd.DataFrame(summary))


def _nested_choice(
    pairs: Int[np.ndarray, "pair 2"], share: float, rng: np.random.Generator
) -> Callable[[Int[np.ndarray, "row 2"]], Bool[np.ndarray, " row"]]:
    """What tells rows of some of the pairs from others, whichever phrase of a pair comes first."""

    def key(rows: Int[np.ndarray, "row 2"]) -> Int[np.ndarray, " row"]:
        low, high = np.sort(rows.astype(np.int64), axis=1).T
        return (low << 32) + high

    different = np.unique(key(pairs))
    chosen = rng.permutation(different)[: max(1, round(share * len(different)))]
    return lambda rows: np.isin(key(rows), chosen)


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
    tokens = _known_words(slices.phrases, splits[0])
    return Slices(slices.phrases, tokens, slices.relevance, *splits, summary=summary)


def _known_words(phrases: Phrases, train: Int32[np.ndarray, "triplet 3"]) -> Int32[np.ndarray, "row token"]:
    """The token table, with the unknown word in place of all that training does not see."""
    known = np.full(len(phrases.words) + 2, UNKNOWN, np.int32)
    training_tokens = np.unique(phrases.tokens[np.unique(train)])
    known[training_tokens] = training_tokens
    known[PAD] = PAD
    return known[phrases.tokens]


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
