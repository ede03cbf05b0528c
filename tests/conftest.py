"""
Synthetic data, and the command line, shared by the tests.

What takes seconds to import is imported where it is used: the process that deals the tests out reads this file, too.
"""

import os
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

# The cores are busy with other tests: a study that does not ask for processes of its own trains where it is started.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
settings.register_profile("rlm", deadline=None)  # shared machines have slow moments
settings.load_profile("rlm")

collect_ignore = ["warm_study.py", "external/warm_judge.py"]  # they train when they are imported

SMALL = {"encoder": "mean", "word_dim": 4, "dim": 6, "max_epochs": 2, "pretrain_epochs": 1}
QUICK = ["--jobs", 1] + [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The tensors are so small that threads would only wait for each other."""
    import torch

    torch.set_num_threads(1)


def topic_pairs(rng: np.random.Generator, topics: int, pairs: int, words: int = 3) -> pd.DataFrame:
    """Pairs of different phrases; both phrases of a pair, and no others, carry the word of one topic."""

    def phrase(topic: int, number: int) -> str:
        fill = [f"fill{i}" for i in sorted(rng.integers(5, size=rng.integers(words)))]
        return " ".join([*fill, f"topic{topic}", f"serial{number}"])

    rows = [(phrase(i % topics, 2 * i), phrase(i % topics, 2 * i + 1)) for i in range(pairs)]
    return pd.DataFrame(rows, columns=["anchor", "positive"])


def pretrain(block, slices, **settings):
    """Pre-train; settings that a `Recipe` has make one."""
    import rlm

    return rlm.pretrain(block, slices, *_make_recipe(settings), **settings)


def finetune(block, slices, **settings):
    """Fine-tune; settings that a `Recipe` has make one."""
    import rlm

    return rlm.finetune(block, slices, *_make_recipe(settings), **settings)


def _make_recipe(settings):
    import rlm

    given = {name: settings.pop(name) for name in rlm.Recipe.model_fields if name in settings}
    return [rlm.Recipe.model_construct(**given)]  # not validated: some tests take a learning rate of 0, or of 1e30


@pytest.fixture(scope="session")
def corpus():
    from rlm.data.corpus import index_corpus

    return index_corpus(topic_pairs(np.random.default_rng(0), topics=6, pairs=90))


@pytest.fixture(scope="session")
def slices(corpus):
    from rlm.slicer import slice_corpus

    # Every phrase has a word of its own, without which it could not be told from others.
    return slice_corpus(corpus, seed=0, fractions=(0.5, 0.3, 0.2), negatives=2, min_count=1)


@pytest.fixture(scope="session")
def unequal_slices(corpus):
    """Three splits of one corpus whose training parts differ much in size."""
    from rlm.slicer import slice_corpus

    fractions = [(0.2, 0.4, 0.4), (0.7, 0.2, 0.1), (0.45, 0.3, 0.25)]
    return [slice_corpus(corpus, seed, shares, negatives=2) for seed, shares in enumerate(fractions)]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    topic_pairs(np.random.default_rng(0), topics=6, pairs=120).to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture
def rlm_command(monkeypatch, capsys):
    """Runs `rlm ARGUMENTS`; gives exit code, output and errors."""
    from rlm.cli.main import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlm", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def browser():
    """A real browser, without a window."""
    from benchmarks.browser import find_chromium, open_browser

    if find_chromium() is None:
        pytest.skip("expected chromium on the PATH, found none; run make browser, or install it")
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def losses():
    """Those of sentence-transformers."""
    from sentence_transformers.sentence_transformer import losses

    return losses
