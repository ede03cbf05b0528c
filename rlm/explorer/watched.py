"""A study that somebody watches, in a process that only trains."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rlm.config import Plan, StudyConfig
from rlm.study import iter_study

SEEDS_AT_A_TIME = 5  # more would be a little faster, and let one wait longer to see them


def run_watched(config: StudyConfig, plan: Plan, db: Path, data: pd.DataFrame | None) -> Iterator[int]:
    """
    Run a study that somebody watches, in small blocks.

    Parameters
    ----------
    config, plan, db
        What to run, and the store.
    data
        Text pairs or triplets, where the config does not name them.

    Yields
    ------
    int
        How many runs have just been finished.

    Raises
    ------
    InputError
        As `rlm.run_study`.
    """
    settings = {"db": db, "data": data, "until": plan.until, "watched": True, "block_size": SEEDS_AT_A_TIME}
    for block in iter_study(config, plan.seeds, **settings, progress=False):
        yield len(block.results)
