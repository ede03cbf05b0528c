"""A study: arms x seeds over one dataset and one config, run in blocks of seeds on all cores, or on a cluster."""

import logging
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from rlm.arms import check_transfer, encoder_maker, seeds_that_fit, train_arms
from rlm.config import DEFAULT_SEEDS, StudyConfig
from rlm.data.corpus import Corpus, Texts
from rlm.data.datasets import load_corpus, name_data
from rlm.engine.starts import NO_STARTS, Starts, check_starts, identify_starts
from rlm.errors import InputError
from rlm.evaluation.held_out import RESULTS, BlockResult, judge_block
from rlm.experiment import FROM_SCRATCH, check_request, collect, iter_experiment, make_rules
from rlm.models.kept import Keep, find_folder, keep_weights, save_runs
from rlm.runtime.device import resolve_config, resolve_device
from rlm.runtime.results import join
from rlm.slicer import pad_slices, slice_for
from rlm.stats.metrics import SAME_WITHIN
from rlm.store.identity import Identity, digest_file, digest_module, digest_values, identify, read_source
from rlm.store.read import TRIPLETS
from rlm.variants import BASELINE, REDRAW, find_arm, find_variant

log = logging.getLogger(__name__)
LARGEST_BLOCK_ON_GPU = 64  # then a study has results, and can stop, before its end
LARGEST_BLOCK = 10  # more seeds together are no faster on a CPU core, and make the last process wait longer
MOST_TABLE_BYTES = 2**29  # of the token tables of a block whose seeds have a split each
OF_ENCODER = ("encoder", "word_dim", "dim", "initialisation", "fixed_vectors")  # settings that only it reads


