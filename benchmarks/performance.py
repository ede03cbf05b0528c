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
from matplotlib.ticker import LogLocator

from rlm.runtime.device import resolve_precision


def machine() -> str:
    told = Path("/proc/cpuinfo").read_text()
    names = [line.split(":")[1].strip() for line in told.splitlines() if "model name" in line]
    bf16 = "with AMX" if "amx_bf16" in told else f"with{'' if 'avx512_bf16' in told else 'out'} AVX-512 for bf16"
    cpu = names[0] if names else platform.processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {cpu}, {bf16}; {versions}"


def peers_section(rows: pd.DataFrame) -> str:
    parts = []
    kept = resolve_precision("bf16", torch.device("cpu"))
    rows = rows.replace({"contestant": {} if kept == "bf16" else {"bf16": "bf16 (here fp32)"}}, regex=True)
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
                "% of products": _share_of_products(group).round(1),
                "begins after, s": _seconds(group, "begins after"),
                "again, s": _seconds(group, "begins again after"),
            }
        ).loc[group.contestant.unique()]
        rates = ", ".join(
            f"{kind} matrices {', '.join(_spell_rate(group, kind, precision) for precision in ('fp32', 'bf16'))}"
            for kind in ("large", "step")
        )
        parts.append(
            f"### `{encoder}`, {dataset}\n\n{table.to_markdown(floatfmt=',.10g', intfmt=',')}\n\n"
            f"Matrix products in the same rounds, GFLOP/s: {rates}."
        )
    return """## Beside its peers

A contestant runs on all cores at once, as processes of one thread, end to end: batches are built, gradients taken,
weights updated. Contestants take turns, round by round; a ratio is the median over rounds. Word vectors of 32,
embeddings of 64, batches of 150 triplets, Adam. `% of products` is the share of the machine's rate in large fp32 matrix
products that the products of a triplet would take if each of its phrases was encoded anew; a contestant that
encodes each phrase of a batch once does fewer multiplications. A contestant begins after its imports, its data and,
where it is compiled, compiling its step, two processes at once; again, with what the first ones left on disk. Large
matrices are 2048 x 2048; those of a step, 256 x 64 and 64 x 256 for each of 8 seeds.

""" + "\n\n".join(parts)


def _seconds(group: pd.DataFrame, column: str) -> pd.Series:
    seconds = group.groupby("contestant")[column].first()
    return seconds.map("{:.0f}".format).where(seconds.notna(), "")


def _share_of_products(group: pd.DataFrame) -> pd.Series:
    share = group["triplets_per_second"] * group["flop_per_triplet"] / group["gflops large fp32"] / 1e9
    return 100 * share.groupby(group["contestant"], sort=False).median()


def _spell_rate(group: pd.DataFrame, kind: str, precision: str) -> str:
    rate = group.groupby("round")[f"gflops {kind} {precision}"].first()
    return f"{rate.median():.0f} {precision} ({rate.min():.0f}-{rate.max():.0f})"


def study_section(study: dict) -> str:
    low, high = study["difference"][1:]
    pairs, seconds, share = (study[name] for name in ("pairs_by_hand", "hand_seconds", "share_of_steps"))
    return f"""## A whole study

Pairs of the English chat corpus, `lstm`, {study["settings"]}; both on all cores. The accuracies are those of the pairs
that both trained.

| training | pairs | seconds | mean test accuracy |
| --- | --- | --- | --- |
| rlm | {study["pairs"]} | {study["rlm_seconds"]:.0f} | {study["accuracy_rlm"]:.3f} |
| hand loop, seed by seed, joblib | {pairs} | {seconds:.0f} | {study["accuracy_by_hand"]:.3f} |

{study["ratio"]:.1f} times faster per pair. Accuracy by rlm minus accuracy by hand, paired by arm and seed:
{study["difference"][0]:+.4f} [{low:+.4f}, {high:+.4f}]. Training steps take {share:.0%} of the time of a new process
that runs such a study of {pairs} pairs, from its imports to its verdict."""


