"""Labels to train on, real ones or random ones, and the batches of samples that carry them."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from rlm.block import Block
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
        How many samples to label.
    classes
        So many classes, each as likely for every sample, whatever the other samples got.
    group_size
        In place of `classes`: random groups of so many samples, each group a class of its own.

    References
    ----------
    Pondenkandath et al., arXiv 1811.01640, section 3.
    """

    def __init__(self, seed: int, samples: int, classes: int | None = None, group_size: int | None = None) -> None:
        if (classes is None) == (group_size is None):
            raise InputError(f"expected classes or group_size, found {classes} and {group_size}; give one of them")
        if samples < 1 or (classes is not None and classes < 2) or (group_size is not None and group_size < 1):
            raise InputError(
                "expected at least one sample, two classes or groups of one sample, found "
                f"{samples} samples, {classes} classes, groups of {group_size}"
            )
        self.seed = seed
        self.samples = samples
        self.group_size = group_size
        self.classes = -(-samples // group_size) if group_size is not None else classes

    def draw(self, shuffle: int) -> Int64[np.ndarray, " sample"]:
        """
        The labels after so many shuffles.

        Parameters
        ----------
        shuffle
            0 for the first labels.

        Returns
        -------
        numpy.ndarray
            From 0 to `classes` - 1, the same whenever they are asked for.
        """
        rng = stream(self.seed, "random_labels", shuffle)
        if self.group_size is None:
            return rng.integers(self.classes, size=self.samples)
        return rng.permutation(self.samples) // self.group_size


@dataclass(frozen=True)
class LabelledBatch:
    """
    Samples of S seeds with their labels: one training step, see `rlm.engine.trainer.Trainable`.

    Attributes
    ----------
    images
        Standardised.
    labels
        Numbers of classes.
    is_real
        False where a sample only fills up the batch.
    sizes
        Samples of each seed that do not fill up.
    """

    images: Float32[Tensor, "seed sample *shape"]
    labels: Int64[Tensor, "seed sample"]
    is_real: Bool[Tensor, "seed sample"]
    sizes: tuple[int, ...]

    @property
    def inputs(self) -> tuple[Tensor]:
        """What `Block.embed` takes."""
        return (self.images,)

    @property
    def targets(self) -> Int64[Tensor, "seed sample"]:
        """What the loss compares the logits with."""
        return self.labels

    @property
    def weights(self) -> Float32[Tensor, "seed sample"]:
        """Share of each sample in the mean of its seed; all zero for a seed without samples."""
        return self.is_real / self.is_real.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class SampleTable:
    """
    All samples, as each seed of a block sees them, on the device that trains; made by `tabulate`.

    Attributes
    ----------
    inputs
        Of all samples, once.
    mean, sd
        Of the pixels that each seed trains on, by which it standardises all.
    """

    inputs: Shaped[Tensor, "sample *shape"]
    mean: Float[Tensor, "seed *one"]
    sd: Float[Tensor, "seed *one"]

    def __call__(self, rows: Int64[Tensor, "seed sample"]) -> Float32[Tensor, "seed sample *shape"]:
        """
        Look up samples.

        Parameters
        ----------
        rows
            Numbers of samples, for each seed.

        Returns
        -------
        torch.Tensor
            Standardised inputs.
        """
        return (self.inputs[rows].float() - self.mean) / self.sd

    def rows(self, rows: Int[np.ndarray, " row"]) -> "SampleTable":
        """
        The same for some of the seeds.

        Parameters
        ----------
        rows
            Their places.

        Returns
        -------
        SampleTable
            Shares the samples.
        """
        return SampleTable(self.inputs, self.mean[rows], self.sd[rows])


def tabulate(samples: Samples, parts: Sequence[Parts], device: torch.device | str = "cpu") -> SampleTable:
    """
    Put samples where they are trained on.

    Parameters
    ----------
    samples
        Of a dataset.
    parts
        Of each seed.
    device
        Where to keep the samples.

    Returns
    -------
    SampleTable
        Of these seeds.
    """
    # Sample by sample, since videos may fill most of the memory.
    moments = np.array(
        [(one.mean(dtype=np.float64), np.square(one, dtype=np.float64).mean()) for one in samples.inputs]
    )
    mean, square = np.array([moments[one.train].mean(axis=0) for one in parts]).T
    shape = (len(parts),) + (1,) * samples.inputs.ndim
    with warnings.catch_warnings(action="ignore"):  # joblib maps the inputs read-only, and nothing here writes to them
        inputs = torch.from_numpy(samples.inputs)
    return SampleTable(
        inputs=inputs.to(device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device).view(shape),
        sd=torch.tensor(square - mean**2, dtype=torch.float32, device=device).clamp(min=1e-12).sqrt().view(shape),
    )


@dataclass(frozen=True)
class Labelled:
    """
    Samples of S seeds with labels; made by `attach`.

    Attributes
    ----------
    table
        Has the samples.
    seeds
        Owners of the stream `order`.
    rows
        Numbers of samples; sample 0 fills up seeds that have fewer.
    labels
        Of these samples.
    sizes
        How many samples each seed has.
    order
        Stream of the order of the samples.
    """

    table: SampleTable
    seeds: tuple[int, ...]
    rows: Int64[Tensor, "seed sample"]
    labels: Int64[Tensor, "seed sample"]
    sizes: tuple[int, ...]
    order: str = "order"

    def batches(self, epoch: int, batch_size: int) -> Iterator[LabelledBatch]:
        """
        All samples in a new random order.

        Parameters
        ----------
        epoch
            Number of the epoch.
        batch_size
            Samples per batch and seed.

        Yields
        ------
        LabelledBatch
            One training step.
        """
        longest = self.rows.shape[1]
        order = np.stack(
            [
                np.append(stream(seed, self.order, epoch).permutation(size), np.arange(size, longest))
                for seed, size in zip(self.seeds, self.sizes, strict=True)
            ]
        )
        yield from self._cut(torch.from_numpy(order).to(self.rows.device), batch_size)

    def accuracy(self, block: Block) -> Float64[np.ndarray, " seed"]:
        """
        Share of samples whose label scores highest.

        Parameters
        ----------
        block
            Classifiers of the same seeds.

        Returns
        -------
        numpy.ndarray
            Values in [0, 1]; 0 for a seed whose scores are not finite.
        """
        order = torch.arange(self.rows.shape[1], device=self.rows.device).expand_as(self.rows)
        right = torch.zeros(len(self.seeds), dtype=torch.float64, device=self.rows.device)
        of_all_seeds = len(self.seeds) * self.table.inputs[0].numel() * 4
        for batch in self._cut(order, min(max(BYTES_AT_ONCE // of_all_seeds, 1), SAMPLES_AT_ONCE)):
            scores = classify(block, batch.images)
            is_right = (scores.argmax(dim=2) == batch.labels) & scores.isfinite().all(dim=2) & batch.is_real
            right += is_right.sum(dim=1)
        return right.cpu().numpy() / np.array(self.sizes)

    def keep(self, rows: Int[np.ndarray, " row"]) -> "Labelled":
        """
        The same for some of the seeds.

        Parameters
        ----------
        rows
            Their places.

        Returns
        -------
        Labelled
            Shares the samples.
        """
        seeds, sizes = (tuple(of[row] for row in rows) for of in (self.seeds, self.sizes))
        return Labelled(self.table.rows(rows), seeds, self.rows[rows], self.labels[rows], sizes, self.order)

    def _cut(self, order: Int64[Tensor, "seed sample"], batch_size: int) -> Iterator[LabelledBatch]:
        sizes = torch.tensor(self.sizes, device=order.device)[:, None]
        for start, place in zip(range(0, order.shape[1], batch_size), order.split(batch_size, dim=1), strict=True):
            yield LabelledBatch(
                images=self.table(self.rows.gather(1, place)),
                labels=self.labels.gather(1, place),
                is_real=place < sizes,
                sizes=tuple(min(max(size - start, 0), batch_size) for size in self.sizes),
            )


def attach(
    table: SampleTable, seeds: Sequence[int], rows: Sequence[Rows], labels: Sequence[Rows], order: str = "order"
) -> Labelled:
    """
    Attach labels to samples.

    Parameters
    ----------
    table
        Has the samples.
    seeds
        Of the block.
    rows
        Numbers of samples, for each seed.
    labels
        Of these samples.
    order
        Stream of the order in which batches take the samples.

    Returns
    -------
    Labelled
        On the device of the table.
    """
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
    """
    What a classifier is trained to minimise.

    Attributes
    ----------
    compares
        No sample's loss depends on other samples.
    """

    compares: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "seed sample class"],
        labels: Int64[Tensor, "seed sample"],
        shares: Float[Tensor, "seed sample"],
        relevant: None = None,
    ) -> Float[Tensor, " seed"]:
        """
        The loss of each seed.

        Parameters
        ----------
        logits
            Of a batch's samples.
        labels
            What they should have been.
        shares
            Of each sample in the mean of its seed.
        relevant
            As of any objective; nothing here.

        Returns
        -------
        torch.Tensor
            Mean over the samples.
        """
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (losses.view_as(labels) * shares).sum(dim=1)
