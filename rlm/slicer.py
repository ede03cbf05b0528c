"""The slicer: a corpus in, index triplets out, split so that no phrase is in two splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Int32

from rlm.config import FRACTIONS, MIN_COUNT, Padding, SplitBy, StudyConfig
from rlm.data.corpus import Corpus, Relevance, Triplets, is_contradicted, unordered_keys
from rlm.data.datasets import load_corpus
from rlm.data.negatives import draw_negatives, redraw_negatives, resolve_kinds
from rlm.data.phrases import PAD, UNKNOWN, Phrases, known_words, pad_tokens
from rlm.errors import InputError
from rlm.seeding import stream

SPLITS = ("train", "validation", "test")
Shares = tuple[float, float, float]
Drawn = tuple[Int32[np.ndarray, "_ 3"], Bool[np.ndarray, "_"]]  # triplets, and which of them have a redrawn negative


class Components(NamedTuple):
    """Anchors, positives and negatives, with repeats, that random triplets are drawn from; see `Slices.components`."""

    anchors: Int32[np.ndarray, " anchor"]
    positives: Int32[np.ndarray, " positive"]
    negatives: Int32[np.ndarray, " negative"]


@dataclass(frozen=True)
class Slices:
    """
    A corpus cut into training, validation and test triplets (phrase indices); if cut by cluster, they share no phrase.

    `tokens` is the token table of `phrases`, with the unknown word in place of every word that is rare in training.
    `relevance` covers all splits. `summary` has one row per split: its size, numbers of anchors and clusters, redrawn
    negatives, and share of unknown words; with unlabelled texts also how many of them are excluded, being phrases of
    the split. `texts` are the phrases of the others, which no validation or test triplet has; `min_count` counts both.
    """

    phrases: Phrases
    tokens: Int32[np.ndarray, "row token"]
    relevance: Relevance
    train: Int32[np.ndarray, "train_triplet 3"]
    validation: Int32[np.ndarray, "validation_triplet 3"]
    test: Int32[np.ndarray, "test_triplet 3"]
    summary: pd.DataFrame
    texts: Int32[np.ndarray, " text"] | None = None
    min_count: int = MIN_COUNT

    @property
    def components(self) -> Components:
        """The component lists: those of the training triplets, or else the unlabelled texts for every role."""
        return Components(*self.train.T) if self.texts is None else Components(self.texts, self.texts, self.texts)

    @cached_property
    def after_pretraining(self) -> "Slices":
        """The slices as a pre-trained encoder reads them: it knows the words of the unlabelled texts, too."""
        if self.texts is None:
            return self
        known = known_words(self.phrases, np.append(self.train, self.texts), self.min_count)
        return replace(self, tokens=np.where(self.tokens == UNKNOWN, known, self.tokens))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what training and evaluation see: phrases, splits and known words."""
        digest = hashlib.sha256("\n".join(self.phrases.texts).encode())
        texts = [] if self.texts is None else [self.texts]
        for part in (self.tokens, self.train, self.validation, self.test, *texts):
            digest.update(np.ascontiguousarray(part, "<i4").tobytes())
        return digest.hexdigest()

    def explain_texts(self) -> str:
        """Count the unlabelled texts, and those that are excluded."""
        if self.texts is None:
            return "no unlabelled texts"
        excluded = self.summary["excluded_texts"].sum()
        return f"{len(self.texts):,} unlabelled texts; {excluded:,} others are phrases of the validation or test split"

    @property
    def vocabulary_size(self) -> int:
        """Rows of a word-vector table: all words of the corpus, so random weights depend on neither split nor arm."""
        return len(self.phrases.words) + 2


