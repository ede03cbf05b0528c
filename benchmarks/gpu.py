"""Triplets per second on a GPU, by blocks of more and more seeds, beside the hand loop on the same GPU, in turns."""

import argparse
import json
from itertools import chain, product
from pathlib import Path

import pandas as pd
import torch

from benchmarks.peers import measure, new_processes, total
from rlm.runtime.device import resolve_precision


def settings(encoder: str, dataset: str, seeds: int) -> dict[str, tuple[str, dict]]:
    """Name of each contestant, the generator that trains it, and its arguments."""
    common = {"dataset": dataset, "encoder": encoder, "device": "cuda"}
    fast = common | {"seeds": seeds, "batching": "grouped", "optimizer": "rowwise_adam", "compile": True}
    return {
        "hand loop": ("hand_loop", common),
        "rlm, fp32": ("ours", fast),
        "rlm, bf16": ("ours", fast | {"precision": "bf16"}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2**power for power in range(10)])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--datasets", nargs="+", default=["pqa"])
    parser.add_argument("--encoders", nargs="+", default=["lstm", "mean"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use: nothing was measured on one")
        return
    device = torch.cuda.get_device_name()
    precision = resolve_precision("bf16", torch.device("cuda"))
    rows = []
    for dataset, encoder, seeds in product(options.datasets, options.encoders, options.seeds):
        field = settings(encoder, dataset, seeds)
        homes = {name: new_processes(1) for name in field}
        block = {"device": device, "bf16 as": precision, "dataset": dataset, "encoder": encoder, "seeds": seeds}
        measured = []
        try:
            for round_ in range(-1, options.rounds):
                for name, (function, arguments) in field.items():
                    speed = total(homes[name], measure, function, arguments, options.seconds)
                    measured.append(block | {"contestant": name, "round": round_, "triplets_per_second": speed})
            rows += [row for row in measured if row["round"] >= 0]  # the first, uncounted, compiles and warms up
        except torch.OutOfMemoryError:
            print(f"{dataset}, {encoder}: {seeds} seeds do not fit into the memory of this GPU")
        finally:
            for process in chain.from_iterable(homes.values()):
                process.shutdown(cancel_futures=True)
        options.out.write_text(json.dumps(rows, indent=1))
    table = pd.DataFrame(rows).groupby(["dataset", "encoder", "seeds", "contestant"], sort=False)
    print(table["triplets_per_second"].median().unstack().round().to_string())


if __name__ == "__main__":
    main()
