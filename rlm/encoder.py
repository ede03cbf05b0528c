"""Encoders: plain modules of one model, from the tokens of phrases to their embeddings."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.lstm import Recurrence
from rlm.phrases import PAD

Tokens = Int[Tensor, "phrase token"]
Embeddings = Float[Tensor, "phrase dim"]


def _columns(tokens: Tokens, batch_sizes: Sequence[int]) -> Int[Tensor, " packed"]:
    """The tokens of all steps, one step after the other, without the padding that `batch_sizes` excludes."""
    return torch.cat([tokens[:rows, step] for step, rows in enumerate(batch_sizes)])


def _grow(state: Float[Tensor, "begun dim"], rows: int) -> Float[Tensor, "rows dim"]:
    """Zero state for the rows that begin at this step."""
    return F.pad(state, (0, 0, 0, rows - len(state)))


class LSTMEncoder(nn.Module):
    """
    The last hidden state of an LSTM that reads the words backwards, as Koziev's nn_relevancy_tripleloss does.

    It equals ``torch.nn.LSTM``, which ``torch.func.vmap`` cannot batch; see `rlm.lstm`.

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
    values as in ``torch.nn.LSTM``.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, word_dim)
        self.cell = nn.LSTMCell(word_dim, dim)

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
        packed = _columns(tokens, batch_sizes)
        cell = self.cell
        weights = cell.weight_ih, cell.weight_hh
        if torch.is_autocast_enabled(tokens.device.type):
            lower = torch.get_autocast_dtype(tokens.device.type)
            weights = tuple(weight.to(lower) for weight in weights)
        bias = cell.bias_ih + cell.bias_hh
        if torch.compiler.is_compiling():  # the compiler fuses the steps, and their backward pass, by itself
            return _recurrence(self.words(packed), *weights, bias, packed != PAD, tuple(batch_sizes))
        # The recurrence takes seeds first; one model is one of them.
        arguments = self.words(packed), *weights, bias, packed != PAD
        hidden, *_ = Recurrence.apply(*(argument[None] for argument in arguments), tuple(batch_sizes))
        return hidden[0]


def _recurrence(
    inputs: Float[Tensor, "packed word_dim"],
    weight_ih: Float[Tensor, "gates word_dim"],
    weight_hh: Float[Tensor, "gates dim"],
    bias: Float[Tensor, " gates"],
    is_word: Bool[Tensor, " packed"],
    batch_sizes: Sequence[int],
) -> Embeddings:
    """`rlm.lstm.Recurrence` of one model, in as few words as possible."""
    dim = weight_hh.shape[1]
    steps = F.linear(inputs, weight_ih, bias.to(weight_ih.dtype)).to(bias.dtype).split(list(batch_sizes))
    hidden = state = bias.new_zeros(0, dim)
    for step, open_ in zip(reversed(steps), reversed(is_word[:, None].split(list(batch_sizes))), strict=True):
        rows = len(hidden)
        i, _, g, o = step[rows:].chunk(4, dim=1)  # the rows that begin have no state to forget
        new_state = torch.where(open_[rows:], i.sigmoid() * g.tanh(), 0)
        new_hidden = o.sigmoid() * new_state.tanh()
        if rows:
            i, f, g, o = (step[:rows] + F.linear(hidden.to(weight_hh.dtype), weight_hh)).chunk(4, dim=1)
            state = f.sigmoid() * state + torch.where(open_[:rows], i.sigmoid() * g.tanh(), 0)
            hidden = o.sigmoid() * state.tanh()
        hidden, state = torch.cat([hidden, new_hidden]), torch.cat([state, new_state])
    return hidden


class MeanEncoder(nn.Module):
    """
    The mean of a phrase's word vectors, through one linear layer.

    Parameters
    ----------
    vocabulary_size
        Rows of the word-vector table, see `Slices.vocabulary_size`.
    word_dim
        Size of a word vector.
    dim
        Size of the embedding.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, word_dim)
        self.output = nn.Linear(word_dim, dim)

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
        packed = _columns(tokens, batch_sizes)
        # Not left to `padding_idx`: under vmap it holds for the first model only.
        vectors = self.words(packed) * (packed != PAD)[:, None]
        total = vectors.new_zeros(0, vectors.shape[1])
        for step in reversed(vectors.split(list(batch_sizes))):
            total = _grow(total, len(step)) + step
        lengths = (tokens != PAD).sum(dim=1, keepdim=True).clamp(min=1)
        return self.output(total / lengths)


ENCODERS: dict[str, type[nn.Module]] = {"lstm": LSTMEncoder, "mean": MeanEncoder}
