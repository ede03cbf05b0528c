"""Imported by the server that forks studies to be killed: what every process does once is done before the fork."""

from killed_study import run
from tqdm import tqdm

tqdm.monitor_interval = 0  # its thread holds a lock now and then; forked at that moment, a study would wait for ever
run(seeds=1)
