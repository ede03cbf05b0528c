"""Runs of any training as a page: the verdict, the figure and the tables, in one file that loads nothing."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
import pandas as pd

from rlm.config import MetricName, StudyConfig
from rlm.external.stored import read_any, shorten_errors
from rlm.external.unpaired import Unpaired
from rlm.report.markup import escape_markdown
from rlm.report.page import page_html
from rlm.report.study_page import CONFIG, Exported, export_study, picture_cell, table_cell, text_cell
from rlm.report.view import paint_seeds
from rlm.runtime.atomic import write_whole
from rlm.stats.metrics import Metric
from rlm.verdict import Verdict, compare_all, paired_arms, summarise


def export_stored(
    db: Path,
    study: int,
    folder: Path,
    describe: Callable[[StudyConfig], Mapping[str, str]],
    name: MetricName | None = None,
) -> Exported:
    """Write what is finished of a study to a folder, see `export_study`; a function has a command that shows it."""
    stored = read_any(db, study)
    config, results = stored.config, shorten_errors(stored.finished.results)
    if isinstance(config, StudyConfig):
        return export_study(db, study, folder, describe, name)
    metric, arms = config.choose(name), paired_arms(results, config.baseline)
    verdicts = compare_all(results, config.baseline, metric, arms=arms, clusters=stored.finished.clusters)
    command = shlex.join(["rlm", "verdict", db.name, "--study", str(study), "--metric", metric.name])
    about = {"command": command, "source": f"{db}, function {config.function}", **config.describe()}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, config.model_dump_json(indent=1))
    export_results(folder / "report.html", results, metric, verdicts, about)
    return Exported(folder / "report.html", folder / CONFIG, command)


def export_results(
    path: Path,
    results: pd.DataFrame,
    metric: Metric,
    verdicts: Mapping[str, Verdict | Unpaired],
    provenance: Mapping[str, str],
) -> None:
    """Write a page about some runs, like that of a study; `provenance` tells where they come from, as its source."""
    title = Path(provenance["source"]).name
    summary = summarise(results, metric)
    shares = [metric.name] if metric.is_share else []
    headline = " ".join(found.headline for found in verdicts.values()) or "There is nothing to compare."
    cells = [
        text_cell(f"# {escape_markdown(metric.label)} of {escape_markdown(title)}"),
        text_cell(f"> **{escape_markdown(headline)}**"),
        picture_cell(paint_seeds(results, summary, metric)),
    ]
    for arm, found in verdicts.items():
        heading = f"## {escape_markdown(arm)}, compared with {escape_markdown(found.baseline)}"
        cells += [text_cell(heading), text_cell(escape_markdown(found.text))]
    described = summary.reset_index()
    cells += [
        text_cell(f"## {escape_markdown(metric.label)} by arm"),
        table_cell(described, list(described.columns.drop(["arm", "seeds"])) if shares else []),
    ]
    if verdicts:
        estimates = pd.concat({arm: found.table() for arm, found in verdicts.items()}, names=["arm"])
        cells += [text_cell("## Estimates"), table_cell(estimates.reset_index())]
    cells += [text_cell("## Every run"), table_cell(results, shares)]
    html = page_html(nbformat.v4.new_notebook(cells=cells), title, provenance, has_code=False)
    write_whole(path, html)
