"""The file of a store: open it without changing it, and re-raise the errors of SQLite with advice."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from rlm.errors import InputError

APPLICATION = 0x726C6D  # "rlm"; SQLite keeps it in the header of the file
VERSION = 10
SECONDS_TO_WAIT = 60
ADVICE = {
    "FULL": "the disk is full: make room and run the study again, what was finished is kept",
    "IOERR": "the disk fails or is full: fix that and run the study again, what was finished is kept",
    "READONLY": "make it writable or give another",
    "CANTOPEN": "make its folder readable and writable, or give another",
    "BUSY": "another program holds it: close that and run the study again",
    "NOTADB": "give another name",
    "CORRUPT": "restore it from a copy, or give another name",
}

# POSIX: whoever closes a file drops all locks of the process on it, those of a transaction of another thread as well.
ALONE = RLock()


def check_file(path: Path | str) -> Path:
    """Check that a path can hold a store, whether the file exists or not; return it with links resolved."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"expected a file for the store, found a link to nothing, {path}; give another") from None
        if not path.parent.is_dir():
            raise InputError(f"expected a file in an existing folder, found {path}; create the folder first") from None
        return path.resolve()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a file for the store, found {str(path)!r}: {reason}; give another") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise InputError(f"expected a file for the store, found {kind}, {path}; give the name of a file")
    return path.resolve()


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Connect to an existing file in a mode of SQLite, without a transaction; wait for other programs."""
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=SECONDS_TO_WAIT, isolation_level=None)


def open_store(path: Path | str) -> sqlite3.Connection:
    """Connect to an existing store of this version, which need not be writable; no other file is changed."""
    path = check_file(path)
    if not path.exists():
        raise InputError(f"expected a store of studies, found no file {path}; run a study with this file as its db")
    with explained(path):
        if not has_store(path):
            raise InputError(f"expected a store of studies, found an empty file, {path}; run a study with it as its db")
        return connect(path)


def is_store(path: Path | str) -> bool:
    """Return whether a file is a store of any version, by its header."""
    try:
        return Path(path).is_file() and _read_header(Path(path))[0] == APPLICATION  # a pipe would wait for a writer
    except (OSError, ValueError, InputError):
        return False


def has_store(path: Path) -> bool:
    """
    Return whether an existing file is a store of this version, or False for an empty file; raise for any other file.

    It takes no lock and writes no journal, so that no other file is ever changed. SQLite could not read without a lock
    while a run is writing: it would find more pages announced than written, and report damage.
    """
    if not path.stat().st_size:
        return False
    application, version = _read_header(path)
    if application != APPLICATION:
        raise InputError(f"expected a store of studies, found another SQLite file, {path}; give another name")
    if version != VERSION:
        advice = "update rlm" if version > VERSION else "read it with the version of rlm that wrote it"
        raise InputError(
            f"expected a store of version {VERSION}, found version {version} in {path}; {advice}, or run the study "
            "again with another file as its db"
        )
    return True


def _read_header(path: Path) -> tuple[int, int]:
    """Return the application and the version that an SQLite file names, see https://sqlite.org/fileformat2.html."""
    try:
        with ALONE, path.open("rb") as file:
            header = file.read(100)
        wrong, advice = "file is not a database", ADVICE["NOTADB"]
    except PermissionError as error:
        header, wrong, advice = b"", error.strerror, ADVICE["CANTOPEN"]
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise InputError(f"expected a store of studies that can be used, found {path}: {wrong}; {advice}")
    return int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")


def damaged(path: Path | str, what: str) -> InputError:
    """Return the error for a part of a store that is not as it was written."""
    return InputError(
        f"expected {what} of {path} as written, found something else: the file is damaged; restore it from a copy, or "
        "run the study again with another file as its db"
    )


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Re-raise the errors of SQLite and of the file system as InputError with advice; one thread at a time."""
    try:
        with ALONE:
            yield
    except InputError:
        raise
    except PermissionError as error:
        found = f"{path}: {error.strerror}"
        raise InputError(f"expected a file that can be written, found {found}; give another") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        advice = next((text for part, text in ADVICE.items() if part in name), ADVICE["CORRUPT"])
        raise InputError(f"expected a store of studies that can be used, found {path}: {error}; {advice}") from error
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:  # of values that nobody wrote
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"expected a store of studies that can be read, found {path}: {found}; {ADVICE['CORRUPT']}"
        ) from error
