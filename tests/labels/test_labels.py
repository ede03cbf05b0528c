"""Random labels for classification: sampler, encoders, samples, memorising, the study and what it says."""

import dataclasses
import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import rlm
import rlm.engine.batches
from rlm.arms import list_layers
from rlm.block import init_block
from rlm.controls import control_block, shuffle
from rlm.engine.trainer import Trainer
from rlm.errors import InputError
from rlm.labels.batches import CrossEntropy, RandomLabels, attach, tabulate
from rlm.labels.encoders import IMAGE_ENCODERS, Classifier, transfer
from rlm.labels.report import explain_shuffles, summarise_shuffles, tabulate_effects, tabulate_speed
from rlm.labels.samples import FRAMES, MOTIONS, SIZE, Samples, check_samples, divide
from rlm.labels.training import SGD, learn, memorise
from rlm.seeding import stream
from rlm.stats.tables import DIFFERENCE, epochs_to_reach

SHAPES = {"mlp": (1, 6, 5), "cnn": (2, 7, 6), "cnn3d": (1, 5, 6, 7)}
SEEDS = (3, 1, 4)


@pytest.fixture(scope="module")
def blobs():
    """Images of 6 x 6 pixels in three classes: which third is bright; noise on top."""
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = rng.uniform(0, 0.6, size=(150, 1, 6, 6)).astype(np.float32)
    for label in range(3):
        images[labels == label, :, 2 * label : 2 * label + 2] += 0.4
    return Samples(images, labels, ("top", "middle", "bottom"))


def block_of(samples, classes=None, seeds=SEEDS, kind="mlp", dim=16):
    shape = samples.inputs.shape[1:]
    make = lambda: Classifier(IMAGE_ENCODERS[kind](shape, dim), dim, classes or len(samples.classes))  # noqa: E731
    return init_block(make, seeds, torch.zeros(2, *shape))


class TestRandomLabels:
    def test_are_uniform_and_independent_of_the_data_and_of_each_other(self):
        labels = RandomLabels(0, 40_000, classes=8)
        first, second = labels.draw(0), labels.draw(1)
        assert stats.chisquare(np.bincount(first, minlength=8)).pvalue > 1e-3
        neighbours = pd.crosstab(first[:-1], first[1:])
        assert stats.chi2_contingency(neighbours).pvalue > 1e-3
        assert stats.chi2_contingency(pd.crosstab(first, second)).pvalue > 1e-3
        truth = rlm.labels.load_digits().labels
        of_truth = pd.crosstab(truth, RandomLabels(1, len(truth), classes=10).draw(0))
        assert stats.chi2_contingency(of_truth).pvalue > 1e-3

    def test_are_fixed_within_a_shuffle_and_owned_by_the_seed(self):
        labels = RandomLabels(0, 500, classes=5)
        assert (labels.draw(2) == RandomLabels(0, 500, classes=5).draw(2)).all()
        assert (labels.draw(2) != labels.draw(3)).mean() > 0.7
        assert (labels.draw(2) != RandomLabels(1, 500, classes=5).draw(2)).mean() > 0.7

    @pytest.mark.parametrize(("samples", "size"), [(12, 3), (13, 3), (5, 1)])
    def test_groups_are_classes_of_their_own(self, samples, size):
        labels = RandomLabels(0, samples, group_size=size)
        counts = np.bincount(labels.draw(0))
        assert len(counts) == labels.classes
        assert (counts[:-1] == size).all()
        assert counts.sum() == samples

    @pytest.mark.parametrize(
        ("settings", "match"),
        [({}, "give one of them"), ({"classes": 2, "group_size": 2}, "give one"), ({"classes": 1}, "two classes")],
    )
    def test_what_makes_no_labels_is_refused(self, settings, match):
        with pytest.raises(InputError, match=match):
            RandomLabels(0, 10, **settings)


class TorchNet(nn.Module):
    """The encoder of the same name, written for one model with functions of PyTorch."""

    def __init__(self, kind, weights):
        super().__init__()
        self.kind = kind
        self.weights = nn.ParameterList(weights)

    def forward(self, x):
        w = list(self.weights)
        if self.kind == "mlp":
            x = F.linear(x.flatten(1), w[0], w[1]).relu()
        else:
            convolve = F.conv2d if self.kind == "cnn" else F.conv3d
            x = convolve(x, w[0], w[1], stride=2, padding=1).relu()
            x = convolve(x, w[2], w[3], stride=2, padding=1).relu().flatten(1)
        x = F.linear(x, w[-4], w[-3]).relu()
        return F.linear(x, w[-2], w[-1])


ADAM_AND_SGD = {
    "adam": partial(torch.optim.Adam, lr=1e-3),
    SGD(): partial(torch.optim.SGD, lr=0.05),
    SGD(0.9, 1e-2): partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2),
}


