"""Long comparisons in parts: results that a CSV file has already are not computed again."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rlm.runtime.atomic import write_whole


class Wanted(NamedTuple):
    """The missing parts to compute: at most `most` of those whose key, joined by spaces, contains `only`."""

    most: int | None = None
    only: str = ""


def complete(
    path: Path,
    names: Sequence[str],
    parts: Mapping[tuple[str | int, ...], Callable[[], pd.DataFrame]],
    wanted: Wanted = Wanted(),  # noqa: B008
) -> pd.DataFrame:
    """
    Compute the wanted parts that the file lacks, and add each to it; `names` are those of the keys.

    A part that names a column of the key itself has rows of other parts, too.
    """
    found = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(names))
    chosen = [key for key in parts if wanted.only in " ".join(map(str, key))]
    computed = 0
    for key in chosen:
        if computed == wanted.most or (found[list(names)] == list(key)).all(axis=1).any():
            continue
        new = parts[key]()
        new = new.assign(**{name: value for name, value in zip(names, key, strict=True) if name not in new})
        found = pd.concat([found, new], ignore_index=True)
        write_whole(path, found.to_csv(index=False, float_format="%.6g"))
        computed += 1
    return found


def ask_for_parts(description: str | None) -> Wanted:
    """Read from the command line which new parts to compute: all by default, none for the page alone."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--parts", type=int, help="stop after this number of new parts")
    parser.add_argument("--only", default="", help="compute parts that contain this, such as 'pqa lstm 20'")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page")
    given = parser.parse_args()
    return Wanted(0 if given.page else given.parts, given.only)
