"""Phrases and the slicer, against slow set-based oracles."""

import time
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from rlm.data.corpus import COLUMNS, index_corpus, relevance_clusters
from rlm.data.negatives import draw_negatives
from rlm.data.phrases import PAD, UNKNOWN, index_phrases, tokenise
from rlm.errors import InputError
from rlm.slicer import SPLITS, slice_corpus


def table(rows):
    return pd.DataFrame(rows, columns=list(COLUMNS[: len(rows[0])]))


def splits(slices):
    return [getattr(slices, name) for name in SPLITS]


def chain(name, pairs):
    """One cluster of the given number of pairs."""
    return [(f"{name} {i}", f"{name} {i + 1}") for i in range(pairs)]


def both_ways(pairs):
    return {(int(a), int(b)) for a, b in pairs} | {(int(b), int(a)) for a, b in pairs}


WRITE = [str, str.upper, str.title, "  {}!".format, "«{}»?".format, lambda text: text.replace(" ", ", ")]


@st.composite
def relevance_graphs(draw, columns):
    """Many small groups of phrases, paired at random inside a group, each mention written in its own way."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = draw(st.integers(40, 60))
    lonely = draw(st.integers(1, 10))

    def mention(group, member):
        text = f"{'ёжик' if member % 2 else 'cat'} group{group} member{member}"
        return WRITE[rng.integers(len(WRITE))](text.replace("ё", "е") if rng.random() < 0.5 else text)

    rows = []
    for group in range(groups):
        for _ in range(rng.integers(1, 3)):
            pair = [mention(group, member) for member in rng.choice(3, 2, replace=False)]
            other = (group + rng.integers(1, groups)) % groups
            negatives = [mention(other, rng.integers(3)), f"never positive {rng.integers(lonely)}"]
            rows.append((*pair, negatives[rng.integers(2)])[:columns])
    rng.shuffle(rows)
    return table([tuple(row) for row in rows])


class TestPhrases:
    def test_same_words_are_one_phrase_and_other_words_another(self):
        phrases, index = index_phrases(["Hello, world", "hello world!", "Ёлка", "елка.", "world hello"], 8)
        assert index[0] == index[1]
        assert index[2] == index[3]
        assert len(phrases) == len(set(index.tolist())) == 3
        assert set(phrases.texts) == {"Hello, world", "Ёлка", "world hello"}

    @given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9), min_size=1), st.integers(1, 9))
    def test_table_spells_every_text_cut_to_its_width_longest_first(self, texts, width):
        phrases, index = index_phrases([" ".join(words) for words in texts], width)
        for words, row in zip(texts, index, strict=True):
            tokens, length = phrases.tokens[row], phrases.lengths[row]
            assert [phrases.words[token - 2] for token in tokens[:length]] == words[:width]
            assert (tokens[length:] == PAD).all()
        assert (np.diff(phrases.lengths) <= 0).all()
        assert (phrases.tokens[-1] == PAD).all()
        assert phrases.lengths[-1] == 0
        assert phrases.cut == len({tuple(words[:width]) for words in texts if len(words) > width})

    def test_phrases_that_read_the_same_are_the_same(self):
        phrases, index = index_phrases(["how are you today", "how are you tomorrow", "how are"], 3)
        assert index[0] == index[1] != index[2]
        assert (len(phrases), phrases.cut) == (2, 1)

    def test_composed_and_decomposed_letters_and_either_apostrophe_are_the_same_word(self):
        assert tokenise("caf\u00e9 don\u2019t") == tokenise("cafe\u0301 don't")

    def test_combining_marks_belong_to_the_word(self):
        assert tokenise("हिन्दी की किताब, नहीं का!") == ["हिन्दी", "की", "किताब", "नहीं", "का"]

    def test_words_keep_inner_apostrophes_and_hyphens_but_no_underscore(self):
        assert tokenise("_don't_ stop-gap -- 3rd 'x'") == ["don't", "stop-gap", "3rd", "x"]

    def test_text_without_words_is_no_phrase(self):
        phrases, index = index_phrases(["...", "fine", ""], 5)
        assert (phrases.texts, index.tolist()) == (("fine",), [-1, 0, -1])

    def test_scripts_without_spaces_are_read_by_character_and_joiners_are_inside_words(self):
        assert tokenise("今日は、良い天気 AI2台") == [*"今日は良い天気", "ai2", "台"]
        assert tokenise("สวัสดี") == ["ส", "วั", "ส", "ดี"]
        assert tokenise("می\u200cخواهم بروم") == ["می\u200cخواهم", "بروم"]


class TestIndexCorpus:
    @given(relevance_graphs(columns=3))
    @settings(max_examples=20)
    def test_rows_spell_the_texts(self, data):
        corpus = index_corpus(data)
        words = data.map(lambda text: " ".join(tokenise(text)))
        assert corpus.dropped["row"].tolist() == words.index[words.duplicated()].tolist()
        assert set(corpus.dropped["reason"]) <= {"repeated"}
        for texts, row in zip(data[~words.duplicated()].to_numpy(), corpus.rows, strict=True):
            assert [tokenise(corpus.phrases.texts[i]) for i in row] == [tokenise(text) for text in texts]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (pd.DataFrame({"question": ["a"], "answer": ["b"]}), "column 'anchor' not found; .* question, answer"),
            (pd.DataFrame({"anchor": ["a"], "text": ["b"]}), "column 'positive' not found; .* anchor, text. Rename"),
            (pd.DataFrame({"anchor": [], "positive": []}), "at least one pair, found an empty table"),
            (table([("a", 3), ("c", 4)]), r"text in column 'positive', found .*3.* in row 0 \(rows like this: 2\)"),
            (
                table([("a", "a"), ("c", "?!")]),
                r"none that can be used: 1 same phrase twice \(row 0\), 1 without words",
            ),
            (
                table([("a", "b"), ("c", "d")]).assign(relevance=[1, 2]),
                r"relevance 1 or 0, found '2' in row 1 \(rows like this: 1\)",
            ),
            (
                table([("a", "b"), ("c", "d")]).assign(relevance=["1", None]),
                "relevance 1 or 0, found '(nan|None)' in row 1",
            ),
            (table([("a", "b"), ("c", "d")]).assign(relevance=0), "at least one row of different phrases, found none"),
        ],
    )
    def test_unusable_data_is_refused(self, data, message):
        with pytest.raises(ValueError, match=message):
            index_corpus(data)

    def test_what_cannot_be_used_is_dropped_and_listed(self):
        rows = [("a", "b"), ("c", None), ("c", float("nan")), ("c", "?!"), ("c", "C."), ("A", "b!"), ("e", "f")]
        data = table(rows).set_axis(range(2, 9)).rename_axis("line")
        corpus = index_corpus(data)
        assert [corpus.phrases.texts[phrase] for phrase in corpus.rows.ravel()] == ["a", "b", "e", "f"]
        assert list(corpus.dropped.itertuples(index=False, name=None)) == [
            (3, "without words"),
            (4, "without words"),
            (5, "without words"),
            (6, "same phrase twice"),
            (7, "repeated"),
        ]
        assert corpus.explain_dropped(examples=2) == (
            "3 without words (line 3, 4, ...), 1 same phrase twice (line 6), 1 repeated (line 7)"
        )

    @pytest.mark.parametrize(
        ("kind", "index", "name", "row"),
        [
            ("category", pd.MultiIndex.from_tuples([(1, "x"), (1, "y"), (2, "x")], names=["i", "j"]), "row", (1, "y")),
            ("string[python]", pd.Index([5, 5, 5], name="reason"), "row", 5),
            (pd.ArrowDtype(pa.string()), pd.Index(["p", "q", "r"], name="anchor"), "anchor", "q"),
            (object, pd.Index([1, 2, 3], name=7), "7", 2),
        ],
    )
    def test_any_type_of_text_and_any_index(self, kind, index, name, row):
        data = pd.DataFrame({"anchor": ["a", "c", "e"], "positive": pd.Series(["b", None, "f"], dtype=kind), 3: 1})
        corpus = index_corpus(data.set_index(index).assign(relevance=pd.Categorical([1, 1, 0])))
        assert (len(corpus.rows), len(corpus.irrelevant)) == (1, 1)
        assert corpus.dropped.to_dict("list") == {name: [row], "reason": ["without words"]}

    def test_half_a_character_is_no_text(self):
        with pytest.raises(InputError, match=r"expected text in column 'positive', found .*ud800.* in row 1"):
            index_corpus(pd.DataFrame({"anchor": ["a", "b"], "positive": ["c", "\ud800d"]}, dtype=object))

    @pytest.mark.parametrize("letter", "\u00a0\u3000\u00ad\u2060\ufeff")
    def test_invisible_letters(self, letter):
        divides = letter in "\u00a0\u3000"
        assert tokenise(f"com{letter}puter") == (["com", "puter"] if divides else ["computer"])

    @pytest.mark.parametrize("negative", ["A", "two dogs!"])
    def test_a_negative_that_is_another_phrase_of_its_row_is_dropped(self, negative):
        corpus = index_corpus(table([("a", "Two dogs", negative), ("c", "d", "e")]))
        assert len(corpus.rows) == 1
        assert corpus.explain_dropped() == "1 same phrase twice (row 0)"

    def test_irrelevant_pairs_are_kept_apart_unless_they_are_called_relevant_too(self):
        data = table([("a", "b"), ("a", "c"), ("b", "a"), ("d", "e"), ("a", "c")]).assign(relevance=[1, "0", 0, 1.0, 0])
        corpus = index_corpus(data)
        texts = np.array(corpus.phrases.texts)
        assert texts[corpus.rows].tolist() == [["a", "b"], ["d", "e"]]
        assert texts[corpus.irrelevant].tolist() == [["a", "c"]]
        assert corpus.explain_dropped() == "1 relevant elsewhere (row 2), 1 repeated (row 4)"


class TestSplit:
    @given(relevance_graphs(columns=2) | relevance_graphs(columns=3), st.integers(0, 2**32))
    @settings(max_examples=60)
    def test_no_phrase_is_in_two_splits(self, data, seed):
        slices = slice_corpus(index_corpus(data), seed)
        seen = [{tuple(slices.phrases.tokens[i]) for i in np.unique(split)} for split in splits(slices)]
        texts = [{" ".join(tokenise(slices.phrases.texts[i])) for i in np.unique(s)} for s in splits(slices)]
        for sets in (seen, texts):
            assert len(set.union(*sets)) == sum(map(len, sets))

    @given(relevance_graphs(columns=2), st.integers(0, 2**32), st.integers(1, 5))
    @settings(max_examples=40)
    def test_slices_cover_the_pairs_and_negatives_alternate(self, data, seed, negatives):
        corpus = index_corpus(data)
        slices = slice_corpus(corpus, seed, negatives=negatives)
        pairs = []
        for split in splits(slices):
            per_pair = split.reshape(-1, negatives, 3)
            for slot in range(negatives):
                query, match = per_pair[:, slot, 0], per_pair[:, slot, 1]
                np.testing.assert_array_equal(query, per_pair[:, 0, slot % 2])
                np.testing.assert_array_equal(match, per_pair[:, 0, 1 - slot % 2])
                side = set(per_pair[:, 0, 1 - slot % 2].tolist())
                assert set(per_pair[:, slot, 2].tolist()) <= side
            pairs += map(tuple, per_pair[:, 0, :2].tolist())
        assert Counter(pairs) == Counter(map(tuple, corpus.rows.tolist()))

    @given(relevance_graphs(columns=3), st.integers(0, 2**32))
    @settings(max_examples=40)
    def test_given_negatives_are_kept_unless_they_lie_in_another_split(self, data, seed):
        corpus = index_corpus(data)
        slices = slice_corpus(corpus, seed)
        home = {int(i): number for number, split in enumerate(splits(slices)) for i in split[:, :2].ravel()}
        for number, split in enumerate(splits(slices)):
            mine = corpus.rows[[home[int(anchor)] == number for anchor in corpus.rows[:, 0]]]
            np.testing.assert_array_equal(split[:, :2], mine[:, :2])
            changed = split[:, 2] != mine[:, 2]
            # A paired phrase has a home; a phrase that is only ever a negative may be kept by one split.
            kept_by = [home.get(int(i), number) for i in mine[:, 2]]
            assert changed[np.array(kept_by) != number].all()
            assert not changed[[home.get(int(i)) == number for i in mine[:, 2]]].any()
            assert slices.summary.redrawn_negatives[number] == changed.sum()
            assert set(split[changed, 2].tolist()) <= set(mine[:, 1].tolist())
            assert not both_ways(corpus.rows[:, :2]) & set(map(tuple, split[changed][:, [0, 2]].tolist()))
        first_use = {}
        for anchor, _, negative in corpus.rows.tolist():
            first_use.setdefault(negative, home[anchor])
        for number, split in enumerate(splits(slices)):
            for negative in split[:, 2].tolist():
                assert home.get(negative, first_use.get(negative)) == number

    def test_padding_stays_padding_where_training_has_none(self):
        slices = slice_corpus(index_corpus(table([(f"a{i} b", f"c{i} d") for i in range(40)])))
        assert slices.tokens[-1].tolist() == [PAD, PAD]

    def test_fractions_are_met_with_many_small_clusters(self):
        rng = np.random.default_rng(0)
        rows = [row for i in range(600) for row in chain(f"group{i}", rng.integers(1, 5))]
        corpus = index_corpus(table(rows))
        for seed in range(5):
            summary = slice_corpus(corpus, seed, (0.5, 0.2, 0.3)).summary
            np.testing.assert_allclose(summary.pairs / len(rows), [0.5, 0.2, 0.3], atol=0.01)

    def test_heavy_cluster_is_in_train(self):
        rows = chain("heavy", 60) + [(f"a {i}", f"b {i}") for i in range(40)]
        corpus = index_corpus(table(rows))
        for seed in range(20):
            slices = slice_corpus(corpus, seed)
            train_texts = {slices.phrases.texts[i] for i in np.unique(slices.train)}
            assert {f"heavy {i}" for i in range(61)} <= train_texts

    def test_seed_decides_the_split(self, corpus):
        first, again, other = (slice_corpus(corpus, seed) for seed in (3, 3, 4))
        for name in SPLITS:
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert set(first.train[:, 0].tolist()) != set(other.train[:, 0].tolist())

    def test_words_outside_training_become_unknown_and_others_stay(self, slices):
        trained = {word for i in np.unique(slices.train) for word in tokenise(slices.phrases.texts[i])}
        assert trained < set(slices.phrases.words)
        for text, row in zip((*slices.phrases.texts, ""), slices.tokens, strict=True):
            words = tokenise(text)
            expected = [slices.phrases.words.index(word) + 2 if word in trained else UNKNOWN for word in words]
            assert row.tolist() == expected + [PAD] * (len(row) - len(words))
        assert slices.vocabulary_size == len(slices.phrases.words) + 2
        for name, share in zip(SPLITS, slices.summary.unknown_words, strict=True):
            read = [w for i in np.unique(getattr(slices, name)) for w in tokenise(slices.phrases.texts[i])]
            assert share == pytest.approx(np.mean([word not in trained for word in read]))

    @pytest.mark.parametrize("min_count", [1, 2, 5])
    def test_words_of_too_few_training_phrases_become_unknown(self, corpus, min_count):
        slices = slice_corpus(corpus, min_count=min_count)
        phrases = [set(tokenise(slices.phrases.texts[i])) for i in np.unique(slices.train)]
        for text, row in zip(slices.phrases.texts, slices.tokens, strict=False):
            for word, token in zip(tokenise(text), row, strict=False):
                is_known = sum(word in phrase for phrase in phrases) >= min_count
                assert token == (slices.phrases.words.index(word) + 2 if is_known else UNKNOWN)

    def test_a_word_repeated_in_one_phrase_counts_once(self):
        rows = [(f"twice twice {i}", f"other {i}") for i in range(1)] + [(f"a {i}", f"b {i}") for i in range(1, 60)]
        corpus = index_corpus(table(rows))
        seed = next(seed for seed in range(99) if 0 in slice_corpus(corpus, seed).train[:, 0])
        twice = corpus.phrases.words.index("twice") + 2
        assert twice in slice_corpus(corpus, seed, min_count=1).tokens
        assert twice not in slice_corpus(corpus, seed, min_count=2).tokens

    def test_components_are_the_columns_of_train(self, slices):
        for column, part in enumerate(slices.components):
            np.testing.assert_array_equal(part, slices.train[:, column])

    def test_summary_counts_what_the_splits_hold(self, corpus):
        slices = slice_corpus(corpus, seed=1, negatives=3)
        for name, row in slices.summary.set_index("split").iterrows():
            split = getattr(slices, name)
            assert row.triplets == len(split) == 3 * row.pairs
            assert row.phrases == len(set(split.ravel().tolist()))
            assert row.anchors == len(set(split[::3, 0].tolist()))

    @pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.8, 0.3, -0.1)])
    def test_fractions_must_be_positive_with_sum_one(self, corpus, fractions):
        with pytest.raises(ValueError, match=r"three positive fractions .* with the sum 1, found"):
            slice_corpus(corpus, fractions=fractions)

    def test_one_triplet_cannot_be_split(self):
        with pytest.raises(ValueError, match=r"split would be empty: 1 rows form 1 cluster\(s\) of relevant"):
            slice_corpus(index_corpus(table([("a", "b", "c")])))

    def test_split_without_irrelevant_phrases_is_refused(self):
        stars = [(f"hub {i}", f"spoke {i} {j}") for i in range(3) for j in range(5)]
        with pytest.raises(ValueError, match=r"train split: no negative can be drawn for 'hub \d': all 5 candidates"):
            slice_corpus(index_corpus(table(stars)), fractions=(0.34, 0.33, 0.33), negatives=1)

    def test_no_negatives_are_refused(self, corpus):
        with pytest.raises(ValueError, match="train split: expected at least 1 negative per pair, found 0"):
            slice_corpus(corpus, negatives=0)


class TestRelevanceClusters:
    @given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=1, max_size=30))
    def test_equals_slow_union_find(self, edges):
        leader = list(range(20))
        for a, b in edges:
            leader = [leader[b] if one == leader[a] else one for one in leader]
        found = relevance_clusters(np.array(edges, np.int32), 20)
        expected = np.array(leader)
        np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)

    def test_many_copies_of_an_edge_are_still_an_edge(self):
        assert len(set(relevance_clusters(np.array([[0, 1]] * 256, np.int32), 3)[:2].tolist())) == 1


class TestDrawNegatives:
    @given(st.sets(st.tuples(st.integers(0, 5), st.integers(6, 12)), min_size=1), st.integers(1, 6), st.integers(0))
    def test_never_the_query_nor_a_known_relevant_phrase(self, edges, negatives, seed):
        rng = np.random.default_rng(seed)
        pairs = np.array([edge if rng.random() < 0.7 else edge[::-1] for edge in sorted(edges)], np.int32)
        forbidden = both_ways(pairs)
        impossible = [
            query
            for side in range(min(negatives, 2))
            for query in pairs[:, side].tolist()
            if all(other == query or (query, other) in forbidden for other in pairs[:, 1 - side].tolist())
        ]
        texts = [f"phrase {i}" for i in range(13)]
        if impossible:
            with pytest.raises(ValueError, match=r"no negative can be drawn for 'phrase \d+'.*give more pairs"):
                draw_negatives(pairs, negatives, rng, texts)
            return
        for query, _, negative in draw_negatives(pairs, negatives, rng, texts)[0].tolist():
            assert query != negative
            assert (query, negative) not in forbidden

    @pytest.mark.parametrize("relevant", [1, 12])
    def test_are_drawn_with_repeats_as_often_as_the_side_has_them(self, relevant):
        """A query that most candidates are relevant to has its negatives from the others, in proportion."""
        query = [(0, 100 + i) for i in range(relevant) for _ in range(1 + 20 * (relevant > 1))]
        others = [(10 + i, 200 + i % 4) for i in range(10)]
        pairs = np.array(query + others, np.int32)
        triplets, _ = draw_negatives(pairs, 3001, np.random.default_rng(5), [""] * 300)
        mine = triplets[triplets[:, 0] == 0, 2].tolist()
        pool = Counter(positive for _, positive in others)
        assert set(mine) == set(pool)
        observed = Counter(mine)
        expected = [len(mine) * pool[phrase] / len(others) for phrase in pool]
        assert chisquare([observed[phrase] for phrase in pool], expected).pvalue > 0.001


def test_200_000_triplets_are_sliced_in_seconds():
    rng = np.random.default_rng(0)
    anchors, positives = (rng.integers(1000, size=(40_000, 5)) for _ in range(2))

    def write(words, name):
        return [f"{name}{i} w{a} w{b} w{c} w{d} w{e}" for i, (a, b, c, d, e) in enumerate(words.tolist())]

    data = pd.DataFrame({"anchor": write(anchors, "a"), "positive": write(positives, "p")})
    start = time.process_time()
    slices = slice_corpus(index_corpus(data), negatives=5)
    assert time.process_time() - start < 10
    assert slices.summary.triplets.sum() == 200_000


class TestTrainFraction:
    def test_less_training_leaves_the_test_alone(self, corpus):
        whole, half, tenth = (slice_corpus(corpus, negatives=3, train_fraction=share) for share in (1, 0.5, 0.1))
        for fewer in (half, tenth):
            np.testing.assert_array_equal(fewer.test, whole.test)
            np.testing.assert_array_equal(fewer.validation, whole.validation)
        pairs = [{frozenset(pair) for pair in one.train[:, :2].tolist()} for one in (whole, half, tenth)]
        assert pairs[2] < pairs[1] < pairs[0]
        assert len(pairs[1]) == round(len(pairs[0]) / 2)
        assert len(half.train) == 3 * len(pairs[1])
        train = half.summary.set_index("split").loc["train"]
        assert (train["pairs"], train["triplets"]) == (len(pairs[1]), len(half.train))

    def test_words_that_training_no_longer_sees_are_unknown(self, corpus):
        tenth = slice_corpus(corpus, negatives=1, train_fraction=0.1)
        seen = np.unique(tenth.phrases.tokens[np.unique(tenth.train)])
        assert set(np.unique(tenth.tokens[np.unique(tenth.test)])) <= {0, 1, *seen}
        assert tenth.summary.set_index("split")["unknown_words"]["test"] > 0

    @pytest.mark.parametrize("share", [0, -0.5, 1.01])
    def test_other_shares_are_refused(self, corpus, share):
        with pytest.raises(InputError, match="train_fraction above 0 and at most 1, found"):
            slice_corpus(corpus, train_fraction=share)
