"""Encoders, against PyTorch's own layers reading one phrase at a time."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import rlm
from rlm.block import init_block
from rlm.encoder import OutputStep
from rlm.study import slice_for
from rlm.zoo.encoders import ENCODERS, new_encoder

WORDS = ["cat", "at", "a", "the", "cats", "мяу", "mat", "sat", "hat", "on"]
WORD_DIM, DIM = 3, 4  # an odd size, and three heads for the transformer
LENGTHS = [7, 5, 5, 3, 2, 1, 1]

every = pytest.mark.parametrize("kind", ENCODERS)


def make(kind, seed=1):
    torch.manual_seed(seed)
    return new_encoder(kind, WORDS, WORD_DIM, DIM).double()


def phrases_of(lengths, seed=0):
    """Random tokens, zeros after the end, and the batch sizes that leave out just the padding."""
    tokens = np.random.default_rng(seed).integers(1, len(WORDS) + 2, size=(len(lengths), max(lengths)))
    is_token = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return torch.from_numpy(tokens * is_token), is_token.sum(axis=0).tolist()


def run(layer, vectors, **weights):
    """A layer of PyTorch's with somebody else's weights."""
    return functional_call(layer.double(), weights, (vectors,))


def weights_of(cell, suffix):
    return {name + suffix: weight for name, weight in cell.named_parameters()}


def last_hidden(cell, vectors):
    return run(nn.LSTM(cell.input_size, cell.hidden_size), vectors, **weights_of(cell, "_l0"))[1][0][0]


def lstm(encoder, phrase):
    return last_hidden(encoder.cell, encoder.words(phrase.flip(0)))


def bilstm(encoder, phrase):
    weights = weights_of(encoder.forward_cell, "_l0") | weights_of(encoder.backward_cell, "_l0_reverse")
    forward, backward = run(nn.LSTM(WORD_DIM, DIM, bidirectional=True), encoder.words(phrase), **weights)[1][0]
    return torch.cat([backward, forward])


def stacked(encoder, phrase):
    weights = weights_of(encoder.first, "_l0") | weights_of(encoder.second, "_l1")
    return run(nn.LSTM(WORD_DIM, DIM, num_layers=2), encoder.words(phrase), **weights)[1][0][1]


def convolutional(encoder, phrase):
    states = []
    for kernel, convolution, cell in zip((1, 2, 3), encoder.convolutions, encoder.cells, strict=True):
        vectors = F.pad(encoder.words(phrase).T, (0, kernel - 1))
        found = run(nn.Conv1d(WORD_DIM, 128, kernel), vectors, **dict(convolution.named_parameters())).relu()
        pooled = nn.MaxPool1d(kernel, ceil_mode=True)(found[None])[0].T
        states.append(last_hidden(cell, pooled))
    return nn.Sequential(encoder.dense, nn.Sigmoid())(torch.cat(states))


def dssm(encoder, phrase):
    number = {}
    for word in WORDS:
        for letters in zip(f"#{word}#", f"{word}#", f"{word}#"[1:], strict=False):
            number.setdefault("".join(letters), len(number))
    counts = torch.zeros(len(number), dtype=torch.float64)
    for token in phrase.tolist():
        word = f"#{WORDS[token - 2]}#" if token > 1 else ""
        for trigram, count in Counter(word[i : i + 3] for i in range(len(word) - 2)).items():
            counts[number[trigram]] += count
    hashed = F.linear(counts, encoder.hashed.T, encoder.bias)
    return nn.Sequential(nn.Tanh(), encoder.hidden, nn.Tanh(), encoder.output, nn.Tanh())(hashed)


def mean(encoder, phrase):
    return encoder.output(encoder.words(phrase).mean(dim=0))


def transformer(encoder, phrase):
    """PyTorch's layers, with positions by complex numbers instead of sines and cosines."""
    reference = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(WORD_DIM, 3, 4 * WORD_DIM, 0.0, F.gelu, batch_first=True, norm_first=True),
        len(encoder.layers),
        encoder.norm,
        enable_nested_tensor=False,
    )
    names = {"in_proj.": "self_attn.in_proj_", "out_proj.": "self_attn.out_proj."}
    weights = {}
    for name, weight in encoder.named_parameters():
        for mine, theirs in names.items():
            name = name.replace(mine, theirs)
        weights |= {name: weight} if name.startswith(("layers", "norm")) else {}
    waves = torch.exp(1j * torch.arange(len(phrase))[:, None] / 10_000 ** (torch.arange(0, WORD_DIM, 2) / WORD_DIM))
    places = torch.stack([waves.imag, waves.real], dim=2).flatten(1)[:, :WORD_DIM]
    return encoder.output(run(reference, (encoder.words(phrase) + places)[None], **weights)[0].mean(dim=0))


REFERENCES = {
    "lstm": lstm,
    "bilstm": bilstm,
    "lstm(lstm)": stacked,
    "lstm(cnn)": convolutional,
    "transformer": transformer,
    "dssm": dssm,
    "mean": mean,
}


@every
@pytest.mark.parametrize("lengths", [LENGTHS, [1], [2, 2], [12, 4]])
def test_equals_torch_in_values_and_gradients(kind, lengths):
    encoder = make(kind)
    tokens, batch_sizes = phrases_of(lengths)
    found = encoder(tokens, batch_sizes)
    expected = torch.stack([REFERENCES[kind](encoder, phrase[phrase != 0]) for phrase in tokens])
    torch.testing.assert_close(found, expected)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=found.dtype)
    weights = list(encoder.parameters())
    gradients = [torch.autograd.grad((x * direction).sum(), weights) for x in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])


