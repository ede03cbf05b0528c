"""One study of a store as a page, with the config and the code that repeat it."""

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pandas as pd
from nbformat import NotebookNode

from rlm.config import YOUR_TABLE, MetricName, Plan, StudyConfig
from rlm.errors import InputError
from rlm.report.markup import escape_markdown, html_table
from rlm.report.page import page_html
from rlm.report.view import DETAILS, Picture, View, about_data, compare_studies, shares_of, view
from rlm.runtime.atomic import write_whole
from rlm.stats.metrics import SAME_WITHIN
from rlm.store.read import list_studies, read_origin, read_progress, read_study
from rlm.variants import ARMS, BASELINE, find_variant

CONFIG = "config.json"
OWN_DATA = "your own data, passed as a table"


class Exported(NamedTuple):
    """What was written: the page, the config as JSON, and a line of Python that repeats the study."""

    page: Path
    config: Path
    code: str


def export_study(
    db: Path,
    study: int,
    folder: Path,
    describe: Callable[[StudyConfig], Mapping[str, str]],
    metric: MetricName | None = None,
) -> Exported:
    """
    Write what is finished of a study to a folder: one HTML file that loads nothing, the config, and the code.

    The metric is by default the one that the study was meant for. `describe` is `rlm.data.datasets.describe_data`,
    since a report cannot load data itself.
    """
    seen, stored, progress = view(db, study, metric), read_study(db, study), read_progress(db, study)
    if progress is None:
        raise InputError(f"expected the number of a study that was started, found {study} in {db}")
    config, source = stored.config, progress.source
    about = about_data(config, progress.data, describe)
    seeds = list(dict.fromkeys([*progress.seeds, *stored.finished.results["seed"]]))
    asked_for = dict.fromkeys([*progress.config.arms, *stored.config.arms])
    arms = tuple(arm for arm in asked_for if find_variant(arm).start in ARMS)
    has_starts = len(arms) < len(asked_for)
    config = _relocate(config.model_copy(update={"arms": arms}), folder, about)
    given = [f"seeds={len(seeds) if seeds == list(range(len(seeds))) else seeds}"]
    given += [f"until={progress.plan.until!r}"] if progress.plan.until else []
    given += ["data=data"] if about is None else []
    given += ["pretrain_texts=texts"] if config.pretrain_texts == YOUR_TABLE else []
    given += [f"make_encoder={stored.encoder if stored.encoder.isidentifier() else 'make_encoder'}"] if source else []
    given += ["starts=starts"] if has_starts else []
    given += [f"metric={progress.plan.metric!r}"] if progress.plan.metric != Plan().metric else []
    looks = stored.watched if isinstance(stored.watched, tuple) else ()
    given += [f"look_every={looks[0]}"] if looks else ["watched=True"] if stored.watched else []
    given += [f"same_within={progress.plan.same_within!r}"] if progress.plan.same_within != SAME_WITHIN else []
    given += [f"baseline={progress.plan.baseline!r}"] if progress.plan.baseline != BASELINE else []
    read_config = f'rlm.StudyConfig.model_validate_json(open("{CONFIG}").read())'
    code = f"rlm.run_study({', '.join([read_config, *given, f'db={db.name!r}'])})"
    cells = [
        *_cells(seen, stored.encoder, about["title"] if about else f"{OWN_DATA} ({config.dataset})"),
        *_to_repeat(code, given, source),
    ]
    provenance = {
        "command": code,
        "dataset": about["title"] if about else OWN_DATA,
        "licence": about["licence"] if about else "not stated",
        **read_origin(db, study),
        "config": config.model_dump_json(indent=1, exclude_none=True),
    }
    html = page_html(nbformat.v4.new_notebook(cells=cells), f"Study {study}", provenance, has_code=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, json.dumps(config.model_dump(mode="json"), indent=1))  # in ASCII, to be read anywhere
    write_whole(folder / "report.html", html)
    return Exported(folder / "report.html", folder / CONFIG, code)


def export_studies(db: Path, studies: Sequence[int], folder: Path, metric: MetricName) -> Exported:
    """Write several studies to one HTML file in a folder: how they differ, and what is finished of each."""
    found, titles = compare_studies(db, studies, metric), list_studies(db, None).loc[list(studies)].fillna("")
    settings = found.settings.rename_axis("setting").reset_index()
    effects = found.effects.drop(columns=["value", "low", "high"])
    cells = [
        text_cell(f"# {len(studies)} studies of {escape_markdown(db.name)}"),
        text_cell("## What differs" if len(settings) else "Their settings are the same."),
        *([table_cell(settings)] if len(settings) else []),
        text_cell(f"## {escape_markdown(found.metric.title)}"),
        *map(picture_cell, (found.picture, found.seeds)),
        table_cell(effects, ["baseline", "with it"] if found.metric.is_share else []),
    ]
    for number, one in titles.iterrows():
        mine = _cells(view(db, int(number), metric), one["encoder"], one["dataset"])
        mine[0] = text_cell(f"## Study {number}{': ' * bool(one['name'])}{escape_markdown(one['name'])}")
        told = ", ".join(filter(None, [one["note"], one["tags"]]))
        cells += [mine[0], *([text_cell(escape_markdown(told))] if told else []), *(_deeper(cell) for cell in mine[1:])]
    about = {"command": f"rlm.Explorer(db={db.name!r})", "dataset": ", ".join(dict.fromkeys(titles["dataset"]))}
    html = page_html(nbformat.v4.new_notebook(cells=cells), f"Studies of {db.name}", about, has_code=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "studies.html", html)
    return Exported(folder / "studies.html", folder / CONFIG, "")


