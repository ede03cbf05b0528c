"""The losses of single triplets; `rlm.zoo.losses` has those of whole batches, and all of them by name."""

import torch
from jaxtyping import Float
from torch import Tensor

Vectors = Float[Tensor, "*batch dim"]
Losses = Float[Tensor, "*batch"]


def squared_distance(first: Vectors, second: Vectors) -> Losses:
    """Return the squared Euclidean distance along the last dimension."""
    return (first - second).square().sum(dim=-1)


def triplet_loss(anchor: Vectors, positive: Vectors, negative: Vectors, margin: float | int = 0.5) -> Losses:
    """
    Compute max(0, d(anchor, positive) - d(anchor, negative) + margin), d the squared Euclidean distance.

    An encoder that maps every phrase to one point has a loss of exactly the margin.

    Parameters
    ----------
    anchor, positive, negative
        Embeddings ``[*batch, dim]``.
    margin
        How much farther away the negative has to be, in squared distance; above 0.

    Returns
    -------
    torch.Tensor
        One loss per triplet ``[*batch]``, 0 or more.

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015, section 3.1, equation 3, without the normalisation;
    ``triplet_loss`` of Koziev's nn_relevancy_tripleloss.

    Examples
    --------
    >>> import rlm, torch
    >>> anchor, positive, negative = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    >>> rlm.triplet_loss(anchor, positive, negative), rlm.triplet_loss(anchor, negative, positive, margin=0.5)
    (tensor(0.), tensor(3.5000))
    """
    return (squared_distance(anchor, positive) - squared_distance(anchor, negative) + margin).clamp(min=0)


def cosine_triplet_loss(anchor: Vectors, positive: Vectors, negative: Vectors, margin: float | int = 0.5) -> Losses:
    """
    Compute max(0, s(anchor, negative) - s(anchor, positive) + margin), s the dot product: the cosine of unit vectors.

    ``triplet_loss2`` of Koziev's nn_relevancy_tripleloss ("triplet_loss with a cos metric"), which does not normalise.
    """
    return ((anchor * negative).sum(dim=-1) - (anchor * positive).sum(dim=-1) + margin).clamp(min=0)


def lossless_triplet_loss(anchor: Vectors, positive: Vectors, negative: Vectors, epsilon: float = 1e-8) -> Losses:
    """
    Compute -ln(1 - d(anchor, positive) / N + eps) - ln(1 - (N - d(anchor, negative)) / N + eps), values in [0, 1].

    N dimensions bound the squared distance d. Unlike the hinge, it never stops pulling and pushing. Arsenault,
    "Lossless triplet loss", 2018, with beta = N; ``lossless_triplet_loss`` of Koziev's nn_relevancy_tripleloss.
    """
    dim = anchor.shape[-1]
    # In this order, because 1 + 1e-8 is 1 in single precision.
    near = -(squared_distance(anchor, positive) / dim) + 1 + epsilon
    far = -((dim - squared_distance(anchor, negative)) / dim) + 1 + epsilon
    return -near.log() - far.log()


def contrastive_loss(anchor: Vectors, positive: Vectors, negative: Vectors, margin: float | int = 1.0) -> Losses:
    """
    Compute the mean of d(anchor, positive)^2 / 2 and max(0, margin - d(anchor, negative))^2 / 2, d Euclidean.

    A triplet counts as two pairs to be classified. Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an
    invariant mapping", CVPR 2006, section 2.1, equation 4.
    """
    distance = torch.linalg.vector_norm(anchor - negative, dim=-1)  # has a gradient of 0 at 0, where a root has none
    return (squared_distance(anchor, positive) + (margin - distance).clamp(min=0).square()) / 4


def cosine_regression_loss(first: Vectors, second: Vectors, target: Losses | float | int) -> Losses:
    """
    Compute the squared error of the cosine of a pair of unit vectors against its graded similarity in [-1, 1].

    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3, regression objective function.
    """
    return ((first * second).sum(dim=-1) - target).square()


def triplet_regression_loss(anchor: Vectors, positive: Vectors, negative: Vectors) -> Losses:
    """Compute the mean `cosine_regression_loss` of a triplet's two pairs, with targets 1 and 0."""
    return (cosine_regression_loss(anchor, positive, 1) + cosine_regression_loss(anchor, negative, 0)) / 2