@pytest.mark.parametrize("kind", SHAPES)
class TestEncoders:
    def test_a_block_is_single_models_of_torch(self, kind):
        rng = np.random.default_rng(0)
        samples = Samples(rng.normal(size=(20, *SHAPES[kind])), np.arange(20) % 4, tuple("abcd"))
        block = block_of(samples, kind=kind)
        assert not block.is_looped
        block = dataclasses.replace(block, weights={n: w.double().requires_grad_() for n, w in block.weights.items()})
        inputs = torch.from_numpy(rng.normal(size=(3, 7, *SHAPES[kind])))
        labels = torch.from_numpy(rng.integers(4, size=(3, 7)))
        logits = block.embed(inputs)
        loss = CrossEntropy()(logits, labels, torch.full((3, 7), 1 / 7, dtype=torch.float64))
        gradients = torch.autograd.grad(loss.sum(), list(block.weights.values()))
        for row in range(3):
            net = TorchNet(kind, [weight[row].detach().clone() for weight in block.weights.values()])
            expected = net(inputs[row])
            torch.testing.assert_close(logits[row], expected)
            expected_loss = nn.CrossEntropyLoss()(expected, labels[row])
            torch.testing.assert_close(loss[row], expected_loss)
            for mine, theirs in zip(gradients, torch.autograd.grad(expected_loss, list(net.weights)), strict=True):
                torch.testing.assert_close(mine[row], theirs)

    @pytest.mark.parametrize("optimizer", ADAM_AND_SGD)
    def test_steps_are_those_of_torch(self, kind, optimizer):
        """Twenty steps of a block against one model at a time with an optimizer of torch.optim."""
        new_optimizer = ADAM_AND_SGD[optimizer]
        rng = np.random.default_rng(1)
        samples = Samples(rng.normal(size=(80, *SHAPES[kind])).astype(np.float32), np.arange(80) % 4, tuple("abcd"))
        block = block_of(samples, kind=kind)
        parts = [divide(samples, seed)[0] for seed in SEEDS]
        table = tabulate(samples, parts)
        _, history = learn(
            block, table, samples, parts, [one.train for one in parts], max_epochs=4, patience=9, batch_size=13,
            optimizer=optimizer, learning_rate=new_optimizer.keywords["lr"], progress=False,
        )  # fmt: skip
        for row, (seed, one) in enumerate(zip(SEEDS, parts, strict=True)):
            net = TorchNet(kind, [weight[row].clone() for weight in block.weights.values()])
            theirs = new_optimizer(net.parameters())
            inputs = torch.from_numpy(samples.inputs)
            inputs = (inputs - inputs[one.train].mean()) / inputs[one.train].std(correction=0)
            labels = torch.from_numpy(samples.labels)
            found = []
            for epoch in range(1, 5):
                losses = []
                order = rlm.seeding.stream(seed, "order", epoch).permutation(len(one.train))
                for batch in torch.from_numpy(one.train[order]).split(13):
                    loss = F.cross_entropy(net(inputs[batch]), labels[batch])
                    theirs.zero_grad()
                    loss.backward()
                    theirs.step()
                    losses += [loss.item()] * len(batch)
                found.append(np.mean(losses))
            mine = history[(history["seed"] == seed) & (history["epoch"] > 0)]["loss"]
            np.testing.assert_allclose(mine, found, rtol=1e-4)


class TestTransfer:
    def test_takes_the_first_layers_and_leaves_the_rest(self, blobs):
        initial, pretrained = block_of(blobs), block_of(blobs, classes=7)
        assert all(
            torch.equal(initial.weights[name], weight)
            for name, weight in pretrained.weights.items()
            if name.startswith("encoder")
        )
        zeros = {name: torch.zeros_like(weight) for name, weight in pretrained.weights.items()}
        pretrained = control_block(shuffle, dataclasses.replace(pretrained, weights=zeros), pretrained)
        names = list_layers(initial.encoder.encoder)
        for layers, taken in [(None, names), (1, names[:1]), (0, [])]:
            found = transfer(initial, pretrained, layers)
            for name, weight in found.weights.items():
                layer = name.removeprefix("encoder.").rpartition(".")[0]
                source = pretrained if name.startswith("encoder") and layer in taken else initial
                assert torch.equal(weight, source.weights[name]), name


