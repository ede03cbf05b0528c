"""Encoders: plain modules of one model, from the tokens of phrases to their embeddings; all of them by name."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.config import StudyConfig
from rlm.data.phrases import PAD, Phrases
from rlm.data.word_vectors import read_vectors
from rlm.engine.embedding_bag import SumOfRows
from rlm.engine.packed import pack
from rlm.errors import InputError
from rlm.zoo.encoders import (
    BiLSTMEncoder,
    ConvolutionalLSTMEncoder,
    Embeddings,
    LSTMEncoder,
    StackedLSTMEncoder,
    Tokens,
)
from rlm.zoo.objective import LOSSES
from rlm.zoo.output import Output, WithOutput

HIDDEN = 300


def _totals(packed: Float[Tensor, "packed dim"], batch_sizes: Sequence[int]) -> Float[Tensor, "phrase dim"]:
    """The sum of each row's vectors."""
    total = packed.new_zeros(0, packed.shape[1])
    for step in reversed(packed.split(list(batch_sizes))):
        total = F.pad(total, (0, 0, 0, len(step) - len(total))) + step  # zeros for the rows that begin at this step
    return total


class MeanEncoder(nn.Module):
    """
    The mean of a phrase's word vectors, through one linear layer: ``mean``.

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
        packed = pack(tokens, batch_sizes)
        # Not left to `padding_idx`: under vmap it holds for the first model only.
        vectors = self.words(packed) * (packed != PAD)[:, None]
        lengths = (tokens != PAD).sum(dim=1, keepdim=True).clamp(min=1)
        return self.output(_totals(vectors, batch_sizes) / lengths)


class DSSMEncoder(nn.Module):
    """
    How often each letter trigram stands in a phrase, through three layers of tanh: ``dssm``.

    Parameters
    ----------
    trigrams
        Of each token, see `letter_trigrams`.
    dim
        Size of the embedding.

    References
    ----------
    Huang et al., "Learning deep structured semantic models for web search using clickthrough data", CIKM 2013: word
    hashing in section 3.2, layers and initial weights in sections 3.1 and 3.4.
    """

    def __init__(self, trigrams: Int64[Tensor, "token trigram"], dim: int = 128) -> None:
        super().__init__()
        self.register_buffer("trigrams", trigrams)
        # One row per trigram: a sum of rows is the product with their counts, at the cost of those that are there.
        self.hashed = nn.Parameter(torch.empty(int(trigrams.max()), HIDDEN))
        self.bias = nn.Parameter(torch.zeros(HIDDEN))
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, dim)
        for weight in (self.hashed, self.hidden.weight, self.output.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.hidden.bias, self.output.bias):
            nn.init.zeros_(bias)

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
        rows = self.trigrams[tokens.long()].flatten(1)
        if torch.compiler.is_compiling():  # how many trigrams there are would be another shape in every batch
            total = F.embedding(rows, F.pad(self.hashed, (0, 0, 1, 0))).sum(dim=1)
        else:
            total = SumOfRows.apply(self.hashed[None], rows[None])[0][0]
        hashed = torch.tanh(total + self.bias)
        return torch.tanh(self.output(torch.tanh(self.hidden(hashed))))


def letter_trigrams(words: Sequence[str]) -> Int64[Tensor, "token trigram"]:
    """
    The letter trigrams of words with their ends marked, as ``#ca``, ``cat`` and ``at#`` of "cat".

    Parameters
    ----------
    words
        Word ``i`` has token ``i + 2``, see `Phrases`.

    Returns
    -------
    torch.Tensor
        For each token the numbers of its trigrams, from 1, filled up with zeros; padding and the unknown word have
        none.

    Examples
    --------
    >>> letter_trigrams(["cat", "at"]).tolist()
    [[0, 0, 0], [0, 0, 0], [1, 2, 3], [4, 3, 0]]
    """
    number: dict[str, int] = {}
    rows: list[list[int]] = [[], []]
    for word in words:
        marked = f"#{word}#"
        trigrams = [marked[start : start + 3] for start in range(len(word))]
        rows.append([number.setdefault(trigram, len(number) + 1) for trigram in trigrams])
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


ENCODERS: dict[str, type[nn.Module]] = {
    "lstm": LSTMEncoder,
    "bilstm": BiLSTMEncoder,
    "lstm(lstm)": StackedLSTMEncoder,
    "lstm(cnn)": ConvolutionalLSTMEncoder,
    "dssm": DSSMEncoder,
    "mean": MeanEncoder,
}


def new_encoder(
    name: str,
    words: Sequence[str],
    word_dim: int = 32,
    dim: int = 64,
    output: Output | None = None,
    vectors: Float[Tensor, "token word_dim"] | None = None,
    fixed: bool = False,
) -> nn.Module:
    """
    An encoder by name, with newly drawn weights.

    Parameters
    ----------
    name
        In `ENCODERS`.
    words
        Of the corpus, see `Phrases`.
    word_dim
        Size of a word vector; DSSM has none.
    dim
        Size of the embedding.
    output
        A last step, see `rlm.zoo.output`; none where the encoder ends with it by itself.
    vectors
        Word vectors to start from, see `rlm.data.word_vectors.read_vectors`; random ones by default.
    fixed
        Leave these as they are.

    Returns
    -------
    torch.nn.Module
        One model.
    """
    if name == "dssm":
        encoder: nn.Module = DSSMEncoder(letter_trigrams(words), dim)
    else:
        encoder = ENCODERS[name](len(words) + 2, word_dim, dim)
        if vectors is not None:
            encoder.words = nn.Embedding.from_pretrained(vectors, freeze=fixed)
    return encoder if output in (None, getattr(encoder, "ends_with", None)) else WithOutput(encoder, output)


def encoder_maker(config: StudyConfig, phrases: Phrases) -> Callable[[], nn.Module]:
    """
    What makes the encoder of a study, by its config.

    Parameters
    ----------
    config
        Names the encoder, its word vectors, and the loss, whose output step it gets.
    phrases
        Of the corpus.

    Returns
    -------
    callable
        Makes one encoder, with newly drawn weights.

    Raises
    ------
    InputError
        If the word vectors cannot be read, or have another size.
    """
    output = LOSSES[config.loss].output
    make = partial(new_encoder, config.encoder, phrases.words, config.word_dim, config.dim, output)
    if config.word_vectors is None:
        return make
    vectors = torch.from_numpy(read_vectors(Path(config.word_vectors), phrases.words))
    if vectors.shape[1] != config.word_dim:
        raise InputError(
            f"expected word_dim {vectors.shape[1]}, the size of the vectors in {config.word_vectors}, found "
            f"{config.word_dim}; set it to that"
        )
    return partial(make, vectors, config.fixed_vectors)
