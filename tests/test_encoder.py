"""Encoders, against PyTorch's own layers reading one phrase at a time."""

import numpy as np
import pytest
import torch

from rlm.block import init_block
from rlm.encoder import ENCODERS

VOCABULARY, WORD_DIM, DIM = 12, 3, 4
LENGTHS = [7, 5, 5, 3, 1, 1]

both = pytest.mark.parametrize("kind", ENCODERS)


def make(kind):
    torch.manual_seed(1)
    return ENCODERS[kind](VOCABULARY, WORD_DIM, DIM).double()


def phrases_of(lengths, seed=0):
    """Random tokens, zeros after the end, and the batch sizes that leave out just the padding."""
    tokens = np.random.default_rng(seed).integers(1, VOCABULARY, size=(len(lengths), max(lengths)))
    is_token = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return torch.from_numpy(tokens * is_token), is_token.sum(axis=0).tolist()


@both
def test_equals_torch_in_values_and_gradients(kind, torch_twin):
    encoder = make(kind)
    twin = torch_twin(kind, dict(encoder.named_parameters()))
    tokens, batch_sizes = phrases_of(LENGTHS)
    found = encoder(tokens, batch_sizes)
    expected = torch.cat([twin(phrase[None]) for phrase in tokens])
    torch.testing.assert_close(found, expected)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=found.dtype)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, weight in twin.weights().items():
        torch.testing.assert_close(encoder.get_parameter(name).grad, weight.grad)


def test_order_of_words_counts_for_lstm_only():
    tokens, batch_sizes = phrases_of([4])
    change = {kind: make(kind)(tokens, batch_sizes) - make(kind)(tokens.flip(1), batch_sizes) for kind in ENCODERS}
    assert change["lstm"].abs().max() > 1e-3
    assert change["mean"].abs().max() < 1e-12


@both
@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize("empty", [0, 2])
def test_slack_in_batch_sizes_and_empty_rows_change_nothing(kind, more, empty):
    encoder = make(kind)
    tokens, batch_sizes = phrases_of(LENGTHS)
    padded = torch.cat([tokens, tokens.new_zeros(empty, tokens.shape[1])])
    slack = [len(padded), *(min(size + more, len(padded)) for size in batch_sizes[1:])]
    expected, found = encoder(tokens, batch_sizes), encoder(padded, slack)
    assert found.isfinite().all()
    torch.testing.assert_close(found[: len(tokens)], expected)
    losses = [out[: len(tokens)].square().sum() for out in (found, expected)]
    gradients = [torch.autograd.grad(loss, encoder.words.weight)[0] for loss in losses]
    torch.testing.assert_close(*gradients)
    assert (gradients[0][0] == 0).all()


@both
def test_empty_phrases_alone_have_finite_values_and_gradients(kind):
    encoder = make(kind)
    found = encoder(torch.zeros(2, 3, dtype=torch.int64), [2, 2, 1])
    found.sum().backward()
    assert found.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())


@both
def test_each_seed_of_a_block_equals_its_single_model(kind):
    block = init_block(lambda: ENCODERS[kind](VOCABULARY, WORD_DIM, DIM).double(), [3, 1, 4])
    lengths = [[7, 5, 2, 2], [3, 3, 3, 0], [7, 1, 0, 0]]
    batch_sizes = [4, 4, 3, 2, 2, 1, 1]  # the most that any seed needs
    tokens = torch.zeros(3, 4, 7, dtype=torch.int64)
    for seed, mine in enumerate(lengths):
        tokens[seed, :, : max(mine)] = phrases_of(mine, seed)[0]
    found = block.embed(tokens, batch_sizes)
    for seed, mine in enumerate(lengths):
        single = ENCODERS[kind](VOCABULARY, WORD_DIM, DIM).double()
        single.load_state_dict({name: weight[seed] for name, weight in block.weights.items()})
        rows = sum(length > 0 for length in mine)
        alone, sizes = phrases_of(mine, seed)
        torch.testing.assert_close(found[seed, :rows], single(alone[:rows], sizes))


@both
def test_seeds_do_not_touch_each_other(kind):
    block = init_block(lambda: ENCODERS[kind](VOCABULARY, WORD_DIM, DIM), [0, 1, 2])
    tokens, batch_sizes = phrases_of(LENGTHS)
    tokens = tokens.expand(3, *tokens.shape)
    before = block.embed(tokens, batch_sizes)
    for weight in block.weights.values():
        weight[1] = 0
    after = block.embed(tokens, batch_sizes)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] == 0).all()
    assert (before[1] != 0).all()
