"""The command `rlm sweep`: settings race, and the best one is judged alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from cyclopts import Parameter

from rlm.cli.models import TrainConfig
from rlm.cli.output import check_out, check_table_out, keep, show, write_table
from rlm.cli.settings import ConfigFile, Table, complete, read_table
from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.stats.estimates import FEWEST_PAIRS
from rlm.systems.sweeps import sweep as run_sweep
from rlm.variants import Arm


def sweep(
    *,
    vary: tuple[str, ...],
    config: Annotated[TrainConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = TrainConfig(),  # noqa: B008
    start: Arm = "scratch",
    max_seeds: int = 30,
    fresh_seeds: int = FEWEST_PAIRS,
    db: Path | None = None,
    out: Path | None = None,
    figure: Path | None = None,
    config_file: ConfigFile = None,
    table: Table = None,
    jobs: int = -1,
) -> None:
    """
    Race all combinations of settings on the same seeds and splits, then judge the best one on fresh seeds and the test.

    Settings are compared by validation accuracy. Those that cannot be the best any more get no more seeds.

    Parameters
    ----------
    vary
        Setting with its values, as margin=0.1,0.3,1; given once or more.
    config
        What all settings share.
    start
        Arm that all settings share.
    max_seeds
        Most seeds of a setting.
    fresh_seeds
        Other seeds for the best setting alone.
    db
        SQLite file that keeps every block of seeds as it is finished; the same command continues where it ended.
    out
        File for the table of settings, ending in .csv, .json, .md, .parquet, .tex or .tsv.
    figure
        File for the figure, ending in .png, .pdf or .svg.
    config_file
        JSON file of settings, as the panel exports it; other options override it.
    table
        Parquet file of text pairs or triplets that are not a named dataset.
    jobs
        Processes; -1 for one per core.
    """
    check_table_out(out, db)
    check_out(figure, db, "--figure")
    if figure is not None and figure.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"expected --figure FILE ending in .png, .pdf or .svg, found {figure}; rename it")
    study, data = StudyConfig(**dict(complete(config, config_file))), read_table(table)
    asked = {"start": start, "fresh_seeds": fresh_seeds, "data": data, "db": db, "n_jobs": jobs}
    found = run_sweep(study, _read(vary), max_seeds, **asked)
    keep("sweep", pd.DataFrame({"best": [found.best], "runs": len(found.race), "text": found.text}))
    print("validation accuracy over seeds; difference to the best, with its confidence sequence\n")
    show("settings", found.table.rename_axis("setting"))
    print(f"\n{found.text}")
    if out is not None:
        write_table(out, found.table.reset_index())
        print(f"\ntable: {out}")
    if figure is not None:
        from rlm.systems.plots import draw_sweep  # with matplotlib, which takes seconds

        draw_sweep(found.table).figure.savefig(figure, dpi=144)
        print(f"\nfigure: {figure}")


def _read(vary: Sequence[str]) -> dict[str, list[str]]:
    """Read settings with their values."""
    parts = [one.partition("=") for one in vary]
    found = {name.strip(): [value.strip() for value in values.split(",")] for name, _, values in parts}
    if not found or len(found) < len(vary) or not all(name and all(values) for name, values in found.items()):
        raise InputError(f"expected --vary NAME=VALUE,VALUE, each setting once, found {', '.join(vary)}; correct it")
    return found
