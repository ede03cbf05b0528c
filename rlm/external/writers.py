"""A stored study as runs of TensorBoard or MLflow: one parent, and a child for every arm and seed."""

import time
from collections.abc import Iterator
from pathlib import Path

from rlm.errors import InputError, naming_extras
from rlm.store.read import StoredStudy

RUN = ["arm", "seed"]
MOST_METRICS = 1000  # that MLflow takes at a time
Values = list[tuple[str, int, float]]  # name, step and number


def write_events(folder: Path, stored: StoredStudy) -> None:
    """Write a study to a new folder of TensorBoard, which `rlm verdict` reads: the config, and arm/seed for a run."""
    with naming_extras(f", which writes {folder}"):
        from torch.utils.tensorboard import SummaryWriter
    if folder.exists():
        raise InputError(f"expected a new folder for TensorBoard, found {folder}; give another")
    with SummaryWriter(str(folder)) as parent:
        parent.add_text("config", f"```json\n{stored.config.model_dump_json(indent=2)}\n```")
    for arm, seed, values in list_runs(stored):
        with SummaryWriter(str(folder / arm / f"seed{seed}")) as child:
            for name, step, value in values:
                child.add_scalar(name, value, step)


def write_mlflow(address: str, title: str, stored: StoredStudy) -> None:
    """Write a study to a new experiment of an MLflow store, where the config belongs to the parent."""
    with naming_extras(f", which writes {address}"):
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
    client = MlflowClient(tracking_uri=address)
    try:
        experiment = client.create_experiment(title)
    except Exception as error:  # of many kinds, by the kind of the store
        raise InputError(f"expected a store without {title!r}, found {address}: {error}; give another") from error
    parent = client.create_run(experiment, run_name=title).info.run_id
    config = stored.config.model_dump(mode="json")
    client.log_batch(parent, params=[Param(name, str(value)) for name, value in config.items()])
    now = int(1000 * time.time())
    for arm, seed, values in list_runs(stored):
        child = client.create_run(experiment, run_name=f"{arm}, seed {seed}", tags={"mlflow.parentRunId": parent})
        client.log_batch(child.info.run_id, params=[Param("arm", arm), Param("seed", str(seed))])
        metrics = [Metric(name, value, now, step) for name, step, value in values]
        for first in range(0, len(metrics), MOST_METRICS):
            client.log_batch(child.info.run_id, metrics[first : first + MOST_METRICS])
        client.set_terminated(child.info.run_id)
    client.set_terminated(parent)


def list_runs(stored: StoredStudy) -> Iterator[tuple[str, int, Values]]:
    """Yield every arm and seed with its results, at step 0, and with its epochs as ``history/name``."""
    finished = stored.finished
    history = finished.history.groupby(RUN) if hasattr(finished, "history") else None
    for run in finished.results.to_dict("records"):
        arm, seed = run.pop("arm"), run.pop("seed")
        values = [(name, 0, float(value)) for name, value in run.items() if not isinstance(value, str)]
        if history is not None:
            for epoch in history.get_group((arm, seed)).drop(columns=RUN).to_dict("records"):
                step = epoch.pop("epoch")
                values += [(f"history/{name}", step, float(value)) for name, value in epoch.items()]
        yield arm, seed, values