class TestMemorise:
    def setup_method(self):
        self.settings = {"learning_rate": 1e-2, "batch_size": 20, "progress": False}

    def labels(self, blobs, parts, classes=3):
        return [RandomLabels(seed, len(one.train), classes) for seed, one in zip(SEEDS, parts, strict=True)]

    def test_noise_is_memorised_and_forgotten_at_each_shuffle(self, blobs):
        parts = [divide(blobs, seed)[0] for seed in SEEDS]
        trained, history = memorise(
            block_of(blobs, dim=64), tabulate(blobs, parts), parts, self.labels(blobs, parts), shuffles=3, epochs=60,
            until=0.95, **self.settings,
        )  # fmt: skip
        last = history.groupby(["seed", "shuffle"]).last()
        assert (last["accuracy"] >= 0.95).all()
        fresh = history[history["shuffle_epoch"] == 0]
        assert len(fresh) == 9
        assert fresh["accuracy"].mean() == pytest.approx(1 / 3, abs=0.1)
        # Counted by hand: the last labels, under the weights that came out.
        table = tabulate(blobs, parts)
        found = attach(table, SEEDS, [one.train for one in parts], [one.draw(2) for one in self.labels(blobs, parts)])
        np.testing.assert_allclose(found.accuracy(trained), last["accuracy"].xs(2, level="shuffle").loc[list(SEEDS)])

    @pytest.mark.parametrize("settings", [{"until": 0.8}, {"new_head": True}, {"optimizer": SGD(0.9, 1e-3)}, {}])
    def test_a_seed_does_not_depend_on_its_company(self, blobs, settings):
        parts = [divide(blobs, seed)[0] for seed in SEEDS]
        settings = self.settings | {"shuffles": 2, "epochs": 8} | settings
        together, _ = memorise(block_of(blobs), tabulate(blobs, parts), parts, self.labels(blobs, parts), **settings)
        for row, seed in enumerate(SEEDS):
            one = parts[row : row + 1]
            alone, _ = memorise(
                block_of(blobs, seeds=(seed,)), tabulate(blobs, one), one, self.labels(blobs, parts)[row : row + 1],
                **settings,
            )  # fmt: skip
            for name, weight in alone.weights.items():
                torch.testing.assert_close(together.weights[name][row], weight[0], rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("optimizer", ["adam", SGD(momentum=0.9)])
    def test_the_optimizer_starts_anew_at_each_shuffle(self, blobs, optimizer):
        """Two shuffles are two trainings, one after the other, each with its own optimizer."""
        self.settings["optimizer"] = optimizer
        parts = [divide(blobs, seed)[0] for seed in SEEDS]
        table, labels = tabulate(blobs, parts), self.labels(blobs, parts)
        both, _ = memorise(block_of(blobs), table, parts, labels, shuffles=2, epochs=1, **self.settings)
        block = block_of(blobs)
        for number in (0, 1):
            trainer = Trainer(block, 1e-2, CrossEntropy(), optimizer=optimizer, synchronous=True)
            task = attach(
                table, SEEDS, [one.train for one in parts], [one.draw(number) for one in labels], "random_order"
            )
            trainer.train(task.batches(number + 1, 20))
            block = trainer.block
        for name, weight in both.weights.items():
            torch.testing.assert_close(weight, block.weights[name])

    def test_its_order_is_not_that_of_fine_tuning(self, blobs, monkeypatch):
        """Otherwise the first epochs of both would take the same samples together, in the same steps."""
        asked = []

        def noted(seed, name, *keys):
            asked.append((name, *keys))
            return stream(seed, name, *keys)

        monkeypatch.setattr(rlm.engine.batches, "stream", noted)
        parts = [divide(blobs, seed)[0] for seed in SEEDS]
        table, labels = tabulate(blobs, parts), self.labels(blobs, parts)
        asked.clear()
        memorise(block_of(blobs), table, parts, labels, **self.settings | {"shuffles": 1, "epochs": 2})
        orders = {key for key in asked if key[0] != "random_labels"}
        assert orders == {("random_order", 1), ("random_order", 2)}
        asked.clear()
        learn(block_of(blobs), table, blobs, parts, [one.train for one in parts], max_epochs=2, progress=False)
        assert set(asked) == {("order", 1), ("order", 2)}
        rows = [one.train for one in parts]
        of_both = [
            next(attach(table, SEEDS, rows, rows, order).batches(1, 10**6)).targets[0].tolist()
            for order in ("order", "random_order")
        ]
        assert sorted(of_both[0]) == sorted(of_both[1])
        assert of_both[0] != of_both[1]

    def test_a_new_head_forgets_and_the_encoder_does_not(self, blobs):
        """Without a step after the shuffle, what differs is the head alone."""
        parts = [divide(blobs, seed)[0] for seed in SEEDS]
        table, labels = tabulate(blobs, parts), self.labels(blobs, parts)
        settings = self.settings | {"shuffles": 2, "epochs": 1, "learning_rate": 1e-9}
        kept, _ = memorise(block_of(blobs), table, parts, labels, **settings)
        renewed, _ = memorise(block_of(blobs), table, parts, labels, new_head=True, **settings)
        for name, weight in kept.weights.items():
            is_same = torch.allclose(weight, renewed.weights[name], atol=1e-6)
            assert is_same != name.startswith("head"), name

    def test_nothing_to_do_changes_nothing(self, blobs):
        parts = [divide(blobs, seed)[0] for seed in SEEDS]
        before = block_of(blobs)
        after, history = memorise(
            before, tabulate(blobs, parts), parts, self.labels(blobs, parts), epochs=0, **self.settings
        )
        assert all(torch.equal(weight, before.weights[name]) for name, weight in after.weights.items())
        assert (history["epoch"] == 0).all()


class TestSamples:
    def test_parts_are_whole_groups_and_have_every_class(self):
        samples = rlm.labels.make_moving_digits(400, seed=1)
        doubled = dataclasses.replace(samples, groups=np.arange(400) // 5)
        parts, labelled = divide(doubled, 0, labelled=40)
        assert sorted(np.concatenate(parts)) == list(range(400))
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert not set(doubled.groups[parts[first]]) & set(doubled.groups[parts[second]])
        assert all(set(doubled.labels[rows]) == set(range(8)) for rows in parts)
        assert (np.bincount(doubled.labels[labelled]) == 5).all()
        assert set(labelled) <= set(divide(doubled, 0, labelled=80)[1]) <= set(parts.train)

    def test_an_official_test_part_stays(self, blobs):
        official = np.where(np.arange(150) % 5 == 0, "test", "train")
        parts, _ = divide(dataclasses.replace(blobs, official=official), 0)
        assert (parts.test == np.flatnonzero(official == "test")).all()
        assert len(parts.validation) == pytest.approx(120 * 0.15 / 0.85, abs=3)

    def test_a_given_validation_part_is_validated_on_by_every_seed(self, blobs):
        official = np.array(["test", "train", "train", "validation", "train"])[np.arange(150) % 5]
        given = dataclasses.replace(blobs, official=official)
        for seed in range(3):
            parts, labelled = divide(given, seed, labelled=30)
            for part, rows in parts._asdict().items():
                assert rows.tolist() == np.flatnonzero(official == part).tolist()
            assert set(labelled) < set(parts.train)

    def test_a_class_that_a_given_part_lacks_is_refused(self, blobs):
        official = np.array(["test", "train", "train", "validation", "train"])[np.arange(150) % 5]
        official[(official == "validation") & (blobs.labels == 1)] = "train"
        with pytest.raises(InputError, match="every class in the validation part, found none of middle"):
            divide(dataclasses.replace(blobs, official=official), 0)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"official": np.repeat("train", 150)}, "train and test in official, found train; add"),
            ({"labels": np.arange(150) / 2}, r"labels that are integers, found \[0.0, 0.5, 1.0\]"),
            ({"labels": np.arange(150)}, "labels from 0 to 2, one per class, found 0 to 149"),
            ({"labels": np.append([1], np.zeros(149, int))}, r"3 samples of each class.* middle \(1\), bottom \(0\)"),
            ({"inputs": np.zeros((150, 6, 6))}, r"inputs \[150, 6, 6\] and 150 labels"),
            ({"inputs": np.full((150, 1, 6, 6), np.nan)}, "finite numbers"),
            ({"classes": ("one",)}, "at least two classes"),
            ({"labels": [0, 1, 2] * 50}, "labels as a NumPy array, found list"),
            ({"inputs": np.zeros((150, 0, 6, 6))}, r"at least one number each, found inputs \[150, 0, 6, 6\]"),
            ({"official": np.repeat(["train", "Test"], 75)}, "official to be train, validation or test, found Test"),
            ({"groups": np.arange(9)}, r"groups of every sample, 150 in all, found \[9\]"),
            ({"labels": np.zeros((150, 1), int)}, r"found labels of shape \[150, 1\]"),
        ],
    )
    def test_what_cannot_be_learnt_is_refused(self, blobs, change, match):
        with pytest.raises(InputError, match=match):
            rlm.labels.run_labels(rlm.labels.LabelsConfig(encoder="mlp"), 1, samples=unchecked(blobs, **change))

    def test_a_class_of_one_group_is_refused(self, blobs):
        groups = np.where(blobs.labels == 1, 0, np.arange(1, 151))
        with pytest.raises(InputError, match=r"at least 3 groups of samples of each class.* found 1 of middle"):
            divide(dataclasses.replace(blobs, groups=groups), 0)

    @pytest.mark.parametrize("labelled", [2, 1_000])
    def test_numbers_of_labels_that_cannot_be_are_refused(self, blobs, labelled):
        with pytest.raises(InputError, match="expected labelled from 3, one of each class, to"):
            divide(blobs, 0, labelled=labelled)


