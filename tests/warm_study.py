"""Imported by the server that forks studies to be killed: what every process does once is done before the fork."""

import gc

from killed_study import run
from tqdm import tqdm

tqdm.monitor_interval = 0  # its thread holds a lock now and then; forked at that moment, a study would wait for ever
run(seeds=1)
gc.collect()
gc.freeze()  # nor does a collector touch, and so copy, every page that a study shares with the server
