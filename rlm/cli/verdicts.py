"""The commands `rlm results`, `rlm luck` and `rlm verdict`: a stored study, or runs that were trained elsewhere."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
from cyclopts import Parameter

from rlm import explain
from rlm.cli.output import check_out, check_table_out, show, show_verdicts, write_table
from rlm.config import MetricName, StudyConfig
from rlm.errors import InputError
from rlm.evaluation.held_out import list_triplets
from rlm.external.stored import read_any, shorten_errors
from rlm.external.tables import Unit, read_results
from rlm.external.unpaired import compare_results
from rlm.external.writers import write_events, write_mlflow
from rlm.runtime.atomic import whole
from rlm.sentences import explain_metric
from rlm.stats.metrics import Metric, find_metric
from rlm.stats.variance import count_hits, tabulate_luck
from rlm.store.file import is_store
from rlm.store.pair import read_pair
from rlm.store.read import list_studies, read_study
from rlm.variants import BASELINE
from rlm.verdict import compare_all, find_baseline, paired_arms, summarise


def results(
    db: Path,
    /,
    *,
    study: int | None = None,
    out: Path | None = None,
    tensorboard: Path | None = None,
    mlflow: str | None = None,
) -> None:
    """
    Print the results of a stored study, or write them to a file or another tool.

    Parameters
    ----------
    db
        The store.
    study
        Number of the study; optional where there is only one. The message without it lists them.
    out
        File ending in .csv, .json, .parquet or .tsv; or .md or .tex for a table to paste into a text.
    tensorboard
        New folder for TensorBoard, with a run for every arm and seed.
    mlflow
        Address of an MLflow store, such as sqlite:///runs.db, for a new experiment: a parent, whose children are the
        runs of every arm and seed.
    """
    check_table_out(out, db)
    stored = read_any(db, study)
    table = stored.finished.results
    if tensorboard is not None:
        write_events(tensorboard, stored)
    if mlflow is not None:
        write_mlflow(mlflow, db.name if study is None else f"{db.name}, study {study}", stored)
    for place in filter(None, (tensorboard, mlflow)):
        print(f"runs: {place}")
    if out is None and tensorboard is None and mlflow is None:
        show("results", shorten_errors(table), 4, index=False, na_rep="NaN")
    if out is not None:
        write_table(out, table)
        print(f"results: {out}")


def luck(db: Path, /, *, study: int | None = None, out: Path | None = None, figure: Path | None = None) -> None:
    """
    Print which test triplets depend on the seed, and write them to a file with their texts.

    Parameters
    ----------
    db
        The store.
    study
        Number of the study; optional where there is only one. The message without it lists them.
    out
        File for all test triplets, first those that every seed gets wrong: .csv, .json, .md, .parquet, .tex or .tsv.
    figure
        PNG file of the share of seeds that get a triplet right, beside what independent seeds would give.
    """
    check_table_out(out, db)
    check_out(figure, db, "--figure")
    if figure is not None and figure.suffix != ".png":
        raise InputError(f"expected --figure FILE ending in .png, found {figure}; rename it")
    triplets = read_study(db, study).finished.triplets
    show("luck", tabulate_luck(triplets))
    print(f"\n{explain.luck(triplets)}")
    if out is not None:
        listed = list_triplets(db, study).reset_index()
        ranked = listed.assign(rank=listed["kind"].map({"wrong": 0, "flips": 1, "tied": 2, "right": 3}))
        arms = list(dict.fromkeys(triplets["arm"]))
        write_table(out, ranked.sort_values(["rank", *arms], kind="stable").drop(columns="rank"))
        print(f"\ntriplets: {out}")
    if figure is not None:
        from rlm.report.view import paint_luck  # with matplotlib, which takes seconds

        with whole(figure) as temporary:
            temporary.write_bytes(paint_luck(count_hits(triplets)).png)
        print(f"\nfigure: {figure}")


def verdict(
    source: str,
    /,
    *,
    study: int | None = None,
    arm: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    baseline: str | None = None,
    metric: str | None = None,
    unit: Unit | None = None,
    lower_is_better: Annotated[bool | None, Parameter(negative="--higher-is-better")] = None,
    seed_column: str = "seed",
    arm_column: str = "arm",
    watched: Annotated[bool, Parameter(negative=())] = False,
    html: Path | None = None,
) -> None:
    """
    Print the table and the verdict of a stored study, also while it runs, or of runs that were trained elsewhere.

    Parameters
    ----------
    source
        A store of studies. Or a file ending in .csv, .tsv, .jsonl, .json or .parquet with the columns arm, seed and
        metrics, or with seed and a column per arm. Or a folder of trainer_state.json files, or of TensorBoard event
        files, in folders such as wide/seed3. Or an MLflow store: its folder, its SQLite file or its address.
    study
        Number of the study in a store; optional where there is only one. The message without it lists them.
    arm
        Arm to compare with the baseline, given once or more; all by default.
    baseline
        The arm that others are compared with: by default scratch, or the first.
    metric
        The column to judge: by default the one that the study was meant for, test_accuracy, or the only one. It names
        the numbers of a column per arm.
    unit
        fraction for numbers from 0 to 1, percent for numbers from 0 to 100; by default the range of a known metric.
    lower_is_better
        Direction of a metric that is not known, or not as usual.
    seed_column
        Column, or parameter or tag in MLflow, that holds the seed.
    arm_column
        Column, or parameter or tag in MLflow, that holds the arm.
    watched
        Judge by the confidence sequence, as for runs that might have been stopped for what they showed.
    html
        File for a page with the verdict, the figure and the tables, which loads nothing.
    """
    check_out(html, Path(source), "--html")
    better = {None: None, True: "lower", False: "higher"}[lower_is_better]
    columns = {"seed_column": seed_column, "arm_column": arm_column}
    if not is_store(source):
        _refuse({"study": study}, "a table")
        found, known = read_results(source, metric, unit=unit, better=better, **columns)
        listed = found["arm"].unique().tolist()
        baseline = baseline or (BASELINE if BASELINE in listed else listed[0])
        _judge(Runs(source, found, known, baseline, arm or None), watched or None, html)
        return
    named = {name: value for name, value in columns.items() if value != name.removesuffix("_column")}
    _refuse({"unit": unit, "lower_is_better": lower_is_better, **named}, "a stored study, which has it")
    stored = read_any(Path(source), study)
    results, clusters, config = stored.finished.results, stored.finished.clusters, stored.config
    if isinstance(config, StudyConfig):
        given = {"arm": arm, "baseline": baseline, "watched": watched, "html": html}
        _refuse(given, "a stored study of triplets")
        print_verdict(results, clusters, config, stored.encoder, metric)
        return
    known = {one.name: one for one in config.metrics}
    if metric is not None and metric not in known:
        raise InputError(f"expected --metric among {', '.join(known)}, found {metric!r}; give one of these")
    baseline = baseline or config.baseline
    chosen = config.metrics[0] if metric is None else known[metric]
    runs = Runs(
        f"{source}, function {config.function}", results, chosen, baseline, arm or paired_arms(results, baseline)
    )
    _judge(runs, watched or None, html, clusters)


def compare(db: Path, first: int, second: int, /, *, arm: str | None = None, metric: MetricName | None = None) -> None:
    """
    Print the paired verdict between an arm of two stored studies that share data, splits and seeds.

    Parameters
    ----------
    db
        The store.
    first
        Number of the study to compare with, see `rlm studies`: it is the baseline.
    second
        Number of the other study.
    arm
        An arm of both; optional where they have only one in common.
    metric
        The column to judge: by default the one that both studies were meant for.
    """
    found = read_pair(db, first, second, arm)
    if metric is None and "metric" not in found.results.attrs:
        raise InputError(
            f"expected --metric, since studies {first} and {second} were meant for different ones; name it"
        )
    settings = list_studies(db)["settings"]
    print(f"{db}: " + ", ".join(" ".join(filter(None, [f"#{one}", settings[one]])) for one in (first, second)))
    _print_pairs(found.results, found.clusters, metric)


def print_verdict(
    results: pd.DataFrame, clusters: pd.DataFrame, config: StudyConfig, encoder: str, metric: str | None = None
) -> None:
    """Print what a study of triplets is about, its table and its verdicts, by default by its own metric."""
    print(f"{config.dataset}, encoder {encoder}, loss {config.loss}, baseline {find_baseline(results)}")
    _print_pairs(results, clusters, metric)


def _print_pairs(results: pd.DataFrame, clusters: pd.DataFrame, metric: str | None) -> None:
    """Print the table and the verdicts of triplets, by default by the metric that they were meant for."""
    known = find_metric(metric or results.attrs["metric"], results)
    verdicts = compare_all(results, metric=known, arms=paired_arms(results), clusters=clusters)
    print(f"{known.label} over seeds, mean with its 95 % interval\n")
    show("summary", summarise(results, known))
    show_verdicts(verdicts)
    if unplanned := explain_metric(results, known):
        print(f"\n{unplanned}")


class Runs(NamedTuple):
    """Runs of any training, and what to judge of them; all arms if none are named."""

    source: str
    results: pd.DataFrame
    metric: Metric
    baseline: str
    arms: Sequence[str] | None


def _judge(runs: Runs, watched: bool | None, html: Path | None, clusters: pd.DataFrame | None = None) -> None:
    """Print the table and the verdicts, and write the page if it is asked for."""
    source, results, metric, baseline, arms = runs
    verdicts = compare_results(results, baseline, metric, arms=arms, watched=watched, clusters=clusters)
    print(f"{source}\n{metric.label} over seeds, mean with its 95 % interval\n")
    show("summary", summarise(results, metric))
    show_verdicts(verdicts)
    if html is not None:
        from rlm.report.results_page import export_results  # with Jupyter and matplotlib, which take seconds

        about = {"command": shlex.join(["rlm", *sys.argv[1:]]), "source": source}
        export_results(html, results, metric, verdicts, about)
        print(f"\npage: {html}")


def _refuse(given: Mapping[str, Any], what: str) -> None:
    """Raise InputError for options that are given and do not belong to what is judged."""
    for name, value in given.items():
        if value not in (None, False, ()):
            raise InputError(f"expected no --{name.replace('_', '-')} beside {what}, found {value}; omit it")
