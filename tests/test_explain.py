"""What the controls say follows from the numbers."""

import numpy as np
import pandas as pd
import pytest

from rlm.explain import explain_controls
from rlm.verdict import compare_all


def study(pairs=20, **gains):
    rng = np.random.default_rng(0)
    scratch = rng.normal(0.65, 0.02, pairs)
    arms = {"scratch": 0.0, "pretrained": 0.0, "rescaled": 0.0, "shuffled": 0.0} | gains
    parts = [
        pd.DataFrame({"arm": arm, "seed": range(pairs), "test_accuracy": scratch + gain + rng.normal(0, 0.005, pairs)})
        for arm, gain in arms.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("gains", "conclusion"),
    [
        ({}, "is not shown to help here, so there is no gain to explain"),
        ({"pretrained": 0.03}, "better than both controls"),
        ({"pretrained": 0.03, "rescaled": 0.03}, "better than shuffled and is not shown to do better than rescaled"),
        ({"pretrained": 0.03, "rescaled": 0.03, "shuffled": 0.03}, "not shown to do better than either control"),
        ({"pretrained": -0.03}, "there is no gain to explain"),
        ({"pretrained": 0.03, "pairs": 5}, "With so few seeds nothing follows"),
    ],
)
def test_the_conclusion_is_that_of_the_planted_gains(gains, conclusion):
    text = explain_controls(study(**gains))
    assert conclusion in text


def test_controls_that_hurt_explain_no_gain():
    """Beating weights that were destroyed is no gain where pre-training itself does nothing."""
    text = explain_controls(study(rescaled=-0.03, shuffled=-0.04))
    assert "is not shown to help here, so there is no gain to explain" in text
    assert "what it learnt counts" not in text


@pytest.mark.parametrize("gain", [0.0, 0.002, 0.004, 0.006])
@pytest.mark.parametrize("watched", [False, True])
def test_never_contradicts_the_verdict_beside_it(gain, watched):
    results = study(pretrained=gain, rescaled=-0.03, shuffled=-0.03)
    results.attrs["watched"] = watched
    verdict, text = compare_all(results)["pretrained"], explain_controls(results)
    explains = "what it learnt counts" in text
    assert explains == (verdict.decision == "helps")
    difference = verdict.anytime if watched else verdict.difference
    assert f"Pre-training changes the test accuracy by {difference.in_points()} points" in text


def test_corrects_over_the_arms_of_the_headline():
    results = study(pretrained=0.03, rescaled=0.03)
    more = results[results["arm"] == "shuffled"].assign(arm="pretrained_once")
    results = pd.concat([results, more], ignore_index=True)
    assert compare_all(results)["pretrained"].difference.in_points() in explain_controls(results)


def test_a_watched_study_is_explained_by_the_sequence():
    results = study(pairs=12, pretrained=0.004, rescaled=0.0, shuffled=0.0)
    assert explain_controls(results) != explain_controls(results, watched=True)
    results.attrs["watched"] = True
    assert explain_controls(results) == explain_controls(results, watched=True)
