"""What the controls of a study say, in words that follow from its numbers."""

import pandas as pd

from rlm.stats import BASELINE, compare, compare_all

TREATED = "pretrained"
CONTROLS = {
    "rescaled": "random weights with the scale of the pre-trained ones",
    "shuffled": "the pre-trained weights in random order",
}


def explain_controls(results: pd.DataFrame, metric: str = "test_accuracy", *, watched: bool | None = None) -> str:
    """
    Say whether what pre-training did takes what it memorised, or only the scale of its weights.

    Parameters
    ----------
    results
        As `rlm.run_study` returns them, with the arms scratch, pretrained, rescaled and shuffled.
    metric
        An accuracy in [0, 1].
    watched
        As in `rlm.compare`.

    Returns
    -------
    str
        A paragraph: the differences with their intervals, and a conclusion that counts only those whose interval
        excludes 0 and whose test agrees.

    Raises
    ------
    InputError
        If an arm is missing.
    """
    watched = bool(watched)
    against_scratch = compare_all(results, metric=metric, arms=[TREATED, *CONTROLS], watched=watched)
    effect = against_scratch[TREATED]
    said = [f"Pre-training changes the accuracy by {effect.difference.in_points()} points."]
    beaten = []
    for control, what in CONTROLS.items():
        gain, rest = against_scratch[control], compare(results, TREATED, control, metric, watched=watched)
        said.append(
            f"The control {control}, {what}, changes it by {gain.difference.in_points()}; compared with that control, "
            f"{TREATED} does by {rest.difference.in_points()} (p = {rest.difference_p:.2g})."
        )
        beaten.append(rest.decision == "helps")
    if effect.decision == "too few seeds":
        conclusion = "With so few seeds nothing follows."
    elif effect.decision == "no evidence either way" and not any(beaten):
        conclusion = (
            f"There is no effect here that is certain enough to be explained, and {TREATED} is not seen to do better "
            "than weights whose content was destroyed."
        )
    elif effect.decision == "hurts":
        conclusion = f"{TREATED.capitalize()} hurts, compared with {BASELINE}; there is no gain to explain."
    elif all(beaten):
        conclusion = "It does better than both controls: what it learnt counts, beyond the scale of the weights."
    elif any(beaten):
        conclusion = (
            "It does better than one control and not certainly better than the other: the scale may be part of it."
        )
    else:
        conclusion = "It is not seen to do better than either control: the scale of the weights may be all of it."
    return " ".join([*said, conclusion])
