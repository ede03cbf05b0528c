"""What the controls say follows from the numbers."""

import numpy as np
import pandas as pd
import pytest

from rlm.explain import explain_controls


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
        ({}, "no effect here that is certain enough to be explained"),
        ({"pretrained": 0.03}, "better than both controls"),
        ({"pretrained": 0.03, "rescaled": 0.03}, "better than one control and not certainly better than the other"),
        ({"pretrained": 0.03, "rescaled": 0.03, "shuffled": 0.03}, "scale of the weights may be all of it"),
        ({"pretrained": -0.03}, "there is no gain to explain"),
        ({"pretrained": 0.03, "pairs": 5}, "With so few seeds nothing follows"),
    ],
)
def test_the_conclusion_is_that_of_the_planted_gains(gains, conclusion):
    text = explain_controls(study(**gains))
    assert conclusion in text
