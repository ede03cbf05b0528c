"""The commands that the panel starts as child processes: `rlm study`, `rlm plan`, `rlm sweep` and `rlm train`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from rlm.config import Plan, StudyConfig
from rlm.errors import InputError
from rlm.runtime.process import Child
from rlm.variants import Arm

SEEDS_AT_A_TIME = 5  # more would be a little faster, but arrive later
MODEL, TRIPLETS, FIGURE = "model", "triplets.json", "sweep.png"


class Swept(NamedTuple):
    """Result of a sweep: a sentence, the settings as a table, the best first, and the figure."""

    text: str
    table: pd.DataFrame
    png: bytes


def start_study(config: StudyConfig, plan: Plan, db: Path, table: pd.DataFrame | None) -> Child:
    """Run a study that somebody watches, in small blocks."""
    until = [] if plan.until is None else ["--until", repr(plan.until)]
    watched = ["--watched", "--block-size", str(SEEDS_AT_A_TIME)]
    given = ["--seeds", str(plan.seeds), *until, "--same-within", repr(plan.same_within), "--metric", plan.metric]
    given.append(f"--baseline={plan.baseline}")
    return _start("study", config, table, [*given, "--db", str(db), *watched])


def start_plan(config: StudyConfig, plan: Plan, db: Path, table: pd.DataFrame | None) -> Child:
    """Estimate what the interval that a plan asks for takes, by a study of the store or by a few pairs."""
    within = plan.until / 2 if plan.until else plan.same_within
    stored = ["--db", str(db)] if db.exists() else []
    given = ["--watched", "--within", repr(within), "--metric", plan.metric, f"--baseline={plan.baseline}"]
    return _start("plan", config, table, [*given, *stored])


def start_sweep(config: StudyConfig, plan: Plan, vary: str, db: Path, table: pd.DataFrame | None) -> Child:
    """Race the values of a knob, given as "margin=0.1,0.3", with at most the seeds of a plan."""
    options = ["--json", f"--vary={vary}", "--max-seeds", str(plan.seeds), "--db", str(db)]
    config = config.model_copy(update={"arms": ("scratch",)})  # a sweep makes its own
    return _start("sweep", config, table, options, {"--figure": FIGURE})


def read_sweep(child: Child) -> Swept | None:
    """Return what a sweep found; None for another command."""
    figure = Path(child.folder.name, FIGURE)
    if not figure.exists():
        return None
    printed = json.loads(child.printed)
    return Swept(printed["sweep"][0]["text"], pd.DataFrame(printed["settings"]), figure.read_bytes())


def start_training(config: StudyConfig, arm: Arm, seed: int, table: pd.DataFrame | None) -> Child:
    """Train one seed of one arm; the model and the validation triplets appear in the child's folder."""
    files = {"--save": MODEL, "--triplets": TRIPLETS}
    threads = {"OMP_NUM_THREADS": "1"}  # one seed's tensors are too small to share among cores
    return _start("train", config, table, ["--arm", arm, "--seed", str(seed)], files, threads)


def _start(
    name: str,
    config: StudyConfig,
    table: pd.DataFrame | None,
    options: Sequence[str],
    files: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Write settings and table to a temporary folder, to which the paths of `files` are relative, and start."""
    folder = TemporaryDirectory(prefix="rlm-", ignore_cleanup_errors=True)
    files = {"--config": "config.json", **(files or {})}
    Path(folder.name, files["--config"]).write_text(config.model_dump_json(), encoding="utf-8")
    if table is not None:
        files["--table"] = "table.parquet"
        try:
            table.to_parquet(Path(folder.name, files["--table"]))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"expected a table of texts, found one that cannot be written as Parquet: {error}; convert its columns"
            ) from error
    paths = [f"{option}={Path(folder.name, file)}" for option, file in files.items()]
    return Child([sys.executable, "-m", "rlm", name, *options, *paths], folder, environment)
