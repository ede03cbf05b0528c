"""Encoders of images and clips, and the classifier that is trained on labels: plain modules for one model."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlm.arms import check_transfer, list_layers, take_layers
from rlm.block import Block, check_vectors, init_block
from rlm.errors import InputError
from rlm.labels.config import LabelsConfig
from rlm.labels.samples import Samples

MakeEncoder = Callable[[tuple[int, ...]], nn.Module]


class MLPEncoder(nn.Sequential):
    """Two dense layers with ReLU over all pixels, the first twice as wide as the second."""

    def __init__(self, shape: Sequence[int], dim: int = 256) -> None:
        first = nn.Linear(math.prod(shape), 2 * dim)
        super().__init__(nn.Flatten(), first, nn.ReLU(), nn.Linear(2 * dim, dim), nn.ReLU())


class CNNEncoder(nn.Sequential):
    """
    Two convolutions of 3 x 3 with stride 2, of dim / 8 and dim / 4 channels, and a dense layer, each with ReLU.

    Strides replace pooling, which takes longer than all else in a block of seeds. Springenberg et al., "Striving for
    simplicity: the all convolutional net", ICLR 2015 (workshop).
    """

    def __init__(self, shape: Sequence[int], dim: int = 256) -> None:
        super().__init__(*_convolutions(nn.Conv2d, shape, max(dim // 8, 1), dim))


class CNN3DEncoder(nn.Sequential):
    """
    Two convolutions of 3 x 3 x 3 with stride 2, of dim / 16 and dim / 8 channels, and a dense layer, each with ReLU.

    Tran et al., "Learning spatiotemporal features with 3D convolutional networks", ICCV 2015, on the kernels.
    """

    def __init__(self, shape: Sequence[int], dim: int = 256) -> None:
        super().__init__(*_convolutions(nn.Conv3d, shape, max(dim // 16, 1), dim))


def _convolutions(layer: type[nn.Module], shape: Sequence[int], channels: int, dim: int) -> list[nn.Module]:
    known, *size = shape
    left = math.prod(-(-length // 4) for length in size)  # two strides of 2, rounded up by the padding
    return [
        layer(known, channels, 3, stride=2, padding=1),
        nn.ReLU(),
        layer(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * left, dim),
        nn.ReLU(),
    ]


DEFAULT_ENCODERS = {3: "cnn", 4: "cnn3d"}
IMAGE_ENCODERS: dict[str, type[nn.Module]] = {"mlp": MLPEncoder, "cnn": CNNEncoder, "cnn3d": CNN3DEncoder}


class Classifier(nn.Module):
    """An encoder, made first so that its weights do not depend on the classes, and a linear head of logits."""

    def __init__(self, encoder: nn.Module, dim: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, classes)

    def forward(self, inputs: Float[Tensor, "sample *shape"]) -> Float[Tensor, "sample class"]:
        return self.head(self.encoder(inputs))


def transfer(initial: Block, pretrained: Block, layers: int | None = None) -> Block:
    """
    Give the first `layers` of a classifier's encoder, by default all, the weights of a pre-trained one.

    The head stays. Later layers specialise in the labels they were trained on, so that fewer can be better: Maennel et
    al., arXiv 2006.10455, section 3.
    """
    names = list_layers(initial.encoder.encoder)[:layers]
    return take_layers(initial, pretrained, [f"encoder.{name}".rstrip(".") for name in names])


def classify(block: Block, inputs: tuple[Any, ...]) -> Float[Tensor, "seed sample class"]:
    """Return the logits of the classes under every seed, without gradients, with the encoder in evaluation mode."""
    block.encoder.eval()
    try:
        with torch.no_grad():
            return block.embed(*inputs)
    finally:
        block.encoder.train()


def new_classifiers(
    config: LabelsConfig,
    samples: Samples,
    classes: int,
    seeds: Sequence[int],
    make_encoder: MakeEncoder | None = None,
) -> Block:
    """
    Make classifiers before any training.

    Parameters
    ----------
    config
        Its encoder is used.
    samples
        Their shape is that of an input.
    classes
        Number of classes.
    seeds
        Seeds of the block. A seed's encoder is the same for any number of classes.
    make_encoder
        As in `rlm.labels.run_labels`.

    Returns
    -------
    Block
        One classifier per seed.

    Raises
    ------
    InputError
        If the encoder is for another kind of input, or has fewer layers than are to be transferred.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.new_classifiers(rlm.labels.LabelsConfig(), rlm.labels.load_digits(100), 10, [0, 1]).seeds
    (0, 1)
    """
    shape = samples.inputs.shape[1:]
    name = config.encoder or DEFAULT_ENCODERS[len(shape)]
    fits = {"cnn": 3, "cnn3d": 4}.get(name, len(shape))
    if fits != len(shape) and make_encoder is None:
        kind = "images" if len(shape) == 3 else "clips"
        raise InputError(f"expected encoder {DEFAULT_ENCODERS[len(shape)]} or mlp for {kind}, found {name}; choose one")
    example = torch.zeros(2, *shape)

    def make() -> Classifier:
        if make_encoder is None:
            return Classifier(IMAGE_ENCODERS[name](shape, config.dim), config.dim, classes)
        encoder = make_encoder(shape)
        return Classifier(encoder, _measure(encoder, example), classes)

    block = init_block(make, seeds, example, batch_norm=True)
    name = name if make_encoder is None else type(block.encoder.encoder).__name__
    check_transfer(block.encoder.encoder, config.transfer, name)
    return block


def _measure(encoder: nn.Module, example: Float[Tensor, "2 *shape"]) -> int:
    """Return the size of a user's encoder's vectors."""
    encoder.eval()
    try:
        with torch.no_grad():
            made = encoder(example)
    except Exception as error:
        raise InputError(
            f"expected an encoder of samples {list(example.shape[1:])}, found that {type(encoder).__name__} fails on "
            f"two of them: {error}; make it from the shape that it is given"
        ) from error
    encoder.train()
    return check_vectors(encoder, made)


def check_batches(block: Block, samples: Samples, sizes: Collection[int], batch_size: int) -> None:
    """Raise InputError if a batch has one sample, and the encoder cannot train on one, as batch normalisation."""
    if block.is_looped and any((size - 1) % batch_size == 0 for size in sizes):
        try:
            block.embed(torch.zeros(len(block.seeds), 1, *samples.inputs.shape[1:]))
        except ValueError as error:
            raise InputError(
                f"expected batches that the encoder can train on, found one of a single sample with batch_size "
                f"{batch_size}: {error}; choose another batch_size"
            ) from error