def slice_corpus(
    corpus: Corpus,
    seed: int = 0,
    fractions: Shares = FRACTIONS,
    negatives: int = 5,
    negative_kinds: Mapping[str, float | int] | None = None,
    train_fraction: float | int = 1,
    min_count: int = MIN_COUNT,
    split_by: SplitBy = "cluster",
) -> Slices:
    """
    Split a corpus by clusters of relevant phrases, and give every pair its negatives.

    Phrases that are relevant to each other, directly or through others, form a cluster, which is never divided: no
    phrase is in two splits. Negatives are drawn inside their split. Negatives of the data are kept, unless they are in
    another split or relevant by another row; these are redrawn and counted. Unlabelled texts change no split; those
    that are phrases of a validation or test triplet are excluded and counted.

    Parameters
    ----------
    corpus
        Pairs or triplets.
    seed
        Owner of the streams ``split``, ``negatives`` and ``train_fraction``.
    fractions
        Shares of the rows for training, validation and test, positive with the sum 1; met approximately.
    negatives
        Negatives per pair; ignored if the corpus has triplets.
    negative_kinds
        Shares of ``"random"``, ``"similar"`` (by character trigrams), ``"manual"`` (known to be irrelevant) and
        ``"cascade"`` (manual, else sharing a word with the anchor) negatives; by default all manual if the corpus has
        irrelevant pairs, otherwise all random. Random ones replace those of a kind that is not available.
    train_fraction
        Share of the training pairs to keep, above 0, at most 1; a smaller share is part of a larger one. Other splits
        stay the same, except for words that training no longer sees.
    min_count
        Number of training phrases that must contain a word, and after pre-training on texts of their phrases as well;
        other words are read as the unknown word.
    split_by
        ``"triplet"`` assigns single triplets, after all negatives are drawn: splits then share phrases.

    Returns
    -------
    Slices
        The three splits.

    Raises
    ------
    InputError
        If the fractions are not positive with the sum 1, a split would be empty, a phrase is relevant to all
        candidates of its split, manual negatives are requested without irrelevant pairs, or all texts are excluded.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> pairs = [(f"fact {i}", f"question {i}") for i in range(100)]
    >>> slices = rlm.slice_corpus(rlm.index_corpus(pd.DataFrame(pairs, columns=["anchor", "positive"])), negatives=2)
    >>> slices.summary[["split", "pairs", "triplets"]].to_numpy().tolist()
    [['train', 70, 140], ['validation', 21, 42], ['test', 9, 18]]
    """
    if not 0 < train_fraction <= 1:
        raise InputError(f"expected a train_fraction above 0 and at most 1, found {train_fraction}; 1 keeps all pairs")
    if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise InputError(f"expected three positive fractions (one per split) with the sum 1, found {fractions}")
    drawn = _draw_splits(corpus, seed, fractions, split_by, negatives, resolve_kinds(corpus, negative_kinds))
    if train_fraction < 1:
        drawn[0] = _keep_share(drawn[0], train_fraction, stream(seed, "train_fraction"))
    splits = [triplets for triplets, _ in drawn]
    tokens = known_words(corpus.phrases, splits[0], min_count)
    summary, texts = _summarise(corpus, drawn, tokens), None
    if corpus.texts is not None:
        texts, summary["excluded_texts"] = _exclude_texts(corpus.texts, splits, len(corpus.phrases))
    return Slices(corpus.phrases, tokens, corpus.relevance, *splits, summary=summary, texts=texts, min_count=min_count)


def _draw_splits(
    corpus: Corpus, seed: int, fractions: Shares, split_by: SplitBy, negatives: int, kinds: Mapping[str, float | int]
) -> list[Drawn]:
    """Split rows, and give every pair its negatives, drawn inside its split; or the other way round, by triplet."""
    rows, texts, rng = corpus.rows, corpus.phrases.texts, stream(seed, "negatives")
    is_unusable = is_contradicted(rows) if corpus.has_negatives else np.zeros(len(rows), bool)

    def draw(mine: np.ndarray, known: np.ndarray) -> Drawn:
        """Give some rows their negatives."""
        if corpus.has_negatives:
            return redraw_negatives(rows[mine], is_unusable[mine], rng, texts), is_unusable[mine]
        settings = {"relevance": corpus.relevance, "kinds": kinds, "irrelevant": known}
        return draw_negatives(rows[mine], negatives, rng, texts, **settings)

    if split_by == "triplet":
        return _split_triplets(*draw(np.ones(len(rows), bool), corpus.irrelevant), fractions, stream(seed, "split"))
    split_of_row = _split_rows(corpus.clusters[rows[:, 0]], fractions, stream(seed, "split"))
    home, drawn = _find_homes(corpus, split_of_row), []
    if corpus.has_negatives:
        is_unusable |= home[rows[:, 2]] != split_of_row
    for number, name in enumerate(SPLITS):
        try:
            known = corpus.irrelevant[(home[corpus.irrelevant] == number).all(axis=1)]
            drawn.append(draw(split_of_row == number, known))
        except InputError as error:
            raise InputError(f"{name} split: {error}") from error
    return drawn


def _keep_share(drawn: Drawn, share: float | int, rng: np.random.Generator) -> Drawn:
    """Keep the triplets of a share of their pairs; a smaller share is part of a larger one."""
    triplets, is_redrawn = drawn
    keys = unordered_keys(triplets)
    pairs = rng.permutation(np.unique(keys))
    is_kept = np.isin(keys, pairs[: max(1, round(share * len(pairs)))])
    return triplets[is_kept], is_redrawn[is_kept]


def _summarise(corpus: Corpus, drawn: Sequence[Drawn], tokens: Int32[np.ndarray, "row token"]) -> pd.DataFrame:
    """Count what every split has, see `Slices`."""
    summary = []
    for name, (triplets, is_redrawn) in zip(SPLITS, drawn, strict=True):
        rows = corpus.rows[np.isin(unordered_keys(corpus.rows), unordered_keys(triplets))]
        read = tokens[np.unique(triplets)]
        summary.append(
            {
                "split": name,
                "pairs": len(np.unique(rows[:, :2], axis=0)),
                "anchors": len(np.unique(rows[:, 0])),
                "clusters": len(np.unique(corpus.clusters[rows[:, 0]])),
                "phrases": len(np.unique(triplets)),
                "triplets": len(triplets),
                "redrawn_negatives": int(is_redrawn.sum()),
                "unknown_words": float((read == UNKNOWN).sum() / (read != PAD).sum()),
            }
        )
    return pd.DataFrame(summary)


