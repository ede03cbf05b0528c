"""Long comparisons in parts: results that a CSV file has already are not computed again."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from rlm.runtime.atomic import write_whole


def complete(
    path: Path,
    names: Sequence[str],
    parts: Mapping[tuple[str | int, ...], Callable[[], pd.DataFrame]],
    most: int | None = None,
) -> pd.DataFrame:
    """Compute the parts that the file lacks, at most `most`, and add each to it; `names` are those of the keys."""
    found = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(names))
    missing = [key for key in parts if not (found[list(names)] == key).all(axis=1).any()]
    for key in missing[:most]:
        new = parts[key]().assign(**dict(zip(names, key, strict=True)))
        found = pd.concat([found, new], ignore_index=True)
        write_whole(path, found.to_csv(index=False, float_format="%.6g"))
    return found


def ask_for_parts(description: str | None) -> int | None:
    """Read from the command line how many new parts to compute: all by default, none for the page alone."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--parts", type=int, help="stop after as many new parts")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page")
    given = parser.parse_args()
    return 0 if given.page else given.parts
