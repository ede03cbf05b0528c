"""What luck decides: the stored bits of test triplets add up, and collapsed seeds are named."""

import logging
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

import rlm
from rlm.cli.main import app
from rlm.stats.tables import find_collapse
from rlm.stats.variance import count_hits
from rlm.zoo.encoders import new_encoder

DATA = pd.DataFrame([(f"fact {n} <b>", f"question {n}") for n in range(60)], columns=["anchor", "positive"])
QUICK = {"encoder": "mean", "word_dim": 4, "dim": 4, "max_epochs": 2, "pretrain_epochs": 1, "compile": False}


def pack(scores, arm="scratch", seeds=None):
    """Store scores (0, 0.5 for a tie, 1), one row per seed, as a study does."""
    columns = {"arm": arm, "seed": seeds or range(len(scores)), "test": "split", "triplets": scores.shape[1]}
    bits = {"right": scores == 1, "tied": scores == 0.5}
    packed = {name: [np.packbits(row).tobytes() for row in one] for name, one in bits.items()}
    return pd.DataFrame(columns | packed)


SCORES = st.tuples(st.integers(1, 6), st.integers(1, 20)).flatmap(
    lambda shape: arrays(float, shape, elements=st.sampled_from([0.0, 0.5, 1.0]))
)


@settings(max_examples=25)
@given(SCORES)
def test_counts_and_churn_are_those_of_a_loop(scores):
    runs, (seeds, triplets) = pack(scores), scores.shape
    found = rlm.stats.tabulate_luck(runs).loc["scratch"]
    columns = [set(scores[:, triplet]) for triplet in range(triplets)]
    expected = {"right": {1.0}, "wrong": {0.0}, "tied": {0.5}}
    assert {kind: found[kind] for kind in expected} == {kind: columns.count(one) for kind, one in expected.items()}
    assert found["flips"] == sum(len(one) > 1 for one in columns)
    assert found["test_accuracy"] == pytest.approx(scores.mean())
    pairs = [(a, b) for a in range(seeds) for b in range(a)]
    if pairs:
        means = scores.mean(axis=1)
        assert found["churn"] == pytest.approx(np.mean([abs(scores[a] - scores[b]).mean() for a, b in pairs]))
        independent = [means[a] * (1 - means[b]) + means[b] * (1 - means[a]) for a, b in pairs]
        assert found["churn_independent"] == pytest.approx(np.mean(independent))
    hits = count_hits(runs)
    assert hits["triplets"].sum() == pytest.approx(1)
    assert hits["independent"].sum() == pytest.approx(1)
    assert (hits["independent"] * hits["right"]).sum() == pytest.approx(scores.mean(axis=1).sum())


@settings(max_examples=15)
@given(SCORES, st.integers(0, 2**32 - 1))
def test_gains_minus_losses_are_the_difference_of_accuracies(scores, seed):
    other = np.random.default_rng(seed).permuted(scores, axis=1)[:, ::-1].copy()
    other[0] = 1
    found = rlm.stats.tabulate_luck(pd.concat([pack(scores), pack(other, "pretrained")]))
    gain = found.loc["pretrained", "gained"] - found.loc["pretrained", "lost"]
    assert gain == pytest.approx(other.mean() - scores.mean())
    assert rlm.explain.luck(pd.concat([pack(scores), pack(other, "pretrained")])).endswith("only with scratch.")


def test_independent_seeds_look_independent():
    rng = np.random.default_rng(0)
    found = rlm.stats.tabulate_luck(pack((rng.random((4, 20_000)) < 0.7).astype(float))).loc["scratch"]
    assert found["churn"] == pytest.approx(found["churn_independent"], abs=0.01)
    assert found["wrong"] == pytest.approx(found["wrong_independent"], rel=0.2)


def test_different_test_splits_are_not_mixed():
    runs = pack(np.ones((2, 8))).assign(test=["one", "other"])
    with pytest.raises(rlm.InputError, match="expected runs on one test split, found 2"):
        rlm.stats.tabulate_luck(runs)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    path = tmp_path_factory.mktemp("luck") / "study.db"
    rlm.run_study(rlm.StudyConfig(**QUICK), 5, data=DATA, db=path, block_size=2, n_jobs=1, progress=False)
    return path


def test_stored_bits_add_up_to_the_stored_accuracies_exactly(db):
    stored = rlm.read_study(db).finished
    for arm, runs in stored.triplets.groupby("arm"):
        for _, run in runs.groupby("seed"):
            shares = rlm.stats.tabulate_triplets(run)[arm]
            row = stored.results.merge(run[["arm", "seed"]]).iloc[0]
            assert shares.mean() == row["test_accuracy"]
            assert len(shares) == row["test_triplets"]


