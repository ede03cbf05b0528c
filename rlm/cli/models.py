"""The commands that make and use a model: `rlm train`, `rlm query` and `rlm evaluate`."""

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from cyclopts import Parameter

from rlm.arms import train_arms
from rlm.cli.output import check_table_out, keep, show, write_table
from rlm.cli.settings import ConfigFile, Table, complete, read_table
from rlm.config import HeadName, StudyConfig
from rlm.data.phrases import tokenise
from rlm.data.textfiles import decode, printable
from rlm.engine.accuracy import embed
from rlm.engine.batches import split_batch
from rlm.errors import InputError
from rlm.evaluation.heads import head_accuracy, train_head
from rlm.evaluation.held_out import judge_history
from rlm.evaluation.retrieval import retrieve
from rlm.evaluation.triplets import evaluate as evaluate_triplets
from rlm.models.kept import check_savable
from rlm.models.model import Model, check_place, load_model
from rlm.models.questions import evaluate_questions, read_questions
from rlm.models.search import Index, Method
from rlm.runtime.device import resolve_config
from rlm.slicer import pad_slices
from rlm.study import load_corpus, slice_for
from rlm.variants import Arm, parse_arm

log = logging.getLogger(__name__)
MOST_UNKNOWN = 0.2  # share of unknown words beyond which scores deserve a warning
MISSED_SHOWN = 20


class TrainConfig(StudyConfig):
    """The config of a study of one arm."""

    arms: Annotated[tuple[Arm, ...], Parameter(parse=False)] = ("scratch",)


