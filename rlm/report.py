"""The report: execute the numbered notebooks, write each as one self-contained HTML file, and an index before them."""

import base64
import datetime
import tempfile
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode
from tqdm.auto import tqdm

from rlm.errors import InputError
from rlm.files import write_whole
from rlm.page import page_html
from rlm.provenance import commit, versions

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
HEADLINE = "headline"
INDEX = "index.html"


def build_report(
    out: Path, parameters: Mapping[str, object], notebooks: Path = NOTEBOOKS, about: Mapping[str, str] | None = None
) -> Path:
    """
    Execute notebooks and write the report.

    Parameters
    ----------
    out
        Folder for the pages, made if it is not there. Pages appear when all notebooks have run.
    parameters
        Put in place of the values in a notebook's cell tagged ``parameters``, for those that it has.
    notebooks
        Folder; its files ``NN_name.ipynb`` are run in order.
    about
        Of the data and the command, by name, for the box at the end of every page.

    Returns
    -------
    pathlib.Path
        The index, which shows the outputs of all cells tagged ``headline``. Beside it stand one page per notebook
        and the first headline picture as ``verdict.png``.

    Raises
    ------
    InputError
        If there are no notebooks, or a cell of one fails.
    OSError
        If the folder cannot be written.
    """
    paths = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise InputError(
            f"expected numbered notebooks (01_name.ipynb ...) in {notebooks}, found none; pass --notebooks FOLDER"
        )
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    executed = {}
    for path in tqdm(paths, desc="report", unit="notebook"):
        executed[f"{path.stem}.html"] = _execute(path, parameters)
    pages = {page: _title(notebook) for page, notebook in executed.items()}
    provenance = {
        **(about or {}),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": commit() or "of an installed package",
        "duration": f"{(time.monotonic() - start) / 60:.1f} minutes",
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }
    executed[INDEX] = _index(executed, pages)
    links = [(INDEX, "Verdict"), *((page, _short(page)) for page in pages)]
    titles = {**pages, INDEX: "Verdict"}
    for page, notebook in executed.items():
        about = provenance | _own_provenance(notebook, parameters)
        html = page_html(notebook, titles[page], about, links=links, page=page, has_code=page != INDEX)
        write_whole(out / page, html)
    picture = _first_picture(executed[INDEX])
    if picture:
        (out / "verdict.png").write_bytes(picture)
    return out / INDEX


def _execute(path: Path, parameters: Mapping[str, object]) -> NotebookNode:
    known = papermill.inspect_notebook(path)
    settings = {**parameters, "progress": False, "on_paper": True}  # on paper a bar would stand still
    try:
        with tempfile.TemporaryDirectory() as folder:
            return papermill.execute_notebook(
                path,
                Path(folder) / path.name,
                parameters={name: value for name, value in settings.items() if name in known},
                kernel_name="python3",
                progress_bar=False,
                cwd=path.parent,
                extra_arguments=["--log-level=ERROR", "--InlineBackend.figure_formats=retina"],
            )
    except papermill.PapermillExecutionError as error:
        raise InputError(f"{path.name}, cell {error.cell_index}: {error.ename}: {error.evalue}") from error


def _short(page: str) -> str:
    number, name = Path(page).stem.split("_", 1)
    return f"{int(number)} {name.replace('_', ' ').capitalize()}"


def _own_provenance(notebook: NotebookNode, parameters: Mapping[str, object]) -> dict[str, str]:
    """The parameters that a notebook took, and its data, which its metadata name where they are its own."""
    took = notebook.metadata.get("papermill", {}).get("parameters", parameters)
    told = ", ".join(f"{name} {value}" for name, value in parameters.items() if name in took)
    return {"parameters": told, **notebook.metadata.get("provenance", {})}


def _title(notebook: NotebookNode) -> str:
    heading = next(line for line in notebook.cells[0].source.splitlines() if line.startswith("# "))
    return heading.removeprefix("# ")


def _index(executed: Mapping[str, NotebookNode], pages: Mapping[str, str]) -> NotebookNode:
    markdown = nbformat.v4.new_markdown_cell
    cells = [markdown("# Does random-triplet pre-training help this encoder, or was it a lucky seed?")]
    for notebook in executed.values():
        cells += [cell for cell in notebook.cells if HEADLINE in cell.metadata.get("tags", [])]
    cells.append(markdown("## Pages\n\n" + "\n".join(f"- [{escape(title)}]({page})" for page, title in pages.items())))
    return nbformat.v4.new_notebook(cells=cells)


def _first_picture(notebook: NotebookNode) -> bytes | None:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output.data["image/png"])
    return None
