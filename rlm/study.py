"""A study: arms x seeds over one dataset and one config, run in blocks of seeds on all cores, or on a cluster."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend
from torch import nn
from tqdm.auto import tqdm

from rlm.arms import device_of
from rlm.config import DEFAULT_SEEDS, REDRAW, Arm, StudyConfig
from rlm.corpus import Corpus, index_corpus
from rlm.errors import InputError
from rlm.sequence import confidence_sequence
from rlm.stats import BASELINE, CHANCE
from rlm.store import writing
from rlm.task import BlockResult, join, load_corpus, run_block, slices_of

log = logging.getLogger(__name__)
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
        Text pairs or triplets, see `rlm.index_corpus`; loaded by ``config.dataset`` by default.
    make_encoder
        Makes an encoder of your own from the size of the vocabulary, see `rlm.LSTMEncoder.forward`; the one that the
        config names by default.
    db
        SQLite file to keep every finished block in. What it holds of this study is not trained again, so a study
        that was stopped, killed or extended goes on; see `rlm.store.writing` for what makes it another study.
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
        `rlm.roc`, and `rlm.retrieve` with at most 20,000 queries), best_epoch, epochs (run), seconds (wall time of its
        block, pre-training and compilation included, over the block's runs), split, test_triplets, test_anchors,
        test_components. A seed that diverged (its loss was not finite) has no test metrics, and best_epoch 0.

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
    seeds = _check_seeds(seeds)
    if block_size is not None and block_size < 1:
        raise InputError(f"expected a block_size of at least 1 seed, found {block_size}; leave it out for the fastest")
    if n_jobs == 0:
        raise InputError("expected a number of processes, or -1 for one per core, found 0 jobs; give another number")
    if until is not None and (until <= 0 or BASELINE not in config.arms or len(config.arms) < 2):
        raise InputError(
            f"expected until to be a width above 0, and the arm {BASELINE} with others to compare, found {until} and "
            f"{', '.join(config.arms)}; leave until out or add arms"
        )
    corpus = load_corpus(config) if data is None else index_corpus(data, config.max_tokens)
    if len(corpus.dropped):
        log.info("left out of the data: %s", corpus.explain_left_out())
        if data is not None and (corpus.dropped["reason"] != "repeated").any():
            warnings.warn(f"left out of the data: {corpus.explain_left_out()}", stacklevel=2)
    slices_of(config, corpus, seeds)  # data that cannot be sliced fails here, before any process starts
    device = device_of(config)
    finished: list[BlockResult] = []
    with (
        nullcontext() if db is None else writing(db, config, corpus, make_encoder) as store,
        tqdm(total=len(config.arms) * len(seeds), desc="study", unit="run", disable=not progress) as bar,
    ):
        if store is not None:
            store.plan(config.arms, seeds, until, watched)
            stored = _part_of(store.finished(), config.arms, seeds)
            if len(stored.results):
                log.info("%d of %d runs are in %s already", len(stored.results), len(config.arms) * len(seeds), db)
                finished.append(stored)
                bar.update(len(stored.results))
                yield stored
        if _is_narrow(finished, config.arms, seeds, until):
            return
        largest = LARGEST_BLOCK if device.type == "cpu" else _seeds_that_fit(config, corpus, device)
        largest = min(largest, block_size or largest)
        processes = joblib.effective_n_jobs(n_jobs) if device.type == "cpu" else 1  # a GPU serves one process best
        tasks = _tasks(config, seeds, largest, processes, finished)
        with _interrupts_held(), _at_hand(corpus):
            run = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")
            results = run(joblib.delayed(run_block)(config, corpus, arms, block, make_encoder) for arms, block in tasks)
        with _deaths_explained(db):
            for result in results:
                if store is not None:
                    store.save(result, device.type)
                _warn_of_diverged(result.results)
                finished.append(result)
                bar.update(len(result.results))
                yield result
                if _is_narrow(finished, config.arms, seeds, until):
                    with warnings.catch_warnings(action="ignore"):  # joblib's, of tasks that are cancelled, as meant
                        results.close()
                    return


def _check_seeds(seeds: int | Sequence[int]) -> list[int]:
    listed = list(range(seeds)) if isinstance(seeds, Integral) else list(seeds)
    is_seed = [isinstance(seed, Integral) and seed >= 0 for seed in listed]
    if not listed or not all(is_seed) or len(set(listed)) < len(listed):
        raise InputError(f"expected at least one seed, each once and none negative, found {listed or 'none'}")
    return [int(seed) for seed in listed]


def _tasks(
    config: StudyConfig, seeds: Sequence[int], largest: int, processes: int, finished: Sequence[BlockResult]
) -> list[tuple[list[Arm], list[int]]]:
    """Arms that share a pre-training, and the seeds to train them with, without what is finished."""
    done = {pair for block in finished for pair in block.results[["arm", "seed"]].itertuples(index=False, name=None)}
    starts: dict[str | None, list[Arm]] = {}
    for arm in config.arms:
        starts.setdefault(REDRAW.get(arm), []).append(arm)
    tasks = []
    blocks = min(len(seeds), max(-(-len(seeds) // largest), -(-processes // len(starts))))  # none of them idle
    # Block by block, so that a study that is stopped early has pairs. The cuts do not depend on what is finished: the
    # blocks of a study that goes on are those it would have had.
    for block in np.array_split(seeds, blocks):
        for arms in sorted(starts.values(), key=len, reverse=True):  # what takes longest first, so that no core waits
            wanted: dict[tuple[int, ...], list[Arm]] = {}
            for arm in arms:
                wanted.setdefault(tuple(int(seed) for seed in block if (arm, seed) not in done), []).append(arm)
            tasks += [(theirs, list(missing)) for missing, theirs in wanted.items() if missing]
    return tasks


def _part_of(finished: BlockResult, arms: Sequence[Arm], seeds: Sequence[int]) -> BlockResult:
    return BlockResult(
        *(table[table["arm"].isin(arms) & table["seed"].isin(seeds)].reset_index(drop=True) for table in finished)
    )


def _is_narrow(finished: Sequence[BlockResult], arms: Sequence[Arm], seeds: Sequence[int], until: float | None) -> bool:
    """Whether the sequence over the first seeds, up to the first that is not finished, is narrow for every arm."""
    if until is None or not finished:
        return False
    accuracy = pd.concat([block.results for block in finished])
    accuracy = accuracy.fillna({"test_accuracy": CHANCE}).pivot(index="seed", columns="arm", values="test_accuracy")
    accuracy = accuracy.reindex(index=seeds, columns=arms)
    accuracy = accuracy[accuracy.notna().all(axis=1).cummin()]
    if accuracy.empty:
        return False
    widths = [
        confidence_sequence((accuracy[arm] - accuracy[BASELINE]).to_numpy()).last.width
        for arm in arms
        if arm != BASELINE
    ]
    return all(width < until for width in widths)


def _warn_of_diverged(results: pd.DataFrame) -> None:
    diverged = results[results["test_accuracy"].isna()]
    for arm, seeds in diverged.groupby("arm", sort=False)["seed"]:
        warnings.warn(
            f"seed(s) {', '.join(map(str, seeds))} of arm {arm} diverged: the loss is not finite. They count "
            "as failed, at chance; lower learning_rate",
            stacklevel=3,
        )


@contextmanager
def _deaths_explained(db: Path | str | None) -> Iterator[None]:
    kept = "Finished blocks of seeds are lost, since no db was given" if db is None else f"{db} keeps what was finished"
    try:
        yield
    except TerminatedWorkerError as error:
        raise InputError(
            f"a process of the study was killed, perhaps for want of memory. {kept}; run the study again with fewer "
            "jobs, or a smaller batch_size, and a db to go on from"
        ) from error
    except (MemoryError, RuntimeError) as error:
        # PyTorch has an exception of its own for a GPU's memory, and none for the CPU's.
        if type(error) is RuntimeError and "DefaultCPUAllocator" not in str(error):
            raise
        raise InputError(
            f"memory ran out. {kept}; run the study again with fewer jobs or a smaller batch_size"
        ) from error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """
    Hold Ctrl-C back; processes and threads that are started meanwhile never see it.

    A terminal sends it to workers too. One that dies of it, perhaps while it is still being started, can leave the
    parent waiting for ever; it is the parent that ends them, in order.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _at_hand(corpus: Corpus) -> AbstractContextManager[object]:
    """On a Dask cluster, give every worker the corpus: tasks need not carry it, and no worker's death loses it."""
    client = getattr(get_active_backend()[0], "client", None)
    return nullcontext() if client is None else joblib.parallel_config("dask", client=client, scatter=[corpus])


def _seeds_that_fit(config: StudyConfig, corpus: Corpus, device: torch.device) -> int:
    """How many seeds half of the GPU's free memory holds: weights, moments, gradients, and what a step keeps."""
    free, _ = torch.cuda.mem_get_info(device)
    weights = len(corpus.phrases.words) * config.word_dim + 8 * config.dim * (config.word_dim + config.dim)
    positions = 3 * config.batch_size * int(corpus.phrases.lengths[0])
    floats = 6 * weights + positions * (config.word_dim + 16 * config.dim)
    return max(1, free // (2 * 4 * floats))
