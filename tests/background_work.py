"""What processes do in the tests of `rlm.runtime.process`; in a module of its own, so that they start at once."""

import os
import time
import warnings
from pathlib import Path

import psutil

from rlm.runtime.process import Background


def count_to(number, pause=0.0):
    for value in range(number):
        time.sleep(pause)
        yield value


def answer_with_a_tensor():
    import torch  # slow

    yield torch.arange(5)


def fail(error):
    yield "begun"
    raise error


def start_another_and_wait():
    other = psutil.Popen(["sleep", "600"])
    yield os.getpid(), other.pid
    time.sleep(600)


def warn_and_die():
    warnings.warn("look out", stacklevel=1)
    yield 1
    time.sleep(0.2)
    os._exit(9)


def hold(pid_file):
    """Start work, say where, and be killed."""
    background = Background(start_another_and_wait)
    (pids,) = wait_for(background, 1)
    Path(pid_file).write_text(" ".join(map(str, pids)))
    yield 1
    time.sleep(600)


def wait_for(background, count):
    found = []
    while len(found) < count:
        arrived = background.messages(30)
        assert arrived or background.is_running, f"it ended after {found}"
        found += arrived
    return found
