"""Run the blocks of an experiment on all cores or on a cluster, and store each as it is finished."""

import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from heapq import heapreplace
from multiprocessing import resource_tracker
from numbers import Integral
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any, Protocol, TypeGuard, runtime_checkable

import joblib
import numpy as np
import pandas as pd
import torch
from joblib._parallel_backends import LokyBackend
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from rlm.config import MOST_SEEDS
from rlm.errors import InputError
from rlm.runtime.process import quiet_trackers
from rlm.runtime.results import R, Result, count_runs, mark, select, widen
from rlm.stats.metrics import Metric, find_metric

log = logging.getLogger(__name__)
LARGEST_SEED = 2**63 - 1  # that SQLite and tables hold
COLLAPSED = "collapsed: all phrases are almost one point. They count as failed; lower learning_rate or change mining"
MOST_SHOWN = 20
SECONDS_TO_OUTLIVE = 1


@runtime_checkable
class Work(Protocol[R]):
    """What can be run in blocks of seeds, see `rlm.experiment.Experiment`; it is sent to every worker."""

    @property
    def arms(self) -> Sequence[str]: ...

    @property
    def metric(self) -> str | Metric: ...

    @property
    def failure(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def largest_block(self) -> int: ...

    def start_of(self, arm: str) -> Hashable: ...

    def run_block(self, arms: Sequence[str], seeds: Sequence[int]) -> R: ...


@runtime_checkable
class Keeper(Protocol[R]):
    """What keeps finished blocks, see `rlm.store.write.Writer`."""

    path: Path

    def finished(self) -> R: ...

    def save(self, block: R, device: str) -> None: ...


def iter_blocks(
    work: Work[R],
    seeds: Sequence[int],
    *,
    store: Keeper[R] | None = None,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
    notes: Mapping[str, Any] = MappingProxyType({}),
    is_enough: Callable[[Sequence[R]], bool] = lambda finished: False,
) -> Iterator[R]:
    """
    Run every arm with every seed, block by block.

    Yields what the store has already, if anything; then each block as it is finished, in no particular order.
    `block_size` is the largest number of seeds in a block, `notes` are those of `mark`. The run ends once `is_enough`
    accepts what is finished.
    """
    if n_jobs == 0:
        raise InputError("expected a number of processes, or -1 for one per core, found 0 jobs; give another number")
    finished: list[R] = []
    arms = work.arms
    with tqdm(total=len(arms) * len(seeds), desc="study", unit="run", disable=not progress) as bar:
        if store is not None:
            stored = select(store.finished(), arms, seeds)
            if len(stored.results):
                runs = count_runs(stored)
                log.info("%d of %d runs are in %s already", runs, len(arms) * len(seeds), store.path)
                finished.append(stored)
                bar.update(runs)
                yield mark(stored, **notes)
        if finished and is_enough(finished):
            return
        processes, tasks = _plan(work, seeds, block_size, n_jobs, finished)
        with interrupts_held(), _at_hand(work):
            is_here = isinstance(get_active_backend()[0], LokyBackend)  # and not on a cluster
            begin = {"initializer": end_with, "initargs": (os.getpid(),)} if is_here else {}
            # "c": processes share big arrays, and torch takes them without a warning, since a write makes a copy.
            run = joblib.Parallel(n_jobs=processes, return_as="generator_unordered", mmap_mode="c", **begin)
            results: Any = run(joblib.delayed(_run)(work, theirs, block) for theirs, block in tasks)
        with _deaths_explained(store), _closing(results):
            for result in results:
                if store is not None:
                    store.save(result, work.device.type)
                _warn_of_failed(work, result.results)
                finished.append(result)
                bar.update(count_runs(result))
                yield mark(result, **notes)
                if is_enough(finished):
                    return


def _run(work: Work[R], arms: Sequence[str], seeds: Sequence[int]) -> R:
    return work.run_block(arms, seeds)


def check_seeds(seeds: object) -> list[int]:
    """Return at least one seed, each once and in ascending order, from a number of seeds or a list of seeds."""
    if _is_integer(seeds) and seeds > MOST_SEEDS:
        raise InputError(f"expected at most {MOST_SEEDS:,} seeds, found {seeds:,}; pass a list of those that you mean")
    try:
        listed = list(range(seeds) if _is_integer(seeds) else seeds)
    except TypeError as error:
        raise InputError(f"expected a number of seeds, or a list of seeds, found {seeds!r}") from error
    is_seed = [_is_integer(seed) and 0 <= seed <= LARGEST_SEED for seed in listed]
    if not listed or not all(is_seed) or len(set(listed)) < len(listed):
        found = str(listed) if len(listed) <= MOST_SHOWN else f"{str(listed[:MOST_SHOWN])[:-1]}, ...]"
        raise InputError(
            f"expected at least one seed, each once and none negative, found {found if listed else 'none'}; seeds are "
            f"whole numbers up to {LARGEST_SEED:,}"
        )
    return sorted(int(seed) for seed in listed)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _plan(
    work: Work[R], seeds: Sequence[int], block_size: int | None, n_jobs: int, finished: Sequence[R] = ()
) -> tuple[int, list[tuple[list[str], list[int]]]]:
    """Return the number of processes, and their tasks in order."""
    processes = joblib.effective_n_jobs(n_jobs) if work.device.type == "cpu" else 1  # a GPU serves one process best
    largest = min(work.largest_block, block_size or work.largest_block)
    return processes, _tasks(work, seeds, largest, processes, finished)


def predict(
    work: Work[R], seeds: Sequence[int], seconds: Mapping[str, float], block_size: int | None = None, n_jobs: int = -1
) -> tuple[float, int, int]:
    """Predict the seconds of `iter_blocks` by those of a run of each arm; return processes and largest block, too."""
    processes, tasks = _plan(work, seeds, block_size, n_jobs)
    ends = [0.0] * processes
    for arms, block in tasks:
        heapreplace(ends, ends[0] + len(block) * sum(seconds[arm] for arm in arms))
    return max(ends), min(processes, len(tasks)), max(len(block) for _, block in tasks)


def _tasks(
    work: Work[R], seeds: Sequence[int], largest: int, processes: int, finished: Sequence[R]
) -> list[tuple[list[str], list[int]]]:
    """Return arms that share a start, and the seeds to train them with, without what is finished."""
    done = {pair for block in finished for pair in block.results[["arm", "seed"]].itertuples(index=False, name=None)}
    starts: dict[Hashable, list[str]] = {}
    for arm in work.arms:
        starts.setdefault(work.start_of(arm), []).append(arm)
    tasks = []
    blocks = min(len(seeds), max(-(-len(seeds) // largest), -(-processes // len(starts))))  # none of them idle
    # Block by block, so that a study that is stopped early has pairs. The cuts do not depend on what is finished: a
    # study that continues has the blocks that it would have had.
    for block in np.array_split(seeds, blocks):
        for together in sorted(starts.values(), key=len, reverse=True):  # the longest first, so that no core waits
            wanted: dict[tuple[int, ...], list[str]] = {}
            for arm in together:
                wanted.setdefault(tuple(int(seed) for seed in block if (arm, seed) not in done), []).append(arm)
            tasks += [(theirs, list(missing)) for missing, theirs in wanted.items() if missing]
    return tasks


def _warn_of_failed(work: Work[R], results: pd.DataFrame) -> None:
    runs = widen(results)
    is_failed = runs[find_metric(work.metric).name].isna()
    has_collapsed = ~is_failed & runs["collapsed"].notna() if "collapsed" in runs else is_failed & False
    for rows, failure in ((is_failed, work.failure), (has_collapsed, COLLAPSED)):
        for arm, seeds in runs[rows].drop_duplicates(["arm", "seed"]).groupby("arm", sort=False)["seed"]:
            warnings.warn(f"seed(s) {', '.join(map(str, seeds))} of arm {arm} {failure}", stacklevel=4)


@contextmanager
def _closing(results: Generator[Result, None, None]) -> Iterator[None]:
    """Cancel at the end the tasks that nobody waits for."""
    try:
        yield
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib's, of tasks that are cancelled, as meant
            results.close()


@contextmanager
def _deaths_explained(store: "Keeper[Result] | None") -> Iterator[None]:
    lost = "Finished blocks of seeds are lost, since no db was given"
    kept = lost if store is None else f"{store.path} keeps the finished blocks"
    try:
        yield
    except TerminatedWorkerError as error:
        raise InputError(
            f"a process of the study was killed, perhaps because memory ran out. {kept}; run the study again with "
            "fewer jobs or a smaller batch_size, and with a db, from which it can continue"
        ) from error
    except (MemoryError, RuntimeError) as error:
        # PyTorch has an exception of its own for a GPU's memory, and none for the CPU's.
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
        if not is_memory:
            raise
        raise InputError(
            f"memory ran out. {kept}; run the study again with fewer jobs or a smaller batch_size"
        ) from error


@contextmanager
def interrupts_held() -> Iterator[None]:
    """
    Hold back Ctrl-C, and what ends a session; processes and threads that are started meanwhile never see them.

    A terminal sends them to workers too. One that dies of it, perhaps while it is still being started, can leave the
    parent waiting for ever; it is the parent that ends them, in order.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        with quiet_trackers():
            for tracker in (resource_tracker, loky_tracker):
                tracker.ensure_running()  # of itself it would start with the workers, and let Ctrl-C through again
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """Let this process end when the one that started it does; whatever it is doing, nobody waits for it."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_TO_OUTLIVE)
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _at_hand(work: object) -> AbstractContextManager[object]:
    """On a Dask cluster, give the work to every worker once: tasks need not carry it, and it outlives a worker."""
    client = getattr(get_active_backend()[0], "client", None)
    return nullcontext() if client is None else joblib.parallel_config("dask", client=client, scatter=[work])
