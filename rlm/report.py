"""The report: execute the numbered notebooks, write each as one self-contained HTML file, and an index before them."""

import base64
import datetime
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from tqdm.auto import tqdm

from rlm.errors import InputError
from rlm.files import write_whole

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
HEADLINE = "headline"
INDEX = "index.html"


def build_report(out: Path, parameters: Mapping[str, object], notebooks: Path = NOTEBOOKS) -> Path:
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
    provenance = _provenance(parameters, time.monotonic() - start)
    executed[INDEX] = _index(executed, pages)
    links = [(INDEX, "Verdict"), *((page, _short(page)) for page in pages)]
    titles = {**pages, INDEX: "Verdict"}
    for page, notebook in executed.items():
        write_whole(out / page, _html(notebook, page, titles[page], links, provenance))
    picture = _first_picture(executed[INDEX])
    if picture:
        (out / "verdict.png").write_bytes(picture)
    return out / INDEX


def _execute(path: Path, parameters: Mapping[str, object]) -> NotebookNode:
    known = papermill.inspect_notebook(path)
    settings = {**parameters, "progress": False}  # on paper a bar would stand still
    try:
        with tempfile.TemporaryDirectory() as folder:
            return papermill.execute_notebook(
                path,
                Path(folder) / path.name,
                parameters={name: value for name, value in settings.items() if name in known},
                kernel_name="python3",
                progress_bar=False,
                cwd=path.parent,
                extra_arguments=["--log-level=ERROR"],
            )
    except papermill.PapermillExecutionError as error:
        raise InputError(f"{path.name}, cell {error.cell_index}: {error.ename}: {error.evalue}") from error


def _short(page: str) -> str:
    number, name = Path(page).stem.split("_", 1)
    return f"{int(number)} {name.replace('_', ' ').capitalize()}"


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


def _html(notebook: NotebookNode, page: str, title: str, links: Sequence[tuple[str, str]], provenance: str) -> str:
    exporter = HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_input=page == INDEX,
    )
    resources = {
        "page": page,
        "title": title,
        "links": links,
        "provenance": provenance,
        "highlight_css": HtmlFormatter(style="friendly").get_style_defs(".highlight"),
    }
    html, _ = exporter.from_notebook_node(notebook, resources=resources)
    return html


def _first_picture(notebook: NotebookNode) -> bytes | None:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output.data["image/png"])
    return None


def _provenance(parameters: Mapping[str, object], seconds: float) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in parameters.items())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("rlm", "torch", "numpy", "scipy"))
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{settings} · {versions}, Python {platform.python_version()} · {seconds / 60:.1f} minutes · {today}"
