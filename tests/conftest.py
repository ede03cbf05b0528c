"""Synthetic data, and the command line, shared by the tests."""

import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from benchmarks.browser import find_chromium, open_browser
from rlm.cli import main
from rlm.corpus import Corpus, index_corpus
from rlm.slicer import slice_corpus

# The cores are busy with other tests: a study that does not ask for processes of its own trains where it is started.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
settings.register_profile("rlm", deadline=None)  # shared machines have slow moments
settings.load_profile("rlm")
torch.set_num_threads(1)  # the tensors are small

SMALL = {"encoder": "mean", "word_dim": 4, "dim": 6, "max_epochs": 2, "pretrain_epochs": 1}
QUICK = ["--jobs", 1] + [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def topic_pairs(rng: np.random.Generator, topics: int, pairs: int, words: int = 3) -> pd.DataFrame:
    """Pairs of different phrases; both phrases of a pair, and no others, carry the word of one topic."""

    def phrase(topic: int, number: int) -> str:
        fill = [f"fill{i}" for i in sorted(rng.integers(5, size=rng.integers(words)))]
        return " ".join([*fill, f"topic{topic}", f"serial{number}"])

    rows = [(phrase(i % topics, 2 * i), phrase(i % topics, 2 * i + 1)) for i in range(pairs)]
    return pd.DataFrame(rows, columns=["anchor", "positive"])


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return index_corpus(topic_pairs(np.random.default_rng(0), topics=6, pairs=90))


@pytest.fixture(scope="session")
def slices(corpus):
    return slice_corpus(corpus, seed=0, fractions=(0.5, 0.3, 0.2), negatives=2)


@pytest.fixture(scope="session")
def unequal_slices(corpus):
    """Three splits of one corpus whose training parts differ much in size."""
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
    if find_chromium() is None:
        pytest.skip("expected chromium on the PATH, found none; run make browser, or install it")
    with open_browser() as opened:
        yield opened


TORCH_NAMES = {
    "lstm": {
        "cell.weight_ih": "layer.weight_ih_l0",
        "cell.weight_hh": "layer.weight_hh_l0",
        "cell.bias_ih": "layer.bias_ih_l0",
        "cell.bias_hh": "layer.bias_hh_l0",
    },
    "mean": {"output.weight": "layer.weight", "output.bias": "layer.bias"},
}


class TorchTwin(nn.Module):
    """The encoder of the same name made of PyTorch's own layers."""

    def __init__(self, kind, weights):
        super().__init__()
        self.kind = kind
        self.names = {"words.weight": "words.weight"} | TORCH_NAMES[kind]
        vocabulary, word_dim = weights["words.weight"].shape
        self.words = nn.Embedding(vocabulary, word_dim)
        if kind == "lstm":
            self.layer = nn.LSTM(word_dim, weights["cell.weight_hh"].shape[1])
        else:
            self.layer = nn.Linear(word_dim, len(weights["output.weight"]))
        self.to(weights["words.weight"].dtype)
        self.load_state_dict({theirs: weights[ours].detach() for ours, theirs in self.names.items()})

    def forward(self, tokens):
        phrases = [phrase[phrase != 0] for phrase in tokens]
        if self.kind == "mean":
            return torch.stack([self.layer(self.words(phrase).mean(dim=0)) for phrase in phrases])
        backwards = [self.words(phrase.flip(0)) for phrase in phrases]
        return self.layer(pack_sequence(backwards, enforce_sorted=False))[1][0][0]

    def weights(self):
        mine = dict(self.named_parameters())
        return {ours: mine[theirs] for ours, theirs in self.names.items()}


@pytest.fixture(scope="session")
def torch_twin():
    """Makes the `TorchTwin` of a kind with given weights."""
    return TorchTwin
