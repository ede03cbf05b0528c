"""Samples: images or clips with class labels, their division into parts, and two sets of handwritten digits."""

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64, Shaped

from rlm.errors import InputError
from rlm.seeding import stream

FRACTIONS = (0.7, 0.15, 0.15)
FRAMES, SIZE = 8, 16
# Steps down and to the right, per frame; a digit that crosses one edge enters at the opposite one.
MOTIONS = {
    "down": (1, 0),
    "up": (-1, 0),
    "right": (0, 1),
    "left": (0, -1),
    "down and right": (1, 1),
    "down and left": (1, -1),
    "up and right": (-1, 1),
    "up and left": (-1, -1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """
    Images or clips, all of one shape, each with one label.

    Attributes
    ----------
    inputs
        Channel, then height and width of an image, or frame, height and width of a clip. Brightness in [0, 1], or
        in 0 to 255 as uint8, which needs a quarter of the memory.
    labels, classes
        Class numbers from 0, and the names of at least two classes.
    official
        ``"train"``, ``"validation"`` or ``"test"`` for each sample, if the dataset has such a split. If it has no
        ``"validation"``, a share of the training samples is drawn for it.
    groups
        A split never divides the samples of one group, since they show the same thing; by default there are none.
    about, skipped
        Source (``name``, ``title``, ``licence``), and unusable files with the columns path and reason.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> len(rlm.labels.Samples(np.zeros((6, 1, 4, 4)), np.arange(6) % 2, ("cat", "dog")))
    6
    """

    inputs: Shaped[np.ndarray, "sample channel *size"]
    labels: Int64[np.ndarray, " sample"]
    classes: tuple[str, ...]
    official: Shaped[np.ndarray, " sample"] | None = None
    groups: Int64[np.ndarray, " sample"] | None = None
    about: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=["path", "reason"]))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what is learned from the samples."""
        found = hashlib.sha256(repr((self.inputs.shape, self.inputs.dtype, self.classes)).encode())
        for part in (self.inputs, self.labels, self.official, self.groups):
            found.update(b"none" if part is None else np.ascontiguousarray(part).view(np.uint8))
        return found.hexdigest()


class Parts(NamedTuple):
    """The numbers of the samples that a seed trains, validates and tests on, ascending; no sample is in two parts."""

    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]


def check_samples(samples: Samples) -> None:
    """Require consistent sizes, integer labels of known classes, and at least three samples of each class."""
    inputs, labels, classes = samples.inputs, samples.labels, samples.classes
    for name, given in (("inputs", inputs), ("labels", labels)):
        if not isinstance(given, np.ndarray):
            raise InputError(f"expected {name} as a NumPy array, found {type(given).__name__}; numpy.asarray makes one")
    if inputs.ndim not in (4, 5) or len(inputs) != len(labels):
        raise InputError(
            "expected inputs [sample, channel, height, width], or with frames before the height, and one label for "
            f"each, found inputs {list(inputs.shape)} and {len(labels)} labels; bring both into that shape"
        )
    if 0 in inputs.shape[1:]:
        raise InputError(f"expected samples of at least one number each, found inputs {list(inputs.shape)}")
    if inputs.dtype != np.uint8 and not (np.issubdtype(inputs.dtype, np.floating) and np.isfinite(inputs).all()):
        raise InputError(
            f"expected inputs of type uint8, or finite numbers of a floating type, found {inputs.dtype}; convert them"
        )
    if np.ndim(labels) != 1 or not len(labels):
        raise InputError(f"expected a list of labels, one per sample, found labels of shape {list(np.shape(labels))}")
    for name in ("official", "groups"):
        given = getattr(samples, name)
        if given is not None and np.shape(given) != np.shape(labels):
            raise InputError(f"expected {name} of every sample, {len(labels)} in all, found {list(np.shape(given))}")
    official = set() if samples.official is None else set(np.unique(samples.official))
    if unknown := official - set(Parts._fields):
        found = ", ".join(sorted(map(str, unknown)))
        raise InputError(f"expected official to be train, validation or test, found {found}; rename these")
    if official and not official >= {"train", "test"}:
        raise InputError(f"expected train and test in official, found {', '.join(sorted(official))}; add the other")
    if not np.issubdtype(np.asarray(labels).dtype, np.integer):
        found = np.asarray(labels)[:3].tolist()
        raise InputError(
            f"expected labels that are integers, found {found} of type {np.asarray(labels).dtype}; number the classes "
            "from 0, as numpy.unique(labels, return_inverse=True) does"
        )
    if len(classes) < 2:
        raise InputError(f"expected at least two classes, found {len(classes)}; add one")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(
            f"expected labels from 0 to {len(classes) - 1}, one per class, found {labels.min()} to {labels.max()}; "
            "number the classes from 0"
        )
    counts = np.bincount(labels, minlength=len(classes))
    if (counts < 3).any():
        few = ", ".join(f"{classes[number]} ({counts[number]})" for number in np.flatnonzero(counts < 3)[:5])
        raise InputError(
            f"expected at least 3 samples of each class, to train, to validate and to test, found {few}; add samples "
            "or drop these classes"
        )


def divide(
    samples: Samples, seed: int, fractions: tuple[float, float, float] = FRACTIONS, labelled: int | None = None
) -> tuple[Parts, Int64[np.ndarray, " labelled"]]:
    """
    Divide samples at random, class by class, into parts to train, validate and test on.

    Parameters
    ----------
    samples
        A dataset.
    seed
        Owner of the streams ``split`` and ``train_fraction``.
    fractions
        Shares of the three parts, positive, with the sum 1. An official test part is kept, and the rest is divided in
        the ratio of the first two. If the dataset has all three parts, every seed uses them.
    labelled
        Number of training samples that keep their labels, about equal for all classes; all by default.

    Returns
    -------
    Parts
        Numbers of the samples in each part: whole groups, each class in every part.
    numpy.ndarray
        The training samples with labels, ascending. A larger number includes the smaller one of the same seed.

    Raises
    ------
    InputError
        If a class would be missing in a part, or `labelled` is below the number of classes or above that of samples.

    Examples
    --------
    >>> import rlm
    >>> from rlm.labels import load_digits
    >>> parts, labelled = rlm.labels.divide(load_digits(200), seed=0, labelled=20)
    >>> [len(part) for part in parts], len(labelled)
    ([140, 30, 30], 20)
    """
    shares = np.array(fractions)
    if (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"expected three positive fractions with the sum 1, found {fractions}")
    if samples.official is not None and (samples.official == "validation").any():
        part = np.array([Parts._fields.index(name) for name in samples.official])
    else:
        part = _deal(samples, seed, shares)
    parts = Parts(*(np.flatnonzero(part == number) for number in range(3)))
    for name, rows in parts._asdict().items():
        missing = np.setdiff1d(np.arange(len(samples.classes)), samples.labels[rows])
        if len(missing):
            raise InputError(
                f"expected every class in the {name} part, found none of {samples.classes[missing[0]]}; add samples of "
                "it, or drop the class"
            )
    return parts, _keep_labels(samples, parts.train, seed, labelled)


def _deal(samples: Samples, seed: int, shares: Float64[np.ndarray, "3"]) -> Int64[np.ndarray, " sample"]:
    """Assign every sample the number of its part, at random, except for an official test part."""
    rng = stream(seed, "split")
    groups = np.arange(len(samples)) if samples.groups is None else np.unique(samples.groups, return_inverse=True)[1]
    is_official = samples.official is not None
    if is_official:
        shares = np.append(shares[:2] / shares[:2].sum(), 0.0)
    part, place = np.full(len(samples), 2), np.full(groups.max() + 1, -1)
    for label in range(len(samples.classes)):
        mine = np.flatnonzero((samples.labels == label) & (not is_official or samples.official != "test"))
        theirs = rng.permutation(np.unique(groups[mine]))
        if len(theirs) < (shares > 0).sum():
            what = "samples" if samples.groups is None else "groups of samples"
            where = " beside the official test part" if is_official else ""
            raise InputError(
                f"expected at least {(shares > 0).sum()} {what} of each class, one for each part, found {len(theirs)} "
                f"of {samples.classes[label]}{where}; add some, or drop the class"
            )
        theirs = theirs[place[theirs] < 0]  # a group that several classes share is placed once
        # At least one group for each part that is cut off here.
        cuts = np.maximum(np.round(shares[1:] * len(theirs)), shares[1:] > 0).astype(int)
        place[theirs] = np.repeat([2, 1, 0], [cuts[1], cuts[0], len(groups)])[: len(theirs)]
        part[mine] = place[groups[mine]]
    return part


def _keep_labels(
    samples: Samples, train: Int64[np.ndarray, " train"], seed: int, labelled: int | None
) -> Int64[np.ndarray, " labelled"]:
    if labelled is None:
        return train
    if not len(samples.classes) <= labelled <= len(train):
        raise InputError(
            f"expected labelled from {len(samples.classes)}, one of each class, to {len(train)}, all that are trained "
            f"on, found {labelled}"
        )
    order = stream(seed, "train_fraction").permutation(train)
    # In rounds: the first of each class, then the second …, so that classes stay as even as they can be.
    turn = pd.Series(samples.labels[order]).groupby(samples.labels[order]).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")[:labelled]])


def load_digits(images: int | None = None) -> Samples:
    """
    Load the 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn.

    Parameters
    ----------
    images
        Number of images, from the first one on, at least 100; all by default. Every ten or so show each digit once.

    Returns
    -------
    Samples
        Images of one channel, brightness in [0, 1]; the classes are the digits.

    Raises
    ------
    InputError
        If `images` is below 100 or above 1,797.

    References
    ----------
    Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.load_digits(100).inputs.shape
    (100, 1, 8, 8)
    """
    from sklearn import datasets  # takes a second; most studies need no digits

    digits = datasets.load_digits()
    if images is not None and not 100 <= images <= len(digits.images):
        raise InputError(f"expected from 100 to {len(digits.images)} images, found {images}")
    return Samples(
        inputs=(digits.images[:images, None] / 16).astype(np.float32),
        labels=digits.target[:images].astype(np.int64),
        classes=tuple(map(str, digits.target_names)),
        about={
            "name": "digits",
            "title": "Handwritten digits (Alpaydin and Kaynak, UCI), images of 8 x 8 pixels",
            "licence": "CC-BY-4.0",
        },
    )


def make_moving_digits(clips: int = 1797, seed: int = 0) -> Samples:
    """
    Make clips of 8 frames of 16 x 16 pixels: one real handwritten digit under one of eight motions, which is the label.

    A single frame has no information about the motion: every position and digit is equally likely under each of them.

    Parameters
    ----------
    clips
        Number of clips, at least 24. Digits are repeated only after all 1,797 are used; clips of one digit are a group.
    seed
        Owner of the stream ``motion``.

    Returns
    -------
    Samples
        Clips of one channel, brightness in [0, 1]; the numbers of clips per motion differ by at most one.

    Raises
    ------
    InputError
        If `clips` is below 24.

    Examples
    --------
    >>> import rlm
    >>> clips = rlm.labels.make_moving_digits(24)
    >>> clips.inputs.shape, clips.classes[:2]
    ((24, 1, 8, 16, 16), ('down', 'up'))
    """
    if clips < 3 * len(MOTIONS):
        raise InputError(f"expected at least {3 * len(MOTIONS)} clips, three of each motion, found {clips}")
    digits = load_digits().inputs[:, 0]
    rng = stream(seed, "motion")
    rounds = -(-clips // len(digits))
    shown = np.concatenate([rng.permutation(len(digits)) for _ in range(rounds)])[:clips]
    labels = rng.permutation(np.arange(clips) % len(MOTIONS))
    start = rng.integers(SIZE, size=(clips, 2))
    steps = np.array(list(MOTIONS.values()))[labels]
    corner = start[:, None] + np.arange(FRAMES)[:, None] * steps[:, None]  # [clip, frame, axis]
    height, width = digits.shape[1:]
    rows, columns = ((corner[..., axis, None] + np.arange(size)) % SIZE for axis, size in enumerate((height, width)))
    inputs = np.zeros((clips, 1, FRAMES, SIZE, SIZE), np.float32)
    clip, frame = np.ogrid[:clips, :FRAMES]
    inputs[clip[..., None, None], 0, frame[..., None, None], rows[..., None], columns[..., None, :]] = digits[
        shown, None
    ]
    return Samples(
        inputs=inputs,
        labels=labels.astype(np.int64),
        classes=tuple(MOTIONS),
        groups=shown.astype(np.int64),
        about={
            "name": "moving-digits",
            "title": f"Moving digits: {clips:,} generated clips of real handwritten digits, eight motions",
            "licence": "CC-BY-4.0",
        },
    )