def unchecked(samples, **changes):
    """A user's own mistake, past the shape annotations that only tests enforce."""
    changed = object.__new__(Samples)
    for field in dataclasses.fields(samples):
        object.__setattr__(changed, field.name, changes.get(field.name, getattr(samples, field.name)))
    return changed


class TestMovingDigits:
    def test_one_digit_moves_as_its_label_says(self):
        clips = rlm.labels.make_moving_digits(48, seed=3)
        digits = rlm.labels.load_digits().inputs[:, 0]
        assert clips.inputs.shape == (48, 1, FRAMES, SIZE, SIZE)
        for clip, label, digit in zip(clips.inputs[:, 0], clips.labels, clips.groups, strict=True):
            down, right = MOTIONS[clips.classes[label]]
            for before, after in itertools.pairwise(clip):
                assert (np.roll(before, (down, right), axis=(0, 1)) == after).all()
            assert np.sort(clip[0][clip[0] > 0]).tolist() == np.sort(digits[digit][digits[digit] > 0]).tolist()
        check_samples(clips)

    def test_a_single_frame_says_nothing(self):
        """Where the digit stands, and which it is, is independent of the motion."""
        clips = rlm.labels.make_moving_digits(1797, seed=0)
        digit = rlm.labels.load_digits().labels[clips.groups]
        assert stats.chi2_contingency(pd.crosstab(digit, clips.labels)).pvalue > 1e-3
        for frame in (0, FRAMES - 1):
            half = clips.inputs[:, 0, frame, : SIZE // 2].sum((1, 2)) > clips.inputs[:, 0, frame].sum((1, 2)) / 2
            assert stats.chi2_contingency(pd.crosstab(half, clips.labels)).pvalue > 1e-3


class TestAlignment:
    def test_recovers_a_planted_case(self):
        rng = np.random.default_rng(0)
        axes = stats.ortho_group.rvs(5, random_state=rng)
        data_sd, weight_sd = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([0.5, 2.0, 1.0, 0.1, 3.0])
        covariance = axes @ np.diag(data_sd**2) @ axes.T
        # Neurons in opposite pairs along the axes: their covariance is exact.
        weights = np.concatenate([axes.T * weight_sd[:, None], -axes.T * weight_sd[:, None]]) * np.sqrt(5)
        found = rlm.labels.align(weights, covariance)
        np.testing.assert_allclose(found["data_sd"], data_sd)
        np.testing.assert_allclose(found["weight_sd"], weight_sd)
        assert rlm.labels.misalignment(np.cov(weights, rowvar=False), covariance) == pytest.approx(0, abs=1e-6)

    def test_misalignment_is_the_least_distance_to_an_aligned_covariance(self):
        """Against a search over all covariances with the data's eigenvectors."""
        from scipy.optimize import minimize

        rng = np.random.default_rng(1)
        data, weights = (root @ root.T for root in rng.normal(size=(2, 3, 3)))
        _, vectors = np.linalg.eigh(data)

        def distance(logs):
            aligned = vectors @ np.diag(np.exp(logs)) @ vectors.T
            trace = np.trace(np.linalg.solve(weights, aligned) + np.linalg.solve(aligned, weights))
            return np.sqrt(max(trace / 2 - 3, 0))

        expected = minimize(distance, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).fun
        assert rlm.labels.misalignment(weights, data) == pytest.approx(expected, abs=1e-5)
        with pytest.raises(InputError, match="full rank 3, found 2"):
            rlm.labels.misalignment(np.diag([1.0, 1.0, 0.0]), data)

    @pytest.mark.parametrize("kind", SHAPES)
    def test_covariance_is_that_of_what_the_first_layer_sees(self, kind):
        """Seen by feeding the layer with one neuron for each of its inputs."""
        rng = np.random.default_rng(2)
        samples = Samples(rng.normal(size=(9, *SHAPES[kind])), np.arange(9) % 3, tuple("abc"))
        encoder = IMAGE_ENCODERS[kind](SHAPES[kind], 16).double()
        name = list_layers(encoder)[0]
        layer = encoder.get_submodule(name)
        size = layer.weight[0].numel()
        probe = torch.eye(size, dtype=torch.float64).view(size, *layer.weight.shape[1:])
        inputs = torch.from_numpy((samples.inputs - samples.inputs.mean()) / samples.inputs.std())
        if kind == "mlp":
            seen = F.linear(inputs.flatten(1), probe)
        else:
            convolve = F.conv2d if kind == "cnn" else F.conv3d
            seen = convolve(inputs, probe, stride=2, padding=1).movedim(1, -1).flatten(0, -2)
        expected = np.cov(seen.numpy(), rowvar=False, ddof=0)
        np.testing.assert_allclose(rlm.labels.input_covariance(encoder, samples, np.arange(9)), expected, atol=1e-12)


QUICK = rlm.labels.LabelsConfig(
    dataset="blobs", encoder="mlp", dim=8, shuffles=2, shuffle_epochs=2, max_epochs=6, patience=3,
    labelled=(12, "all"),
    arms=("scratch", "pretrained", "pretrained_once", "rescaled", "shuffled"), learning_rate=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module")
def study(blobs):
    return rlm.labels.run_labels(QUICK, 3, samples=blobs, n_jobs=1, progress=False)


class TestStudy:
    def test_has_a_row_per_size_arm_and_seed(self, study):
        found = list(study.results[["labelled", "arm", "seed"]].itertuples(index=False, name=None))
        assert found == [(size, arm, seed) for size in (12, 0) for arm in QUICK.arms for seed in range(3)]
        assert study.results["test_accuracy"].between(0, 1).all()
        assert study.results["test_accuracy"].notna().all()

    def test_each_arm_has_the_memorising_that_it_starts_from(self, blobs, study):
        """Also where the arms of one pre-training were trained apart."""
        assert set(study.memorising["arm"]) == set(QUICK.arms) - {"scratch"}
        expected = study.memorising.query("arm == 'pretrained'").drop(columns="arm").reset_index(drop=True)
        alone = QUICK.model_copy(update={"arms": ("rescaled",)})
        apart = rlm.labels.run_labels(alone, 3, samples=blobs, n_jobs=1, progress=False).memorising
        for found in (study.memorising, apart):
            mine = found.query("arm == 'rescaled'").drop(columns="arm").reset_index(drop=True)
            pd.testing.assert_frame_equal(mine, expected)
        for describe in (rlm.labels.summarise_shuffles, rlm.labels.plots.memorising):
            with pytest.raises(InputError, match="expected the memorising of one arm, found pretrained, pretrained_o"):
                describe(study.memorising[study.memorising["arm"].str.startswith("pretrained")])

    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_nothing_leaks_from_what_is_not_trained_on(self, blobs, part):
        """Other images there change no loss: neither of pre-training nor of the first epochs of fine-tuning."""
        config = QUICK.model_copy(update={"arms": ("scratch", "pretrained"), "labelled": ("all",)})
        inputs = blobs.inputs.copy()
        inputs[getattr(divide(blobs, 0)[0], part)] = 5.0
        found = [
            rlm.labels.run_labels(config, [0], samples=dataclasses.replace(blobs, inputs=one), n_jobs=1, progress=False)
            for one in (blobs.inputs, inputs)
        ]
        pd.testing.assert_frame_equal(found[0].memorising, found[1].memorising)
        first = [one.history.query("0 < epoch < 3").reset_index(drop=True)[["arm", "epoch", "loss"]] for one in found]
        pd.testing.assert_frame_equal(*first)

    def test_transfer_hands_on_what_it_says(self, blobs):
        settings = {"arms": ("scratch", "pretrained"), "labelled": ("all",)}
        losses = {}
        for layers in (0, 1, None):
            config = QUICK.model_copy(update=settings | {"transfer": layers})
            history = rlm.labels.run_labels(config, 1, samples=blobs, n_jobs=1, progress=False).history
            losses[layers] = {arm: mine["loss"].iloc[1] for arm, mine in history.groupby("arm")}
        assert losses[0]["pretrained"] == losses[0]["scratch"]
        assert len({mine["pretrained"] for mine in losses.values()}) == 3

    def test_groups_as_classes_do_not_depend_on_the_block(self, blobs):
        """The seeds' training parts differ in size here, and so would their heads."""
        samples = dataclasses.replace(blobs, groups=np.arange(150) // np.where(np.arange(150) < 75, 7, 2))
        config = QUICK.model_copy(update={"group_size": 4, "arms": ("pretrained",), "labelled": ("all",)})
        sizes = {len(divide(samples, seed)[0].train) for seed in range(4)}
        assert len(sizes) > 1
        together = rlm.labels.run_labels(config, 4, samples=samples, n_jobs=1, progress=False).memorising
        alone = rlm.labels.run_labels(config, [1], samples=samples, n_jobs=1, progress=False).memorising
        expected = together[together["seed"] == 1].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, expected, rtol=1e-3, atol=1e-3)
        assert alone["loss"].iloc[1] > np.log(30)  # as many classes as groups

    def test_every_seed_has_its_own_split(self, blobs):
        parts = [divide(blobs, seed)[0] for seed in range(3)]
        assert len({tuple(one.test) for one in parts}) == 3

    def test_without_pretraining_the_arms_are_scratch(self, blobs):
        config = QUICK.model_copy(update={"shuffle_epochs": 0, "arms": ("scratch", "pretrained", "rescaled")})
        found = rlm.labels.run_labels(config, 2, samples=blobs, n_jobs=1, progress=False).results
        found = found.drop(columns="seconds").set_index("arm")
        by_arm = {arm: found.loc[arm].reset_index(drop=True) for arm in config.arms}
        for arm in ("pretrained", "rescaled"):
            pd.testing.assert_frame_equal(by_arm[arm], by_arm["scratch"])

    def test_sgd_trains_both_phases(self, blobs):
        """Without momentum and weight decay it is descent by the gradient alone, whatever Adam would do."""
        settings = {"arms": ("scratch", "pretrained"), "labelled": ("all",), "learning_rate": 0.1}
        tables = {}
        for name, more in {
            "adam": {}, "sgd": {"optimizer": "sgd"}, "zero": {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0},
            "momentum": {"optimizer": "sgd", "momentum": 0.9}, "decay": {"optimizer": "sgd", "weight_decay": 0.1},
        }.items():  # fmt: skip
            config = QUICK.model_copy(update=settings | more)
            found = rlm.labels.run_labels(config, 1, samples=blobs, n_jobs=1, progress=False)
            losses = [*found.memorising["loss"], *found.history["loss"]]
            tables[name] = [round(loss, 6) for loss in losses if np.isfinite(loss)]
        assert tables["sgd"] == tables["zero"]
        assert len({tuple(losses) for losses in tables.values()}) == 4

    def test_a_seed_does_not_depend_on_its_block(self, study, blobs):
        alone = rlm.labels.run_labels(QUICK, [2], samples=blobs, n_jobs=1, progress=False)
        for mine, all_of_them in zip(alone, study, strict=True):
            expected = all_of_them[all_of_them["seed"] == 2].reset_index(drop=True)
            keep = [name for name in expected if name != "seconds"]
            pd.testing.assert_frame_equal(mine[keep], expected[keep], rtol=1e-3, atol=1e-3)

    def test_a_store_goes_on_and_is_read(self, study, blobs, tmp_path):
        db = tmp_path / "labels.db"
        rlm.labels.run_labels(QUICK, 1, samples=blobs, db=db, n_jobs=1, progress=False)
        found = rlm.labels.run_labels(QUICK, 3, samples=blobs, db=db, n_jobs=1, progress=False)
        keep = [name for name in study.results if name != "seconds"]
        pd.testing.assert_frame_equal(found.results[keep], study.results[keep], rtol=1e-3, atol=1e-3)
        stored = rlm.labels.read_labels(db)
        assert stored.config == QUICK
        assert stored.watched  # seeds were added
        for mine, theirs in zip(stored.finished, found, strict=True):
            pd.testing.assert_frame_equal(mine, theirs)
        assert rlm.list_studies(db).empty  # which lists studies of triplets
        with pytest.raises(InputError, match=r"number of one study of labels in .*, found 9; there are:\n.*\n.*\n1 "):
            rlm.labels.read_labels(db, 9)
        with pytest.raises(InputError, match=r"there are: none; its studies are of labels"):
            rlm.read_study(db)

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"encoder": "cnn3d"}, "expected encoder cnn or mlp for images, found cnn3d"),
            ({"transfer": 9}, "expected to transfer at most 2 layers, which mlp has, found 9"),
            ({"labelled": (500,)}, "expected labelled from 3"),
        ],
    )
    def test_settings_that_do_not_fit_are_refused(self, blobs, settings, match):
        with pytest.raises(InputError, match=match):
            rlm.labels.run_labels(QUICK.model_copy(update=settings), 1, samples=blobs, progress=False)

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"random_classes": 3, "group_size": 3}, "found both"),
            ({"arms": ("scratch", "scratch")}, "every arm once"),
            ({"labelled": (5, 5)}, "every number of labelled samples once"),
            ({"momentum": 0.9}, "with the optimizer sgd, found 0.9 and 0 with adam"),
            ({"optimizer": "adam", "weight_decay": 0.1}, "choose sgd, or omit them"),
        ],
    )
    def test_settings_that_contradict_each_other_are_refused(self, settings, match):
        with pytest.raises(ValueError, match=match):
            rlm.labels.LabelsConfig(**settings)

    def test_digits_are_learnt_by_convolutions(self):
        config = rlm.labels.LabelsConfig(arms=("scratch",), dim=64, max_epochs=4)
        found = rlm.labels.run_labels(config, 1, n_jobs=1, progress=False).results
        assert found["test_accuracy"].iloc[0] > 0.8


