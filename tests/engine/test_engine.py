"""What makes training fast must not change what is trained: optimizers, grouping, precision, compilation, devices."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, finetune, pretrain, topic_pairs
from packaging.version import Version
from torch import nn
from torch_twin import TorchTwin

import rlm
from rlm.block import init_block
from rlm.engine import compile as compiling
from rlm.engine.batches import PhraseTable, distinct, epoch_batches
from rlm.engine.compile import fit, static_batch_sizes
from rlm.engine.lstm import Recurrence, compiled_recurrence
from rlm.errors import InputError
from rlm.runtime.device import resolve_precision
from rlm.sampler import RealTriplets
from rlm.study import iter_study
from rlm.zoo.encoders import ENCODERS

both = pytest.mark.parametrize("kind", ["lstm", "mean"])
SETTINGS = {"max_epochs": 4, "batch_size": 15, "learning_rate": 1e-2, "progress": False}


def new_block(slices, kind="mean", seeds=(0, 1, 2), dtype=torch.float32):
    return init_block(lambda: ENCODERS[kind](slices.vocabulary_size, 4, 5).to(dtype), seeds)


def loss_of(twin, slices, triplets):
    anchor, positive, negative = (twin(torch.from_numpy(slices.tokens[column])) for column in triplets.T)
    return ((anchor - positive).square().sum(1) - (anchor - negative).square().sum(1) + 0.5).relu().mean()


class TwoTables(nn.Module):
    """Trained word vectors beside a table of as many rows that is frozen, or of as many positions."""

    def __init__(self, words, frozen):
        super().__init__()
        self.words, self.frozen = nn.Embedding(words, 4), frozen
        self.other = nn.Embedding(words if frozen else 7, 4).requires_grad_(not frozen)

    def forward(self, tokens, batch_sizes):
        tokens = tokens.long()
        return (self.words(tokens) * self.other(tokens if self.frozen else tokens % 7)).sum(dim=1)


def test_rowwise_adam_renumbers_no_word_whose_number_an_encoder_needs(slices):
    """A frozen table of all words is read as it is; a table by the number of a word cannot be."""
    found = [
        finetune(
            init_block(lambda: TwoTables(slices.vocabulary_size, True), (0, 1)), slices, **SETTINGS, optimizer=name
        )
        for name in ("rowwise_adam", "adam")
    ]
    np.testing.assert_array_equal(*(history.loss for _, history in found))
    block = init_block(lambda: TwoTables(slices.vocabulary_size, False), (0, 1))
    for compile in (False, True):
        with pytest.raises(InputError, match="changes TwoTables's embeddings; use the optimizer adam"):
            finetune(block, slices, **SETTINGS, optimizer="rowwise_adam", compile=compile)


@both
@pytest.mark.parametrize("batching", ["flat", "grouped"])
def test_rowwise_adam_is_torchs_sparse_adam(kind, batching, unequal_slices):
    block = new_block(unequal_slices[0], kind, dtype=torch.float64)
    settings = SETTINGS | {"optimizer": "rowwise_adam", "batching": batching}
    _, history = finetune(block, unequal_slices, **settings)
    for row, (seed, one) in enumerate(zip(block.seeds, unequal_slices, strict=True)):
        twin = TorchTwin(kind, {name: weight[row] for name, weight in block.weights.items()})
        twin.words.sparse = True
        optimizers = [
            torch.optim.SparseAdam(twin.words.parameters(), lr=1e-2),
            torch.optim.Adam(twin.layer.parameters(), lr=1e-2),
        ]
        order = RealTriplets(one.train, seed, batching=batching)
        for epoch in range(1, 5):
            total = 0.0
            for triplets in order.epoch(epoch, 15):
                twin.zero_grad()
                loss = loss_of(twin, one, triplets)
                loss.backward()
                for optimizer in optimizers:
                    optimizer.step()
                total += loss.item() * len(triplets)
            found = history.query("seed == @seed and epoch == @epoch").loss.item()
            assert found == pytest.approx(total / len(order), abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "rowwise_adam"])
def test_decay_warmup_and_clipping_are_those_of_torch(optimizer, unequal_slices):
    """AdamW under LinearLR and clip_grad_norm_; SparseAdam, which has no decay, after that of the rows it moves."""
    decay, warmup, clip = 0.3, 7, 0.05
    own = {"weight_decay": decay, "warmup": warmup, "clip": clip, "optimizer": optimizer}
    block = new_block(unequal_slices[0], dtype=torch.float64)
    _, history = finetune(block, unequal_slices, **SETTINGS, **own)
    most = 0.0
    for row, (seed, one) in enumerate(zip(block.seeds, unequal_slices, strict=True)):
        twin = TorchTwin("mean", {name: weight[row] for name, weight in block.weights.items()})
        twin.words.sparse = optimizer == "rowwise_adam"
        dense = {"lr": 1e-2, "weight_decay": decay}
        if optimizer == "nadam":
            optimizers = [torch.optim.NAdam(twin.parameters(), **dense, decoupled_weight_decay=True)]
        elif optimizer == "adam":
            optimizers = [torch.optim.AdamW(twin.parameters(), **dense)]
        else:
            optimizers = [torch.optim.AdamW(twin.layer.parameters(), **dense)]
            optimizers.append(torch.optim.SparseAdam(twin.words.parameters(), lr=1e-2))
        schedules = [torch.optim.lr_scheduler.LinearLR(some, 1 / warmup, total_iters=warmup - 1) for some in optimizers]
        order, step = RealTriplets(one.train, seed), 0
        for epoch in range(1, 5):
            total = 0.0
            for triplets in order.epoch(epoch, 15):
                twin.zero_grad()
                loss = loss_of(twin, one, triplets)
                loss.backward()
                step += 1
                if optimizer == "rowwise_adam":
                    rows = twin.words.weight.grad.coalesce().indices()[0]
                    norm = torch.cat([weight.grad.to_dense().flatten() for weight in twin.parameters()]).norm()
                    for weight in twin.parameters():
                        weight.grad *= min(1, clip / (norm.item() + 1e-6))
                    with torch.no_grad():
                        twin.words.weight[rows] *= 1 - 1e-2 * min(1, step / warmup) * decay
                else:
                    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
                most = max(most, norm.item())
                for some in [*optimizers, *schedules]:
                    some.step()
                total += loss.item() * len(triplets)
            found = history.query("seed == @seed and epoch == @epoch").loss.item()
            assert found == pytest.approx(total / len(order), abs=1e-6)
    assert most > clip


@both
@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adam"])
def test_synchronous_seeds_train_as_alone(kind, optimizer, slices):
    """Of one split all seeds step together, by one call; alone each is its own block."""
    settings = SETTINGS | {"optimizer": optimizer}
    # In double precision: Adam magnifies the rounding of a gradient that is zero, as that of the mean's bias.
    together, _ = finetune(new_block(slices, kind, dtype=torch.float64), slices, **settings)
    for row in range(3):
        alone, _ = finetune(new_block(slices, kind, (row,), torch.float64), slices, **settings)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(weight[0], together.weights[name][row], rtol=1e-4, atol=1e-5)


def test_bf16_rounds_products_but_keeps_weights(slices):
    block = new_block(slices, "lstm")
    (low, found), (_, expected) = (
        finetune(block, slices, precision=precision, **SETTINGS) for precision in ("bf16", "fp32")
    )
    assert all(weight.dtype == torch.float32 for weight in low.weights.values())
    difference = (found.loss - expected.loss).abs()
    assert 0 < difference.max() < 0.02


@pytest.mark.parametrize(("has_hardware", "encoder"), [(False, "lstm"), (True, "lstm"), (True, "mean")])
def test_a_study_takes_bf16_where_it_pays(has_hardware, encoder, monkeypatch, caplog):
    resolve_precision.cache_clear()
    able = {"avx512_bf16": True, "amx_bf16": has_hardware}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=60)
    settings = SMALL | {"arms": ["scratch"], "device": "cpu", "learning_rate": 1e-2, "encoder": encoder}
    pays = has_hardware and encoder == "lstm"
    losses = {}
    for precision in ("bf16", "fp32"):
        (block,) = iter_study(rlm.StudyConfig(precision=precision, **settings), 2, data=data, n_jobs=1)
        losses[precision] = block.history.loss
    resolve_precision.cache_clear()
    assert losses["bf16"].equals(losses["fp32"]) != pays
    assert caplog.text.count("multiplied in fp32") == (not pays)


@pytest.mark.parametrize("batch_sizes", [(3,), (2, 2), (4, 4, 1), (7, 6, 4, 3, 3, 1)])
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("lower", [torch.float64, torch.bfloat16])
def test_the_recurrence_to_be_compiled_is_the_eager_one(batch_sizes, every_step, lower):
    """Values and gradients; rows may have ended before their last position."""
    generator = torch.Generator().manual_seed(0)
    words, dim, inner = sum(batch_sizes), 5, 3
    shapes = (words, inner), (4 * dim, inner), (4 * dim, dim), (4 * dim,)
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    inputs, weight_ih, weight_hh, bias = leaves
    low_ih, low_hh = weight_ih.to(lower), weight_hh.to(lower)
    is_word = torch.ones(words, dtype=torch.bool)
    is_word[words - 1] = len(batch_sizes) == 1  # of the longest row the last word is missing
    found = compiled_recurrence(inputs, low_ih, low_hh, bias, is_word, batch_sizes, every_step)
    one = (part[None] for part in (inputs, low_ih, low_hh, bias, is_word))
    expected = Recurrence.apply(*one, batch_sizes, every_step)[0][0]
    exactly = {"rtol": 1e-9, "atol": 1e-9} if lower == torch.float64 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found, expected, **exactly)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = (
        torch.autograd.grad((made * weights).sum(), leaves, materialize_grads=True) for made in (found, expected)
    )
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, **exactly | {"atol": 50 * exactly["atol"]})


def test_distinct_is_unique():
    values = np.random.default_rng(0).integers(0, 6, (4, 3, 9))
    found, places = distinct(torch.from_numpy(values), filler=99)
    np.testing.assert_array_equal(np.take_along_axis(found.numpy(), places.numpy(), -1), values)
    for row, expected in zip(found.flatten(0, 1).tolist(), values.reshape(-1, 9), strict=True):
        different = np.unique(expected).tolist()
        assert row == different + [99] * (9 - len(different))


class TestCompilation:
    def batches(self, slices):
        sources = [RealTriplets(slices.train, seed) for seed in (0, 1)]
        return list(epoch_batches(sources, PhraseTable([slices] * 2), 1, 15))

    def test_static_shapes_hold_the_sample_and_change_no_embedding(self, slices):
        batches = self.batches(slices)
        sizes = static_batch_sizes(batches)
        block = new_block(slices, "lstm", seeds=(0, 1))
        for batch in batches:
            fitted = fit(batch, sizes)
            assert fitted.batch_sizes == sizes
            assert fitted.tokens.shape[1:] == (sizes[0], len(sizes))
            found, expected = (block.embed(one.tokens, one.batch_sizes) for one in (fitted, batch))
            torch.testing.assert_close(found[:, : expected.shape[1]], expected)

    def test_a_larger_batch_does_not_fit(self, slices):
        batch = self.batches(slices)[0]
        sizes = batch.batch_sizes
        assert fit(batch, sizes) is not None
        assert fit(batch, sizes[:-1]) is None
        assert fit(batch, (*sizes[:-1], sizes[-1] - 1)) is None

    @pytest.mark.skipif(
        Version(torch.__version__) < Version("2.11"),
        reason="older PyTorch cannot compile a step: it trains without, and warns",
    )
    def test_compiled_training_is_eager_training(self):
        """In a process of its own: the checks of shapes that these tests run under cannot be compiled."""
        folder = Path(__file__).parents[1]
        run = subprocess.run(
            [sys.executable, "-W", "error:training continues without", folder / "compiled_training.py"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        differences = {name: float(value) for name, value in map(str.split, run.stdout.splitlines())}
        assert differences.keys() == ENCODERS.keys() | {"dropout"}
        assert max(differences.values()) < 1e-4

    @pytest.mark.parametrize("most_words", [2, 1000])
    def test_more_words_than_the_sample_had_and_room_for_more_change_nothing(self, most_words, slices, monkeypatch):
        monkeypatch.setattr(torch, "compile", lambda function, **_: torch.enable_grad()(function))
        monkeypatch.setattr("rlm.engine.trainer.round_up", lambda _: most_words)
        settings = SETTINGS | {"optimizer": "rowwise_adam"}
        (found, losses), (expected, own) = (
            finetune(new_block(slices, dtype=torch.float64), slices, compile=compile, **settings)
            for compile in (True, False)
        )
        np.testing.assert_allclose(losses.loss, own.loss, rtol=1e-9)
        for name, weight in found.weights.items():
            torch.testing.assert_close(weight, expected.weights[name])

    @pytest.fixture
    def no_compiler(self, monkeypatch):
        tried = []

        def compile(function, **_):
            def fail(*_):
                tried.append(function)
                raise RuntimeError("backend='inductor' raised:\nNo working C++ compiler found\nand more")

            return fail

        monkeypatch.setattr(torch, "compile", compile)
        compiling._why_not.cache_clear()
        yield tried
        compiling._why_not.cache_clear()

    def test_without_a_compiler_training_goes_on_with_one_warning(self, no_compiler, slices):
        block = new_block(slices)
        with pytest.warns(
            UserWarning, match=r"continues without compilation.*raised: No working C\+\+ compiler found$"
        ) as caught:
            found = [finetune(block, slices, compile=True, **SETTINGS)[1] for _ in range(2)]
        assert len(caught) == len(no_compiler) == 1
        _, expected = finetune(block, slices, compile=False, **SETTINGS)
        for history in found:
            np.testing.assert_allclose(history, expected, rtol=1e-5)

    def test_an_encoder_that_cannot_be_compiled_is_trained_without(self, slices, monkeypatch):
        class Refused(Exception):
            """Not a RuntimeError, as some of PyTorch's own."""

        def compile(function, **_):
            def fail(*_):
                raise Refused("cannot be traced")

            return function if function is torch.neg else fail

        monkeypatch.setattr(torch, "compile", compile)
        block = new_block(slices)
        with pytest.warns(UserWarning, match=r"which failed: cannot be traced$") as caught:
            _, found = finetune(block, slices, compile=True, **SETTINGS)
        assert len(caught) == 1
        _, expected = finetune(block, slices, compile=False, **SETTINGS)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_memory_that_runs_out_is_not_put_down_to_the_compiler(self, monkeypatch):
        def run_out():
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
        with pytest.raises(torch.OutOfMemoryError):
            compiling.try_to_compile(run_out, torch.device("cpu"))()

    def test_graphs_of_others_survive_and_those_of_other_blocks_do_not_count(self, monkeypatch):
        """PyTorch keeps eight graphs of a function; a session may train more blocks, and have graphs of its own."""
        compiled = []

        def count(graph, _):
            compiled.append(graph)
            return graph.forward

        theirs = torch.compile(lambda x: x.sin() + 1, backend=count)
        theirs(torch.zeros(3))
        compile = torch.compile
        monkeypatch.setattr(torch, "compile", lambda function, **settings: compile(function, backend=count, **settings))
        monkeypatch.setattr(compiling, "_why_not", lambda device: None)

        class Ours:
            def __init__(self, number):
                self.number = number

            def step(self, x):
                return x * self.number

        assert len(compiled) == 1
        for number in range(2, 14):
            ours = compiling.try_to_compile(Ours(number).step, torch.device("cpu"))
            assert ours(torch.ones(3)).tolist() == [number] * 3
            assert len(compiled) == number
        theirs(torch.ones(3))
        assert len(compiled) == 13

    def test_short_runs_and_long_phrases_stay_eager(self, slices):
        block = new_block(slices)
        assert not compiling.is_worth_compiling(block, 10_000, 6)
        assert compiling.is_worth_compiling(block, 6_000_000, 6)
        assert not compiling.is_worth_compiling(block, 6_000_000, 30)  # compiling takes longer
        assert compiling.is_worth_compiling(block, 10**9, 30)
        assert not compiling.is_worth_compiling(block, 10**9, 100)

    @pytest.mark.parametrize("is_there", [False, True])
    def test_passes_in_c_make_compiling_pay_for_the_shortest_phrases_alone(self, is_there, slices, monkeypatch):
        monkeypatch.setattr("rlm.engine.native.is_there", lambda: is_there)
        block = new_block(slices, "bilstm")
        assert compiling.is_worth_compiling(block, 10**9, 6)
        assert compiling.is_worth_compiling(block, 10**9, 30) != is_there


