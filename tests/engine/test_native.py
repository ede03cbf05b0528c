"""Passes in C do what PyTorch's operations do, which other tests compare with torch.nn.LSTM and torch.optim."""

import logging
import shutil

import numpy as np
import pytest
import torch
from conftest import finetune

from rlm.block import init_block
from rlm.engine import native
from rlm.engine.lstm import Recurrence
from rlm.engine.optimizer import BlockAdam
from rlm.zoo.encoders import ENCODERS

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
SEEDS, INNER, DIM = 3, 5, 19  # not a multiple of what a processor adds at once


@pytest.fixture
def without(monkeypatch):
    """Let everything run without the passes."""
    monkeypatch.setattr(native, "_library", lambda: None)


def drawn(batch_sizes, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    words = sum(batch_sizes)
    shapes = (words, INNER), (4 * DIM, INNER), (4 * DIM, DIM), (4 * DIM,)
    leaves = [scale * torch.randn(SEEDS, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    is_word = torch.ones(SEEDS, words, dtype=torch.bool)
    is_word[1, words - 1] = len(batch_sizes) == 1  # of one seed's longest row the last word is missing
    return leaves, is_word


def values_and_gradients(leaves, is_word, batch_sizes, every_step, low, high):
    inputs, weight_ih, weight_hh, bias = (leaf.clone().requires_grad_() for leaf in leaves)
    tensors = inputs.to(high), weight_ih.to(low), weight_hh.to(low), bias.to(high)
    made = Recurrence.apply(*tensors, is_word, batch_sizes, every_step)[0]
    weights = torch.linspace(-1, 1, made.numel(), dtype=torch.float64).view(made.shape)
    return made, *torch.autograd.grad((made * weights).sum(), [inputs, weight_ih, weight_hh, bias])


@needs_compiler
@pytest.mark.parametrize("batch_sizes", [(3,), (2, 2), (4, 4, 1), (7, 6, 4, 3, 3, 1)])
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize(("low", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_an_lstm_reads_as_in_float64_without_them(batch_sizes, every_step, low, tolerance):
    drawn_for = *drawn(batch_sizes), batch_sizes, every_step
    found = values_and_gradients(*drawn_for, low, torch.float32)
    expected = values_and_gradients(*drawn_for, torch.float64, torch.float64)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


@needs_compiler
def test_each_seed_is_read_alike_alone():
    batch_sizes = (7, 6, 4, 3, 3, 1)
    leaves, is_word = drawn(batch_sizes)
    together = values_and_gradients(leaves, is_word, batch_sizes, False, torch.float32, torch.float32)[0]
    for seed in range(SEEDS):
        tensors = (leaf[seed : seed + 1].float() for leaf in leaves)
        alone = Recurrence.apply(*tensors, is_word[seed : seed + 1], batch_sizes, False)[0]
        torch.testing.assert_close(alone[0], together[seed], rtol=0, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
def test_gates_saturate_and_what_is_not_a_number_stays_in_its_row(low):
    batch_sizes = (4, 4, 1)
    leaves, is_word = drawn(batch_sizes, scale=1e4)
    made, *gradients = values_and_gradients(leaves, is_word, batch_sizes, False, low, torch.float32)
    assert made.isfinite().all()
    assert made.abs().max() <= 1
    assert all(gradient.isfinite().all() for gradient in gradients)
    leaves[0][2, 5] = torch.nan  # the second word of the second row of the last seed
    made = values_and_gradients(leaves, is_word, batch_sizes, False, low, torch.float32)[0]
    is_row = torch.zeros(SEEDS, 4, dtype=torch.bool)
    is_row[2, 1] = True
    assert torch.equal(made.isnan().any(dim=2), is_row)
    assert torch.equal(made.isnan().all(dim=2), is_row)


@needs_compiler
def test_a_backward_pass_can_be_repeated():
    batch_sizes = (4, 4, 1)
    leaves, is_word = drawn(batch_sizes)
    leaves = [leaf.float().requires_grad_() for leaf in leaves]
    made = Recurrence.apply(*leaves, is_word, batch_sizes, False)[0].sum()
    first, second = (torch.autograd.grad(made, leaves, retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@needs_compiler
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_moves_used_rows_as_in_float64_without_them(decay):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(SEEDS, 11, DIM, generator=generator, dtype=torch.float64)
    optimizers = [BlockAdam({"w": table.to(kind)}, 0.01, {"w"}, True, weight_decay=decay) for kind in KINDS]
    for _ in range(4):
        gradient = torch.randn(SEEDS, 6, DIM, generator=generator, dtype=torch.float64)
        gradient[:, 5] = 0  # two slots that are not used have the spare row
        gradient[0, 4] = 0
        words = torch.stack([torch.randperm(11, generator=generator)[:6] for _ in range(SEEDS)])
        words[:, 5] = words[0, 4] = 11
        for optimizer, kind in zip(optimizers, KINDS, strict=True):
            optimizer.count(range(SEEDS))
            rows = optimizer.find_rows("w", words)
            optimizer.step_rows("w", rows, gradient.to(kind), optimizer.row_sizes())
    found, expected = (optimizer.weights["w"].double() for optimizer in optimizers)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, table)


KINDS = torch.float32, torch.float64


@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adam"])
def test_training_is_the_same_without_them(optimizer, slices, request):
    settings = {"max_epochs": 3, "batch_size": 15, "learning_rate": 1e-2, "progress": False, "optimizer": optimizer}
    block = init_block(lambda: ENCODERS["lstm(lstm)"](slices.vocabulary_size, 4, 5), (0, 1))
    _, found = finetune(block, slices, **settings)
    request.getfixturevalue("without")
    assert not native.is_there()
    _, expected = finetune(block, slices, **settings)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)


@pytest.mark.parametrize("trouble", ["no compiler", "a compiler that fails"])
def test_without_a_compiler_the_log_tells_so_once(trouble, monkeypatch, tmp_path, caplog):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path if trouble == "a compiler that fails" else tmp_path / "nothing"))
    monkeypatch.delenv("CC", raising=False)
    native._library.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            assert not native.is_there()
            assert not native.is_there()
        assert caplog.text.count("without the passes in C") == 1
    finally:
        native._library.cache_clear()
