"""A study: arms x seeds over one dataset and one config, run in blocks of seeds on all cores."""

import dataclasses
import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from rlm.block import init_block
from rlm.config import REDRAW, Arm, StudyConfig
from rlm.controls import rescale, shuffle
from rlm.corpus import Corpus, index_corpus
from rlm.datasets import load
from rlm.encoder import encoder_maker
from rlm.errors import InputError
from rlm.evaluation import embed, split_batch, triplet_accuracy
from rlm.slicer import Slices, slice_corpus
from rlm.training import finetune, pretrain

log = logging.getLogger(__name__)
LARGEST_BLOCK = 10  # more seeds together are no faster on a CPU core, and make the last process wait longer


class BlockResult(NamedTuple):
    """
    What one block of seeds of one arm gave.

    Attributes
    ----------
    results
        One row per seed, see `run_study`.
    history
        One row per seed and epoch of fine-tuning: arm and the columns of `finetune`'s history.
    pretraining
        One row per seed and epoch of pre-training: arm and the columns of `pretrain`'s history; empty for scratch.
    """

    results: pd.DataFrame
    history: pd.DataFrame
    pretraining: pd.DataFrame


def run_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = 30,
    *,
    data: pd.DataFrame | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
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
        Text pairs or triplets, see `rlm.index_corpus`; loaded by ``config.dataset`` by default.
    make_encoder
        Makes an encoder of your own from the size of the vocabulary, see `rlm.LSTMEncoder.forward`; the one that the
        config names by default.
    n_jobs
        Processes, of one thread each where they fill the machine; -1 for one per core.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per arm and seed: arm, seed, validation_accuracy (at the best epoch: what early stopping saw),
        test_accuracy (triplets that no choice ever saw), best_epoch, epochs (run), seconds (wall time of its block,
        pre-training included, over the block's seeds), split, test_triplets, test_anchors, test_components.

    Raises
    ------
    InputError
        If there are no seeds or a seed is negative or given twice, or the data cannot be read or sliced.
    KeyboardInterrupt
        If interrupted before any block is finished.
    """
    finished = []
    try:
        for block in iter_study(config, seeds, data=data, make_encoder=make_encoder, n_jobs=n_jobs, progress=progress):
            finished.append(block.results)
    except KeyboardInterrupt:
        if not finished:
            raise
        warnings.warn(f"interrupted: these are the {len(finished)} blocks of seeds that were finished", stacklevel=2)
    return tidy(pd.concat(finished), config)


def tidy(table: pd.DataFrame, config: StudyConfig) -> pd.DataFrame:
    """
    Bring the rows of finished blocks, which come in any order, into the order of arms and seeds.

    Parameters
    ----------
    table
        Results or histories of blocks, one after the other.
    config
        Gives the order of the arms.

    Returns
    -------
    pandas.DataFrame
        The same rows.
    """
    rank = {arm: number for number, arm in enumerate(config.arms)}
    keys = [key for key in ("arm", "seed", "epoch") if key in table]
    return table.sort_values(keys, key=lambda k: k.map(rank) if k.name == "arm" else k, ignore_index=True)


def iter_study(
    config: StudyConfig,
    seeds: int | Sequence[int] = 30,
    *,
    data: pd.DataFrame | None = None,
    make_encoder: Callable[[int], nn.Module] | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> Iterator[BlockResult]:
    """
    Run a study block by block.

    Parameters
    ----------
    config, seeds, data, make_encoder, n_jobs, progress
        As in `run_study`.

    Yields
    ------
    BlockResult
        Each block of seeds of each arm as it is finished, in no particular order.

    Raises
    ------
    InputError
        As in `run_study`.
    """
    seeds = list(range(seeds)) if isinstance(seeds, Integral) else list(seeds)
    is_seed = [isinstance(seed, Integral) and seed >= 0 for seed in seeds]
    if not seeds or not all(is_seed) or len(set(seeds)) < len(seeds):
        raise InputError(f"expected at least one seed, each once and none negative, found {seeds or 'none'}")
    if n_jobs == 0:
        raise InputError("expected a number of processes, or -1 for one per core, found 0 jobs; give another number")
    corpus = index_corpus(
        load(config.dataset, **config.reading.model_dump()) if data is None else data, config.max_tokens
    )
    if len(corpus.dropped):
        log.info("left out of the data: %s", corpus.explain_left_out())
        if data is not None and (corpus.dropped["reason"] != "repeated").any():
            warnings.warn(f"left out of the data: {corpus.explain_left_out()}", stacklevel=2)
    slices_of(config, corpus, seeds)  # data that cannot be sliced fails here, before any process starts
    device = _device(config)
    largest = LARGEST_BLOCK if device.type == "cpu" else _seeds_that_fit(config, corpus, device)
    blocks = [list(map(int, block)) for block in np.array_split(seeds, -(-len(seeds) // largest))]
    # Block by block, so that a study that is stopped early has pairs.
    tasks = [(arm, block) for block in blocks for arm in config.arms]
    processes = n_jobs if device.type == "cpu" else 1  # a GPU serves one process best
    run = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")
    with _interrupts_held():
        results = run(joblib.delayed(run_block)(config, corpus, arm, block, make_encoder) for arm, block in tasks)
    with tqdm(total=len(config.arms) * len(seeds), desc="study", unit="run", disable=not progress) as bar:
        for result in results:
            bar.update(len(result.results))
            yield result


def run_block(
    config: StudyConfig,
    corpus: Corpus,
    arm: Arm,
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
) -> BlockResult:
    """
    Train one block of seeds of one arm, from initialisation to test accuracy.

    Parameters
    ----------
    config
        What to study.
    corpus
        The indexed dataset.
    arm
        One arm.
    seeds
        Trained together; a seed's draws do not depend on which others are.
    make_encoder
        As in `run_study`.

    Returns
    -------
    BlockResult
        Results and history of these seeds.
    """
    start = time.perf_counter()
    slices = slices_of(config, corpus, seeds)
    names = ["loss", "margin", "mining", "learning_rate", "batch_size", "epoch_triplets", "batching", "optimizer"]
    shared = {name: getattr(config, name) for name in [*names, "precision", "compile"]} | {"progress": False}
    make = partial(make_encoder, slices[0].vocabulary_size) if make_encoder else encoder_maker(config, corpus.phrases)
    block = init_block(make, seeds).to(_device(config))
    pretraining = pd.DataFrame()
    if arm in REDRAW:
        initial = block
        block, pretraining = pretrain(
            initial,
            slices,
            epochs=config.pretrain_epochs,
            random_triplets=config.random_triplets,
            redraw=REDRAW[arm],
            **shared,
        )
    if arm == "rescaled":
        block = rescale(initial, block)
    elif arm == "shuffled":
        block = shuffle(block)
    block, history = finetune(block, slices, max_epochs=config.max_epochs, patience=config.patience, **shared)
    by_seed = history.groupby("seed")
    best = history.loc[by_seed["validation_accuracy"].idxmax()].set_index("seed").loc[list(seeds)]
    test_batch = split_batch(block, slices, "test")
    test = [one.summary.set_index("split").loc["test"] for one in slices]
    results = pd.DataFrame(
        {
            "arm": arm,
            "seed": list(seeds),
            "validation_accuracy": best["validation_accuracy"].to_numpy(),
            "test_accuracy": triplet_accuracy(embed(block, test_batch), test_batch),
            "best_epoch": best["epoch"].to_numpy(),
            "epochs": by_seed["epoch"].max().loc[list(seeds)].to_numpy(),
            "seconds": (time.perf_counter() - start) / len(seeds),
            "split": config.split,
            "test_triplets": [int(split["triplets"]) for split in test],
            "test_anchors": [int(split["anchors"]) for split in test],
            "test_components": [int(split["components"]) for split in test],
        }
    )
    return BlockResult(results, history.assign(arm=arm), pretraining.assign(arm=arm))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """
    Hold Ctrl-C back; processes and threads that are started meanwhile never see it.

    A terminal sends it to workers too. One that dies of it, perhaps while it is still being started, can leave the
    parent waiting for ever; it is the parent that ends them, in order.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def load_corpus(config: StudyConfig) -> Corpus:
    """
    Load the data of a study, by its config.

    Parameters
    ----------
    config
        Says what to load and how to read it.

    Returns
    -------
    Corpus
        As indices.
    """
    return index_corpus(load(config.dataset, **config.reading.model_dump()), config.max_tokens)


def slices_of(config: StudyConfig, corpus: Corpus, seeds: Sequence[int]) -> list[Slices]:
    """
    Slice the data of a study, by its config.

    Parameters
    ----------
    config
        Says how.
    corpus
        The data.
    seeds
        Of the study.

    Returns
    -------
    list of Slices
        One per seed; of a fixed split all the same.
    """
    names = ["fractions", "negatives", "negative_kinds"]
    settings = {name: getattr(config, name) for name in names}
    split_seeds = [config.split_seed] if config.split == "fixed" else seeds
    slices = [slice_corpus(corpus, seed, **settings) for seed in split_seeds]
    if config.keeps_unseen_words:
        slices = [dataclasses.replace(one, tokens=corpus.phrases.tokens) for one in slices]
    return slices * len(seeds) if config.split == "fixed" else slices


def _device(config: StudyConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a GPU for device 'cuda', found none that PyTorch can use; choose 'auto' or 'cpu'")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def _seeds_that_fit(config: StudyConfig, corpus: Corpus, device: torch.device) -> int:
    """How many seeds half of the GPU's free memory holds: weights, moments, gradients, and what a step keeps."""
    free, _ = torch.cuda.mem_get_info(device)
    weights = len(corpus.phrases.words) * config.word_dim + 8 * config.dim * (config.word_dim + config.dim)
    positions = 3 * config.batch_size * int(corpus.phrases.lengths[0])
    floats = 6 * weights + positions * (config.word_dim + 16 * config.dim)
    return max(1, free // (2 * 4 * floats))