def test_triplets_are_listed_with_their_texts(db):
    found = rlm.evaluation.list_triplets(db, data=DATA)
    results = rlm.read_study(db).finished.results
    for arm, runs in results.groupby("arm"):
        assert found[arm].mean() == pytest.approx(runs["test_accuracy"].mean())
    pairs = set(map(frozenset, DATA.itertuples(index=False, name=None)))
    for anchor, positive, negative in found[["anchor", "positive", "negative"]].itertuples(index=False, name=None):
        assert {anchor, positive} in pairs
        assert {anchor, negative} not in pairs
    with pytest.raises(rlm.InputError, match="found other test triplets"):
        rlm.evaluation.list_triplets(db, data=DATA[::-1].reset_index(drop=True).assign(positive=DATA["positive"]))


def test_the_command_lists_the_triplets_that_every_seed_has_wrong_first(tmp_path, capsys):
    out, figure, store = tmp_path / "triplets.csv", tmp_path / "luck.png", tmp_path / "study.db"
    config = rlm.StudyConfig(**QUICK | {"arms": ("scratch",), "max_epochs": 0})
    results = rlm.run_study(config, 3, db=store, n_jobs=1, progress=False)
    app(["luck", str(store), "--out", str(out), "--figure", str(figure)], result_action="return_value")
    assert "Under every one of 3 seeds, scratch gets" in capsys.readouterr().out
    table = pd.read_csv(out)
    assert table["scratch"].mean() == pytest.approx(results["test_accuracy"].mean())
    assert list(dict.fromkeys(table["kind"])) == [
        kind for kind in ("wrong", "flips", "tied", "right") if kind in set(table["kind"])
    ]
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def trained():
    """Two seeds that hard mining with a high learning rate pulls together."""
    slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    make = partial(new_encoder, "mean", slices.phrases.words, 16, 16, "unit")
    shared = {"epoch_triplets": 1500, "compile": False, "loss": "facenet"}
    pulled = rlm.Recipe(mining="hard", learning_rate=0.05, **shared)
    return slices, rlm.init_block(make, seeds=[3, 7]), pulled, rlm.Recipe(**shared)


class TestCollapse:
    @pytest.mark.parametrize(
        ("spread", "since"),
        [
            ([1, 0.5, 0.4], np.nan),
            ([1, 0.5, 0.01], np.nan),  # one epoch alone is not enough
            ([1, 0.01, 0.01], 1),
            ([1, 0.01, 0.5, 0.01, 0.01], 3),
            ([1, 0.01, 0.01, 0.5], np.nan),  # it recovered
            ([1, np.nan, np.nan], np.nan),
        ],
    )
    def test_lasts_until_the_end(self, spread, since):
        history = pd.DataFrame({"seed": 7, "epoch": range(len(spread)), "relative_spread": np.array(spread, float)})
        np.testing.assert_equal(find_collapse(history)[7], since)

    def test_is_named_in_the_log_once_while_it_trains(self, trained, caplog):
        slices, block, pulled, _ = trained
        with caplog.at_level(logging.WARNING, "rlm.training"):
            _, history = rlm.finetune(block, slices, pulled, max_epochs=6, progress=False)
        since = find_collapse(history)
        assert since.notna().all()
        told = [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]
        assert len(told) == 2
        for seed in (3, 7):
            start = f"seed {seed} collapsed: since epoch {since[seed]:.0f}"
            (mine,) = [text for text in told if text.startswith(start)]
            assert "learning_rate" in mine

    def test_healthy_seeds_are_not_named(self, trained, caplog):
        slices, block, _, healthy = trained
        with caplog.at_level(logging.WARNING, "rlm.training"):
            _, history = rlm.finetune(block, slices, healthy, max_epochs=6, progress=False)
        assert find_collapse(history).isna().all()
        assert not caplog.records

    def test_counts_as_failed_in_the_verdict(self):
        runs = pd.DataFrame([(arm, seed, 0.6) for arm in ("scratch", "pretrained") for seed in range(12)])
        runs.columns = ["arm", "seed", "test_accuracy"]
        sizes = {"test_clusters": 4000, "test_anchors": 4000, "test_triplets": 9000}
        collapsed = (runs["arm"] == "scratch") & (runs["seed"] < 4)
        runs = runs.assign(**sizes, split="fixed", collapsed=np.where(collapsed, 3.0, np.nan))
        verdict = rlm.compare(runs)
        assert verdict.failed["scratch"][1:] == (0, 0, 4)
        assert verdict.failed["scratch"].share.value == pytest.approx(1 / 3)
        assert "with scratch (0 diverged, 4 collapsed, 0 within noise of chance)" in verdict.text
        assert "embeddings collapsed" in verdict.headline
        assert verdict.failed["pretrained"].collapsed == 0
