"""
An experiment: what the judge knows of a training. One runner, one store and one reader serve all of them.

The method half of the package defines two, `rlm.study.TripletStudy` and `rlm.labels.study.LabelStudy`; the third,
`rlm.external.functions.FunctionStudy`, trains with a function of the user. Nothing here imports them.
"""

import logging
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd
import torch

from rlm.errors import InputError
from rlm.runtime.parallel import check_seeds, iter_blocks
from rlm.runtime.results import R, Result, Rules, join, mark, widen
from rlm.stats.judging import Judged, Watched, judge, plan_looks
from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.store.file import check_file
from rlm.store.identity import Identity
from rlm.store.write import writing
from rlm.variants import BASELINE

log = logging.getLogger(__name__)
DEFAULT_RULES = Rules()
FIXED = ("same_within", "metric")  # rules of the first start of a study, for all later ones
DECIDED = ("helps", "hurts", "the same")
DIVERGED = "diverged: the loss is not finite. They count as failed, at chance; lower learning_rate"
FROM_SCRATCH = BASELINE, "test_accuracy", DIVERGED  # baseline, metric and failure of the package's own experiments


@runtime_checkable
class Experiment(Protocol[R]):
    """
    A training whose arms are to be compared.

    An experiment is sent to worker processes, so it must be picklable. Arms with the same `start_of` are trained by one
    call of `run_block`, which returns the tables of `result` for the arms and seeds it is given. What it draws for a
    seed must not depend on the other seeds of the block.
    """

    @property
    def result(self) -> type[R]:
        """The class of its tables."""
        ...

    @property
    def arms(self) -> Sequence[str]:
        """The arms to run."""
        ...

    @property
    def baseline(self) -> str:
        """The arm that others are compared with."""
        ...

    @property
    def metric(self) -> str | Metric:
        """What `until` looks at, unless the rules name another; a run without a value of it has failed."""
        ...

    @property
    def failure(self) -> str:
        """The end of a warning, after the seeds and the arm of runs that failed."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it trains; a GPU serves one process."""
        ...

    @property
    def largest_block(self) -> int:
        """The largest number of seeds that are worth training together."""
        ...

    def identify(self) -> Identity:
        """Return what makes this study another one in a store."""
        ...

    def check(self, seeds: Sequence[int]) -> None:
        """Raise InputError for data that cannot be used with these seeds, before any process starts."""
        ...

    def start_of(self, arm: str) -> Hashable:
        """Return a value that is equal for arms that share the work before fine-tuning."""
        ...

    def run_block(self, arms: Sequence[str], seeds: Sequence[int]) -> R:
        """Train arms that share a start with a block of seeds."""
        ...


def make_rules(
    seeds: int | Sequence[int],
    until: float | None,
    look_every: int | None,
    watched: bool,
    same_within: float,
    metric: str = "",
) -> Rules:
    """Return the rules that a study of these seeds is looked at by; see `rlm.run_study` for the settings."""
    looks = None if look_every is None else plan_looks(len(check_seeds(seeds)), look_every)
    return Rules(until, watched, looks, same_within, metric=metric)


def check_request(
    seeds: int | Sequence[int],
    arms: Sequence[str],
    db: Path | str | None,
    rules: Rules = DEFAULT_RULES,
    block_size: int | None = None,
    *,
    baseline: str = BASELINE,
    widest: float | int = 2,
) -> list[int]:
    """Check what is asked of an experiment before its data are loaded; return the seeds in ascending order."""
    listed, until = check_seeds(seeds), rules.until
    if db is not None:
        check_file(db)
    if block_size is not None and block_size < 1:
        raise InputError(f"expected a block_size of at least 1 seed, found {block_size}; omit it for the fastest")
    if rules.same_within <= 0:
        raise InputError(f"expected same_within above 0, found {rules.same_within}; 0.01 is a point")
    if baseline not in (BASELINE, *arms):
        raise InputError(f"expected a baseline among the arms {', '.join(arms)}, found {baseline}; add it to them")
    if until is not None and rules.looks is not None:
        raise InputError("expected until or look_every, found both; choose one rule to stop by")
    if until is not None and (not 0 < until <= widest or baseline not in arms or len(arms) < 2):
        raise InputError(
            f"expected until to be a width above 0, and the arm {baseline} with others to compare, found {until} and "
            f"{', '.join(arms)}; drop until, or add arms and give a width of at most {widest:g}"
        )
    return listed


