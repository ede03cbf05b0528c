"""The paper's own study: random labels memorised as pre-training of a classifier; arms x seeds x labelled samples."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import pandas as pd
import torch

from rlm.block import Block
from rlm.config import DEFAULT_SEEDS
from rlm.engine.starts import begin
from rlm.errors import InputError
from rlm.evaluation.held_out import judge_history
from rlm.experiment import FROM_SCRATCH, check_request, collect, iter_experiment
from rlm.labels.batches import RandomLabels, SampleTable, attach, check_alike, tabulate, without_copies
from rlm.labels.config import LabelsConfig
from rlm.labels.encoders import MakeEncoder, check_batches, new_classifiers, transfer
from rlm.labels.samples import Parts, Samples, check_samples, divide, load_digits, make_moving_digits
from rlm.labels.training import SGD, learn, memorise
from rlm.runtime.device import resolve_device
from rlm.runtime.results import Table
from rlm.store.identity import Identity, digest_module, digest_values, identify, read_source
from rlm.store.read import StoredStudy, read_stored
from rlm.variants import REDRAW

TASK = "labels"
DATASETS = {"digits": load_digits, "moving-digits": make_moving_digits}
YOUR_SAMPLES = "data"  # what a config calls samples that are handed over without a name
LARGEST_BLOCK = 10
_RUN = {"arm": str, "seed": int}
_LABELLED = {"labelled": int, **_RUN}


class LabelsResult(NamedTuple):
    """
    Tables of a study of random labels.

    `results` has one row per number of labelled samples (labelled, 0 for all), arm and seed: validation_accuracy (best
    one), test_accuracy, best_epoch, epochs, chance (the accuracy of guessing), seconds (of its block, over the
    block's runs). A seed that diverged has no accuracies and counts as guessing; its best_epoch is 0. `history` has one
    row per epoch of fine-tuning: loss, validation_accuracy. `memorising` has one row per arm that starts from a
    pre-training (those that share one have equal rows), seed, shuffle and epoch, see `rlm.labels.memorise`.
    """

    results: pd.DataFrame
    history: pd.DataFrame
    memorising: pd.DataFrame

    TASK = TASK
    TABLES = {  # noqa: RUF012 - an annotation would make it a field
        "results": Table(
            _LABELLED,
            {"validation_accuracy": float, "test_accuracy": float, "best_epoch": int, "epochs": int}
            | {"chance": float, "seconds": float},
        ),
        "history": Table({**_LABELLED, "epoch": int}, {"loss": float, "validation_accuracy": float}),
        "memorising": Table(
            {**_RUN, "shuffle": int, "shuffle_epoch": int}, {"epoch": int, "loss": float, "accuracy": float}
        ),
    }


def _columns(name: str) -> list[str]:
    table = LabelsResult.TABLES[name]
    return [*table.keys, *table.values]


def read_labels(path: Path | str, study: int | None = None) -> StoredStudy:
    """
    Read one study of random labels from a store, also while a run is writing it.

    Parameters
    ----------
    path, study
        As in `rlm.read_study`.

    Returns
    -------
    rlm.store.read.StoredStudy
        Its config, the name of its encoder, all that is finished, and whether it was watched.

    Raises
    ------
    InputError
        As in `rlm.read_study`.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.read_labels("none.db")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    rlm.errors.InputError: expected a store of studies, found no file ...
    """
    return read_stored(path, TASK, LabelsConfig, study)


@dataclass(frozen=True)
class LabelStudy:
    """The experiment of `run_labels`, see `rlm.experiment.Experiment`."""

    config: LabelsConfig
    samples: Samples
    make_encoder: MakeEncoder | None = None
    pretrain_samples: Samples | None = None
    result: ClassVar = LabelsResult
    baseline, metric, failure = FROM_SCRATCH
    largest_block: ClassVar = LARGEST_BLOCK

    @property
    def arms(self) -> Sequence[str]:
        return self.config.arms

    @cached_property
    def device(self) -> torch.device:
        return resolve_device(self.config.device)

    def identify(self) -> Identity:
        make, shape = self.make_encoder, self.samples.inputs.shape[1:]
        own = []
        if make is not None:
            own = [read_source(make), digest_module(lambda: make(shape)), digest_values(make, "the encoder")]
        more = [] if self.pretrain_samples is None else [*(own or [None]), self.pretrain_samples.fingerprint]
        return identify(TASK, self.config.model_dump_json(exclude={"arms"}), self.samples.fingerprint, *(more or own))

    def check(self, seeds: Sequence[int]) -> None:
        check_samples(self.samples)
        if self.pretrain_samples is not None:
            check_alike(self.pretrain_samples, self.samples)
        block = new_classifiers(self.config, self.samples, len(self.samples.classes), seeds[:1], self.make_encoder)
        for labelled in self.config.labelled:
            for seed in seeds:
                size = None if labelled == "all" else labelled
                parts, rows = divide(self.samples, seed, self.config.fractions, size)
                sizes = {len(parts.train), len(rows)}
                if self.pretrain_samples is not None:
                    sizes.add(len(without_copies(self.pretrain_samples, self.samples, parts).train))
                check_batches(block, self.samples, sizes, self.config.batch_size)

    def start_of(self, arm: str) -> str | None:
        return REDRAW.get(arm)

    def run_block(self, arms: Sequence[str], seeds: Sequence[int]) -> LabelsResult:
        return run_labels_block(self.config, self.samples, arms, seeds, self.make_encoder, self.pretrain_samples)


def run_labels(
    config: LabelsConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    samples: Samples | None = None,
    make_encoder: MakeEncoder | None = None,
    pretrain_samples: Samples | None = None,
    db: Path | str | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> LabelsResult:
    """
    Train every arm with every seed and every number of labelled samples.

    Interrupted (Ctrl-C, or the stop button of a notebook), it returns the blocks that are finished, with a warning.

    Parameters
    ----------
    config
        What to study.
    seeds
        A number of seeds, counted from 0, or the seeds. Each has its own split, the same for all arms.
    samples
        Images or clips; loaded by ``config.dataset`` by default.
    make_encoder
        Makes your own encoder from the shape of a sample (channel, then sizes), in place of ``config.encoder``: an
        ``nn.Module`` from ``[sample, *shape]`` to ``[sample, dim]``, whose dim is its own. It may have batch
        normalisation, trained and evaluated as by PyTorch, and `rlm.zoo.Dropout`, but no other dropout.
    pretrain_samples
        Samples of the same shape to memorise random labels of, in place of the training samples; their own labels do
        not count. Copies of validation and test samples are excluded.
    db, n_jobs, progress
        As in `rlm.run_study`.

    Returns
    -------
    LabelsResult
        Tables as `rlm.labels.study.LabelsResult` describes them, in the order of the config and of the seeds.

    Raises
    ------
    InputError
        If the samples cannot be learnt from or divided, the encoder does not fit them or their batches, the seeds or
        the store cannot be used, or a process was killed, in which case the store keeps what was finished.
    KeyboardInterrupt
        If interrupted before any block is finished.

    References
    ----------
    Pondenkandath et al., "Leveraging random label memorization for unsupervised pre-training", arXiv 1811.01640.

    Examples
    --------
    >>> import rlm
    >>> config = rlm.labels.LabelsConfig(encoder="mlp", dim=8, shuffle_epochs=0, max_epochs=0)
    >>> digits = rlm.labels.load_digits(100)
    >>> study = rlm.labels.run_labels(config, seeds=1, samples=digits, n_jobs=1, progress=False)
    >>> study.results[["arm", "seed", "epochs"]].to_numpy().tolist()
    [['scratch', 0, 0], ['pretrained', 0, 0]]
    """
    settings = {"samples": samples, "make_encoder": make_encoder, "pretrain_samples": pretrain_samples}
    settings |= {"db": db, "n_jobs": n_jobs, "progress": progress}
    found, _ = collect(iter_labels(config, seeds, **settings), config.arms)
    return found


def iter_labels(
    config: LabelsConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    samples: Samples | None = None,
    make_encoder: MakeEncoder | None = None,
    pretrain_samples: Samples | None = None,
    db: Path | str | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[LabelsResult]:
    """Do as `run_labels`, block by block: first all that the store has, then each block as it is finished."""
    seeds = check_request(seeds, config.arms, db)
    resolve_device(config.device)
    if samples is None:
        samples = load_samples(config.dataset)
    elif config.dataset in DATASETS:  # of which these need not be
        config = config.model_copy(update={"dataset": samples.about.get("name") or YOUR_SAMPLES})
    yield from iter_experiment(
        LabelStudy(config, samples, make_encoder, pretrain_samples), seeds, db=db, n_jobs=n_jobs, progress=progress
    )


def load_samples(dataset: str) -> Samples:
    """Load the samples that a config names: ``"digits"`` or ``"moving-digits"``."""
    if dataset not in DATASETS:
        raise InputError(
            f"expected a dataset of {', '.join(DATASETS)}, found {dataset!r}; pass others as samples, from "
            "rlm.labels.load_image_folder or rlm.labels.load_video_folder"
        )
    return DATASETS[dataset]()


def run_labels_block(
    config: LabelsConfig,
    samples: Samples,
    arms: Sequence[str],
    seeds: Sequence[int],
    make_encoder: MakeEncoder | None = None,
    pretrain_samples: Samples | None = None,
) -> LabelsResult:
    """Train one block of seeds under arms that share a pre-training, from initialisation to test accuracy."""
    start = time.perf_counter()
    device = resolve_device(config.device)
    sizes = {0 if size == "all" else size: None if size == "all" else size for size in config.labelled}
    divided = {
        size: [divide(samples, seed, config.fractions, wanted) for seed in seeds] for size, wanted in sizes.items()
    }
    parts = [mine for mine, _ in next(iter(divided.values()))]
    table = tabulate(samples, parts, device)
    initial = new_classifiers(config, samples, len(samples.classes), seeds, make_encoder).to(device)
    begins, memorising = {"scratch": initial}, pd.DataFrame(columns=_columns("memorising"))
    optimizer = SGD(config.momentum, config.weight_decay) if config.optimizer == "sgd" else config.optimizer
    recipe = config.model_dump(include={"learning_rate", "batch_size"}) | {"optimizer": optimizer, "progress": False}
    (redraw,) = {REDRAW.get(arm) for arm in arms}
    if redraw is not None:
        source, shown, shown_parts = samples, table, parts
        if pretrain_samples is not None:
            source = replace(pretrain_samples, classes=samples.classes)  # whose number is that of random classes
            shown_parts = [without_copies(source, samples, one) for one in parts]
            shown = tabulate(source, shown_parts, device)
        labels = [_random_labels(config, source, seed, mine) for seed, mine in zip(seeds, shown_parts, strict=True)]
        untrained = new_classifiers(config, source, _most_classes(config, source), seeds, make_encoder).to(device)
        pretrained, memorising = memorise(
            untrained,
            shown,
            shown_parts,
            labels,
            shuffles=1 if redraw == "once" else config.shuffles,
            # As many epochs in all, at most: with until, those that shuffle may end sooner.
            epochs=config.shuffle_epochs * (config.shuffles if redraw == "once" else 1),
            until=None if redraw == "once" else config.until,
            new_head=config.new_head,
            **recipe,
        )
        starts = {arm: begin(arm, untrained, pretrained) for arm in arms}
        begins |= {arm: transfer(initial, start, config.transfer) for arm, start in starts.items()}
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
                **recipe,
            )
            results.append(_judge(block, samples, table, parts, history).assign(labelled=size, arm=arm))
            histories.append(history.assign(labelled=size, arm=arm))
    found = pd.concat(results, ignore_index=True)
    seconds = (time.perf_counter() - start) / len(found)
    history = pd.concat(histories, ignore_index=True)[_columns("history")]
    # Arms that share a pre-training have the same rows, so that each arm's are complete in any selection of arms.
    shared = [memorising.assign(arm=arm)[_columns("memorising")] for arm in arms] if len(memorising) else [memorising]
    return LabelsResult(
        found.assign(seconds=seconds)[_columns("results")],
        history,
        pd.concat(shared, ignore_index=True),
    )


def _most_classes(config: LabelsConfig, samples: Samples) -> int:
    """Return the most random classes that a training part can have, so that a head does not depend on its block."""
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
    judged = judge_history(history, block.seeds)
    tested = [one.test for one in parts]
    accuracy = attach(table, block.seeds, tested, [samples.labels[rows] for rows in tested]).accuracy(block)
    judged["test_accuracy"] = pd.Series(accuracy, judged.index).mask(judged["has_diverged"])
    return judged.drop(columns="has_diverged").assign(chance=1 / len(samples.classes)).reset_index()