class TestWords:
    def planted(self, gain, seeds=20):
        """Memorising takes 10 + noise epochs at first, and `gain` fewer from then on."""
        rng = np.random.default_rng(0)
        rows = []
        for seed in range(seeds):
            for number in range(3):
                length = 10 + rng.integers(3) - (gain if number else 0)
                accuracy = np.append(np.full(length, 0.5), 0.95)
                rows += [(seed, number, epoch, value) for epoch, value in enumerate(accuracy)]
        return pd.DataFrame(rows, columns=["seed", "shuffle", "shuffle_epoch", "accuracy"])

    def test_a_planted_speed_up_is_found_and_measured(self):
        found = summarise_shuffles(self.planted(4))
        assert found.loc[2, "difference"] == pytest.approx(-4, abs=0.7)
        assert found.loc[2, "difference_high"] < 0
        assert found.loc[1, "epochs"] == pytest.approx(11, abs=0.5)
        assert "Shuffle 2 is faster than the first" in explain_shuffles(found)
        assert "Shuffle 3 is faster than the first" in explain_shuffles(found)

    def test_no_speed_up_is_none(self):
        assert "Shuffle 2 is not shown to differ" in explain_shuffles(summarise_shuffles(self.planted(0)))
        assert "cannot be judged by 4 seeds" in explain_shuffles(summarise_shuffles(self.planted(4, seeds=4)))

    def test_who_never_gets_there_counts_with_all_epochs(self):
        memorising = self.planted(4)
        never = memorising.assign(accuracy=memorising["accuracy"].where(memorising["seed"] > 0, 0.1))
        found = epochs_to_reach(never, 0.9, "accuracy", "shuffle_epoch")
        first = found[(found["seed"] == 0)]
        assert not first["reached"].any()
        assert found[found["seed"] > 0]["reached"].all()
        lengths = memorising[memorising["seed"] == 0].groupby("shuffle")["shuffle_epoch"].max()
        assert first["epochs"].tolist() == lengths.tolist()
        half = explain_shuffles(summarise_shuffles(never, 0.5))
        assert half.startswith("Memorising 50% of the random labels took ")
        assert "95% of the seeds reached it" in explain_shuffles(summarise_shuffles(never))

    def test_effects_are_those_of_the_verdict(self, study):
        table = tabulate_effects(study.results)
        some = study.results[study.results["labelled"] == 12]
        verdict = rlm.compare_all(some)["pretrained"]
        row = table.loc[(12, "pretrained")]
        assert (row["difference"], row["p"], row["decision"]) == (
            verdict.difference.value,
            verdict.difference_p,
            verdict.decision,
        )
        assert list(table.index.get_level_values("labelled").unique()) == [12, "all"]

    def test_a_missing_accuracy_counts_as_the_column_chance(self, study):
        results = study.results.assign(chance=1 / 3)
        is_lost = (results["arm"] == "pretrained") & (results["seed"] == 1)
        lost, counted = (
            results.assign(test_accuracy=results["test_accuracy"].mask(is_lost, value)) for value in (np.nan, 1 / 3)
        )
        pd.testing.assert_frame_equal(tabulate_effects(lost), tabulate_effects(counted))

    def test_the_judge_counts_a_missing_accuracy_as_the_column_chance(self, study):
        """Also where nobody names the column; the first hit and roc_auc have a chance of their own."""
        results = study.results[study.results["labelled"] == 12].assign(chance=1 / 3)
        is_lost = (results["arm"] == "pretrained") & (results["seed"] == 1)
        lost, counted = (
            results.assign(test_accuracy=results["test_accuracy"].mask(is_lost, value)) for value in (np.nan, 1 / 3)
        )
        pd.testing.assert_frame_equal(rlm.summarise(lost), rlm.summarise(counted))
        assert (
            rlm.compare(lost)
            .table()
            .filter(like="mean", axis=0)
            .equals(rlm.compare(counted).table().filter(like="mean", axis=0))
        )
        assert "33% of the seeds of pretrained failed" in rlm.compare(lost).text
        expected = {"test_accuracy": 1 / 3, "my_accuracy": 1 / 3, "top_1_accuracy": 0, "roc_auc": 1 / 2}
        for metric, value in expected.items():
            table = lost.assign(**{metric: lost["test_accuracy"]})
            assert rlm.stats.count_failed(table, metric).loc[is_lost, metric].tolist() == [value]
        without = lost.drop(columns="chance")
        assert rlm.stats.count_failed(without).loc[is_lost, "test_accuracy"].tolist() == [1 / 2]

    def test_tables_to_be_read_say_what_was_measured(self, study):
        effects, speed = tabulate_effects(study.results), tabulate_speed(study.history)
        for table, value, unit, scale in ((effects, "accuracy", "points", 100), (speed, "epochs", "epochs", 1)):
            read = rlm.labels.spell_intervals(table)
            (shown,) = (name for name in read if name.startswith(value))
            for name, column in ((shown, value), (f"difference, {unit}", "difference")):
                numbers = read.loc[read[name] != "", name].str.extract(r"^(\S+) \[")[0].astype(float)
                np.testing.assert_allclose(numbers, scale * table[column].dropna().astype(float), atol=0.05)
            assert (read.xs("scratch", level="arm")[["p", "decision"]] == "").all(axis=None)

    @staticmethod
    def curves():
        rng = np.random.default_rng(0)
        rows = []
        for seed in range(12):
            noise = rng.integers(2)
            for arm, lead in (("scratch", 0), ("pretrained", 2 + 2 * (seed % 2))):
                curve = np.clip(np.arange(21) + lead - noise, 0, 20) / 20
                rows += [(0, arm, seed, epoch, value) for epoch, value in enumerate(curve)]
        return pd.DataFrame(rows, columns=["labelled", "arm", "seed", "epoch", "validation_accuracy"])

    def test_speed_is_counted_against_scratch(self):
        found = tabulate_speed(self.curves()).loc[("all", "pretrained")]
        assert found["difference"] == -3
        assert found["decision"] == "faster"
        assert found["reached"] == 1

    def test_a_diverged_seed_reaches_nothing_and_counts_as_guessing(self):
        """However good it was before: as with all other results."""
        curves = self.curves().assign(loss=1.0)
        is_lost = curves["seed"] == 3
        curves.loc[is_lost & (curves["epoch"] == 20), "loss"] = np.inf
        curves.loc[curves["epoch"] == 0, "loss"] = np.nan
        speed, others = tabulate_speed(curves), tabulate_speed(curves[~is_lost])
        first = curves.loc[is_lost & (curves["arm"] == "scratch"), "validation_accuracy"].iloc[0]
        best = curves[~is_lost & (curves["arm"] == "scratch")].groupby("seed")["validation_accuracy"].max()
        assert speed["accuracy"].tolist() == pytest.approx([0.95 * (best.sum() + first) / 12] * 2)
        assert others["accuracy"].tolist() == pytest.approx([0.95 * best.mean()] * 2)
        assert speed["reached"].tolist() == pytest.approx([11 / 12] * 2)

    def test_what_was_watched_takes_the_confidence_sequence(self, study):
        """Wider intervals: on accuracy, on the epochs of fine-tuning and on those of memorising."""
        some = study.results[study.results["labelled"] == 12]
        verdict = rlm.compare_all(some, watched=True)["pretrained"]
        row = tabulate_effects(study.results, watched=True).loc[(12, "pretrained")]
        assert (row["difference"], row["p"]) == (verdict.anytime.value, verdict.anytime_p)
        noisy = self.planted(4)
        fixed, watched = (summarise_shuffles(noisy, watched=is_watched).loc[2] for is_watched in (False, True))
        assert watched["difference"] == pytest.approx(fixed["difference"])
        assert watched["difference_low"] < fixed["difference_low"]
        assert fixed["difference_high"] < watched["difference_high"] < 0
        assert tabulate_speed(self.curves(), watched=True).loc[("all", "pretrained"), "decision"] == "faster"

    def test_arms_without_a_pair_are_not_compared(self, study):
        """As while a study runs, or after it was interrupted."""
        parts = [table[(table["arm"] == "scratch") == (table["seed"] == 0)] for table in (study.results, study.history)]
        for table in (tabulate_effects(parts[0]), tabulate_speed(parts[1])):
            assert table["difference"].isna().all()
            assert set(table.index.get_level_values("arm")) == set(QUICK.arms)


