"""The arms of a study, from initial to trained weights; and the controls, which destroy what pre-training learned."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from rlm.block import Block, init_block
from rlm.config import REDRAW, Arm, StudyConfig
from rlm.data.phrases import Phrases
from rlm.data.word_vectors import read_vectors
from rlm.errors import InputError
from rlm.runtime.device import resolve_device
from rlm.seeding import stream
from rlm.slicer import Slices
from rlm.training import finetune, pretrain
from rlm.zoo.encoders import new_encoder
from rlm.zoo.losses import LOSSES


class Trained(NamedTuple):
    """A block of seeds trained under one arm, each at its best epoch; the histories of both trainings; what it read."""

    block: Block
    history: pd.DataFrame
    pretraining: pd.DataFrame
    slices: Sequence[Slices]


def train_arms(
    config: StudyConfig,
    slices: Sequence[Slices],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
    progress: bool = False,
) -> Iterator[Trained]:
    """
    Initialise seeds, pre-train them unless the arm is scratch, and fine-tune each arm.

    The arms must share one pre-training, see `rlm.config.REDRAW`, and so do the initial weights: a seed's draws depend
    neither on the arm nor on the other seeds. `slices` has one item per seed; `make_encoder` is that of `run_study`.
    Controls read the words of unlabelled texts as the pre-trained arm does, so that the arms show what these words do.
    """
    if make_encoder is None:
        make = encoder_maker(config, slices[0].phrases)
    else:
        make = partial(make_encoder, slices[0].vocabulary_size)
    initial = init_block(make, seeds).to(resolve_device(config.device))
    pretrained, pretraining = initial, pd.DataFrame()
    (redraw,) = {REDRAW.get(arm) for arm in arms}
    if redraw is not None:
        settings = {"epochs": config.pretrain_epochs, "random_triplets": config.random_triplets, "redraw": redraw}
        pretrained, pretraining = pretrain(initial, slices, config, **settings, progress=progress)
        if config.pretrain_epochs:
            slices = [one.after_pretraining for one in slices]
    for arm in arms:
        start = STARTS[arm](initial, pretrained) if arm in STARTS else pretrained
        settings = {"max_epochs": config.max_epochs, "patience": config.patience, "progress": progress}
        yield Trained(*finetune(start, slices, config, **settings), pretraining, slices)


def encoder_maker(config: StudyConfig, phrases: Phrases) -> Callable[[], nn.Module]:
    """Return a function that makes the encoder of a study, with the output step of its loss and newly drawn weights."""
    output = LOSSES[config.loss].output
    make = partial(new_encoder, config.encoder, phrases.words, config.word_dim, config.dim, output)
    if config.word_vectors is None:
        return make
    vectors = torch.from_numpy(read_vectors(Path(config.word_vectors), phrases.words))
    if vectors.shape[1] != config.word_dim:
        raise InputError(
            f"expected word_dim {vectors.shape[1]}, the size of the vectors in {config.word_vectors}, found "
            f"{config.word_dim}; set it to that"
        )
    return partial(make, vectors, config.fixed_vectors)


def rescale(initial: Block, pretrained: Block) -> Block:
    """
    Give initial weights the mean and standard deviation of the pre-trained ones, tensor by tensor.

    This keeps what pre-training gains by the scale of the weights alone; see Maennel et al., "What do neural networks
    learn when trained with random labels?", NeurIPS 2020, arXiv 2006.10455, section 3. A tensor that pre-training did
    not change, or whose initial values are all equal, is the pre-trained one.
    """
    weights = {}
    for name, after in pretrained.weights.items():
        before = initial.weights[name].flatten(1).double()
        spread = before.std(dim=1, correction=0, keepdim=True)
        wanted = after.flatten(1).double()
        standard = (before - before.mean(dim=1, keepdim=True)) / spread.clamp(min=torch.finfo(torch.float64).tiny)
        moved = standard * wanted.std(dim=1, correction=0, keepdim=True) + wanted.mean(dim=1, keepdim=True)
        is_kept = (spread == 0) | (before == wanted).all(dim=1, keepdim=True)
        weights[name] = torch.where(is_kept, wanted, moved).view_as(after).to(after.dtype)
    return dataclasses.replace(pretrained, weights=weights)


def shuffle(pretrained: Block) -> Block:
    """Put pre-trained weights in random order inside each tensor, by the stream ``shuffle`` of each seed."""
    weights = {name: weight.clone() for name, weight in pretrained.weights.items()}
    for row, seed in enumerate(pretrained.seeds):
        generator = stream(seed, "shuffle")
        for weight in weights.values():
            order = torch.from_numpy(generator.permutation(weight[row].numel())).to(weight.device)
            weight[row] = weight[row].flatten()[order].view_as(weight[row])
    return dataclasses.replace(pretrained, weights=weights)


# From initial and pre-trained weights to the start of fine-tuning, for arms that do not start from the latter.
STARTS: dict[Arm, Callable[[Block, Block], Block]] = {
    "rescaled": rescale,
    "shuffled": lambda initial, pretrained: shuffle(pretrained),
}
