"""
Look for collapsed seeds among healthy runs and among runs that are made to collapse, and measure the cost of looking.

python -m benchmarks.collapse --seeds 10
python -m benchmarks.collapse --seeds 30 --encoder mean
"""

import argparse
import logging
import time
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

import rlm
from rlm.arms import train_arms
from rlm.data.datasets import load_corpus
from rlm.engine.accuracy import mean_distance
from rlm.engine.batches import Batch
from rlm.slicer import slice_for
from rlm.stats.tables import find_collapse

PLANTED = {
    "facenet, hard mining": {"loss": "facenet", "mining": "hard"},
    "the same, learning rate 0.03": {"loss": "facenet", "mining": "hard", "learning_rate": 0.03},
    "the same, learning rate 0.1": {"loss": "facenet", "mining": "hard", "learning_rate": 0.1},
}
HEALTHY = {
    "triplet, learning rate 0.1": {"learning_rate": 0.1},
    **{loss: {"loss": loss} for loss in ("triplet", "facenet", "contrastive", "in_batch", "dssm", "cosine_triplet")},
    "cosine_regression": {"loss": "cosine_regression"},
}
SHORT = {"max_epochs": 8, "epoch_triplets": 2000, "compile": False}


COLUMNS = ["seeds", "collapsed", "least spread", "last spread", "uniformity", "participation"]


class Signs:
    """A substitute for the measure of the spread: times it, and records other signs of the same embeddings."""

    def __init__(self) -> None:
        self.seconds, self.uniformity, self.participation = 0.0, [], []

    def __call__(self, embeddings: Tensor, batch: Batch) -> np.ndarray:
        start = time.process_time()
        spread = mean_distance(embeddings, batch)
        self.seconds += time.process_time() - start
        is_phrase = batch.tokens.bool().any(dim=2)
        for name, measure in (("uniformity", uniformity), ("participation", participation)):
            getattr(self, name).append([measure(mine[kept]) for mine, kept in zip(embeddings, is_phrase, strict=True)])
        return spread


def uniformity(embeddings: Tensor) -> float:
    """Return log E exp(-2 d^2) of 256 phrases at length 1: Wang and Isola, ICML 2020, equation 2."""
    unit = F.normalize(embeddings[:: -(-len(embeddings) // 256)].double(), dim=1)
    return float(torch.pdist(unit).square().mul(-2).exp().mean().log())


def participation(embeddings: Tensor) -> float:
    """Return the participation ratio of the eigenvalues of the covariance, a measure of effective rank."""
    variances = torch.linalg.svdvals(embeddings.double() - embeddings.double().mean(dim=0)).square()
    return float(variances.sum() ** 2 / variances.square().sum())


def run(name: str, seeds: int, arms: tuple[str, ...], **settings: object) -> float:
    """Train seeds under the arms, print a row for each arm, and return the share of the time that the spread takes."""
    config = rlm.StudyConfig(arms=arms, **settings)
    corpus, spent, begun = load_corpus(config), 0.0, time.process_time()
    for arm in arms:
        histories, signs = [], Signs()
        for start in range(0, seeds, 10):
            mine = list(range(start, min(start + 10, seeds)))
            with patch("rlm.training.mean_distance", signs if arm == "scratch" else mean_distance):
                (trained,) = train_arms(config, slice_for(config, corpus, mine), [arm], mine)
            histories.append(trained.history)
        history, spent = pd.concat(histories), spent + signs.seconds
        ratio = history["relative_spread"]
        row = [history["seed"].nunique(), find_collapse(history).count(), ratio.min()]
        row.append(ratio.groupby(history["seed"]).last().min())
        if config.max_epochs <= config.patience and arm == "scratch":  # no seed stops early
            found = np.array(signs.uniformity)
            row += [(found / found[0]).min(), np.min(signs.participation)]
        print(f"{name:32}{arm:12}" + "".join(f"{value:14.3g}" for value in row), flush=True)
    return spent / (time.process_time() - begun)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30, help="of the default config; 0 for the short settings alone")
    parser.add_argument("--encoder", default="lstm")
    given = parser.parse_args()
    logging.getLogger("rlm").setLevel(logging.ERROR)
    print(f"{'setting':32}{'arm':12}" + "".join(f"{name:>14}" for name in COLUMNS))
    for name, settings in (PLANTED | HEALTHY).items():
        share = run(name, 3, ("scratch",), encoder=given.encoder, **settings, **SHORT)
        print(f"    the spread takes {share:.2%} of the time")
    if given.seeds:
        run("default", given.seeds, ("scratch", "pretrained"), encoder=given.encoder)
