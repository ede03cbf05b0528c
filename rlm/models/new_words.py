"""Vectors of words that the data of a model did not have, from the files that its training read vectors from."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from rlm.block import Block
from rlm.config import StudyConfig
from rlm.data.word_vectors import scan
from rlm.engine.trainer import word_tables
from rlm.runtime.atomic import sha256_of

log = logging.getLogger(__name__)
Vector = Float32[np.ndarray, " word_dim"]


class NewWords:
    """
    Looks up words in word-vector files, given with their SHA-256; if one is missing or has changed, all are unknown.

    A file of text is read to its end for each look-up, however few the words; what was found once is kept.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        self.found: dict[str, Vector | None] = {}

    @classmethod
    def of(cls, config: StudyConfig) -> "NewWords":
        """Take the files of a config by which words that training does not see keep their vectors."""
        paths = [config.word_vectors, config.character_vectors] if config.keeps_unseen_words else []
        return cls({path: sha256_of(Path(path)) for path in paths if path is not None})

    def look_up(self, words: Iterable[str]) -> dict[str, Vector]:
        """Return the vectors of the words that have one; a part that one of the files lacks is zero."""
        words = list(words)
        missing = frozenset(words) - self.found.keys()
        if missing and self._are_there:
            parts = [scan(Path(path), missing) for path in self.files]
            for word in missing:
                is_there = any(word in part.vectors for part in parts)
                vectors = [part.vectors.get(word, np.zeros(part.dim, np.float32)) for part in parts]
                self.found[word] = np.concatenate(vectors) if is_there else None
        return {word: vector for word in words if (vector := self.found.get(word)) is not None}

    @cached_property
    def _are_there(self) -> bool:
        for path, expected in self.files.items():
            try:
                problem = None if sha256_of(Path(path)) == expected else "other content"
            except OSError as error:
                problem = str(error)
            if problem:
                log.warning(
                    "words that training did not see are unknown: expected %s as training read it, found: %s; put "
                    "that file there",
                    path,
                    problem,
                )
                return False
        return bool(self.files)


def add_rows(block: Block, rows: Float32[np.ndarray, "word word_dim"]) -> Block:
    """Append word vectors to the table of a block of one seed."""
    (name,) = word_tables(block.encoder)
    table = block.weights[name] if name in block.weights else block.encoder.get_parameter(name)[None]
    return dataclasses.replace(
        block, weights=block.weights | {name: torch.cat([table, torch.from_numpy(rows)[None]], dim=1)}
    )
