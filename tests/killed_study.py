"""A study so small that it can be killed two hundred times; in a module of its own, for the processes that run it."""

import numpy as np
import torch
from conftest import topic_pairs

import rlm.study
from rlm.config import StudyConfig
from rlm.study import run_study

DATA = topic_pairs(np.random.default_rng(0), topics=6, pairs=60)
CONFIG = StudyConfig(
    dataset="data", encoder="mean", word_dim=4, dim=4, negatives=1, batch_size=512, pretrain_epochs=1, max_epochs=2,
    patience=2,
)  # fmt: skip
SEEDS = 40


def run(db=None, config=CONFIG, seeds=SEEDS, n_jobs=1, largest_block=10, **settings):
    torch.set_num_threads(1)
    rlm.study.LARGEST_BLOCK = largest_block
    return run_study(config, seeds, data=DATA, db=db, n_jobs=n_jobs, progress=False, **settings)