def iter_experiment(
    experiment: Experiment[R],
    seeds: Sequence[int],
    *,
    db: Path | str | None = None,
    rules: Rules = DEFAULT_RULES,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[R]:
    """Run an experiment block by block with the seeds of `check_request`; see `rlm.run_study` for the settings."""
    experiment.check(seeds)
    arms = experiment.arms
    own, columns = find_metric(experiment.metric), list(experiment.result.TABLES["results"].values)
    metric = find_metric(rules.metric, pd.DataFrame(columns=columns)) if rules.metric else own
    if metric.name != own.name and not (metric.is_share and metric.name in columns):
        raise InputError(
            f"expected a metric from 0 to 1 that this study measures, found {rules.metric!r}; choose among "
            f"{', '.join(columns)}"
        )
    rules = rules._replace(baseline=experiment.baseline, metric=metric.name)
    watched: Watched = rules.watched or rules.until is not None or rules.looks or False
    notes = {"watched": watched, "baseline": rules.baseline} | {name: getattr(rules, name) for name in FIXED}
    opened = nullcontext() if db is None else writing(db, experiment.identify(), experiment.result)
    with opened as store:
        if store is not None:
            store.plan(arms, seeds, rules)
            notes = store.notes
            for name in FIXED:
                if notes[name] != getattr(rules, name):
                    log.warning("%s stays %s, as fixed when the study in %s was first started", name, notes[name], db)
            rules = rules._replace(**{name: notes[name] for name in FIXED})
        yield from iter_blocks(
            experiment,
            seeds,
            store=store,
            block_size=block_size,
            n_jobs=n_jobs,
            progress=progress,
            notes=notes,
            is_enough=lambda finished: is_enough(experiment, finished, seeds, rules),
        )


def collect(blocks: Iterator[R], arms: Sequence[str], on_block: Callable[[R], None] | None = None) -> tuple[R, bool]:
    """
    Run a study to its end; an interrupt ends it early and keeps what is finished, with a warning and marked as watched.

    Returns all that is finished, and whether it was interrupted. `on_block` gets all that is finished after each block.
    An interrupt before the first block raises KeyboardInterrupt.
    """
    finished: list[R] = []
    try:
        with closing(blocks):
            for block in blocks:
                finished.append(block)
                if on_block is not None:
                    on_block(join(finished, arms))
    except KeyboardInterrupt:
        if not finished:
            raise
        warnings.warn(f"interrupted: these are the finished blocks of seeds, {len(finished)} in all", stacklevel=3)
        found = join(finished, arms)
        return mark(found, watched=found.results.attrs["watched"] or True), True
    return join(finished, arms), False


def is_enough(experiment: Experiment[R], finished: Sequence[Result], seeds: Sequence[int], rules: Rules) -> bool:
    """Return whether the rules stop the study: every interval is narrow enough, or every arm decided at a look."""
    if not finished or (rules.until is None and rules.looks is None):
        return False
    results, metric = widen(pd.concat([block.results for block in finished])), find_metric(experiment.metric)
    metric = metric if rules.metric in ("", metric.name) else find_metric(rules.metric)
    settings = {"baseline": experiment.baseline, "watched": rules.looks or True}
    judged = judge_so_far(results, experiment.arms, seeds, metric, **settings)
    if rules.until is not None:
        return bool(judged) and all(found.difference.width < rules.until for found in judged.values())
    if metric.is_share:
        metric = replace(metric, same_within=rules.same_within)
    return bool(judged) and all(found.decide(metric) in DECIDED for found in judged.values())


def judge_so_far(
    results: pd.DataFrame,
    arms: Sequence[str],
    seeds: Sequence[int],
    metric: str | Metric = "test_accuracy",
    baseline: str = BASELINE,
    watched: Watched = True,
) -> dict[str, Judged]:
    """
    Judge the first seeds, up to the first that is not finished: which are finished early may depend on their results.

    Returns by arm, except the baseline, what the verdict of a watched study finds; nothing before the first seed is
    finished under every arm.
    """
    metric = find_metric(metric, results)
    counted = count_failed(results, metric)
    values = counted.pivot(index="seed", columns="arm", values=metric.name).reindex(index=seeds, columns=arms)
    values = values[values.notna().all(axis=1).cummin()]
    if values.empty:
        return {}
    differences = values.sub(values[baseline], axis=0).drop(columns=baseline)
    return judge({arm: differences[arm].to_numpy() for arm in differences}, metric.reach, watched=watched)
