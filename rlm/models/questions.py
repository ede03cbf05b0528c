"""Questions with their premises: read them, and measure how well a model finds the premises."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from rlm.data.corpus import relevance_clusters
from rlm.data.parsers import read_blocks
from rlm.data.phrases import index_phrases, tokenise
from rlm.data.textfiles import decode
from rlm.errors import InputError
from rlm.evaluation.heads import score_all
from rlm.evaluation.references import text_likeness, with_interval
from rlm.evaluation.retrieval import (
    Likeness,
    Pairs,
    Search,
    nearest_by,
    nearness,
    ranks_by,
    scores_by_query,
    scores_of,
)
from rlm.models.model import Model

NO_PAIRS = np.empty((0, 2), np.int64)
Ranks = Int64[np.ndarray, " query"]


class QuestionBlock(NamedTuple):
    """At least one premise and one question; every premise is right for every question."""

    premises: list[str]
    questions: list[str]


def read_questions(path: str | Path, encoding: str | None = None) -> list[QuestionBlock]:
    """Read blocks of lines ``T: premise``, then ``Q: question``, see `rlm.data.parsers.read_blocks`."""
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


class Evaluation(NamedTuple):
    """
    How well a model and untrained baselines find premises; and what the model answers to every question, in order.

    The rows of `scores` are top_1, top_5, top_10 and mean_reciprocal_rank; its columns are mean (over questions), low
    and high (95 % percentile bootstrap over clusters of blocks that share a text, missing for a single cluster), and
    the mean of each baseline. With distractors, the rows pair_top_1, pair_top_5 and pair_top_10 count as Koziev's
    nn_relevancy_tripleloss does: each pair of a right premise and a question, that premise alone among the distractors.

    `answers` has the columns block (from 1), question, chosen (the nearest premise), result (right, wrong), score, rank
    (of the nearest right premise), right (that premise) and right_score.
    """

    scores: pd.DataFrame
    answers: pd.DataFrame


def evaluate_questions(model: Model, blocks: list[QuestionBlock], distractors: Sequence[str] = ()) -> Evaluation:
    """
    Measure how often a model finds a premise of a question's block among the premises of the file and distractors.

    It ranks by its head, or by cosine. Texts of the same words are one text; a question in several blocks has the
    premises of all of them. Ties count against the model.
    """
    texts = [text for block in blocks for text in (*block.premises, *block.questions)] + list(distractors)
    phrases, numbers = index_phrases(texts, model.config.max_tokens, model.split)
    number_of = dict(zip(texts, numbers.tolist(), strict=True))
    asked = np.array([number_of[question] for block in blocks for question in block.questions])
    pairs = np.array(
        [(number_of[q], number_of[t]) for block in blocks for q in block.questions for t in block.premises]
    )
    foils = np.array([number_of[text] for text in distractors if number_of[text] >= 0], int)  # others have no word
    queries, candidates = np.unique(pairs[:, 0]), np.union1d(pairs[:, 1], foils)
    places = np.stack([np.searchsorted(queries, pairs[:, 0]), np.searchsorted(candidates, pairs[:, 1])], axis=1)
    search = Search(queries, candidates, np.unique(places, axis=0), NO_PAIRS)
    vectors = torch.from_numpy(model.encode(phrases.texts))
    likeness = {"mean": _by_model(model, vectors[queries], vectors[candidates])}
    likeness |= text_likeness(*([phrases.texts[number] for number in side] for side in (queries, candidates)))

    query, cluster = np.searchsorted(queries, asked), relevance_clusters(pairs, len(phrases))
    ranks = {name: ranks_by(one, search)[query] for name, one in likeness.items()}
    scores = _tabulate(ranks, cluster[asked])
    if len(foils):
        one_by_one = _pair_by_pair(search, places)
        is_foil = torch.from_numpy(np.isin(candidates, foils))
        ranks_of_pairs = {name: ranks_by(_alone(one, places, is_foil), one_by_one) for name, one in likeness.items()}
        of_pairs = _tabulate(ranks_of_pairs, cluster[pairs[:, 0]]).drop("mean_reciprocal_rank")
        scores = pd.concat([scores, of_pairs.rename("pair_{}".format)])

    right, other = (candidates[found[query]] for found in nearest_by(likeness["mean"], search))
    is_right = ranks["mean"] == 1
    chosen = np.where(is_right, right, other)
    answers = pd.DataFrame(
        {
            "block": [number for number, block in enumerate(blocks, 1) for _ in block.questions],
            "question": [question for block in blocks for question in block.questions],
            "chosen": [phrases.texts[number] for number in chosen],
            "result": np.where(is_right, "right", "wrong"),
            "score": model.score(vectors[asked], vectors[chosen]).numpy(),
            "rank": ranks["mean"],
            "right": [phrases.texts[number] for number in right],
            "right_score": model.score(vectors[asked], vectors[right]).numpy(),
        }
    )
    return Evaluation(scores, answers)


def _by_model(
    model: Model, queries: Float32[Tensor, "query dim"], candidates: Float32[Tensor, "candidate dim"]
) -> Likeness:
    head = model.head
    if head is None:
        return nearness(F.normalize(queries), F.normalize(candidates))
    unique, place = candidates.unique(dim=0, return_inverse=True)  # so that equal ones tie
    return lambda rows: score_all(head, queries[rows], unique).double()[:, place]


def _tabulate(ranks: Mapping[str, Ranks], cluster: Int32[np.ndarray, " query"]) -> pd.DataFrame:
    """Return the scores of the model's ranks with their interval, and those of the others."""
    mean, *others = ranks
    found = {name: with_interval(values, cluster) for name, values in scores_by_query(ranks[mean]).items()}
    table = pd.DataFrame.from_dict(found, orient="index", columns=["mean", "low", "high"])
    return table.assign(**{name: scores_of(ranks[name]) for name in others})


def _pair_by_pair(search: Search, places: Pairs) -> Search:
    """Return a search with a query for every pair, to which the same candidates are relevant as to the pair's query."""
    by_query = pd.DataFrame(search.relevant, columns=["query", "candidate"])
    of_pair = pd.DataFrame({"pair": np.arange(len(places)), "query": places[:, 0]})
    relevant = of_pair.merge(by_query, on="query")[["pair", "candidate"]].to_numpy()
    return Search(np.arange(len(places)), search.candidates, relevant, NO_PAIRS)


def _alone(likeness: Likeness, places: Pairs, is_foil: Bool[Tensor, " candidate"]) -> Likeness:
    """Return what compares each pair's query with the pair's candidate and the distractors only."""

    def compare(rows: slice | Int[np.ndarray, " query"]) -> Float64[Tensor, "query candidate"]:
        query, candidate = places[rows].T
        scores, mine = likeness(query), torch.from_numpy(candidate)[:, None]
        return scores.masked_fill(~is_foil, -torch.inf).scatter(1, mine, scores.gather(1, mine))

    return compare
