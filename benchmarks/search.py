"""The nearest ten of a million vectors: what approximate indices find of them, how fast, in how much memory."""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from rlm.models.search import Index, Method

DIM, CLUSTERS, QUERIES, K = 64, 20_000, 1000, 10


def like_embeddings(count: int, seed: int = 0) -> np.ndarray:
    """
    Vectors as encoders make them: in clusters, of which few are large, with few directions of large variance.

    Centres and deviations are normal, their scale in dimension i is 1 / sqrt(i), that of deviations half as large;
    the i-th largest cluster has a share proportional to 1 / sqrt(i).
    """
    rng = np.random.default_rng(seed)
    scale = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    centres = rng.standard_normal((CLUSTERS, DIM), dtype=np.float32) * scale
    share = np.arange(1, CLUSTERS + 1) ** -0.5
    cluster = rng.choice(CLUSTERS, count, p=share / share.sum())
    return centres[cluster] + rng.standard_normal((count, DIM), dtype=np.float32) * (scale / 2)


def recall(similarity: np.ndarray, exact: np.ndarray) -> float:
    """Share of what was found that is as near as the last of the exact neighbours, but for rounding."""
    return float((similarity >= exact[:, -1:] - 1e-5).mean())


def peak_mb() -> float:
    """Of this process; `resource` would count what its parent held when it was started."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def measured(method: Method, vectors: Path, exact: Path) -> dict[str, float | str]:
    """In a process of its own, so that memory is that of the method; the exact one leaves its results for others."""
    given = np.load(vectors)
    known, queries = given[:-QUERIES], given[-QUERIES:]
    before, start = peak_mb(), time.perf_counter()
    index = Index(known, method)
    built = time.perf_counter()
    for query in queries[:100]:
        index.search(query[None], K)
    searched = time.perf_counter()
    found = index.search(queries, K).similarity
    together = time.perf_counter()
    if method == "exact":
        np.save(exact, found)
    return {
        "method": method,
        "recall@10": recall(found, np.load(exact)),
        "build s": built - start,
        "ms per query": 10 * (searched - built),
        "ms per query, 1,000 together": together - searched,
        "MB": peak_mb() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        vectors, exact = Path(folder, "vectors.npy"), Path(folder, "exact.npy")
        np.save(vectors, like_embeddings(options.vectors + QUERIES))
        for method in get_args(Method):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                setting = {"vectors": options.vectors, "cores": len(os.sched_getaffinity(0))}
                rows.append(setting | pool.submit(measured, method, vectors, exact).result())
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
