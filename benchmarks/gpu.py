"""Triplets per second on a GPU, by blocks of more and more seeds, beside the hand loop on the same GPU, in turns."""

import argparse
import json
from itertools import chain
from pathlib import Path

import pandas as pd
import torch

from benchmarks.peers import measure, new_processes, total


def settings(encoder: str, dataset: str, seeds: int, device: str, compile: bool = True) -> dict[str, tuple[str, dict]]:
    """Name of each contestant, the generator that trains it, and its arguments."""
    common = {"dataset": dataset, "encoder": encoder, "device": device}
    fast = common | {"seeds": seeds, "batching": "grouped", "optimizer": "rowwise_adam", "compile": compile}
    return {
        "hand loop": ("hand_loop", common),
        "rlm, fp32": ("ours", fast),
        "rlm, bf16": ("ours", fast | {"precision": "bf16"}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2**power for power in range(10)])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--datasets", nargs="+", default=["pqa"])
    parser.add_argument("--encoders", nargs="+", default=["lstm", "mean"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use: nothing was measured on one")
        return
    rows = []
    for dataset in options.datasets:
        for encoder in options.encoders:
            for seeds in options.seeds:
                field = settings(encoder, dataset, seeds, "cuda")
                homes = {name: new_processes(1) for name in field}
                for round_ in range(-1, options.rounds):  # the first, uncounted, compiles and warms up
                    for name, (function, arguments) in field.items():
                        speed = total(homes[name], measure, function, arguments, options.seconds)
                        if round_ >= 0:
                            row = {"dataset": dataset, "encoder": encoder, "seeds": seeds, "contestant": name}
                            rows.append(row | {"round": round_, "triplets_per_second": speed})
                for process in chain.from_iterable(homes.values()):
                    process.shutdown(cancel_futures=True)
                mine = pd.DataFrame(rows).query("dataset == @dataset and encoder == @encoder and seeds == @seeds")
                print(f"\n{dataset}, {encoder}, {seeds} seeds: triplets per second")
                print(
                    mine.groupby("contestant", sort=False)["triplets_per_second"].median().round().to_string(),
                    flush=True,
                )
    for row in rows:
        row["device"] = torch.cuda.get_device_name()
    options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
