"""The command `rlm plan`: what a study takes for a wanted precision, before it is run."""

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import psutil
from cyclopts import Parameter

from rlm.arms import bytes_per_seed
from rlm.cli.output import keep
from rlm.cli.settings import ConfigFile, complete
from rlm.config import MetricName, StudyConfig
from rlm.errors import InputError
from rlm.experiment import check_request, collect, iter_experiment
from rlm.runtime.parallel import predict
from rlm.sentences import explain_forecast
from rlm.stats.power import forecast
from rlm.store.read import list_studies, read_progress, read_study
from rlm.study import BlockResult, TripletStudy, load_corpus
from rlm.verdict import BASELINE

log = logging.getLogger(__name__)


def plan(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
    within: float = 0.01,
    metric: MetricName = "test_accuracy",
    db: Path | None = None,
    pilot: int = 5,
    jobs: int = -1,
    config_file: ConfigFile = None,
    watched: Annotated[bool, Parameter(negative=())] = False,
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
        What the interval is about.
    db
        Store that may have a study of these data and settings, trained on this machine.
    pilot
        Pairs to train if there is none.
    jobs
        Processes; -1 for one per core.
    config_file
        JSON file of settings, as the panel exports it; options that are given as well count first.
    watched
        Plan for a study that is judged by the confidence sequence, as with --until; it takes more seeds.
    """
    config = complete(config, config_file)
    if not 0 < within < 1 or pilot < 2:
        raise InputError(f"expected --within from 0 to 1 and --pilot of at least 2, found {within} and {pilot}")
    check_request(pilot, config.arms, None)
    if BASELINE not in config.arms or len(config.arms) < 2:
        raise InputError(f"expected the arm {BASELINE} and another to plan by, found {', '.join(config.arms)}")
    study, started = TripletStudy(config, load_corpus(config)), time.perf_counter()
    stored = None if db is None else _find(db, study)
    found = _train(study, pilot, jobs) if stored is None else stored
    took = time.perf_counter() - started
    seconds = found.results.groupby("arm")["seconds"].mean().to_dict()
    # To start processes takes time, too, which a pilot shows.
    idle = 0.0 if stored is not None else max(0.0, took - predict(study, range(pilot), seconds, n_jobs=jobs)[0])
    wanted = forecast(found.results, within, BASELINE, metric, watched=watched, clusters=found.clusters)
    times = [predict(study, range(pairs), seconds, n_jobs=jobs) for pairs in (wanted.pairs, wanted.enough)]
    _, processes, largest = times[0]
    own = psutil.Process().memory_info().rss
    memory = own + processes * (own + largest * bytes_per_seed(config, study.corpus))
    seconds = [idle + one[0] for one in times]
    about = wanted._asdict() | {"metric": wanted.metric.name, "memory": memory}
    keep("plan", pd.DataFrame([about | dict(zip(("seconds", "seconds_enough"), seconds, strict=True))]))
    print(explain_forecast(wanted, seconds, memory))


def _train(study: TripletStudy, pairs: int, jobs: int) -> BlockResult:
    return collect(iter_experiment(study, range(pairs), n_jobs=jobs), study.arms)[0]


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
