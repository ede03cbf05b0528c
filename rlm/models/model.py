"""A trained encoder with its vocabulary: encode texts, save to a folder, load."""

import contextlib
import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import safetensors.torch
import torch
from jaxtyping import Float32, Int64
from safetensors import SafetensorError
from torch import Tensor, nn

from rlm.block import Block
from rlm.config import StudyConfig
from rlm.data.phrases import PAD, UNKNOWN, index_phrases, tokenise
from rlm.encoder import OutputStep
from rlm.engine.accuracy import embed_phrases, unify
from rlm.errors import InputError
from rlm.runtime.atomic import check_writable, recover, write_folder
from rlm.slicer import Slices, pad_tokens
from rlm.zoo.encoders import DSSMEncoder, letter_trigrams, new_encoder
from rlm.zoo.losses import LOSSES

FORMAT, VERSION = "rlm model", 2  # version 1 had no checksum of the config
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.json"
_DAMAGES = (SafetensorError, OSError, KeyError, TypeError, AttributeError, RuntimeError, ValueError, MemoryError)
_DAMAGES += (OverflowError,)


@dataclass(frozen=True)
class Model:
    """
    One trained encoder: a `block` of one seed, and the `config` that made it, with its one arm.

    `words` has the token of every word that training has seen; all others are unknown, except for the letters that DSSM
    reads. `vocabulary_size` counts the rows of the word-vector table.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.prepare(rlm.StudyConfig())
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size, 32, 8), (0,))
    >>> model = rlm.models.Model.of(block, slices, rlm.StudyConfig(encoder="mean", dim=8))
    >>> model.encode(["How are you?", "how are you"]).shape, model.knows("qwxz")
    ((2, 8), False)
    """

    block: Block
    words: Mapping[str, int]
    vocabulary_size: int
    config: StudyConfig

    @classmethod
    def of(cls, block: Block, slices: Slices, config: StudyConfig, seed: int | None = None) -> "Model":
        """
        Copy one seed of a block (by default the first) to the CPU, with the words of its training split.

        A model that reads padding keeps the length of the longest phrase as `max_tokens`.
        """
        row = 0 if seed is None else block.seeds.index(seed)
        known = np.unique(slices.tokens)
        words = {slices.phrases.words[token - 2]: int(token) for token in known if token not in (PAD, UNKNOWN)}
        mine = dataclasses.replace(block, encoder=copy.deepcopy(block.encoder)).rows([row])  # `to` moves the encoder
        if config.final_padding != "masked":
            config = config.model_copy(update={"max_tokens": slices.tokens.shape[1]})
        return cls(mine.to("cpu"), words, slices.vocabulary_size, config)

    def encode(self, texts: Sequence[str] | pd.Series | np.ndarray) -> Float32[np.ndarray, "text dim"]:
        """
        Embed texts, one row each, read as in training; raise InputError if these are not texts.

        Texts with the same words have bit-identical rows; a row's last bits may depend on the other texts of the call.
        A text without words has the row of the empty phrase.
        """
        is_one = isinstance(texts, str)
        texts = list(texts)
        others = sorted({type(text).__name__ for text in texts if not isinstance(text, str)})
        if others or is_one:
            raise InputError(f"expected a list of texts, found {', '.join(others) or 'one text'}; give a list of str")
        phrases, row = index_phrases(texts, self.config.max_tokens)
        new = [word for word in phrases.words if word not in self.words]
        block, numbers = self.block, self.words
        if new and self._reads_letters:
            block = dataclasses.replace(block, encoder=copy.deepcopy(block.encoder))
            _bare(block.encoder).trigrams = self._trigrams(new)
            numbers = numbers | {word: self.vocabulary_size + place for place, word in enumerate(new)}
        token_of = np.array([PAD, UNKNOWN, *(numbers.get(word, UNKNOWN) for word in phrases.words)], np.int32)
        padding, longest = self.config.final_padding, phrases.tokens.shape[1]
        width = max(1, longest) if padding == "masked" else self.config.max_tokens
        tokens = torch.from_numpy(pad_tokens(np.pad(token_of[phrases.tokens], [(0, 0), (0, width - longest)]), padding))
        reach = [int((tokens != PAD).sum(dim=1).gt(position).sum()) for position in range(1, width)]
        # The last row is the empty phrase; texts without words have the number -1.
        vectors = embed_phrases(block, tokens[None], (len(tokens), *reach))[0]
        return unify(vectors, tokens).numpy()[row]

    def knows(self, text: str) -> bool:
        """Return True if a text has a word, or for DSSM a letter trigram, that training has seen."""
        words = tokenise(text)
        if not self._reads_letters:
            return not self.words.keys().isdisjoint(words)
        return bool(words) and bool(self._trigrams(words)[-len(words) :].any())

    @property
    def _reads_letters(self) -> bool:
        return isinstance(_bare(self.block.encoder), DSSMEncoder)

    def _trigrams(self, new: Sequence[str]) -> Int64[Tensor, "token trigram"]:
        """Return the trigrams of the model's words and of new ones, without those that training never saw."""
        trigrams = letter_trigrams([*_by_token(self.words, self.vocabulary_size), *new])
        return trigrams * (trigrams <= len(_bare(self.block.encoder).hashed))

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """
        Write weights (safetensors), vocabulary and config (JSON) into a new folder in one that exists.

        Raise InputError if the folder exists and is not to be overwritten, or its parent cannot be written; OSError if
        writing fails, which leaves existing files unchanged.
        """
        folder = check_place(folder, overwrite)
        state = self.block.encoder.state_dict() | {name: weight[0] for name, weight in self.block.weights.items()}
        contents = {
            WEIGHTS: safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()}),
            VOCABULARY: _json(dict(self.words)),
        }
        description = {
            "format": FORMAT,
            "version": VERSION,
            "rlm": metadata.version("rlm"),
            "seed": self.block.seeds[0],
            "vocabulary_size": self.vocabulary_size,
            "config": self.config.model_dump(mode="json"),
        }
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        description["sha256"] = hashes | {CONFIG: _hash_of(description)}
        write_folder(folder, {CONFIG: _json(description)} | contents)


