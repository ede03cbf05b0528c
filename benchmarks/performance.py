"""Write docs/performance.md and its figures from what the benchmarks measured."""

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    flags = Path("/proc/cpuinfo").read_text()
    bf16 = "with" if "avx512_bf16" in flags or "amx_bf16" in flags else "without"
    cpu = names[0] if names else platform.processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {cpu}, {bf16} bf16 instructions; {versions}"


def peers_section(rows: pd.DataFrame) -> str:
    parts = []
    for (dataset, encoder), group in rows.groupby(["dataset", "encoder"], sort=False):
        wide = group.pivot(index="round", columns="contestant", values="triplets_per_second")[group.contestant.unique()]
        table = pd.DataFrame(
            {
                "triplets/s": wide.median().round(-2).astype(int),
                "min": wide.min().round(-2).astype(int),
                "max": wide.max().round(-2).astype(int),
                # Round by round, so that a slow minute of the machine slows both sides of a ratio.
                "x hand loop": wide.div(wide["hand loop"], axis=0).median().round(2),
                "x sentence-transformers": wide.div(wide["sentence-transformers"], axis=0).median().round(1),
            }
        )
        gflops = group.groupby("round").gflops.first()
        parts.append(
            f"### `{encoder}`, {dataset}\n\n{table.to_markdown()}\n\n"
            f"Matrix products in the same rounds: {gflops.median():.0f} GFLOP/s fp32 "
            f"({gflops.min():.0f}-{gflops.max():.0f})."
        )
    return """## Beside its peers

A contestant runs on all cores at once, as processes of one thread, end to end: batches are built, gradients taken,
weights updated. Contestants take turns, round by round; a ratio is the median over rounds. Word vectors of 32,
embeddings of 64, batches of 150 triplets, Adam.

""" + "\n\n".join(parts)


def study_section(study: dict) -> str:
    low, high = study["difference"][1:]
    return f"""## A whole study

{study["pairs"]} pairs of the English chat corpus, `lstm`, {study["settings"]}; both on all cores.

| | seconds | mean test accuracy |
| --- | --- | --- |
| rlm | {study["rlm_seconds"]:.0f} | {study["accuracy_rlm"]:.3f} |
| hand loop, seed by seed, joblib | {study["hand_seconds"]:.0f} | {study["accuracy_by_hand"]:.3f} |

{study["ratio"]:.1f} times faster. Accuracy by rlm minus accuracy by hand, paired by arm and seed:
{study["difference"][0]:+.4f} [{low:+.4f}, {high:+.4f}]."""


def growth_section(growth: pd.DataFrame, docs: Path) -> str:
    growth_figure(growth, docs / "growth.png")
    seeds = growth[growth.what == "seeds"].set_index("size").seconds
    per_seed = pd.DataFrame({"seconds": seeds.round(1), "seconds per seed": (seeds / seeds.index).round(2)})
    rest = growth[growth.what != "seeds"].drop(columns="drawn").round(1)
    return f"""## Growth

![Seconds against seeds, random triplets and words](growth.png)

Seeds (two epochs of fine-tuning on the chat corpus, `lstm`, eager; the first row includes starting the processes):

{per_seed.to_markdown()}

Twenty epochs of random triplets drawn, and 200 steps of `mean` with so many words; megabytes are what the process
grew by:

{rest.to_markdown(index=False)}"""


def reading_section(rows: list[dict]) -> str:
    table = pd.DataFrame(rows).set_index("reader")[["rows", "seconds", "peak GB"]].round(1)
    table["rows"] = table["rows"].map("{:,}".format)
    return f"""## Reading

From a tab-separated file of {rows[0]["triplets"]:,} triplets ({rows[0]["MB"]:.0f} MB) to index arrays, in a process of
its own: `rlm.index_corpus(rlm.read(path))`, which checks every row and knows its line, beside `pandas.read_csv` and
Python dictionaries, which fill short rows silently. Both peaks hold what importing torch takes
({rows[0]["before GB"]:.1f} GB).

{table.to_markdown()}"""


def search_section(rows: list[dict]) -> str:
    table = pd.DataFrame(rows).set_index("method").drop(columns=["vectors", "cores"]).round(3)
    return f"""## Search

The nearest ten of {rows[0]["vectors"]:,} vectors of 64 dimensions, drawn as encoders make them: in 20,000 clusters of
very different size, with few directions of large variance; on {rows[0]["cores"]} core(s). `rlm query` takes `exact`
up to 100,000 premises and `ivf` beyond them; `rlm.search.Index` says what the methods are. Recall counts what is as
near as the tenth exact neighbour.

{table.to_markdown()}"""


LIMITS = """## What limits

- bf16 pays only where hardware has it. On the machine above it has not: 2048 x 2048 products in bfloat16 run at about
  a quarter of the fp32 rate, and the conversions come on top.
- Compiling takes 20-40 s for `mean`, 35-60 s for `lstm` on phrases of 6 words and nearly 5 minutes on phrases of 32,
  where it gains little over the LSTM with a backward pass of its own: hence the limit of 12 words.
- Of a compiled step of `mean` (8 seeds, grouped, row-wise, one core) about 12 % is building the batch, 7 % sorting
  the batch's words, 3 % looking up the graph, and nearly all else the graph itself, which moves rows of word vectors
  and of their moments: memory, not arithmetic. sentence-transformers is bound by Python instead, so that the ratio to
  it depends on the machine more than the ratio to the hand loop does.
- Row-wise steps compiled for long phrases look up as many rows as a batch has words, not as it has different words:
  on the chat corpus dense Adam is as fast.
- Nothing here was run on a GPU."""


def growth_figure(rows: pd.DataFrame, out: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axis, what, label in zip(
        axes, ("seeds", "random triplets", "words"), ("seeds", "random triplets", "words"), strict=True
    ):
        part = rows[rows.what.str.startswith(what)]
        part = part.assign(what=part.what.str.removeprefix(f"{what}, "))
        sns.lineplot(part, x="size", y="seconds", hue="what", marker="o", ax=axis, legend=what != "seeds")
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds")
        if what != "seeds":
            axis.legend(loc="upper left", frameon=False)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    sections = {
        "peers": lambda found: peers_section(pd.DataFrame(found)),
        "study": study_section,
        "growth": lambda found: growth_section(pd.DataFrame(found), options.docs),
        "reading": reading_section,
        "search": search_section,
    }
    parts = [f"# Performance\n\nMeasured by `make bench` until {datetime.date.today()}: {machine()}."]
    for name, section in sections.items():
        measured = options.folder / f"{name}.json"
        if measured.exists():
            parts.append(section(json.loads(measured.read_text())))
    parts.append(LIMITS)
    (options.docs / "performance.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
