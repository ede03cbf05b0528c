"""The commands `rlm notebooks` and `rlm lab`: copy the notebooks, and open them in JupyterLab."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rlm.runtime.resources import copy_notebooks

HERE = Path("rlm-notebooks")


def notebooks(folder: Path = HERE, *, overwrite: Annotated[bool, Parameter(negative=())] = False) -> None:
    """
    Copy the numbered notebooks to a folder.

    Parameters
    ----------
    folder
        Where to; it is made if it does not exist.
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
        Where the copy is. Notebooks that are there already are kept as they are.
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