def _deeper(cell: NotebookNode) -> NotebookNode:
    """Make a heading of the second level one of the third."""
    return text_cell(f"#{cell.source}") if cell.source.startswith("## ") else cell


def _cells(seen: View, encoder: str, data: str) -> list[NotebookNode]:
    """Write what is finished of a study as the cells of a notebook."""
    cells = [text_cell(f"# Does pre-training help {escape_markdown(encoder)} on {escape_markdown(data)}?")]
    cells += [text_cell(f"> **{escape_markdown(seen.headline)}** {escape_markdown(seen.limits)}")]
    cells += [picture_cell(picture) for picture in (seen.differences, seen.seeds) if picture is not None]
    for heading, text in seen.words:
        cells += [
            text_cell(f"## {escape_markdown(heading[0].upper() + heading[1:])}"),
            text_cell(escape_markdown(text)),
        ]
    if seen.luck is not None:
        cells.append(picture_cell(seen.luck))
    shares = list(seen.summary.columns.drop(["arm", "seeds"])) if seen.metric.is_share else []
    cells += [text_cell(f"## {escape_markdown(seen.metric.title)} by arm"), table_cell(seen.summary, shares)]
    if len(seen.estimates):
        cells += [text_cell("## Estimates"), table_cell(seen.estimates)]
    if seen.curves is not None:
        cells += [text_cell("## Learning curves"), picture_cell(seen.curves)]
    if seen.pretraining is not None:
        cells += [text_cell("## Pre-training"), picture_cell(seen.pretraining)]
    return [
        *cells,
        text_cell("## Every run"),
        table_cell(seen.results.drop(columns=DETAILS, errors="ignore"), shares_of(seen)),
    ]


def _to_repeat(code: str, given: Sequence[str], source: str | None) -> list[NotebookNode]:
    """Explain how to repeat a study, and what that requires of what is given to it."""
    texts = [f"With `{CONFIG}`, which is written beside this page, in its folder:"]
    if "data=data" in given:
        texts.append("The data were passed as a table, which is not kept here: `data` must be the same table.")
    if "pretrain_texts=texts" in given:
        texts.append("The unlabelled texts are not kept here: `texts` must be the same ones.")
    if "starts=starts" in given:
        texts.append("Some arms start from your own weights, which are not kept here: `starts` must be the same.")
    if source:
        texts.append("The encoder is your own: define it first, with everything that its source uses.")
    cells = [text_cell("## To repeat it\n\n" + "\n\n".join(texts)), _output({"text/plain": code})]
    return [*cells, text_cell("The source of the encoder:"), _output({"text/plain": source})] if source else cells


def _relocate(config: StudyConfig, folder: Path, about: Mapping[str, str] | None) -> StudyConfig:
    """Return the config with the paths of its files relative to a folder."""

    def seen(path: str | None) -> str | None:
        is_relative = path is not None and not Path(path).is_absolute() and Path(path).exists()
        return os.path.relpath(path, folder) if is_relative else path

    reading = config.reading.model_copy(update={"irrelevant": seen(config.reading.irrelevant)})
    files = "tokenizer", "word_vectors", "character_vectors", "pretrain_texts"
    paths = {name: seen(getattr(config, name)) for name in files} | {"reading": reading}
    if about is not None and about["source"] == config.dataset:
        paths["dataset"] = seen(config.dataset)
    return config.model_copy(update=paths)


def text_cell(source: str) -> NotebookNode:
    """Return a cell of Markdown."""
    return nbformat.v4.new_markdown_cell(source)


def _output(data: dict[str, str], metadata: dict[str, Any] | None = None) -> NotebookNode:
    shown = nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})
    return nbformat.v4.new_code_cell("", outputs=[shown])


def picture_cell(picture: Picture) -> NotebookNode:
    """Return a cell that shows a picture."""
    about = {"image/png": {"alt": picture.alt, "width": picture.width}}
    return _output({"image/png": base64.b64encode(picture.png).decode()}, about)


def table_cell(table: pd.DataFrame, percent: Sequence[str] = ()) -> NotebookNode:
    """Return a cell that shows a table; `percent` are columns of shares."""
    return _output({"text/html": html_table(table, percent)})
