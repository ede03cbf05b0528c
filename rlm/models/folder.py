"""The folder of a saved model: where it may be, how it describes itself, and whether that is what was saved."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from rlm.data.phrases import UNKNOWN
from rlm.errors import InputError
from rlm.runtime.atomic import check_writable, recover

FORMAT, VERSION = "rlm model", 2  # version 1 had no checksum of the config
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.json"
TOKENIZER = "tokenizer.json"


def check_place(folder: str | Path, overwrite: bool) -> Path:
    """Require that a model can be saved, before it is trained; return the absolute folder."""
    folder = Path(folder).resolve()
    if not folder.parent.is_dir():
        raise InputError(f"expected a new folder in one that exists, found no {folder.parent}; create that first")
    try:
        check_writable(folder)
        recover(folder)
    except OSError as error:
        raise InputError(
            f"expected a folder that can be written at {folder}, found: {error.strerror or error}; choose another"
        ) from error
    if folder.exists():
        if not overwrite:
            raise InputError(f"expected a new folder, found {folder}; choose another, or use --overwrite")
        describe(folder)
    return folder


def describe(folder: Path) -> dict[str, Any]:
    """Read the description of a saved model of any version."""
    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if (description["format"], type(description["version"])) != (FORMAT, int) or description["version"] < 1:
            raise InputError(f"{CONFIG} of something else")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder}: expected a model that rlm train --save wrote, found: {say(error)}; check the path"
        ) from error
    return description


def check_hashes(description: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    """Raise InputError unless the files are those that were saved together."""
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if description["version"] > 1:
        found[CONFIG] = hash_of(description)
    for name, digest in found.items():
        if digest != description["sha256"][name]:
            raise InputError(f"expected {name} as it was saved, found other content")


def hash_of(description: Mapping[str, Any]) -> str:
    """Return SHA-256 of everything but the hashes."""
    rest = {name: value for name, value in description.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def say(error: Exception) -> str:
    """Return the text of an exception, for a message."""
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def check_words(words: Any, size: Any, most: int) -> None:  # noqa: ANN401
    """Require a vocabulary of different tokens; the weights have `most` numbers, at least one per row of the table."""
    if type(size) is not int or not UNKNOWN < size <= most:
        raise InputError(f"expected a vocabulary_size between {UNKNOWN + 1} and {most:,}, found {size!r}")
    if not all(type(token) is int and UNKNOWN < token < size for token in words.values()):
        raise InputError(f"expected tokens between {UNKNOWN} and {size} in {VOCABULARY}, found others")
    if len(set(words.values())) < len(words):
        raise InputError(f"expected a different token for every word in {VOCABULARY}, found one of several words")


def check_tensors(state: Mapping[str, Tensor], encoder: nn.Module) -> None:
    """Require finite weights of the encoder's types and shapes, and tables that match the vocabulary."""
    learned = {name for name, _ in encoder.named_parameters()}
    for name, expected in encoder.state_dict().items():
        if name not in state:
            continue  # `load_state_dict` reports missing and unexpected names
        found = state[name]
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            raise InputError(
                f"expected {name} as {_type(expected)} in {WEIGHTS}, the {type(encoder).__name__} of its config, found "
                f"{_type(found)}"
            )
        if not found.isfinite().all():
            raise InputError(f"expected finite numbers in {name} in {WEIGHTS}, found NaN or infinity")
        if name not in learned and not torch.equal(found, expected):
            raise InputError(f"expected {name} in {WEIGHTS} to belong to {VOCABULARY}, found other content")


def _type(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
