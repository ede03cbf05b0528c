"""What child processes do in the tests of `rlm.runtime.process`: ``python background_work.py NAME ARGUMENTS``."""

import os
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from rlm.errors import InputError
from rlm.runtime.process import PARENT, Child, follow


def run(name, *arguments):
    command = [sys.executable, __file__, name, *map(str, arguments)]
    return Child(command, TemporaryDirectory(prefix="rlm-test-"))


def warn(number):
    for value in range(int(number)):
        warnings.warn(f"number {value}", stacklevel=1)
        time.sleep(0.1)


def fail_by_mistake():
    raise InputError("expected a, found b")


def fail_by_fault():
    raise ZeroDivisionError("oh")


def start_another_and_wait(pid_file):
    other = psutil.Popen(["sleep", "600"])
    write_pids(pid_file, os.getpid(), other.pid)
    time.sleep(600)


def warn_and_die():
    warnings.warn("look out", stacklevel=1)
    sys.stderr.flush()
    time.sleep(0.2)
    os._exit(9)


def hold(pid_file):
    """Start work, and be killed."""
    child = run("start_another_and_wait", pid_file)
    while child.is_running:
        time.sleep(0.1)


def write_pids(pid_file, *pids):
    temporary = Path(f"{pid_file}.part")
    temporary.write_text(" ".join(map(str, pids)))
    temporary.rename(pid_file)


def read_pids(pid_file):
    end = time.monotonic() + 60
    while not Path(pid_file).exists():
        assert time.monotonic() < end, "no work has begun"
        time.sleep(0.05)
    return [int(pid) for pid in Path(pid_file).read_text().split()]


if __name__ == "__main__":
    follow(int(os.environ[PARENT]))
    # As the command line does.
    warnings.formatwarning = lambda message, *_, **__: f"rlm: warning: {message}\n"
    try:
        globals()[sys.argv[1]](*sys.argv[2:])
    except InputError as error:
        print(f"rlm: {error}", file=sys.stderr)
        sys.exit(2)
