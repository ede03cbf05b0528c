"""Call a function with a limit of time: in a child process, which is killed when the time is over."""

import os
import threading
from collections.abc import Callable
from multiprocessing import current_process
from pickle import loads
from typing import Any, Protocol, TypeVar, runtime_checkable

from joblib.externals.loky.backend import get_context
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import TerminatedWorkerError

from rlm.errors import InputError
from rlm.runtime.parallel import end_with, interrupts_held
from rlm.runtime.process import end_tree, quiet_trackers

T = TypeVar("T")
_OWN = threading.local()  # the child of this thread, if any: a worker of Dask has several threads


@runtime_checkable
class Pipe(Protocol):
    """One end of a pipe between processes."""

    def send_bytes(self, sent: bytes) -> None: ...

    def recv_bytes(self) -> bytes: ...

    def poll(self, timeout: float | int | None) -> bool: ...


class _Child:
    """A process that answers one call after another; it starts once, since imports take seconds."""

    def __init__(self) -> None:
        if current_process().daemon:
            raise InputError(
                "expected a worker that may start a process, which a timeout needs, found a daemon; set Dask's option "
                "distributed.worker.daemon to False before the cluster starts, or omit timeout"
            )
        context = get_context("loky")  # whose processes do not run the script of the user again
        self.pipe, theirs = context.Pipe()
        with interrupts_held(), quiet_trackers():
            self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
            self.process.start()
        theirs.close()

    def ask(self, seconds: float | int, call: tuple[Any, ...]) -> Any:  # noqa: ANN401
        self.pipe.send_bytes(dumps(call))
        if early := self.pipe.recv_bytes():  # empty as the call begins, after the imports that it needs
            return loads(early)
        if not self.pipe.poll(seconds):
            raise TimeoutError(f"it took longer than {seconds:g} seconds")
        return loads(self.pipe.recv_bytes())

    def kill(self) -> None:
        end_tree(self.process.pid)
        self.process.join()
        self.pipe.close()


def call_within(seconds: float | int, function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a child process of this thread; raise TimeoutError, and kill it, if it takes longer."""
    child = _OWN.child = getattr(_OWN, "child", None) or _Child()
    try:
        result, error = child.ask(seconds, (function, *arguments))
    except BaseException as error:
        child.kill()
        _OWN.child = None
        if isinstance(error, EOFError | ConnectionError):
            raise TerminatedWorkerError("the process of a run ended before the run did") from error
        raise
    if error is not None:
        raise error
    return result


def _serve(pipe: Pipe, parent: int) -> None:
    end_with(parent)
    while True:
        try:
            sent = pipe.recv_bytes()
        except EOFError:  # nobody asks any more
            return
        try:
            function, *arguments = loads(sent)
            pipe.send_bytes(b"")
            answer = function(*arguments), None
        except Exception as error:  # for the process that asked
            answer = None, error
        pipe.send_bytes(dumps(answer))
