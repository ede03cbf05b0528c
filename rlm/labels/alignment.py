"""Alignment: the spread of first-layer weights along the directions in which the inputs vary."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from scipy import stats
from torch import nn
from torch.nn import functional as F

from rlm.arms import list_layers
from rlm.block import Block
from rlm.errors import InputError
from rlm.labels.samples import Samples

MOST_SAMPLES, BATCH = 2_000, 64


def align(weights: Float[np.ndarray, "neuron input"], covariance: Float[np.ndarray, "input input"]) -> pd.DataFrame:
    """
    Measure the spread of weights along each eigenvector of their inputs' covariance.

    Parameters
    ----------
    weights
        Weights of the neurons of a first layer, of one model or many.
    covariance
        Covariance of the layer's inputs.

    Returns
    -------
    pandas.DataFrame
        One row per eigenvector, from the largest eigenvalue down: direction (from 1), data_sd, weight_sd (root mean
        square about the mean), the curve that Maennel et al. call f(sigma).

    References
    ----------
    Maennel et al., "What do neural networks learn when trained with random labels?", NeurIPS 2020, arXiv 2006.10455,
    sections 2.1 and 2.4.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> found = rlm.labels.align(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.diag([1.0, 4.0]))
    >>> found["data_sd"].tolist(), found["weight_sd"].round(3).tolist()
    ([2.0, 1.0], [0.707, 2.121])
    """
    values, vectors = np.linalg.eigh(covariance)
    along = weights @ vectors
    found = {"data_sd": np.sqrt(values.clip(min=0)), "weight_sd": along.std(axis=0)}
    ordered = pd.DataFrame(found)[::-1].reset_index(drop=True)
    ordered.insert(0, "direction", ordered.index + 1)
    return ordered


def misalignment(weights: Float[np.ndarray, "input input"], data: Float[np.ndarray, "input input"]) -> float:
    """
    Measure how far a covariance of weights is from having the eigenvectors of the data's covariance.

    Parameters
    ----------
    weights, data
        Covariances; that of the weights must have full rank.

    Returns
    -------
    float
        0 if they share all eigenvectors, whatever the eigenvalues; larger otherwise.

    Raises
    ------
    InputError
        If the covariance of the weights is singular, because there are too few neurons.

    Notes
    -----
    With b_i = v_i' B v_i and c_i = v_i' B^-1 v_i along the eigenvectors v_i of the data's covariance, this is
    sqrt(sum_i sqrt(b_i c_i) - n): the least of sqrt(tr(B^-1 A + A^-1 B) / 2 - n) over all A with these eigenvectors.
    Maennel et al., section 2.2.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> rlm.labels.misalignment(np.diag([3.0, 1.0]), np.diag([1.0, 5.0]))
    0.0
    """
    if np.linalg.matrix_rank(weights, hermitian=True) < len(weights):
        raise InputError(
            f"expected a covariance of weights of full rank {len(weights)}, found "
            f"{np.linalg.matrix_rank(weights, hermitian=True)}; take the neurons of more seeds together"
        )
    _, vectors = np.linalg.eigh(data)
    along = np.einsum("iv,ij,jv->v", vectors, weights, vectors)
    inverse = np.einsum("iv,ij,jv->v", vectors, np.linalg.inv(weights), vectors)
    return float(np.sqrt(max(np.sqrt(along * inverse).sum() - len(weights), 0.0)))


def misalignment_by_chance(weights: Float[np.ndarray, "input input"], bases: int = 100, seed: int = 0) -> float:
    """
    Average the misalignment of a covariance over random bases in place of the data's eigenvectors.

    A misalignment is informative only relative to this value: weights with equal spread in all directions are aligned
    with any data.

    Parameters
    ----------
    weights
        Covariance of full rank.
    bases
        Number of random bases.
    seed
        Seed of the bases.

    Returns
    -------
    float
        At least 0.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> rlm.labels.misalignment_by_chance(np.eye(3), bases=2) < 1e-6
    True
    """
    rng = np.random.default_rng(seed)
    drawn = stats.ortho_group.rvs(len(weights), size=bases, random_state=rng)
    return float(np.mean([misalignment(weights, basis * np.arange(1, len(weights) + 1) @ basis.T) for basis in drawn]))


def first_layer(block: Block) -> Float[np.ndarray, "neuron input"]:
    """
    Return the first-layer weights of classifiers, one row per neuron or filter of every seed, in double precision.

    Parameters
    ----------
    block
        Classifiers, as `rlm.labels.new_classifiers` makes them.

    Returns
    -------
    numpy.ndarray
        Weights [neuron, input].

    Examples
    --------
    >>> import rlm
    >>> config = rlm.labels.LabelsConfig(encoder="mlp", dim=5)
    >>> rlm.labels.first_layer(rlm.labels.new_classifiers(config, rlm.labels.load_digits(100), 10, [0, 1])).shape
    (20, 64)
    """
    name = list_layers(block.encoder.encoder)[0]
    weights = block.weights[f"encoder.{name}.weight"]
    return weights.flatten(0, 1).flatten(1).double().cpu().numpy()


def input_covariance(encoder: nn.Module, samples: Samples, rows: Shaped[np.ndarray, " row"]) -> np.ndarray:
    """
    Estimate the covariance of the inputs of an encoder's first layer: whole inputs, or the patches under its kernel.

    Parameters
    ----------
    encoder
        Its first layer is dense or a convolution.
    samples
        The data; they are standardised as in training.
    rows
        Numbers of samples, such as a training part; evenly spaced ones if there are more than 2,000.

    Returns
    -------
    numpy.ndarray
        [input, input], in double precision.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> digits = rlm.labels.load_digits(100)
    >>> block = rlm.labels.new_classifiers(rlm.labels.LabelsConfig(encoder="mlp"), digits, 10, [0])
    >>> rlm.labels.input_covariance(block.encoder.encoder, digits, np.arange(70)).shape
    (64, 64)
    """
    rows = rows[:: -(-len(rows) // MOST_SAMPLES)]
    layer = encoder.get_submodule(list_layers(encoder)[0])
    chosen = samples.inputs[rows]
    mean, sd = chosen.mean(dtype=np.float64), chosen.std(dtype=np.float64)
    count, total, products = 0, 0.0, 0.0
    for start in range(0, len(rows), BATCH):
        inputs = torch.from_numpy((chosen[start : start + BATCH] - mean) / sd)
        seen = _seen_by(layer, inputs).numpy()
        count, total, products = count + len(seen), total + seen.sum(axis=0), products + seen.T @ seen
    average = total / count
    return products / count - np.outer(average, average)


def _seen_by(layer: nn.Module, inputs: Float[torch.Tensor, "sample *shape"]) -> Float[torch.Tensor, "place input"]:
    if isinstance(layer, nn.Linear):
        return inputs.flatten(1)
    inputs = F.pad(inputs, [side for length in reversed(layer.padding) for side in (length, length)])
    for axis, (size, step) in enumerate(zip(layer.kernel_size, layer.stride, strict=True), 2):
        inputs = inputs.unfold(axis, size, step)
    dims = len(layer.kernel_size)
    # [sample, channel, *place, *kernel] -> [sample and place, channel and kernel]
    return inputs.movedim(1, 1 + dims).flatten(0, dims).flatten(1)
