"""Mining: negatives from the whole batch, without phrases that are known to be relevant."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rlm.block import of_triplets
from rlm.data.corpus import Relevance
from rlm.data.phrases import PAD
from rlm.engine.batches import Batch

Mining = Literal["all", "semi_hard", "hard"]


class KnownRelevance:
    """
    Which phrases of a batch are known to be relevant to each other, so that none serves as a negative of the other.

    Parameters
    ----------
    relevance
        What the data say; without it, as in pre-training, only the batch's own triplets speak.
    device
        That trains.
    """

    def __init__(self, relevance: Relevance | None = None, device: torch.device | str = "cpu") -> None:
        self.group = None
        if relevance is None:
            self.keys = torch.empty(0, dtype=torch.int64, device=device)
        else:
            self.keys = torch.from_numpy(relevance.keys).to(device)
            if relevance.cluster is not None:
                self.group = torch.from_numpy(relevance.cluster).to(device)

    def __call__(self, batch: Batch) -> Bool[Tensor, "seed phrase phrase"]:
        """
        Look up the pairs of a batch.

        Parameters
        ----------
        batch
            Of any seeds.

        Returns
        -------
        torch.Tensor
            Symmetrical. A phrase is relevant to itself, and the empty phrase, which only fills up, to all.
        """
        seeds, phrases, _ = batch.tokens.shape
        seed = torch.arange(seeds, device=self.keys.device)[:, None]
        relevant = torch.eye(phrases, dtype=torch.bool, device=self.keys.device).repeat(seeds, 1, 1)
        anchor, positive, _ = batch.triplets.unbind(dim=2)
        relevant[seed, anchor, positive] = relevant[seed, positive, anchor] = True
        is_empty = batch.tokens[..., 0] == PAD
        if len(self.keys):
            self._add_pairs(relevant, batch.phrases.long(), is_empty)
        if self.group is not None:
            group = self.group[batch.phrases.long().masked_fill(is_empty, 0)]
            relevant |= group[:, :, None] == group[:, None]
        return relevant | is_empty[:, :, None] | is_empty[:, None]

    def _add_pairs(
        self,
        relevant: Bool[Tensor, "seed phrase phrase"],
        phrases: Int64[Tensor, "seed phrase"],
        is_empty: Bool[Tensor, "seed phrase"],
    ) -> None:
        """Go through the pairs of the batch's phrases only: the keys are sorted by their first phrase."""
        low, high = (
            torch.searchsorted(self.keys, edge).where(~is_empty, 0).flatten()
            for edge in (phrases << 32, (phrases + 1) << 32)
        )
        count = high - low
        row = torch.repeat_interleave(count)
        pair = torch.arange(len(row), device=row.device) + (high - count.cumsum(0))[row]
        other = self.keys[pair] & 0xFFFFFFFF
        # Where the other phrase stands among those of the same seed, which rise.
        width = phrases.shape[1]
        offset = torch.arange(len(phrases), device=row.device)[:, None] << 32
        sorted_phrases = (phrases.masked_fill(is_empty, 0xFFFFFFFF) + offset).flatten()
        wanted = other + offset[row // width, 0]
        place = torch.searchsorted(sorted_phrases, wanted).clamp(max=len(sorted_phrases) - 1)
        is_there = sorted_phrases[place] == wanted
        relevant.view(-1, width)[row[is_there], place[is_there] % width] = True


def mined_triplet_loss(
    embeddings: Float[Tensor, "seed phrase dim"],
    triplets: Int64[Tensor, "seed triplet 3"],
    shares: Float[Tensor, "seed triplet"],
    relevant: Bool[Tensor, "seed phrase phrase"],
    margin: float | int = 0.2,
    mining: Mining = "semi_hard",
) -> Float[Tensor, " seed"]:
    """
    The triplet loss of all anchor-positive pairs of a batch, with negatives from among all its phrases.

    Parameters
    ----------
    embeddings
        Of the batch's phrases, of length 1.
    triplets
        Their anchors and positives are the pairs; a pair that stands in several triplets counts several times.
    shares
        Of each pair in the mean.
    relevant
        Phrases that are no negatives of each other, see `KnownRelevance`.
    margin
        In squared distance.
    mining
        Which negatives a pair meets. ``"all"``. ``"hard"``: the nearest to the anchor. ``"semi_hard"``: the nearest
        one that is farther away than the positive or, where none is, the farthest.

    Returns
    -------
    torch.Tensor
        Mean over the mined triplets; 0 where a batch has no negative.

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015, sections 3.1 and 3.2. Where equation 4 finds no negative
    the paper says nothing; the farthest is what TensorFlow's ``triplet_semihard_loss`` takes.
    """
    anchor, _, _ = of_triplets(embeddings, triplets)
    squares = embeddings.square().sum(dim=2)
    rows, positives, _ = triplets.split(1, dim=2)
    distance = squares.gather(1, rows[..., 0])[..., None] + squares[:, None] - 2 * anchor @ embeddings.mT
    usable = ~relevant.gather(1, rows.expand(-1, -1, relevant.shape[2]))
    near = distance.gather(2, positives)
    if mining == "all":
        far, weights = distance, shares[..., None] * usable
    else:
        far = distance.gather(2, _choose(distance.detach(), near.detach(), usable, mining))
        weights = (shares * usable.any(dim=2))[..., None]
    loss = (near - far + margin).clamp(min=0) * weights
    return loss.sum(dim=(1, 2)) / weights.sum(dim=(1, 2)).clamp(min=torch.finfo(weights.dtype).tiny)


def _choose(
    distance: Float[Tensor, "seed pair phrase"],
    near: Float[Tensor, "seed pair 1"],
    usable: Bool[Tensor, "seed pair phrase"],
    mining: Mining,
) -> Int64[Tensor, "seed pair 1"]:
    """The negative of each pair; any phrase where there is none."""
    wanted = usable & (distance > near) if mining == "semi_hard" else usable
    nearest = distance.masked_fill(~wanted, torch.inf).argmin(dim=2, keepdim=True)
    farthest = distance.masked_fill(~usable, -torch.inf).argmax(dim=2, keepdim=True)
    return nearest.where(wanted.any(dim=2, keepdim=True), farthest)
