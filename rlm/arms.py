"""The arms of a study: from initial weights to trained ones."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from rlm.block import Block, init_block
from rlm.config import REDRAW, Arm, StudyConfig
from rlm.controls import rescale, shuffle
from rlm.encoder import encoder_maker
from rlm.errors import InputError
from rlm.slicer import Slices
from rlm.training import Precision, finetune, pretrain

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """
    What training a block of seeds under one arm gave.

    Attributes
    ----------
    block
        Each seed at its best epoch.
    history
        Of fine-tuning, see `rlm.finetune`.
    pretraining
        Of pre-training, see `rlm.pretrain`; empty for scratch.
    """

    block: Block
    history: pd.DataFrame
    pretraining: pd.DataFrame


def train_arms(
    config: StudyConfig,
    slices: Sequence[Slices],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
    progress: bool = False,
) -> Iterator[Trained]:
    """
    Initialise, pre-train where the arms do, and fine-tune each.

    Parameters
    ----------
    config
        What to train and how.
    slices
        One per seed.
    arms
        Arms that share one pre-training, or none, see `rlm.config.REDRAW`.
    seeds
        Trained together; a seed's draws do not depend on which others are.
    make_encoder
        As in `rlm.run_study`.
    progress
        Show progress bars.

    Yields
    ------
    Trained
        Of each arm, on the device of the config.
    """
    names = ["loss", "margin", "mining", "learning_rate", "batch_size", "epoch_triplets", "batching", "optimizer"]
    shared = {name: getattr(config, name) for name in [*names, "precision", "compile"]} | {"progress": progress}
    if make_encoder is None:
        make = encoder_maker(config, slices[0].phrases)
    else:
        make = partial(make_encoder, slices[0].vocabulary_size)
    initial = init_block(make, seeds).to(device_of(config.device))
    pretrained, pretraining = initial, pd.DataFrame()
    (redraw,) = {REDRAW.get(arm) for arm in arms}
    if redraw is not None:
        pretrained, pretraining = pretrain(
            initial,
            slices,
            epochs=config.pretrain_epochs,
            random_triplets=config.random_triplets,
            redraw=redraw,
            **shared,
        )
    controls = {"rescaled": partial(rescale, initial), "shuffled": shuffle}
    for arm in arms:
        begin = controls[arm](pretrained) if arm in controls else pretrained
        block, history = finetune(begin, slices, max_epochs=config.max_epochs, patience=config.patience, **shared)
        yield Trained(block, history, pretraining)


def device_of(device: str) -> torch.device:
    """
    Where to train.

    Parameters
    ----------
    device
        ``"auto"`` takes a GPU where there is one; ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    torch.device
        A device that there is.

    Raises
    ------
    InputError
        If a GPU is wanted and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a GPU for device 'cuda', found none that PyTorch can use; choose 'auto' or 'cpu'")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def settled(config: StudyConfig) -> StudyConfig:
    """
    The config by which to train, once for all processes and machines that do.

    Parameters
    ----------
    config
        As it was asked for.

    Returns
    -------
    StudyConfig
        With the precision that pays on this machine, see `precision_of`.
    """
    return config.model_copy(update={"precision": precision_of(config.precision, device_of(config.device))})


@cache
def precision_of(precision: Precision, device: torch.device) -> Precision:
    """
    In which type to multiply matrices.

    Parameters
    ----------
    precision
        ``"bf16"`` takes it where there is hardware for it: AMX, or a GPU since Ampere. Without, products of float32
        were 1.8 times as fast on a CPU that has AVX-512's instructions for bfloat16 (``docs/performance.md``).
    device
        That trains.

    Returns
    -------
    str
        ``"bf16"`` or ``"fp32"``; where it is not what was asked for, the log says so.
    """
    if precision == "fp32":
        return precision
    if device.type == "cuda":
        has_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_hardware = torch.cpu.get_capabilities().get("amx_bf16", False)
    if has_hardware:
        return precision
    log.warning(
        "precision bf16: no faster here, with neither AMX nor a GPU since Ampere; matrices are multiplied in fp32"
    )
    return "fp32"
