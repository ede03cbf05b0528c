"""The paper's own study: random labels memorised as pre-training of a classifier; arms x seeds x labelled samples."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from rlm.arms import device_of
from rlm.identity import identify_labels
from rlm.labels_config import LabelsConfig
from rlm.labels_task import LabelsResult, load_samples, new_classifiers, run_labels_block
from rlm.running import check_seeds, iter_blocks
from rlm.samples import Samples, check_samples, divide
from rlm.store import writing
from rlm.task import join

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
        In the order of the config and of the seeds.

    Raises
    ------
    InputError
        If the samples cannot be learnt from or divided, the encoder does not fit them, the seeds or the store cannot be
        used, or a process was killed, in which case the store keeps what was finished.

    References
    ----------
    Pondenkandath et al., "Leveraging random label memorization for unsupervised pre-training", arXiv 1811.01640.
    """
    blocks = iter_labels(config, seeds, samples=samples, db=db, n_jobs=n_jobs, progress=progress)
    return join(list(blocks), config.arms)


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
    samples = load_samples(config.dataset) if samples is None else samples
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
        )
