"""Time to verdict of a whole study: ours beside the loop that one writes by hand, seed by seed, under joblib."""

import argparse
import copy
import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

import rlm
from benchmarks.contestants import HandEncoder, hand_tokens, slices_of
from rlm.engine.batches import Step
from rlm.engine.trainer import Trainer
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.seeding import stream


def train(
    model: HandEncoder, optimizer: torch.optim.Optimizer, chunks: object, tokens: object, lengths: object
) -> None:
    for rows in chunks:
        phrases = rows.T.reshape(-1).long()
        anchor, positive, negative = model(tokens[phrases, : int(lengths[phrases].max())], lengths[phrases]).chunk(3)
        gap = (anchor - positive).square().sum(1) - (anchor - negative).square().sum(1)
        optimizer.zero_grad()
        F.relu(gap + 0.5).mean().backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: HandEncoder, triplets: torch.Tensor, tokens: torch.Tensor, lengths: torch.Tensor) -> float:
    phrases, places = triplets.unique(return_inverse=True)
    parts = [model(tokens[part, : int(lengths[part].max())], lengths[part]) for part in phrases.split(512)]
    anchor, positive, negative = torch.cat(parts)[places].unbind(1)
    gap = (anchor - positive).square().sum(1) - (anchor - negative).square().sum(1)
    return ((gap < 0).float() + 0.5 * (gap == 0)).mean().item()  # a tie is half right, as in rlm


def one_seed(config: rlm.StudyConfig, arm: str, seed: int) -> dict:
    """One run as a careful person writes it: nn.LSTM, padded batches, fused Adam, early stopping."""
    torch.set_num_threads(1)
    slices = slices_of(config.dataset)
    tokens, lengths = hand_tokens(slices)
    torch.manual_seed(int(stream(seed, "init").integers(2**63)))
    model = HandEncoder("lstm", slices.vocabulary_size)
    if arm == "pretrained":
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
        source = RandomTriplets(slices.components, seed, len(slices.train))
        for epoch in range(1, config.pretrain_epochs + 1):
            train(model, optimizer, source.epoch(epoch, config.batch_size), tokens, lengths)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    source = RealTriplets(slices.train, seed, config.epoch_triplets)
    validation, test = (torch.from_numpy(getattr(slices, split)).long() for split in ("validation", "test"))
    best, best_epoch, weights = accuracy(model, validation, tokens, lengths), 0, copy.deepcopy(model.state_dict())
    for epoch in range(1, config.max_epochs + 1):
        train(model, optimizer, source.epoch(epoch, config.batch_size), tokens, lengths)
        found = accuracy(model, validation, tokens, lengths)
        if found > best:
            best, best_epoch, weights = found, epoch, copy.deepcopy(model.state_dict())
        if epoch - best_epoch >= config.patience:
            break
    model.load_state_dict(weights)
    return {"arm": arm, "seed": seed, "test_accuracy": accuracy(model, test, tokens, lengths)}


def train_timed(config: rlm.StudyConfig, pairs: int) -> float:
    """Run a study to its verdict in this process; return the seconds of its training steps and their batches."""
    torch.set_num_threads(1)
    train, seconds = Trainer.train, []

    def timed(trainer: Trainer, batches: Iterable[Step]) -> np.ndarray:
        start = time.perf_counter()
        losses = train(trainer, batches)
        seconds.append(time.perf_counter() - start)
        return losses

    Trainer.train = timed
    rlm.compare(rlm.run_study(config, pairs, n_jobs=1, progress=False), "pretrained")
    return sum(seconds)


def share_of_steps(config: rlm.StudyConfig, pairs: int) -> float:
    """Return the share of a new process's time, imports included, that training steps take."""
    start = time.perf_counter()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds = process.submit(train_timed, config, pairs).result()
    return seconds / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--by-hand", type=int, default=10, help="pairs of the hand loop, which takes as long for each")
    parser.add_argument("--max-epochs", type=int, default=12)
    parser.add_argument("--patience", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    config = rlm.StudyConfig(pretrain_epochs=10, max_epochs=options.max_epochs, patience=options.patience)
    slices_of(config.dataset)
    share = share_of_steps(config, options.by_hand)
    print(f"{share:.1%} of a study's time are training steps", flush=True)
    # Processes start, and import what they need, before the clock does.
    joblib.Parallel(n_jobs=-1)(joblib.delayed(slices_of)(config.dataset) for _ in range(8))
    start = time.perf_counter()
    ours = rlm.run_study(config, options.seeds, progress=False)
    our_seconds = time.perf_counter() - start
    print(f"rlm: {our_seconds:.0f} s; {rlm.compare(ours, 'pretrained').headline}", flush=True)
    start = time.perf_counter()
    runs = [(arm, seed) for seed in range(options.by_hand) for arm in config.arms]
    by_hand = joblib.Parallel(n_jobs=-1)(joblib.delayed(one_seed)(config, arm, seed) for arm, seed in runs)
    hand_seconds = time.perf_counter() - start
    pairs = pd.DataFrame(by_hand).merge(ours, on=["arm", "seed"], suffixes=("_by_hand", ""))
    difference = (pairs["test_accuracy"] - pairs["test_accuracy_by_hand"]).to_numpy()
    half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    result = {
        "pairs": options.seeds,
        "pairs_by_hand": options.by_hand,
        "rlm_seconds": our_seconds,
        "hand_seconds": hand_seconds,
        "ratio": (hand_seconds / options.by_hand) / (our_seconds / options.seeds),
        "share_of_steps": share,
        "accuracy_rlm": pairs["test_accuracy"].mean(),
        "accuracy_by_hand": pairs["test_accuracy_by_hand"].mean(),
        "difference": [difference.mean(), difference.mean() - half, difference.mean() + half],
        "settings": f"pre-training 10 epochs, at most {options.max_epochs} epochs, patience {options.patience}",
    }
    print(json.dumps(result, indent=1))
    options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
