"""Questions with their premises, block by block, and how well a model finds these."""

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
from rlm.evaluation.baselines import with_interval
from rlm.evaluation.retrieval import first_relevant_ranks, scores_by_query
from rlm.models.model import Model


class QuestionBlock(NamedTuple):
    """
    Premises and questions of which every premise is right for every question.

    Attributes
    ----------
    premises, questions
        At least one of each.
    """

    premises: list[str]
    questions: list[str]


def read_questions(path: str | Path, encoding: str | None = None) -> list[QuestionBlock]:
    """
    Read an evaluation file: blocks separated by empty lines, of lines ``T: premise``, then lines ``Q: question``.

    Lines ``A: answer`` after the questions are allowed and not used.

    Parameters
    ----------
    path
        A text file, perhaps compressed.
    encoding
        Such as cp1251; found out by default, as by `rlm.read`.

    Returns
    -------
    list of QuestionBlock
        At least one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file cannot be decoded, or a line is none of these or stands where it cannot, or a text has no word; the
        message gives the line.
    """
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
    """The blocks of a text; refuse a text without words."""
    for premises, questions in read_blocks(text):
        for kind, (line, content) in [*(("T:", one) for one in premises), *(("Q:", one) for one in questions)]:
            if not tokenise(content):
                raise InputError(f"expected a text after {kind}, found no word in line {line}; give one or drop it")
        yield QuestionBlock([content for _, content in premises], [content for _, content in questions])


def evaluate_questions(model: Model, blocks: list[QuestionBlock]) -> pd.DataFrame:
    """
    How often a model finds a premise of a question's block among all premises of the file, by cosine.

    Texts of the same words are one text; a question that stands in several blocks has the premises of all of them.

    Parameters
    ----------
    model
        Encodes premises and questions.
    blocks
        As of `read_questions`.

    Returns
    -------
    pandas.DataFrame
        Rows top_1, top_5, top_10 and mean_reciprocal_rank; columns mean (over questions), low and high: 95 % percentile
        bootstrap over blocks, of which those that share a text count as one; missing if that leaves a single one. Ties
        count against the model, see `rlm.evaluation.retrieval.first_relevant_ranks`.
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
    group = relevance_clusters(pairs, len(phrases))[asked]
    found = {name: with_interval(values, group) for name, values in scores_by_query(ranks).items()}
    return pd.DataFrame.from_dict(found, orient="index", columns=["mean", "low", "high"])
