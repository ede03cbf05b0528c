"""What the command line does with the blocks of a study as they arrive: write them down, and end early on Ctrl-C."""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import NoReturn, TypeVar

from rlm.errors import InputError
from rlm.runtime.atomic import write_whole
from rlm.runtime.parallel import Result
from rlm.task import join, mark

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Result)


def check_out(out: Path | None, db: Path | None = None) -> None:
    """
    Check, before any training, that results can be written.

    Parameters
    ----------
    out
        File that is asked for, if any.
    db
        The store, which must be another file.

    Raises
    ------
    InputError
        If it is a folder, or in none, or cannot be written.
    """
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(
            f"expected a file in an existing folder for --out, found {out}; name a file, or create the folder first"
        )
    if out.exists() and not out.is_file():
        raise InputError(f"expected a file for --out, found {out}, which is something else; give another")
    if db is not None and out.resolve() == db.resolve():
        raise InputError(f"expected different files for --out and --db, found {out} for both; give another")
    if out.exists() and not os.access(out, os.W_OK):
        raise InputError(
            f"expected a file that can be written for --out, found {out}; make it writable or give another"
        )
    _try_to_write(out)


def check_out_folder(out: Path) -> None:
    """
    Check, before any work, that files can be written to a folder, which is made.

    Parameters
    ----------
    out
        The folder.

    Raises
    ------
    InputError
        If it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder for --out, found {out}: {error.strerror}; give another") from error
    _try_to_write(out / "index.html")


def _try_to_write(path: Path) -> None:
    """As it is going to be done, under another name."""
    attempt = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        attempt.touch()
        attempt.unlink()
    except OSError as error:
        raise InputError(
            f"expected --out where files can be written, found {path}: {error.strerror}; give another"
        ) from error


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """
    Let what ends a process or its terminal end a study like Ctrl-C.

    Yields
    ------
    None
        For what is run meanwhile: SIGTERM and SIGHUP raise KeyboardInterrupt with their number, unless they are ignored
        already, as `nohup` does.
    """

    def interrupt(number: int, _: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    before = {}
    if current_thread() is main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gather(blocks: Iterator[R], arms: Sequence[str], out: Path | None) -> tuple[R, bool]:
    """
    Let a study run; Ctrl-C ends it early, and what is finished is kept.

    Parameters
    ----------
    blocks
        Of the study, as they are finished; a generator.
    arms
        In the order of the results.
    out
        CSV file for the results, written anew at each block. If it cannot be, the study goes on.

    Returns
    -------
    NamedTuple
        All that is finished; its tables are marked as watched if it was interrupted.
    bool
        Whether it was interrupted.

    Raises
    ------
    SystemExit
        If it was interrupted before any block was finished.
    """
    finished: list[R] = []
    is_interrupted = False
    try:
        with closing(blocks):
            for block in blocks:
                finished.append(block)
                if out is not None:
                    _write(out, join(finished, arms))
    except KeyboardInterrupt:
        if not finished:
            sys.exit("interrupted before any block of seeds was finished")
        log.warning("interrupted: this is what was finished")
        is_interrupted = True
    found = join(finished, arms)
    if is_interrupted:
        mark(found, True)
    return found, is_interrupted


def _write(out: Path, found: Result) -> None:
    try:
        write_whole(out, found.results.to_csv(index=False))
    except OSError as error:
        log.warning("the results cannot be written to %s: %s; the study goes on", out, error.strerror or error)


def print_files(found: Result, out: Path | None, db: Path | None) -> None:
    """
    Write the results a last time, and say where they are.

    Parameters
    ----------
    found
        All that is finished.
    out
        CSV file for the results.
    db
        The store.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    if db is not None:
        print(f"\nstore: {db}")
    if out is None:
        return
    try:
        write_whole(out, found.results.to_csv(index=False))
    except OSError as error:
        kept = "" if db is None else f", or write it from the store: rlm results {shlex.quote(str(db))} --out FILE.csv"
        raise InputError(
            f"expected to write the results to {out}: {error.strerror or error}; make room or give another{kept}"
        ) from error
    print(f"\nresults: {out}")
