"""Recurrent encoders: the four of Koziev's nn_relevancy_tripleloss, without a step spent on padding."""

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.data.phrases import PAD
from rlm.engine.packed import PackedLSTM, backwards, pack

Tokens = Int[Tensor, "phrase token"]
Embeddings = Float[Tensor, "phrase dim"]
FILTERS = 128
KERNELS = (1, 2, 3)


class LSTMEncoder(nn.Module):
    """
    The last hidden state of an LSTM that reads the words backwards: ``lstm``.

    Parameters
    ----------
    vocabulary_size
        Rows of the word-vector table, see `Slices.vocabulary_size`.
    word_dim
        Size of a word vector.
    dim
        Size of the embedding.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; equations and initial
    values as in ``torch.nn.LSTM``. ``net_arch`` lstm of Koziev's nn_relevancy_tripleloss.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, word_dim)
        self.cell = PackedLSTM(word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        """
        Embed phrases.

        Parameters
        ----------
        tokens
            Token ids, zeros after the end, the longest phrase first.
        batch_sizes
            For each step, how many rows may still have a token there; falling, as in
            ``torch.nn.utils.rnn.PackedSequence``.

        Returns
        -------
        torch.Tensor
            One embedding per phrase.
        """
        packed = pack(tokens, batch_sizes)
        return self.cell(self.words(packed), packed != PAD, batch_sizes)


class BiLSTMEncoder(nn.Module):
    """
    The last hidden states of an LSTM that reads backwards and of one that reads forwards: ``bilstm``.

    Parameters
    ----------
    vocabulary_size
        Rows of the word-vector table, see `Slices.vocabulary_size`.
    word_dim
        Size of a word vector.
    dim
        Size of each state; the embedding has both, and so twice as many numbers.

    References
    ----------
    ``net_arch`` bilstm of Koziev's nn_relevancy_tripleloss, as ``torch.nn.LSTM`` computes it.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, word_dim)
        self.backward_cell = PackedLSTM(word_dim, dim)
        self.forward_cell = PackedLSTM(word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        """
        Embed phrases; see `LSTMEncoder.forward`.

        Parameters
        ----------
        tokens
            Token ids, zeros after the end, the longest phrase first.
        batch_sizes
            For each step, how many rows may still have a token there.

        Returns
        -------
        torch.Tensor
            One embedding per phrase, the backward state first.
        """
        lengths = (tokens != PAD).sum(dim=1, keepdim=True)
        states = []
        for cell, order in ((self.backward_cell, tokens), (self.forward_cell, backwards(tokens, lengths))):
            packed = pack(order, batch_sizes)
            states.append(cell(self.words(packed), packed != PAD, batch_sizes))
        return torch.cat(states, dim=1)


class StackedLSTMEncoder(nn.Module):
    """
    The last hidden state of an LSTM that reads the hidden states of another, both forwards: ``lstm(lstm)``.

    Parameters
    ----------
    vocabulary_size
        Rows of the word-vector table, see `Slices.vocabulary_size`.
    word_dim
        Size of a word vector.
    dim
        Size of both states, and of the embedding.

    References
    ----------
    ``net_arch`` lstm(lstm) of Koziev's nn_relevancy_tripleloss, as ``torch.nn.LSTM`` of two layers computes it.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, word_dim)
        self.first = PackedLSTM(word_dim, dim)
        self.second = PackedLSTM(dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        """
        Embed phrases; see `LSTMEncoder.forward`.

        Parameters
        ----------
        tokens
            Token ids, zeros after the end, the longest phrase first.
        batch_sizes
            For each step, how many rows may still have a token there.

        Returns
        -------
        torch.Tensor
            One embedding per phrase.
        """
        packed = pack(backwards(tokens, (tokens != PAD).sum(dim=1, keepdim=True)), batch_sizes)
        is_word = packed != PAD
        return self.second(self.first(self.words(packed), is_word, batch_sizes, every_step=True), is_word, batch_sizes)


class ConvolutionalLSTMEncoder(nn.Module):
    """
    Convolutions of one, two and three words, each pooled and read forwards by an LSTM of its own: ``lstm(cnn)``.

    A window begins at every word; beyond the end of a phrase it sees zeros, which is Koziev's padding on the right.
    The maximum is taken over as many windows as the kernel is wide, over fewer at the end. Of windows that begin
    beyond the end, of which Koziev's longest phrase decides how many there are, nothing depends.

    Parameters
    ----------
    vocabulary_size
        Rows of the word-vector table, see `Slices.vocabulary_size`.
    word_dim
        Size of a word vector; an LSTM's state has twice as many numbers.
    dim
        Size of the embedding, of which each value is in (0, 1).

    References
    ----------
    ``net_arch`` lstm(cnn) of Koziev's nn_relevancy_tripleloss.
    """

    ends_with = "sigmoid"

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, word_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(word_dim, FILTERS, kernel) for kernel in KERNELS)
        self.cells = nn.ModuleList(PackedLSTM(FILTERS, 2 * word_dim) for _ in KERNELS)
        self.dense = nn.Linear(len(KERNELS) * 2 * word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        """
        Embed phrases; see `LSTMEncoder.forward`.

        Parameters
        ----------
        tokens
            Token ids, zeros after the end, the longest phrase first.
        batch_sizes
            For each step, how many rows may still have a token there.

        Returns
        -------
        torch.Tensor
            One embedding per phrase.
        """
        vectors = self.words(tokens) * (tokens != PAD)[..., None]
        lengths = (tokens != PAD).sum(dim=1, keepdim=True)
        is_word = (pack(tokens, batch_sizes) != PAD)[:, None]
        states = []
        for kernel, convolution, cell in zip(KERNELS, self.convolutions, self.cells, strict=True):
            windows = pack(F.pad(vectors, (0, 0, 0, kernel - 1)).unfold(1, kernel, 1), batch_sizes).flatten(1)
            found = F.linear(windows, convolution.weight.flatten(1), convolution.bias).relu() * is_word
            pooled, sizes = _pool(found, batch_sizes, kernel)
            pools = (lengths + kernel - 1) // kernel
            steps = torch.arange(len(sizes), device=tokens.device)
            # Where, in what is pooled, a row's last pool stands, then the one before it.
            starts = torch.tensor([0, *sizes[:-1]], device=tokens.device).cumsum(0)
            rows = torch.arange(len(tokens), device=tokens.device)[:, None]
            places = (starts[(pools - 1 - steps) % len(sizes)] + rows).clamp(max=len(pooled) - 1)
            states.append(cell(F.embedding(pack(places, sizes), pooled), pack(steps < pools, sizes), sizes))
        return torch.sigmoid(self.dense(torch.cat(states, dim=1)))


def _pool(
    packed: Float[Tensor, "packed filter"], batch_sizes: Sequence[int], width: int
) -> tuple[Float[Tensor, "pooled filter"], Sequence[int]]:
    """The maximum of so many positions at a time, of what is never below 0, so that zeros stand for no position."""
    steps, sizes = packed.split(list(batch_sizes)), batch_sizes[::width]
    pooled = []
    for number, rows in enumerate(sizes):
        group = [F.pad(step, (0, 0, 0, rows - len(step))) for step in steps[number * width : (number + 1) * width]]
        pooled.append(reduce(torch.maximum, group))
    return torch.cat(pooled), sizes
