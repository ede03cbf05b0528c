"""The identity of a study: what makes it another one, so that a store never mixes the two."""

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import nn

from rlm.errors import InputError
from rlm.runtime.atomic import sha256_of
from rlm.runtime.provenance import versions


class Identity(NamedTuple):
    """
    What makes a study another one: everything but its arms and seeds.

    `key` is a hash of the rest and of the versions of rlm and PyTorch. `task` names the experiment, `settings` is its
    config without arms as JSON, `data` a hash of the data, and `source` the code of a function that the user supplies.
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


def read_source(function: Callable[..., object]) -> str:
    """Return the source of a user's function or class: its name does not tell what has changed."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise InputError(
            "expected a make_encoder whose source can be read, so that a store can tell one from another, found "
            f"{function!r}; define it with class or def, in a file or a notebook"
        ) from error


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
