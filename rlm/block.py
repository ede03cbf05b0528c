"""A block: S seeds of one encoder, their weights stacked along a leading seed dimension."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from rlm.data.phrases import UNKNOWN
from rlm.errors import InputError
from rlm.seeding import stream

log = logging.getLogger(__name__)
PerTriplet = Float[Tensor, "seed triplet dim"]


@dataclass(frozen=True)
class Block:
    """
    S seeds of one encoder.

    `encoder` is a plain module for one model: structure, buffers, and frozen parameters that all seeds share. `weights`
    are the other parameters, and the running statistics of batch normalisation, by name, with a leading seed dimension.
    An encoder that ``torch.func.vmap`` cannot stack `is_looped`: it runs seed by seed, and changes the statistics.
    """

    encoder: nn.Module
    seeds: tuple[int, ...]
    weights: dict[str, Float[Tensor, "seed *shape"]]
    is_looped: bool = False

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(iter(self.weights.values())).device

    def to(self, device: torch.device | str) -> "Block":
        """Return the block on another device; the encoder, whose buffers move, is shared."""
        weights = {name: weight.to(device) for name, weight in self.weights.items()}
        return dataclasses.replace(self, encoder=self.encoder.to(device), weights=weights)

    def rows(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> "Block":
        """Return a block of the seeds at these places, with copies of their weights."""
        weights = {name: weight[rows] for name, weight in self.weights.items()}
        return dataclasses.replace(self, seeds=tuple(self.seeds[row] for row in rows), weights=weights)

    def embed(
        self,
        inputs: Shaped[Tensor, "seed input *shape"],
        batch_sizes: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Float[Tensor, "seed input dim"]:
        """
        Embed each seed's inputs, differentiably; batch sizes are those of `Batch`, for phrases only.

        `sizes` are the numbers of inputs before the padding of each seed, which must not change statistics.
        """
        one_model = partial(_embed_one, self.encoder, () if batch_sizes is None else (batch_sizes,))
        if not self.is_looped:
            return vmap(one_model)(self.weights, inputs)
        longest = inputs.shape[1]
        sizes = [longest] * len(self.seeds) if sizes is None else sizes
        made = {  # of views of the weights, through which statistics change in place
            row: one_model({name: weight[row] for name, weight in self.weights.items()}, inputs[row, :size])
            for row, size in enumerate(sizes)
            if size
        }
        nothing = next(iter(made.values()))[:0]
        return torch.stack([F.pad(made.get(row, nothing), (0, 0, 0, longest - size)) for row, size in enumerate(sizes)])


def _embed_one(encoder: nn.Module, shared: tuple[Any, ...], weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    return functional_call(encoder, weights, (inputs, *shared))


def init_block(
    make_encoder: Callable[[], nn.Module],
    seeds: Sequence[int],
    example: Shaped[Tensor, "2 *shape"] | None = None,
    *,
    batch_norm: bool = False,
) -> Block:
    """
    Initialise a block of encoders, one per seed.

    Parameters
    ----------
    make_encoder
        Makes one encoder, with weights from PyTorch's default generator. That generator is seeded from the stream
        ``init`` of each seed, and restored afterwards.
    seeds
        At least one.
    example
        Two inputs to test an encoder with; the tokens of two phrases by default.
    batch_norm
        Allow batch normalisation, for training that tells it padding and evaluation; each seed has its own statistics.

    Returns
    -------
    Block
        The same weights for a seed in every block. The log names an encoder that has to run seed by seed.

    Raises
    ------
    InputError
        If there is no seed; if the encoder has dropout other than `rlm.zoo.Dropout`, or batch
        normalisation, which mixes inputs, without `batch_norm`; or if it has no weights, or does not make one vector
        per input.

    Examples
    --------
    >>> import rlm, torch
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(vocabulary_size=10, dim=3), seeds=[0, 1])
    >>> block.embed(torch.tensor([[[5, 2]], [[5, 2]]]), batch_sizes=[1, 1]).shape
    torch.Size([2, 1, 3])
    """
    if not seeds:
        raise InputError("expected at least one seed, found none")
    encoders = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(int(stream(seed, "init").integers(2**63)))
            encoders.append(make_encoder())
        shared = _in_common(encoders[0], make_encoder)
    inputs = (torch.full((2, 2), UNKNOWN, dtype=torch.int32), (2, 2)) if example is None else (example,)
    own = [{n: p.detach() for n, p in one.named_parameters() if n not in shared} for one in encoders]
    statistics = running_statistics(encoders[0])
    for name, buffer in encoders[0].named_buffers():
        if not all(torch.equal(one.get_buffer(name), buffer) for one in encoders):
            raise InputError(
                f"expected the buffer {name} of {type(encoders[0]).__name__} to be the same for every seed, found "
                "random values; register it as a parameter with requires_grad=False"
            )
    for mine, one in zip(own, encoders, strict=True):
        mine.update({name: buffer for name, buffer in one.named_buffers() if name in statistics})
    weights = {name: torch.stack([mine[name] for mine in own]) for name in own[0]}
    _check_trainable(encoders[0], inputs, batch_norm)
    block = Block(encoders[0], tuple(seeds), weights)
    reason = "it has running statistics" if statistics else _why_not_stacked(block, inputs)
    if reason:
        _tell(type(encoders[0]).__name__, reason)
    return dataclasses.replace(block, is_looped=bool(reason))


def running_statistics(encoder: nn.Module) -> set[str]:
    """Return the names of the buffers that batch normalisation changes in training."""
    layers = [(name, module) for name, module in encoder.named_modules() if isinstance(module, _NormBase)]
    return {f"{name}.{buffer}".lstrip(".") for name, layer in layers for buffer, _ in layer.named_buffers()}


def _check_trainable(encoder: nn.Module, inputs: tuple[Any, ...], batch_norm: bool) -> None:
    for module in encoder.modules():
        layer = type(module).__name__
        drops = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0)
        if isinstance(drops, float) and drops > 0:
            raise InputError(f"expected rlm.zoo.Dropout for all dropout, found other dropout in {layer}; replace it")
        if isinstance(module, _BatchNorm) and not (batch_norm and module.track_running_stats):
            wanted, remedy = "without batch normalisation", "take nn.LayerNorm"
            if batch_norm:
                wanted, remedy = "whose batch normalisation has running statistics", "set track_running_stats"
            raise InputError(f"expected an encoder {wanted}, found {layer}; {remedy}")
    if not any(weight.requires_grad for weight in encoder.parameters()):
        raise InputError(f"expected an encoder with weights to train, found none in {type(encoder).__name__}")
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            made = encoder(*inputs)
    except Exception:  # an encoder is arbitrary code: let it fail where it is used
        return
    if not torch.equal(torch.get_rng_state(), state):
        raise InputError(
            f"expected rlm.zoo.Dropout for all dropout, found that {type(encoder).__name__} draws random numbers as it "
            "embeds; replace its dropout"
        )
    check_vectors(encoder, made)


def check_vectors(encoder: nn.Module, made: object) -> int:
    """Return the size of the vectors that an encoder made of two inputs; raise InputError for other outputs."""
    shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
    if not isinstance(shape, list) or len(shape) != 2 or shape[0] != 2:
        raise InputError(
            f"expected an encoder that makes one vector per input, [input, dim], found {type(encoder).__name__}, "
            f"which returns {shape} for two inputs"
        )
    return shape[1]


@cache
def _tell(encoder: str, reason: str) -> None:
    log.info("the encoder %s runs seed by seed, which is slower: %s", encoder, reason)


def _in_common(encoder: nn.Module, make_encoder: Callable[[], nn.Module]) -> set[str]:
    """Return the frozen parameters that do not depend on the seed: one more encoder, of no seed, has the same."""
    frozen = {name: weight for name, weight in encoder.named_parameters() if not weight.requires_grad}
    other = dict(make_encoder().named_parameters()) if frozen else {}
    return {name for name, weight in frozen.items() if torch.equal(weight, other[name])}


def _why_not_stacked(block: Block, inputs: tuple[Any, ...]) -> str | None:
    """Return why ``torch.func`` cannot stack an encoder, forwards and backwards, or None."""
    try:
        _try_out(block, *inputs)
    except Exception as error:  # an encoder is arbitrary code; if it fails seed by seed as well, it raises there
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def _try_out(block: Block, inputs: Tensor, *batch_sizes: Sequence[int]) -> None:
    inputs = inputs.expand(len(block.seeds), *inputs.shape)
    weights = {name: weight.clone().requires_grad_() for name, weight in block.weights.items()}
    with torch.enable_grad():
        embeddings = dataclasses.replace(block, weights=weights).embed(inputs, *batch_sizes)
        torch.autograd.grad(embeddings.sum(), list(weights.values()), allow_unused=True)


def of_triplets(
    embeddings: Float[Tensor, "seed phrase dim"], triplets: Int[Tensor, "seed triplet 3"]
) -> tuple[PerTriplet, PerTriplet, PerTriplet]:
    """Look up the embeddings of anchors, positives and negatives, which are rows of `embeddings`."""
    seeds, phrases, _ = embeddings.shape
    first = torch.arange(0, seeds * phrases, phrases, device=triplets.device)[:, None, None]
    # Looked up like word vectors: the gradient of F.embedding is several times faster than that of indexing.
    anchor, positive, negative = F.embedding(triplets + first, embeddings.flatten(0, 1)).unbind(dim=2)
    return anchor, positive, negative
