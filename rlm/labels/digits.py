"""Handwritten digits, as images and as clips of one moving digit."""

import numpy as np

from rlm.errors import InputError
from rlm.labels.samples import Samples
from rlm.seeding import stream

FRAMES, SIZE = 8, 16
# Steps down and to the right, per frame; a digit that leaves on one side comes back on the other.
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
    >>> load_digits(100).inputs.shape
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

    It is a small task of action recognition. A single frame has no information about the motion: every position, and
    every digit, is equally likely under each of them.

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
    >>> clips = make_moving_digits(24)
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
