"""Files that are either whole or not there."""

import os
import shutil
from collections.abc import Iterator, Mapping
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


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """
    Write a folder of files, or leave what stood there.

    Parameters
    ----------
    path
        Where to; its own folder exists. A folder that is there is replaced, with all that is in it.
    contents
        By file name.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    try:
        temporary.mkdir()
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
