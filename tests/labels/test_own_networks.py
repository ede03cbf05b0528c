"""Own networks in studies of random labels, with batch normalisation, against plain loops of PyTorch."""

import copy
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rlm
from rlm.block import init_block
from rlm.controls import control_block, rescale, shuffle
from rlm.errors import InputError
from rlm.labels.batches import RandomLabels, attach, tabulate
from rlm.labels.encoders import Classifier, list_layers, new_classifiers, transfer
from rlm.labels.samples import Samples, divide
from rlm.labels.training import SGD, learn, memorise
from rlm.seeding import stream

SEEDS = (3, 1, 4)


class Normalised(nn.Sequential):
    """Two convolutions, each with batch normalisation, so without a bias, whose gradient would be noise for Adam."""

    def __init__(self, shape, momentum=0.1, affine=True):
        settings, same = {"momentum": momentum, "affine": affine}, {"padding": 1, "bias": False}
        super().__init__(
            nn.Conv2d(shape[0], 6, 3, **same), nn.BatchNorm2d(6, **settings), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, **same), nn.BatchNorm2d(8, **settings), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


class Pooled(nn.Sequential):
    """A network that torch.func stacks; no setting names its 5 numbers."""

    def __init__(self, shape):
        super().__init__(
            nn.Conv2d(shape[0], 5, 3), nn.GroupNorm(1, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()
        )


class Flat(nn.Sequential):
    def __init__(self, shape):
        super().__init__(nn.Flatten(), nn.Linear(int(np.prod(shape)), 7), nn.BatchNorm1d(7))


class Dropped(nn.Module):
    """Dropout without a layer of that name."""

    def __init__(self, shape):
        super().__init__()
        self.output = nn.Linear(int(np.prod(shape)), 7)

    def forward(self, inputs):
        return F.dropout(self.output(inputs.flatten(1)), 0.5, self.training)


@pytest.fixture(scope="module")
def stripes():
    """Images of 6 x 6 pixels in three classes, in groups, so that the training parts of seeds differ in size."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.uniform(0, 0.6, size=(120, 1, 6, 6)).astype(np.float32)
    for label in range(3):
        images[labels == label, :, 2 * label : 2 * label + 2] += 0.4
    groups = np.arange(120) // np.where(np.arange(120) < 60, 7, 2)
    return Samples(images, labels, ("top", "middle", "bottom"), groups=groups)


def block_of(make, seeds=SEEDS, classes=3):
    return init_block(lambda: Classifier(make((1, 6, 6)), 8, classes), seeds, torch.zeros(2, 1, 6, 6), batch_norm=True)


def alone(block, row):
    """One seed as a module of its own, with its weights and statistics."""
    net = copy.deepcopy(block.encoder)
    net.load_state_dict({name: weight[row] for name, weight in block.weights.items()})
    return net


def standardised(samples, parts):
    inputs = torch.from_numpy(samples.inputs)
    return (inputs - inputs[parts.train].mean()) / inputs[parts.train].std(correction=0)


OPTIMIZERS = {"adam": torch.optim.Adam, SGD(0.9): partial(torch.optim.SGD, momentum=0.9)}


@pytest.mark.parametrize("make", [Normalised, lambda shape: Normalised(shape, momentum=None, affine=False)])
class TestBatchNormalisation:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_fine_tuning_is_a_plain_loop_with_early_stopping(self, make, optimizer, stripes):
        """In training and evaluation mode; the best epoch comes with the statistics that it had."""
        block, parts = block_of(make), [divide(stripes, seed)[0] for seed in SEEDS]
        before = {name: weight.clone() for name, weight in block.weights.items()}
        assert len({len(one.train) for one in parts}) > 1
        best, history = learn(
            block, tabulate(stripes, parts), stripes, parts, [one.train for one in parts], optimizer=optimizer,
            max_epochs=8, patience=2, learning_rate=0.02, batch_size=11, progress=False,
        )  # fmt: skip
        assert all(torch.equal(weight, before[name]) for name, weight in block.weights.items())
        labels = torch.from_numpy(stripes.labels)
        for row, (seed, one) in enumerate(zip(SEEDS, parts, strict=True)):
            net, inputs = alone(block, row), standardised(stripes, one)
            theirs = OPTIMIZERS[optimizer](net.parameters(), lr=0.02)
            found, states = [], []
            for epoch in range(9):
                losses, net = [np.nan], net.train()
                if epoch:
                    order = stream(seed, "order", epoch).permutation(len(one.train))
                    losses = []
                    for rows in torch.from_numpy(one.train[order]).split(11):
                        loss = F.cross_entropy(net(inputs[rows]), labels[rows])
                        theirs.zero_grad()
                        loss.backward()
                        theirs.step()
                        losses += [loss.item()] * len(rows)
                net.eval()
                right = net(inputs[one.validation]).argmax(dim=1) == labels[one.validation]
                found.append((np.mean(losses), right.double().mean().item()))
                states.append(copy.deepcopy(net.state_dict()))
                accuracies = [accuracy for _, accuracy in found]
                if epoch - int(np.argmax(accuracies)) == 2:
                    break
            mine = history[history["seed"] == seed][["loss", "validation_accuracy"]]
            np.testing.assert_allclose(mine, found, rtol=1e-3, atol=1e-5)
            expected = states[int(np.argmax(accuracies))]
            assert set(expected) == set(best.weights)
            for name, weight in expected.items():
                torch.testing.assert_close(best.weights[name][row], weight, rtol=1e-3, atol=1e-4)

    def test_memorising_is_a_plain_loop(self, make, stripes):
        block, parts = block_of(make), [divide(stripes, seed)[0] for seed in SEEDS]
        labels = [RandomLabels(seed, len(one.train), 3) for seed, one in zip(SEEDS, parts, strict=True)]
        after, history = memorise(
            block, tabulate(stripes, parts), parts, labels, shuffles=2, epochs=2, learning_rate=0.02, batch_size=11,
            progress=False,
        )  # fmt: skip
        for row, (seed, one) in enumerate(zip(SEEDS, parts, strict=True)):
            net, inputs, found = alone(block, row), standardised(stripes, one)[one.train], []
            for epoch in range(1, 5):
                shuffled = torch.from_numpy(labels[row].draw((epoch - 1) // 2))
                if epoch % 2:
                    adam = torch.optim.Adam(net.parameters(), lr=0.02)
                net.train()
                for rows in torch.from_numpy(stream(seed, "random_order", epoch).permutation(len(inputs))).split(11):
                    adam.zero_grad()
                    F.cross_entropy(net(inputs[rows]), shuffled[rows]).backward()
                    adam.step()
                net.eval()
                found.append((net(inputs).argmax(dim=1) == shuffled).double().mean().item())
            mine = history[(history["seed"] == seed) & (history["shuffle_epoch"] > 0)]["accuracy"]
            np.testing.assert_allclose(mine, found, atol=1e-9)
            for name, weight in net.state_dict().items():
                torch.testing.assert_close(after.weights[name][row], weight, rtol=1e-3, atol=1e-4)

    def test_statistics_go_on_with_their_layer(self, make, stripes):
        initial, pretrained = block_of(make), block_of(make, classes=5)
        for name, weight in pretrained.weights.items():
            pretrained.weights[name] = weight + 1
        names = list_layers(initial.encoder.encoder)
        assert names == ["0", "1", "4", "5"]
        for layers, taken in [(None, names), (2, names[:2]), (0, [])]:
            for name, weight in transfer(initial, pretrained, layers).weights.items():
                is_taken = name.startswith("encoder") and name.split(".")[1] in taken
                assert torch.equal(weight, (pretrained if is_taken else initial).weights[name]), name

    def test_controls_keep_the_values_of_statistics(self, make, stripes):
        initial, pretrained = block_of(make), block_of(make)
        pretrained.weights["encoder.1.running_var"].copy_(torch.arange(18).view(3, 6))
        pretrained.weights["encoder.1.num_batches_tracked"] += 9
        for control in (control_block(one, initial, pretrained) for one in (rescale, shuffle)):
            assert control.weights["encoder.1.num_batches_tracked"].tolist() == [9, 9, 9]
            ordered = control.weights["encoder.1.running_var"].sort(dim=1).values
            assert ordered.flatten().tolist() == list(range(18))


QUICK = rlm.labels.LabelsConfig(
    dataset="stripes", arms=("scratch", "pretrained", "rescaled", "shuffled"), shuffles=2, shuffle_epochs=2,
    max_epochs=4, patience=2, learning_rate=1e-2, batch_size=20, labelled=(12, "all"),
)  # fmt: skip


class TestStudy:
    @pytest.mark.parametrize("make", [Normalised, Pooled])
    def test_a_seed_does_not_depend_on_its_block(self, make, stripes):
        settings = {"samples": stripes, "make_encoder": make, "n_jobs": 1, "progress": False}
        together = rlm.labels.run_labels(QUICK, 3, **settings)
        single = rlm.labels.run_labels(QUICK, [2], **settings)
        for mine, all_of_them in zip(single, together, strict=True):
            expected = all_of_them[all_of_them["seed"] == 2].reset_index(drop=True)
            keep = [name for name in expected if name != "seconds"]
            pd.testing.assert_frame_equal(mine[keep], expected[keep], rtol=1e-3, atol=1e-3)

    def test_only_what_cannot_be_stacked_is_looped(self, stripes):
        blocks = [new_classifiers(QUICK, stripes, 3, [0, 1], make) for make in (Normalised, Pooled)]
        assert [block.is_looped for block in blocks] == [True, False]
        assert [block.weights["head.weight"].shape for block in blocks] == [(2, 3, 8), (2, 3, 5)]

    def test_the_encoder_of_the_config_can_be_handed_over(self, stripes):
        """The same numbers, by another way."""
        config = QUICK.model_copy(update={"encoder": "mlp", "dim": 8, "arms": ("scratch", "pretrained")})
        named, own = (
            rlm.labels.run_labels(config, 2, samples=stripes, make_encoder=make, n_jobs=1, progress=False)
            for make in (None, lambda shape: rlm.labels.encoders.MLPEncoder(shape, 8))
        )
        for mine, theirs in zip(own, named, strict=True):
            keep = [name for name in theirs if name != "seconds"]
            pd.testing.assert_frame_equal(mine[keep], theirs[keep])

    def test_a_store_tells_networks_apart(self, stripes, tmp_path):
        db = tmp_path / "labels.db"
        config = QUICK.model_copy(update={"arms": ("scratch",), "max_epochs": 0})
        for make in (Normalised, Pooled, Normalised):
            rlm.labels.run_labels(config, 1, samples=stripes, make_encoder=make, db=db, n_jobs=1, progress=False)
        assert [rlm.labels.read_labels(db, number).encoder for number in (1, 2)] == ["Normalised", "Pooled"]
        with pytest.raises(InputError, match="found 3"):
            rlm.labels.read_labels(db, 3)

    @pytest.mark.parametrize(
        ("make", "settings", "match"),
        [
            (lambda shape: nn.Sequential(*list(Flat(shape))[:2], nn.Dropout(0.1)), {}, "other dropout in Dropout"),
            (Dropped, {}, "found that Classifier draws random numbers"),
            (lambda shape: nn.Conv2d(1, 4, 3), {}, r"one vector per input.*\[2, 4, 4, 4\] for two inputs"),
            (lambda shape: nn.Linear(5, 4), {}, r"an encoder of samples \[1, 6, 6\], found that Linear fails on two"),
            (lambda shape: nn.BatchNorm2d(1, track_running_stats=False), {}, "one vector per input"),
            (
                lambda shape: nn.Sequential(*list(Flat(shape))[:2], nn.BatchNorm1d(7, track_running_stats=False)), {},
                "batch normalisation has running statistics, found BatchNorm1d; set track_running_stats",
            ),
            (Flat, {"batch_size": 1}, "found one of a single sample with batch_size 1: Expected more than 1 value"),
            (Flat, {"transfer": 3}, "expected to transfer at most 2 layers, which Flat has, found 3"),
        ],
    )  # fmt: skip
    def test_networks_that_cannot_be_trained_are_named(self, make, settings, match, stripes):
        with pytest.raises(InputError, match=match):
            rlm.labels.run_labels(
                QUICK.model_copy(update=settings), 1, samples=stripes, make_encoder=make, progress=False
            )

    def test_a_batch_of_one_is_allowed_where_it_can_be_normalised(self, stripes):
        config = QUICK.model_copy(update={"arms": ("scratch",), "batch_size": 1, "max_epochs": 1, "labelled": (12,)})
        found = rlm.labels.run_labels(config, 1, samples=stripes, make_encoder=Normalised, n_jobs=1, progress=False)
        assert found.results["test_accuracy"].notna().all()

    def test_statistics_of_phrases_would_mix_them(self, stripes):
        with pytest.raises(InputError, match="without batch normalisation, found BatchNorm1d; take"):
            init_block(lambda: Flat((1, 6, 6)), (0,), torch.zeros(2, 1, 6, 6))

    def test_evaluation_does_not_depend_on_its_batches(self, stripes):
        block, parts = block_of(Normalised), [divide(stripes, seed)[0] for seed in SEEDS]
        table, rows = tabulate(stripes, parts), [one.test for one in parts]
        test = attach(table, SEEDS, rows, [stripes.labels[mine] for mine in rows])
        before = {name: weight.clone() for name, weight in block.weights.items()}
        first = test.accuracy(block)
        assert all(torch.equal(weight, before[name]) for name, weight in block.weights.items())
        for row in range(3):
            one = test.keep(np.array([row]))
            assert one.accuracy(block.rows([row])).tolist() == [first[row]]
