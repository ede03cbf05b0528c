"""Encoders: plain modules for one model, from the tokens of phrases to embeddings. `rlm.zoo` has the others."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.data.phrases import PAD, UNKNOWN
from rlm.engine.embedding_bag import SumOfRows
from rlm.engine.lstm import PackedLSTM, pack
from rlm.errors import InputError

Tokens = Int[Tensor, "phrase token"]
Embeddings = Float[Tensor, "phrase dim"]
Output = Literal["unit", "sigmoid"]
STEPS: dict[Output, Callable[[Tensor], Tensor]] = {"unit": lambda x: F.normalize(x, dim=-1), "sigmoid": torch.sigmoid}
TOLERANCE = 1e-3


class WordTable(nn.Embedding):
    """
    Word vectors, initially from N(0, 1), except for the unknown word, which starts with zeros.

    Training may have no unknown word. The test has, and would read a random vector that was never trained.

    Parameters
    ----------
    num_embeddings, embedding_dim
        As in ``torch.nn.Embedding``: rows, see `Slices.vocabulary_size`, and their size.

    Examples
    --------
    >>> WordTable(10, 4).weight[1].tolist()
    [0.0, 0.0, 0.0, 0.0]
    """

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight[UNKNOWN] = 0


class LSTMEncoder(nn.Module):
    """
    The last hidden state of an LSTM that reads the words backwards: ``lstm``.

    Its ``forward(tokens, batch_sizes)``, which every encoder has, returns one embedding per phrase. Tokens are
    ``[phrase, token]``, longest phrase first, 0 after the end. `batch_sizes` counts the phrases that may still have a
    token at each position, as in ``torch.nn.utils.rnn.PackedSequence``.

    Parameters
    ----------
    vocabulary_size
        Rows of the word-vector table, see `Slices.vocabulary_size`.
    word_dim, dim
        Sizes of a word vector and of the embedding.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; equations and initial
    values as in ``torch.nn.LSTM``. ``net_arch`` lstm of Koziev's nn_relevancy_tripleloss.

    Examples
    --------
    >>> import rlm, torch
    >>> encoder = rlm.zoo.LSTMEncoder(vocabulary_size=10, word_dim=4, dim=3)
    >>> encoder(torch.tensor([[5, 2, 7], [3, 0, 0]]), batch_sizes=[2, 1, 1]).shape
    torch.Size([2, 3])
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = WordTable(vocabulary_size, word_dim)
        self.cell = PackedLSTM(word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        packed = pack(tokens, batch_sizes)
        return self.cell(self.words(packed), packed != PAD, batch_sizes)


class MeanEncoder(nn.Module):
    """
    The mean of a phrase's word vectors, through one linear layer: ``mean``.

    Parameters
    ----------
    vocabulary_size, word_dim, dim
        As in `LSTMEncoder`.

    Examples
    --------
    >>> import rlm, torch
    >>> rlm.zoo.MeanEncoder(vocabulary_size=10, dim=3)(torch.tensor([[5, 2], [3, 0]]), batch_sizes=[2, 1]).shape
    torch.Size([2, 3])
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = WordTable(vocabulary_size, word_dim)
        self.output = nn.Linear(word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        is_word = tokens != PAD
        # Elsewhere the number of words would be another shape in every batch, or a wait for the GPU.
        if torch.compiler.is_compiling() or tokens.is_cuda:
            packed = pack(tokens, batch_sizes)
            vectors = self.words(packed) * (packed != PAD)[:, None]
            total = vectors.new_zeros(0, vectors.shape[1])
            for step in reversed(vectors.split(list(batch_sizes))):
                total = F.pad(total, (0, 0, 0, len(step) - len(total))) + step  # zeros for the rows that begin here
        else:
            rows = torch.where(is_word, tokens.long() + 1, 0)
            total = SumOfRows.apply(self.words.weight[None], rows[None])[0]
        return self.output(total / is_word.sum(dim=1, keepdim=True).clamp(min=1))


class OutputStep(nn.Module):
    """
    An encoder whose embeddings are divided by their length (``"unit"``), or whose values go to (0, 1) (``"sigmoid"``).

    The squared distance of unit vectors is 2 - 2 cos, so distances and cosines rank alike.
    """

    def __init__(self, encoder: nn.Module, output: Output) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = output

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        return STEPS[self.output](self.encoder(tokens, batch_sizes))


def check_output(embeddings: Embeddings, output: Output, loss: str) -> None:
    """Raise InputError unless embeddings are in the range of an output step, which the loss requires."""
    if output == "unit":
        what, values, low = "lengths", torch.linalg.vector_norm(embeddings, dim=1), 1
        expected, remedy = "of length 1", "torch.nn.functional.normalize(embeddings, dim=-1)"
    else:
        what, values, low = "values", embeddings, 0
        expected, remedy = "with values in [0, 1]", "torch.sigmoid(embeddings)"
    least, most = values.min().item(), values.max().item()
    if least < low - TOLERANCE or most > 1 + TOLERANCE:
        raise InputError(
            f"expected embeddings {expected} for the loss {loss}, found {what} from {least:.3g} to {most:.3g}; end the "
            f"encoder's forward with {remedy}"
        )
