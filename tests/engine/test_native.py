"""Passes in C do what PyTorch's operations do, which other tests compare with torch.nn.LSTM and torch.optim."""

import logging
import shutil

import numpy as np
import pytest
import torch
from conftest import finetune

from rlm.block import init_block
from rlm.engine import native
from rlm.engine.embedding_bag import SumOfRows
from rlm.engine.lstm import Recurrence
from rlm.engine.optimizer import BlockAdam
from rlm.errors import InputError
from rlm.zoo.encoders import ENCODERS

has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
needs_compiler = pytest.mark.skipif(not has_compiler, reason="needs a C compiler")
SEEDS, INNER, DIM = 3, 5, 19  # not a multiple of what a processor adds at once


@pytest.fixture
def without(monkeypatch):
    """Let everything run without the passes."""
    monkeypatch.setattr(native, "_library", lambda: None)


@needs_compiler
def test_they_are_there():
    """Without this, all others would compare PyTorch's operations with themselves where the file does not compile."""
    assert native.is_there()


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
    optimizers = [BlockAdam({"w": table.to(kind)}, 0.01, {"w"}, False, weight_decay=decay) for kind in KINDS]
    for present in ([0, 1, 2], [1], [1, 2], [0, 1]):
        gradient = torch.randn(SEEDS, 6, DIM, generator=generator, dtype=torch.float64)
        gradient[:, 5] = 0  # two slots that are not used have the spare row
        gradient[0, 4] = 0
        words = torch.stack([torch.randperm(11, generator=generator)[:6] for _ in range(SEEDS)])
        words[:, 5] = words[0, 4] = 11
        for optimizer, kind in zip(optimizers, KINDS, strict=True):
            optimizer.count(present)
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


@needs_compiler
def test_small_states_have_all_their_digits():
    batch_sizes = (4, 4, 1)
    drawn_for = *drawn(batch_sizes, scale=1e-4), batch_sizes, False
    found = values_and_gradients(*drawn_for, torch.float32, torch.float32)[0].double()
    expected = values_and_gradients(*drawn_for, torch.float64, torch.float64)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@needs_compiler
def test_functions_of_functions_go_without_them():
    batch_sizes = (4, 4, 1)
    leaves, is_word = drawn(batch_sizes)
    leaves = [leaf.float() for leaf in leaves]

    def total(words):
        return Recurrence.apply(words, *leaves[1:], is_word, batch_sizes, False)[0].sum()

    words = leaves[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(words), words)
    torch.testing.assert_close(torch.func.grad(total)(leaves[0]), expected)


@needs_compiler
def test_tensors_may_be_laid_out_in_any_way():
    batch_sizes = (4, 4, 1)
    leaves, is_word = drawn(batch_sizes)
    inputs, weight_ih, weight_hh, bias = (leaf.float() for leaf in leaves)
    bias, is_word = bias[:1].expand(SEEDS, -1), is_word[:1].expand(SEEDS, -1)
    gradients = []
    for contiguous in (False, True):
        words = (inputs.mT.contiguous().mT if not contiguous else inputs).requires_grad_()
        masks = [part.contiguous() if contiguous else part for part in (bias, is_word)]
        made = Recurrence.apply(words, weight_ih, weight_hh, *masks, batch_sizes, False)[0]
        slope = torch.linspace(-1, 1, made.numel()).view(made.mT.shape).mT
        gradients.append(torch.autograd.grad(made, words, slope.contiguous() if contiguous else slope)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("sizes", [[3], [1, 2], [2, 2]])
def test_batch_sizes_that_contradict_the_rows_are_refused(sizes):
    encoder = ENCODERS["lstm"](9, 4, 5)
    with pytest.raises(InputError, match="never rise and count all"):
        encoder(torch.tensor([[5, 2], [3, 0]])[:, : len(sizes)][: 2 if sizes != [2, 2] else 1], sizes)


@pytest.fixture
def compiled_anew(monkeypatch):
    """Let the passes be compiled again, by a PATH and a CC of the test."""
    monkeypatch.delenv("CC", raising=False)
    native._library.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    native._library.cache_clear()


@pytest.mark.parametrize("trouble", ["found no C compiler", "cannot compile this"])
def test_without_a_compiler_the_log_tells_so_once(trouble, compiled_anew, tmp_path, caplog):
    if trouble == "cannot compile this":
        script(tmp_path / "cc", "echo cannot compile this >&2; exit 1")
    compiled_anew.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert not native.is_there()
        assert not native.is_there()
    assert caplog.text.count("without the passes in C") == caplog.text.count(trouble) == 1


@needs_compiler
@pytest.mark.parametrize("compiler", ["knows no machine", "of two words", "broken"])
def test_compilers_may_be_others(compiler, compiled_anew, tmp_path):
    real = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    refusal = 'case "$*" in *march=native*) exit 1;; esac; ' if compiler == "knows no machine" else ""
    made = script(tmp_path / "own", "exit 1" if compiler == "broken" else f'{refusal}exec {real} "$@"')
    compiled_anew.setenv("CC", f"env {made}" if compiler == "of two words" else str(made))
    assert native.is_there()


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["in C", "by PyTorch"])
def test_sums_of_rows_are_those_of_an_embedding_bag(dtype):
    """Of one seed after the other; empty phrases sum to zero, and a row may be there twice."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(SEEDS, 6, DIM, generator=generator, dtype=dtype).requires_grad_()
    rows = torch.randint(0, 7, (SEEDS, 9, 4), generator=generator)
    rows[:, 2] = 0
    rows[:, 3] = 6
    sums = SumOfRows.apply(table, rows)
    padded = torch.nn.functional.pad(table, (0, 0, 1, 0))
    expected = torch.stack(
        [torch.nn.functional.embedding_bag(*one, mode="sum", padding_idx=0) for one in zip(rows, padded, strict=True)]
    )
    torch.testing.assert_close(sums, expected)
    weights = torch.randn(sums.shape, generator=generator, dtype=dtype)
    found, wanted = (torch.autograd.grad((made * weights).sum(), table)[0] for made in (sums, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("row", [-1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["in C", "by PyTorch"])
def test_a_row_that_a_table_lacks_is_an_error(row, dtype):
    """Not the memory behind the table, nor the row of another seed."""
    with pytest.raises(IndexError, match="expected rows from 0 to 6, found"):
        SumOfRows.apply(torch.zeros(2, 6, DIM, dtype=dtype), torch.tensor([[[0]], [[row]]]))


def test_a_word_beyond_the_vocabulary_is_an_error():
    with pytest.raises(IndexError):
        ENCODERS["mean"](10)(torch.tensor([[10]]), batch_sizes=[1])


def test_a_table_that_seeds_share_gives_each_its_own_sums():
    table = torch.randn(6, DIM, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[[1, 2], [3, 0]], [[6, 6], [0, 0]]])
    sums = torch.vmap(lambda mine: SumOfRows.apply(table[None], mine[None])[0])(rows)
    torch.testing.assert_close(sums, SumOfRows.apply(table.expand(2, -1, -1), rows))
