"""Kinds of negatives, against slow oracles. Random ones: see test_slicer."""

import re

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare
from sparse_dot_topn import sp_matmul_topn
from synthetic import make_synthetic

import rlm
from rlm.data import similarity
from rlm.data.negatives import draw_negatives


@pytest.fixture(scope="module")
def corpus():
    return rlm.index_corpus(make_synthetic(400, difficulty=0.3, rng=np.random.default_rng(0)))


def grams(text):
    text = f" {' '.join(rlm.data.phrases.tokenise(text))} "
    return {text[i : i + 3] for i in range(len(text) - 2)}


def cosine(one, other):
    return len(one & other) / np.sqrt(len(one) * len(other))


def test_similar_negatives_are_the_most_alike_of_their_side(corpus):
    pairs, texts = corpus.rows[:80], corpus.phrases.texts
    triplets, missing = draw_negatives(pairs, 3, np.random.default_rng(0), texts, kinds={"similar": 1})
    assert missing.sum() == 0
    sides = [{phrase: grams(texts[phrase]) for phrase in pairs[:, side].tolist()} for side in (0, 1)]
    for pair, three in zip(pairs.tolist(), triplets.reshape(-1, 3, 3).tolist(), strict=True):
        for number, (query, positive, negative) in enumerate(three):
            side, rank = number % 2, number // 2
            assert [query, positive] == (pair if side == 0 else pair[::-1])
            candidates = [
                cosine(grams(texts[query]), other)
                for phrase, other in sides[1 - side].items()
                if phrase not in (query, positive)
            ]
            expected = sorted(candidates, reverse=True)[rank]
            assert cosine(grams(texts[query]), sides[1 - side][negative]) == pytest.approx(expected)


def test_no_negative_is_relevant_whatever_its_kind():
    """Each of 40 anchors has every third question: what is most alike is mostly relevant."""
    rows = [(f"fact {i} of many", f"fact {j} of many?!") for i in range(40) for j in range(50, 90) if (i + j) % 3]
    pairs = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"])).rows
    relevant = {tuple(pair) for pair in np.concatenate([pairs, pairs[:, ::-1]]).tolist()}
    texts = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"])).phrases.texts
    triplets, _ = draw_negatives(pairs, 4, np.random.default_rng(0), texts, kinds={"similar": 0.5, "random": 0.5})
    assert not {(query, negative) for query, _, negative in triplets.tolist()} & relevant


def test_similar_negatives_are_found_behind_many_relevant_ones():
    """The 60 phrases of a label are the most alike, and all relevant."""
    rows = [
        (f"{word} {i}", f"{word} {(i + 1) % 60}", word) for word in ("aaaa", "aabb", "zzzz", "zzyy") for i in range(60)
    ]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive", "label"]))
    triplets, missing = draw_negatives(
        corpus.rows, 2, np.random.default_rng(0), corpus.phrases.texts, relevance=corpus.relevance, kinds={"similar": 1}
    )
    assert missing.sum() == 0
    words = np.array([text.split()[0] for text in corpus.phrases.texts])[triplets]
    nearest = {"aaaa": "aabb", "aabb": "aaaa", "zzzz": "zzyy", "zzyy": "zzzz"}
    assert all(negative == nearest[anchor] for anchor, _, negative in words)


