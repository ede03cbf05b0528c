"""Files that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """
    Write a file under another name, which it gives up when all of it is written.

    Parameters
    ----------
    path
        Where it is to be; its folder exists. What stood there stays if the writing fails.

    Yields
    ------
    pathlib.Path
        The file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
