"""Relevance of the phrases of a batch, for losses that take negatives from the whole batch."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from rlm.data.corpus import Relevance
from rlm.data.phrases import PAD
from rlm.engine.batches import Batch


class RelevanceMask:
    """Marks phrases of a batch that are relevant by `relevance`, or else by its own triplets: no negatives."""

    def __init__(self, relevance: Relevance | None = None, device: torch.device | str = "cpu") -> None:
        self.cluster = None
        if relevance is None:
            self.keys = torch.empty(0, dtype=torch.int64, device=device)
        else:
            self.keys = torch.from_numpy(relevance.keys).to(device)
            if relevance.cluster is not None:
                self.cluster = torch.from_numpy(relevance.cluster).to(device)

    def __call__(self, batch: Batch) -> Bool[Tensor, "seed phrase phrase"]:
        """Return a symmetrical mask. A phrase is relevant to itself, and the empty phrase of the padding to all."""
        seeds, phrases, _ = batch.tokens.shape
        seed = torch.arange(seeds, device=self.keys.device)[:, None]
        relevant = torch.eye(phrases, dtype=torch.bool, device=self.keys.device).repeat(seeds, 1, 1)
        anchor, positive, _ = batch.triplets.unbind(dim=2)
        relevant[seed, anchor, positive] = relevant[seed, positive, anchor] = True
        is_empty = batch.tokens[..., 0] == PAD
        if len(self.keys):
            self._add_pairs(relevant, batch.phrases.long(), is_empty)
        if self.cluster is not None:
            cluster = self.cluster[batch.phrases.long().masked_fill(is_empty, 0)]
            relevant |= cluster[:, :, None] == cluster[:, None]
        return relevant | is_empty[:, :, None] | is_empty[:, None]

    def _add_pairs(
        self,
        relevant: Bool[Tensor, "seed phrase phrase"],
        phrases: Int64[Tensor, "seed phrase"],
        is_empty: Bool[Tensor, "seed phrase"],
    ) -> None:
        """Mark the known pairs of the batch's phrases, found by binary search: keys are sorted by the first phrase."""
        low, high = (
            torch.searchsorted(self.keys, edge).where(~is_empty, 0).flatten()
            for edge in (phrases << 32, (phrases + 1) << 32)
        )
        count = high - low
        row = torch.repeat_interleave(count)
        pair = torch.arange(len(row), device=row.device) + (high - count.cumsum(0))[row]
        other = self.keys[pair] & 0xFFFFFFFF
        # The place of the other phrase among those of the same seed, which rise.
        width = phrases.shape[1]
        offset = torch.arange(len(phrases), device=row.device)[:, None] << 32
        sorted_phrases = (phrases.masked_fill(is_empty, 0xFFFFFFFF) + offset).flatten()
        wanted = other + offset[row // width, 0]
        place = torch.searchsorted(sorted_phrases, wanted).clamp(max=len(sorted_phrases) - 1)
        is_there = sorted_phrases[place] == wanted
        relevant.view(-1, width)[row[is_there], place[is_there] % width] = True