def load_model(folder: str | Path) -> Model:
    """
    Load a model that `Model.save` or ``rlm train --save`` wrote.

    Parameters
    ----------
    folder
        The folder of the model.

    Returns
    -------
    Model
        On the same machine its embeddings are bit-identical to those of the saved model.

    Raises
    ------
    InputError
        If there is no model, its version is newer, or its files are damaged or do not belong together.

    Examples
    --------
    >>> import rlm, tempfile
    >>> config = rlm.StudyConfig(encoder="mean")
    >>> slices = rlm.prepare(config)
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size, config.word_dim, config.dim), (0,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rlm.models.Model.of(block, slices, config).save(f"{folder}/model")
    ...     rlm.load_model(f"{folder}/model").encode(["How are you?"]).shape
    (1, 64)
    """
    folder = Path(folder)
    if not folder.exists():
        with contextlib.suppress(OSError):
            recover(folder.resolve())  # a replacement of the model may have been killed halfway
    description = _describe(folder)
    if description["version"] > VERSION:
        raise InputError(
            f"{folder}: expected a model of version {VERSION} or older, found {description['version']}, written by "
            f"rlm {description.get('rlm')}; update rlm"
        )
    try:
        contents = {name: (folder / name).read_bytes() for name in (WEIGHTS, VOCABULARY)}
        _check_hashes(description, contents)
        config = StudyConfig.model_validate(description["config"])
        words, size = json.loads(contents[VOCABULARY]), description["vocabulary_size"]
        # Copied for the usual alignment in memory, on which the last bits of a matrix product may depend.
        state = {name: tensor.clone() for name, tensor in safetensors.torch.load(contents[WEIGHTS]).items()}
        _check_words(words, size, most=sum(tensor.numel() for tensor in state.values()))
        if type(seed := description["seed"]) is not int or seed < 0:
            raise InputError(f"expected a seed of at least 0, found {seed!r}")
        with torch.random.fork_rng(devices=[]):  # these random weights are replaced, so they must not advance a stream
            encoder = new_encoder(
                config.encoder, _by_token(words, size), config.word_dim, config.dim, LOSSES[config.loss].output
            )
        _check_tensors(state, encoder)
        encoder.load_state_dict(state, assign=True)
        block = Block(encoder, (seed,), {name: one.detach()[None] for name, one in encoder.named_parameters()})
    except _DAMAGES as error:
        raise InputError(f"{folder}: expected a whole model, found: {_say(error)}; train it or get it again") from error
    return Model(block, words, size, config)


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
        _describe(folder)
    return folder


def _check_hashes(description: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if description["version"] > 1:
        found[CONFIG] = _hash_of(description)
    for name, digest in found.items():
        if digest != description["sha256"][name]:
            raise InputError(f"expected {name} as it was saved, found other content")


def _check_words(words: Any, size: Any, most: int) -> None:  # noqa: ANN401
    """Require a vocabulary of different tokens; the weights have `most` numbers, at least one per row of the table."""
    if type(size) is not int or not UNKNOWN < size <= most:
        raise InputError(f"expected a vocabulary_size between {UNKNOWN + 1} and {most:,}, found {size!r}")
    if not all(type(token) is int and UNKNOWN < token < size for token in words.values()):
        raise InputError(f"expected tokens between {UNKNOWN} and {size} in {VOCABULARY}, found others")
    if len(set(words.values())) < len(words):
        raise InputError(f"expected a token of its own for every word in {VOCABULARY}, found one of several words")


def _check_tensors(state: Mapping[str, Tensor], encoder: nn.Module) -> None:
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


def _bare(encoder: nn.Module) -> nn.Module:
    return encoder.encoder if isinstance(encoder, OutputStep) else encoder


def _by_token(words: Mapping[str, int], size: int) -> list[str]:
    """Return the words in the order of their tokens, with empty strings for unknown ones."""
    text_of = {token: word for word, token in words.items()}
    return [text_of.get(token, "") for token in range(UNKNOWN + 1, size)]


def _describe(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if (description["format"], type(description["version"])) != (FORMAT, int) or description["version"] < 1:
            raise InputError(f"{CONFIG} of something else")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder}: expected a model that rlm train --save wrote, found: {_say(error)}; check the path"
        ) from error
    return description


def _say(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _hash_of(description: Mapping[str, Any]) -> str:
    """Return SHA-256 of everything but the hashes."""
    rest = {name: value for name, value in description.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode()
