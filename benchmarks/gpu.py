"""
Triplets per second on a GPU, by blocks of more and more seeds, beside the hand loop in turns; and one whole study.

python -m benchmarks.gpu
python -m benchmarks.gpu --page

All contestants compile at the same time, each in a process of its own; then one at a time trains. The first command
writes docs/benchmarks/gpu.json, the second docs/gpu.md from it, where there need be no GPU.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import rlm
from benchmarks import contestants
from benchmarks.peers import measure, new_processes
from rlm.engine.batches import PhraseTable, epoch_batches
from rlm.runtime.device import resolve_precision
from rlm.sampler import RealTriplets

EPOCH = 100_000  # triplets, as in the whole study; the CPU shuffles them anew for each epoch and seed
LARGE = 8192  # rows and columns of the matrices that show the rate of products
DOCS = Path(__file__).parents[1] / "docs"
COPIED = 2**30  # bytes of a copy that shows the bandwidth


def settings(encoder: str, dataset: str, seeds: int, device: str) -> dict[str, tuple[str, dict]]:
    """Name of each contestant with a block of seeds, the generator that trains it, and its arguments."""
    fast = {"seeds": seeds, "batching": "grouped", "optimizer": "rowwise_adam", "compile": True}
    ours = {"dataset": dataset, "encoder": encoder, "device": device, "epoch_triplets": EPOCH} | fast
    return {"rlm, fp32": ("ours", ours), "rlm, bf16": ("ours", ours | {"precision": "bf16"})}


def measure_with_memory(function: str, arguments: dict, seconds: float) -> tuple[float, float]:
    """Triplets per second of this process, and the most bytes of GPU memory that it has held; none without memory."""
    try:
        speed = measure(function, arguments, seconds)
    except torch.OutOfMemoryError:
        return 0.0, float("nan")
    return speed, float(torch.cuda.max_memory_allocated()) if torch.cuda.is_initialized() else float("nan")


def measure_limits(device: str, size: int = LARGE, copied: int = COPIED, times: int = 20) -> dict[str, float]:
    """Bytes per second that a copy reads and writes, and operations per second of products of large matrices."""
    source, target = torch.empty(2, copied, dtype=torch.uint8, device=device)
    found = {"bytes": 2 * copied * times / timed(lambda: target.copy_(source), times, device)}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        left, right = torch.randn(2, size, size, device=device).to(dtype)
        found[name] = 2 * size**3 * times / timed(lambda a=left, b=right: a @ b, times, device)
    return found


def timed(function: Callable[[], object], times: int, device: str) -> float:
    """Seconds of this number of calls, after a first one."""
    function()
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        function()
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def race(
    dataset: str, encoder: str, blocks: list[int], rounds: int, seconds: float, device: str
) -> list[dict[str, object]]:
    """Let a block of every size, in either precision, take turns with the hand loop."""
    common = {"dataset": dataset, "encoder": encoder, "device": device, "epoch_triplets": EPOCH}
    field = {("hand loop", 1): ("hand_loop", common)}
    for seeds in blocks:
        named = settings(encoder, dataset, seeds, device)
        field |= {(name, seeds): contestant for name, contestant in named.items()}
    homes = dict(zip(field, new_processes(len(field)), strict=True))

    def train(key: tuple[str, int], seconds: float) -> Future[tuple[float, float]]:
        return homes[key].submit(measure_with_memory, *field[key], seconds)

    rows, work = [], {"flop": contestants.product_work(dataset, encoder), "bytes": least_bytes(dataset, encoder)}
    try:
        for future in [train(key, 0.5) for key in field]:  # compiles and warms up
            future.result()
        for round_ in range(rounds):
            for name, seeds in field:
                speed, memory = train((name, seeds), seconds).result()
                row = {"dataset": dataset, "encoder": encoder, "contestant": name, "seeds": seeds, "round": round_}
                rows.append(row | {"triplets_per_second": speed, "memory": memory} | work)
    finally:
        for home in homes.values():
            home.shutdown(cancel_futures=True)
    return rows


def least_bytes(dataset: str, encoder: str) -> float:
    """
    Count the bytes that a step in fp32 cannot avoid to read or write, per triplet.

    Weights and both moments are read and written, gradients written and read: of the words of a batch, and of all other
    weights. A word vector is read forwards, its gradient written. An LSTM writes four gates, state and hidden state of
    each word, reads them backwards, and writes and reads the gates' gradients.
    """
    slices = contestants.slices_of(dataset)
    source = RealTriplets(slices.train, 0, EPOCH, "grouped")
    batch = next(epoch_batches([source], PhraseTable([slices]), 1, contestants.BATCH))
    words, different = sum(batch.batch_sizes), len(batch.tokens.unique())
    weights = rlm.zoo.ENCODERS[encoder](2, contestants.WORD_DIM, contestants.DIM).parameters()
    dense = sum(weight.numel() for weight in weights) - 2 * contestants.WORD_DIM
    floats = 8 * (different * contestants.WORD_DIM + dense) + 2 * words * contestants.WORD_DIM
    floats += 20 * words * contestants.DIM if encoder == "lstm" else 0
    return 4 * floats / contestants.BATCH


def tabulate(found: dict[str, Any], dataset: str, encoder: str) -> pd.DataFrame:
    """Tabulate medians over rounds: speed, its ratio to the hand loop of the same round, and shares of the limits."""
    rows = pd.DataFrame(found["rows"]).query("dataset == @dataset and encoder == @encoder")
    hand = rows[rows["contestant"] == "hand loop"].set_index("round")["triplets_per_second"]
    rows["x hand loop"] = rows["triplets_per_second"] / rows["round"].map(hand)
    table = rows.groupby(["contestant", "seeds"], sort=False)[["triplets_per_second", "x hand loop", "memory"]].median()
    speed = table["triplets_per_second"]
    rate = table.index.get_level_values("contestant").str.contains("bf16") & (found["bf16 as"] == "bf16")
    limits, work, moved = found["limits"], rows["flop"].iloc[0], rows["bytes"].iloc[0]
    peak = pd.Series(rate, table.index).map({True: limits["bf16"], False: limits["fp32"]})
    return pd.DataFrame(
        {
            "triplets/s": speed.round(-2).astype(int),
            "x hand loop": table["x hand loop"].round(1),
            "% of bandwidth": (100 * speed * moved / limits["bytes"]).round(1),
            "% of products": (100 * speed * work / peak).round(2),
            "memory, GB": (table["memory"] / 1e9).round(2),
        }
    ).reset_index()


def render(found: dict[str, Any]) -> str:
    """Write what was measured as a page; whole studies may be missing."""
    rows, limits = pd.DataFrame(found["rows"]), found["limits"]
    parts = []
    for dataset, encoder in rows[["dataset", "encoder"]].drop_duplicates().itertuples(index=False):
        table = tabulate(found, dataset, encoder).to_markdown(index=False, intfmt=",", floatfmt=",.10g")
        parts.append(f"## `{encoder}`, {dataset}\n\n{table}")
    if found["studies"]:
        studies = pd.DataFrame(found["studies"]).to_markdown(index=False, floatfmt=".1f")
        parts.append(f"## Whole studies\n\nA million random triplets an epoch.\n\n{studies}")
    else:
        parts.append("A whole study was not timed.")
    kept = "" if found["bf16 as"] == "bf16" else " This GPU has no hardware for bf16, and multiplies in fp32 instead."
    return f"""# On a GPU

