"""Imported by the server that forks studies to be killed: what every process does once is done before the fork."""

from killed_study import run

run(seeds=1)
