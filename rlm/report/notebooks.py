"""The report: execute the numbered notebooks, and write each as one self-contained HTML file, with an index."""

import base64
import datetime
import re
import tempfile
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

import nbformat
import papermill
from nbformat import NotebookNode
from tqdm.auto import tqdm

from rlm.errors import InputError
from rlm.report.markup import escape_markdown
from rlm.report.page import page_html
from rlm.runtime.atomic import whole, write_whole
from rlm.runtime.provenance import commit, versions
from rlm.runtime.resources import find_notebooks

HEADLINE = "headline"
INDEX = "index.html"
ANSWER = re.compile(r"^\*\*(.+?)\*\*", re.MULTILINE)  # in the last text that a notebook shows
NOT_LISTED = ("progress", "on_paper", "db")  # parameters that decide no number


def build_report(
    out: Path, parameters: Mapping[str, object], notebooks: Path | None = None, about: Mapping[str, str] | None = None
) -> Path:
    """
    Execute the notebooks ``NN_name.ipynb`` of a folder, or of this package; write the report when all have run.

    `parameters` replace those of the cell tagged ``parameters`` that a notebook has; `about` goes into the box at the
    end of every page. Return the index, which shows all cells tagged ``headline``.
    """
    notebooks = notebooks or find_notebooks()
    paths = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise InputError(
            f"expected numbered notebooks (01_name.ipynb ...) in {notebooks}, found none; pass --notebooks FOLDER"
        )
    titles = {f"{path.stem}.html": _title(path) for path in paths}  # raises before any notebook is run
    out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out).close()
    executed, minutes = {}, {}
    for path, page in zip(tqdm(paths, desc="report", unit="notebook"), titles, strict=True):
        start = time.monotonic()
        executed[page] = _execute(path, parameters)
        minutes[page] = (time.monotonic() - start) / 60
    executed[INDEX] = _index(executed, titles)
    links = [(INDEX, "Verdict"), *((page, _short(page)) for page in titles)]
    shared = {
        **(about or {}),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": commit() or "of an installed package",
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }
    written = {}
    for page, notebook in executed.items():
        duration = f"{minutes.get(page, sum(minutes.values())):.1f} minutes"
        provenance = shared | {"duration": duration} | _own_provenance(notebook)
        title = titles.get(page, "Verdict")
        written[page] = page_html(notebook, title, provenance, links=links, page=page, has_code=page != INDEX)
    given = [*parameters.values(), *parameters.get("reading", {}).values()]
    for page, html in written.items():  # after all of them are made
        # No folder is shown. A name in the root folder may be part of any tag.
        for path in [one for one in given if isinstance(one, str) and Path(one).is_absolute() and one.count("/") > 1]:
            html = html.replace(escape(path, quote=False), escape(Path(path).name, quote=False))
        write_whole(out / page, html)
    pictures = _outputs(executed[INDEX], "image/png")
    if pictures:
        with whole(out / "verdict.png") as temporary:
            temporary.write_bytes(base64.b64decode(pictures[0]))
    return out / INDEX


def _title(path: Path) -> str:
    """Return the title of a notebook: the first line of its Markdown that begins with ``# ``."""
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception as error:  # of many kinds: JSON, UTF-8, a field that is not there
        raise InputError(
            f"{path.name}: expected a notebook, found {type(error).__name__}: {error}; correct it"
        ) from error
    lines = (line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    title = next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")
    if not title:
        raise InputError(f'{path.name}: expected a title, a line of Markdown that begins with "# ", found none; add it')
    return title


def _execute(path: Path, parameters: Mapping[str, object]) -> NotebookNode:
    settings = {**parameters, "progress": False, "on_paper": True}  # a bar would not move in a report
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.setdefault("kernelspec", {"name": "python3", "language": "python", "display_name": "Python"})
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            nbformat.write(notebook, copy)
            known = papermill.inspect_notebook(copy)
            executed = papermill.execute_notebook(
                copy,
                copy.with_name("executed.ipynb"),
                parameters={name: value for name, value in settings.items() if name in known},
                kernel_name="python3",
                progress_bar=False,
                cwd=path.parent,
                extra_arguments=["--log-level=ERROR", "--InlineBackend.figure_formats=retina"],
            )
    except papermill.PapermillExecutionError as error:
        # Its index counts the cell of the parameters, which papermill adds.
        sources = [cell.source for cell in notebook.cells]
        place = sources.index(error.source) if error.source in sources else error.cell_index
        raise InputError(f"{path.name}, cell {place}: {error.ename}: {error.evalue}") from error
    except Exception as error:  # the kernel was killed, or could not be started
        raise InputError(f"{path.name}: {type(error).__name__}: {error}") from error
    executed.metadata.papermill["defaults"] = {name: one["default"] for name, one in known.items()}
    return executed


def _short(page: str) -> str:
    number, name = Path(page).stem.split("_", 1)
    return f"{int(number)} {name.replace('_', ' ').capitalize()}"


def _own_provenance(notebook: NotebookNode) -> dict[str, str]:
    """Return the parameters of a notebook, and its data, which its metadata name if they are its own."""
    ran = notebook.metadata.get("papermill", {"parameters": {}})
    used = {**ran.get("defaults", {}), **{name: repr(value) for name, value in ran["parameters"].items()}}
    listed = ", ".join(f"{name} {value}" for name, value in used.items() if name not in NOT_LISTED)
    return {"parameters": listed, **notebook.metadata.get("provenance", {})}


def _index(executed: Mapping[str, NotebookNode], titles: Mapping[str, str]) -> NotebookNode:
    markdown = nbformat.v4.new_markdown_cell
    cells = [markdown("# Does random-triplet pre-training help this encoder, or was it a lucky seed?")]
    ran, told = {}, {}  # papermill's record of a notebook with a headline, and the answers
    for page, notebook in executed.items():
        told[page] = " ".join(ANSWER.findall("".join(_outputs(notebook, "text/markdown")[-1:])))
        shown = [cell for cell in notebook.cells if HEADLINE in cell.metadata.get("tags", [])]
        ran |= {"papermill": notebook.metadata.papermill} if shown else {}
        cells += shown
    listed = [f"- [{escape_markdown(title)}](<{quote(page)}>)\n\n  {told[page]}" for page, title in titles.items()]
    cells.append(markdown("\n".join(["## Pages\n", *listed])))
    return nbformat.v4.new_notebook(cells=cells, metadata=ran)


def _outputs(notebook: NotebookNode, kind: str) -> list[str]:
    """List what a notebook shows of a MIME type."""
    outputs = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    return [data[kind] for data in outputs if kind in data]
