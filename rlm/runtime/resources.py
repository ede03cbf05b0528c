"""The notebooks that come with the package."""

from importlib.resources import files
from pathlib import Path

from rlm.errors import InputError
from rlm.runtime.atomic import write_whole


def find_notebooks() -> Path:
    """Return the folder of the numbered notebooks: in an installed package, or beside the package in a checkout."""
    package = Path(str(files("rlm")))
    installed = package / "notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


def copy_notebooks(folder: Path, overwrite: bool = False) -> list[str]:
    """Copy the notebooks to a folder, and return the names of those that were there and are kept as they are."""
    listed = sorted(find_notebooks().glob("*.ipynb"))
    if not listed:
        raise InputError(f"expected notebooks in {find_notebooks()}, found none; install rlm again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [] if overwrite else [path.name for path in listed if (folder / path.name).exists()]
        for path in listed:
            if path.name not in kept:
                write_whole(folder / path.name, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected a folder for notebooks, found {folder}: {error.strerror}; give another") from error
    return kept
