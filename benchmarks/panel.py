"""
Time the panel on a store of many studies, and the answers of its notebook while a study trains.

python -m benchmarks.panel
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import rlm

STUDIES, PAUSE, SECONDS = 200, 0.2, 40
IMPORT = "import rlm\nfrom IPython.display import display\nrlm.Explorer"
SHOW = "explorer = rlm.Explorer(db={db!r})\ndisplay(explorer)"
TRAIN = "explorer.set(encoder='mean', pretrain_epochs=3, max_epochs=12, seeds=20)\nexplorer.run()"


def fill(db: Path, studies: int) -> None:
    """Store studies of two pairs each, which differ in their learning rate and margin."""
    for number in range(studies):
        settings = {"encoder": "mean", "max_epochs": 1, "pretrain_epochs": 1, "train_fraction": 0.1}
        settings |= {"learning_rate": 0.001 * (number + 1), "margin": 0.1 + number / 100}
        rlm.run_study(rlm.StudyConfig(**settings), 2, db=db, n_jobs=1, progress=False)


def answer(client: BlockingKernelClient, code: str) -> float:
    """Return the seconds until a cell is answered."""
    started = time.perf_counter()
    reply = client.execute_interactive(code, timeout=120, output_hook=lambda message: None)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(reply["content"]["evalue"])
    return time.perf_counter() - started


def measure(studies: int) -> dict[str, float | int]:
    """Show the panel on a new store in a kernel of its own, train, and time the cells meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "study.db"
        fill(db, studies)
        manager = KernelManager()
        manager.start_kernel(cwd=folder)
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            imported = answer(client, IMPORT)
            shown = answer(client, SHOW.format(db=str(db)))
            answer(client, TRAIN)
            until, answers = time.monotonic() + SECONDS, []
            while time.monotonic() < until:
                answers.append(answer(client, "1 + 1"))
                time.sleep(PAUSE)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    found = {"studies": studies, "seconds to import": imported, "seconds to show": shown, "cells": len(answers)}
    return found | {"median answer, s": float(np.median(answers)), "longest answer, s": max(answers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES, help="number of studies in the store")
    print(json.dumps(measure(parser.parse_args().studies), indent=1))


if __name__ == "__main__":
    main()
