"""What the controls of a study say, in words that follow from its numbers."""

import pandas as pd

from rlm.sentences import CONTROLS
from rlm.stats.judging import judge
from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.verdict import BASELINE, compare_all, is_watched, pair, paired_arms

TREATED = "pretrained"


def explain_controls(
    results: pd.DataFrame, metric: str | Metric = "test_accuracy", *, watched: bool | None = None
) -> str:
    """
    Say whether what pre-training did takes what it memorised, or only the scale of its weights.

    Parameters
    ----------
    results
        As `rlm.run_study` returns them, with the arms scratch, pretrained, rescaled and shuffled.
    metric
        As in `rlm.compare`.
    watched
        As in `rlm.compare`.

    Returns
    -------
    str
        A paragraph: the differences with their intervals, and a conclusion. What pre-training did is explained only
        where it helps by the verdict of `rlm.compare_all` on all arms; the two comparisons with the controls are
        corrected for being two.

    Raises
    ------
    InputError
        If an arm is missing.
    """
    watched, metric = is_watched(results, watched), find_metric(metric)
    others = [arm for arm in paired_arms(results) if arm not in (TREATED, *CONTROLS)]
    verdicts = compare_all(results, metric=metric, arms=[TREATED, *CONTROLS, *others], watched=watched)
    effect = verdicts[TREATED]
    counted = count_failed(results, metric)
    pairs = {control: pair(counted, TREATED, control, metric.name) for control in CONTROLS}
    rest = judge(
        {control: (both[TREATED] - both[control]).to_numpy() for control, both in pairs.items()},
        metric.reach,
        watched=watched,
    )

    def spell(arm: str) -> str:
        return metric.spell_difference(verdicts[arm].judged)

    said = [f"Pre-training changes the {metric.label} by {spell(TREATED)}."]
    for control, what in CONTROLS.items():
        said.append(
            f"The control {control}, {what}, changes it by {spell(control)}; relative to that control, {TREATED} adds "
            f"{metric.spell_difference(rest[control].difference)}."
        )
    beaten = [control for control in CONTROLS if rest[control].decide(metric.better) == "helps"]
    others = [control for control in CONTROLS if control not in beaten]
    if effect.decision == "too few seeds":
        conclusion = "With so few seeds nothing follows."
    elif effect.decision == "no evidence either way":
        conclusion = "Pre-training is not shown to help here, so there is no gain to explain."
    elif effect.decision == "hurts":
        conclusion = f"{TREATED.capitalize()} hurts, compared with {BASELINE}; there is no gain to explain."
    elif not others:
        conclusion = "It does better than both controls: what it learnt counts, beyond the scale of the weights."
    elif beaten:
        conclusion = (
            f"It does better than {beaten[0]} and is not shown to do better than {others[0]}: the scale of the weights "
            "may explain part of the gain."
        )
    else:
        conclusion = (
            "It is not shown to do better than either control: the scale of the weights may explain the gain, and the "
            "intervals say how much what it learnt could add."
        )
    return " ".join([*said, conclusion])
