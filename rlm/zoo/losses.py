"""Losses of whole batches, with negatives that are not known to be relevant; all losses by name."""

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from rlm.block import of_triplets
from rlm.config import MARGINS, Loss, Mining, check_loss
from rlm.data.phrases import PAD
from rlm.encoder import Output, check_output
from rlm.loss import contrastive_loss, cosine_triplet_loss, lossless_triplet_loss, triplet_loss, triplet_regression_loss

Embeddings = Float[Tensor, "seed phrase dim"]
Triplets = Int64[Tensor, "seed triplet 3"]
Weights = Float[Tensor, "seed triplet"]
Relevant = Bool[Tensor, "seed phrase phrase"]
PerSeed = Float[Tensor, " seed"]


def mined_triplet_loss(
    embeddings: Embeddings,
    triplets: Triplets,
    weights: Weights,
    relevant: Relevant,
    margin: float | int = 0.2,
    mining: Mining = "semi_hard",
) -> PerSeed:
    """
    Compute the mean triplet loss of all anchor-positive pairs, with negatives mined from the batch; 0 without any.

    Negatives of a pair: ``"all"``; ``"hard"``, the nearest to the anchor; ``"semi_hard"``, the nearest one farther away
    than the positive or, if there is none, the farthest. Embeddings have length 1. A pair counts once per triplet.

    Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015, sections 3.1 and 3.2. The paper does not define the case
    without a negative in equation 4; the farthest is the choice of TensorFlow's ``triplet_semihard_loss``.
    """
    anchor, _, _ = of_triplets(embeddings, triplets)
    squares = embeddings.square().sum(dim=2)
    rows, positives, _ = triplets.split(1, dim=2)
    distance = squares.gather(1, rows[..., 0])[..., None] + squares[:, None] - 2 * anchor @ embeddings.mT
    usable = ~relevant.gather(1, rows.expand(-1, -1, relevant.shape[2]))
    near = distance.gather(2, positives)
    if mining == "all":
        far, weights = distance, weights[..., None] * usable
    else:
        far = distance.gather(2, _choose(distance.detach(), near.detach(), usable, mining))
        weights = (weights * usable.any(dim=2))[..., None]
    loss = (near - far + margin).clamp(min=0) * weights
    return loss.sum(dim=(1, 2)) / weights.sum(dim=(1, 2)).clamp(min=torch.finfo(weights.dtype).tiny)


def _choose(
    distance: Float[Tensor, "seed pair phrase"],
    near: Float[Tensor, "seed pair 1"],
    usable: Bool[Tensor, "seed pair phrase"],
    mining: Mining,
) -> Int64[Tensor, "seed pair 1"]:
    """Return the negative of each pair; any phrase if there is none."""
    wanted = usable & (distance > near) if mining == "semi_hard" else usable
    nearest = distance.masked_fill(~wanted, torch.inf).argmin(dim=2, keepdim=True)
    farthest = distance.masked_fill(~usable, -torch.inf).argmax(dim=2, keepdim=True)
    return nearest.where(wanted.any(dim=2, keepdim=True), farthest)


