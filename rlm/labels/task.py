"""One task of a study of random labels: one block of seeds, from initialisation to test accuracy."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from rlm.arms import device_of
from rlm.block import Block, init_block
from rlm.config import REDRAW, Arm
from rlm.controls import rescale, shuffle
from rlm.errors import InputError
from rlm.labels.batches import RandomLabels, SampleTable, attach, tabulate
from rlm.labels.config import LabelsConfig
from rlm.labels.digits import load_digits, make_moving_digits
from rlm.labels.encoders import IMAGE_ENCODERS, Classifier, layers_of, transfer
from rlm.labels.samples import Parts, Samples, divide
from rlm.labels.training import learn, memorise

DATASETS = {"digits": load_digits, "moving-digits": make_moving_digits}
DEFAULT_ENCODERS = {3: "cnn", 4: "cnn3d"}
RESULTS = [
    *("labelled", "arm", "seed", "validation_accuracy", "test_accuracy", "best_epoch", "epochs", "diverged"),
    "seconds",
]
PRETRAINED = {"epoch": "pretrained", "once": "pretrained_once"}
HISTORY = ["labelled", "arm", "seed", "epoch", "loss", "validation_accuracy"]
MEMORISING = ["arm", "seed", "epoch", "shuffle", "shuffle_epoch", "loss", "accuracy"]


class LabelsResult(NamedTuple):
    """
    What a study of random labels gave.

    Attributes
    ----------
    results
        One row per number of labelled samples, arm and seed: labelled (0 for all), arm, seed, validation_accuracy (at
        the best epoch), test_accuracy, best_epoch, epochs, diverged (0 or 1), seconds (of its block, over the block's
        runs). The accuracies of a seed that diverged are those of guessing, and its best_epoch is 0.
    history
        One row per number of labelled samples, arm, seed and epoch of fine-tuning: loss, validation_accuracy.
    memorising
        One row per pre-training (arm pretrained, also for its controls, or pretrained_once), seed, shuffle and epoch,
        see `rlm.labels.memorise`.
    """

    results: pd.DataFrame
    history: pd.DataFrame
    memorising: pd.DataFrame


def load_samples(dataset: str) -> Samples:
    """
    Load samples by name.

    Parameters
    ----------
    dataset
        ``"digits"`` or ``"moving-digits"``.

    Returns
    -------
    Samples
        Labelled.

    Raises
    ------
    InputError
        If there is no such dataset.
    """
    if dataset not in DATASETS:
        raise InputError(
            f"expected a dataset of {', '.join(DATASETS)}, found {dataset!r}; pass others as samples, from "
            "rlm.labels.load_image_folder or rlm.labels.load_video_folder"
        )
    return DATASETS[dataset]()


def run_labels_block(config: LabelsConfig, samples: Samples, arms: Sequence[Arm], seeds: Sequence[int]) -> LabelsResult:
    """
    Train one block of seeds, from initialisation to test accuracy.

    Parameters
    ----------
    config
        What to study.
    samples
        Of the dataset.
    arms
        Those to train; they share one pre-training, or have none, see `REDRAW`.
    seeds
        Trained together; a seed's draws do not depend on which others are.

    Returns
    -------
    LabelsResult
        Of these arms and seeds.
    """
    start = time.perf_counter()
    device = device_of(config.device)
    sizes = {0 if size == "all" else size: None if size == "all" else size for size in config.labelled}
    divided = {
        size: [divide(samples, seed, config.fractions, wanted) for seed in seeds] for size, wanted in sizes.items()
    }
    parts = [mine for mine, _ in next(iter(divided.values()))]
    table = tabulate(samples, parts, device)
    initial = new_classifiers(config, samples, len(samples.classes), seeds).to(device)
    begins, memorising = {"scratch": initial}, pd.DataFrame(columns=MEMORISING)
    (redraw,) = {REDRAW.get(arm) for arm in arms}
    if redraw is not None:
        labels = [_random_labels(config, samples, seed, mine) for seed, mine in zip(seeds, parts, strict=True)]
        untrained = new_classifiers(config, samples, _most_classes(config, samples), seeds).to(device)
        pretrained, memorising = memorise(
            untrained,
            table,
            parts,
            labels,
            shuffles=1 if redraw == "once" else config.shuffles,
            # As many epochs in all, at most: with until, those that shuffle may end sooner.
            epochs=config.shuffle_epochs * (config.shuffles if redraw == "once" else 1),
            until=None if redraw == "once" else config.until,
            new_head=config.new_head,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            progress=False,
        )
        kinds = {"rescaled": lambda: rescale(untrained, pretrained), "shuffled": lambda: shuffle(pretrained)}
        layers = None if config.transfer == "all" else config.transfer
        begins |= {arm: transfer(initial, kinds.get(arm, lambda: pretrained)(), layers) for arm in arms}
    results, histories = [], []
    for size, mine in divided.items():
        for arm in arms:
            block, history = learn(
                begins[arm],
                table,
                samples,
                parts,
                [labelled for _, labelled in mine],
                max_epochs=config.max_epochs,
                patience=config.patience,
                learning_rate=config.learning_rate,
                batch_size=config.batch_size,
                progress=False,
            )
            results.append(_judge(block, samples, table, parts, history).assign(labelled=size, arm=arm))
            histories.append(history.assign(labelled=size, arm=arm))
    found = pd.concat(results, ignore_index=True)
    seconds = (time.perf_counter() - start) / len(found)
    history = pd.concat(histories, ignore_index=True)[HISTORY]
    # The arms of one block share their pre-training; it is noted once, under the arm that hands it on as it is.
    return LabelsResult(
        found.assign(seconds=seconds)[RESULTS], history, memorising.assign(arm=PRETRAINED.get(redraw))[MEMORISING]
    )


def new_classifiers(config: LabelsConfig, samples: Samples, classes: int, seeds: Sequence[int]) -> Block:
    """
    Classifiers before any training.

    Parameters
    ----------
    config
        Names the encoder.
    samples
        Say what shape an input has.
    classes
        How many.
    seeds
        Of the block. A seed's encoder is the same for any number of classes.

    Returns
    -------
    Block
        Of `Classifier`.

    Raises
    ------
    InputError
        If the encoder is for another kind of input, or has fewer layers than are to be transferred.
    """
    shape = samples.inputs.shape[1:]
    name = config.encoder or DEFAULT_ENCODERS[len(shape)]
    fits = {"cnn": 3, "cnn3d": 4}.get(name, len(shape))
    if fits != len(shape):
        kind = "images" if len(shape) == 3 else "clips"
        raise InputError(f"expected encoder {DEFAULT_ENCODERS[len(shape)]} or mlp for {kind}, found {name}")
    example = torch.zeros(2, *shape)
    block = init_block(lambda: Classifier(IMAGE_ENCODERS[name](shape, config.dim), config.dim, classes), seeds, example)
    layers = layers_of(block.encoder.encoder)
    if config.transfer != "all" and config.transfer > len(layers):
        raise InputError(
            f"expected to transfer at most {len(layers)} layers, which {name} has, found {config.transfer}"
        )
    return block


def _most_classes(config: LabelsConfig, samples: Samples) -> int:
    """As many random classes as any seed's training part could have, so that a head does not depend on its block."""
    if config.group_size is not None:
        return max(-(-len(samples) // config.group_size), 2)
    return config.random_classes or len(samples.classes)


def _random_labels(config: LabelsConfig, samples: Samples, seed: int, parts: Parts) -> RandomLabels:
    if config.group_size is not None:
        return RandomLabels(seed, len(parts.train), group_size=config.group_size)
    return RandomLabels(seed, len(parts.train), config.random_classes or len(samples.classes))


def _judge(
    block: Block, samples: Samples, table: SampleTable, parts: Sequence[Parts], history: pd.DataFrame
) -> pd.DataFrame:
    seeds = list(block.seeds)
    by_seed = history.fillna({"validation_accuracy": 0.0}).groupby("seed")
    best = history.loc[by_seed["validation_accuracy"].idxmax()].set_index("seed").loc[seeds]
    is_lost = ~np.isfinite(history["loss"]) & (history["epoch"] > 0)
    diverged = is_lost.groupby(history["seed"]).any()[seeds].to_numpy()
    tested = [one.test for one in parts]
    chance = 1 / len(samples.classes)
    accuracy = attach(table, seeds, tested, [samples.labels[rows] for rows in tested]).accuracy(block)
    return pd.DataFrame(
        {
            "seed": seeds,
            "validation_accuracy": np.where(diverged, chance, best["validation_accuracy"].to_numpy()),
            "test_accuracy": np.where(diverged, chance, accuracy),
            "best_epoch": np.where(diverged, 0, best["epoch"].to_numpy()),
            "epochs": by_seed["epoch"].max()[seeds].to_numpy(),
            "diverged": diverged.astype(int),
        }
    )