@dataclass(frozen=True)
class TripletStudy:
    """The experiment of `rlm.run_study`, see `rlm.experiment.Experiment`."""

    config: StudyConfig
    corpus: Corpus
    make_encoder: Callable[[int], nn.Module] | None = None
    starts: Starts = field(default_factory=dict)
    baseline: str = BASELINE
    weights: Path | None = None
    result: ClassVar = BlockResult
    metric, failure = FROM_SCRATCH[1:]

    @property
    def arms(self) -> Sequence[str]:
        return (*self.config.arms, *self.starts)

    @cached_property
    def device(self) -> torch.device:
        return resolve_device(self.config.device)

    @cached_property
    def configs(self) -> dict[str, StudyConfig]:
        """The config by which all workers train an arm."""
        return {arm: resolve_config(self.config.of(arm)) for arm in self.arms}

    @property
    def largest_block(self) -> int:
        if self.device.type != "cpu":
            fit = (seeds_that_fit(config, self.corpus, self.device) for config in self.configs.values())
            return min(LARGEST_BLOCK_ON_GPU, *fit)
        tables = 2 * self.corpus.phrases.tokens.nbytes if self.config.split == "per_seed" else 0
        return min(LARGEST_BLOCK, max(1, MOST_TABLE_BYTES // max(1, tables)))

    def identify(self) -> Identity:
        config, make = self.config, self.make_encoder
        settings = config.model_dump_json(exclude={"arms"})
        source = None if make is None else read_source(make)
        more = []
        if make is not None:
            more = [digest_module(lambda: make(len(self.corpus.phrases.words) + 2)), digest_values(make, "the encoder")]
        paths = config.word_vectors, config.character_vectors
        more += [digest_file(Path(path), "word vectors") for path in paths if path is not None]
        if self.corpus.labelled is not None:
            more.append(self.corpus.fingerprint)
        more += identify_starts(self.starts)
        return identify(TRIPLETS, settings, self.corpus.labelled or self.corpus.fingerprint, source, *more)

    def check(self, seeds: Sequence[int]) -> None:
        (first,) = slice_for(self.config, self.corpus, seeds[:1])  # each process makes those of its own seeds
        if first.texts is not None:
            log.info("pre-training draws from %s", first.explain_texts())
        if self.config.split_by == "triplet":
            leaked = np.isin(first.test, first.train).any(axis=1).mean()
            told = "split_by triplet: %.0f %% of the test triplets have a phrase of the training triplets"
            log.warning(told, 100 * leaked)
        make = partial(encoder_maker, phrases=self.corpus.phrases, make_encoder=self.make_encoder)
        for arm, config in self.configs.items():
            fixed = [name for name in find_variant(arm).changes if name in OF_ENCODER and self.make_encoder]
            if fixed:
                raise InputError(
                    f"expected an encoder of the package in the arm {arm}, found your own, which does not read "
                    f"{fixed[0]}; give another make_encoder to another study"
                )
            if config.transfer is not None:
                check_transfer(make(config)(), config.transfer, config.encoder)
        if self.starts:
            check_starts(self.config, make(self.config), first, self.starts)

    def start_of(self, arm: str) -> Hashable:
        variant = find_variant(arm)
        changes = variant.changes | {"pretrain_epochs": str(self.configs[arm].pretrain_epochs > 0)}
        return REDRAW.get(variant.start), tuple(sorted(changes.items()))

    def run_block(self, arms: Sequence[str], seeds: Sequence[int]) -> BlockResult:
        mine = {arm: self.configs[arm] for arm in arms}
        return run_block(mine, self.corpus, seeds, self.make_encoder, self.starts, self.weights)


def run_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    data: pd.DataFrame | None = None,
    pretrain_texts: Texts | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    starts: Starts = NO_STARTS,
    db: Path | str | None = None,
    until: float | None = None,
    metric: str = "test_accuracy",
    look_every: int | None = None,
    watched: bool = False,
    same_within: float = SAME_WITHIN,
    baseline: str = BASELINE,
    keep: Keep | None = None,
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
    starts
        More arms by name: a function ``start(block, slices)`` that returns a block, a model of `rlm.load_model`, a
        .safetensors file of a state dict, or ``("shuffled", name)``, a control of another start.
    db
        SQLite file that keeps every finished block. What it holds of this study is not trained again, so a study that
        was stopped, killed or extended continues. Another config except for its arms, other data, another encoder,
        other starts or another version of rlm or PyTorch make another study.
    until
        Stop when every arm's confidence sequence is narrower than this (0.02 is two points); a watched study.
    metric
        Column that the verdict is meant for, and that `until` and the looks judge; the first start fixes it, too.
    look_every
        Number of seeds, 10 or more, between planned looks; the study stops as soon as every arm is decided. Such looks
        cost far less than looking at any time.
    watched
        Whether somebody looks at results as they arrive, and might stop for what they show. The store notes it.
    same_within
        Largest difference that a verdict calls the same; 0.01 is a point. The first start of a stored study fixes it.
    baseline
        The arm that verdicts compare the others with. Another one at a later start makes a stored study a watched one.
    keep
        Save the model of every run (``"all"``), or of each arm's best seed by validation accuracy (``"best"``), for
        `rlm.load_model`: in a folder arm/seed of ``db.weights``, to which the processes of a cluster must write, too.
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
        collapsed (epoch since which all phrases are at one point, if any), start_change (largest change of a weight
        matrix by pre-training or control, as a share of its norm), seconds (wall time of its block, pre-training and
        compilation included, over its runs), split, train_triplets, test_triplets, test_anchors, test_clusters. A seed
        that diverged (its loss was not finite) has no test metrics, and best_epoch 0. A verdict reads its ``attrs``:
        metric, same_within, baseline, and watched, which is True if watched, extended, interrupted or to stop by it.

    Raises
    ------
    InputError
        If seeds, rules to stop by, data or store cannot be used, a process was killed, or memory ran out.
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
    given |= {"look_every": look_every, "watched": watched, "same_within": same_within, "baseline": baseline}
    given |= {"starts": starts, "metric": metric, "keep": keep}
    settings = given | {"block_size": block_size, "n_jobs": n_jobs, "progress": progress}
    found, _ = collect(iter_study(config, seeds, **settings), (*config.arms, *starts))
    return found.results


def iter_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    *,
    data: pd.DataFrame | None = None,
    pretrain_texts: Texts | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    starts: Starts = NO_STARTS,
    db: Path | str | None = None,
    until: float | None = None,
    metric: str = "test_accuracy",
    look_every: int | None = None,
    watched: bool = False,
    same_within: float = SAME_WITHIN,
    baseline: str = BASELINE,
    keep: Keep | None = None,
    block_size: int | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[BlockResult]:
    """
    Run a study block by block.

    Parameters
    ----------
    config, seeds, data, pretrain_texts, make_encoder, starts, db, until, metric, look_every
        As in `run_study`.
    watched, same_within, baseline, keep, block_size, n_jobs, progress
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
    arms = (*config.arms, *starts)
    rules, baseline = make_rules(seeds, until, look_every, watched, same_within, metric), find_arm(arms, baseline)
    seeds = check_request(seeds, arms, db, rules, block_size, baseline=baseline)
    config = name_data(config, data, pretrain_texts)
    resolve_device(config.device)
    corpus = load_corpus(config, data, pretrain_texts)
    if len(corpus.dropped):
        log.info("dropped from the data: %s", corpus.explain_dropped())
        if data is not None and (corpus.dropped["reason"] != "repeated").any():
            warnings.warn(f"dropped from the data: {corpus.explain_dropped()}", stacklevel=2)
    if unused := corpus.explain_unused():
        log.warning(unused)
    settings = {"db": db, "rules": rules, "block_size": block_size, "n_jobs": n_jobs, "progress": progress}
    study = TripletStudy(config, corpus, make_encoder, starts, baseline)
    if keep is not None:
        has_own = make_encoder is not None
        study = replace(study, weights=find_folder(db, study.identify().key, study.configs.values(), has_own))
    blocks = iter_experiment(study, seeds, **settings)
    yield from blocks if study.weights is None else keep_weights(blocks, study.weights, keep)


def run_block(
    configs: Mapping[str, StudyConfig],
    corpus: Corpus,
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
    starts: Starts = NO_STARTS,
    weights: Path | None = None,
) -> BlockResult:
    """Train seeds under arms whose configs differ in the epochs of a common pre-training, up to the test accuracy."""
    start = time.perf_counter()
    arms = sorted(configs, key=lambda arm: configs[arm].pretrain_epochs)
    epochs, config = [configs[arm].pretrain_epochs for arm in arms], configs[arms[0]]
    slices, kinds = slice_for(config, corpus, seeds), [find_variant(arm).start for arm in arms]
    blocks, training = [], train_arms(config, slices, kinds, seeds, make_encoder, starts=starts, pretrain_epochs=epochs)
    for arm, trained in zip(arms, training, strict=True):
        padded = pad_slices(trained.slices, config.final_padding)
        results, *judged = judge_block(trained.block, padded, corpus, trained.history)
        results = results.assign(arm=arm, split=config.split, start_change=trained.start_change)
        if weights is not None:
            save_runs(weights, trained.block, padded, configs[arm], results)
        history = trained.history.drop(columns="validation_loss", errors="ignore")
        blocks.append(BlockResult(*(one.assign(arm=arm) for one in (results, *judged, history, trained.pretraining))))
    joined = join(blocks, arms)
    seconds = (time.perf_counter() - start) / len(joined.results)
    return joined._replace(results=joined.results.assign(seconds=seconds)[RESULTS])
