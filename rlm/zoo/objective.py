"""Objectives: the losses by name, as functions of the embeddings of a batch, for all seeds of a block at once."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from rlm.block import of_triplets
from rlm.data.phrases import PAD
from rlm.errors import InputError
from rlm.loss import (
    contrastive_loss,
    cosine_triplet_loss,
    lossless_triplet_loss,
    triplet_loss,
    triplet_regression_loss,
)
from rlm.zoo.mining import Mining, mined_triplet_loss
from rlm.zoo.output import Output, check_output
from rlm.zoo.softmax import dssm_loss, in_batch_loss


@dataclasses.dataclass(frozen=True)
class Objective:
    """
    What a block is trained to minimise.

    Attributes
    ----------
    name
        Of the loss.
    formula
        Of the embeddings of anchors, positives and negatives or, where it compares, of a whole batch.
    margin
        Its own, where it has one.
    output
        What it asks of embeddings, see `rlm.zoo.output`.
    compares
        Whether it takes negatives from the whole batch, and so has to know what is relevant to what.
    """

    name: str
    formula: Callable[..., Tensor]
    margin: float | int | None = None
    output: Output | None = None
    compares: bool = False

    def __call__(
        self,
        embeddings: Float[Tensor, "seed phrase dim"],
        triplets: Int64[Tensor, "seed triplet 3"],
        shares: Float[Tensor, "seed triplet"],
        relevant: Bool[Tensor, "seed phrase phrase"] | None = None,
    ) -> Float[Tensor, " seed"]:
        """
        The loss of each seed.

        Parameters
        ----------
        embeddings
            Of a batch's phrases.
        triplets
            Rows of `embeddings`.
        shares
            Of each triplet in the mean of its seed.
        relevant
            See `rlm.zoo.mining.KnownRelevance`; only for a loss that compares.

        Returns
        -------
        torch.Tensor
            Mean over the triplets; no seed's loss depends on another seed.
        """
        if self.compares:
            return self.formula(embeddings, triplets, shares, relevant)
        return (self.formula(*of_triplets(embeddings, triplets)) * shares).sum(dim=1)

    def check(self, embeddings: Float[Tensor, "seed phrase dim"], tokens: Int[Tensor, "seed phrase token"]) -> None:
        """
        Check that embeddings are what the loss asks for.

        Parameters
        ----------
        embeddings
            Of some phrases.
        tokens
            Of these phrases; empty ones are not looked at.

        Raises
        ------
        InputError
            If they are not.
        """
        if self.output:
            check_output(embeddings[tokens[..., 0] != PAD], self.output, self.name)


Loss = Literal[
    "triplet", "cosine_triplet", "facenet", "lossless", "dssm", "in_batch", "contrastive", "cosine_regression"
]
LOSSES: dict[Loss, Objective] = {
    loss.name: loss
    for loss in (
        Objective("triplet", triplet_loss, margin=0.5),
        Objective("cosine_triplet", cosine_triplet_loss, margin=0.5, output="unit"),
        Objective("facenet", mined_triplet_loss, margin=0.2, output="unit", compares=True),
        Objective("lossless", lossless_triplet_loss, output="sigmoid"),
        Objective("dssm", dssm_loss, output="unit", compares=True),
        Objective("in_batch", in_batch_loss, output="unit", compares=True),
        Objective("contrastive", contrastive_loss, margin=1.0),
        Objective("cosine_regression", triplet_regression_loss, output="unit"),
    )
}


def make_objective(
    loss: Loss = "triplet", margin: float | int | None = None, mining: Mining | None = None
) -> Objective:
    """
    A loss with its settings.

    Parameters
    ----------
    loss
        A name in `LOSSES`.
    margin
        The loss's own by default.
    mining
        Negatives of ``"facenet"``, see `rlm.zoo.mining.mined_triplet_loss`; ``"semi_hard"`` by default.

    Returns
    -------
    Objective
        To be minimised.

    Raises
    ------
    InputError
        If there is no such loss, or it has no such setting.
    """
    if loss not in LOSSES:
        raise InputError(f"expected a loss of {', '.join(LOSSES)}, found {loss!r}; choose one of them")
    chosen, settings = LOSSES[loss], {}
    if chosen.margin is not None:
        settings["margin"] = chosen.margin if margin is None else margin
    elif margin is not None:
        raise InputError(f"expected no margin for the loss {loss}, which has none, found {margin}; leave it out")
    if mining is not None:
        if chosen.formula is not mined_triplet_loss:
            raise InputError(f"expected no mining for the loss {loss}, found {mining!r}; leave it out, or take facenet")
        settings["mining"] = mining
    return dataclasses.replace(chosen, margin=settings.get("margin"), formula=partial(chosen.formula, **settings))
