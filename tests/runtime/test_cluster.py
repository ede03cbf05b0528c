"""Studies spread over a cluster: a real scheduler and worker processes, on this machine."""

import os
import signal

import dask
import joblib
import killed_study
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from killed_study import CONFIG, run

from rlm.runtime.results import join
from rlm.study import iter_study

WORKERS = 3


@pytest.fixture(scope="module")
def client():
    local = {"processes": True, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    # Every two seconds it would drop copies of the corpus that no task waits for, and some would be sent again.
    memory_manager = "distributed.scheduler.active-memory-manager.start"
    with (
        dask.config.set({memory_manager: False}),
        LocalCluster(n_workers=WORKERS, **local) as cluster,
        Client(cluster) as client,
    ):
        yield client


def arrivals(dask_worker):
    """What other workers have sent to this one."""
    return [str(key) for transfer in dask_worker.transfer_incoming_log for key in transfer["keys"]]


def test_the_corpus_is_sent_once_to_a_worker(client):
    client.wait_for_workers(WORKERS)
    with joblib.parallel_config(backend="dask"):
        study = iter_study(CONFIG, 40, data=killed_study.DATA, progress=False)
        next(study)
        holders = {key: workers for key, workers in client.who_has().items() if "TripletStudy" in str(key)}
        list(study)
    (workers,) = holders.values()  # one key, however many tasks
    assert len(workers) == WORKERS
    assert not any(
        "TripletStudy" in key for keys in client.run(arrivals).values() for key in keys
    )  # and never sent again


def test_a_study_spreads_over_workers_and_outlives_one(client, tmp_path):
    alone = run(seeds=40)
    workers = client.run(os.getpid)
    assert len(workers) == WORKERS
    finished = []
    with joblib.parallel_config(backend="dask"):
        study = iter_study(CONFIG, 40, data=killed_study.DATA, db=tmp_path / "s.db", progress=False)
        for block in study:
            finished.append(block)
            if len(finished) == 1:
                os.kill(next(iter(workers.values())), signal.SIGKILL)
    together = join(finished, CONFIG.arms).results
    pd.testing.assert_frame_equal(together.drop(columns="seconds"), alone.drop(columns="seconds"), atol=1e-6)
