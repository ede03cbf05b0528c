"""Child processes: they can be stopped at once, give way to other work, and end when their parent does."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, Thread, current_thread, main_thread
from typing import NoReturn, TypeVar

import psutil

PARENT = "RLM_PARENT"  # environment variable: `python -m rlm` ends when the process with this number does
MESSAGE, WARNING = "rlm: ", "rlm: warning: "  # how lines begin that the command line writes to its standard error
POLITENESS = 5
TICK = 0.3  # seconds between two looks at the parent
SPAWN = multiprocessing.get_context("spawn")  # a forked kernel would share its sockets
T = TypeVar("T")
_HELPER: list[ProcessPoolExecutor] = []  # at most one
_HELPER_LOCK = Lock()


class Child:
    """A command in a child process; what it prints goes to files in `folder`, which lives as long."""

    def __init__(
        self, command: Sequence[str], folder: TemporaryDirectory[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._log = Path(folder.name) / "log.txt"
        # It finds the modules that this process finds, and draws no progress bars in the log.
        own = {PARENT: str(os.getpid()), "PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1"}
        self._printed = Path(folder.name) / "printed.txt"
        with quiet_trackers(), self._log.open("wb") as log, self._printed.open("wb") as printed:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=printed, stderr=log,
                env={**os.environ, **own, "PYTHONIOENCODING": "utf-8:replace", **(environment or {})},
                start_new_session=True,  # interrupting a cell must not interrupt it
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    @property
    def printed(self) -> str:
        """What it has printed to its standard output so far."""
        return self._printed.read_text(encoding="utf-8")

    @property
    def warnings(self) -> list[str]:
        """The warnings that the command line has printed so far."""
        return [line.removeprefix(WARNING) for line in self._lines() if line.startswith(WARNING)]

    @property
    def problem(self) -> str:
        """Why the process failed; empty while it runs and after success."""
        code, lines = self._process.poll(), self._lines()
        starts = [number for number, line in enumerate(lines) if line.startswith(MESSAGE)]
        if not code:
            return ""
        if code == 2 and starts:
            return "\n".join(lines[starts[-1] :]).removeprefix(MESSAGE)
        if code == 1 and lines:
            return lines[-1]  # of a traceback
        return f"its process was killed (exit code {code}), perhaps for memory"

    def stop(self) -> None:
        """Kill the process and all that it started."""
        if self.is_running:
            end_tree(self._process.pid)
        self._process.wait()

    def _lines(self) -> list[str]:
        return [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def ask(function: Callable[..., T], *arguments: object) -> "Future[T]":
    """
    Call a function in the helper process, so that the process with the widgets stays free.

    There is one helper, which answers one question after another. If it was killed, the next question starts another.
    """
    with _HELPER_LOCK:
        if _HELPER:
            try:
                return _HELPER[0].submit(function, *arguments)
            except BrokenProcessPool:
                _HELPER.clear()
        with quiet_trackers():
            _HELPER.append(ProcessPoolExecutor(max_workers=1, mp_context=SPAWN, initializer=_begin))
            return _HELPER[0].submit(function, *arguments)


def end_tree(pid: int) -> None:
    """Kill all that a process started, and then the process itself, which may be the one that calls this."""
    try:
        parent = psutil.Process(pid)
        family = [*reversed(parent.children(recursive=True)), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            # joblib's tracker ends by itself after the others, and frees the semaphores that they leave behind.
            if not any("resource_tracker import main" in part for part in process.cmdline()):
                process.kill()
        except psutil.NoSuchProcess:
            continue


def follow(parent: int) -> None:
    """Lower the priority of this process, and end it with all that it started when its parent ends."""
    own = psutil.Process()
    own.nice(max(own.nice(), POLITENESS) if psutil.POSIX else psutil.BELOW_NORMAL_PRIORITY_CLASS)

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # POSIX changes the first, Windows the second
            time.sleep(TICK)
        end_tree(os.getpid())

    Thread(target=watch, daemon=True).start()


@contextmanager
def quiet_trackers() -> Iterator[None]:
    """Silence the trackers of shared memory that are started meanwhile: they report what a killed process leaves."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a child
    follow(os.getppid())


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt with the number of the signal on SIGTERM and SIGHUP, unless `nohup` ignores them."""

    def interrupt(number: int, _: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    before = {}
    if current_thread() is main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
