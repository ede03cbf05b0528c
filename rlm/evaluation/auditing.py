"""Audit: is the task honest? Leaks, shortcuts, contradictions, and baselines that every result must beat."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int32
from sklearn.metrics import roc_auc_score

from rlm.block import init_block, of_triplets
from rlm.data.corpus import Corpus, relevance_components
from rlm.data.negatives import Triplets, is_contradicted
from rlm.data.phrases import PAD, UNKNOWN, is_read_by_character
from rlm.data.similarity import most_alike, trigrams
from rlm.encoder import MeanEncoder
from rlm.evaluation.baselines import BLIND, LOOKED_AT, OVERLAP, baselines_of, is_right, percent, some_of, with_interval
from rlm.evaluation.triplets import embed, split_batch
from rlm.loss import squared_distance
from rlm.seeding import stream
from rlm.slicer import SPLITS, Slices, slice_at_random
from rlm.training import finetune

Severity = Literal["fine", "note", "warning"]
NEAR_DUPLICATE = 0.9
LEAK_SEEDS, LEAK_EPOCHS = 3, 5


@dataclass(frozen=True)
class Audit:
    """
    What was checked, and what was found.

    Attributes
    ----------
    checks
        One row per check: check, severity (``"fine"``, ``"note"``, ``"warning"``), found, meaning, advice.
    baselines
        One row per baseline: accuracy, low and high (95 % bootstrap over connected components of relevant phrases) on
        (at most 20,000 of) the test triplets, or on test pairs with the most similar negatives. Missing where there
        are none. No baseline has an encoder; TF-IDF and the classifier are fitted to the training split.
    splits
        One row per split: triplets, phrases, words in a phrase (mean and range), share of unknown words, anchors and
        components of relevant phrases, and how many of these there are in effect: 1 / sum of squared shares of the
        pairs.
    """

    checks: pd.DataFrame
    baselines: pd.DataFrame
    splits: pd.DataFrame

    @property
    def findings(self) -> pd.DataFrame:
        """The checks that are not fine, warnings first."""
        found = self.checks[self.checks["severity"] != "fine"]
        return found.sort_values("severity", ascending=False, kind="stable", ignore_index=True)


def audit(corpus: Corpus, slices: Slices, seed: int = 0) -> Audit:
    """
    Look for reasons not to trust a study on these data, before anything is trained for it.

    Parameters
    ----------
    corpus
        The data.
    slices
        Their splits.
    seed
        Of the samples that are looked at where data are large, and of the small encoders that show what a leak is
        worth.

    Returns
    -------
    Audit
        Checks, baselines and splits.
    """
    component = relevance_components(corpus.rows[:, :2], len(corpus.phrases))
    splits = _splits(corpus, slices, component)
    baselines = baselines_of(corpus, slices, component, seed)
    checks = [
        _rows_left_out(corpus),
        _contradictions(corpus),
        _redrawn(slices),
        _shared_phrases(slices),
        _near_duplicates(slices),
        _leak_of_a_usual_split(slices, component, seed),
        _effective_size(splits),
        _unknown_words(splits),
        _cut_phrases(slices),
        _scripts(slices),
        _overlap(corpus, baselines),
        _anchor_blind(baselines),
        _membership(slices),
    ]
    columns = ["check", "severity", "found", "meaning", "advice"]
    return Audit(pd.DataFrame(checks, columns=columns), baselines, splits)


Check = tuple[str, Severity, str, str, str]


def _severity(value: float | int, note: float | int, warning: float | int) -> Severity:
    return "warning" if value > warning else "note" if value > note else "fine"


def _splits(corpus: Corpus, slices: Slices, component: Int32[np.ndarray, " phrase"]) -> pd.DataFrame:
    rows = []
    for name in SPLITS:
        triplets = getattr(slices, name)
        phrases = np.unique(triplets)
        lengths = slices.phrases.lengths[phrases]
        read = slices.tokens[phrases]
        anchors = corpus.rows[np.isin(corpus.rows[:, 0], phrases), 0]
        rows.append(
            {
                "split": name,
                "triplets": len(triplets),
                "phrases": len(phrases),
                "words in a phrase": f"{lengths.mean():.1f} ({lengths.min()}-{lengths.max()})",
                "unknown words": float((read == UNKNOWN).sum() / (read != PAD).sum()),
                "anchors": len(np.unique(anchors)),
                "effective anchors": _effective(anchors),
                "components": len(np.unique(component[anchors])),
                "effective components": _effective(component[anchors]),
            }
        )
    return pd.DataFrame(rows).set_index("split")


def _effective(groups: Int32[np.ndarray, " triplet"]) -> float:
    _, counts = np.unique(groups, return_counts=True)
    return float(counts.sum() ** 2 / (counts.astype(float) ** 2).sum())


# --- the data ---


def _rows_left_out(corpus: Corpus) -> Check:
    left_out = len(corpus.dropped) + sum(corpus.not_read.values())
    share = left_out / (len(corpus.rows) + len(corpus.irrelevant) + left_out)
    return (
        "rows left out",
        _severity(share, 0, 0.1),
        f"{share:.1%}: {corpus.explain_left_out()}",
        "Repeated rows would weigh as much in every accuracy; the others cannot be learnt from.",
        "Look at corpus.dropped; correct the source where these rows are mistakes.",
    )


def _redrawn(slices: Slices) -> Check:
    redrawn = int(slices.summary.get("redrawn_negatives", pd.Series([0])).sum())
    share = redrawn / sum(len(getattr(slices, name)) for name in SPLITS)
    return (
        "negatives drawn instead",
        _severity(share, 0.01, 0.2),
        f"{redrawn:,} negatives ({share:.1%}) are random, for want of "
        "usable ones of the data, or of the kind that was asked for",
        "They are easier than the others, and make the task easier than it looks.",
        "Give every anchor negatives of its own, in its own group of phrases; ask for fewer negatives per pair.",
    )


def _contradictions(corpus: Corpus) -> Check:
    count = int((corpus.dropped["reason"] == "relevant elsewhere").sum())
    if corpus.rows.shape[1] == 3:
        count += int(is_contradicted(corpus.rows).sum())
    return (
        "contradictions",
        _severity(count / len(corpus.rows), 0, 0.01),
        f"{count:,} rows call irrelevant what another row calls relevant",
        "Such a negative teaches the opposite of another row; it is drawn anew at random, or left out.",
        "Find out which of the two rows is wrong.",
    )


def _scripts(slices: Slices) -> Check:
    texts = slices.phrases.texts[:: max(1, len(slices.phrases.texts) // 1000)]
    share = float(np.mean([is_read_by_character(text) for text in texts]))
    return (
        "words",
        _severity(share, 0.1, 1),
        f"{share:.0%} of the phrases are of a script without spaces between words",
        "Of these every character is read as a word: order matters more, and max_tokens cuts earlier.",
        "Separate the words with spaces by a segmenter of the language, or raise max_tokens.",
    )


def _cut_phrases(slices: Slices) -> Check:
    share = slices.phrases.cut / len(slices.phrases)
    return (
        "long phrases",
        _severity(share, 0.01, 0.2),
        f"{share:.1%} of {len(slices.phrases):,} phrases are longer than the {slices.tokens.shape[1]} words "
        "that are read",
        "What stands behind is not seen.",
        "Raise max_tokens, at the price of time.",
    )


def _unknown_words(splits: pd.DataFrame) -> Check:
    share = splits.loc["test", "unknown words"]
    return (
        "unknown words",
        _severity(share, 0.2, 0.5),
        f"{share:.0%} of the words of the test split are unknown to training",
        "An encoder with a vector per word reads them all as the same word; what is left of the phrase must do.",
        "Give more data, or an encoder that reads parts of words.",
    )


# --- the splits ---


def _shared_phrases(slices: Slices) -> Check:
    held_out = np.concatenate([slices.validation, slices.test])
    share = float(np.isin(held_out, slices.train).any(axis=1).mean())
    return (
        "shared phrases",
        _severity(share, 0, 0),
        f"{share:.1%} of the validation and test triplets hold a phrase of the training triplets",
        "An encoder can be right about these by remembering.",
        "Split with rlm.slice_corpus, which keeps phrases that are connected together.",
    )


def _near_duplicates(slices: Slices) -> Check:
    test, train = (np.unique(part) for part in (slices.test, slices.train))
    test = test[:: -(-len(test) // 2000)]
    texts = slices.phrases.texts
    grams = trigrams([texts[phrase] for phrase in (*test, *train)])
    queries, candidates = grams[: len(test)], grams[len(test) :]
    nearest = most_alike(queries, candidates, 1)[:, 0]
    has_any = nearest >= 0
    likeness = np.zeros(len(test))
    common = queries[has_any].multiply(candidates[nearest[has_any]]).sum(axis=1)
    sizes = queries[has_any].sum(axis=1) * candidates[nearest[has_any]].sum(axis=1)
    likeness[has_any] = common / np.sqrt(sizes)
    share = float((likeness >= NEAR_DUPLICATE).mean())
    example = ""
    if share:
        row = int(np.argmax(likeness >= NEAR_DUPLICATE))
        example = f", such as {texts[test[row]]!r} and {texts[train[nearest[row]]]!r}"
    return (
        "near duplicates",
        _severity(share, 0.02, 0.2),
        f"{share:.1%} of the test phrases are nearly a training phrase{example}",
        "They are other phrases by the letter, and the same to a reader: part of the test is remembered.",
        "Merge them before slicing, or give them one label, so that they stay in one split.",
    )


def _leak_of_a_usual_split(slices: Slices, component: Int32[np.ndarray, " phrase"], seed: int) -> Check:
    usual = slice_at_random(slices, seed)
    leaked = usual.summary.set_index("split").loc["test", "leaked"]
    judged = (_quick_encoder(one, seed) for one in (slices, usual))
    honest, flattering = (with_interval(right, component[triplets[:, 0]]) for right, triplets in judged)
    return (
        "a usual split",
        "fine",
        f"were the triplets split at random, {leaked:.0%} of the test triplets would hold a training phrase, and a "
        f"small encoder would be right about {percent(flattering)} of them; it is about {percent(honest)} here",
        "The excess is what remembering phrases is worth; published accuracies often contain it.",
        "Compare with accuracies of splits made in the same way only.",
    )


def _quick_encoder(slices: Slices, seed: int) -> tuple[Float[np.ndarray, " triplet"], Triplets]:
    """How often each test triplet is right, over a few seeds of briefly trained encoders, and these triplets."""
    seeds = range(seed, seed + LEAK_SEEDS)
    some = {name: some_of(getattr(slices, name), stream(seed, "audit", 3)) for name in ("validation", "test")}
    small = dataclasses.replace(slices, **some)
    block = init_block(partial(MeanEncoder, slices.vocabulary_size), seeds)
    block, _ = finetune(block, small, max_epochs=LEAK_EPOCHS, epoch_triplets=LOOKED_AT, progress=False)
    batch = split_batch(block, [small] * LEAK_SEEDS, "test")
    anchor, positive, negative = of_triplets(embed(block, batch), batch.triplets)
    gap = squared_distance(anchor, negative) - squared_distance(anchor, positive)
    return is_right(gap.numpy()).mean(axis=0), small.test


def _effective_size(splits: pd.DataFrame) -> Check:
    anchors, anchors_in_effect, components, components_in_effect = splits.loc["test"].iloc[-4:]
    small = anchors_in_effect < 100 or components_in_effect < 50
    uneven = anchors_in_effect < anchors / 2
    return (
        "size of the test",
        "warning" if small or uneven else "fine",
        f"the test split rests on {anchors:,} anchors and {components:,} unrelated groups, in effect on "
        f"{anchors_in_effect:,.0f} and {components_in_effect:,.0f}",
        "So many independent observations there are, however many triplets are made of them and seeds are run on them.",
        "Give more data, take split='per_seed', or drop pairs of the anchors that carry most of it.",
    )


# --- shortcuts ---


def _overlap(corpus: Corpus, baselines: pd.DataFrame) -> Check:
    accuracy = baselines.loc[OVERLAP, "accuracy"]
    brings_negatives = corpus.rows.shape[1] == 3
    return (
        "difficulty",
        _severity(accuracy, 0.9, 0.95),
        f"trigram overlap, untrained, is right about {percent(tuple(baselines.loc[OVERLAP]))} of the test triplets",
        "What is left for training to improve is the rest.",
        "Give negatives that are more alike."
        if brings_negatives
        else "Take harder negatives: negative_kinds similar=1.",
    )


def _anchor_blind(baselines: pd.DataFrame) -> Check:
    accuracy, low, high = baselines.loc[BLIND]
    is_fine = not (low > 0.5 or high < 0.5)  # also where there is no interval
    severity: Severity = "fine" if is_fine else "warning" if abs(accuracy - 0.5) > 0.1 else "note"
    return (
        "anchor-blind",
        severity,
        f"a classifier that never sees the anchor is right about {percent((accuracy, low, high))}",
        "Other than 50 %, positives and negatives differ by themselves, or by how often they are which: that can be "
        "learnt, from random triplets as well, without learning what is relevant to what.",
        "Draw negatives from the positives of other anchors, as rlm does for pairs.",
    )


def _membership(slices: Slices) -> Check:
    positives, negatives = (
        np.bincount(part, minlength=len(slices.phrases)) for part in (slices.train[:, 1], slices.train[:, 2])
    )
    total = positives + negatives
    score = np.divide(positives, total, out=np.zeros(len(total)), where=total > 0)
    signal = roc_auc_score(
        np.repeat([1, 0], len(total)), np.tile(score, 2), sample_weight=np.concatenate([positives, negatives])
    )
    return (
        "signal in random triplets",
        _severity(signal, 0.75, 0.9),
        f"who knows how often a phrase is a positive and how often a negative is right about "
        f"{signal:.1%} of random triplets",
        "Pre-training can come so far by learning which phrases are which, with no regard to the anchor.",
        "Read pre-training accuracy against this number, not against 50 %; give phrases both roles equally often.",
    )
