"""What the command line does with the blocks of a study as they arrive: write them down, and end early on Ctrl-C."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rlm.errors import InputError
from rlm.files import write_whole
from rlm.running import Result
from rlm.task import join

R = TypeVar("R", bound=Result)


def check_out(out: Path | None) -> None:
    """
    Check, before any training, that results can be written.

    Parameters
    ----------
    out
        File that is asked for, if any.

    Raises
    ------
    InputError
        If it is a folder, or in none.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(
            f"expected a file in an existing folder for --out, found {out}; name a file, or create the folder first"
        )


def gather(blocks: Iterable[R], arms: Sequence[str], out: Path | None) -> tuple[R, bool]:
    """
    Let a study run; Ctrl-C ends it early, and what is finished is kept.

    Parameters
    ----------
    blocks
        Of the study, as they are finished.
    arms
        In the order of the results.
    out
        CSV file for the results, written anew at each block.

    Returns
    -------
    NamedTuple
        All that is finished.
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
        for block in blocks:
            finished.append(block)
            if out is not None:
                write_whole(out, join(finished, arms).results.to_csv(index=False))
    except KeyboardInterrupt:
        if not finished:
            sys.exit("interrupted before any block of seeds was finished")
        print("interrupted: this is what was finished", file=sys.stderr)
        is_interrupted = True
    return join(finished, arms), is_interrupted
