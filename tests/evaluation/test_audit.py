"""The audit finds what was planted, and nothing on the clean twin."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from synthetic import make_synthetic

import rlm
from rlm.data.similarity import jaccard, most_alike, trigrams
from rlm.evaluation.audit import slice_at_random
from rlm.evaluation.references import OVERLAP

PAIRS = 1200


def clean(**settings):
    return make_synthetic(PAIRS, rng=np.random.default_rng(0), **{"difficulty": 0.97} | settings)


def audited(data, max_tokens=32, slice=rlm.slice_corpus):
    corpus = rlm.index_corpus(data, max_tokens)
    return rlm.audit(corpus, slice(corpus, 0))


def found_in(audit):
    return set(audit.findings["check"])


def repeated_rows(data):
    return pd.concat([data, data[:400]], ignore_index=True)


def contradicting_rows(data):
    return pd.concat([data.assign(relevance=1), data[:40].assign(relevance=0)], ignore_index=True)


def slice_as_usual(corpus, seed):
    return slice_at_random(rlm.slice_corpus(corpus, seed))


def half_of_the_negatives(data):
    """Every second fact has an irrelevant question of its own, the others have none."""
    wrong = pd.DataFrame({"anchor": data["anchor"], "positive": data["positive"] + " Really?"})[::2]
    return pd.concat([data.assign(relevance=1), wrong.assign(relevance=0)], ignore_index=True)


def misspelt_copies(data):
    """Of every question a copy with a letter less, asked of another fact."""
    copies = pd.DataFrame({"anchor": data["anchor"] + " Indeed.", "positive": data["positive"].str.slice(0, -2) + "?"})
    return pd.concat([data, copies], ignore_index=True)


def unique_words(data):
    return data.map(lambda text: " ".join(f"{word}{hash(text) % 10**9}" for word in text.split()))


def japanese(data):
    return data.map(lambda text: "".join(chr(0x3041 + ord(letter) % 80) for letter in text))


FAULTS = {
    ("dropped rows",): lambda data: audited(repeated_rows(data)),
    ("contradictions",): lambda data: audited(contradicting_rows(data)),
    ("shared phrases",): lambda data: audited(data, slice=slice_as_usual),
    ("redrawn negatives",): lambda data: audited(half_of_the_negatives(data)),
    ("near duplicates",): lambda data: audited(misspelt_copies(data)),
    ("size of the test",): lambda data: audited(data[:300]),
    ("unknown words",): lambda data: audited(unique_words(data)),
    ("long phrases",): lambda data: audited(data, max_tokens=8),
    ("words",): lambda data: audited(japanese(data)),
    ("difficulty", "anchor-blind", "signal in random triplets"): lambda _: audited(clean(difficulty=0, shortcut=1)),
}


@pytest.fixture(autouse=True, scope="module")
def quick_encoders():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlm.evaluation.audit.LEAK_EPOCHS", 1)
        patch.setattr("rlm.evaluation.audit.LEAK_SEEDS", 1)
        yield


@pytest.fixture(scope="module")
def data():
    return clean()


@pytest.fixture(scope="module")
def audit_of_clean(data):
    return audited(data)


def test_nothing_is_found_on_clean_data(audit_of_clean):
    assert audit_of_clean.findings.empty, audit_of_clean.findings.to_string()
    assert set(sum(FAULTS, ())) == {*audit_of_clean.checks["check"]} - {"a usual split"}


@pytest.mark.parametrize("faults", FAULTS, ids=", ".join)
def test_planted_faults_are_found(faults, data):
    assert set(faults) <= found_in(FAULTS[faults](data))


def triplets_with_negatives(negative_of):
    rows = [(f"fact {i} x{i}", f"question {i} y{i}", negative_of(i)) for i in range(200)]
    audit = audited(pd.DataFrame(rows, columns=["anchor", "positive", "negative"]))
    return audit.checks.set_index("check").loc["redrawn negatives"]


@pytest.mark.parametrize("change", [{"split_by": "triplet"}, {"train_fraction": 0.05}], ids=str)
def test_a_split_is_counted_as_the_slicer_counts_it(change):
    """Neither phrases that are negatives alone nor rows that were dropped are anchors of a split."""
    pairs = [(f"fact number{i} alpha{i}", f"question number{i} beta{i}", 1) for i in range(300)]
    pairs += [(f"fact number{i} alpha{i}", f"question number{i + 1} beta{i + 1}", 0) for i in range(40)]
    corpus = rlm.index_corpus(pd.DataFrame(pairs, columns=["anchor", "positive", "relevance"]))
    slices = rlm.slice_corpus(corpus, negatives=3, negative_kinds={"manual": 1}, **change)
    found = rlm.audit(corpus, slices)
    assert found.splits["anchors"].tolist() == slices.summary["anchors"].tolist()
    assert found.splits["clusters"].tolist() == slices.summary["clusters"].tolist()
    assert (slices.summary["redrawn_negatives"] <= slices.summary["triplets"]).all()


def test_redrawn_negatives_of_triplets_are_those_that_another_split_uses():
    shared = triplets_with_negatives(lambda i: f"question {(i + 1) % 200} y{(i + 1) % 200}")
    assert shared["severity"] == "warning"
    assert "in another split, where other rows use them" in shared["found"]
    assert "negatives that no row of another cluster uses" in shared["advice"]
    own = triplets_with_negatives(lambda i: f"remark {i} z{i}")
    assert own["severity"] == "fine"
    assert own["found"].startswith("0 negatives (0.0%)")


@pytest.mark.parametrize(("max_tokens", "found"), [(32, "the longest has 9 words"), (8, "the 8 words that are read")])
def test_the_limit_of_words_is_not_confused_with_the_longest_phrase(max_tokens, found):
    rows = [(f"fact {i} x{i}", f"question {i} y{i} " + "and so on " * 2) for i in range(60)]
    audit = audited(pd.DataFrame(rows, columns=["anchor", "positive"]), max_tokens)
    assert found in audit.checks.set_index("check").loc["long phrases", "found"]


def test_references_are_those_of_a_slow_loop(audit_of_clean, data):
    corpus = rlm.index_corpus(data)
    slices = rlm.slice_corpus(corpus, 0)

    def grams(phrase):
        text = f" {' '.join(rlm.data.phrases.tokenise(corpus.phrases.texts[phrase]))} "
        return {text[i : i + 3] for i in range(len(text) - 2)}

    def likeness(one, other):
        return len(grams(one) & grams(other)) / len(grams(one) | grams(other))

    right = [
        np.sign(likeness(anchor, positive) - likeness(anchor, negative)) / 2 + 0.5
        for anchor, positive, negative in slices.test
    ]
    overlap = audit_of_clean.references.loc[OVERLAP]
    assert overlap["accuracy"] == pytest.approx(np.mean(right))
    assert overlap["low"] <= overlap["accuracy"] <= overlap["high"]


def test_hard_negatives_are_harder(audit_of_clean):
    assert audit_of_clean.references["accuracy"].iloc[1] < audit_of_clean.references["accuracy"].iloc[0] - 0.1


def test_effective_anchors_are_the_inverse_of_the_sum_of_squared_shares():
    rows = [(f"a{i} x{i}", f"p{i} {j} y{i}") for i in range(60) for j in range(1 + i % 4)]
    corpus = rlm.index_corpus(pd.DataFrame(rows, columns=["anchor", "positive"]))
    slices = rlm.slice_corpus(corpus, 0)
    audit = rlm.audit(corpus, slices)
    texts = np.array(corpus.phrases.texts)
    for split in ("train", "validation", "test"):
        mine = {text for text in texts[np.unique(getattr(slices, split))] if text.startswith("a")}
        sizes = np.array([1 + int(text.split()[0][1:]) % 4 for text in mine])
        row = audit.splits.loc[split]
        assert row["effective anchors"] == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
        assert row["anchors"] == row["clusters"] == len(mine)


def test_the_usual_split_is_shown_to_leak(audit_of_clean):
    found = audit_of_clean.checks.set_index("check").loc["a usual split", "found"]
    assert "100% of the test triplets would have a training phrase" in found


@pytest.mark.parametrize("rows", [8, 60])
def test_tiny_triplets_are_audited_as_far_as_they_go(rows):
    """A test split of one row has no interval and no harder negatives."""
    data = pd.DataFrame(
        {side: [f"{side} {i} x{i}" for i in range(rows)] for side in ("anchor", "positive", "negative")}
    )
    audit = audited(data)
    assert audit.references["accuracy"].drop("trigram overlap, most similar negatives").notna().all()
    assert "size of the test" in found_in(audit)


class TestSimilarity:
    def test_most_alike_is_the_slow_one(self):
        rng = np.random.default_rng(0)
        texts = ["".join(rng.choice(list("abc "), 8)) + "x" for _ in range(60)]
        grams = trigrams(texts)
        dense = grams.toarray()
        cosine = dense @ dense.T / np.sqrt(np.outer(dense.sum(1), dense.sum(1)))
        found = most_alike(grams[:20], grams[20:], 5)
        for row, likeness in zip(found, cosine[:20, 20:], strict=True):
            row = row[row >= 0]
            np.testing.assert_allclose(likeness[row], -np.sort(-likeness)[: len(row)], rtol=1e-5)
        both = np.minimum(dense[:20], dense[20:40]).sum(1) / np.maximum(dense[:20], dense[20:40]).sum(1)
        np.testing.assert_allclose(jaccard(grams[:20], grams[20:40]), both, rtol=1e-6)

    def test_fewer_candidates_than_asked_for(self):
        grams = trigrams(["abc", "abd", "xyz"])
        assert most_alike(grams[:1], grams[1:], 4).tolist() == [[0, -1, -1, -1]]


class TestSynthetic:
    def test_every_question_fits_one_fact(self):
        data = make_synthetic(3000, difficulty=0, rng=np.random.default_rng(0))
        assert not data.duplicated().any()
        assert data["anchor"].is_unique
        assert data["positive"].is_unique
        for fact, question in data.itertuples(index=False):
            kept = set(question.rstrip("?").split()) & set(fact.rstrip(".").split())
            assert len(kept) >= 4

    def test_difficulty_is_the_overlap_that_is_left(self, audit_of_clean):
        easy = audited(clean(difficulty=0)).references.loc[OVERLAP, "accuracy"]
        assert easy > 0.99
        assert audit_of_clean.references.loc[OVERLAP, "accuracy"] < 0.9

    def test_noise_is_the_share_of_wrong_questions(self):
        right, noisy = (clean(noise=noise, difficulty=0.5) for noise in (0, 0.3))
        assert (right["positive"] != noisy["positive"]).mean() == pytest.approx(0.3, abs=0.04)
        assert set(right["positive"]) == set(noisy["positive"])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"pairs": 1}, "expected from 2 to 5,000,000 pairs, found 1"),
            ({"pairs": 9, "noise": 1.5}, "expected noise from 0 to 1, found 1.5"),
        ],
    )
    def test_ranges_are_checked(self, settings, message):
        with pytest.raises(ValueError, match=message):
            make_synthetic(**settings, rng=np.random.default_rng(0))

    STUDY: ClassVar = {
        "encoder": "mean",
        "word_dim": 8,
        "dim": 8,
        "pretrain_epochs": 3,
        "learning_rate": 0.01,
        "batch_size": 50,
    }

    def test_pretraining_helps_where_random_triplets_hold_the_answer(self):
        """Negatives are worded as no positive is, which random triplets tell as well; there is no fine-tuning."""
        data = make_synthetic(300, difficulty=1, shortcut=1, rng=np.random.default_rng(0))
        config = rlm.StudyConfig(**self.STUDY, max_epochs=0)
        verdict = rlm.compare(rlm.run_study(config, 12, data=data, progress=False), "pretrained")
        assert verdict.decision == "helps"

    def test_pretraining_cannot_help_where_nothing_can_be_learnt(self):
        data = make_synthetic(300, difficulty=1, noise=1, rng=np.random.default_rng(0))
        config = rlm.StudyConfig(**self.STUDY, max_epochs=3, split="per_seed")
        results = rlm.run_study(config, 20, data=data, progress=False)
        verdict = rlm.compare(results, "pretrained")
        assert verdict.decision == "no evidence either way"
        assert results["test_accuracy"].mean() == pytest.approx(0.5, abs=0.03)
