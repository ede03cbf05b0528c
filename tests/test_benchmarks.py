"""A smoke run of the benchmarks' own code; `make bench` runs them in full."""

from itertools import islice

import numpy as np
import pytest

from benchmarks import contestants, growth


@pytest.mark.parametrize("encoder", ["lstm", "mean"])
def test_contestants_train(encoder):
    mine = contestants.ours("chatterbot-english", encoder, 2, "grouped", "rowwise_adam")
    assert list(islice(mine, 2)) == [300, 300]
    assert list(islice(contestants.hand_loop("chatterbot-english", encoder), 2)) == [150, 150]


def test_pytorch_metric_learning_has_the_same_loss(monkeypatch):
    pytest.importorskip("pytorch_metric_learning")
    values = {"by hand": [], "pml": []}
    for loss, seen in values.items():
        contestants.torch.manual_seed(0)
        backward = contestants.Tensor.backward
        with monkeypatch.context() as patch:
            patch.setattr(
                contestants.Tensor, "backward", lambda self, s=seen, b=backward: (s.append(self.item()), b(self))
            )
            list(islice(contestants.hand_loop("chatterbot-english", "mean", loss), 2))
    assert len(values["pml"]) == 2
    # Its mean leaves out triplets without a loss; at the start there are none of those.
    np.testing.assert_allclose(values["pml"][0], values["by hand"][0], rtol=1e-4)


def test_growth_measures_draws():
    found = growth.random_triplets(1000)
    assert found["drawn"] == 20_000
    assert found["seconds"] > 0
