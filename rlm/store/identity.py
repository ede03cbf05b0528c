"""The identity of a study: what makes it another one, so that a store never mixes the two."""

import hashlib
import inspect
import json
import sys
import sysconfig
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import joblib
import torch
from safetensors.torch import save
from torch import nn

from rlm.errors import InputError
from rlm.runtime.atomic import sha256_of
from rlm.runtime.provenance import versions

VERSION = ", or pass version="  # to `rlm.judge`, which takes it in place of a source


class Identity(NamedTuple):
    """
    What makes a study another one: everything but its arms and seeds.

    `key` is a hash of the rest and of the versions of rlm and PyTorch. `task` names the experiment, `settings` is its
    config without arms as JSON, `data` a hash of the data, and `source` the code of a function that the user supplies.
    A store keeps the settings that were asked for last, which may have more fields than the key covers.
    """

    key: str
    task: str
    settings: str
    data: str
    source: str | None = None


def identify(task: str, settings: str, data: str, source: str | None = None, *more: str) -> Identity:
    """Return the identity of a study; `more` are further hashes that distinguish it."""
    decisive = {name: versions()[name] for name in ("rlm", "torch")}
    identity = [task, settings, data, source, decisive, *more]
    return Identity(
        hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(), task, settings, data, source
    )


def read_source(function: Callable[..., object], what: str = "make_encoder", remedy: str = "") -> str:
    """Return the source of a user's function or class: its name does not tell what has changed."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise InputError(
            f"expected a {what} whose source can be read, by which a store distinguishes them, found "
            f"{function!r}; define it with class or def, in a file or a notebook{remedy}"
        ) from error


def code_of(function: Any) -> Any:  # noqa: ANN401
    """Return the function or class whose source describes a callable."""
    function = getattr(function, "func", function)  # of functools.partial
    return function if hasattr(function, "__name__") else type(function)


def digest_values(function: Callable[..., object], what: str) -> str:
    """Hash what a user's function reads besides its arguments, see `_describe`."""
    inner = function.func if isinstance(function, partial) else function
    home = getattr(inspect.unwrap(inner), "__module__", None) or type(inner).__module__
    try:
        return joblib.hash(_describe(function, home, what, {}))
    except InputError:
        raise
    except Exception as error:  # whatever pickling a value of the user raises
        raise InputError(
            f"expected values that can be hashed in what {what} reads, by which a store distinguishes studies, "
            f"found {type(error).__name__}: {error}; pass version=, and another one after each change"
        ) from error


def _describe(value: Any, home: str, what: str, seen: dict[Hashable, int]) -> object:  # noqa: ANN401
    """
    Describe a value so that equal descriptions mean equal work, in any process.

    Functions and classes of the module `home` are described by their source and the values they read, those of other
    modules that are not installed by the source of these modules and of what they import, all others by their name;
    tensors and networks by their numbers; all else by itself, for a hash of its pickle.
    """

    def describe(inner: object) -> object:
        return _describe(inner, home, what, seen)

    value = inspect.unwrap(value) if callable(value) else value
    is_code = inspect.isclass(value) or inspect.isroutine(value)
    if isinstance(value, partial | MethodType):
        parts = value.__reduce__()[1:] if isinstance(value, partial) else (value.__self__, value.__func__)
        return "bound", describe(parts)
    if isinstance(value, ModuleType):
        if not _is_own(value) or value.__name__ in seen:
            return "module", value.__name__
        seen[value.__name__] = len(seen)
        names = {getattr(one, "__module__", None) or getattr(one, "__name__", "") for one in vars(value).values()}
        return "file", inspect.getsource(value), describe([sys.modules[one] for one in _known(names)])
    if is_code and value.__module__ != home:
        return "name", f"{value.__module__}.{value.__qualname__}", describe(sys.modules.get(value.__module__))
    if isinstance(value, torch.Tensor):
        return "tensor", value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return "mapping", [(describe(name), describe(one)) for name, one in value.items()]
    if isinstance(value, list | tuple):
        return "list", [describe(one) for one in value]
    kind = type(value).__module__
    if not (is_code or kind == home or isinstance(value, nn.Module) or _is_own(sys.modules.get(kind))):
        return value
    if id(value) in seen:  # what follows exists as long as the function that reads it
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, nn.Module):
        return "network", describe(type(value)), describe(value.state_dict())
    if inspect.isclass(value):
        return (
            "class",
            read_source(value, what, VERSION),
            [describe(one) for one in vars(value).values() if callable(one) and not _is_generated(one)],
        )
    if inspect.isfunction(value):
        return "function", read_source(value, what, VERSION), describe(_values_read(value))
    return "object", describe(type(value)), describe(getattr(value, "__dict__", repr(value)))


def _is_generated(member: Any) -> bool:  # noqa: ANN401
    """Return whether a method was made by `dataclasses`: it has no source, but follows from that of its class."""
    return getattr(getattr(inspect.unwrap(member), "__code__", None), "co_filename", "") == "<string>"


def _known(names: Iterable[object]) -> list[str]:
    return sorted(name for name in names if isinstance(name, str) and name in sys.modules)


def _is_own(module: ModuleType | None) -> bool:
    """Return whether a module is the user's: from a file that is not installed, and not of this package."""
    file = getattr(module, "__file__", None)
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return (
        module is not None and bool(file) and not file.startswith(installed) and module.__name__.split(".")[0] != "rlm"
    )


def _values_read(function: FunctionType) -> list[object]:
    """Return the defaults of a function, and the outer variables that it or a function inside it names."""
    names, codes = set(), [function.__code__]
    for code in codes:
        names.update(code.co_names)
        codes += [one for one in code.co_consts if isinstance(one, CodeType)]
    outer = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    return [outer, closed, function.__defaults__, function.__kwdefaults__]


def digest_module(make: Callable[[], nn.Module]) -> str:
    """Hash the initial weights of a user's module: its source need not tell its sizes, or vectors it starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            state = make().state_dict()
        except (MemoryError, RuntimeError) as error:  # training is about to fail for it, with a better message
            return str(error)
    return hashlib.sha256(save({name: tensor.contiguous() for name, tensor in state.items()})).hexdigest()


def digest_file(path: Path, content: str) -> str:
    """Hash a file that the user names."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(
            f"expected a file of {content}, found {path}: {error.strerror or error}; give another"
        ) from error
