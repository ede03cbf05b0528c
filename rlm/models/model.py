"""A trained encoder with its vocabulary: encode texts, save to a folder, load."""

import contextlib
import copy
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from jaxtyping import Float, Float32, Int64
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from rlm.block import Block
from rlm.config import HeadName, StudyConfig
from rlm.data.phrases import PAD, UNKNOWN, find_split, index_phrases, pad_tokens
from rlm.encoder import MeanEncoder, OutputStep
from rlm.engine.accuracy import embed_phrases, unify
from rlm.errors import InputError
from rlm.evaluation.heads import HEADS
from rlm.models.exchange import take_state, to_modules, write_card, write_modules, write_onnx
from rlm.models.folder import (
    CONFIG,
    FORMAT,
    TOKENIZER,
    VERSION,
    VOCABULARY,
    WEIGHTS,
    check_hashes,
    check_place,
    check_tensors,
    check_words,
    describe,
    hash_of,
    say,
)
from rlm.models.graph import CELLS
from rlm.models.new_words import NewWords, add_rows
from rlm.runtime.atomic import recover, write_folder
from rlm.slicer import Slices
from rlm.zoo.encoders import DSSMEncoder, letter_trigrams, new_encoder
from rlm.zoo.losses import LOSSES

HEAD, JSON = "head.", {"ensure_ascii": False, "indent": 1}  # HEAD begins the names of the head's weights
_DAMAGES = (SafetensorError, OSError, KeyError, TypeError, AttributeError, RuntimeError, ValueError, MemoryError)
_DAMAGES += (OverflowError,)