def with_numbers(decisions, value="accuracy"):
    return decisions.assign(**dict.fromkeys([value, *DIFFERENCE], 0.0))


def test_the_claim_is_judged_by_shuffles_and_controls():
    columns = ["seeds", "reached", "epochs", "low", "high", "difference", "difference_low", "difference_high", "p"]
    columns.append("decision")
    rows = [
        [20, 1.0, 9, 8, 10, 0, 0, 0, np.nan, np.nan],
        [20, 1.0, 7, 6, 8, -2, -3, -1, 0.001, "faster"],
        [20, 1.0, 12, 11, 13, 3, 2, 4, 0.001, "slower"],
    ]
    shuffles = pd.DataFrame(rows, columns=columns, index=[1, 2, 3])
    arms = ["scratch", "pretrained", "pretrained_once", "rescaled"]
    index = pd.MultiIndex.from_product([[50, "all"], arms], names=["labelled", "arm"])
    none = "no evidence either way"
    effects = pd.DataFrame({"decision": [np.nan, "helps", "helps", none, np.nan, "helps", none, "helps"]}, index=index)
    speed = pd.DataFrame({"decision": [np.nan, "slower", none, none, np.nan, none, none, none]}, index=index)
    decide = partial(rlm.labels.explain, "digits", "20 seeds.", speed=with_numbers(speed, "epochs"))
    decision, _, settings, memorising, faster, *_ = decide(shuffles, effects=with_numbers(effects)).splitlines()
    assert settings == "- 20 seeds."
    assert "was shown for 1 of 2 memorisations after the first and reversed for 1" in memorising
    assert decision == (
        "**digits: in accuracy, pretrained is shown to gain in 2 of 2 cases and to lose in 0; in 1 of the 2 a control, "
        "whose weights hold nothing memorised, gained too.**"
    )
    assert faster == "- In speed, pretrained is shown to gain in 0 of 2 cases and to lose in 1."
    unclear = shuffles.assign(decision=[np.nan, none, none])
    assert "figure 1, was shown for none of 2 memorisations" in decide(unclear, effects=with_numbers(effects))
    slower = shuffles.assign(decision=[np.nan, none, "slower"])
    assert "was reversed for 1 of 2 memorisations" in decide(slower, effects=with_numbers(effects))
    assert "never shuffled" in decide(shuffles.iloc[:1], effects=with_numbers(effects))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"shuffles": 3, "shuffle_epochs": 60, "until": 0.9, "max_epochs": 25, "learning_rate": 0.003},
            "3 shuffles of the random labels, each until 90% are memorised and for at most 60 epochs; at most 25 "
            "epochs of fine-tuning; learning rate 0.003; 10 seeds.",
        ),
        (
            {"shuffles": 1, "shuffle_epochs": 1, "max_epochs": 1},
            "1 shuffle of the random labels, 1 epoch each; at most 1 epoch of fine-tuning; "
            "learning rate 0.001; 10 seeds.",
        ),
        (
            {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "learning_rate": 0.1, "new_head": True},
            "10 shuffles of the random labels, 20 epochs each, each with a new head; at most 100 epochs of "
            "fine-tuning; SGD with momentum 0.9 and weight decay 0.0005, learning rate 0.1; 10 seeds.",
        ),
    ],
)
def test_settings_of_random_labels_stand_beside_their_results(settings, said):
    assert rlm.labels.explain_settings(rlm.labels.LabelsConfig(**settings), 10) == said


