"""Files that are either whole or not there."""

import os
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
