"""Heads: learned similarities of two embeddings, trained on the embeddings of a frozen block, each seed its own."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from rlm.block import Block, init_block, of_triplets
from rlm.engine.accuracy import embed, mean_accuracy
from rlm.engine.batches import Batch, Step, epoch_order, one_per_seed, split_batch, step_sizes
from rlm.engine.trainer import Trainer
from rlm.errors import InputError
from rlm.slicer import Slices
from rlm.training import train_to_best

Pairs = Float[Tensor, "*batch dim"]
Scores = Float[Tensor, "*batch"]


class BilinearHead(nn.Module):
    """
    Score pairs by x'Wy; W starts as the identity, and the score as the dot product.

    Chechik et al., "Large scale online learning of image similarity through ranking", JMLR 11, 2010, section 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.form = nn.Parameter(torch.eye(dim))

    def forward(self, first: Pairs, second: Pairs) -> Scores:
        return (first @ self.form * second).sum(dim=-1)


class MahalanobisHead(nn.Module):
    """
    Score pairs by -(x - y)'L'L(x - y), a negated squared distance; L starts as the identity.

    Weinberger and Saul, "Distance metric learning for large margin nearest neighbor classification", JMLR 10, 2009,
    section 2.1, equation 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.eye(dim))

    def forward(self, first: Pairs, second: Pairs) -> Scores:
        return -((first - second) @ self.map.mT).square().sum(dim=-1)


class ClassifierHead(nn.Module):
    """
    Score pairs by the log-odds of being relevant.

    ``model2`` of Koziev's nn_relevancy_tripleloss: [(x - y)^2, x + y, x, y], a dense layer of half the size with ReLU,
    a softmax of two classes.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * dim, max(dim // 2, 1))
        self.output = nn.Linear(max(dim // 2, 1), 2)

    def forward(self, first: Pairs, second: Pairs) -> Scores:
        features = torch.cat([(first - second).square(), first + second, first, second], dim=-1)
        irrelevant, relevant = self.output(self.hidden(features).relu()).unbind(dim=-1)
        return relevant - irrelevant


HEADS: dict[str, type[nn.Module]] = {
    "bilinear": BilinearHead,
    "mahalanobis": MahalanobisHead,
    "classifier": ClassifierHead,
}


def score(
    heads: Block, first: Float[Tensor, "seed pair dim"], second: Float[Tensor, "seed pair dim"]
) -> Float[Tensor, "seed pair"]:
    """Score pairs, each seed by its own head: the higher, the more relevant."""
    return vmap(lambda weights, x, y: functional_call(heads.encoder, weights, (x, y)))(heads.weights, first, second)


def head_loss(head: nn.Module, positive: Scores, negative: Scores) -> Scores:
    """
    Compute the loss of the scores of the relevant and of the irrelevant pair of triplets.

    A classifier has the mean cross-entropy of the two, others have max(0, 1 - positive + negative): Chechik et al.
    2010, section 2, equation 3; Weinberger and Saul 2009, section 3.1, equation 12, with random triplets.
    """
    if isinstance(head, ClassifierHead):
        return (F.softplus(-positive) + F.softplus(negative)) / 2
    return (1 - positive + negative).clamp(min=0)


def head_accuracy(
    heads: Block, embeddings: Float[Tensor, "seed phrase dim"], batch: Batch
) -> Float64[np.ndarray, " seed"]:
    """Compute each seed's share of triplets whose positive scores higher; a tie counts one half."""
    anchor, positive, negative = of_triplets(embeddings, batch.triplets)
    gap = score(heads, anchor, positive) - score(heads, anchor, negative)
    return mean_accuracy((gap > 0).double() + (gap == 0).double() / 2, batch)


def train_head(
    block: Block,
    slices: Slices | Sequence[Slices],
    head: str = "classifier",
    *,
    max_epochs: int = 50,
    patience: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 150,
) -> tuple[Block, pd.DataFrame]:
    """
    Train a head on the embeddings of a block, which do not change.

    Parameters
    ----------
    block, slices
        As in `rlm.evaluate`.
    head
        A name in `HEADS`.
    max_epochs, patience
        As in `rlm.finetune`.
    learning_rate
        Learning rate of Adam.
    batch_size
        Triplets per step and seed.

    Returns
    -------
    Block
        The heads, each with the weights of its best epoch, the earliest of equals.
    pandas.DataFrame
        One row per seed and epoch, 0 before the first: seed, epoch, loss, validation_accuracy (of triplets, by score).

    Raises
    ------
    InputError
        If there is no such head.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size), seeds=[0, 1])
    >>> heads, history = rlm.evaluation.train_head(block, slices, "mahalanobis", max_epochs=1)
    >>> heads.weights["map"].shape, len(history)
    (torch.Size([2, 64, 64]), 4)
    """
    if head not in HEADS:
        raise InputError(f"expected a head of {', '.join(HEADS)}, found {head!r}; choose one of them")
    mine = one_per_seed(block, slices)
    train, validation = (split_batch(block, mine, split) for split in ("train", "validation"))
    data = _HeadData(block.seeds, train, embed(block, train), validation, embed(block, validation), batch_size)
    example = data.embeddings.new_zeros(2, 3, data.embeddings.shape[2])
    start = init_block(lambda: _Scorer(HEADS[head](example.shape[2]).to(example.dtype)), block.seeds, example.cpu())
    synchronous = len(set(train.sizes)) == 1
    trainer = Trainer(start.to(block.device), learning_rate, _HeadLoss(start.encoder.head), synchronous=synchronous)
    trained, history = train_to_best(trainer, data, max_epochs=max_epochs, patience=patience, progress=False)
    return _heads_of(trained), history


class _Scorer(nn.Module):
    """A head that scores the two pairs of triplets of embeddings: relevant, irrelevant."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, embeddings: Float[Tensor, "triplet 3 dim"]) -> Float[Tensor, "triplet 2"]:
        anchor, positive, negative = embeddings.unbind(dim=1)
        return torch.stack([self.head(anchor, positive), self.head(anchor, negative)], dim=1)


def _heads_of(scorers: Block) -> Block:
    weights = {name.removeprefix("head."): weight for name, weight in scorers.weights.items()}
    return dataclasses.replace(scorers, encoder=scorers.encoder.head, weights=weights)


@dataclass(frozen=True)
class _HeadLoss:
    head: nn.Module
    needs_relevance: bool = False

    def __call__(
        self, embeddings: Tensor, targets: Tensor, weights: Tensor, relevant: Tensor | None = None
    ) -> Float[Tensor, " seed"]:
        losses = head_loss(self.head, *embeddings.unbind(dim=2))  # the two scores of `_Scorer`
        mask = weights > 0  # weights are in single precision, where losses may be in double
        return (losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class _HeadData:
    seeds: tuple[int, ...]
    train: Batch
    embeddings: Float[Tensor, "seed phrase dim"]
    validation: Batch
    unseen: Float[Tensor, "seed unseen_phrase dim"]
    batch_size: int

    def batches(self, epoch: int) -> Iterator[Step]:
        order = torch.from_numpy(epoch_order(self.seeds, self.train.sizes, epoch)).to(self.embeddings.device)
        for number, rows in enumerate(order.split(self.batch_size, dim=1)):
            triplets = self.train.triplets.gather(1, rows[..., None].expand(-1, -1, 3))
            embeddings = torch.stack(of_triplets(self.embeddings, triplets), dim=2)
            sizes = step_sizes(self.train.sizes, number * self.batch_size, self.batch_size)
            yield Step((embeddings,), triplets, self.train.mask.gather(1, rows), sizes)

    def validate(self, block: Block) -> dict[str, Float64[np.ndarray, " seed"]]:
        return {"validation_accuracy": head_accuracy(_heads_of(block), self.unseen, self.validation)}

    def keep(self, rows: Int[np.ndarray, " row"]) -> "_HeadData":
        return _HeadData(
            tuple(self.seeds[row] for row in rows),
            self.train.rows(rows),
            self.embeddings[rows],
            self.validation.rows(rows),
            self.unseen[rows],
            self.batch_size,
        )