class TestCommand:
    def test_prints_tables_and_writes_them(self, rlm_command, tmp_path):
        out = tmp_path / "r.csv"
        code, said, _ = rlm_command(
            "labels", "--encoder", "mlp", "--dim", 8, "--shuffles", 2, "--shuffle-epochs", 1, "--max-epochs", 1,
            "--labelled", 50, "all", "--seeds", 2, "--jobs", 1, "--out", out,
        )  # fmt: skip
        assert code == 0
        assert "1,797 samples, 10 classes" in said
        assert "No seed memorised 90% of the random labels within 1 epoch the first time (2 seeds)" in said
        assert "raise shuffle_epochs (--shuffle-epochs), or lower the share" in said
        assert "epochs until" not in said  # a table would show how long they were trained
        assert "with 50 labelled samples pretrained" in said
        assert len(pd.read_csv(out)) == 8

    def test_until_has_time_by_default(self, rlm_command, tmp_path):
        db = tmp_path / "labels.db"
        code, said, _ = rlm_command(
            "labels", "--encoder", "mlp", "--dim", 8, "--shuffles", 1, "--until", 0.15, "--max-epochs", 0,
            "--seeds", 1, "--jobs", 1, "--db", db,
        )  # fmt: skip
        assert code == 0
        assert rlm.labels.read_labels(db).config.shuffle_epochs == 60
        assert "epochs until 15% of the random labels are memorised" in said

    def test_images_of_ones_own_are_studied(self, rlm_command, tmp_path, blobs):
        from PIL import Image

        for number, (image, label) in enumerate(zip(blobs.inputs[:, 0], blobs.labels, strict=True)):
            path = tmp_path / "images" / blobs.classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)).save(path)
        code, said, _ = rlm_command(
            "labels", "--images", tmp_path / "images", "--encoder", "mlp", "--dim", 8, "--shuffles", 1,
            "--shuffle-epochs", 1, "--max-epochs", 1, "--seeds", 1, "--jobs", 1,
        )  # fmt: skip
        assert code == 0
        assert "150 samples, 3 classes" in said

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (["--dataset", "mnist"], "expected a dataset of digits, moving-digits, found 'mnist'"),
            (["--splits", "a.txt"], "expected --videos beside --splits"),
            (["--images", "a", "--frames", "8"], "expected --videos beside --frames"),
            (["--size", "8"], "expected --images or --videos beside --size"),
            (["--images", "a", "--videos", "b"], "found both"),
            (["--shuffles", "0"], "--shuffles"),
            (["--jobs", "0"], "found 0 jobs"),
        ],
    )
    def test_mistakes_are_said(self, rlm_command, arguments, match):
        code, _, errors = rlm_command("labels", *arguments)
        assert code == 2
        assert match in errors


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("scratch", "pretrained"), "4 shuffles of the random labels, each until 90% are memorised and for at most 5 "),
        (("scratch", "pretrained_once"), "random labels dealt once, 20 epochs; at most"),
        (("pretrained", "pretrained_once"), "5 epochs; random labels dealt once, 20 epochs; at most"),
    ],
)
def test_the_settings_are_those_of_the_arms(arms, said):
    config = rlm.labels.LabelsConfig(arms=arms, until=0.9, shuffles=4, shuffle_epochs=5)
    assert said in rlm.labels.explain_settings(config, 10)


