"""A transformer over words, with dropout that follows from the seed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.config import MOST_TOKENS
from rlm.data.phrases import PAD
from rlm.encoder import Embeddings, Tokens, WordTable
from rlm.engine.dropout import Dropout
from rlm.engine.lstm import pack

LAYERS = 2
DROPOUT = 0.1


class TransformerEncoder(nn.Module):
    """
    Layers of self-attention over the words, whose mean goes through one linear layer: ``transformer``.

    A layer is that of ``torch.nn.TransformerEncoderLayer`` with ``norm_first=True`` (Xiong et al., "On layer
    normalization in the transformer architecture", ICML 2020) and GELU. Positions are sines. Dropout is applied to
    words, to what a layer adds, and within its feed-forward part, but not to attention weights.

    Parameters
    ----------
    vocabulary_size, word_dim, dim
        As in `LSTMEncoder`. The layers have the size of a word vector.
    layers
        Number of layers.
    dropout
        Probability of `Dropout`.
    heads
        Heads of attention, or the largest smaller number that divides `word_dim`.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, sections 3.1 to 3.5.

    Examples
    --------
    >>> import rlm, torch
    >>> encoder = rlm.zoo.TransformerEncoder(vocabulary_size=10, word_dim=8, dim=3)
    >>> encoder(torch.tensor([[5, 2], [3, 0]]), batch_sizes=[2, 1]).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        vocabulary_size: int,
        word_dim: int = 32,
        dim: int = 64,
        layers: int = LAYERS,
        dropout: float = DROPOUT,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.words = WordTable(vocabulary_size, word_dim)
        self.drop = Dropout(dropout)
        heads = next(number for number in range(heads, 0, -1) if word_dim % number == 0)
        self.layers = nn.ModuleList(_Layer(word_dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(word_dim)
        self.output = nn.Linear(word_dim, dim)

    def forward(self, tokens: Tokens, batch_sizes: Sequence[int]) -> Embeddings:
        layout = _lay_out(tokens, batch_sizes)
        sines = _sines(layout.numbers % MOST_TOKENS, self.output.in_features)
        values = self.drop(self.words(pack(tokens, batch_sizes)) + sines, layout.numbers)
        for layer in self.layers:
            values = layer(values, layout)
        values = self.norm(values)
        sums = [(F.embedding(one.places, values) * one.is_word[..., None]).sum(dim=1) for one in layout.groups]
        counts = [one.is_word.sum(dim=1, keepdim=True) for one in layout.groups]
        return self.output(torch.cat(sums) / torch.cat(counts).clamp(min=1))


class _Group(NamedTuple):
    """Phrases of like length: the place of each position in what is packed, or of any other beyond the end."""

    places: Int64[Tensor, "phrase token"]
    is_word: Bool[Tensor, "phrase token"]


class _Layout(NamedTuple):
    """How packed words belong to phrases, longest first: a number of each, groups, and its place in their positions."""

    numbers: Int64[Tensor, " packed"]
    groups: list[_Group]
    back: Int64[Tensor, " packed"]


def _lay_out(tokens: Tokens, batch_sizes: Sequence[int]) -> _Layout:
    """Group phrases, so that attention spends little on padding: each is longer than half of its group's longest."""
    phrases, positions = (torch.arange(size, device=tokens.device) for size in (len(tokens), len(batch_sizes)))
    starts = torch.tensor([0, *batch_sizes[:-1]], device=tokens.device).cumsum(0)
    most, groups, spots, first, spent, width = sum(batch_sizes) - 1, [], [], 0, 0, len(batch_sizes)
    while width:
        last = batch_sizes[width // 2] if width > 1 else len(tokens)
        rows = phrases[first:last, None]
        groups.append(_Group((rows + starts[:width]).clamp(max=most), tokens[first:last, :width] != PAD))
        spots.append(F.pad(spent + (rows - first) * width + positions[:width], (0, len(positions) - width)))
        first, spent, width = last, spent + (last - first) * width, width // 2
    numbers = pack(phrases[:, None] * MOST_TOKENS + positions, batch_sizes)
    return _Layout(numbers, groups, pack(torch.cat(spots), batch_sizes))


class _Layer(nn.Module):
    """One layer of `TransformerEncoder`, on packed words; names as in ``torch.nn.TransformerEncoderLayer``."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj, self.out_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in range(3))

    def forward(self, values: Float[Tensor, "packed dim"], layout: _Layout) -> Float[Tensor, "packed dim"]:
        projected = self.in_proj(self.norm1(values))
        attended = torch.cat([self._attend(projected, group) for group in layout.groups])
        values = values + self.dropouts[0](self.out_proj(F.embedding(layout.back, attended)), layout.numbers)
        inner = self.dropouts[1](F.gelu(self.linear1(self.norm2(values))), layout.numbers)
        return values + self.dropouts[2](self.linear2(inner), layout.numbers)

    def _attend(self, projected: Float[Tensor, "packed tripled"], group: _Group) -> Float[Tensor, "position dim"]:
        parts = F.embedding(group.places, projected).chunk(3, dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = query @ key.mT / query.shape[3] ** 0.5
        # An infinite number for padding would make phrases without words NaN.
        scores = scores.masked_fill(~group.is_word[:, None, None], torch.finfo(scores.dtype).min)
        return (scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2).flatten(0, 1)


def _sines(positions: Int64[Tensor, " packed"], dim: int) -> Float[Tensor, "packed dim"]:
    """Return the sines and cosines of positions, Vaswani et al., section 3.5."""
    channels = torch.arange(dim, device=positions.device)
    angles = positions[:, None] / 10_000 ** (channels // 2 * 2 / dim)
    return torch.where(channels % 2 == 0, angles.sin(), angles.cos())
