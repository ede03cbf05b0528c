"""Prints by how much the losses of compiled training differ from those of eager training, over 20 steps."""

from functools import partial

import numpy as np
import torch
from conftest import topic_pairs
from torch.func import functional_call, vmap

import rlm
from rlm.arms import encoder_maker
from rlm.engine import compile as compiling
from rlm.engine.dropout import Dropout


def drop(values, draw):
    rows = torch.arange(40) * 512 % 977
    return vmap(lambda mine, number: functional_call(Dropout(0.5), {"draw": number}, (mine, rows)))(values, draw)


if __name__ == "__main__":  # not when doctests are looked for
    values, draws = torch.ones(2, 40, 9), torch.tensor([2**31 - 1, 3])
    print("dropout", (torch.compile(drop)(values, draws) - drop(values, draws)).abs().max().item())
    compiling.SAMPLED_BATCHES = 2  # so that some batches are larger than the sample
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
    slices = rlm.slice_corpus(rlm.index_corpus(data), seed=0, fractions=(0.5, 0.3, 0.2), negatives=2)
    for kind, settings in {
        "mean": {"optimizer": "adam", "loss": "facenet"},
        "lstm": {"optimizer": "rowwise_adam", "loss": "triplet"},
        "bilstm": {"optimizer": "rowwise_adam", "loss": "in_batch"},
        "lstm(lstm)": {"optimizer": "rowwise_adam", "loss": "dssm"},
        "lstm(cnn)": {"optimizer": "rowwise_adam", "loss": "lossless"},
        "transformer": {"optimizer": "adam", "loss": "triplet", "weight_decay": 0.1, "warmup": 5, "clip": 0.5},
        "dssm": {"optimizer": "rowwise_adam", "loss": "cosine_triplet"},
    }.items():
        if kind == "bilstm":  # from here on only traced: a C++ compiler would take half a minute for each
            torch.compile = partial(torch.compile, backend="aot_eager")
        config = rlm.StudyConfig(encoder=kind, word_dim=4, dim=5, loss=settings["loss"])
        make = encoder_maker(config, slices.phrases)
        # In double precision: Adam magnifies the rounding of gradients that are nearly zero.
        block = rlm.init_block(lambda make=make: make().double(), (0, 1))
        settings |= {"batch_size": 18, "learning_rate": 1e-2}
        losses = [
            rlm.finetune(block, slices, rlm.Recipe(compile=compile, **settings), max_epochs=4, progress=False)[1].loss
            for compile in (True, False)
        ]
        print(kind, np.nanmax(np.abs(losses[0] - losses[1])))
