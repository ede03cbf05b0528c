"""Encoders of images and clips, and the classifier that is trained on labels: plain modules for one model."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlm.arms import list_layers, take_layers
from rlm.block import Block


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


def classify(block: Block, inputs: Float[Tensor, "seed sample *shape"]) -> Float[Tensor, "seed sample class"]:
    """Return the logits of the classes under every seed, without gradients."""
    with torch.no_grad():
        return block.embed(inputs)
