"""The commands `rlm study`, `rlm audit` and `rlm plan`: train and judge, after a look at the data and at the costs."""

import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import psutil
from cyclopts import Parameter

from rlm.arms import bytes_per_seed
from rlm.cli.output import check_out, gather, keep as keep_table, print_files, show
from rlm.cli.settings import ConfigFile, Table, complete, read_table
from rlm.cli.verdicts import print_verdict
from rlm.config import MetricName, Plan, StudyConfig
from rlm.errors import InputError
from rlm.evaluation.audit import audit as look_for_reasons
from rlm.experiment import check_request, collect, iter_experiment, judge_so_far
from rlm.models.kept import Keep
from rlm.runtime.parallel import predict
from rlm.sentences import explain_forecast
from rlm.stats.estimates import FEWEST_PAIRS
from rlm.stats.power import forecast
from rlm.store.read import list_studies, read_progress, read_study
from rlm.study import BlockResult, TripletStudy, iter_study, load_corpus, slice_for
from rlm.variants import BASELINE, find_arm
from rlm.verdict import find_baseline

log = logging.getLogger(__name__)


def study(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
    plan: Annotated[Plan, Parameter(name="*")] = Plan(),  # noqa: B008
    arm: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    db: Path | None = None,
    max_seeds: int | None = None,
    look_every: int | None = None,
    out: Path | None = None,
    jobs: int = -1,
    config_file: ConfigFile = None,
    watched: Annotated[bool, Parameter(negative=())] = False,
    keep: Keep | None = None,
    block_size: int | None = None,
    table: Table = None,
) -> None:
    """
    Train every arm with every seed, print the table and the verdict.

    Ctrl-C ends the study early: what is finished is kept and judged.

    Parameters
    ----------
    config
        What to study.
    plan
        How many seeds, and by which metric and baseline they are judged.
    arm
        Arm with other settings, as "wide: dim=128" or "wide: pretrained, dim=128", given once or more. It is added to
        --arms, or else to the baseline alone.
    db
        SQLite file that keeps every block of seeds as it is finished; the same command continues where it ended.
    max_seeds
        Most paired seeds, instead of --seeds, of a study that stops by its results: with --until once the intervals
        are narrow, else as soon as every arm is decided at a planned look.
    look_every
        Number of seeds between planned looks, 10 by default.
    out
        CSV file for the results, one row per arm and seed; rewritten after each finished block of seeds.
    jobs
        Processes; -1 for one per core.
    config_file
        JSON file of settings, as the panel exports it; other options override it.
    watched
        Judge by the confidence sequence, as for a study that might be stopped for what it shows.
    keep
        Save the model of every run, or of each arm's best seed by validation accuracy, in FILE.weights beside --db.
    block_size
        Most seeds to train together. Fewer are finished sooner and need less memory.
    table
        Parquet file of text pairs or triplets that are not a named dataset.
    """
    check_out(out, db)
    config, until = _complete(config, config_file, arm, plan.baseline), plan.until
    if max_seeds is not None and "seeds" in plan.model_fields_set:
        raise InputError("expected --seeds or --max-seeds, found both; give --max-seeds alone")
    if max_seeds is None and look_every is not None:
        raise InputError("expected --max-seeds beside --look-every, found none; a fixed number of seeds has no looks")
    planned = plan.seeds if max_seeds is None else max_seeds
    if max_seeds is not None and until is None:
        look_every = look_every or FEWEST_PAIRS
    settings = {"db": db, "look_every": look_every, "watched": watched} | plan.model_dump(exclude={"seeds"})
    settings |= {"keep": keep, "block_size": block_size, "n_jobs": jobs}
    blocks = iter_study(config, planned, data=read_table(table), **settings)
    found, is_interrupted = gather(blocks, config.arms, out)
    if until is not None:
        _say_where_it_stopped(found.results, config.arms, until, planned, is_interrupted)
    elif look_every is not None:
        pairs = found.results.groupby("arm")["seed"].nunique().min()
        why = "every arm is decided" if pairs < planned else "the last planned look"
        print(f"stopped after {pairs} of {planned} seeds: {'interrupted' if is_interrupted else why}\n")
    print_verdict(found.results, found.clusters, config, config.encoder)
    print_files(found, out, db)


def _complete(config: StudyConfig, file: Path | None, arm: tuple[str, ...], baseline: str) -> StudyConfig:
    """Add the settings of a file and the arms that are given one by one, which alone need only the baseline."""
    is_alone = bool(arm) and file is None and "arms" not in config.model_fields_set
    config = complete(config, file)
    return StudyConfig.model_validate(dict(config) | {"arms": ((baseline,) if is_alone else config.arms) + arm})


def _say_where_it_stopped(
    results: pd.DataFrame, arms: Sequence[str], until: float, planned: int, is_interrupted: bool
) -> None:
    judged = judge_so_far(results, arms, range(planned), results.attrs["metric"], baseline=find_baseline(results))
    pairs = min((one.pairs for one in judged.values()), default=0)
    widths = {arm: one.difference.width for arm, one in judged.items()}
    found = ", ".join(
        f"{100 * width:.1f} points for {arm}" if np.isfinite(width) else f"unknown for {arm}"
        for arm, width in widths.items()
    )
    wanted = f"narrower than {100 * until:g} point{'s' * (until != 0.01)}"
    if pairs < FEWEST_PAIRS:
        said = f"an interval needs {FEWEST_PAIRS} paired seeds, found {pairs}; requested: {wanted}"
    elif all(width < until for width in widths.values()):
        said = f"stopped by the confidence sequence after {pairs} pairs: its interval is {found}, {wanted}"
    elif is_interrupted:
        said = f"interrupted after {pairs} pairs, before an interval {wanted}: it is {found}"
    else:
        said = f"{planned} seeds were not enough for an interval {wanted}: it is {found}"
    print(f"{said}\n")


