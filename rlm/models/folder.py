"""The folder of a saved model: where it may be, how it describes itself, and whether that is what was saved."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from rlm.errors import InputError
from rlm.runtime.atomic import check_writable, recover

FORMAT, VERSION = "rlm model", 2  # version 1 had no checksum of the config
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.json"


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
