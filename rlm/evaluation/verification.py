"""Verification: decide whether a pair is relevant, with thresholds and probabilities from other pairs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rlm.block import Block
from rlm.errors import InputError
from rlm.evaluation.triplets import ScoredPairs, Similarity, embedded_split, scored_pairs
from rlm.slicer import Slices

IsRelevant = Bool[np.ndarray, " pair"]
Scores = Float[np.ndarray, " pair"]


def verify(
    block: Block,
    slices: Slices | Sequence[Slices],
    split: str = "test",
    *,
    far: float | int = 1e-3,
    folds: int = 10,
    similarity: Similarity = "distance",
) -> pd.DataFrame:
    """
    Measure how well a threshold, chosen on other pairs, separates relevant from irrelevant pairs.

    Every different (anchor, candidate) pair of the split's triplets counts once. The pairs are divided into folds by
    anchor; thresholds and probabilities of a fold come from the other folds. With many negatives per pair most pairs
    are irrelevant, and rejecting all of them is right as often: compare accuracies with that.

    Parameters
    ----------
    block, slices, split
        As in `rlm.evaluate`.
    far
        Requested false accept rate, between 0 and 1.
    folds
        Number of folds, at least 2; fewer if there are fewer anchors.
    similarity
        As in `rlm.evaluate`.

    Returns
    -------
    pandas.DataFrame
        Columns seed; validation_rate and false_accept_rate, the shares of relevant and of irrelevant pairs that are
        accepted at the threshold for `far`; accuracy at the most accurate threshold; brier_score and calibration_error
        of the probabilities by logistic regression on the score. All in [0, 1].

    Raises
    ------
    InputError
        If `far` is not between 0 and 1, `folds` is below 2, or all pairs have the same anchor.

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015: section 4, equations for VAL and FAR, and section 5.6 for
    the threshold from nine of ten folds. Platt, "Probabilistic outputs for support vector machines", 1999, without his
    smoothing of the targets. Brier, Monthly Weather Review 78, 1950.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size, 8, 8), (0, 1))
    >>> rlm.evaluation.verify(block, slices, far=0.01).columns.tolist()[:4]
    ['seed', 'validation_rate', 'false_accept_rate', 'accuracy']
    """
    if not 0 < far < 1:
        raise InputError(f"expected a false accept rate between 0 and 1, found {far}; 0.001 is usual")
    if folds < 2:
        raise InputError(f"expected at least 2 folds, found {folds}; 10 are usual")
    batch, embeddings = embedded_split(block, slices, split, similarity)
    pairs = scored_pairs(embeddings, batch)
    return pd.DataFrame(
        [{"seed": seed} | _cross_validate(mine, far, folds) for seed, mine in zip(block.seeds, pairs, strict=True)]
    )


def _cross_validate(pairs: ScoredPairs, far: float, folds: int) -> dict[str, float]:
    anchor, is_relevant, score = pairs
    anchors = len(np.unique(anchor))
    if anchors < 2:
        raise InputError("expected pairs of at least two anchors, found one; choose a larger split")
    is_accepted, is_right = np.empty(len(score), bool), np.empty(len(score), bool)
    probability = np.empty(len(score))
    for others, mine in GroupKFold(min(folds, anchors)).split(score, groups=anchor):
        is_accepted[mine] = score[mine] > threshold_at_far(is_relevant[others], score[others], far)
        is_right[mine] = (score[mine] > best_threshold(is_relevant[others], score[others])) == is_relevant[mine]
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(score[others, None], is_relevant[others])
        probability[mine] = model.predict_proba(score[mine, None])[:, 1]
    return {
        "validation_rate": float(is_accepted[is_relevant].mean()),
        "false_accept_rate": float(is_accepted[~is_relevant].mean()),
        "accuracy": float(is_right.mean()),
        "brier_score": float(brier_score_loss(is_relevant, probability)),
        "calibration_error": expected_calibration_error(is_relevant, probability),
    }


def threshold_at_far(is_relevant: IsRelevant, score: Scores, far: float | int) -> float:
    """Return the lowest score above which at most a share `far` of the irrelevant pairs lies."""
    irrelevant = np.sort(score[~is_relevant])[::-1]
    return float(irrelevant[int(far * len(irrelevant) + 1e-9)])  # 0.29 * 100 is less than 29


def best_threshold(is_relevant: IsRelevant, score: Scores) -> float:
    """Return the lowest of the most accurate thresholds; pairs with a greater score are accepted."""
    values, place = np.unique(score, return_inverse=True)
    gain = np.bincount(place, np.where(is_relevant, -1, 1))  # in right answers, when a value is no longer accepted
    return float(np.append(-np.inf, values)[np.append(0, gain.cumsum()).argmax()])


def expected_calibration_error(is_relevant: IsRelevant, probability: Scores, bins: int = 10) -> float:
    """
    Average the distance between mean probability and share of relevant pairs over bins of equal width.

    Guo et al., "On calibration of modern neural networks", ICML 2017, section 2, equation 3; of the probability of
    one of two classes, as in ``sklearn.calibration.calibration_curve``.
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)
    return float(np.abs(np.bincount(place, probability - is_relevant)).sum() / len(probability))