def train(
    *,
    save: Path,
    config: Annotated[TrainConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = TrainConfig(),  # noqa: B008
    arm: Arm | str = "scratch",
    head: HeadName | None = None,
    seed: int = 0,
    overwrite: bool = False,
    config_file: ConfigFile = None,
    triplets: Path | None = None,
    table: Table = None,
) -> None:
    """
    Train one seed of one arm as a study does, print how it does on the test split, and save the model.

    Parameters
    ----------
    save
        New folder for the model.
    config
        What to train and how.
    arm
        Way to reach the weights that fine-tuning starts from; with other settings as "wide: pretrained, dim=128".
    head
        Similarity to learn on top of the finished embeddings; ``rlm query`` and ``rlm evaluate`` then take it in place
        of the cosine. It is trained with the epochs, patience, learning rate and batch size of fine-tuning.
    seed
        Seed of all random draws.
    overwrite
        Replace the model that is there.
    config_file
        JSON file of settings, as the panel exports it; other options override it.
    triplets
        JSON file for the texts of the validation triplets.
    table
        Parquet file of text pairs or triplets that are not a named dataset.
    """
    if seed < 0:
        raise InputError(f"expected --seed of at least 0, found {seed}")
    check_place(save, overwrite)
    try:
        parse_arm(arm)
    except InputError as error:
        raise InputError(f"--arm: {error}") from error
    study = StudyConfig(**dict(complete(config, config_file)) | {"arms": (arm,)}).of(arm)
    check_savable(study)
    corpus = load_corpus(study, read_table(table))
    if len(corpus.dropped):
        log.info("dropped from the data: %s", corpus.explain_dropped())
    if unused := corpus.explain_unused():
        log.warning(unused)
    slices = slice_for(study, corpus, [seed])
    if slices[0].texts is not None:
        log.info("pre-training draws from %s", slices[0].explain_texts())
    if triplets is not None:
        texts = pd.DataFrame(slices[0].validation, columns=["anchor", "positive", "negative"])
        texts.map(slices[0].phrases.texts.__getitem__).to_json(triplets, orient="records")
    (trained,) = train_arms(resolve_config(study), slices, study.arms, [seed], progress=True)
    slices = pad_slices(trained.slices, study.final_padding)
    heads, history, histories = None, trained.history, [trained.history]
    if head is not None:
        settings = {name: getattr(study, name) for name in ("max_epochs", "patience", "learning_rate", "batch_size")}
        heads, history = train_head(trained.block, slices, head, **settings)
        histories.append(history)
    if not all(np.isfinite(history["loss"][1:]).all() for history in histories):
        raise InputError(f"expected a finite loss, found none: seed {seed} diverged; lower --learning-rate")
    Model.of(trained.block, slices[0], study, heads=heads).save(save, overwrite)
    (best,) = judge_history(trained.history, [seed]).to_dict("records")
    test = evaluate_triplets(trained.block, slices).merge(retrieve(trained.block, slices, corpus, similarity="cosine"))
    print(f"{study.dataset}, encoder {study.encoder}, arm {arm}: one seed, {seed}, which tells nothing about others\n")
    print(f"best epoch {best['best_epoch']}, validation accuracy {best['validation_accuracy']:.3f}\n")
    if not best["best_epoch"]:
        log.warning("no epoch was better than epoch 0: the saved model is not fine-tuned; train longer")
    print("test split: triplets and their pairs by distance, retrieval by cosine")
    keep("test", test)
    print(test.drop(columns="seed").astype(object).T.to_string(header=False, float_format="{:.3f}".format))
    if heads is not None:
        best, batch = history.loc[history["validation_accuracy"].idxmax()], split_batch(trained.block, slices, "test")
        accuracy = head_accuracy(heads, embed(trained.block, batch), batch).item()
        print(
            f"\nhead {head}: best epoch {best['epoch']:.0f}, validation accuracy {best['validation_accuracy']:.3f}, "
            f"test triplet accuracy {accuracy:.3f}"
        )
    print(f"\nmodel: {save}")


def query(
    model: Path,
    /,
    *,
    premises: Path,
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 10,
    method: Method | None = None,
    encoding: str | None = None,
) -> None:
    """
    Print the premises nearest to each question, with their cosines, or with the scores of the model's head.

    Questions come from the terminal, or one per line from a pipe.

    Parameters
    ----------
    model
        Folder that ``rlm train --save`` wrote.
    premises
        Text file, one premise per line.
    k
        How many premises to print.
    method
        exact, or approximate through faiss: ivf, hnsw, lsh; by default ivf beyond 100,000 premises.
    encoding
        Encoding of the premises, such as cp1251; detected by default.
    """
    if k < 1:
        raise InputError(f"expected -k of at least 1, found {k}")
    if sys.stdin is None:
        raise InputError("expected questions from the terminal or a pipe, found standard input closed; open it")
    encoder = load_model(model)
    texts = _read_premises(premises, encoding)
    index = Index(encoder.encode(texts), method, encoder.head)
    by = "" if encoder.head is None else f", scores of the head {encoder.head_name}"
    log.info("%s premises, search: %s%s", f"{index.count:,}", index.method, by)
    for question in _questions():
        if not encoder.knows(question):
            log.warning(
                "expected a question with a word that the model knows, found %r; use other words", printable(question)
            )
            continue
        similarity, row = index.search(encoder.encode([question]), k)
        print(printable(question))
        for cosine, place in zip(similarity[0], row[0], strict=True):
            if place >= 0:
                print(f"{cosine:8.3f}  {printable(texts[place])}")
        print(flush=True)


def evaluate(
    model: Path, file: Path, /, *, premises: Path | None = None, out: Path | None = None, encoding: str | None = None
) -> None:
    """
    Print how often a model finds a right premise of a question as the first, or among the first 5 or 10.

    Trigram overlap and TF-IDF, which are not trained, are judged on the same candidates.

    Parameters
    ----------
    model
        Folder that ``rlm train --save`` wrote.
    file
        Blocks of lines T: premise, then lines Q: question, as ``--layout blocks`` reads them; any premise of a block is
        right for any of its questions.
    premises
        Text file of distractors, one premise per line: more candidates, which are wrong unless the block has them too.
    out
        File ending in .csv, .json, .md, .parquet, .tex or .tsv for one row per question: the chosen premise, right or
        wrong.
    encoding
        Encoding of the files, such as cp1251; detected by default.
    """
    check_table_out(out)
    encoder = load_model(model)
    blocks = read_questions(file, encoding)
    distractors = [] if premises is None else _read_premises(premises, encoding)
    found = evaluate_questions(encoder, blocks, distractors)
    unknown = encoder.unknown_share(dict.fromkeys(text for block in blocks for part in block for text in part))
    pairs = sum(len(block.premises) * len(block.questions) for block in blocks)
    different = len({text for block in blocks for text in block.premises})
    print(
        f"{file}: {len(found.answers):,} questions in {len(blocks):,} blocks, {different:,} different premises, "
        f"{pairs:,} pairs, {len(distractors):,} distractors; {unknown:.0%} of the words are unknown to the model"
    )
    if unknown > MOST_UNKNOWN:
        log.warning(
            "%.0f %% of the words of the questions and premises are unknown to the model; train it on data that have "
            "them%s",
            100 * unknown,
            "" if encoder.config.encoder == "dssm" else ", or use --encoder dssm, which reads the letters of any word",
        )
    print(f"by {encoder.head_name or 'cosine'}, with two baselines on the same candidates")
    print("mean over questions with its 95 % interval over blocks\n")
    show("scores", found.scores, na_rep="nan")
    if distractors:
        print("pair_: over pairs, each right premise alone among the distractors")
    missed = found.answers[found.answers["result"] == "wrong"]
    print(f"\nmissed: {len(missed):,} of {len(found.answers):,} questions")
    for one in missed.head(MISSED_SHOWN).itertuples():
        print(f"{printable(one.question)}\n{one.score:8.3f}  {printable(one.chosen)}")
        print(f"{one.right_score:8.3f}  {printable(one.right)} (right, rank {one.rank:,})")
    if len(missed) > MISSED_SHOWN:
        print(f"... and {len(missed) - MISSED_SHOWN:,} more{'; --out FILE.csv lists all' if out is None else ''}")
    if out is not None:
        write_table(out, found.answers)
        print(f"\nanswers: {out}")


def _read_premises(path: Path, encoding: str | None) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file with one premise per line, found none; check the path")
    try:
        lines = decode(path, encoding, lambda text: list(dict.fromkeys(line.strip() for line in text)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    texts = [line for line in lines if tokenise(line)]
    if not texts:
        raise InputError(f"{path}: expected one premise per line, found no line with a word; give at least one")
    return texts


def _questions() -> Iterator[str]:
    if not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        yield from filter(None, map(str.strip, sys.stdin))
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            yield input("question: ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