@dataclass(frozen=True)
class Model:
    """
    One trained encoder: a `block` of one seed, and the `config` that made it, with its one arm.

    `words` has the token of every word that training has seen. `new_words` finds vectors of others in the files that
    training read its vectors from. All others are unknown, except for the letters that DSSM reads. `vocabulary_size`
    counts the rows of the word-vector table. `head` scores pairs of embeddings in place of their cosine, see
    `rlm.evaluation.train_head`.

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
    head: nn.Module | None = None
    new_words: NewWords = field(default_factory=lambda: NewWords({}))

    @classmethod
    def of(
        cls, block: Block, slices: Slices, config: StudyConfig, seed: int | None = None, heads: Block | None = None
    ) -> "Model":
        """Copy one seed of a block (by default the first) and of heads to the CPU, with the words of its training."""
        row = 0 if seed is None else block.seeds.index(seed)
        known = np.unique(slices.tokens)
        words = {slices.phrases.words[token - 2]: int(token) for token in known if token not in (PAD, UNKNOWN)}
        mine = dataclasses.replace(block, encoder=copy.deepcopy(block.encoder)).rows([row])  # `to` moves the encoder
        head = None
        if heads is not None:
            head = copy.deepcopy(heads.encoder).to("cpu")
            head.load_state_dict({name: weight[row] for name, weight in heads.weights.items()})
        if config.final_padding != "masked":
            config = config.model_copy(update={"max_tokens": slices.tokens.shape[1]})  # it reads as much padding
        return cls(mine.to("cpu"), words, slices.vocabulary_size, config, head, NewWords.of(config))

    @cached_property
    def split(self) -> Callable[[str], list[str]]:
        """What splits a text into the model's tokens."""
        return find_split(self.config.tokenizer)

    @property
    def head_name(self) -> HeadName | None:
        """The name of the head in `rlm.evaluation.HEADS`."""
        return next((name for name, kind in HEADS.items() if type(self.head) is kind), None)

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
        phrases, row = index_phrases(texts, self.config.max_tokens, self.split)
        block, new = self._learn([word for word in phrases.words if word not in self.words])
        numbers = self.words | {word: self.vocabulary_size + place for place, word in enumerate(new)}
        token_of = np.array([PAD, UNKNOWN, *(numbers.get(word, UNKNOWN) for word in phrases.words)], np.int32)
        padding, longest = self.config.final_padding, phrases.tokens.shape[1]
        width = max(1, longest) if padding == "masked" else self.config.max_tokens
        tokens = torch.from_numpy(pad_tokens(np.pad(token_of[phrases.tokens], [(0, 0), (0, width - longest)]), padding))
        reach = [int((tokens != PAD).sum(dim=1).gt(position).sum()) for position in range(1, width)]
        # The last row is the empty phrase; texts without words have the number -1.
        vectors = embed_phrases(block, tokens[None], (len(tokens), *reach))[0]
        return unify(vectors, tokens).numpy()[row]

    def _learn(self, new: Sequence[str]) -> tuple[Block, Sequence[str]]:
        """Give the block the letters or the vectors of new words; return also those that have any."""
        if new and self._reads_letters:
            block = dataclasses.replace(self.block, encoder=copy.deepcopy(self.block.encoder))
            _bare(block.encoder).trigrams = self._trigrams(new)
            return block, new
        vectors = self.new_words.look_up(new)
        return (add_rows(self.block, np.stack(list(vectors.values()))) if vectors else self.block), list(vectors)

    def knows(self, text: str) -> bool:
        """Return True if a text has a word that training has seen or its vectors have, or for DSSM a letter trigram."""
        return any(self._is_known(self.split(text)))

    def unknown_share(self, texts: Iterable[str]) -> float:
        """Return the share of the words of texts that the model does not know, see `knows`."""
        counts = Counter(word for text in texts for word in self.split(text))
        known = compress(counts.values(), self._is_known(list(counts)))
        return 1 - sum(known) / max(1, counts.total())

    def _is_known(self, words: Sequence[str]) -> list[bool]:
        if not (words and self._reads_letters):
            found = self.new_words.look_up([word for word in words if word not in self.words])
            return [word in self.words or word in found for word in words]
        return self._trigrams(words)[-len(words) :].any(dim=1).tolist()

    def score(self, first: Float[Tensor, "*#pair dim"], second: Float[Tensor, "*#pair dim"]) -> Float[Tensor, "*pair"]:
        """Score pairs of embeddings by the head, or by their cosine."""
        if self.head is None:
            return F.cosine_similarity(first, second, dim=-1)
        with torch.no_grad():
            return self.head(*torch.broadcast_tensors(first, second))

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
        if self.head is not None:
            state |= {f"{HEAD}{name}": tensor for name, tensor in self.head.state_dict().items()}
        contents = {
            WEIGHTS: safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()}),
            VOCABULARY: json.dumps(dict(self.words), **JSON).encode(),
        }
        description = {
            "format": FORMAT,
            "version": VERSION,
            "rlm": metadata.version("rlm"),
            "seed": self.block.seeds[0],
            "vocabulary_size": self.vocabulary_size,
            "config": self.config.model_dump(mode="json"),
        }
        if self.config.tokenizer is not None:
            contents[TOKENIZER] = Path(self.config.tokenizer).read_bytes()
            description["config"]["tokenizer"] = TOKENIZER
        if self.head is not None:
            description["head"] = self.head_name
        if self.new_words.files:
            description["word_vectors"] = self.new_words.files
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        description["sha256"] = hashes | {CONFIG: hash_of(description)}
        write_folder(folder, {CONFIG: json.dumps(description, **JSON).encode()} | contents)

    def to_sentence_transformers(
        self, folder: str | Path, db: str | Path | None = None, study: int | None = None
    ) -> None:
        """
        Write a new folder that ``sentence_transformers.SentenceTransformer`` loads, with the same embeddings to 1e-6.

        Its card has the verdict, the number of seeds and the hash of the data of a stored study, if `db` is given, see
        `rlm.read_study`. Raise InputError for an encoder other than ``mean``, for padding that is read, and for vectors
        of unseen words, none of which its modules can compute.
        """
        encoder, config = self.block.encoder, self.config
        state = take_state(self, "sentence-transformers", [MeanEncoder])
        title = f"{config.encoder} encoder with the loss {config.loss}, {config.arms[0]}, seed {self.block.seeds[0]}"
        modules = to_modules(encoder, state, _by_token(self.words, self.vocabulary_size), config.max_tokens)
        write_modules(folder, modules, write_card(f"{config.dataset}: {title}", db, study))

    def to_onnx(self, folder: str | Path) -> None:
        """
        Write a new folder with ``model.onnx``, which has the same embeddings to 1e-6, and ``tokenizer.json``.

        The graph takes tokens ``[phrase, token]``, 0 after the end, as the tokenizer (of the package tokenizers) makes
        them. Needs ``rlm[onnx]``. Raise InputError for the encoders ``dssm``, ``lstm(cnn)`` and ``transformer``, for
        padding that is read, and for vectors of unseen words.
        """
        state = take_state(self, "ONNX", CELLS)
        write_onnx(
            folder, self.block.encoder, state, _by_token(self.words, self.vocabulary_size), self.config.max_tokens
        )


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
        On the same machine its embeddings, and the scores of its head, are bit-identical to those of the saved model.

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
    description = describe(folder)
    if description["version"] > VERSION:
        raise InputError(
            f"{folder}: expected a model of version {VERSION} or older, found {description['version']}, written by "
            f"rlm {description.get('rlm')}; update rlm"
        )
    try:
        config = StudyConfig.model_validate(description["config"])
        names = [WEIGHTS, VOCABULARY, *([TOKENIZER] if config.tokenizer else [])]
        contents = {name: (folder / name).read_bytes() for name in names}
        check_hashes(description, contents)
        if config.tokenizer:
            config = config.model_copy(update={"tokenizer": str(folder / TOKENIZER)})
        words, size = json.loads(contents[VOCABULARY]), description["vocabulary_size"]
        # Copied for the usual alignment in memory, on which the last bits of a matrix product may depend.
        state = {name: tensor.clone() for name, tensor in safetensors.torch.load(contents[WEIGHTS]).items()}
        head = {name: state.pop(name) for name in list(state) if "head" in description and name.startswith(HEAD)}
        check_words(words, size, most=sum(tensor.numel() for tensor in state.values()))
        if type(seed := description["seed"]) is not int or seed < 0:
            raise InputError(f"expected a seed of at least 0, found {seed!r}")
        with torch.random.fork_rng(devices=[]):  # these random weights are replaced, so they must not advance a stream
            sizes, output = (config.word_dim, config.dim), LOSSES[config.loss].output
            encoder = new_encoder(config.encoder, _by_token(words, size), *sizes, output, layers=config.layers)
        check_tensors(state, encoder)
        encoder.load_state_dict(state, assign=True)
        block = Block(encoder, (seed,), {name: one.detach()[None] for name, one in encoder.named_parameters()})
        model = Model(block, words, size, config, new_words=NewWords(description.get("word_vectors", {})))
        if "head" in description:
            model = dataclasses.replace(model, head=_load_head(description["head"], head, model))
    except _DAMAGES as error:
        raise InputError(f"{folder}: expected a whole model, found: {say(error)}; train it or get it again") from error
    return model


def _load_head(name: Any, state: Mapping[str, Tensor], model: Model) -> nn.Module:  # noqa: ANN401
    if name not in HEADS:
        raise InputError(f"expected a head of {', '.join(HEADS)}, found {name!r}")
    with torch.random.fork_rng(devices=[]):
        head = HEADS[name](model.encode([""]).shape[1])
    state = {name.removeprefix(HEAD): tensor for name, tensor in state.items()}
    check_tensors(state, head)
    head.load_state_dict(state, assign=True)
    return head


def _bare(encoder: nn.Module) -> nn.Module:
    return encoder.encoder if isinstance(encoder, OutputStep) else encoder


def _by_token(words: Mapping[str, int], size: int) -> list[str]:
    """Return the words in the order of their tokens, with empty strings for unknown ones."""
    text_of = {token: word for word, token in words.items()}
    return [text_of.get(token, "") for token in range(UNKNOWN + 1, size)]
