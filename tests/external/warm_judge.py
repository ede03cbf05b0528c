"""Imported by the server that forks studies to be killed: what every process does once is done before the fork."""

import gc
from tempfile import TemporaryDirectory
from threading import RLock

from judged import run
from tqdm import tqdm

tqdm.monitor_interval = 0  # as in warm_study
tqdm.set_lock(RLock())
with TemporaryDirectory() as folder:
    run(f"{folder}/calls", seeds=1)
gc.collect()
gc.freeze()
