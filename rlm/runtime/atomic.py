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
    """Write to a temporary file, then rename it atomically; a failure leaves the existing file."""
    _clean(path)
    with _temporary(path) as temporary:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by name into a new folder that replaces `path`; a killed process leaves what `recover` restores."""
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
    """Restore a folder whose replacement was killed halfway, and remove what killed writers left behind."""
    _clean(path)
    old = _old(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)


def check_writable(path: Path) -> None:
    """Raise OSError unless a file or folder of this name can be created."""
    with _temporary(path) as temporary:
        temporary.touch()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; raise OSError for a pipe, which could be read only once."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a unique name beside `path`, and remove what is left there in the end."""
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")
    _mine.add(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _mine.discard(temporary)


def _old(path: Path) -> Path:
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
    """Return True if another process may still be writing; `_mine` lists what this one writes."""
    return process != os.getpid() and psutil.pid_exists(process)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk; some file systems cannot sync folders."""
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
