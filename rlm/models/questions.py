"""Questions with their premises: read them, and measure how well a model finds the premises."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from rlm.data.corpus import relevance_clusters
from rlm.data.parsers import read_blocks
from rlm.data.phrases import index_phrases, tokenise
from rlm.data.textfiles import decode
from rlm.errors import InputError
from rlm.evaluation.references import with_interval
from rlm.evaluation.retrieval import first_relevant_ranks, scores_by_query
from rlm.models.model import Model


class QuestionBlock(NamedTuple):
    """At least one premise and one question; every premise is right for every question."""

    premises: list[str]
    questions: list[str]


def read_questions(path: str | Path, encoding: str | None = None) -> list[QuestionBlock]:
    """Read blocks of lines ``T: premise``, then ``Q: question``, separated by empty lines; ``A:`` lines are ignored."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an evaluation file of T: and Q: lines, found none; check the path")
    try:
        blocks = decode(path, encoding, lambda text: list(_blocks(text)))
        if not blocks:
            raise InputError("expected blocks of T: and Q: lines, found none; give at least one")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return blocks


def _blocks(text: io.TextIOBase) -> Iterator[QuestionBlock]:
    for premises, questions in read_blocks(text):
        for kind, (line, content) in [*(("T:", one) for one in premises), *(("Q:", one) for one in questions)]:
            if not tokenise(content):
                raise InputError(f"expected a text after {kind}, found no word in line {line}; give one or drop it")
        yield QuestionBlock([content for _, content in premises], [content for _, content in questions])


def evaluate_questions(model: Model, blocks: list[QuestionBlock]) -> pd.DataFrame:
    """
    Measure how often a model finds a premise of a question's block among all premises of the file, by cosine.

    Texts of the same words are one text; a question in several blocks has the premises of all of them. The rows are
    top_1, top_5, top_10 and mean_reciprocal_rank; the columns mean (over questions), low and high: 95 % percentile
    bootstrap over clusters of blocks that share a text, missing for a single cluster. Ties count against the model.
    """
    texts = [text for block in blocks for text in (*block.premises, *block.questions)]
    phrases, numbers = index_phrases(texts, model.config.max_tokens)
    number_of = dict(zip(texts, numbers.tolist(), strict=True))
    asked = np.array([number_of[question] for block in blocks for question in block.questions])
    pairs = [(number_of[q], number_of[t]) for block in blocks for q in block.questions for t in block.premises]
    pairs = np.unique(np.array(pairs), axis=0)
    (queries, query), (candidates, candidate) = (np.unique(column, return_inverse=True) for column in pairs.T)
    vectors = F.normalize(torch.from_numpy(model.encode(phrases.texts)))
    ranks = first_relevant_ranks(vectors[queries], vectors[candidates], np.stack([query, candidate], axis=1))
    ranks = ranks[np.searchsorted(queries, asked)]
    cluster = relevance_clusters(pairs, len(phrases))[asked]
    found = {name: with_interval(values, cluster) for name, values in scores_by_query(ranks).items()}
    return pd.DataFrame.from_dict(found, orient="index", columns=["mean", "low", "high"])
