"""
Hold the plans of `rlm plan` against the studies that they planned, and write docs/planner.md.

python -m benchmarks.planner

It takes a quarter of an hour on two cores, which should have little else to do. Settings that
docs/benchmarks/planner.csv has already are not studied again; --parts N stops after N new ones, --page writes the page
from what there is.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from benchmarks.resume import ask_for_parts, complete
from rlm.runtime.atomic import write_whole

LOSSES, RATES, CONTROLS = ("triplet", "in_batch"), (0.003, 0.01, 0.03), ("pretrained", "rescaled")
HALF_WIDTH, NARROWER, MOST_PAIRS = 0.006, 0.75, 60
COMMON = ("--encoder", "mean", "--pretrain-epochs", "1", "--max-epochs", "4", "--arms", "scratch")
KEYS = ["loss", "learning_rate", "arm"]
DOCS = Path(__file__).parents[1] / "docs"
RESULTS, TEMPLATE = DOCS / "benchmarks" / "planner.csv", Path(__file__).with_name("planner.md.jinja")


def run(command: str, *options: str) -> Any:  # noqa: ANN401
    """Run a command of rlm as a user does; return its tables."""
    whole = [sys.executable, "-m", "rlm", command, *options, "--json"]
    done = subprocess.run(whole, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def follow(plan: dict[str, Any], settings: tuple[str, ...], arm: str, db: Path) -> dict[str, float | int]:
    """Run a study of the planned pairs, and return what was planned beside what was found."""
    pairs = min(plan["pairs"], MOST_PAIRS)
    started = time.perf_counter()
    run("study", *settings, "--seeds", str(pairs), "--db", str(db))
    took = time.perf_counter() - started
    found = rlm.compare(rlm.read_study(db).finished.results, arm, watched=False).judged.width / 2
    # The width of another number of pairs follows from its square root.
    planned = plan["half_width"] * (plan["pairs"] / pairs) ** 0.5
    times = {"planned_seconds": plan["seconds"] * pairs / plan["pairs"], "seconds": took}
    return {"pilot": plan["pilot"], "pairs": pairs, **times, "planned_half_width": planned, "half_width": found}


def study(loss: str, learning_rate: float, arm: str) -> pd.DataFrame:
    """Plan a study by a pilot of five pairs, run it, plan a narrower one by it, and run that."""
    settings = ("--loss", loss, "--learning-rate", str(learning_rate), *COMMON, arm)
    with tempfile.TemporaryDirectory() as folder:
        first, second = (Path(folder) / name for name in ("first.db", "second.db"))
        plan = run("plan", *settings, "--within", str(HALF_WIDTH))["plan"][0]
        rows = [{"planned by": "a pilot"} | follow(plan, settings, arm, first)]
        narrower = str(NARROWER * rows[0]["half_width"])
        plan = run("plan", *settings, "--within", narrower, "--db", str(first))["plan"][0]
        rows.append({"planned by": "a study"} | follow(plan, settings, arm, second))
    return pd.DataFrame(rows)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Count the studies that the plan was right about, and give quantiles of found over planned."""
    rows = {}
    for by, runs in results.groupby("planned by", sort=False):
        time_ratio = runs["seconds"] / runs["planned_seconds"]
        width_ratio = runs["half_width"] / runs["planned_half_width"]
        rows[by] = {
            "studies": len(runs),
            "pairs before": spell(runs["pilot"]),
            "pairs": spell(runs["pairs"]),
            "seconds": spell(runs["seconds"]),
            "time within 1.5 times": (np.abs(np.log(time_ratio)) <= np.log(1.5)).sum(),
            "time, found / planned": spell(time_ratio, ".2f"),
            "width within 25 %": (np.abs(width_ratio - 1) <= 0.25).sum(),
            "width, found / planned": spell(width_ratio, ".2f"),
        }
    return pd.DataFrame(rows).rename_axis("plans by")


def spell(values: pd.Series, digits: str = ".0f") -> str:
    """Spell the median with the smallest and the largest value."""
    return f"{values.median():{digits}} ({values.min():{digits}} to {values.max():{digits}})"


def main() -> None:
    wanted = ask_for_parts(__doc__)
    settings = list(product(LOSSES, RATES, CONTROLS))
    results = complete(RESULTS, KEYS, {key: partial(study, *key) for key in settings}, wanted)
    page = Template(TEMPLATE.read_text(encoding="utf-8")).render(
        table=summarise(results).to_markdown(),
        missing=len(settings) - len(results[KEYS].drop_duplicates()),
        **{"machine": machine(), "settings": " ".join(COMMON), "most": MOST_PAIRS},
        **{"half_width": HALF_WIDTH, "narrower": NARROWER, "losses": LOSSES, "rates": RATES},
    )
    write_whole(DOCS / "planner.md", page + "\n")


if __name__ == "__main__":
    main()