def in_batch_loss(
    embeddings: Embeddings, triplets: Triplets, weights: Weights, relevant: Relevant, scale: float | int = 20
) -> PerSeed:
    """
    Compute the cross-entropy of an anchor's own positive among all positives and negatives of the batch.

    Embeddings have length 1. Henderson et al., "Efficient natural language response suggestion for Smart Reply",
    arXiv 1705.00652, section 4.4 (multiple negatives); the scale of cosines and the triplets' own negatives as in
    sentence-transformers' ``MultipleNegativesRankingLoss``.
    """
    anchor, positive, negative = of_triplets(embeddings, triplets)
    scores = scale * anchor @ torch.cat([positive, negative], dim=1).mT
    candidates = torch.cat([triplets[..., 1], triplets[..., 2]], dim=1)
    is_barred = _lookup(relevant, triplets[..., 0], candidates) | (weights == 0).repeat(1, 2)[:, None]
    is_own = torch.eye(*scores.shape[1:], dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(is_barred & ~is_own, -torch.inf)
    own = scores.diagonal(dim1=1, dim2=2)
    return ((scores.logsumexp(dim=2) - own) * weights).sum(dim=1)


def dssm_loss(
    embeddings: Embeddings,
    triplets: Triplets,
    weights: Weights,
    relevant: Relevant,
    gamma: float | int = 10,
    negatives: int = 4,
) -> PerSeed:
    """
    Compute -log P(positive | anchor), P the softmax of gamma cos(anchor, candidate) over the positive and negatives.

    Embeddings have length 1. Sampled negatives are the triplet's own, and those of the triplets that follow it, from
    the first again after the last; the order of triplets is random. Padding comes last.

    Huang et al., "Learning deep structured semantic models for web search using clickthrough data", CIKM 2013,
    section 3.3, equations 5 and 6, with four negatives. The paper does not give gamma, which it sets on held-out data.
    """
    anchor, positive, negative = of_triplets(embeddings, triplets)
    places = torch.arange(triplets.shape[1], device=triplets.device)
    count = (weights > 0).sum(dim=1)[:, None, None]
    step = torch.arange(negatives, device=triplets.device)
    sampled = (places[:, None] + step) % count.clamp(min=1)
    is_barred = _lookup(relevant, triplets[..., 0], triplets[..., 2]).gather(2, sampled) | (step >= count)
    irrelevant = (anchor @ negative.mT).gather(2, sampled)
    own = (anchor * positive).sum(dim=2, keepdim=True)
    scores = gamma * torch.cat([own, irrelevant.masked_fill(is_barred, -torch.inf)], dim=2)
    return ((scores.logsumexp(dim=2) - scores[..., 0]) * weights).sum(dim=1)


def _lookup(
    relevant: Relevant, anchor: Int64[Tensor, "seed anchor"], candidate: Int64[Tensor, "seed candidate"]
) -> Bool[Tensor, "seed anchor candidate"]:
    rows = relevant.gather(1, anchor[..., None].expand(-1, -1, relevant.shape[2]))
    return rows.gather(2, candidate[:, None].expand(-1, anchor.shape[1], -1))


@dataclasses.dataclass(frozen=True)
class Objective:
    """
    What a block of seeds is trained to minimise; see `make_objective`.

    `formula` takes the embeddings of anchors, positives and negatives or, if negatives are taken from the whole batch
    (`needs_relevance`), of the batch. `output` is the `OutputStep` that embeddings must have.
    """

    name: Loss
    formula: Callable[..., Tensor]
    margin: float | int | None = None
    output: Output | None = None
    needs_relevance: bool = False

    def __call__(
        self, embeddings: Embeddings, triplets: Triplets, weights: Weights, relevant: Relevant | None = None
    ) -> PerSeed:
        """Return each seed's mean over its triplets of rows of `embeddings`; it does not depend on other seeds."""
        if self.needs_relevance:
            return self.formula(embeddings, triplets, weights, relevant)
        return (self.formula(*of_triplets(embeddings, triplets)) * weights).sum(dim=1)

    def check(self, embeddings: Embeddings, tokens: Int[Tensor, "seed phrase token"]) -> None:
        """Raise InputError unless embeddings of all but empty phrases are in the range the loss requires."""
        if self.output:
            check_output(embeddings[tokens[..., 0] != PAD], self.output, self.name)


LOSSES: dict[Loss, Objective] = {
    loss.name: dataclasses.replace(loss, margin=MARGINS.get(loss.name))
    for loss in (
        Objective("triplet", triplet_loss),
        Objective("cosine_triplet", cosine_triplet_loss, output="unit"),
        Objective("facenet", mined_triplet_loss, output="unit", needs_relevance=True),
        Objective("lossless", lossless_triplet_loss, output="sigmoid"),
        Objective("dssm", dssm_loss, output="unit", needs_relevance=True),
        Objective("in_batch", in_batch_loss, output="unit", needs_relevance=True),
        Objective("contrastive", contrastive_loss),
        Objective("cosine_regression", triplet_regression_loss, output="unit"),
    )
}


def make_objective(
    loss: Loss = "triplet", margin: float | int | None = None, mining: Mining | None = None
) -> Objective:
    """
    Make an objective from the name of a loss and its settings; raise InputError if it has no such setting.

    >>> objective = make_objective("triplet", margin=1)
    >>> embeddings = torch.tensor([[[0.0], [2.0], [1.0]]])  # of one seed: three phrases, one dimension
    >>> objective(embeddings, triplets=torch.tensor([[[0, 1, 2]]]), weights=torch.ones(1, 1))
    tensor([4.])
    """
    check_loss(loss, margin, mining)
    margin = MARGINS.get(loss) if margin is None else margin
    settings = {"margin": margin, "mining": mining}
    given = {name: value for name, value in settings.items() if value is not None}
    return dataclasses.replace(LOSSES[loss], margin=margin, formula=partial(LOSSES[loss].formula, **given))
