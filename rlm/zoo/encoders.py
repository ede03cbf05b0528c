"""The other encoders: three of Koziev's nn_relevancy_tripleloss and DSSM; all encoders by name."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.config import EncoderName, Initialisation
from rlm.data.phrases import PAD, Phrases
from rlm.encoder import Embeddings, LSTMEncoder, MeanEncoder, Output, OutputStep, Tokens, WordTable
from rlm.engine.embedding_bag import SumOfRows
from rlm.engine.lstm import PackedLSTM, pack, reverse
from rlm.zoo.transformer import TransformerEncoder

FILTERS = 128
KERNELS = (1, 2, 3)
HIDDEN = 300


class BiLSTMEncoder(nn.Module):
    """
    The last states of a backward and a forward LSTM, which make an embedding of twice `dim`: ``bilstm``.

    ``net_arch`` bilstm of Koziev's nn_relevancy_tripleloss, as ``torch.nn.LSTM`` computes it.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = WordTable(vocabulary_size, word_dim)
        self.backward_cell = PackedLSTM(word_dim, dim)
        self.forward_cell = PackedLSTM(word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        lengths = (tokens != PAD).sum(dim=1, keepdim=True)
        states = []
        for cell, order in ((self.backward_cell, tokens), (self.forward_cell, reverse(tokens, lengths))):
            packed = pack(order, batch_sizes)
            states.append(cell(self.words(packed), packed != PAD, batch_sizes))
        return torch.cat(states, dim=1)


class StackedLSTMEncoder(nn.Module):
    """
    The last hidden state of an LSTM that reads the hidden states of another, both forwards: ``lstm(lstm)``.

    ``net_arch`` lstm(lstm) of Koziev's nn_relevancy_tripleloss, as ``torch.nn.LSTM`` of two layers computes it.
    """

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = WordTable(vocabulary_size, word_dim)
        self.first = PackedLSTM(word_dim, dim)
        self.second = PackedLSTM(dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        packed = pack(reverse(tokens, (tokens != PAD).sum(dim=1, keepdim=True)), batch_sizes)
        is_word = packed != PAD
        return self.second(self.first(self.words(packed), is_word, batch_sizes, every_step=True), is_word, batch_sizes)


class ConvolutionalLSTMEncoder(nn.Module):
    """
    Convolutions of one, two and three words, each pooled and read forwards by its own LSTM: ``lstm(cnn)``.

    A window begins at every word; beyond the end of a phrase it sees zeros, which is Koziev's padding on the right.
    The maximum is taken over as many windows as the kernel is wide, over fewer at the end. Windows that begin beyond
    the end, whose number depends on Koziev's longest phrase, have no influence. Values are in (0, 1).

    ``net_arch`` lstm(cnn) of Koziev's nn_relevancy_tripleloss.
    """

    ends_with = "sigmoid"

    def __init__(self, vocabulary_size: int, word_dim: int = 32, dim: int = 64) -> None:
        super().__init__()
        self.words = WordTable(vocabulary_size, word_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(word_dim, FILTERS, kernel) for kernel in KERNELS)
        self.cells = nn.ModuleList(PackedLSTM(FILTERS, 2 * word_dim) for _ in KERNELS)
        self.dense = nn.Linear(len(KERNELS) * 2 * word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
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
            # The place, in `pooled`, of a row's last pool, then of the one before it.
            starts = torch.tensor([0, *sizes[:-1]], device=tokens.device).cumsum(0)
            rows = torch.arange(len(tokens), device=tokens.device)[:, None]
            places = (starts[(pools - 1 - steps) % len(sizes)] + rows).clamp(max=len(pooled) - 1)
            states.append(cell(F.embedding(pack(places, sizes), pooled), pack(steps < pools, sizes), sizes))
        return torch.sigmoid(self.dense(torch.cat(states, dim=1)))


def _pool(
    packed: Float[Tensor, "packed filter"], batch_sizes: Sequence[int], width: int
) -> tuple[Float[Tensor, "pooled filter"], Sequence[int]]:
    """Return the maximum of each `width` positions; values are never below 0, so that zeros can pad the rows."""
    steps, sizes = packed.split(list(batch_sizes)), batch_sizes[::width]
    pooled = []
    for number, rows in enumerate(sizes):
        group = [F.pad(step, (0, 0, 0, rows - len(step))) for step in steps[number * width : (number + 1) * width]]
        pooled.append(reduce(torch.maximum, group))
    return torch.cat(pooled), sizes


class DSSMEncoder(nn.Module):
    """
    Counts of the letter trigrams of a phrase (see `letter_trigrams`), through three layers of tanh: ``dssm``.

    Huang et al., "Learning deep structured semantic models for web search using clickthrough data", CIKM 2013: word
    hashing in section 3.2, layers and initial weights in sections 3.1 and 3.4.
    """

    def __init__(self, trigrams: Int64[Tensor, "token trigram"], dim: int = 128) -> None:
        super().__init__()
        self.register_buffer("trigrams", trigrams)
        # One row per trigram: a sum of rows is the product with their counts, without the cost of the zeros.
        self.hashed = nn.Parameter(torch.empty(int(trigrams.max()), HIDDEN))
        self.bias = nn.Parameter(torch.zeros(HIDDEN))
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, dim)
        for weight in (self.hashed, self.hidden.weight, self.output.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.hidden.bias, self.output.bias):
            nn.init.zeros_(bias)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        rows = self.trigrams[tokens.long()].flatten(1)
        if torch.compiler.is_compiling():  # the number of trigrams would be another shape in every batch
            total = F.embedding(rows, F.pad(self.hashed, (0, 0, 1, 0))).sum(dim=1)
        else:
            total = SumOfRows.apply(self.hashed[None], rows[None])[0]
        hashed = torch.tanh(total + self.bias)
        return torch.tanh(self.output(torch.tanh(self.hidden(hashed))))


def letter_trigrams(words: Sequence[str]) -> Int64[Tensor, "token trigram"]:
    """
    Number the letter trigrams of words with marked ends, as ``#ca``, ``cat`` and ``at#`` of "cat", by token, from 1.

    >>> letter_trigrams(["cat", "at"]).tolist()  # padding, the unknown word, cat, at
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


class FrozenEncoder(nn.Module):
    """
    Vectors of whole phrases that never change, such as those of a sentence encoder, through one trained linear layer.

    It recognises a phrase by its tokens, so a study takes ``unseen_words="kept"`` and masked padding. The vector of a
    phrase that it does not know is NaN, and its seed diverges.

    Parameters
    ----------
    phrases
        All phrases, see `rlm.index_corpus`.
    vectors
        A vector per phrase, ``[phrase, number]``.
    dim
        Size of the embedding.

    Examples
    --------
    >>> import numpy as np, rlm, torch
    >>> phrases = rlm.index_corpus(rlm.load("chatterbot-english")).phrases
    >>> encoder = rlm.zoo.FrozenEncoder(phrases, np.ones((len(phrases), 5)), dim=3)
    >>> encoder(torch.from_numpy(phrases.tokens[:2]), batch_sizes=[2]).shape
    torch.Size([2, 3])
    """

    def __init__(self, phrases: Phrases, vectors: Float[np.ndarray, "phrase number"], dim: int = 64) -> None:
        super().__init__()
        tokens = torch.from_numpy(phrases.tokens).long()  # the last phrase is the empty one
        factors = torch.from_numpy(np.random.default_rng(0).integers(2**62, size=tokens.shape[1]))
        keys, order = (tokens * factors).sum(dim=1).sort()
        known = np.vstack([vectors, np.zeros_like(vectors[:1])]).astype(np.float32)
        self.register_buffer("factors", factors)
        self.register_buffer("keys", keys)
        self.register_buffer("vectors", torch.from_numpy(known)[order])
        self.output = nn.Linear(known.shape[1], dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        key = (tokens.long() * self.factors[: tokens.shape[1]]).sum(dim=1)
        place = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        is_known = (self.keys[place] == key)[:, None]
        return self.output(torch.where(is_known, self.vectors[place], torch.nan))


ENCODERS: dict[EncoderName, type[nn.Module]] = {
    "lstm": LSTMEncoder,
    "bilstm": BiLSTMEncoder,
    "lstm(lstm)": StackedLSTMEncoder,
    "lstm(cnn)": ConvolutionalLSTMEncoder,
    "transformer": TransformerEncoder,
    "dssm": DSSMEncoder,
    "mean": MeanEncoder,
}


def new_encoder(
    name: EncoderName,
    words: Sequence[str],
    word_dim: int = 32,
    dim: int = 64,
    output: Output | None = None,
    vectors: Float[Tensor, "token word_dim"] | None = None,
    fixed: bool = False,
    initialisation: Initialisation = "torch",
    **own: float | int | None,
) -> nn.Module:
    """
    Make an encoder by name, with newly drawn weights; word ``i`` of `words` has token ``i + 2``.

    `output` is a last step, unless the encoder already ends with it. It may start from word vectors, which stay as they
    are if `fixed`. `own` are settings that only this encoder has; None is its default.
    """
    if name == "dssm":
        encoder: nn.Module = DSSMEncoder(letter_trigrams(words), dim)
    else:
        given = {setting: value for setting, value in own.items() if value is not None}
        encoder = ENCODERS[name](len(words) + 2, word_dim, dim, **given)
        if vectors is not None:
            encoder.words = nn.Embedding.from_pretrained(vectors, freeze=fixed)
    if initialisation == "keras":
        initialise_as_keras(encoder)
    return encoder if output in (None, getattr(encoder, "ends_with", None)) else OutputStep(encoder, output)


def initialise_as_keras(encoder: nn.Module) -> None:
    """
    Draw initial weights of LSTMs, convolutions and linear layers as Keras does by default.

    Kernels are Glorot uniform (Glorot and Bengio, AISTATS 2010, equation 16), recurrent ones orthogonal (Saxe et al.,
    ICLR 2014), biases 0, those of the forget gate 1 (Jozefowicz et al., ICML 2015). Keras has one vector of biases.
    PyTorch has two, whose sum would learn twice as fast, so that the other one stays 0.
    """
    for module in encoder.modules():
        if isinstance(module, PackedLSTM):
            nn.init.xavier_uniform_(module.weight_ih)
            nn.init.orthogonal_(module.weight_hh)
            nn.init.zeros_(module.bias_ih)
            nn.init.ones_(module.bias_ih.data[module.hidden_size : 2 * module.hidden_size])
            nn.init.zeros_(module.bias_hh.requires_grad_(False))
        elif isinstance(module, nn.Linear | nn.Conv1d):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
