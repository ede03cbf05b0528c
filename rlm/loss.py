"""Losses of one model; the trainer batches them over seeds."""

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
    margin: float = 0.5,
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
    normalisation of the embeddings.
    """
    return (squared_distance(anchor, positive) - squared_distance(anchor, negative) + margin).clamp(min=0)
