"""A training function of the user as an experiment: arms x seeds, on the runner and the store of all experiments."""

import inspect
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from pydantic import BaseModel

from rlm.config import DEFAULT_SEEDS
from rlm.errors import InputError
from rlm.experiment import check_request, collect, iter_experiment, make_rules
from rlm.external.answers import Clusters, check_answer
from rlm.external.metrics import NO_METRIC, resolve_metric
from rlm.external.stored import TASK, FunctionConfig, FunctionResult, tabulate
from rlm.runtime.results import Rules, join
from rlm.runtime.timeout import call_within
from rlm.stats.metrics import SAME_WITHIN, Metric
from rlm.store.identity import VERSION, Identity, code_of, digest_values, identify, read_source

WHAT = "train function"
Train = Callable[[str, int], Mapping[str, Any]]


@dataclass(frozen=True)
class FunctionStudy:
    """The experiment of `rlm.judge`, see `rlm.experiment.Experiment`; each run is a block of its own."""

    train: Train
    config: FunctionConfig
    timeout: float | int | None = None
    result: ClassVar = FunctionResult
    device: ClassVar = torch.device("cpu")  # as far as the judge knows
    largest_block: ClassVar = 1
    failure: ClassVar = "failed; the column error of the results has the reason"

    @property
    def arms(self) -> Sequence[str]:
        return self.config.arms

    @property
    def baseline(self) -> str:
        return self.config.baseline

    @property
    def metric(self) -> Metric:
        return self.config.metrics[0]

    def identify(self) -> Identity:
        config = self.config
        decisive = [config.function, config.version, [metric.name for metric in config.metrics]]
        is_read = config.version is None
        source = read_source(code_of(self.train), WHAT, VERSION) if is_read else None
        values = digest_values(self.train, WHAT) if is_read else ""
        return identify(TASK, json.dumps(decisive), values, source)._replace(
            settings=config.model_dump_json(exclude={"arms"})
        )

    def check(self, seeds: Sequence[int]) -> None: ...

    def start_of(self, arm: str) -> str:
        return arm

    def run_block(self, arms: Sequence[str], seeds: Sequence[int]) -> FunctionResult:
        return join([self._run(arm, seed) for arm in arms for seed in seeds], arms)

    def _run(self, arm: str, seed: int) -> FunctionResult:
        if self.timeout is None:
            return self._measure(arm, seed)
        try:
            return call_within(self.timeout, self._measure, arm, seed)
        except TimeoutError as error:
            return self._tabulate(arm, seed, {}, self.timeout, f"TimeoutError: {error}")

    def _measure(self, arm: str, seed: int) -> FunctionResult:
        """Train; an exception is kept as a text, unless it is the machine that failed."""
        start = time.perf_counter()
        answer, error = {}, ""
        try:
            answer = self.train(arm, seed)
        except (MemoryError, torch.OutOfMemoryError, TerminatedWorkerError):
            raise
        except (Exception, SystemExit):
            error = traceback.format_exc()
        else:
            answer = check_answer(answer, self.config.metrics, arm, seed)
        return self._tabulate(arm, seed, answer, time.perf_counter() - start, error)

    def _tabulate(
        self, arm: str, seed: int, answer: Mapping[str, tuple[float, Clusters]], seconds: float | int, error: str
    ) -> FunctionResult:
        run = {"arm": arm, "seed": seed}
        values = [(metric.name, *answer.get(metric.name, (np.nan, {}))) for metric in self.config.metrics]
        results = [{**run, "metric": name, "value": value} for name, value, _ in values]
        clusters = [
            {**run, "metric": name, "cluster": cluster, "items": items, "value": value}
            for name, _, found in values
            for cluster, (items, value) in found.items()
        ]
        runs = [{**run, "seconds": float(seconds), "error": error}]
        return FunctionResult(
            *(
                pd.DataFrame(rows, columns=[*table.keys, *table.values])
                for rows, table in zip((results, clusters, runs), FunctionResult.TABLES.values(), strict=True)
            )
        )


