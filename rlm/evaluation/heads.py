"""Heads: learned similarities of two embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from rlm.block import Block

Pairs = Float[Tensor, "*batch dim"]
Scores = Float[Tensor, "*batch"]


class BilinearHead(nn.Module):
    """
    x'Wy: a similarity that need not be symmetrical; at first W is the identity, and the similarity the dot product.

    Parameters
    ----------
    dim
        Size of an embedding.

    References
    ----------
    Chechik, Sharma, Shalit and Bengio, "Large scale online learning of image similarity through ranking" (OASIS),
    JMLR 11, 2010, section 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.form = nn.Parameter(torch.eye(dim))

    def forward(self, first: Pairs, second: Pairs) -> Scores:
        """
        Score pairs.

        Parameters
        ----------
        first, second
            Embeddings of the anchors and of the candidates.

        Returns
        -------
        torch.Tensor
            Similarities.
        """
        return (first @ self.form * second).sum(dim=-1)


class MahalanobisHead(nn.Module):
    """
    -(x - y)'L'L(x - y): a negated squared distance; at first L is the identity, and the distance Euclid's.

    Parameters
    ----------
    dim
        Size of an embedding.

    References
    ----------
    Weinberger and Saul, "Distance metric learning for large margin nearest neighbor classification", JMLR 10, 2009,
    section 2.1, equation 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.eye(dim))

    def forward(self, first: Pairs, second: Pairs) -> Scores:
        """
        Score pairs.

        Parameters
        ----------
        first, second
            Embeddings of the anchors and of the candidates.

        Returns
        -------
        torch.Tensor
            Negated squared distances, 0 or less.
        """
        return -((first - second) @ self.map.mT).square().sum(dim=-1)


class ClassifierHead(nn.Module):
    """
    Koziev's second model: [(x - y)^2, x + y, x, y], a dense layer of half the size with ReLU, a softmax of two classes.

    Parameters
    ----------
    dim
        Size of an embedding.

    References
    ----------
    ``model2`` of Koziev's nn_relevancy_tripleloss.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * dim, max(dim // 2, 1))
        self.output = nn.Linear(max(dim // 2, 1), 2)

    def forward(self, first: Pairs, second: Pairs) -> Scores:
        """
        Score pairs.

        Parameters
        ----------
        first, second
            Embeddings of the anchors and of the candidates.

        Returns
        -------
        torch.Tensor
            Log-odds of being relevant; ``torch.sigmoid`` of them is the softmax's probability.
        """
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
    """
    Score pairs, each seed by its own head.

    Parameters
    ----------
    heads
        From `train_head`.
    first, second
        Embeddings of the anchors and of the candidates.

    Returns
    -------
    torch.Tensor
        The higher the more relevant.
    """
    return vmap(lambda weights, x, y: functional_call(heads.encoder, weights, (x, y)))(heads.weights, first, second)


def head_loss(head: nn.Module, positive: Scores, negative: Scores) -> Scores:
    """
    What a head is trained to minimise.

    Parameters
    ----------
    head
        Decides between both.
    positive, negative
        Scores of the relevant and of the irrelevant pair of triplets.

    Returns
    -------
    torch.Tensor
        One loss per triplet: of a classifier the mean cross-entropy of the two pairs, of others
        max(0, 1 - positive + negative).

    References
    ----------
    Chechik et al. 2010, section 2, equation 3; Weinberger and Saul 2009, section 3.1, equation 12, with random
    triplets instead of neighbours.
    """
    if isinstance(head, ClassifierHead):
        return (F.softplus(-positive) + F.softplus(negative)) / 2
    return (1 - positive + negative).clamp(min=0)