def audit(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
) -> None:
    """
    Look for reasons not to trust a study of this config: leaks, shortcuts, contradictions, what needs no encoder.

    Parameters
    ----------
    config
        Of the study; its settings of training make no difference.
    """
    corpus = load_corpus(config)
    found = look_for_reasons(corpus, slice_for(config, corpus, [0])[0])
    keep_table("checks", found.checks)
    show("splits", found.splits.T, 2)
    print()
    show("references", found.references)
    for one in found.checks.itertuples():
        print(f"\n{one.severity.upper():8}{one.check}: {one.found}")
        if one.severity != "fine":
            print(textwrap.indent(textwrap.fill(f"{one.meaning} {one.advice}", 100), " " * 8))


def plan(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
    within: float = 0.01,
    metric: MetricName = "test_accuracy",
    arm: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    baseline: str = BASELINE,
    db: Path | None = None,
    pilot: int = 5,
    jobs: int = -1,
    config_file: ConfigFile = None,
    watched: Annotated[bool, Parameter(negative=())] = False,
    table: Table = None,
) -> None:
    """
    Print the seeds, minutes and memory that a study takes for an interval of a wanted width.

    A study of the same data and settings in the store tells the spread and the speed; else a few pairs are trained, and
    not kept.

    Parameters
    ----------
    config
        What to study.
    within
        Half the width of the interval of the difference; 0.01 is plus or minus a point.
    metric
        Metric that the interval is for.
    arm
        Arm with other settings, as in `rlm study`.
    baseline
        Arm that the others are compared with.
    db
        Store that may have a study of these data and settings, trained on this machine.
    pilot
        Pairs to train if there is none.
    jobs
        Processes; -1 for one per core.
    config_file
        JSON file of settings, as the panel exports it; other options override it.
    watched
        Plan for a study that is judged by the confidence sequence, as with --until; it takes more seeds.
    table
        Parquet file of text pairs or triplets that are not a named dataset.
    """
    config = _complete(config, config_file, arm, baseline)
    if not 0 < within < 1:
        raise InputError(f"expected --within above 0 and below 1, found {within:g}; 0.01 is one point")
    if pilot < 2:
        raise InputError(f"expected --pilot of at least 2 pairs, found {pilot}")
    check_request(pilot, config.arms, None)
    baseline = find_arm(config.arms, baseline)
    if baseline not in config.arms or len(config.arms) < 2:
        raise InputError(f"expected the arm {baseline} and another to plan by, found {', '.join(config.arms)}; add it")
    study = TripletStudy(config, load_corpus(config, read_table(table)))
    stored = None if db is None else _find(db, study)
    if stored is None:
        log.info("no study to plan by%s: training %d pairs, which are not kept", f" in {db}" if db else "", pilot)
    found = _train(study, pilot, jobs) if stored is None else stored
    seconds = found.results.groupby("arm")["seconds"].mean().to_dict()
    idle = 2 * _time_start()  # of the command, and then of its workers side by side
    wanted = forecast(found.results, within, baseline, metric, watched=watched, clusters=found.clusters)
    times = [predict(study, range(pairs), seconds, n_jobs=jobs) for pairs in (wanted.pairs, wanted.enough)]
    _, processes, largest = times[0]
    own = psutil.Process().memory_info().rss
    memory = own + processes * (own + largest * bytes_per_seed(config, study.corpus))
    seconds = [idle + one[0] for one in times]
    about = wanted._asdict() | {"metric": wanted.metric.name, "memory": memory}
    keep_table("plan", pd.DataFrame([about | dict(zip(("seconds", "seconds_enough"), seconds, strict=True))]))
    print(explain_forecast(wanted, seconds, memory))


def _train(study: TripletStudy, pairs: int, jobs: int) -> BlockResult:
    return collect(iter_experiment(study, range(pairs), n_jobs=jobs), study.arms)[0]


def _time_start() -> float:
    """Measure the seconds that a process takes to import what trains."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {TripletStudy.__module__}"], check=False)
    return time.perf_counter() - started


def _find(db: Path, study: TripletStudy) -> Any:  # noqa: ANN401
    """Return the tables of the stored study with the same data and settings, if all arms have pairs."""
    wanted = study.identify().data, None, study.config.model_dump(exclude={"arms"})
    for number in list_studies(db).query("seeds > 1").index:
        asked, stored = read_progress(db, number), read_study(db, number)
        is_same = asked and (asked.data, asked.source, stored.config.model_dump(exclude={"arms"})) == wanted
        if is_same and {*study.arms} <= {*stored.config.arms}:
            results = stored.finished.results
            log.info("planning by study %d of %s", number, db)
            return stored.finished._replace(results=results[results["arm"].isin(study.arms)])
    return None