def judge(
    train: Train,
    arms: Sequence[str],
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    baseline: str | None = None,
    metrics: str | Metric | Sequence[str | Metric] = "test_accuracy",
    until: float | None = None,
    look_every: int | None = None,
    watched: bool = False,
    same_within: float = SAME_WITHIN,
    db: Path | str | None = None,
    timeout: float | int | None = None,
    version: str | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> pd.DataFrame:
    """
    Run a training function of yours under every arm with every seed.

    Interrupted (Ctrl-C, or the stop button of a notebook), it returns the runs that are finished, with a warning.

    Parameters
    ----------
    train
        ``train(arm, seed)`` trains once and returns a mapping from names of metrics to numbers. All that it draws must
        follow from `seed`, and arms should share what they can, such as the split. In place of a number it may return
        a list of numbers, one per test item, of which the mean counts; or a mapping from the name of a cluster, the
        same in all runs, to the number or numbers of its items: then a verdict can also cover data like these, see
        ``clusters`` of `rlm.compare`. Of a list it cannot, since nothing tells which items of two seeds are the same.
    arms
        Names of what is compared; the function receives one of them.
    seeds
        A number of seeds, counted from 0, or the seeds.
    baseline
        The arm that others are compared with, by default the first.
    metrics
        Names of known metrics, see `rlm.compare`, or `rlm.stats.Metric`; `until` looks at the first. Others that the
        function returns are ignored.
    until
        Stop when the confidence sequence of every arm's mean difference to the baseline is narrower than this.
    look_every, watched, same_within
        As in `rlm.run_study`; `same_within` is of metrics from 0 to 1.
    db
        SQLite file that keeps every finished run. What it holds of this study is not run again, so a study that was
        stopped, killed or extended continues. Other metrics, another source of the function or of your modules that it
        uses, or other values that it reads from outside, also through functions of its module, make another study.
        What it imports only as it runs, and files, are not looked at.
    timeout
        Seconds after which a run counts as failed; the process that runs it is killed. Imports do not count.
    version
        Replaces the source and the values of the function as what identifies the study: change it when they change.
    n_jobs
        As in `rlm.run_study`; a function that uses a GPU, or several threads, takes 1.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per arm and seed, the baseline first: arm, seed, a column per metric, seconds, error. `rlm.compare_all`
        takes it, and ``rlm.external.read_judged(db)`` reads it with its clusters. A run that raised an exception, took
        longer than `timeout` or returned a number that is not finite has failed: it has no value, and counts as the
        metric defines, by accuracies as the column chance, which is 0. Its traceback is in error.

    Raises
    ------
    InputError
        If the request or the store cannot be used, the function returns no number of a metric, or one outside its
        range, or a process was killed or memory ran out, in which case the store keeps what was finished.
    KeyboardInterrupt
        If interrupted before any run is finished.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> def train(arm, seed):
    ...     luck = np.random.default_rng(seed).normal(0.7, 0.02)
    ...     return {"test_accuracy": luck + (0.01 + 0.001 * seed if arm == "wide" else 0)}
    >>> results = rlm.judge(train, ["plain", "wide"], seeds=12, n_jobs=1, progress=False)
    >>> rlm.compare(results, "wide", "plain").headline
    'The arm wide helps, compared with plain.'
    """
    rules = make_rules(seeds, until, look_every, watched, same_within)
    settings = {"baseline": baseline, "metrics": metrics, "rules": rules, "db": db}
    settings |= {"timeout": timeout, "version": version, "n_jobs": n_jobs, "progress": progress}
    study, blocks = _prepare(train, arms, seeds, **settings)
    found, _ = collect(blocks, study.arms)
    return tabulate(found, study.config)


def _prepare(
    train: Train,
    arms: Sequence[str],
    seeds: int | Sequence[int],
    *,
    baseline: str | None,
    metrics: str | Metric | Sequence[str | Metric],
    rules: Rules,
    timeout: float | int | None,
    version: str | None,
    db: Path | str | None,
    **settings: bool | int,
) -> tuple[FunctionStudy, Iterator[FunctionResult]]:
    """Check what is asked, before any work; return the study and its blocks."""
    if not callable(train):
        raise InputError(f"expected a function train(arm, seed), found {train!r}; pass it without calling it")
    listed = [arms] if isinstance(arms, str) else list(arms)
    if len(set(listed)) < max(len(listed), 1) or not all(isinstance(arm, str) and arm for arm in listed):
        raise InputError(f"expected at least one arm, each a name and different from the others, found {arms!r}")
    baseline = listed[0] if baseline is None else baseline
    if baseline not in listed:
        raise InputError(f"expected a baseline among the arms {', '.join(listed)}, found {baseline!r}; add it to them")
    known = [resolve_metric(one) for one in ([metrics] if isinstance(metrics, str | Metric) else metrics)]
    if len({metric.name for metric in known}) < max(len(known), 1) or {*NO_METRIC} & {one.name for one in known}:
        taken = f"with a name other than those of the results, {', '.join(NO_METRIC)}"
        raise InputError(f"expected at least one metric, each once and {taken}, found {metrics!r}; rename it")
    is_stopped = rules.until is not None or rules.looks is not None
    if is_stopped and not isinstance(known[0].failed, float | int):
        raise InputError(
            f"expected a number that a failed seed counts as, to stop by {known[0].name}, found {known[0].failed!r}; "
            f"pass rlm.stats.Metric({known[0].name!r}, ..., failed=...)"
        )
    if timeout is not None and not timeout > 0:
        raise InputError(f"expected a timeout above 0 seconds, found {timeout}; omit it for none")
    ordered = sorted(listed, key=lambda arm: arm != baseline)
    wanted = check_request(seeds, ordered, db, rules, baseline=baseline, widest=2 * known[0].reach)
    about = {"function": getattr(code_of(train), "__name__", WHAT), "arguments": _list_arguments(train)}
    config = FunctionConfig(version=version, baseline=baseline, metrics=tuple(known), arms=ordered, **about)
    study = FunctionStudy(train, config, timeout)
    return study, iter_experiment(study, wanted, db=db, rules=rules, **settings)


def _list_arguments(train: Train) -> dict[str, str]:
    """Return what a function takes besides arm and seed, or has as attributes: texts, numbers, pydantic's fields."""
    try:
        given = {name: one.default for name, one in inspect.signature(train).parameters.items()}
    except ValueError:  # not written in Python
        return {}
    found = {}
    for name, value in (given | getattr(train, "__dict__", {})).items():
        if isinstance(value, BaseModel):
            found |= {field: str(one) for field, one in value}
        elif isinstance(value, str | int | float):
            found[name] = str(value)
    return found
