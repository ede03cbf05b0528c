"""The arms of a study, from initial to trained weights."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import nn

from rlm.block import Block, init_block, running_statistics
from rlm.config import StudyConfig
from rlm.data.corpus import Corpus
from rlm.data.phrases import Phrases
from rlm.data.word_vectors import read_vectors
from rlm.engine.starts import NO_STARTS, Starts, begin
from rlm.errors import InputError
from rlm.runtime.device import resolve_device
from rlm.slicer import Slices, pad_slices
from rlm.training import finetune, train_on_random
from rlm.variants import REDRAW
from rlm.zoo.encoders import new_encoder
from rlm.zoo.losses import LOSSES


class Trained(NamedTuple):
    """
    A block of seeds trained under one arm, each at its best epoch, and the histories of both trainings.

    `start_change` is the largest change of a weight matrix by the arm's start, as a share of its initial norm. `slices`
    are what the arm reads: after pre-training, the words of unlabelled texts, too.
    """

    block: Block
    history: pd.DataFrame
    pretraining: pd.DataFrame
    start_change: Float[np.ndarray, " seed"]
    slices: Sequence[Slices]


def train_arms(
    config: StudyConfig,
    slices: Sequence[Slices],
    arms: Sequence[str],
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
    progress: bool = False,
    starts: Starts = NO_STARTS,
    pretrain_epochs: Sequence[int] = (),
) -> Iterator[Trained]:
    """
    Initialise seeds, pre-train them unless the arm is scratch, and fine-tune each arm.

    The arms must share one pre-training, see `rlm.variants.REDRAW`, and share the initial weights: a seed's draws
    depend neither on the arm nor on the other seeds. `slices` has one item per seed; `make_encoder` and `starts` are
    those of `run_study`. `pretrain_epochs` has a number per arm, rising or equal and all or none of them 0.
    Controls read the words of unlabelled texts as the pre-trained arm does, so that the arms show what these words do.
    """
    initial = init_block(encoder_maker(config, slices[0].phrases, make_encoder), seeds).to(
        resolve_device(config.device)
    )
    pretrained, pretraining, trainer, stages = initial, pd.DataFrame(), None, iter(())
    (redraw,) = {REDRAW.get(arm) for arm in arms}
    if redraw is not None:
        epochs = pretrain_epochs or [config.pretrain_epochs] * len(arms)
        settings = {"epochs": epochs, "random_triplets": config.random_triplets, "redraw": redraw, "progress": progress}
        if epochs[0]:
            slices = [one.after_pretraining for one in slices]
        padded = pad_slices(slices, config.pretrain_padding or config.padding)
        stages = train_on_random(initial, padded, config, **settings)
    padded = pad_slices(slices, config.padding)
    for arm in arms:
        if redraw is not None:
            trainer, pretraining = next(stages)
            pretrained = trainer.block
        start = begin(arm, initial, pretrained, slices, starts)
        if config.transfer is not None:
            start = take_layers(initial, start, list_layers(initial.encoder)[: config.transfer])
        settings = {"max_epochs": config.max_epochs, "patience": config.patience, "stop_by": config.stop_by}
        after = trainer if config.keep_moments and start is pretrained else None
        trained = finetune(start, padded, config, **settings, after=after, progress=progress)
        yield Trained(*trained, pretraining, measure_change(initial, start), slices)


def list_layers(encoder: nn.Module) -> list[str]:
    """List the names of an encoder's layers: its modules with direct weights, in order; "" is the encoder itself."""
    known = [*dict(encoder.named_parameters()), *running_statistics(encoder)]
    owners = {name.rpartition(".")[0] for name in known}
    return [name for name, _ in encoder.named_modules() if name in owners]


def check_transfer(encoder: nn.Module, layers: int | None, name: str) -> None:
    """Raise InputError if an encoder has fewer layers than are to be transferred."""
    most = len(list_layers(encoder))
    if layers is not None and layers > most:
        raise InputError(f"expected to transfer at most {most} layers, which {name} has, found {layers}; give fewer")


def take_layers(initial: Block, start: Block, names: Sequence[str]) -> Block:
    """Give the named layers the weights of `start`; the others keep the initial ones."""
    weights = {
        name: (start.weights[name] if name.rpartition(".")[0] in names else weight).clone()
        for name, weight in initial.weights.items()
    }
    return dataclasses.replace(initial, weights=weights)


def encoder_maker(
    config: StudyConfig, phrases: Phrases, make_encoder: Callable[[int], nn.Module] | None = None
) -> Callable[[], nn.Module]:
    """Return a function that makes the encoder of a study, with newly drawn weights and the output step of its loss."""
    if make_encoder is not None:
        return partial(make_encoder, len(phrases.words) + 2)
    output = LOSSES[config.loss].output
    make = partial(new_encoder, config.encoder, phrases.words, config.word_dim, config.dim, output)
    own = {"layers": config.layers, "dropout": config.dropout}
    make = partial(make, initialisation=config.initialisation, **own)
    if config.word_vectors is None:
        return make
    paths = [path for path in (config.word_vectors, config.character_vectors) if path is not None]
    vectors = torch.from_numpy(np.hstack([read_vectors(Path(path), phrases.words) for path in paths]))
    if vectors.shape[1] != config.word_dim:
        raise InputError(
            f"expected word_dim {vectors.shape[1]}, the size of the vectors in {' and '.join(paths)}, found "
            f"{config.word_dim}; set it to that"
        )
    return partial(make, vectors=vectors, fixed=config.fixed_vectors)


def measure_change(initial: Block, start: Block) -> Float[np.ndarray, " seed"]:
    """Compute each seed's largest change of a weight matrix that is not 0, relative to its norm, biases apart."""
    changes = [np.zeros(len(start.seeds))]
    for name, before in initial.weights.items():
        if before.ndim > 2:
            moved, norm = (
                torch.linalg.vector_norm(some.flatten(1), dim=1) for some in (start.weights[name] - before, before)
            )
            share = torch.where(norm > 0, moved / norm, 0)  # a matrix that begins at zero has no relative change
            changes.append(share.nan_to_num(0).double().cpu().numpy())
    return np.max(changes, axis=0)


def seeds_that_fit(config: StudyConfig, corpus: Corpus, device: torch.device) -> int:
    """Return how many seeds half of the GPU's free memory holds."""
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, (free // 2 - corpus.phrases.tokens.nbytes) // bytes_per_seed(config, corpus))


def bytes_per_seed(config: StudyConfig, corpus: Corpus) -> int:
    """Estimate the memory that a seed of a block takes: weights, moments, gradients, activations, tables."""
    weights = len(corpus.phrases.words) * config.word_dim + 8 * config.dim * (config.word_dim + config.dim)
    positions = 3 * config.batch_size * int(corpus.phrases.lengths[0])
    floats = 6 * weights + positions * (config.word_dim + 16 * config.dim)
    table, texts = corpus.phrases.tokens.nbytes, 0 if corpus.texts is None else corpus.texts.nbytes
    more = 3 * texts + (table if config.split == "per_seed" else 0)
    return 4 * floats + more
