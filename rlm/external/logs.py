"""Logs of many runs as a table: Hugging Face's trainer states, TensorBoard's event files, MLflow's stores."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from operator import attrgetter
from pathlib import Path

import pandas as pd

from rlm.errors import InputError, naming_extras

log = logging.getLogger(__name__)
STATE, EVENTS, STORE = "trainer_state.json", "*tfevents*", "meta.yaml"
CHECKPOINT = re.compile(r"checkpoint-\d+")
SEED = re.compile(r"(?:^|(?<=[\W_]))seed[\W_]*(\d+)(?=$|[\W_])", re.IGNORECASE)
LAST_NUMBER = re.compile(r"[\W_](\d+)$")
PAGE = 1000  # runs that MLflow gives at a time


def find_log(folder: Path) -> str:
    """Return the pattern of the first kind of log that a folder holds, at any depth."""
    for pattern in LOGS:
        if next(folder.rglob(pattern), None) is not None:
            return pattern
    raise InputError(
        f"expected a file of results, or a folder of {STATE}, of TensorBoard's event files or of an MLflow store, "
        f"found none of them in {folder}; give another"
    )


def read_trainer_states(folder: Path, *_: str) -> pd.DataFrame:
    """Read the last value of each metric that a Trainer of transformers logged, from its newest state."""
    newest: dict[Path, tuple[int, dict[str, float]]] = {}
    for path in folder.rglob(STATE):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            step, logged = int(state["global_step"]), state["log_history"]
            values = {name: one for entry in logged for name, one in entry.items() if isinstance(one, Real)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"expected the state of a Trainer in {path}, found other content; remove it") from error
        run = path.parent.parent if CHECKPOINT.fullmatch(path.parent.name) else path.parent
        if run not in newest or (step, path.parent == run) > (newest[run][0], False):
            newest[run] = step, values
    runs = {run: values for run, (_, values) in newest.items()}
    return _tabulate(folder, runs).drop(columns=["step", "epoch"], errors="ignore")


def read_events(folder: Path, *_: str) -> pd.DataFrame:
    """Read the last value of each scalar in TensorBoard's event files."""
    with naming_extras(f", which reads {folder}"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    runs, order = {}, attrgetter("step", "wall_time")
    for run in {path.parent for path in folder.rglob(EVENTS)}:
        events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        last = {tag: max(events.Scalars(tag), key=order).value for tag in events.Tags()["scalars"]}
        for tag in events.Tags()["tensors"]:  # where newer writers keep scalars
            if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                tensor = max(events.Tensors(tag), key=order).tensor_proto
                last[tag] = float(make_ndarray(tensor))
        if last or run != folder:  # the folder itself may describe all runs
            runs[run] = last
    return _tabulate(folder, runs)


def read_mlflow(store: Path | str, arm_column: str, seed_column: str) -> pd.DataFrame:
    """Read the runs of an MLflow store that ended: the last value of each metric, arm and seed by parameter or tag."""
    with naming_extras(f", which reads {store}"):
        from mlflow.entities import ViewType  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
    client = MlflowClient(tracking_uri=store.resolve().as_uri() if isinstance(store, Path) else store)
    try:
        experiments = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ACTIVE_ONLY)]
        found, token = [], None
        while token != "":
            page = client.search_runs(experiments, max_results=PAGE, page_token=token)
            found, token = [*found, *page], page.token or ""
    except Exception as error:  # of many kinds, by the kind of the store
        raise InputError(f"expected an MLflow store at {store}, found: {error}; correct the address") from error
    ended = [run for run in found if run.info.status in ("FINISHED", "FAILED")]
    if len(ended) < len(found):
        log.warning("%d of %d runs in %s have not ended: they are dropped", len(found) - len(ended), len(found), store)
    rows, parents = [], {run.data.tags.get("mlflow.parentRunId") for run in ended}
    for run in ended:
        known = {**run.data.tags, **run.data.params}
        if run.info.run_id in parents and not {arm_column, seed_column} & known.keys():
            continue
        if missing := [name for name in (arm_column, seed_column) if name not in known]:
            raise InputError(
                f"expected a parameter or tag {missing[0]!r} of each run in {store}, found none of run "
                f"{run.info.run_name}; name another with --arm-column or --seed-column, or set it"
            )
        rows.append({arm_column: known[arm_column], seed_column: known[seed_column], **run.data.metrics})
    if not rows:
        raise InputError(f"expected finished runs in {store}, found none; wait until a run ends, or give another store")
    return _ordered(pd.DataFrame(rows), arm_column, seed_column)


LOGS: dict[str, Callable[[Path, str, str], pd.DataFrame]] = {
    STATE: read_trainer_states,
    EVENTS: read_events,
    STORE: read_mlflow,
}


def _tabulate(folder: Path, runs: Mapping[Path, Mapping[str, float]]) -> pd.DataFrame:
    """Return a row per run, whose arm and seed are read off the names of its folders."""
    named: dict[tuple[str, int], Path] = {}
    rows = []
    for run, values in runs.items():
        arm, seed = _parse(run.name if run == folder else run.relative_to(folder).as_posix())
        other = named.setdefault((arm, seed), run)
        if other != run:
            raise InputError(f"expected one run of arm {arm} and seed {seed}, found {other} and {run}; rename one")
        rows.append({"arm": arm, "seed": seed, **values})
    return _ordered(pd.DataFrame(rows), "arm", "seed")


def _ordered(table: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Sort the runs: in which order folders and stores give them differs by machine."""
    return table.sort_values(list(keys), ignore_index=True)


def _parse(name: str) -> tuple[str, int]:
    """Read arm and seed off a path such as ``wide/seed3``, ``seed=3/wide`` or ``wide-3``."""
    found = list(SEED.finditer(name)) or list(LAST_NUMBER.finditer(name))
    parts = [] if not found else _parts(name[: found[-1].start()], name[found[-1].end() :])
    if not parts:
        raise InputError(
            f"expected a folder named by arm and seed, such as wide/seed3 or wide-3, found {name}; rename it, or "
            "write a table"
        )
    return "/".join(parts), int(found[-1][1])


def _parts(*texts: str) -> list[str]:
    stripped: Iterable[str] = (text.strip("/-_=. ") for text in texts)
    return [text for text in stripped if text]