class TestStoppedSeeds:
    @pytest.mark.parametrize("optimizer", ["adam", "rowwise_adam"])
    def test_who_stops_early_leaves_without_disturbing_the_others(self, optimizer, slices):
        seeds = tuple(range(8))
        settings = SETTINGS | {"max_epochs": 12, "patience": 1, "optimizer": optimizer}
        together, history = finetune(new_block(slices, "lstm", seeds, torch.float64), slices, **settings)
        stopped = history.groupby("seed").epoch.max()
        assert len(set(stopped)) > 2  # they do leave one after the other
        for seed in seeds:
            alone, own = finetune(new_block(slices, "lstm", (seed,), torch.float64), slices, **settings)
            np.testing.assert_allclose(history[history.seed == seed].loss, own.loss, atol=1e-4)
            for name, weight in alone.weights.items():
                torch.testing.assert_close(weight[0], together.weights[name][seed], rtol=1e-3, atol=1e-4)


class TestDevices:
    def test_a_gpu_that_is_not_there_is_refused(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        data = topic_pairs(np.random.default_rng(0), topics=6, pairs=30)
        with pytest.raises(InputError, match="expected a GPU for device 'cuda', found none"):
            rlm.run_study(rlm.StudyConfig(device="cuda"), 1, data=data)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize(("kind", "compile"), list(itertools.product(["lstm", "mean"], [False, True])))
    def test_a_gpu_trains_as_the_cpu_does(self, kind, compile, slices):
        block = new_block(slices, kind)
        settings = {"epochs": 2, "random_triplets": 60, "batch_size": 15, "progress": False}
        (_, found), (_, expected) = (
            pretrain(start, slices, compile=compile, **settings) for start in (block.to("cuda"), block.to("cpu"))
        )
        np.testing.assert_allclose(found.loss, expected.loss, atol=1e-3)
