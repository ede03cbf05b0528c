"""Passes in C over what training keeps in memory: compiled in a second, where there is a C compiler."""

import ctypes
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path

from torch import Tensor

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("native.c")
# Not -ffast-math, which would change how the whole process treats the smallest numbers.
FLAGS = "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"
WIDE = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
OF_MACHINE = ["-march=native", *WIDE], ["-march=native"], []  # not every compiler knows the first ones
SECONDS_TO_COMPILE = 60
KEPT = {-3: 2**28, -1: 2**29}  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h, in bytes


def call(function: str, *arguments: Tensor | float | int) -> bool:
    """
    Call a function of ``native.c`` with contiguous tensors on the CPU, floats and whole numbers.

    Returns False, and does nothing, where that is impossible.
    """
    if (library := _library()) is None:
        return False
    try:
        passed = list(map(_as_c, arguments))
    except RuntimeError:  # what torch.func wraps has no memory of its own
        return False
    library[function](*passed)
    return True


def is_there() -> bool:
    """Return True if the functions of ``native.c`` could be compiled."""
    return _library() is not None


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 512 MB that a step frees; else the system has to clear as much memory for the next step."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        for setting, most in KEPT.items():
            ctypes.CDLL(None).mallopt(setting, most)


def _as_c(value: Tensor | float | int) -> ctypes.c_void_p | ctypes.c_float | ctypes.c_long:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)


@cache
def _library() -> ctypes.CDLL | None:
    named = shlex.split(os.environ.get("CC", ""))
    compilers = [command for command in (named, ["cc"], ["gcc"], ["clang"]) if command and shutil.which(command[0])]
    reason = "found no C compiler (cc, gcc, clang)"
    if os.name == "nt":  # a library that is loaded cannot be deleted there
        compilers, reason = [], "Windows"
    for compiler, flags in product(compilers, OF_MACHINE):
        try:
            with tempfile.TemporaryDirectory(prefix="rlm-", ignore_cleanup_errors=True) as folder:
                made = Path(folder, "native.so")
                command = [*compiler, *FLAGS, *flags, "-o", str(made), str(SOURCE), "-lm"]
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_TO_COMPILE)
                return ctypes.CDLL(str(made))
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"{error}; {getattr(error, 'stderr', None) or ''}".rstrip("; \n")
    log.info("training goes without the passes in C, which are faster: %s", reason)
    return None
