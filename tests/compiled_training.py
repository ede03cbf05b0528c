"""Prints by how much the losses of compiled training differ from those of eager training, over 20 steps."""

import numpy as np
from conftest import topic_pairs

import rlm
from rlm import compiling

if __name__ == "__main__":  # not when doctests are looked for
    compiling.SAMPLED_BATCHES = 2  # so that some batches are larger than the sample
    data = topic_pairs(np.random.default_rng(0), topics=6, pairs=90)
    slices = rlm.slice_corpus(rlm.index_corpus(data), seed=0, fractions=(0.5, 0.3, 0.2), negatives=2)
    for kind, optimizer in {"mean": "adam", "lstm": "rowwise_adam"}.items():
        block = rlm.init_block(lambda kind=kind: rlm.ENCODERS[kind](slices.vocabulary_size, 4, 5), (0, 1))
        settings = {"max_epochs": 4, "batch_size": 18, "learning_rate": 1e-2, "optimizer": optimizer, "progress": False}
        losses = [rlm.finetune(block, slices, compile=compile, **settings)[1].loss for compile in (True, False)]
        print(kind, np.nanmax(np.abs(losses[0] - losses[1])))
