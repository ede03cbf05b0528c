"""One study of a store as a page, with what repeats it."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat import NotebookNode

from rlm.config import StudyConfig
from rlm.datasets import load
from rlm.errors import InputError
from rlm.files import write_whole
from rlm.live import Exported, Picture, view
from rlm.page import page_html
from rlm.stored import read_origin, read_progress
from rlm.tabs import html_table


def export_study(db: Path, study: int, folder: Path, is_table: bool = False) -> Exported:
    """
    Write what is finished of a study.

    Parameters
    ----------
    db, study
        The store, and the study's number there.
    folder
        Made if it is not there.
    is_table
        Whether the data were handed over as a table, which whoever repeats the study has to do too.

    Returns
    -------
    Exported
        One HTML file that loads nothing, the config, and the code.

    Raises
    ------
    InputError
        If nothing of the study is finished.
    OSError
        If the files cannot be written.
    """
    seen, progress = view(db, study), read_progress(db, study)
    config = folder / "config.json"
    until = f", until={progress.plan.until}" if progress.plan.until else ""
    data = ", data=data" if is_table else ""
    code = (
        f'rlm.run_study(rlm.StudyConfig.model_validate_json(open("{config.name}").read()), '
        f'seeds={progress.plan.seeds}{until}{data}, watched=True, db="{db.name}")'
    )
    markdown = nbformat.v4.new_markdown_cell
    cells = [markdown(f"# Does pre-training help {progress.config.encoder} on {_plain(progress.config.dataset)}?")]
    cells += [markdown(f"> **{seen.headline}**"), _picture(seen.seeds)]
    for heading, text in seen.words:
        cells += [markdown(f"## {_plain(heading[0].upper() + heading[1:])}"), markdown(_plain(text))]
    shares = list(seen.summary.columns.drop(["arm", "seeds"]))
    cells += [markdown("## Test accuracy by arm"), _table(seen.summary, shares)]
    if len(seen.estimates):
        cells += [markdown("## Estimates"), _table(seen.estimates)]
    cells += [markdown("## Learning curves"), _picture(seen.curves)]
    if seen.pretraining is not None:
        cells += [markdown("## Pre-training"), _picture(seen.pretraining)]
    runs = seen.results.drop(columns=["split", "test_triplets", "test_anchors", "test_components"])
    cells += [
        markdown("## Every run"),
        _table(runs, ["validation_accuracy", "test_accuracy", "roc_auc", "top_1"]),
        markdown(
            f"## To repeat it\n\nWith `{config.name}`, which is written beside this page:\n\n```python\n{code}\n```"
        ),
    ]
    about = {
        "command": code,
        "dataset": progress.config.dataset,
        "licence": _licence(progress.config),
        **read_origin(db, study),
        "config": progress.config.model_dump_json(indent=1),
    }
    html = page_html(nbformat.v4.new_notebook(cells=cells), f"Study {study}", about, has_code=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(config, progress.config.model_dump_json(indent=1))
    write_whole(folder / "report.html", html)
    return Exported(folder / "report.html", config, code)


def _plain(text: str) -> str:
    """Text as Markdown that looks like it."""
    return re.sub(r"([\\`*_{}\[\]()#+!<>$|~])", r"\\\1", text)


def _output(data: dict[str, str], metadata: dict[str, Any] | None = None) -> NotebookNode:
    shown = nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})
    return nbformat.v4.new_code_cell("", outputs=[shown])


def _picture(picture: Picture) -> NotebookNode:
    about = {"image/png": {"alt": picture.alt, "width": picture.width}}
    return _output({"image/png": base64.b64encode(picture.png).decode()}, about)


def _table(table: pd.DataFrame, percent: Sequence[str] = ()) -> NotebookNode:
    return _output({"text/html": html_table(table, percent)})


def _licence(config: StudyConfig) -> str:
    try:
        return str(load(config.dataset, **config.reading.model_dump()).attrs.get("licence", "not said"))
    except (InputError, OSError):
        return "not said"
