"""The identity of a study: what makes it another one, so that a store never mixes the two."""

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import nn

from rlm.config import StudyConfig
from rlm.data.corpus import Corpus
from rlm.errors import InputError
from rlm.labels.config import LabelsConfig
from rlm.labels.samples import Samples
from rlm.runtime.atomic import sha256_of
from rlm.runtime.provenance import versions


class Identity(NamedTuple):
    """
    What makes a study another one.

    Attributes
    ----------
    key
        A hash of all but the arms and seeds: config, data, encoder, word vectors, versions of rlm and PyTorch.
    task
        ``"triplets"`` or ``"labels"``.
    settings
        The config without its arms, as JSON.
    data
        Hash of the data.
    source
        That of an encoder of one's own.
    """

    key: str
    task: str
    settings: str
    data: str
    source: str | None = None


def identify(config: StudyConfig, corpus: Corpus, make_encoder: Callable[[int], nn.Module] | None = None) -> Identity:
    """
    The identity of a study of triplets.

    Parameters
    ----------
    config, corpus, make_encoder
        Of the study.

    Returns
    -------
    Identity
        Arms and seeds make no difference.

    Raises
    ------
    InputError
        If the source of the encoder, or the file of word vectors, cannot be read.
    """
    settings = config.model_dump_json(exclude={"arms"})
    source = None if make_encoder is None else _source(make_encoder)
    identity = [settings, corpus.fingerprint, source, _decisive()]
    if make_encoder is not None:
        identity.append(_content(make_encoder, len(corpus.phrases.words) + 2))
    if config.word_vectors is not None:
        identity.append(_hash_of(Path(config.word_vectors)))
    return Identity(_hash(identity), "triplets", settings, corpus.fingerprint, source)


def identify_labels(config: LabelsConfig, samples: Samples) -> Identity:
    """
    The identity of a study of random labels.

    Parameters
    ----------
    config, samples
        Of the study.

    Returns
    -------
    Identity
        Arms and seeds make no difference.
    """
    settings = config.model_dump_json(exclude={"arms"})
    return Identity(_hash([settings, samples.fingerprint, _decisive()]), "labels", settings, samples.fingerprint)


def _decisive() -> dict[str, str]:
    return {name: versions()[name] for name in ("rlm", "torch")}


def _hash(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _source(make_encoder: Callable[[int], nn.Module]) -> str:
    """An encoder of one's own is known by its source, since its name says nothing of what has changed."""
    try:
        return inspect.getsource(make_encoder)
    except (OSError, TypeError) as error:
        raise InputError(
            "expected a make_encoder whose source can be read, so that a store can tell one from another, found "
            f"{make_encoder!r}; define it with class or def, in a file or a notebook"
        ) from error


def _content(make_encoder: Callable[[int], nn.Module], vocabulary_size: int) -> str:
    """What an encoder of one's own is made of, which its source need not say: sizes, vectors known from elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            state = make_encoder(vocabulary_size).state_dict()
        except (MemoryError, RuntimeError) as error:  # the study is about to fail of it, with more to say
            return str(error)
    return hashlib.sha256(save({name: tensor.contiguous() for name, tensor in state.items()})).hexdigest()


def _hash_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(
            f"expected a file of word vectors, found {path}: {error.strerror or error}; give another"
        ) from error