By `{found["command"]}`
on {found["device"]}, {found["versions"]}: one process, grouped batches, row-wise Adam,
compiled, for blocks of one to hundreds of seeds; the hand loop takes turns with them on the same GPU.{kept} Numbers are
medians over rounds.

A copy moves {limits["bytes"] / 1e9:,.0f} GB/s; large products run at {limits["fp32"] / 1e12:.0f} TFLOP/s in fp32 and at
{limits["bf16"] / 1e12:.0f} TFLOP/s in bf16. `% of bandwidth` is the share of that copy for the least traffic of a step
in fp32, `% of products` the share of the rate of large products for the products of a triplet, each of its phrases
encoded anew; `benchmarks/gpu.py` counts both.

""" + "\n\n".join(parts)


def time_study(encoder: str, pairs: int, epochs: int, device: str, **settings: object) -> dict[str, Any]:
    """Time a study: a million random triplets, patience 20."""
    length = {
        "negatives": 1,
        "epoch_triplets": EPOCH,
        "random_triplets": 1_000_000,
        "patience": 20,
        "max_epochs": 200,
    }
    config = rlm.StudyConfig(encoder=encoder, pretrain_epochs=epochs, device=device, **length | settings)
    start = time.perf_counter()
    results = rlm.run_study(config, pairs, progress=False)
    return {
        "encoder": encoder,
        "pairs": pairs,
        "minutes": (time.perf_counter() - start) / 60,
        "epochs of pre-training": epochs,
        "epochs of fine-tuning": float(results["epochs"].mean()),
        "pretrained minus scratch": rlm.compare(results, watched=False).difference.format(100, "+"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 8, 32, 128, 512], help="seeds in a block")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--datasets", nargs="+", default=["pqa"])
    parser.add_argument("--encoders", nargs="+", default=["lstm", "mean"])
    parser.add_argument("--pairs", type=int, default=30, help="of the whole study, 0 for none")
    parser.add_argument("--pretrain-epochs", type=int, default=20)
    parser.add_argument("--device", default="cuda", help="cpu tries the program, without a GPU")
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks" / "gpu.json")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    if options.page:
        (DOCS / "gpu.md").write_text(render(json.loads(options.out.read_text())) + "\n")
        return
    if options.device != "cpu" and not torch.cuda.is_available():
        print("no GPU that PyTorch can use: nothing was measured on one")
        return
    on_cpu = options.device == "cpu"
    found: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
        "device": "the CPU in place of a GPU" if on_cpu else torch.cuda.get_device_name(),
        "versions": f"torch {torch.__version__}",
        "bf16 as": resolve_precision("bf16", torch.device(options.device)),
        "limits": measure_limits(options.device, *((256, 2**20) if on_cpu else ())),
        "rows": [],
        "studies": [],
    }
    for dataset in options.datasets:
        for encoder in options.encoders:
            found["rows"] += race(dataset, encoder, options.blocks, options.rounds, options.seconds, options.device)
            options.out.write_text(json.dumps(found, indent=1))
            print(f"\n{encoder}, {dataset}", tabulate(found, dataset, encoder).to_string(), sep="\n", flush=True)
    for encoder in options.encoders if options.pairs else ():
        dataset = {"dataset": options.datasets[0]}
        study = time_study(encoder, options.pairs, options.pretrain_epochs, options.device, **dataset)
        found["studies"].append(study)
        options.out.write_text(json.dumps(found, indent=1))
        print(study, flush=True)


if __name__ == "__main__":
    main()
