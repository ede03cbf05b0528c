"""The settings of Koziev's nn_relevancy_tripleloss, piece by piece, against plain loops in PyTorch."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import finetune, topic_pairs

import rlm
from rlm.arms import train_arms
from rlm.block import init_block
from rlm.evaluation.held_out import judge_history
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.study import slice_for
from rlm.training import train_on_random
from rlm.zoo.encoders import ENCODERS

PRETRAINING = {"epochs": 2, "random_triplets": 40, "progress": False}
TUNING = {"max_epochs": 3, "progress": False}
NADAM = {"optimizer": "nadam", "batch_size": 15, "learning_rate": 1e-2}


def new_block(slices, kind="lstm", seeds=(0, 1, 2), dtype=torch.float64):
    return init_block(lambda: ENCODERS[kind](slices.vocabulary_size, 4, 5).to(dtype), seeds)


def twin_of(block, row=0):
    """One model of a block, with weights of its own."""
    weights = {name: weight[row].clone().requires_grad_() for name, weight in block.weights.items()}
    return lambda tokens, sizes: torch.func.functional_call(block.encoder, weights, (tokens, sizes)), weights


def loss_of(embed, slices, triplets, margin=0.5):
    """The triplet loss, with every phrase embedded alone."""

    def one(phrase):
        tokens = torch.from_numpy(slices.tokens[phrase : phrase + 1])
        length = int((tokens != 0).sum())
        return embed(tokens[:, :length], (1,) * length)[0]

    vectors = {phrase: one(phrase) for phrase in np.unique(triplets).tolist()}
    anchor, positive, negative = (torch.stack([vectors[phrase] for phrase in column.tolist()]) for column in triplets.T)
    return ((anchor - positive).square().sum(1) - (anchor - negative).square().sum(1) + margin).relu().mean()


def step(embed, optimizer, slices, batches):
    total = 0.0
    for triplets in batches:
        optimizer.zero_grad()
        loss = loss_of(embed, slices, triplets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(triplets)
    return total / sum(map(len, batches))


class KerasNadam:
    """Nadam as Keras 2 documents it: Dozat's formula with a warming momentum schedule."""

    def __init__(self, weights, rate, beta_1=0.9, beta_2=0.999, decay=0.004, epsilon=1e-8):
        self.weights, self.rate, self.betas, self.decay, self.epsilon = weights, rate, (beta_1, beta_2), decay, epsilon
        self.time, self.schedule = 0, 1.0
        self.means, self.squares = ([torch.zeros_like(weight) for weight in weights] for _ in "12")

    def zero_grad(self):
        for weight in self.weights:
            weight.grad = None

    def step(self):
        self.time += 1
        beta_1, beta_2 = self.betas
        now, next_ = (beta_1 * (1 - 0.5 * 0.96 ** ((self.time + ahead) * self.decay)) for ahead in (0, 1))
        self.schedule *= now
        for weight, mean, square in zip(self.weights, self.means, self.squares, strict=True):
            slope = weight.grad if weight.grad is not None else torch.zeros_like(weight)
            mean[...] = beta_1 * mean + (1 - beta_1) * slope
            square[...] = beta_2 * square + (1 - beta_2) * slope**2
            direction = (1 - now) * slope / (1 - self.schedule) + next_ * mean / (1 - self.schedule * next_)
            with torch.no_grad():
                weight -= self.rate * direction / ((square / (1 - beta_2**self.time)).sqrt() + self.epsilon)


def torch_nadam(weights, rate):
    return torch.optim.NAdam(weights, lr=rate)


@pytest.mark.parametrize("kind", ["lstm", "mean"])
@pytest.mark.parametrize("make_optimizer", [torch_nadam, KerasNadam])
@pytest.mark.parametrize("is_equal", [True, False])
def test_nadam_is_that_of_torch_and_of_keras(kind, make_optimizer, is_equal, unequal_slices):
    """Seeds of equal slices step together, by one call; the others wait for each other."""
    mine = [unequal_slices[0 if is_equal else row] for row in range(3)]
    block = new_block(mine[0], kind)
    _, history = finetune(block, mine, **NADAM, **TUNING)
    for row, (seed, one) in enumerate(zip(block.seeds, mine, strict=True)):
        embed, weights = twin_of(block, row)
        optimizer = make_optimizer(list(weights.values()), 1e-2)
        for epoch in range(1, 4):
            expected = step(embed, optimizer, one, list(RealTriplets(one.train, seed).epoch(epoch, 15)))
            found = history.query("seed == @seed and epoch == @epoch").loss.item()
            assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "rowwise_adam"])
