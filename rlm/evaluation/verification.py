"""Verification: is this pair relevant? Thresholds and probabilities, chosen on other pairs than they are judged on."""

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
    How well pairs are told relevant from irrelevant where the threshold has to be chosen without them.

    Every different (anchor, candidate) pair of the split's triplets counts once. The pairs are dealt to folds, those of
    an anchor together; thresholds and probabilities for a fold come from the others. Of the pairs of triplets with many
    negatives most are irrelevant, and calling them all so is right as often: compare accuracies with that.

    Parameters
    ----------
    block
        Encoders.
    slices
        One for all seeds, or one per seed.
    split
        ``"train"``, ``"validation"`` or ``"test"``.
    far
        False accept rate that is wanted, between 0 and 1.
    folds
        At least 2; fewer where there are not so many anchors.
    similarity
        As in `rlm.evaluate`.

    Returns
    -------
    pandas.DataFrame
        Columns seed; validation_rate, the share of relevant pairs that are accepted at the threshold for `far`, and
        false_accept_rate, what the share of irrelevant ones is then really; accuracy at the most accurate threshold;
        and of the probabilities by logistic regression on the score brier_score and calibration_error. All in [0, 1].

    Raises
    ------
    InputError
        If `far` is not between 0 and 1, `folds` is below 2, or all pairs have the same anchor.

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015: section 4, equations for VAL and FAR, and section 5.6 for
    the threshold from nine of ten folds. Probabilities: Platt, "Probabilistic outputs for support vector machines",
    1999, without his smoothing of the targets. Brier, Monthly Weather Review 78, 1950.
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
    """
    The lowest threshold above which at most a share `far` of the irrelevant pairs lies.

    Parameters
    ----------
    is_relevant
        Whether a pair is relevant; at least one is not.
    score
        How alike its phrases are.
    far
        Between 0 and 1.

    Returns
    -------
    float
        A pair is accepted if its score is greater.
    """
    irrelevant = np.sort(score[~is_relevant])[::-1]
    return float(irrelevant[int(far * len(irrelevant) + 1e-9)])  # 0.29 * 100 is less than 29


def best_threshold(is_relevant: IsRelevant, score: Scores) -> float:
    """
    The lowest of the thresholds that tell most pairs right.

    Parameters
    ----------
    is_relevant
        Whether a pair is relevant.
    score
        How alike its phrases are.

    Returns
    -------
    float
        A pair is accepted if its score is greater; minus infinity accepts all.
    """
    values, place = np.unique(score, return_inverse=True)
    gain = np.bincount(place, np.where(is_relevant, -1, 1))  # in right answers, when a value is no longer accepted
    return float(np.append(-np.inf, values)[np.append(0, gain.cumsum()).argmax()])


def expected_calibration_error(is_relevant: IsRelevant, probability: Scores, bins: int = 10) -> float:
    """
    By how much probabilities differ from how often they come true, on average over bins of equal width.

    Parameters
    ----------
    is_relevant
        Whether a pair is relevant.
    probability
        Of being relevant, in [0, 1].
    bins
        Of the interval [0, 1]; a border belongs to the bin below it.

    Returns
    -------
    float
        From 0 to 1: the mean over pairs of |mean probability - share of relevant pairs| of the pair's bin.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017, section 2, equation 3; of the probability of one
    of two classes, as in ``sklearn.calibration.calibration_curve``, not of the predicted class.
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)
    return float(np.abs(np.bincount(place, probability - is_relevant)).sum() / len(probability))