def test_a_study_without_the_arm_of_the_claim_says_so(study):
    shuffles = rlm.labels.summarise_shuffles(study.memorising.query("arm == 'pretrained_once'")).assign(seeds=10)
    some = study.results[study.results["arm"].isin(["scratch", "pretrained_once"])]
    history = study.history[study.history["arm"].isin(["scratch", "pretrained_once"])]
    tables = rlm.labels.tabulate_effects(some), rlm.labels.tabulate_speed(history)
    assert "in accuracy, the arm pretrained, which the claim is about, was not trained" in rlm.labels.explain(
        "digits", "10 seeds.", shuffles, *tables
    )


@pytest.mark.parametrize("scale", [1e-3, 1e-9])
def test_the_scale_of_brightness_changes_nothing(blobs, scale):
    parts = [divide(blobs, 0)[0]]
    top = blobs.inputs.max()
    tables = [
        rlm.labels.tabulate(dataclasses.replace(blobs, inputs=blobs.inputs / top * factor), parts)
        for factor in (1, scale)
    ]
    ratio = tables[1].sd / tables[0].sd
    assert ratio.item() == pytest.approx(scale, rel=1e-4)


def test_brightness_that_cannot_be_compared_is_an_error(blobs):
    """Copies of test samples would be pre-trained on."""
    inputs = 255 * np.abs(blobs.inputs) / np.abs(blobs.inputs).max()
    settings = {"samples": blobs, "pretrain_samples": dataclasses.replace(blobs, inputs=inputs)}
    with pytest.raises(InputError, match="expected brightness from 0 to 1 in samples of a floating type"):
        rlm.labels.run_labels(QUICK, 1, **settings, n_jobs=1, progress=False)
