"""Passes in C over what a step of training keeps: compiled in a second, where there is a C compiler."""

import ctypes
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from torch import Tensor

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("native.c")
# Not -ffast-math, which would change how the whole process treats the smallest numbers.
FLAGS = "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"
WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
SECONDS_TO_COMPILE = 60


def call(function: str, *arguments: Tensor | float | int) -> bool:
    """
    Call a function of ``native.c`` with contiguous tensors on the CPU, whole numbers and floats.

    Returns False, and does nothing, where the functions are missing.
    """
    if (library := _library()) is None:
        return False
    library[function](*map(_as_c, arguments))
    return True


def is_there() -> bool:
    """Return True if the functions of ``native.c`` could be compiled."""
    return _library() is not None


def _as_c(value: Tensor | float | int) -> ctypes.c_void_p | ctypes.c_float | ctypes.c_long:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)


@cache
def _library() -> ctypes.CDLL | None:
    found = filter(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))
    try:
        with tempfile.TemporaryDirectory(prefix="rlm-") as folder:
            made = Path(folder, "native.so")
            command = [next(found), *FLAGS, *WIDE, "-o", made, SOURCE, "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS_TO_COMPILE)
            return ctypes.CDLL(str(made))
    except (OSError, StopIteration, subprocess.SubprocessError) as error:
        log.info("training goes without the passes in C, which are faster: %s", error or "found no C compiler (cc)")
    return None
