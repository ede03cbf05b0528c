"""Work in a process of its own, which can be stopped at once, and which ends when its parent does."""

import atexit
import multiprocessing
import os
import pickle
import signal
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from threading import Lock, Thread
from typing import Any, NamedTuple, TypeVar

import psutil

from rlm.errors import InputError

POLITENESS = 5  # what a person waits for goes before
SPAWN = multiprocessing.get_context("spawn")  # a forked kernel would share its sockets
T = TypeVar("T")
_HELPER: list[ProcessPoolExecutor] = []  # one, as soon as it is asked
_HELPER_LOCK = Lock()


class Failure(NamedTuple):
    """
    How work ended that did not come to its end.

    Attributes
    ----------
    text
        In words for the person who started it.
    """

    text: str


class Notice(NamedTuple):
    """
    A warning of work that goes on.

    Attributes
    ----------
    text
        In words.
    """

    text: str


class Background:
    """
    A function that runs in a process of its own.

    Parameters
    ----------
    work
        Called there with `arguments`; what it yields arrives here. A function of a module, not of a notebook.
    arguments
        Of `work`; they must be picklable.
    """

    def __init__(self, work: Callable[..., Iterable[Any]], *arguments: object) -> None:
        self._receiver, sender = SPAWN.Pipe(duplex=False)
        self._process = SPAWN.Process(target=_run, args=(sender, work, arguments))
        with quiet_trackers():
            self._process.start()
        sender.close()  # the other process has the only one now, so that its death ends the pipe
        # Python joins its child processes before it exits; this goes first, and lets a kernel shut down at once.
        atexit.register(_stop_if_alive, weakref.ref(self))

    @property
    def is_running(self) -> bool:
        """Whether it works."""
        return self._process.is_alive()

    def messages(self, seconds: float | int = 0.0) -> list[Any]:
        """
        What has arrived since the last call.

        Parameters
        ----------
        seconds
            How long to wait for the first.

        Returns
        -------
        list
            What `work` yielded, `Notice` of what it warned of, and as the last a `Failure` if it raised or its process
            was killed. Empty also after the end.
        """
        found: list[Any] = []
        try:
            while not self._receiver.closed and self._receiver.poll(0 if found else seconds):
                found.append(pickle.loads(self._receiver.recv_bytes()))
        except (EOFError, OSError):
            self._receiver.close()
            self._process.join()
            if self._process.exitcode:
                found.append(
                    Failure(f"its process was killed (exit code {self._process.exitcode}), perhaps for memory")
                )
        return found

    def stop(self) -> None:
        """End it now, with all processes that it started; what it was doing is lost."""
        end_tree(self._process.pid)
        self._process.join()
        self._receiver.close()


def ask(function: Callable[..., T], *arguments: object) -> "Future[T]":
    """
    Call a function in the helper: one process, for whoever asks, so that the process with the widgets stays free.

    Parameters
    ----------
    function, arguments
        What to call; both must be picklable.

    Returns
    -------
    concurrent.futures.Future
        Of its result. The helper answers one after the other; it ends when its parent does, and if it was killed, the
        next question starts another.
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


def end_tree(pid: int | None, is_included: bool = True) -> None:
    """
    Kill a process and all that it started.

    Parameters
    ----------
    pid
        Its number; nothing happens where there is no such process.
    is_included
        Whether to kill it as well; the last, since it may be the one that runs this.
    """
    try:
        parent = psutil.Process(pid)
        family = [*reversed(parent.children(recursive=True)), *([parent] if is_included else [])]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            # joblib's tracker ends by itself after the others, and frees the semaphores that they leave behind.
            if not any("resource_tracker import main" in part for part in process.cmdline()):
                process.kill()
        except psutil.NoSuchProcess:
            continue


def _run(sender: Connection, work: Callable[..., Iterable[Any]], arguments: tuple[object, ...]) -> None:
    _begin()
    warnings.showwarning = partial(_forward_warning, sender)
    try:
        for message in work(*arguments):
            _send(sender, message)
    except InputError as error:
        _send(sender, Failure(str(error)))
    except Exception as error:
        traceback.print_exc()
        _send(sender, Failure(f"{type(error).__name__}: {error}"))
    end_tree(os.getpid(), is_included=False)  # joblib's idle workers, which Python would wait for


def _send(sender: Connection, message: object) -> None:
    """By plain pickle: a tensor sent as PyTorch does can be had only while this process lives."""
    sender.send_bytes(pickle.dumps(message))


def _forward_warning(
    sender: Connection, message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    if issubclass(category, UserWarning):
        _send(sender, Notice(str(message)))


@contextmanager
def quiet_trackers() -> Iterator[None]:
    """
    Keep Python's trackers of shared memory quiet: they free what a killed process leaves; nobody needs to be told.

    Yields
    ------
    None
        For the start of trackers, and of processes that start theirs.
    """
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts a cell does not mean what runs beside it
    own = psutil.Process()
    own.nice(max(own.nice(), POLITENESS) if psutil.POSIX else psutil.BELOW_NORMAL_PRIORITY_CLASS)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    end_tree(os.getpid())


def _stop_if_alive(reference: "weakref.ref[Background]") -> None:
    background = reference()
    if background is not None and background.is_running:
        background.stop()
