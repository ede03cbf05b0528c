"""Audit: leaks, shortcuts and contradictions in the data, and references that every result must beat."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int32
from sklearn.metrics import roc_auc_score

from rlm.block import init_block, of_triplets
from rlm.config import Recipe
from rlm.data.corpus import Corpus, Triplets, is_contradicted, unordered_keys
from rlm.data.phrases import PAD, UNKNOWN, is_read_by_character, known_words
from rlm.data.similarity import most_alike, trigrams
from rlm.encoder import MeanEncoder
from rlm.engine.accuracy import embed
from rlm.engine.batches import split_batch
from rlm.evaluation.references import BLIND, LOOKED_AT, OVERLAP, is_right, percent, some_of, tabulate, with_interval
from rlm.loss import squared_distance
from rlm.seeding import stream
from rlm.slicer import SPLITS, Slices
from rlm.training import finetune

NEAR_DUPLICATE = 0.9
LEAK_SEEDS, LEAK_EPOCHS = 3, 5
_Found = tuple[float | int, str]  # a value to compare with limits, and its description


@dataclass(frozen=True)
class Audit:
    """
    The checks of a dataset and their findings.

    `checks` has the columns check, severity (``"fine"``, ``"note"``, ``"warning"``), found, meaning and advice.
    `references` has the accuracy with its interval (low, high; 95 % bootstrap over clusters of relevant phrases) of
    predictors without an encoder, on at most 20,000 test triplets, or on pairs with the most similar negatives.
    `splits` has triplets, phrases, words per phrase (mean and range), share of unknown words, anchors and clusters,
    and their effective numbers: 1 / sum of squared shares of the pairs.
    """

    checks: pd.DataFrame
    references: pd.DataFrame
    splits: pd.DataFrame

    @property
    def findings(self) -> pd.DataFrame:
        """The checks that are not fine, warnings first."""
        found = self.checks[self.checks["severity"] != "fine"]
        return found.sort_values("severity", ascending=False, kind="stable", ignore_index=True)


class _Subject(NamedTuple):
    corpus: Corpus
    slices: Slices
    cluster: Int32[np.ndarray, " phrase"]
    splits: pd.DataFrame
    references: pd.DataFrame
    seed: int


class _Check(NamedTuple):
    """A measured value with its limits: more than `note` or `warning` is reported as such."""

    name: str
    measure: Callable[[_Subject], _Found]
    note: float
    warning: float
    meaning: str
    advice: str


def audit(corpus: Corpus, slices: Slices, seed: int = 0) -> Audit:
    """
    Look for reasons not to trust a study on these data, before a study is run.

    Parameters
    ----------
    corpus, slices
        The data and their splits.
    seed
        Seed of the samples of large data, and of the small encoders that measure the effect of a leak.

    Returns
    -------
    Audit
        Checks, references and splits.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> pairs = [(f"fact {i}", f"question {i}") for i in range(100)]
    >>> corpus = rlm.index_corpus(pd.DataFrame(pairs, columns=["anchor", "positive"]))
    >>> audit = rlm.audit(corpus, rlm.slice_corpus(corpus))
    >>> audit.findings[["check", "severity"]].iloc[0].tolist(), int(audit.splits.loc["test", "anchors"])
    (['size of the test', 'warning'], 9)
    """
    cluster = corpus.clusters
    splits = pd.DataFrame([_describe_split(name, corpus, slices, cluster) for name in SPLITS]).set_index("split")
    subject = _Subject(corpus, slices, cluster, splits, tabulate(corpus, slices, cluster, seed), seed)
    rows = []
    for check in _CHECKS:
        value, found = check.measure(subject)
        severity = "warning" if value > check.warning else "note" if value > check.note else "fine"
        rows.append((check.name, severity, found, check.meaning, check.advice))
    checks = pd.DataFrame(rows, columns=["check", "severity", "found", "meaning", "advice"])
    return Audit(checks, subject.references, splits)


def slice_at_random(slices: Slices, seed: int = 0) -> Slices:
    """Deal the same triplets to splits of the same sizes at random; the summary has the share that leaks from train."""
    triplets = [getattr(slices, name) for name in SPLITS]
    ends = np.cumsum([len(split) for split in triplets])[:2]
    splits = np.split(stream(seed, "split").permutation(np.concatenate(triplets)), ends)
    leaked = [float(np.isin(split, splits[0]).any(axis=1).mean()) for split in splits]
    summary = pd.DataFrame({"split": SPLITS, "triplets": list(map(len, splits)), "leaked": leaked})
    tokens = known_words(slices.phrases, splits[0], slices.min_count)
    return Slices(slices.phrases, tokens, slices.relevance, *splits, summary=summary)


def _describe_split(
    name: str, corpus: Corpus, slices: Slices, cluster: Int32[np.ndarray, " phrase"]
) -> dict[str, object]:
    phrases = np.unique(triplets := getattr(slices, name))
    lengths = slices.phrases.lengths[phrases]
    read = slices.tokens[phrases]
    anchors = corpus.rows[np.isin(unordered_keys(corpus.rows), unordered_keys(triplets)), 0]
    return {
        "split": name,
        "triplets": len(triplets),
        "phrases": len(phrases),
        "words in a phrase": f"{lengths.mean():.1f} ({lengths.min()}-{lengths.max()})",
        "unknown words": float((read == UNKNOWN).sum() / (read != PAD).sum()),
        "anchors": len(np.unique(anchors)),
        "effective anchors": _effective(anchors),
        "clusters": len(np.unique(cluster[anchors])),
        "effective clusters": _effective(cluster[anchors]),
    }


def _effective(units: Int32[np.ndarray, " row"]) -> float:
    return 1 / float(((np.unique(units, return_counts=True)[1] / len(units)) ** 2).sum())


def _dropped_rows(subject: _Subject) -> _Found:
    corpus = subject.corpus
    dropped = len(corpus.dropped) + sum(corpus.not_read.values())
    share = dropped / (len(corpus.rows) + len(corpus.irrelevant) + dropped)
    return share, f"{share:.1%}: {corpus.explain_dropped()}"


def _contradictions(subject: _Subject) -> _Found:
    corpus = subject.corpus
    count = int((corpus.dropped["reason"] == "relevant elsewhere").sum())
    count += int(is_contradicted(corpus.rows).sum()) if corpus.has_negatives else 0
    return count / len(corpus.rows), f"{count:,} rows mark as irrelevant what another row marks as relevant"


def _redrawn(subject: _Subject) -> _Found:
    summary = subject.slices.summary
    redrawn = int(summary["redrawn_negatives"].sum()) if "redrawn_negatives" in summary else 0
    share = redrawn / subject.splits["triplets"].sum()
    reason = "their split has none of the requested kind for the pair"
    if subject.corpus.has_negatives:
        reason = "those of the data are in another split, where other rows use them, or relevant in another row"
    found = [f"{redrawn:,} negatives ({share:.1%}) are random, because {reason}", subject.corpus.explain_unused()]
    return share, "; ".join(filter(None, found))


def _shared_phrases(subject: _Subject) -> _Found:
    held_out = np.concatenate([subject.slices.validation, subject.slices.test])
    share = float(np.isin(held_out, subject.slices.train).any(axis=1).mean())
    found = f"{share:.1%} of the validation and test triplets have a phrase of the training triplets"
    texts = f"; pre-training draws from {subject.slices.explain_texts()}" if subject.slices.texts is not None else ""
    return share, found + texts


def _near_duplicates(subject: _Subject) -> _Found:
    test, train = (np.unique(part) for part in (subject.slices.test, subject.slices.train))
    test = test[:: -(-len(test) // 2000)]
    texts = subject.slices.phrases.texts
    grams = trigrams([texts[phrase] for phrase in (*test, *train)])
    queries, candidates = grams[: len(test)], grams[len(test) :]
    nearest = most_alike(queries, candidates, 1)[:, 0]
    common = queries.multiply(candidates[nearest]).sum(axis=1)  # 0 if the nearest is -1, which shares no trigram
    cosine = common / np.sqrt(queries.sum(axis=1) * candidates[nearest].sum(axis=1))
    is_near = cosine >= NEAR_DUPLICATE
    share, example = float(is_near.mean()), ""
    if share:
        row = int(np.argmax(is_near))
        example = f", such as {texts[test[row]]!r} and {texts[train[nearest[row]]]!r}"
    return share, f"{share:.1%} of the test phrases are nearly equal to a training phrase{example}"


def _usual_split(subject: _Subject) -> _Found:
    usual = slice_at_random(subject.slices, subject.seed)
    leaked = usual.summary.set_index("split").loc["test", "leaked"]
    judged = (_train_quickly(one, subject.seed) for one in (subject.slices, usual))
    honest, leaking = (with_interval(right, subject.cluster[triplets[:, 0]]) for right, triplets in judged)
    return 0, (
        f"if the triplets were split at random, {leaked:.0%} of the test triplets would have a training phrase, and "
        f"a small encoder would be right about {percent(leaking)} of them; here it is right about {percent(honest)}"
    )


def _train_quickly(slices: Slices, seed: int) -> tuple[Float[np.ndarray, " triplet"], Triplets]:
    """Return how often each test triplet is right over a few briefly trained encoders, and these triplets."""
    seeds = range(seed, seed + LEAK_SEEDS)
    some = {name: some_of(getattr(slices, name), stream(seed, "audit", 3)) for name in ("validation", "test")}
    small = dataclasses.replace(slices, **some)
    block = init_block(partial(MeanEncoder, slices.vocabulary_size), seeds)
    block, _ = finetune(block, small, Recipe(epoch_triplets=LOOKED_AT), max_epochs=LEAK_EPOCHS, progress=False)
    batch = split_batch(block, [small] * LEAK_SEEDS, "test")
    anchor, positive, negative = of_triplets(embed(block, batch), batch.triplets)
    gap = squared_distance(anchor, negative) - squared_distance(anchor, positive)
    return is_right(gap.numpy()).mean(axis=0), small.test


def _size(subject: _Subject) -> _Found:
    columns = ["anchors", "effective anchors", "clusters", "effective clusters"]
    anchors, effective_anchors, clusters, effective_clusters = subject.splits.loc["test"][columns]
    is_poor = effective_anchors < 100 or effective_clusters < 50 or effective_anchors < anchors / 2
    return int(is_poor), (
        f"the test split has {anchors:,} anchors in {clusters:,} clusters of relevant phrases; their effective numbers "
        f"are {effective_anchors:,.0f} and {effective_clusters:,.0f}"
    )


def _unknown_words(subject: _Subject) -> _Found:
    share = float(subject.splits.loc["test", "unknown words"])
    alike = np.equal(*subject.slices.tokens[subject.slices.test[:, 1:].T]).all(axis=1).mean()
    found = f"{share:.0%} of the test split's words are unknown; positive and negative are equal in {alike:.1%} by them"
    if subject.slices.texts is not None:
        read = subject.slices.after_pretraining.tokens[np.unique(subject.slices.test)]
        found += f"; {(read == UNKNOWN).sum() / (read != PAD).sum():.0%} are unknown to pre-training, too"
    return share, found


def _long_phrases(subject: _Subject) -> _Found:
    phrases, width = subject.slices.phrases, subject.slices.tokens.shape[1]
    share = phrases.cut / len(phrases)
    if not share:
        return 0, f"all of {len(phrases):,} phrases are read as a whole; the longest has {width} words"
    return share, f"{share:.1%} of {len(phrases):,} phrases are longer than the {width} words that are read"


def _scripts(subject: _Subject) -> _Found:
    texts = subject.slices.phrases.texts[:: max(1, len(subject.slices.phrases) // 1000)]
    share = float(np.mean([is_read_by_character(text) for text in texts]))
    return share, f"{share:.0%} of the phrases are in a script without spaces between words"


def _difficulty(subject: _Subject) -> _Found:
    overlap = tuple(subject.references.loc[OVERLAP])
    return overlap[0], f"trigram overlap, untrained, is right about {percent(overlap)} of the test triplets"


def _anchor_blind(subject: _Subject) -> _Found:
    accuracy, low, high = subject.references.loc[BLIND]
    differs = low > 0.5 or high < 0.5  # False if there is no interval
    found = f"a classifier that never sees the anchor is right about {percent((accuracy, low, high))}"
    return abs(accuracy - 0.5) if differs else 0, found


def _random_signal(subject: _Subject) -> _Found:
    """Score a phrase by how often it is a positive; in random triplets its role is independent of the anchor."""
    count = len(subject.slices.phrases)
    positives, negatives = (np.bincount(part, minlength=count) for part in subject.slices.components[1:])
    total = positives + negatives
    score = np.divide(positives, total, out=np.zeros(count), where=total > 0)
    weights = np.concatenate([positives, negatives])
    signal = roc_auc_score(np.repeat([1, 0], count), np.tile(score, 2), sample_weight=weights)
    return signal, (
        "a classifier that knows only how often each phrase is a positive and how often a negative is right about "
        f"{signal:.1%} of random triplets"
    )


_CHECKS = (
    _Check(
        *("dropped rows", _dropped_rows, 0, 0.1),
        "Repeated rows would count more than once in every accuracy; the others cannot be learned.",
        "Look at corpus.dropped; correct the source if these rows are mistakes.",
    ),
    _Check(
        *("contradictions", _contradictions, 0, 0.01),
        "Such a negative teaches the opposite of another row; it is redrawn at random, or dropped.",
        "Check which of the two rows is wrong.",
    ),
    _Check(
        *("redrawn negatives", _redrawn, 0.01, 0.2),
        "They are easier than the others, and make the task easier than it looks.",
        "For triplets, give negatives that no row of another cluster uses. For pairs, request fewer negatives or a "
        "larger share of random ones, or list more irrelevant pairs.",
    ),
    _Check(
        *("shared phrases", _shared_phrases, 0, 0),
        "An encoder can be right about these by remembering them.",
        "Split with rlm.slice_corpus, which keeps connected phrases together.",
    ),
    _Check(
        *("near duplicates", _near_duplicates, 0.02, 0.2),
        "A reader sees the same phrase: an encoder can be right about it by remembering the training phrase.",
        "Merge them before slicing, or give them one label, so that they stay in one split.",
    ),
    _Check(
        *("a usual split", _usual_split, 0, 0),
        "The excess is the effect of remembering phrases; published accuracies often contain it.",
        "Compare only with accuracies of splits that are made in the same way.",
    ),
    _Check(
        *("size of the test", _size, 0, 0),
        "The effective numbers count independent observations; more triplets or seeds do not add any.",
        "Give more data, use split='per_seed', or drop pairs of the anchors that have the most pairs.",
    ),
    _Check(
        *("unknown words", _unknown_words, 0.2, 0.5),
        "An encoder with a vector per word reads all of them as the same word.",
        "Give more data, or use an encoder that reads parts of words.",
    ),
    _Check(
        *("long phrases", _long_phrases, 0.01, 0.2),
        "The rest of these phrases is not read.",
        "Raise max_tokens; training then takes more time.",
    ),
    _Check(
        *("words", _scripts, 0.1, 1),
        "In these scripts every character is read as a word: order matters more, and max_tokens cuts earlier.",
        "Separate the words with spaces by a segmenter of the language, or raise max_tokens.",
    ),
    _Check(
        *("difficulty", _difficulty, 0.9, 0.95),
        "Training can only improve the accuracy on the other triplets.",
        "Use harder negatives: give more similar ones, or for pairs set negative_kinds similar=1.",
    ),
    _Check(
        *("anchor-blind", _anchor_blind, 0, 0.1),
        "If this is not 50 %, positives differ from negatives by themselves or in frequency. An encoder can learn "
        "that, also from random triplets, without learning which phrases are relevant to each other.",
        "Draw negatives from the positives of other anchors, as rlm does for pairs.",
    ),
    _Check(
        *("signal in random triplets", _random_signal, 0.75, 0.9),
        "Pre-training can reach this accuracy by learning the usual role of each phrase, regardless of the anchor.",
        "Compare pre-training accuracy with this number, not with 50 %; use phrases equally often in both roles.",
    ),
)
