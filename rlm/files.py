"""Files that are either whole or not there."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """
    Write a text file, or leave what stood there.

    Parameters
    ----------
    path
        Where to; its folder exists.
    text
        Written as UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