@pytest.mark.parametrize("random_triplets", [None, 40])
def test_kept_moments_are_those_of_one_optimizer_for_both_trainings(optimizer, random_triplets, unequal_slices):
    """With as many random triplets for each seed, seeds step together in pre-training, but not in fine-tuning."""
    block = new_block(unequal_slices[0], "mean")
    recipe = rlm.Recipe(**NADAM | {"optimizer": optimizer})
    settings = PRETRAINING | {"random_triplets": random_triplets}
    trainer, _ = train_on_random(block, unequal_slices, recipe, redraw="once", **settings)
    _, history = rlm.finetune(trainer.block, unequal_slices, recipe, after=trainer, **TUNING)
    for row, (seed, one) in enumerate(zip(block.seeds, unequal_slices, strict=True)):
        embed, weights = twin_of(block, row)
        if optimizer == "rowwise_adam":  # the table as SparseAdam does it; dense weights as Adam does
            table = rlm.zoo.MeanEncoder(one.vocabulary_size, 4, 5).words.to(torch.float64)
            table.sparse = True
            table.weight = torch.nn.Parameter(weights.pop("words.weight").detach())
            dense = torch.optim.Adam(list(weights.values()), lr=1e-2)
            sparse = torch.optim.SparseAdam(table.parameters(), lr=1e-2)

            def embed(tokens, sizes, table=table, weights=weights):
                return torch.nn.functional.linear(table(tokens).mean(dim=1), *_output(weights))

            made = _Both(sparse, dense)
        else:
            kind = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}[optimizer]
            made = kind(list(weights.values()), lr=1e-2)
        drawn = RandomTriplets(one.components, seed, random_triplets or len(one.train), "once")
        for epoch in (1, 2):
            step(embed, made, one, list(drawn.epoch(epoch, 15)))
        for epoch in range(1, 4):
            expected = step(embed, made, one, list(RealTriplets(one.train, seed).epoch(epoch, 15)))
            found = history.query("seed == @seed and epoch == @epoch").loss.item()
            assert found == pytest.approx(expected, abs=1e-6)


def _output(weights):
    return weights["output.weight"], weights["output.bias"]


class _Both:
    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def zero_grad(self):
        for one in self.optimizers:
            one.zero_grad()

    def step(self):
        for one in self.optimizers:
            one.step()


def study(**changed):
    """A config of a small study, its slices, and the arms that it trains."""
    small = {"word_dim": 4, "dim": 5, "negatives": 2, "pretrain_epochs": 2, "max_epochs": 2, "batch_size": 15}
    config = rlm.StudyConfig(**small | changed)
    corpus = rlm.index_corpus(topic_pairs(np.random.default_rng(0), topics=6, pairs=90), config.max_tokens)
    return config, corpus, slice_for(config, corpus, [0, 1])


def test_controls_start_with_new_moments_and_zero_epochs_are_no_pretraining():
    losses = {}
    for keep_moments in (False, True):
        for epochs in (0, 2):
            config, _, slices = study(keep_moments=keep_moments, pretrain_epochs=epochs, optimizer="nadam")
            arms = ["pretrained", "rescaled", "shuffled"]
            for arm, trained in zip(arms, train_arms(config, slices, arms, [0, 1]), strict=True):
                losses[keep_moments, epochs, arm] = trained.history.loss[2:].tolist()
            (scratch,) = train_arms(config, slices, ["scratch"], [0, 1])
            losses[keep_moments, epochs, "scratch"] = scratch.history.loss[2:].tolist()
    for arm in ("rescaled", "shuffled", "scratch"):
        assert losses[True, 2, arm] == losses[False, 2, arm]
    assert losses[True, 2, "pretrained"] != losses[False, 2, "pretrained"]
    assert losses[True, 0, "pretrained"] == losses[True, 0, "scratch"]