def _exclude_texts(texts: np.ndarray, splits: Sequence[np.ndarray], phrases: int) -> tuple[np.ndarray, list[int]]:
    """Return the unlabelled texts that no validation or test triplet has, and how many each split excludes."""
    split_of = np.zeros(phrases, np.int8)
    for number, triplets in enumerate(splits[1:], 1):
        split_of[triplets] = number
    _, *excluded = np.bincount(split_of[texts], minlength=len(SPLITS)).tolist()
    kept = texts[split_of[texts] == 0]
    if not len(kept):
        raise InputError(
            f"expected unlabelled texts beside the phrases of the validation and test splits, found none: all "
            f"{len(texts):,} are such phrases; give other texts"
        )
    return kept, [0, *excluded]


def _split_triplets(
    triplets: Triplets, is_redrawn: Bool[np.ndarray, " triplet"], fractions: Shares, rng: np.random.Generator
) -> list[Drawn]:
    """Deal triplets to the splits at random, as ``sklearn.model_selection.train_test_split`` does."""
    ends = np.round(np.cumsum(fractions)[:2] * len(triplets)).astype(int)
    parts = np.split(rng.permutation(len(triplets)), ends)
    if not all(map(len, parts)):
        raise InputError(f"expected a triplet for every split, found {len(triplets)} in all; give more data")
    return [(triplets[part], is_redrawn[part]) for part in parts]


def _split_rows(
    cluster: Int32[np.ndarray, " row"], fractions: Shares, rng: np.random.Generator
) -> Int[np.ndarray, " row"]:
    """Assign every row the split of its cluster, at random."""
    _, place, weight = np.unique(cluster, return_inverse=True, return_counts=True)
    share = weight / weight.sum()
    # Clusters larger than the smallest split come first, by size, and so go to training: chance must not assign half of
    # the data to the test split.
    order = np.lexsort((rng.random(len(weight)), np.where(share < min(fractions), 0, -share)))
    middle = np.empty(len(weight))
    middle[order] = np.cumsum(share[order]) - share[order] / 2
    split = np.searchsorted(np.cumsum(fractions)[:2], middle, side="right")
    if empty := [name for number, name in enumerate(SPLITS) if not (split == number).any()]:
        raise InputError(
            f"the {empty[0]} split would be empty: {len(cluster)} rows form {len(weight)} cluster(s) of relevant "
            f"phrases, the largest with {share.max():.0%} of the rows, and a cluster is never divided; give more data "
            "or other fractions"
        )
    return split[place]


def _find_homes(corpus: Corpus, split_of_row: Int[np.ndarray, " row"]) -> Int[np.ndarray, " phrase"]:
    """Find the one split where each phrase may be used; -1 for a phrase that no row of a split refers to."""
    home = np.full(len(corpus.phrases), -1)
    home[corpus.rows[:, 0]] = home[corpus.rows[:, 1]] = split_of_row
    irrelevant = corpus.rows[:, ::2] if corpus.has_negatives else corpus.irrelevant
    # A phrase in no relevant pair belongs to the split that uses it first. NumPy keeps the last of several values
    # assigned to one place, hence the reversal.
    for query, candidate in (irrelevant[::-1].T, irrelevant[::-1, ::-1].T):
        is_free = (home[candidate] < 0) & (home[query] >= 0)
        home[candidate[is_free]] = home[query[is_free]]
    return home


def pad_slices(slices: Sequence[Slices], padding: Padding) -> list[Slices]:
    """Replace the padding of token tables, see `pad_tokens`; slices that are one object stay one."""
    padded = {id(one): replace(one, tokens=pad_tokens(one.tokens, padding)) for one in slices}
    return [padded[id(one)] for one in slices]


def slice_for(config: StudyConfig, corpus: Corpus, seeds: Sequence[int]) -> list[Slices]:
    """Slice the data by a config, once per seed; all are the same object for a fixed split."""
    names = {"fractions", "negatives", "negative_kinds", "train_fraction", "min_count", "split_by"}
    split_seeds = [config.split_seed] if config.split == "fixed" else seeds
    slices = [slice_corpus(corpus, seed, **config.model_dump(include=names)) for seed in split_seeds]
    if config.keeps_unseen_words:
        slices = [replace(one, tokens=corpus.phrases.tokens) for one in slices]
    return slices * len(seeds) if config.split == "fixed" else slices


def prepare(config: StudyConfig, seed: int = 0) -> Slices:
    """
    Load and slice the data of a study for one seed.

    Parameters
    ----------
    config
        Names the data, and how to read and split them.
    seed
        Seed of the split where every seed has its own; a fixed split is the same for all seeds.

    Returns
    -------
    Slices
        Splits, and the components that random triplets are drawn from.

    Raises
    ------
    InputError
        If the data cannot be read or sliced.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.prepare(rlm.StudyConfig(dataset="chatterbot-english"))
    >>> slices.train.shape[1]
    3
    """
    return slice_for(config, load_corpus(config), [seed])[0]