def growth_section(growth: pd.DataFrame, docs: Path) -> str:
    growth_figure(growth, docs / "growth.png")
    seeds = growth[growth.what == "seeds"].set_index("size").seconds
    per_seed = pd.DataFrame({"seconds": seeds.round(1), "seconds per seed": (seeds / seeds.index).round(2)})
    rest = growth[growth.what != "seeds"].drop(columns="drawn").round(1)
    rest["size"] = rest["size"].map("{:,}".format)
    return f"""## Growth

![Seconds against seeds, random triplets and words](growth.png)

Seeds (two epochs of fine-tuning on the chat corpus, `lstm`, eager; the first row includes starting the processes):

{per_seed.to_markdown()}

Twenty epochs of random triplets drawn, and 200 steps of `mean` with that many words; megabytes are what the process
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
up to 100,000 premises and `ivf` beyond them; `rlm.models.search.Index` describes the methods. Recall counts what is
as near as the tenth exact neighbour.

{table.to_markdown()}"""


def limits_section(rows: pd.DataFrame) -> str:
    rates = rows.drop_duplicates(["dataset", "encoder", "round"])
    ratio = {kind: (rates[f"gflops {kind} bf16"] / rates[f"gflops {kind} fp32"]).median() for kind in ("large", "step")}
    has_bf16 = resolve_precision("bf16", torch.device("cpu")) == "bf16"
    kept = """: a study that asks for bf16 multiplies in fp32 there, as on
  any CPU without AMX, and reports it. The effect of AMX was not measured"""
    return f"""## What limits

- In bf16, matrix products run at {ratio["large"]:.1f} times the fp32 rate on this CPU with large matrices, and at
  {ratio["step"]:.1f} times with those of a step{"" if has_bf16 else kept}.
- Of an uncompiled step of `lstm` (Russian pairs, 8 seeds, grouped, row-wise, fp32, one core; 15.4 ms where
  `torch.profiler` saw it) 45 % are matrix products, at the rate of those of a step, and 30 % the passes in C over gates
  and states, which for 8 seeds do not fit the second-level cache. Word vectors and their gradients take 5 %; the rest
  are PyTorch's other operations, and calling all that. So products alone would be little more than twice as fast. In
  bf16 they take a third of their time, and the rest decides. A compiled step has less of this rest. With long phrases
  it gains a tenth to a fifth, and waits one to two minutes for the compiler where nothing is on disk: so only steps of
  short phrases are compiled by default.
- A compiled step waits for PyTorch, too. The first one of `mean` took 17 s of processor time on an empty cache, 10 s
  with `TORCHINDUCTOR_VEC_ISA_OK=1`: without it, PyTorch first runs programs that test the instruction sets of the CPU,
  once for a machine. A later process needed 4 s.
- The step of the default, `flat`, encodes three phrases a triplet, that of `grouped` 1.4 (of five negatives). That is a
  factor of two for LSTMs, and the next lever: [defaults](defaults.md) have to show that it costs no accuracy.
- Compiling one position of the recurrence for any number of rows was tried as well: `torch.compile` took 8 to 23 s for
  the two kernels, and they were no faster than PyTorch's own operations.
- Of a compiled step of `mean` (the same; 2.3 ms) 41 % is the graph, which for the most part moves rows of word
  vectors and of their moments: memory, not arithmetic. Building the batch takes 14 %, finding its different words 10 %,
  Adam of the other weights 1 %, calling all that the rest.
- sentence-transformers is bound by Python, so that the ratio to it depends on the machine more than the ratio to the
  hand loop does.
- [gpu.md](gpu.md) has the times on a GPU."""


def growth_figure(rows: pd.DataFrame, out: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axis, what in zip(axes, ("seeds", "random triplets", "words"), strict=True):
        part = rows[rows.what.str.startswith(what)]
        part = part.assign(what=part.what.str.removeprefix(f"{what}, "))
        sns.lineplot(part, x="size", y="seconds", hue="what", marker="o", ax=axis, legend=what != "seeds")
        axis.set(xscale="log", yscale="log", xlabel=what, ylabel="seconds")
        axis.yaxis.set_major_formatter("{x:g}")
        if what == "seeds":
            axis.set_xticks(part["size"], part["size"].astype(str))
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.minorticks_off()
        else:
            axis.legend(loc="upper left", frameon=False)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    sections = [
        ("peers", lambda found: peers_section(pd.DataFrame(found))),
        ("study", study_section),
        ("growth", lambda found: growth_section(pd.DataFrame(found), options.docs)),
        ("reading", reading_section),
        ("search", search_section),
        ("peers", lambda found: limits_section(pd.DataFrame(found))),
    ]
    parts = [f"# Performance\n\nMeasured by `make bench`, which ended on {datetime.date.today()}: {machine()}."]
    for name, section in sections:
        measured = options.folder / f"{name}.json"
        if measured.exists():
            parts.append(section(json.loads(measured.read_text())))
    (options.docs / "performance.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