def test_manual_negatives_are_taken_from_the_side_that_has_them():
    rows = [(f"a{i}", f"p{i}", 1) for i in range(60)] + [(f"a{i}", f"n{i}", 0) for i in range(60)]
    slices = rlm.slice_corpus(rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive", "relevance"])))
    texts = np.array(slices.phrases.texts)
    assert slices.summary["redrawn_negatives"].sum() == 0
    for anchor, positive, negative in texts[slices.train]:
        assert (anchor[0], positive[0], negative[0]) == ("a", "p", "n")
        assert anchor[1:] == positive[1:] == negative[1:]


def test_an_irrelevant_pair_of_one_label_is_a_contradiction():
    rows = [(f"{label} {i}", f"{label} {(i + 1) % 6}", label, 1) for label in "abcdefgh" for i in range(6)]
    rows += [("a 0", "a 3", "", 0), ("a 0", "b 3", "", 0)]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive", "label", "relevance"]))
    assert len(corpus.irrelevant) == 1
    assert corpus.explain_dropped() == "1 relevant elsewhere (row 48)"


def test_shares_are_met_and_missing_manual_negatives_are_random(corpus):
    irrelevant = np.stack([corpus.rows[:300, 0], np.roll(corpus.rows[:300, 1], 7)], axis=1)
    known = {tuple(pair) for pair in irrelevant.tolist()} | {tuple(pair) for pair in irrelevant[:, ::-1].tolist()}
    kinds = {"manual": 0.4, "random": 0.6}
    triplets, missing = draw_negatives(
        corpus.rows, 20, np.random.default_rng(0), corpus.phrases.texts, kinds=kinds, irrelevant=irrelevant
    )
    is_manual = np.array([(query, negative) in known for query, _, negative in triplets.tolist()])
    assert (~is_manual).sum() == pytest.approx((0.6 + 0.4 * 0.25) * 20 * len(corpus.rows), rel=0.05)
    assert missing.sum() == pytest.approx(0.4 * 0.25 * 20 * len(corpus.rows), rel=0.1)
    assert is_manual.sum() > 0.9 * 2 * 300  # a pair known as irrelevant stands once for either side
    assert len(np.unique(triplets, axis=0)) == len(triplets)


def test_irrelevant_phrases_stay_in_one_split():
    """Phrases that only serve as irrelevant ones, each to several anchors."""
    rng = np.random.default_rng(0)
    rows = [(f"a{i}", f"p{i}", 1) for i in range(100)]
    rows += [(f"a{i}", f"n{rng.integers(40)}", 0) for i in range(100) for _ in range(2)]
    data = pd.DataFrame(rows, columns=["anchor", "positive", "relevance"])
    slices = rlm.slice_corpus(rlm.index_corpus(data), seed=0, negatives=3)
    train, validation, test = (set(split.ravel()) for split in (slices.train, slices.validation, slices.test))
    assert not train & validation
    assert not train & test
    assert not validation & test
    texts = np.array(slices.phrases.texts)
    assert any(text.startswith("n") for text in texts[slices.test[:, 2]])


@pytest.mark.parametrize("kinds", [{"similar": 0.5}, {"hard": 1}, {"similar": 1.5, "random": -0.5}, {}])
def test_shares_are_checked(corpus, kinds):
    with pytest.raises(
        ValueError, match="expected shares of random, similar, manual, cascade negatives with the sum 1"
    ):
        draw_negatives(corpus.rows, 1, np.random.default_rng(0), corpus.phrases.texts, kinds=kinds or {"random": 0.0})


def test_thirds_are_shares(corpus):
    kinds = {"similar": 0.333333, "random": 0.666666}
    assert len(draw_negatives(corpus.rows, 1, np.random.default_rng(0), corpus.phrases.texts, kinds=kinds)[0]) == 400


def test_triplets_have_negatives_of_their_own():
    data = make_synthetic(100, shortcut=0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected pairs for negative_kinds, found triplets"):
        rlm.slice_corpus(rlm.index_corpus(data), negative_kinds={"similar": 1})


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ([], None),
        (["anchor 0|no question", "no premise|positive 1"], None),
        (["a|b", "anchor 0|c", "d|positive 1", "e|f"], "of 4 irrelevant pairs 1 have a premise (anchor) and 1 a"),
        (["a|b", "c|d"], "of 2 irrelevant pairs 0 have a premise (anchor) and 0 a question (positive) of the data; 2"),
    ],
)
def test_irrelevant_pairs_that_give_no_negatives_are_counted_once(known, words, tmp_path, caplog, rlm_command):
    """By `rlm study`, `rlm train` and `rlm audit`: neither of their phrases is in a relevant pair."""
    pairs = pd.DataFrame([(f"anchor {i}", f"positive {i}") for i in range(60)], columns=["anchor", "positive"])
    pairs.to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "known.txt").write_text("\n".join(["anchor 2|positive 3", *known][bool(words) :]))
    data = ["--dataset", tmp_path / "own.csv", "--irrelevant", tmp_path / "known.txt"]
    quick = ["--encoder", "mean", "--max-epochs", 1, "--arms", "scratch"]
    for command in (["study", *quick, "--seeds", 1, "--jobs", 1], ["train", *quick[:-2], "--save", tmp_path / "model"]):
        caplog.clear()
        assert rlm_command(command[0], *data, *command[1:])[0] == 0
        told = [record.getMessage() for record in caplog.records if "irrelevant pairs" in record.getMessage()]
        assert len(told) == (words is not None)
        assert all(message.startswith(words) and "such as 'a' and 'b'" in message for message in told)
    printed = rlm_command("audit", *data)[1]
    assert len(re.findall(r"of \d+ irrelevant pairs", printed)) == (words is not None)


