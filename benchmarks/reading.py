"""From a file of millions of triplets to index arrays, beside pandas and dictionaries; and similar negatives."""

import argparse
import json
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

import rlm
from rlm.data.negatives import draw_negatives
from rlm.data.phrases import tokenise

NEGATIVES = 5
READERS = {"rlm": "by_rlm", "pandas and dictionaries": "by_dictionaries"}


def write_triplets(path: Path, triplets: int, seed: int = 0) -> None:
    """Phrases of 3 to 7 words out of 50,000; five positives per anchor, five negatives per pair."""
    rng = np.random.default_rng(seed)
    pairs = triplets // NEGATIVES
    words = np.array(["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(3, 9))) for _ in range(50_000)], object)

    def phrases(count: int) -> np.ndarray:
        lengths = rng.integers(3, 8, count)
        chosen = words[(50_000 * rng.random(lengths.sum()) ** 2).astype(int)]  # some words are common, most are rare
        return np.array([" ".join(some) for some in np.split(chosen, lengths.cumsum()[:-1])], object)

    anchors, positives = phrases(pairs // 5 + 1), phrases(pairs)
    with path.open("w") as file:
        file.write("anchor\tpositive\tnegative\n")
        for start in range(0, pairs, 10_000):
            pair = np.arange(start, min(start + 10_000, pairs)).repeat(NEGATIVES)
            columns = anchors[pair // 5], positives[pair], positives[rng.integers(pairs, size=len(pair))]
            file.writelines("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def by_rlm(path: Path) -> int:
    return len(rlm.index_corpus(rlm.read(path)).rows)


def by_dictionaries(path: Path) -> int:
    """What one writes: pandas reads, a dictionary numbers the phrases, another the words."""
    frame = pd.read_csv(path, sep="\t", quoting=3, keep_default_na=False)
    number_of: dict[str, int] = {}
    rows = [[number_of.setdefault(text, len(number_of)) for text in row] for row in frame.itertuples(index=False)]
    word_of: dict[str, int] = {}
    tokens = [tuple(word_of.setdefault(word, len(word_of)) for word in tokenise(text)) for text in number_of]
    phrase_of: dict[tuple[int, ...], int] = {}
    phrase = np.array([phrase_of.setdefault(words, len(phrase_of)) for words in tokens], np.int32)
    found = phrase[np.array(rows, np.int32)]
    is_usable = (np.diff(np.sort(found, axis=1)) != 0).all(axis=1)
    return len(pd.DataFrame(found[is_usable]).drop_duplicates())


def similar_negatives(path: Path) -> int:
    """Two of the most alike negatives for each pair of 100,000 different phrases."""
    corpus = rlm.index_corpus(rlm.read(path).drop(columns="negative"))
    pairs = corpus.rows[: int(100_000 / 1.2)]  # five positives to an anchor
    start = time.perf_counter()
    draw_negatives(pairs, 2, np.random.default_rng(0), corpus.phrases.texts, kinds={"similar": 1})
    print(f"similar negatives of {len(np.unique(pairs)):,} phrases: {time.perf_counter() - start:.0f} s", flush=True)
    return len(np.unique(pairs))


def measured(function: str, path: Path) -> dict[str, float]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    rows = globals()[function](path)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rows": rows, "seconds": seconds, "peak GB": peak / 2**20, "before GB": before / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triplets", type=int, default=5_000_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "triplets.tsv")
        write_triplets(path, options.triplets)
        size = path.stat().st_size / 1e6
        print(f"{options.triplets:,} triplets, {size:.0f} MB", flush=True)
        for name, function in READERS.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                row = pool.submit(measured, function, path).result()
            found.append({"reader": name, "triplets": options.triplets, "MB": size} | row)
            print(found[-1], flush=True)
        write_triplets(path, min(options.triplets, 500_000))
        similar_negatives(path)
    options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
