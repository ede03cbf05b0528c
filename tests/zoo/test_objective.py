"""Losses by name: their settings, what they ask of embeddings, and that a block of seeds is trained on them."""

import typing

import numpy as np
import pydantic
import pytest
import torch
from conftest import finetune, pretrain, topic_pairs
from test_losses import dssm_by_hand, in_batch_by_hand, mined_by_hand
from torch.nn import functional as F
from torch_twin import TorchTwin

import rlm
from rlm.block import init_block
from rlm.config import Loss
from rlm.encoder import MeanEncoder, OutputStep
from rlm.errors import InputError
from rlm.zoo.losses import LOSSES, make_objective

every = pytest.mark.parametrize("loss", LOSSES)


def new_block(slices, loss, seeds=(0, 1, 2)):
    output = LOSSES[loss].output

    def make():
        encoder = MeanEncoder(slices.vocabulary_size, 4, 5).double()
        return OutputStep(encoder, output) if output else encoder

    return init_block(make, seeds)


def test_names_are_those_of_the_config():
    assert set(LOSSES) == set(typing.get_args(Loss))


class TestSettings:
    def test_margin_is_the_losses_own_unless_given(self):
        assert [make_objective(loss).margin for loss in ("triplet", "facenet", "in_batch")] == [0.5, 0.2, None]
        point = torch.ones(1, 3, 2) / 2**0.5
        for margin, expected in ((None, 0.2), (0.7, 0.7)):
            facenet = make_objective("facenet", margin)
            relevant = torch.tensor([[[1, 1, 0], [1, 1, 0], [0, 0, 1]]]).bool()
            assert facenet(point, torch.tensor([[[0, 1, 2]]]), torch.ones(1, 1), relevant).item() == pytest.approx(
                expected
            )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"loss": "in_batch", "margin": 0.3},
                "expected no margin for the loss in_batch, which has none, found 0.3",
            ),
            (
                {"loss": "triplet", "mining": "hard"},
                "expected no mining for the loss triplet, found 'hard'; omit it",
            ),
        ],
    )
    def test_a_setting_that_the_loss_does_not_have_is_refused(self, settings, message):
        with pytest.raises(InputError, match=message):
            make_objective(**settings)
        with pytest.raises(pydantic.ValidationError, match=message):
            rlm.StudyConfig(**settings)

    def test_an_unknown_loss_is_refused(self):
        with pytest.raises(pydantic.ValidationError, match="loss"):
            rlm.StudyConfig(loss="quadruplet")


class TestRequirements:
    @pytest.mark.parametrize("train", [pretrain, finetune])
    @pytest.mark.parametrize(
        ("loss", "message"),
        [
            ("facenet", r"embeddings of length 1 for the loss facenet, found lengths from .*functional\.normalize"),
            ("lossless", r"embeddings with values in \[0, 1\] for the loss lossless, found .*torch\.sigmoid"),
        ],
    )
    def test_embeddings_that_do_not_meet_them_are_refused(self, train, loss, message, slices):
        with pytest.raises(InputError, match=message):
            train(new_block(slices, "triplet"), slices, loss=loss, progress=False)

    def test_an_encoder_that_meets_them_by_itself_is_taken(self, slices):
        class Squashed(MeanEncoder):
            def forward(self, tokens, batch_sizes):
                return torch.sigmoid(super().forward(tokens, batch_sizes))

        block = init_block(lambda: Squashed(slices.vocabulary_size, 4, 5), (0,))
        finetune(block, slices, loss="lossless", max_epochs=1, progress=False)


@every
def test_seeds_do_not_touch_each_other(loss, slices):
    """A seed's history is the same alone as in company."""
    settings = {"loss": loss, "max_epochs": 3, "batch_size": 25, "learning_rate": 1e-2, "progress": False}
    _, together = finetune(new_block(slices, loss), slices, **settings)
    for seed in range(3):
        _, alone = finetune(new_block(slices, loss, (seed,)), slices, **settings)
        np.testing.assert_allclose(together[together.seed == seed].loss, alone.loss, rtol=1e-5)


@every
def test_pretraining_shows_the_loss_that_it_lowers(loss, slices):
    settings = {"redraw": "once", "random_triplets": 40, "epochs": 15, "batch_size": 20, "learning_rate": 3e-2}
    _, history = pretrain(new_block(slices, loss), slices, loss=loss, progress=False, **settings)
    first, last = (history[history.epoch == epoch].loss.to_numpy() for epoch in (0, 15))
    assert (last < 0.9 * first).all()


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("facenet", lambda *args: mined_by_hand(*args, 0.2, "semi_hard")),
        ("in_batch", in_batch_by_hand),
        ("dssm", dssm_by_hand),
    ],
)
def test_negatives_of_a_step_are_not_known_to_be_relevant(loss, by_hand, slices):
    """The first epoch, in a single batch, against a plain loop over the same phrases."""
    block = new_block(slices, loss, (0, 1))
    _, history = finetune(block, slices, loss=loss, max_epochs=1, batch_size=len(slices.train), progress=False)
    phrases, places = np.unique(slices.train, return_inverse=True)
    known = set(map(tuple, slices.train[:, :2].tolist()))
    relevant = [[a == b or (a, b) in known or (b, a) in known for b in phrases] for a in phrases]
    for row in range(2):
        weights = {name.removeprefix("encoder."): weight[row] for name, weight in block.weights.items()}
        points = F.normalize(TorchTwin("mean", weights)(torch.from_numpy(slices.tokens[phrases])), dim=1)
        order = rlm.RealTriplets(slices.train, row)._order(1)
        expected = by_hand(points, places.reshape(-1, 3)[order].tolist(), relevant).item()
        assert history[history.seed == row].loss.iloc[-1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", [{"loss": "facenet", "mining": "semi_hard"}, {"loss": "lossless"}])
def test_a_study_takes_a_loss_by_name(settings):
    data = topic_pairs(np.random.default_rng(0), topics=40, pairs=300)
    config = rlm.StudyConfig(**settings, encoder="mean", max_epochs=6, pretrain_epochs=1, learning_rate=2e-2)
    results = rlm.run_study(config, 2, data=data, n_jobs=1, progress=False)
    assert (results.validation_accuracy > 0.7).all()
