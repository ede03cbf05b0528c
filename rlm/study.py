"""A study: arms x seeds over one dataset and one config, run in blocks of seeds on all cores, or on a cluster."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from rlm.arms import device_of, settled
from rlm.config import DEFAULT_SEEDS, Arm, StudyConfig
from rlm.data.corpus import Corpus, index_corpus
from rlm.data.files import READ_AS_IT_IS
from rlm.errors import InputError
from rlm.runtime.parallel import check_seeds, iter_blocks
from rlm.stats.judging import Judged, judge
from rlm.stats.metrics import count_failed, find_metric
from rlm.store.identity import identify
from rlm.store.schema import check_file
from rlm.store.write import writing
from rlm.task import BlockResult, join, load_corpus, mark, run_block, slices_of
from rlm.verdict import BASELINE

log = logging.getLogger(__name__)
YOUR_TABLE = "data"  # what a config calls data that are handed over as a table
LARGEST_BLOCK = 10  # more seeds together are no faster on a CPU core, and make the last process wait longer


def run_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    data: pd.DataFrame | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    db: Path | str | None = None,
    until: float | None = None,
    watched: bool = False,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> pd.DataFrame:
    """
    Train every arm with every seed.

    Interrupted (Ctrl-C, or the stop button of a notebook), it returns the blocks that are finished, with a warning.

    Parameters
    ----------
    config
        What to study.
    seeds
        A number of seeds, counted from 0, or the seeds.
    data
        Text pairs or triplets, see `rlm.index_corpus`; loaded by ``config.dataset`` by default. Then the store calls
        them by that name if it is no dataset that can be loaded, else ``"data"``.
    make_encoder
        Makes an encoder of your own from the size of the vocabulary, see `rlm.zoo.LSTMEncoder.forward`; the one that
        the config names by default.
    db
        SQLite file to keep every finished block in. What it holds of this study is not trained again, so a study
        that was stopped, killed or extended goes on; see `rlm.store.write.writing` for what makes it another study.
    until
        Stop when the confidence sequence of every arm's mean difference to scratch is narrower than this (0.02 is two
        points). A verdict on the results is then one of a watched study, see `rlm.compare`.
    watched
        Whether somebody looks at results as they arrive, and might stop the study for what they show; the store notes
        it, and gives a verdict by the confidence sequence.
    block_size
        Most seeds to train together, by default as many as is fastest. Fewer arrive sooner and need less memory.
    n_jobs
        Processes, of one thread each where they fill the machine; -1 for one per core. Inside
        ``joblib.parallel_config(backend="dask")``, or another cluster's, its workers instead.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per arm and seed: arm, seed, validation_accuracy (at the best epoch: what early stopping saw),
        test_accuracy (triplets that no choice ever saw), roc_auc and top_1 (of the test split too, by distance: see
        `rlm.evaluation.roc`, and `rlm.evaluation.retrieve` with at most 20,000 queries), best_epoch, epochs (run),
        seconds (wall time of its block, pre-training and compilation included, over the block's runs), split,
        test_triplets, test_anchors, test_components. A seed that diverged (its loss was not finite) has no test
        metrics, and best_epoch 0.
        Its ``attrs["watched"]`` says whether the study was watched, was to stop by its results, was extended or was
        interrupted: then a verdict takes the confidence sequence, see `rlm.compare`.

    Raises
    ------
    InputError
        If there are no seeds or a seed is negative or given twice, the data cannot be read or sliced, `until` has
        nothing to compare, or the store cannot be used; or if a process was killed, or memory ran out, in which case
        the store keeps what was finished.
    KeyboardInterrupt
        If interrupted before any block is finished.
    """
    finished = []
    settings = {"data": data, "make_encoder": make_encoder, "db": db, "until": until, "watched": watched}
    settings |= {"block_size": block_size, "n_jobs": n_jobs, "progress": progress}
    try:
        for block in iter_study(config, seeds, **settings):
            finished.append(block)
    except KeyboardInterrupt:
        if not finished:
            raise
        warnings.warn(f"interrupted: these are the {len(finished)} blocks of seeds that were finished", stacklevel=2)
        mark(finished[-1], True)
    return join(finished, config.arms).results


def iter_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    data: pd.DataFrame | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    db: Path | str | None = None,
    until: float | None = None,
    watched: bool = False,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[BlockResult]:
    """
    Run a study block by block.

    Parameters
    ----------
    config, seeds, data, make_encoder, db, until, watched, block_size, n_jobs, progress
        As in `run_study`.

    Yields
    ------
    BlockResult
        What the store has of it already, if anything; then each block as it is finished, in no particular order.

    Raises
    ------
    InputError
        As in `run_study`.
    """
    seeds = check_seeds(seeds)
    if db is not None:
        check_file(db)
    if block_size is not None and block_size < 1:
        raise InputError(f"expected a block_size of at least 1 seed, found {block_size}; leave it out for the fastest")
    if until is not None and (not 0 < until <= 2 or BASELINE not in config.arms or len(config.arms) < 2):
        raise InputError(
            f"expected until to be a width above 0, and the arm {BASELINE} with others to compare, found {until} and "
            f"{', '.join(config.arms)}; leave until out, or add arms, and a width of at most 2"
        )
    if data is not None:  # what the config says of other data is not true of these
        name = config.dataset
        is_another = name == "pqa" or name.startswith("chatterbot-") or os.path.exists(name)  # noqa: PTH110
        dataset = YOUR_TABLE if is_another else name
        config = config.model_copy(update={"dataset": dataset, "reading": READ_AS_IT_IS})
    corpus = load_corpus(config) if data is None else index_corpus(data, config.max_tokens)
    if len(corpus.dropped):
        log.info("left out of the data: %s", corpus.explain_left_out())
        if data is not None and (corpus.dropped["reason"] != "repeated").any():
            warnings.warn(f"left out of the data: {corpus.explain_left_out()}", stacklevel=2)
    slices_of(config, corpus, seeds)  # data that cannot be sliced fails here, before any process starts
    device = device_of(config.device)
    largest = LARGEST_BLOCK if device.type == "cpu" else _seeds_that_fit(config, corpus, device)
    with nullcontext() if db is None else writing(db, identify(config, corpus, make_encoder), BlockResult) as store:
        if store is not None:
            store.plan(config.arms, seeds, until, watched)
            watched = store.is_watched
        yield from iter_blocks(
            partial(run_block, settled(config), make_encoder=make_encoder),
            corpus,
            config.arms,
            seeds,
            store=store,
            device=device,
            largest=min(largest, block_size or largest),
            n_jobs=n_jobs,
            progress=progress,
            watched=watched or until is not None,
            is_enough=lambda finished: is_narrow(finished, config.arms, seeds, until),
        )


def is_narrow(finished: Sequence[BlockResult], arms: Sequence[Arm], seeds: Sequence[int], until: float | None) -> bool:
    """
    Whether the confidence sequence of every arm is as narrow as was asked for.

    Parameters
    ----------
    finished
        Blocks of the study.
    arms, seeds, until
        Of the study; seeds in ascending order.

    Returns
    -------
    bool
        False where nothing was asked for.
    """
    if until is None or not finished:
        return False
    judged = judge_so_far(pd.concat([block.results for block in finished]), arms, seeds)
    return bool(judged) and all(found.difference.width < until for found in judged.values())


def judge_so_far(results: pd.DataFrame, arms: Sequence[Arm], seeds: Sequence[int]) -> dict[Arm, Judged]:
    """
    Judge the first seeds, up to the first that is not finished: which are finished early may depend on them.

    Parameters
    ----------
    results
        Of the study.
    arms, seeds
        Of the study; seeds in ascending order, which is a verdict's.

    Returns
    -------
    dict
        By arm, but for scratch, as the verdict of a watched study judges them; empty before the first seed is finished
        under every arm.
    """
    counted = count_failed(results, find_metric("test_accuracy"))
    accuracy = counted.pivot(index="seed", columns="arm", values="test_accuracy").reindex(index=seeds, columns=arms)
    accuracy = accuracy[accuracy.notna().all(axis=1).cummin()]
    if accuracy.empty:
        return {}
    differences = accuracy.sub(accuracy[BASELINE], axis=0).drop(columns=BASELINE)
    return judge({arm: differences[arm].to_numpy() for arm in differences}, watched=True)


def _seeds_that_fit(config: StudyConfig, corpus: Corpus, device: torch.device) -> int:
    """How many seeds half of the GPU's free memory holds: weights, moments, gradients, and what a step keeps."""
    free, _ = torch.cuda.mem_get_info(device)
    weights = len(corpus.phrases.words) * config.word_dim + 8 * config.dim * (config.word_dim + config.dim)
    positions = 3 * config.batch_size * int(corpus.phrases.lengths[0])
    floats = 6 * weights + positions * (config.word_dim + 16 * config.dim)
    return max(1, free // (2 * 4 * floats))
