"""Losses of single triplets and pairs; `rlm.zoo.objective` makes them what a block of seeds is trained on."""

import torch
from jaxtyping import Float
from torch import Tensor


def squared_distance(
    first: Float[Tensor, "*batch dim"], second: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch"]:
    """
    Squared Euclidean distance along the last dimension.

    Parameters
    ----------
    first, second
        Embeddings.

    Returns
    -------
    torch.Tensor
        Distances, 0 or more.
    """
    return (first - second).square().sum(dim=-1)


def triplet_loss(
    anchor: Float[Tensor, "*batch dim"],
    positive: Float[Tensor, "*batch dim"],
    negative: Float[Tensor, "*batch dim"],
    margin: float | int = 0.5,
) -> Float[Tensor, "*batch"]:
    """
    max(0, d(anchor, positive) - d(anchor, negative) + margin), d the squared Euclidean distance.

    An encoder that maps every phrase to one point has a loss of exactly the margin.

    Parameters
    ----------
    anchor, positive, negative
        Embeddings.
    margin
        By how much the negative has to be farther away; in squared distance.

    Returns
    -------
    torch.Tensor
        One loss per triplet.

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015, section 3.1, equation 3; here without their
    normalisation of the embeddings. ``triplet_loss`` of Koziev's nn_relevancy_tripleloss.
    """
    return (squared_distance(anchor, positive) - squared_distance(anchor, negative) + margin).clamp(min=0)


def cosine_triplet_loss(
    anchor: Float[Tensor, "*batch dim"],
    positive: Float[Tensor, "*batch dim"],
    negative: Float[Tensor, "*batch dim"],
    margin: float | int = 0.5,
) -> Float[Tensor, "*batch"]:
    """
    max(0, s(anchor, negative) - s(anchor, positive) + margin), s the dot product: the cosine of unit vectors.

    Parameters
    ----------
    anchor, positive, negative
        Embeddings of length 1; of others the formula is Koziev's all the same, but no cosine.
    margin
        By how much the positive has to be more similar, of at most 2.

    Returns
    -------
    torch.Tensor
        One loss per triplet.

    References
    ----------
    ``triplet_loss2`` of Koziev's nn_relevancy_tripleloss ("triplet_loss with a cos metric"), which leaves the
    lengths as they come.
    """
    return ((anchor * negative).sum(dim=-1) - (anchor * positive).sum(dim=-1) + margin).clamp(min=0)


def lossless_triplet_loss(
    anchor: Float[Tensor, "*batch dim"],
    positive: Float[Tensor, "*batch dim"],
    negative: Float[Tensor, "*batch dim"],
    epsilon: float = 1e-8,
) -> Float[Tensor, "*batch"]:
    """
    -ln(1 - d(anchor, positive) / N + eps) - ln(1 - (N - d(anchor, negative)) / N + eps).

    N is the number of dimensions, the largest squared distance d in the unit cube. Unlike the hinge it never stops
    pulling and pushing.

    Parameters
    ----------
    anchor, positive, negative
        Embeddings with values in [0, 1].
    epsilon
        Keeps the logarithms finite.

    Returns
    -------
    torch.Tensor
        One loss per triplet.

    References
    ----------
    Arsenault, "Lossless triplet loss", 2018, with his recommended beta = N; ``lossless_triplet_loss`` of Koziev's
    nn_relevancy_tripleloss.
    """
    dim = anchor.shape[-1]
    # In this order, because 1 + 1e-8 is 1 in single precision.
    near = -(squared_distance(anchor, positive) / dim) + 1 + epsilon
    far = -((dim - squared_distance(anchor, negative)) / dim) + 1 + epsilon
    return -near.log() - far.log()


def contrastive_loss(
    anchor: Float[Tensor, "*batch dim"],
    positive: Float[Tensor, "*batch dim"],
    negative: Float[Tensor, "*batch dim"],
    margin: float | int = 1.0,
) -> Float[Tensor, "*batch"]:
    """
    Mean of d(anchor, positive)^2 / 2 and max(0, margin - d(anchor, negative))^2 / 2, d the Euclidean distance.

    A triplet counts as two pairs to be classified, one relevant and one not.

    Parameters
    ----------
    anchor, positive, negative
        Embeddings.
    margin
        Irrelevant pairs farther apart than this are left alone.

    Returns
    -------
    torch.Tensor
        One loss per triplet.

    References
    ----------
    Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006, section 2.1,
    equation 4.
    """
    distance = torch.linalg.vector_norm(anchor - negative, dim=-1)  # has a gradient of 0 at 0, where a root has none
    return (squared_distance(anchor, positive) + (margin - distance).clamp(min=0).square()) / 4


def cosine_regression_loss(
    first: Float[Tensor, "*batch dim"],
    second: Float[Tensor, "*batch dim"],
    target: Float[Tensor, "*batch"] | float | int,
) -> Float[Tensor, "*batch"]:
    """
    Squared error of the cosine of a pair against how similar it is said to be.

    Parameters
    ----------
    first, second
        Embeddings of length 1.
    target
        Graded similarity in [-1, 1].

    Returns
    -------
    torch.Tensor
        One loss per pair.

    References
    ----------
    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3, regression objective function.
    """
    return ((first * second).sum(dim=-1) - target).square()


def triplet_regression_loss(
    anchor: Float[Tensor, "*batch dim"],
    positive: Float[Tensor, "*batch dim"],
    negative: Float[Tensor, "*batch dim"],
) -> Float[Tensor, "*batch"]:
    """
    `cosine_regression_loss` of a triplet's two pairs, the relevant one with target 1 and the other with 0.

    Parameters
    ----------
    anchor, positive, negative
        Embeddings of length 1.

    Returns
    -------
    torch.Tensor
        The mean of both, one per triplet.
    """
    return (cosine_regression_loss(anchor, positive, 1) + cosine_regression_loss(anchor, negative, 0)) / 2
