"""The paper's own study: random labels memorised as pre-training of a classifier; arms x seeds x labelled samples."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from rlm.arms import device_of
from rlm.labels.config import LabelsConfig
from rlm.labels.samples import Samples, check_samples, divide
from rlm.labels.task import DATASETS, LabelsResult, load_samples, new_classifiers, run_labels_block
from rlm.runtime.parallel import check_seeds, iter_blocks
from rlm.store.identity import identify_labels
from rlm.store.read import StoredLabels, read_labels
from rlm.store.schema import check_file
from rlm.store.write import writing
from rlm.task import join, mark

__all__ = ["StoredLabels", "iter_labels", "read_labels", "run_labels"]
YOUR_SAMPLES = "data"  # what a config calls samples that are handed over without a name
LARGEST_BLOCK = 10


def run_labels(
    config: LabelsConfig,
    seeds: int | Sequence[int] = 20,
    *,
    samples: Samples | None = None,
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
        A number of seeds, counted from 0, or the seeds. Each has a split of its own, the same for all arms.
    samples
        Images or clips; loaded by ``config.dataset`` by default.
    db
        SQLite file to keep every finished block in, see `rlm.run_study`.
    n_jobs
        Processes; -1 for one per core.
    progress
        Show a progress bar.

    Returns
    -------
    LabelsResult
        In the order of the config and of the seeds. The tables have ``attrs["watched"]``, see `rlm.run_study`.

    Raises
    ------
    InputError
        If the samples cannot be learnt from or divided, the encoder does not fit them, the seeds or the store cannot be
        used, or a process was killed, in which case the store keeps what was finished.
    KeyboardInterrupt
        If interrupted before any block is finished.

    References
    ----------
    Pondenkandath et al., "Leveraging random label memorization for unsupervised pre-training", arXiv 1811.01640.
    """
    finished = []
    try:
        for block in iter_labels(config, seeds, samples=samples, db=db, n_jobs=n_jobs, progress=progress):
            finished.append(block)
    except KeyboardInterrupt:
        if not finished:
            raise
        warnings.warn(f"interrupted: these are the {len(finished)} blocks of seeds that were finished", stacklevel=2)
        mark(finished[-1], True)
    return join(finished, config.arms)


def iter_labels(
    config: LabelsConfig,
    seeds: int | Sequence[int] = 20,
    *,
    samples: Samples | None = None,
    db: Path | str | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[LabelsResult]:
    """
    Run a study of random labels block by block.

    Parameters
    ----------
    config, seeds, samples, db, n_jobs, progress
        As in `run_labels`.

    Yields
    ------
    LabelsResult
        What the store has of it already, if anything; then each block as it is finished, in no particular order.

    Raises
    ------
    InputError
        As in `run_labels`.
    """
    seeds = check_seeds(seeds)
    if db is not None:
        check_file(db)
    if samples is None:
        samples = load_samples(config.dataset)
    elif config.dataset in DATASETS:  # of which these need not be
        config = config.model_copy(update={"dataset": samples.about.get("name") or YOUR_SAMPLES})
    # What cannot be used fails here, before any process starts.
    check_samples(samples)
    new_classifiers(config, samples, len(samples.classes), seeds[:1])
    for labelled in config.labelled:
        for seed in seeds:
            divide(samples, seed, config.fractions, None if labelled == "all" else labelled)
    with nullcontext() if db is None else writing(db, identify_labels(config, samples), LabelsResult) as store:
        if store is not None:
            store.plan(config.arms, seeds, None, False)
        yield from iter_blocks(
            partial(run_labels_block, config),
            samples,
            config.arms,
            seeds,
            store=store,
            device=device_of(config.device),
            largest=LARGEST_BLOCK,
            n_jobs=n_jobs,
            progress=progress,
            watched=store is not None and store.is_watched,
        )