def test_order_of_words_counts_unless_they_are_summed():
    tokens, batch_sizes = phrases_of([4])
    for kind in ENCODERS:
        change = (make(kind)(tokens, batch_sizes) - make(kind)(tokens.flip(1), batch_sizes)).abs().max()
        assert change < 1e-12 if kind in ("mean", "dssm") else change > 1e-3, kind


@every
@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize("empty", [0, 2])
def test_slack_in_batch_sizes_and_empty_rows_change_nothing(kind, more, empty):
    encoder = make(kind)
    tokens, batch_sizes = phrases_of(LENGTHS)
    padded = F.pad(tokens, (0, more, 0, empty))
    slack = [len(padded), *(min(size + more, len(padded)) for size in batch_sizes[1:]), *[1] * more]
    expected, found = encoder(tokens, batch_sizes), encoder(padded, slack)
    assert found.isfinite().all()
    torch.testing.assert_close(found[: len(tokens)], expected)
    losses = [out[: len(tokens)].square().sum() for out in (found, expected)]
    gradients = [torch.autograd.grad(loss, list(encoder.parameters())) for loss in losses]
    torch.testing.assert_close(*gradients)


@every
def test_empty_phrases_alone_have_finite_values_and_gradients(kind):
    encoder = make(kind)
    found = encoder(torch.zeros(2, 3, dtype=torch.int64), [2, 2, 1])
    found.sum().backward()
    assert found.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())


@every
def test_each_seed_of_a_block_equals_its_single_model(kind):
    block = init_block(lambda: new_encoder(kind, WORDS, WORD_DIM, DIM).double(), [3, 1, 4])
    lengths = [[7, 5, 2, 2], [3, 3, 3, 0], [7, 1, 0, 0]]
    batch_sizes = [4, 4, 3, 2, 2, 1, 1]  # the most that any seed needs
    tokens = torch.zeros(3, 4, 7, dtype=torch.int64)
    for seed, mine in enumerate(lengths):
        tokens[seed, :, : max(mine)] = phrases_of(mine, seed)[0]
    weights = {name: weight.clone().requires_grad_() for name, weight in block.weights.items()}
    found = type(block)(block.encoder, block.seeds, weights).embed(tokens, batch_sizes)
    for seed, mine in enumerate(lengths):
        single = make(kind)
        single.load_state_dict({name: weight[seed] for name, weight in block.weights.items()}, strict=False)
        rows = sum(length > 0 for length in mine)
        alone, sizes = phrases_of(mine, seed)
        expected = single(alone[:rows], sizes)
        torch.testing.assert_close(found[seed, :rows], expected)
        gradients = torch.autograd.grad(found[seed, :rows].sum(), list(weights.values()), retain_graph=True)
        expected.sum().backward()
        for name, gradient in zip(weights, gradients, strict=True):
            torch.testing.assert_close(gradient[seed], single.get_parameter(name).grad)
            assert (gradient[[other for other in range(3) if other != seed]] == 0).all()


@every
def test_seeds_do_not_touch_each_other(kind):
    block = init_block(lambda: new_encoder(kind, WORDS, WORD_DIM, DIM), [0, 1, 2])
    tokens, batch_sizes = phrases_of(LENGTHS)
    tokens = tokens.expand(3, *tokens.shape)
    before = block.embed(tokens, batch_sizes)
    for weight in block.weights.values():
        weight[1] = 0
    after = block.embed(tokens, batch_sizes)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[1, 0] != before[1, 0]).any()
    assert (after[1] == after[1, 0]).all()  # nothing of a phrase is left


class TestOutput:
    @every
    def test_unit_embeddings_have_length_one(self, kind):
        encoder, bare = new_encoder(kind, WORDS, WORD_DIM, DIM, "unit").double(), make(kind)
        bare.load_state_dict(encoder.encoder.state_dict())
        phrases = phrases_of(LENGTHS)
        torch.testing.assert_close(encoder(*phrases), F.normalize(bare(*phrases), dim=1))

    @every
    def test_sigmoid_is_taken_once(self, kind):
        encoder = new_encoder(kind, WORDS, WORD_DIM, DIM, "sigmoid")
        assert isinstance(encoder, OutputStep) == (kind != "lstm(cnn)")
        found = encoder(*phrases_of(LENGTHS))
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, False), ({"encoder": "dssm"}, True), ({"encoder": "dssm", "unseen_words": "unknown"}, False)],
)
def test_words_that_training_does_not_see_are_kept_for_their_letters(settings, kept, corpus):
    config = rlm.StudyConfig(**settings)
    for one in slice_for(config, corpus, [0, 1]):
        assert (one.tokens == corpus.phrases.tokens).all() == kept


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "dssm"])
def test_the_unknown_word_starts_with_zeros_and_the_others_as_in_torch(kind):
    torch.manual_seed(5)
    expected = nn.Embedding(len(WORDS) + 2, WORD_DIM).weight
    torch.manual_seed(5)
    found = new_encoder(kind, WORDS, WORD_DIM, DIM).words.weight
    assert not found[1].any()
    rest = torch.arange(len(WORDS) + 2) != 1
    torch.testing.assert_close(found[rest], expected[rest], rtol=0, atol=0)
