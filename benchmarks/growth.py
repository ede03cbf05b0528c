"""How time and memory grow with seeds, random triplets and words; each point in a process of its own."""

import argparse
import json
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

import rlm
from benchmarks.contestants import BATCH, slices_of
from rlm.block import init_block
from rlm.engine.batches import PhraseTable, epoch_batches
from rlm.engine.relevance import RelevanceMask
from rlm.engine.trainer import Trainer
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.zoo.losses import make_objective


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def random_triplets(size: int, redraw: str) -> dict[str, float]:
    """Draw 20 epochs of random triplets, in the chunks that training takes."""
    torch.set_num_threads(1)
    slices = slices_of("chatterbot-english")
    source = RandomTriplets(slices.components, 0, size, redraw)
    chunks = source.epoch(0, 32 * BATCH)
    next(chunks)
    before, start = peak_megabytes(), time.perf_counter()
    drawn = sum(len(chunk) for epoch in range(20) for chunk in source.epoch(epoch, 32 * BATCH))
    return {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes() - before, "drawn": drawn}


def words(size: int, optimizer: str) -> dict[str, float]:
    """Train 200 steps of the mean encoder with this many words, on phrases of 4 words drawn uniformly."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    slices = slices_of("chatterbot-english")
    tokens = generator.integers(2, size, (20_001, 4), dtype=np.int32)
    tokens[-1] = 0
    triplets = generator.integers(0, 20_000, (30_000, 3), dtype=np.int32)
    table = PhraseTable([slices])
    table.tokens, table.filler = [torch.from_numpy(tokens)], 20_000
    table.lengths = torch.tensor([4] * 20_000 + [0], dtype=torch.int32)
    before = peak_megabytes()
    block = init_block(lambda: rlm.zoo.MeanEncoder(size), [0])
    trainer = Trainer(block, 1e-3, make_objective(), RelevanceMask(), optimizer, synchronous=True)
    start = time.perf_counter()
    trainer.train(epoch_batches([RealTriplets(triplets, 0)], table, 1, BATCH))
    return {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes() - before}


def alone(function: Callable[..., dict], *arguments: object) -> dict:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--triplets", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7, 2 * 10**7])
    parser.add_argument("--words", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []

    def note(what: str, size: int, found: dict) -> None:
        rows.append({"what": what, "size": size} | found)
        print(rows[-1], flush=True)

    config = rlm.StudyConfig(encoder="lstm", arms=("scratch",), max_epochs=2, patience=2, compile=False)
    joblib.Parallel(n_jobs=-1)(joblib.delayed(slices_of)(config.dataset) for _ in range(8))
    for seeds in options.seeds:
        start = time.perf_counter()
        rlm.run_study(config, seeds, progress=False)
        note("seeds", seeds, {"seconds": time.perf_counter() - start})
    for size in options.triplets:
        for redraw in ("epoch", "once"):
            note(f"random triplets, redraw {redraw}", size, alone(random_triplets, size, redraw))
    for size in options.words:
        for optimizer in ("adam", "rowwise_adam"):
            note(f"words, {optimizer}", size, alone(words, size, optimizer))
    options.out.write_text(json.dumps(rows, indent=1))
    print(pd.DataFrame(rows).to_string())


if __name__ == "__main__":
    main()
