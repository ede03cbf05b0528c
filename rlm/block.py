"""A block: S seeds of one encoder, their weights stacked along a leading seed dimension."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from rlm.errors import InputError
from rlm.seeding import stream

PerTriplet = Float[Tensor, "seed triplet dim"]


@dataclass(frozen=True)
class Block:
    """
    S seeds of one encoder.

    Attributes
    ----------
    encoder
        A plain module for one model; only its structure, its buffers and which parameters are frozen are used.
    seeds
        The S seeds.
    weights
        By parameter name, with a leading seed dimension.
    """

    encoder: nn.Module
    seeds: tuple[int, ...]
    weights: dict[str, Float[Tensor, "seed *shape"]]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.weights.values())).device

    def to(self, device: torch.device | str) -> "Block":
        """
        The same block on another device.

        Parameters
        ----------
        device
            As in ``torch.Tensor.to``.

        Returns
        -------
        Block
            Shares the encoder; its buffers move with it.
        """
        weights = {name: weight.to(device) for name, weight in self.weights.items()}
        return Block(self.encoder.to(device), self.seeds, weights)

    def rows(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> "Block":
        """
        Some of the seeds.

        Parameters
        ----------
        rows
            Their places in `seeds`.

        Returns
        -------
        Block
            Copies of their weights.
        """
        weights = {name: weight[rows] for name, weight in self.weights.items()}
        return Block(self.encoder, tuple(self.seeds[row] for row in rows), weights)

    def embed(
        self, tokens: Int[Tensor, "seed phrase token"], batch_sizes: Sequence[int]
    ) -> Float[Tensor, "seed phrase dim"]:
        """
        Embed phrases, each seed its own.

        Parameters
        ----------
        tokens, batch_sizes
            See `Batch`.

        Returns
        -------
        torch.Tensor
            Embeddings, differentiable with respect to `weights`.
        """

        def one_model(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
            return functional_call(self.encoder, weights, (tokens, batch_sizes))

        return vmap(one_model)(self.weights, tokens)


def init_block(make_encoder: Callable[[], nn.Module], seeds: Sequence[int]) -> Block:
    """
    Newly initialised encoders, one per seed.

    Parameters
    ----------
    make_encoder
        Makes one encoder with weights drawn from PyTorch's default generator, as modules do. That generator is
        seeded here from the stream ``init`` of each seed and put back afterwards.
    seeds
        At least one.

    Returns
    -------
    Block
        The same weights for a seed, whatever block it is in.

    Raises
    ------
    InputError
        If there is no seed, or the encoder has dropout, which would need a random stream of its own per seed.
    """
    if not seeds:
        raise InputError("expected at least one seed, found none")
    encoders = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(int(stream(seed, "init").integers(2**63)))
            encoders.append(make_encoder())
    if any(isinstance(module, _DropoutNd) and module.p for module in encoders[0].modules()):
        raise InputError("expected an encoder without dropout, found dropout layers; leave them out or set p=0")
    weights, _ = stack_module_state(encoders)
    return Block(encoders[0], tuple(seeds), {name: weight.detach() for name, weight in weights.items()})


def of_triplets(
    embeddings: Float[Tensor, "seed phrase dim"], triplets: Int[Tensor, "seed triplet 3"]
) -> tuple[PerTriplet, PerTriplet, PerTriplet]:
    """
    Embeddings of anchors, positives and negatives.

    Parameters
    ----------
    embeddings
        Of a batch's phrases.
    triplets
        Rows of `embeddings`.

    Returns
    -------
    tuple of torch.Tensor
        Anchors, positives, negatives.
    """
    seeds, phrases, _ = embeddings.shape
    first = torch.arange(0, seeds * phrases, phrases, device=triplets.device)[:, None, None]
    # Looked up like word vectors: the gradient of F.embedding is several times faster than that of indexing.
    anchor, positive, negative = F.embedding(triplets + first, embeddings.flatten(0, 1)).unbind(dim=2)
    return anchor, positive, negative
