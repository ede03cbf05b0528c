"""Runs of any training as a page: the verdict, the figure and the tables, in one file that loads nothing."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
import pandas as pd

from rlm.external.unpaired import Unpaired
from rlm.report.markup import escape_markdown
from rlm.report.page import page_html
from rlm.report.study_page import picture_cell, table_cell, text_cell
from rlm.report.view import paint_seeds
from rlm.runtime.atomic import write_whole
from rlm.stats.metrics import Metric
from rlm.verdict import Verdict, summarise


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
