"""Imported by the server that forks studies to be killed: what every process does once is done before the fork."""

import gc
from threading import RLock

from killed_study import run
from tqdm import tqdm

# A study waits for ever for a lock that is held when it is forked, or that one killed before it has held: tqdm's thread
# holds one now and then, and its bars share one among processes.
tqdm.monitor_interval = 0
tqdm.set_lock(RLock())
run(seeds=1)
gc.collect()
gc.freeze()  # nor does a collector touch, and so copy, every page that a study shares with the server
