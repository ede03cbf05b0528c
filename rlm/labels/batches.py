"""Labels to train on, real ones or random ones, and the batches of samples that carry them."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from rlm.block import Block
from rlm.engine.batches import Step, epoch_order, step_sizes
from rlm.errors import InputError
from rlm.labels.encoders import classify
from rlm.labels.samples import Parts, Samples
from rlm.seeding import stream

SAMPLES_AT_ONCE, BYTES_AT_ONCE = 256, 64 * 2**20
Rows = Int64[np.ndarray, "_"]


class RandomLabels:
    """
    Random labels for samples, the same until the next shuffle.

    Parameters
    ----------
    seed
        Owner of the stream ``random_labels``.
    samples
        Number of samples to label, at least 1.
    classes
        Number of classes, at least 2, drawn uniformly and independently for every sample.
    group_size
        Instead of `classes`: put samples into random groups of this size, at least 1; each group is a class.

    Raises
    ------
    InputError
        If a number is too small, or not exactly one of `classes` and `group_size` is given.

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, section 3.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.RandomLabels(seed=0, samples=6, classes=3).draw(shuffle=0).tolist()
    [2, 0, 1, 2, 1, 2]
    """

    def __init__(self, seed: int, samples: int, classes: int | None = None, group_size: int | None = None) -> None:
        if (classes is None) == (group_size is None):
            raise InputError(f"expected classes or group_size, found {classes} and {group_size}; give one of them")
        if samples < 1 or (classes is not None and classes < 2) or (group_size is not None and group_size < 1):
            raise InputError(
                "expected at least one sample, two classes or groups of one sample, found "
                f"{samples} samples, {classes} classes, groups of {group_size}; give larger numbers"
            )
        self.seed = seed
        self.samples = samples
        self.group_size = group_size
        self.classes = -(-samples // group_size) if group_size is not None else classes

    def draw(self, shuffle: int) -> Int64[np.ndarray, " sample"]:
        """Return the labels of a shuffle, from 0 to `classes` - 1: the same in every call; the first shuffle is 0."""
        rng = stream(self.seed, "random_labels", shuffle)
        if self.group_size is None:
            return rng.integers(self.classes, size=self.samples)
        return rng.permutation(self.samples) // self.group_size


def check_alike(others: Samples, samples: Samples) -> None:
    """Require samples to pre-train on of the shape of those to fine-tune on."""
    found, expected = list(np.shape(others.inputs)[1:]), list(samples.inputs.shape[1:])
    if found != expected:
        raise InputError(
            f"expected samples to pre-train on of shape {expected}, as those to fine-tune on, found {found}; bring "
            "both to one size and number of channels"
        )


def without_copies(others: Samples, samples: Samples, parts: Parts) -> Parts:
    """Make all other samples training samples, except copies of validation and test samples."""
    held_out = {_hash(samples.inputs[row]) for row in np.concatenate([parts.validation, parts.test])}
    rows = np.array([row for row, one in enumerate(others.inputs) if _hash(one) not in held_out], np.int64)
    if not len(rows):
        raise InputError(f"expected samples not in validation or test, found none in {len(others)}; give others")
    return Parts(rows, rows[:0], rows[:0])


def _hash(one: Shaped[np.ndarray, "channel *size"]) -> bytes:
    """Hash a sample by its brightness in 0 to 255, so that its type does not count."""
    if one.dtype != np.uint8 and (one.min() < 0 or one.max() > 1):
        raise InputError(
            "expected brightness from 0 to 1 in samples of a floating type, to find copies among those to pre-train "
            f"on, found {one.min():g} to {one.max():g}; scale both, or give uint8"
        )
    whole = one if one.dtype == np.uint8 else np.round(255 * one).astype(np.int64).astype(np.uint8)
    return hashlib.sha256(whole.tobytes()).digest()


@dataclass(frozen=True)
class SampleTable:
    """All samples on the device that trains; each seed standardises them by `mean` and `sd` of its training pixels."""

    inputs: Shaped[Tensor, "sample *shape"]
    mean: Float[Tensor, "seed *one"]
    sd: Float[Tensor, "seed *one"]

    def __call__(self, rows: Int64[Tensor, "seed sample"]) -> Float32[Tensor, "seed sample *shape"]:
        """Look up standardised samples by their numbers, for each seed."""
        return (self.inputs[rows].float() - self.mean) / self.sd

    def rows(self, rows: Int[np.ndarray, " row"]) -> "SampleTable":
        """Return the table for the seeds at these places; it shares the samples."""
        return SampleTable(self.inputs, self.mean[rows], self.sd[rows])


def tabulate(samples: Samples, parts: Sequence[Parts], device: torch.device | str = "cpu") -> SampleTable:
    """
    Put samples on the device that trains.

    Parameters
    ----------
    samples
        Samples of a dataset.
    parts
        Parts of each seed, see `rlm.labels.divide`.
    device
        Where to keep the samples.

    Returns
    -------
    SampleTable
        The samples, standardised for each seed.

    Examples
    --------
    >>> import rlm
    >>> digits = rlm.labels.load_digits(100)
    >>> rlm.labels.tabulate(digits, [rlm.labels.divide(digits, seed=0)[0]]).inputs.shape
    torch.Size([100, 1, 8, 8])
    """
    # Sample by sample, since videos may fill most of the memory.
    moments = np.array(
        [(one.mean(dtype=np.float64), np.square(one, dtype=np.float64).mean()) for one in samples.inputs]
    )
    mean, square = np.array([moments[one.train].mean(axis=0) for one in parts]).T
    variance = square - mean**2
    sd = np.sqrt(np.where(variance > 1e-12 * square, variance, 1))  # equal pixels stay as they are
    shape = (len(parts),) + (1,) * samples.inputs.ndim
    with warnings.catch_warnings(action="ignore"):  # joblib maps the inputs read-only, and nothing here writes to them
        inputs = torch.from_numpy(samples.inputs)
    return SampleTable(
        inputs=inputs.to(device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device).view(shape),
        sd=torch.tensor(sd, dtype=torch.float32, device=device).view(shape),
    )


@dataclass(frozen=True)
class Labelled:
    """Samples of S seeds with labels; sample 0 pads `rows`, and `order` names the stream of their order."""

    table: SampleTable
    seeds: tuple[int, ...]
    rows: Int64[Tensor, "seed sample"]
    labels: Int64[Tensor, "seed sample"]
    sizes: tuple[int, ...]
    order: str = "order"

    def batches(self, epoch: int, batch_size: int) -> Iterator[Step]:
        """Yield all samples in a new random order."""
        order = epoch_order(self.seeds, self.sizes, epoch, self.order)
        yield from self._cut(torch.from_numpy(order).to(self.rows.device), batch_size)

    def accuracy(self, block: Block) -> Float64[np.ndarray, " seed"]:
        """Compute the share of samples whose label scores highest; 0 for a seed whose scores are not finite."""
        order = torch.arange(self.rows.shape[1], device=self.rows.device).expand_as(self.rows)
        right = torch.zeros(len(self.seeds), dtype=torch.float64, device=self.rows.device)
        of_all_seeds = len(self.seeds) * self.table.inputs[0].numel() * 4
        for batch in self._cut(order, min(max(BYTES_AT_ONCE // of_all_seeds, 1), SAMPLES_AT_ONCE)):
            scores = classify(block, batch.inputs)
            is_right = (scores.argmax(dim=2) == batch.targets) & scores.isfinite().all(dim=2) & batch.mask
            right += is_right.sum(dim=1)
        return right.cpu().numpy() / np.array(self.sizes)

    def keep(self, rows: Int[np.ndarray, " row"]) -> "Labelled":
        """Return the samples of the seeds at these places."""
        seeds, sizes = (tuple(of[row] for row in rows) for of in (self.seeds, self.sizes))
        return Labelled(self.table.rows(rows), seeds, self.rows[rows], self.labels[rows], sizes, self.order)

    def _cut(self, order: Int64[Tensor, "seed sample"], batch_size: int) -> Iterator[Step]:
        lengths = torch.tensor(self.sizes, device=order.device)[:, None]
        for number, place in enumerate(order.split(batch_size, dim=1)):
            sizes = step_sizes(self.sizes, number * batch_size, batch_size)
            yield Step(
                inputs=(self.table(self.rows.gather(1, place)), None, sizes),
                targets=self.labels.gather(1, place),
                mask=place < lengths,
                sizes=sizes,
            )


def attach(
    table: SampleTable, seeds: Sequence[int], rows: Sequence[Rows], labels: Sequence[Rows], order: str = "order"
) -> Labelled:
    """Attach labels to the samples of each seed; `order` names the stream in whose order batches take them."""
    longest = max(map(len, rows))
    padded = [
        torch.from_numpy(np.stack([np.pad(mine, (0, longest - len(mine))) for mine in of]).astype(np.int64)).to(
            table.inputs.device
        )
        for of in (rows, labels)
    ]
    return Labelled(table, tuple(seeds), *padded, tuple(map(len, rows)), order)


@dataclass(frozen=True)
class CrossEntropy:
    """The loss of classifiers; that of a sample does not depend on other samples."""

    needs_relevance: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "seed sample class"],
        labels: Int64[Tensor, "seed sample"],
        weights: Float[Tensor, "seed sample"],
        relevant: None = None,
    ) -> Float[Tensor, " seed"]:
        """Return each seed's mean over its samples."""
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (losses.view_as(labels) * weights).sum(dim=1)
