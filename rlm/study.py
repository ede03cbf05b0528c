"""A study: arms x seeds over one dataset and one config, run in blocks of seeds on all cores, or on a cluster."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from torch import nn

from rlm.arms import check_transfer, encoder_maker, seeds_that_fit, train_arms
from rlm.config import DEFAULT_SEEDS, READ_AS_IT_IS, REDRAW, YOUR_TABLE, MetricName, StudyConfig
from rlm.data.corpus import Corpus, Texts
from rlm.data.datasets import load_corpus
from rlm.evaluation.held_out import judge_block
from rlm.experiment import FROM_SCRATCH, check_request, collect, iter_experiment, make_rules
from rlm.runtime.device import resolve_config, resolve_device
from rlm.runtime.results import Table, join
from rlm.slicer import Slices, pad_slices, slice_for
from rlm.stats.metrics import SAME_WITHIN
from rlm.store.identity import Identity, digest_file, digest_module, identify, read_source
from rlm.store.read import TRIPLETS

log = logging.getLogger(__name__)
LARGEST_BLOCK_ON_GPU = 64  # then a study has results, and can stop, before its end
LARGEST_BLOCK = 10  # more seeds together are no faster on a CPU core, and make the last process wait longer
MOST_TABLE_BYTES = 2**29  # of the token tables of a block whose seeds have a split each
_RUN = {"arm": str, "seed": int}
_EPOCH = {**_RUN, "epoch": int}


class BlockResult(NamedTuple):
    """
    What a study, or a block of its seeds, gave.

    Attributes
    ----------
    results
        One row per arm and seed, see `rlm.run_study`.
    clusters
        One row per arm, seed and cluster of the test split: cluster (its number there), triplets, test_accuracy.
    history
        One row per arm, seed and epoch of fine-tuning: arm and the columns of the history of `rlm.finetune`.
    pretraining
        One row per arm, seed and epoch of pre-training: arm and the columns of the history of `rlm.pretrain`.
    """

    results: pd.DataFrame
    clusters: pd.DataFrame
    history: pd.DataFrame
    pretraining: pd.DataFrame

    TASK = TRIPLETS
    TABLES = {  # noqa: RUF012 - an annotation would make it a field
        "results": Table(
            _RUN,
            dict.fromkeys(["validation_accuracy", *get_args(MetricName)], float)
            | {"best_epoch": int, "epochs": int, "start_change": float, "seconds": float, "split": str}
            | dict.fromkeys(["train_triplets", "test_triplets", "test_anchors", "test_clusters"], int),
        ),
        "clusters": Table({**_RUN, "cluster": int}, {"triplets": int, "test_accuracy": float}),
        "history": Table(_EPOCH, {"loss": float, "validation_accuracy": float}),
        "pretraining": Table(_EPOCH, dict.fromkeys(["loss", "seen_accuracy", "unseen_accuracy", "spread"], float)),
    }


RESULTS = [*BlockResult.TABLES["results"].keys, *BlockResult.TABLES["results"].values]


@dataclass(frozen=True)
class TripletStudy:
    """The experiment of `rlm.run_study`, see `rlm.experiment.Experiment`."""

    config: StudyConfig
    corpus: Corpus
    make_encoder: Callable[[int], nn.Module] | None = None
    result: ClassVar = BlockResult
    baseline, metric, failure = FROM_SCRATCH

    @property
    def arms(self) -> Sequence[str]:
        return self.config.arms

    @cached_property
    def device(self) -> torch.device:
        return resolve_device(self.config.device)

    @cached_property
    def resolved(self) -> StudyConfig:
        """The config by which all workers train."""
        return resolve_config(self.config)

    @property
    def largest_block(self) -> int:
        if self.device.type != "cpu":
            return min(LARGEST_BLOCK_ON_GPU, seeds_that_fit(self.config, self.corpus, self.device))
        tables = 2 * self.corpus.phrases.tokens.nbytes if self.config.split == "per_seed" else 0
        return min(LARGEST_BLOCK, max(1, MOST_TABLE_BYTES // max(1, tables)))

    def identify(self) -> Identity:
        config, make = self.config, self.make_encoder
        settings = config.model_dump_json(exclude={"arms"})
        source = None if make is None else read_source(make)
        more = [] if make is None else [digest_module(lambda: make(len(self.corpus.phrases.words) + 2))]
        paths = config.word_vectors, config.character_vectors
        more += [digest_file(Path(path), "word vectors") for path in paths if path is not None]
        if self.corpus.labelled is not None:
            more.append(self.corpus.fingerprint)
        return identify(TRIPLETS, settings, self.corpus.labelled or self.corpus.fingerprint, source, *more)

    def check(self, seeds: Sequence[int]) -> None:
        first = slice_for(self.config, self.corpus, seeds)[0]
        if first.texts is not None:
            log.info("pre-training draws from %s", first.explain_texts())
        if self.config.split_by == "triplet":
            leaked = np.isin(first.test, first.train).any(axis=1).mean()
            log.warning(
                "split_by triplet: %.0f %% of the test triplets have a phrase of the training triplets", 100 * leaked
            )
        if self.config.transfer is not None:
            make = encoder_maker(self.config, self.corpus.phrases, self.make_encoder)
            check_transfer(make(), self.config.transfer, self.config.encoder)

    def start_of(self, arm: str) -> str | None:
        return REDRAW.get(arm)

    def run_block(self, arms: Sequence[str], seeds: Sequence[int]) -> BlockResult:
        return run_block(self.resolved, self.corpus, arms, seeds, self.make_encoder)


def run_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    data: pd.DataFrame | None = None,
    pretrain_texts: Texts | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    db: Path | str | None = None,
    until: float | None = None,
    metric: str = "test_accuracy",
    look_every: int | None = None,
    watched: bool = False,
    same_within: float = SAME_WITHIN,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> pd.DataFrame:
    """
    Train every arm with every seed.

    Interrupted (Ctrl-C, or the stop button of a notebook), it returns the blocks that are finished, with a warning.

    Parameters
    ----------
    config
        What to study.
    seeds
        A number of seeds, counted from 0, or the seeds.
    data
        Text pairs or triplets, see `rlm.index_corpus`; by default those of ``config.dataset``. The store calls them by
        that name if it is no dataset that can be loaded, else ``"data"``.
    pretrain_texts
        Unlabelled texts: a column of a table, or a list; loaded by ``config.pretrain_texts`` by default. The arms with
        pre-training and their controls know the words of these texts, too.
    make_encoder
        Makes your own encoder from the size of the vocabulary, see `rlm.zoo.LSTMEncoder.forward`; by default the one
        that the config names.
    db
        SQLite file that keeps every finished block. What it holds of this study is not trained again, so a study that
        was stopped, killed or extended continues. Another config except for its arms, other data, another encoder or
        another version of rlm or PyTorch make another study.
    until
        Stop when the confidence sequence of every arm's difference to scratch is narrower than this (0.02 is two
        points). A verdict on the results is then one of a watched study, see `rlm.compare`.
    metric
        Column that the verdict is meant for, and that `until` and the looks judge; the first start fixes it, too.
    look_every
        Number of seeds, 10 or more, between planned looks; the study stops as soon as every arm is decided. Such looks
        cost far less than looking at any time.
    watched
        Whether somebody looks at results as they arrive, and might stop for what they show. The store notes it.
    same_within
        Largest difference that a verdict calls the same; 0.01 is a point. The first start of a stored study fixes it.
    block_size
        Most seeds to train together, by default as many as is fastest. Fewer arrive sooner and need less memory.
    n_jobs
        Processes, of one thread each where they fill the machine; -1 for one per core. Inside
        ``joblib.parallel_config(backend="dask")``, or another cluster's, its workers instead.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per arm and seed: arm, seed, validation_accuracy (at the best epoch, which early stopping chose),
        test_accuracy (triplets that no choice ever saw), roc_auc and those of retrieval (of the test split too, by
        distance: see `rlm.evaluation.roc` and, with at most 20,000 queries, `retrieve`), best_epoch, epochs (run),
        start_change (largest change of a weight matrix by pre-training or control, as a share of its norm), seconds
        (wall time of its block, pre-training and compilation included, over the block's runs), split, train_triplets,
        test_triplets, test_anchors, test_clusters. A seed that diverged (its loss was not finite) has no test metrics,
        and best_epoch 0. Its ``attrs`` are ``"metric"``, ``"same_within"`` and ``"watched"``, which is True if the
        study was watched, was to stop by its results, was extended or was interrupted, see `rlm.compare`.

    Raises
    ------
    InputError
        If seeds, rules to stop by, data or store cannot be used; or if a process was killed, or memory ran out: then
        the store keeps what was finished.
    KeyboardInterrupt
        If interrupted before any block is finished.

    Examples
    --------
    >>> import rlm
    >>> config = rlm.StudyConfig(encoder="mean", pretrain_epochs=1, max_epochs=1)
    >>> results = rlm.run_study(config, seeds=2, n_jobs=1, progress=False)
    >>> results.groupby("arm", sort=False)["test_accuracy"].count().to_dict()
    {'scratch': 2, 'pretrained': 2}
    """
    given = {"data": data, "pretrain_texts": pretrain_texts, "make_encoder": make_encoder, "db": db, "until": until}
    given |= {"look_every": look_every, "watched": watched, "same_within": same_within, "metric": metric}
    settings = given | {"block_size": block_size, "n_jobs": n_jobs, "progress": progress}
    found, _ = collect(iter_study(config, seeds, **settings), config.arms)
    return found.results


def iter_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    data: pd.DataFrame | None = None,
    pretrain_texts: Texts | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    db: Path | str | None = None,
    until: float | None = None,
    metric: str = "test_accuracy",
    look_every: int | None = None,
    watched: bool = False,
    same_within: float = SAME_WITHIN,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[BlockResult]:
    """
    Run a study block by block.

    Parameters
    ----------
    config, seeds, data, pretrain_texts, make_encoder, db, until, metric, look_every, watched, same_within
        As in `run_study`.
    block_size, n_jobs, progress
        As in `run_study`.

    Yields
    ------
    BlockResult
        What the store has of it already, if anything; then each block as it is finished, in no particular order.

    Raises
    ------
    InputError
        As in `run_study`.

    Examples
    --------
    >>> import rlm
    >>> config = rlm.StudyConfig(encoder="mean", arms=("scratch",), max_epochs=1)
    >>> blocks = rlm.iter_study(config, seeds=4, block_size=2, n_jobs=1, progress=False)
    >>> [block.results["seed"].tolist() for block in blocks]
    [[0, 1], [2, 3]]
    """
    rules = make_rules(seeds, until, look_every, watched, same_within, metric)
    seeds = check_request(seeds, config.arms, db, rules, block_size)
    if data is not None:  # what the config says of other data is not true of these
        name = config.dataset
        is_another = name == "pqa" or name.startswith("chatterbot-") or os.path.exists(name)  # noqa: PTH110
        config = config.model_copy(update={"dataset": YOUR_TABLE if is_another else name, "reading": READ_AS_IT_IS})
    if pretrain_texts is not None:
        config = config.model_copy(update={"pretrain_texts": YOUR_TABLE, "pretrain_reading": READ_AS_IT_IS})
    resolve_device(config.device)
    corpus = load_corpus(config, data, pretrain_texts)
    if len(corpus.dropped):
        log.info("dropped from the data: %s", corpus.explain_dropped())
        if data is not None and (corpus.dropped["reason"] != "repeated").any():
            warnings.warn(f"dropped from the data: {corpus.explain_dropped()}", stacklevel=2)
    if unused := corpus.explain_unused():
        log.warning(unused)
    settings = {"db": db, "rules": rules, "block_size": block_size, "n_jobs": n_jobs, "progress": progress}
    yield from iter_experiment(TripletStudy(config, corpus, make_encoder), seeds, **settings)


def prepare(config: StudyConfig, seed: int = 0) -> Slices:
    """
    Load and slice the data of a study for one seed.

    Parameters
    ----------
    config
        Names the data, and how to read and split them.
    seed
        Seed of the split where every seed has its own; a fixed split is the same for all seeds.

    Returns
    -------
    Slices
        Splits, and the components that random triplets are drawn from.

    Raises
    ------
    InputError
        If the data cannot be read or sliced.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.prepare(rlm.StudyConfig(dataset="chatterbot-english"))
    >>> slices.train.shape[1]
    3
    """
    (slices,) = slice_for(config, load_corpus(config), [seed])
    return slices


def run_block(
    config: StudyConfig,
    corpus: Corpus,
    arms: Sequence[str],
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
) -> BlockResult:
    """Train one block of seeds under arms that share a pre-training, from initialisation to test accuracy."""
    start = time.perf_counter()
    slices = slice_for(config, corpus, seeds)
    blocks = []
    for arm, trained in zip(arms, train_arms(config, slices, arms, seeds, make_encoder), strict=True):
        padded = pad_slices(trained.slices, config.final_padding)
        results, clusters = judge_block(trained.block, padded, corpus, trained.history)
        results = results.assign(split=config.split, start_change=trained.start_change)
        history = trained.history.drop(columns="validation_loss", errors="ignore")
        blocks.append(BlockResult(*(one.assign(arm=arm) for one in (results, clusters, history, trained.pretraining))))
    joined = join(blocks, arms)
    seconds = (time.perf_counter() - start) / len(joined.results)
    return joined._replace(results=joined.results.assign(seconds=seconds)[RESULTS])