STOPPING = {"max_epochs": 12, "patience": 2, "progress": False, "stop_by": "loss"}


def test_a_seed_stops_at_the_lowest_validation_loss(unequal_slices):
    """Against a plain loop with Keras's EarlyStopping and ModelCheckpoint; here epoch 0 counts, too."""
    block = new_block(unequal_slices[0], "mean")
    trained, history = rlm.finetune(block, unequal_slices, rlm.Recipe(**NADAM | {"learning_rate": 3e-2}), **STOPPING)
    ends = []
    for row, (seed, one) in enumerate(zip(block.seeds, unequal_slices, strict=True)):
        embed, weights = twin_of(block, row)
        optimizer = torch.optim.NAdam(list(weights.values()), lr=3e-2)
        best, wait, losses = np.inf, 0, []
        for epoch in range(13):
            if epoch:
                step(embed, optimizer, one, list(RealTriplets(one.train, seed).epoch(epoch, 15)))
            with torch.no_grad():
                losses.append(loss_of(embed, one, one.validation).item())
            if losses[-1] < best:
                best, wait, kept = losses[-1], 0, {name: weight.detach().clone() for name, weight in weights.items()}
            else:
                wait += 1
                if wait == 2:
                    break
        found = history.query("seed == @seed").validation_loss
        np.testing.assert_allclose(found, losses, atol=1e-6)
        for name, weight in kept.items():
            torch.testing.assert_close(trained.weights[name][row], weight, rtol=0, atol=1e-5)
        ends.append(len(losses))
    assert len(set(ends)) > 1


@pytest.mark.parametrize("loss", ["triplet", "facenet", "in_batch", "lossless"])
def test_a_study_reports_the_epoch_of_the_lowest_loss(loss):
    config, corpus, slices = study(stop_by="loss", max_epochs=8, patience=3, loss=loss, encoder="mean")
    (trained,) = train_arms(config, slices, ["scratch"], [0, 1])
    lowest = trained.history.groupby("seed").validation_loss.idxmin()
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
    (block,) = rlm.iter_study(config.model_copy(update={"arms": ("scratch",)}), 2, data=data, n_jobs=1, progress=False)
    assert block.results.best_epoch.tolist() == trained.history.epoch[lowest].tolist()
    expected = trained.history.validation_accuracy[lowest]
    np.testing.assert_allclose(block.results.validation_accuracy, expected, atol=1e-9)
    found = rlm.evaluate(trained.block, slices, "test").triplet_accuracy
    np.testing.assert_allclose(block.results.test_accuracy, found, atol=1e-9)
    assert "validation_loss" not in block.history


def test_the_validation_loss_has_batches_as_training_if_the_loss_takes_their_phrases(slices):
    """Negatives of in_batch are the phrases of a batch: a batch of all triplets would be another task."""
    block = new_block(slices, "mean", seeds=(0,), dtype=torch.float32)
    unit = init_block(lambda: rlm.encoder.OutputStep(block.encoder, "unit"), (0,))
    recipe = rlm.Recipe(loss="in_batch", batch_size=10, learning_rate=1e-7)
    _, history = rlm.finetune(unit, slices, recipe, max_epochs=0, stop_by="loss", progress=False)
    total = 0.0
    for start in range(0, len(slices.validation), 10):
        some = dataclasses.replace(slices, train=slices.validation[start : start + 10])
        one = RealTriplets(some.train, 0)
        trained, inner = rlm.finetune(unit, some, recipe, max_epochs=1, progress=False)
        total += inner.loss[1] * len(one)
    assert history.validation_loss[0] == pytest.approx(total / len(slices.validation), abs=1e-5)


def test_a_seed_that_diverges_keeps_its_first_weights_and_counts_as_failed(slices):
    block = new_block(slices, "mean", dtype=torch.float32)
    recipe = rlm.Recipe.model_construct(learning_rate=1e30)
    trained, history = rlm.finetune(block, slices, recipe, max_epochs=5, stop_by="loss", progress=False)
    judged = judge_history(history, block.seeds)
    assert judged.has_diverged.all()
    assert (judged.best_epoch == 0).all()
    for name, weight in block.weights.items():
        torch.testing.assert_close(trained.weights[name], weight, rtol=0, atol=0)
