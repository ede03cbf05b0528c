"""Triplets per second of a whole machine: ours beside its peers, every contestant on all cores, in turns."""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from benchmarks import contestants

SEEDS = 8  # of a block, as a study of 16 pairs has them
RUNNING: list[Iterator[int]] = []


def settings(encoder: str, dataset: str) -> dict[str, tuple[str, dict]]:
    """Name of each contestant, the generator that trains it, and its arguments."""
    common = {"dataset": dataset, "encoder": encoder}
    found = {
        "hand loop": ("hand_loop", common),
        "pytorch-metric-learning": ("hand_loop", common | {"loss": "pml"}),
        "sentence-transformers": ("sentence_transformers", common),
    }
    chosen = [
        ("flat", "adam", "fp32", False),
        ("grouped", "adam", "fp32", False),
        ("grouped", "rowwise_adam", "fp32", False),
        ("grouped", "rowwise_adam", "fp32", True),
        ("grouped", "rowwise_adam", "bf16", False),
        ("grouped", "rowwise_adam", "bf16", True),
    ]
    # Minutes for each process.
    slow_to_compile = encoder == "transformer" or (encoder, dataset) == ("lstm", "chatterbot-english")
    for batching, optimizer, precision, compile in chosen:
        if compile and slow_to_compile:
            continue
        name = ", ".join(["rlm", batching, optimizer, precision, "compiled" if compile else "eager"])
        arguments = {"seeds": SEEDS, "batching": batching, "optimizer": optimizer, "precision": precision}
        found[name] = ("ours", common | arguments | {"compile": compile})
    return found


def measure(function: str, arguments: dict, seconds: float) -> float:
    """Triplets per second of this process, whose contestant continues where it stopped last time."""
    torch.set_num_threads(1)
    warnings.filterwarnings("error", "training continues without compilation")
    if not RUNNING:
        RUNNING.append(getattr(contestants, function)(**arguments))
        for _ in range(20):
            next(RUNNING[0])
    start, triplets = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        triplets += next(RUNNING[0])
    if torch.cuda.is_initialized():  # steps are queued there
        torch.cuda.synchronize()
    return triplets / (time.perf_counter() - start)


def new_processes(count: int) -> list[ProcessPoolExecutor]:
    """One contestant's, which it keeps for all rounds, so that it compiles once."""
    return [ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in range(count)]


def total(processes: list[ProcessPoolExecutor], function: Callable[..., float], *arguments: object) -> float:
    """The sum of what all processes measure at the same time."""
    return sum(future.result() for future in [process.submit(function, *arguments) for process in processes])


# Of the matrices: large ones, and those of one step of an LSTM with a block's seeds.
SHAPES = {"large": (1, 2048, 2048, 2048), "step": (SEEDS, 256, contestants.DIM, 4 * contestants.DIM)}


def product_rate(kind: str, dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of this process in products of such matrices."""
    torch.set_num_threads(1)
    seeds, rows, inner, columns = SHAPES[kind]
    left, right = torch.randn(seeds, rows, inner, dtype=dtype), torch.randn(seeds, inner, columns, dtype=dtype)
    start, products = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        left @ right
        products += 1
    return 2 * seeds * rows * inner * columns * products / (time.perf_counter() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--datasets", nargs="+", default=["pqa", "chatterbot-english"])
    parser.add_argument("--encoders", nargs="+", default=["lstm", "mean", "transformer"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = "1"  # also for threads that a trainer starts
    rows = []
    caches = tempfile.mkdtemp()
    for dataset in options.datasets:
        for encoder in options.encoders:
            if encoder == "transformer" and dataset != options.datasets[0]:  # to begin takes longer than to measure
                continue
            field = settings(encoder, dataset)
            homes = {name: new_processes(cores) for name in [*field, "products"]}
            work = contestants.product_work(dataset, encoder)
            begin: dict[str, dict[str, float | None]] = {name: {"begins again after": None} for name in field}
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(caches, f"{dataset}-{encoder}"))  # nothing is compiled yet
            for round_ in range(-1, options.rounds):  # the first, uncounted, compiles and warms up
                seconds = options.seconds if round_ >= 0 else 0.5
                rates = {
                    f"gflops {kind} {name}": total(homes["products"], product_rate, kind, dtype, 0.3)
                    for kind in SHAPES
                    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items()
                }
                for name, (function, arguments) in field.items():
                    start = time.perf_counter()
                    speed = total(homes[name], measure, function, arguments, seconds)
                    begin[name].setdefault("begins after", time.perf_counter() - start - seconds)
                    if round_ >= 0:
                        row = {"dataset": dataset, "encoder": encoder, "contestant": name, "round": round_}
                        rows.append(row | {"triplets_per_second": speed, "flop_per_triplet": work} | rates)
            for name, (function, arguments) in field.items():
                if arguments.get("compile"):
                    homes[name] += (again := new_processes(cores))
                    start = time.perf_counter()
                    total(again, measure, function, arguments, 0.5)
                    begin[name]["begins again after"] = time.perf_counter() - start - 0.5
            for row in rows[-len(field) * options.rounds :]:
                row |= begin[row["contestant"]]
            for process in chain.from_iterable(homes.values()):
                process.shutdown(cancel_futures=True)
            table = pd.DataFrame(rows).query("dataset == @dataset and encoder == @encoder")
            speeds = table.groupby("contestant", sort=False)["triplets_per_second"].agg(["median", "min", "max"])
            print(f"\n{dataset}, {encoder}: triplets per second, {cores} processes of one thread")
            print(speeds.round(-2).astype(int).to_string(), flush=True)
    options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
