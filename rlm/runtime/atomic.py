"""Files that are either whole or not there."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

_mine: set[Path] = set()  # what this process is writing at the moment, in any thread
_swapping = threading.Lock()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """
    Write to a temporary file, then rename it atomically.

    Parameters
    ----------
    path
        Where it is to be; its folder exists. What stood there stays if the writing fails, or the machine does.

    Yields
    ------
    pathlib.Path
        The file to write, of the same suffix; no other thread or process has one of this name.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    _clean(path)
    with _temporary(path) as temporary:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


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

    A process that is killed leaves the old folder or the new one, if perhaps under a temporary name; `recover` brings
    it back, which every writing and reading of a model calls first.

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
    with _temporary(path) as temporary:
        temporary.mkdir()
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
            _sync(temporary / name)
        _sync(temporary)
        with _swapping:
            recover(path)
            try:
                if path.exists():
                    path.rename(_old(path))
                temporary.rename(path)
                _sync(path.parent)
            finally:
                recover(path)


def recover(path: Path) -> None:
    """
    Bring back a folder whose replacement was killed halfway, and remove what killed writers left behind.

    Parameters
    ----------
    path
        As of `write_folder`.

    Raises
    ------
    OSError
        If the folder is there under its temporary name and cannot be renamed.
    """
    _clean(path)
    old = _old(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)


def check_writable(path: Path) -> None:
    """
    Check that a file or folder can be written, before the work that it is to hold.

    Parameters
    ----------
    path
        As of `whole` or `write_folder`.

    Raises
    ------
    OSError
        If its folder does not take a new entry of such a name.
    """
    with _temporary(path) as temporary:
        temporary.touch()


def sha256_of(path: Path) -> str:
    """
    Hash the content of a file.

    Parameters
    ----------
    path
        A file; not a device or a pipe, which could be read only once.

    Returns
    -------
    str
        SHA-256, in hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name that is nobody else's, beside `path`; what is left there in the end is removed."""
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")
    _mine.add(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _mine.discard(temporary)


def _old(path: Path) -> Path:
    """Where the folder lies that is being replaced."""
    return path.with_name(f".old.{path.name}")


def _clean(path: Path) -> None:
    """Remove what writers of `path` left that are no longer alive."""
    pattern = re.compile(rf"\.(\d+)-[0-9a-f]{{8}}\.{re.escape(path.name)}")
    with contextlib.suppress(OSError):  # the folder may be one that cannot be listed, or is not there
        for found in list(path.parent.iterdir()):
            match = pattern.fullmatch(found.name)
            if match and found not in _mine and not _writes(int(match[1])):
                _remove(found)


def _writes(process: int) -> bool:
    """Whether another process may still be writing; of this one `_mine` knows."""
    return process != os.getpid() and psutil.pid_exists(process)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk; some file systems do not offer it of folders."""
    if path.is_dir():
        with contextlib.suppress(OSError):
            _sync_descriptor(os.open(path, os.O_RDONLY))
    else:
        _sync_descriptor(os.open(path, os.O_RDWR))


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
