"""The commands `rlm report`, `rlm notebooks` and `rlm lab`: run the notebooks, copy them, open them in JupyterLab."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rlm.config import READ_AS_IT_IS, ReadOptions, StudyConfig
from rlm.errors import InputError
from rlm.runtime.resources import copy_notebooks

HERE = Path("rlm-notebooks")


def report(
    *,
    dataset: str = StudyConfig().dataset,
    reading: Annotated[ReadOptions, Parameter(name="*")] = READ_AS_IT_IS,
    seeds: int = 12,
    out: Path = Path("reports"),
    notebooks: Path | None = None,
) -> None:
    """
    Execute the numbered notebooks and write them as self-contained HTML, with an index that opens with the verdict.

    Parameters
    ----------
    dataset
        chatterbot-LANGUAGE, pqa, or your own data: a path, or the id of a Hugging Face dataset.
    reading
        How to read your own data.
    seeds
        Number of paired seeds in the study.
    out
        Folder for the pages.
    notebooks
        Folder of the numbered notebooks; those of this package by default.
    """
    from rlm.cli.output import check_out_folder  # all of these take seconds to import, and only reports need them
    from rlm.data.corpus import index_corpus
    from rlm.data.datasets import load
    from rlm.report.notebooks import build_report
    from rlm.study import slice_for

    if seeds < 1:
        raise InputError(f"expected --seeds of at least 1, found {seeds}")
    check_out_folder(out)
    # Data that cannot be used raise an error here, not minutes later in a notebook.
    config = StudyConfig(dataset=dataset, reading=reading)
    data = load(dataset, **reading.model_dump())
    corpus = index_corpus(data, config.max_tokens)
    slice_for(config, corpus, [0])
    about = {
        "command": shlex.join(["rlm", *sys.argv[1:]]),
        "dataset": str(data.attrs.get("title") or dataset),
        "licence": str(data.attrs.get("licence") or "unknown"),
        "data, SHA-256": corpus.fingerprint,
    }
    # Notebooks run in their own folder.
    dataset, options = _absolute(dataset), reading.model_dump(exclude_defaults=True)
    if reading.irrelevant is not None:
        options["irrelevant"] = _absolute(reading.irrelevant)
    parameters = {"dataset": dataset, "seeds": seeds} | ({"reading": options} if options else {})
    print(build_report(out, parameters, notebooks, about))


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def notebooks(folder: Path = HERE, *, overwrite: Annotated[bool, Parameter(negative=())] = False) -> None:
    """
    Copy the numbered notebooks to a folder.

    Parameters
    ----------
    folder
        Folder for the copies; it is made if it does not exist.
    overwrite
        Replace notebooks of the same name, with all changes to them.
    """
    _copy(folder, overwrite)


def lab(folder: Path = HERE, *options: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """
    Open JupyterLab on a copy of the numbered notebooks, on this machine only and behind a token.

    Parameters
    ----------
    folder
        Folder of the copy. Notebooks that are there already are kept as they are.
    options
        Passed on to JupyterLab, after the folder, such as --no-browser or --port=8890.
    """
    from jupyterlab.labapp import LabApp  # takes a second to import

    _copy(folder, overwrite=False)
    LabApp.launch_instance([str(folder), *options])


def _copy(folder: Path, overwrite: bool) -> None:
    kept = copy_notebooks(folder, overwrite)
    print(f"notebooks: {folder}")
    if kept:
        print(f"kept as they are: {', '.join(kept)}; rlm notebooks {folder} --overwrite replaces them")