def test_manual_negatives_need_irrelevant_pairs(corpus):
    with pytest.raises(ValueError, match="expected pairs known to be irrelevant, for manual negatives, found none"):
        rlm.slice_corpus(corpus, negative_kinds={"manual": 1})


def test_workers_look_for_similar_negatives_with_one_thread_each(monkeypatch):
    """There is a worker on every core already; the process that starts them has all cores for itself."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 7)
    asked = []

    def counted(*arguments, n_threads, **settings):
        asked.append(n_threads)
        return sp_matmul_topn(*arguments, n_threads=1, **settings)

    monkeypatch.setattr(similarity, "sp_matmul_topn", counted)
    grams = similarity.trigrams(["one text", "another text"])
    similarity.most_alike(grams, grams, 1)
    assert asked == [7]
    assert joblib.Parallel(2)(joblib.delayed(similarity.threads)() for _ in range(2)) == [1, 1]


STOCK = 60


@pytest.fixture(scope="module")
def stock():
    """Each of 60 goods has a word that 4 of them share, and all have a word that counts for nothing."""
    rows = [(f"the good{i} of kind{i // 4}", f"is it by maker{i} kind{i // 4} or the like") for i in range(STOCK)]
    rows += [(f"alone{i}", f"apart{i} the same") for i in range(200)]
    return rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"]))


def test_a_cascade_takes_manual_negatives_then_a_shared_rare_word_then_random_ones(stock):
    texts, rng = np.array(stock.phrases.texts), np.random.default_rng(0)
    known = stock.rows[:10, 0]
    irrelevant = np.stack([known, stock.rows[-10:, 1]], axis=1)
    triplets, missing = draw_negatives(
        stock.rows, 4, rng, stock.phrases.texts, kinds={"cascade": 1}, irrelevant=irrelevant
    )
    relevant = {frozenset(pair) for pair in stock.rows.tolist()}
    manual = {frozenset(pair) for pair in irrelevant.tolist()}
    counts = dict.fromkeys(["manual", "word", "random"], 0)
    words = [set(rlm.data.phrases.tokenise(text)) for text in texts]
    for query, positive, negative in triplets.tolist():
        assert frozenset((query, negative)) not in relevant
        kinds_of = [[word for word in words[phrase] if word.startswith("kind")] for phrase in (query, negative)]
        if {query, positive} & set(irrelevant.ravel().tolist()):
            assert frozenset((query, negative)) in manual
            counts["manual"] += 1
        elif any(word.startswith("kind") for word in words[query]):
            assert kinds_of[0] == kinds_of[1]
            counts["word"] += 1
        else:
            counts["random"] += 1
    assert counts["manual"] == 20  # known for one side, which is then the anchor; repeated ones are dropped
    assert counts["random"] == missing.sum() > 0
    assert counts["word"] > 50


def test_a_candidate_is_drawn_as_often_as_it_has_pairs_and_shared_words():
    """Of the rare words "red" and "car" one, by how many pairs have it, then one of these pairs."""
    rows = [("red car", "own one"), ("x", "red bike"), ("y", "red bus"), ("z", "car wash"), ("w", "red car wash")]
    rows += [("v", "red bike"), *((f"f{i}", f"o{i}") for i in range(120))]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"]))
    drawn = []
    for seed in range(150):
        rng, texts = np.random.default_rng(seed), corpus.phrases.texts
        triplets, _ = draw_negatives(corpus.rows, 1, rng, texts, kinds={"cascade": 1})
        drawn.append(texts[triplets[0, 2]])
    shares = {"red bike": 2 / 6, "red bus": 1 / 6, "car wash": 1 / 6, "red car wash": 2 / 6}
    assert set(drawn) == set(shares)
    assert chisquare([drawn.count(text) for text in shares], [150 * share for share in shares.values()]).pvalue > 1e-3


def test_a_cascade_without_a_shared_word_is_random():
    rows = [(f"a{i}", f"b{i}") for i in range(50)]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"]))
    triplets, missing = draw_negatives(
        corpus.rows, 2, np.random.default_rng(0), corpus.phrases.texts, kinds={"cascade": 1}
    )
    random, _ = draw_negatives(corpus.rows, 2, np.random.default_rng(0), corpus.phrases.texts)
    np.testing.assert_array_equal(triplets, random)
    assert missing.sum() == len(triplets)
