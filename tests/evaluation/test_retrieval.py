"""Retrieval and verification against scikit-learn and slow loops."""

import tracemalloc
from itertools import pairwise

import ir_measures
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import topic_pairs
from hypothesis import given, settings, strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from scipy.integrate import trapezoid
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    brier_score_loss,
    label_ranking_average_precision_score,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)
from sklearn.metrics.pairwise import cosine_similarity

import rlm.evaluation.retrieval
from rlm.block import init_block
from rlm.data.corpus import index_corpus
from rlm.encoder import MeanEncoder
from rlm.engine.accuracy import unify
from rlm.errors import InputError
from rlm.evaluation.retrieval import Search, first_relevant_ranks, retrieve, score_all, scores_of, search_of
from rlm.evaluation.triplets import evaluate, roc
from rlm.evaluation.verification import best_threshold, expected_calibration_error, threshold_at_far, verify
from rlm.slicer import slice_corpus


@pytest.fixture(scope="module")
def block(slices):
    return init_block(lambda: MeanEncoder(slices.vocabulary_size, 4, 5), (0, 1, 2))


def slow_ranks(queries, candidates, relevant, excluded=()):
    """The rank that a person would count: candidates that are as near or nearer, without the other relevant ones."""
    ranks = []
    for q, query in enumerate(queries):
        distance = {c: sum((query - one) ** 2) for c, one in enumerate(candidates) if (q, c) not in excluded}
        right = {c for c in distance if (q, c) in relevant}
        nearest = min(distance[c] for c in right)
        ranks.append(1 + sum(distance[c] <= nearest for c in distance if c not in right))
    return ranks


@st.composite
def retrievals(draw):
    """Small whole numbers, so that ties are common and exact; several relevant candidates, some excluded."""
    queries, candidates, dim = draw(st.integers(1, 7)), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    points = rng.integers(-2, 3, (queries + candidates, dim)).astype(np.float32)
    kind = rng.integers(4, size=(queries, candidates))
    kind[np.arange(queries), rng.integers(candidates, size=queries)] = 1
    return points[:queries], points[queries:], np.argwhere(kind == 1), np.argwhere(kind == 0)


class TestRanks:
    @given(retrievals(), st.integers(1, 20))
    def test_equal_a_slow_loop(self, problem, scores_at_once):
        queries, candidates, relevant, excluded = problem
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rlm.evaluation.retrieval, "SCORES_AT_ONCE", scores_at_once)
            found = first_relevant_ranks(torch.tensor(queries), torch.tensor(candidates), relevant, excluded)
        pairs = [set(map(tuple, pairs)) for pairs in (relevant, excluded)]
        assert found.tolist() == slow_ranks(queries, candidates, *pairs)

    @given(st.integers(0, 2**32), st.integers(1, 30), st.integers(12, 40))
    @settings(max_examples=30)
    def test_top_k_equals_scikit_learn(self, seed, queries, candidates):
        rng = np.random.default_rng(seed)
        vectors, others = rng.normal(size=(queries, 3)), rng.normal(size=(candidates, 3))
        truth = rng.integers(candidates, size=queries)
        found = scores_of(
            first_relevant_ranks(
                torch.tensor(vectors), torch.tensor(others), np.stack([np.arange(queries), truth], axis=1)
            )
        )
        score = -((vectors[:, None] - others) ** 2).sum(axis=2)
        for k in (1, 5, 10):
            expected = top_k_accuracy_score(truth, score, k=k, labels=np.arange(candidates))
            assert found[f"top_{k}"] == pytest.approx(expected)
        is_relevant = np.arange(candidates) == truth[:, None]
        expected = label_ranking_average_precision_score(is_relevant, score)
        assert found["mean_reciprocal_rank"] == pytest.approx(expected)

    @given(retrievals())
    def test_reciprocal_ranks_with_ties_equal_scikit_learn(self, problem):
        """Its label ranking ranks ties last, too; of several relevant candidates it is shown the nearest."""
        queries, candidates, relevant, _ = problem
        found = first_relevant_ranks(torch.tensor(queries), torch.tensor(candidates), relevant)
        score = -((queries[:, None] - candidates) ** 2).sum(axis=2)
        is_relevant = np.zeros(score.shape, bool)
        is_relevant[tuple(relevant.T)] = True
        nearest = np.where(is_relevant, score, -np.inf).argmax(axis=1)
        for row, best in enumerate(nearest):
            shown = (~is_relevant[row]) | (np.arange(len(candidates)) == best)
            expected = label_ranking_average_precision_score(
                [np.arange(len(candidates))[shown] == best], [score[row][shown]]
            )
            assert 1 / found[row] == pytest.approx(expected)

    def test_one_candidate_is_found(self):
        ranks = first_relevant_ranks(torch.rand(3, 2), torch.rand(1, 2), np.array([[0, 0], [1, 0], [2, 0]]))
        assert ranks.tolist() == [1, 1, 1]

    def test_what_maps_everything_to_one_point_gets_nothing_for_it(self):
        """Nor what maps everything to no point at all."""
        relevant = np.array([[0, 1], [0, 2], [1, 4]])
        for point in (0.3, float("nan")):
            ranks = first_relevant_ranks(torch.full((2, 3), point), torch.full((20, 3), point), relevant)
            assert (ranks >= 19).all()
            assert scores_of(ranks)["top_10"] == 0


class TestGrades:
    """Means over queries of ir-measures, which is shown a ranking with ties broken against the encoder."""

    def expected(self, queries, candidates, search):
        score = -((queries[:, None] - candidates) ** 2).sum(axis=2).astype(float)
        is_right = np.zeros(score.shape, bool)
        is_right[tuple(search.relevant.T)] = True
        grades = []
        for q in range(len(queries)):
            out = set(search.excluded[search.excluded[:, 0] == q, 1].tolist())
            shown = [c for c in range(len(candidates)) if c not in out]
            ordered = sorted(shown, key=lambda c: (-score[q, c], is_right[q, c]))
            run = {str(q): {str(c): -float(place) for place, c in enumerate(ordered)}}
            truth = {str(q): {str(c): 1 for c in shown if is_right[q, c]}}
            total = len(truth[str(q)])
            wanted = [ir_measures.nDCG @ 10, ir_measures.AP @ total, ir_measures.RR]
            wanted += [ir_measures.Success @ k for k in (1, 5, 10)]
            found = ir_measures.calc_aggregate(wanted, truth, run)
            grades.append([found[one] for one in wanted])
        names = ["ndcg_at_10", "map_at_r", "mean_reciprocal_rank", "top_1", "top_5", "top_10"]
        return dict(zip(names, np.mean(grades, axis=0), strict=True))

    @given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40), st.integers(1, 400))
    @settings(max_examples=60)
    def test_equal_ir_measures_with_ties(self, seed, queries, candidates, scores_at_once):
        rng = np.random.default_rng(seed)
        points = rng.integers(-2, 3, (queries + candidates, rng.integers(1, 4))).astype(np.float32)
        share = rng.random()
        kind = np.where(rng.random((queries, candidates)) < share, 1, rng.integers(0, 3, (queries, candidates)))
        kind[np.arange(queries), rng.integers(candidates, size=queries)] = 1
        search = Search(np.arange(queries), np.arange(candidates), np.argwhere(kind == 1), np.argwhere(kind == 0))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rlm.evaluation.retrieval, "SCORES_AT_ONCE", scores_at_once)
            found = score_all(torch.tensor(points[:queries]), torch.tensor(points[queries:]), search)
        assert found == pytest.approx(self.expected(points[:queries], points[queries:], search))

    @given(st.integers(0, 2**32))
    @settings(max_examples=20)
    def test_without_ties_map_at_r_equals_that_of_metric_learning(self, seed):
        """Of pytorch-metric-learning, by the authors of the metric: every phrase of a class is right."""
        rng = np.random.default_rng(seed)
        points, labels = torch.tensor(rng.normal(size=(30, 3))), torch.tensor(rng.permutation(30) % 4)
        everywhere = np.stack([np.arange(30)] * 2, axis=1)
        clusters = labels.numpy(), labels.numpy()
        search = Search(np.arange(30), np.arange(30), np.empty((0, 2), np.int64), everywhere, clusters)
        oracle = AccuracyCalculator(("mean_average_precision_at_r", "precision_at_1"), k="max_bin_count")
        expected = oracle.get_accuracy(points, labels)
        found = score_all(points, points, search)
        assert found["map_at_r"] == pytest.approx(expected["mean_average_precision_at_r"])
        assert found["top_1"] == pytest.approx(expected["precision_at_1"])

    @pytest.mark.parametrize("point", [0.3, float("nan")])
    def test_what_maps_everything_to_one_point_gets_nothing(self, point):
        relevant = np.array([[0, 1], [0, 2], [1, 4]])
        search = Search(np.arange(2), np.arange(20), relevant, np.empty((0, 2), np.int64))
        found = score_all(torch.full((2, 3), point), torch.full((20, 3), point), search)
        assert found["ndcg_at_10"] == found["map_at_r"] == found["top_10"] == 0


class TestRetrieve:
    def expected(self, block, row, one, split, corpus, query, similarity):
        """Phrase by phrase and pair by pair, from the corpus alone."""
        side = {"positive": 1, "anchor": 0}[query]
        phrases = set(getattr(one, split).ravel().tolist())
        pairs = {tuple(pair) for pair in corpus.rows[:, :2].tolist() if set(pair) <= phrases}
        queries = sorted({pair[side] for pair in pairs})
        candidates = sorted({pair[1 - side] for pair in pairs})
        known = pairs | {pair[::-1] for pair in pairs}
        if corpus.is_transitive:
            group = corpus.relevance.cluster
            known = {(p, q) for p in phrases for q in phrases if group[p] == group[q] and p != q}
        relevant = {
            (q, c) for q, one in enumerate(queries) for c, other in enumerate(candidates) if (one, other) in known
        }
        excluded = {(q, c) for q, one in enumerate(queries) for c, other in enumerate(candidates) if one == other}
        weights = {name: weight[row].double() for name, weight in block.weights.items()}
        words, linear, bias = weights["words.weight"], weights["output.weight"], weights["output.bias"]
        vectors = {p: words[one.tokens[p][one.tokens[p] > 0]].mean(0) @ linear.T + bias for p in phrases}
        if similarity == "cosine":
            vectors = {p: vector / vector.norm() for p, vector in vectors.items()}
        # Sums of double precision differ in their last bits: what reads the same must tie.
        vectors = {p: vector.numpy().round(9) for p, vector in vectors.items()}
        queried, found = (np.array([vectors[one] for one in side]) for side in (queries, candidates))
        search = Search(
            *map(np.array, (queries, candidates, sorted(relevant))), np.array(sorted(excluded)).reshape(-1, 2)
        )
        grades = TestGrades().expected(queried, found, search)
        ranks = slow_ranks(queried, found, relevant, excluded)
        return grades | scores_of(np.array(ranks)) | {"queries": len(queries), "candidates": len(candidates)}

    @pytest.mark.parametrize("split", ["validation", "test"])
    @pytest.mark.parametrize("query", ["positive", "anchor"])
    @pytest.mark.parametrize("similarity", ["distance", "cosine"])
    def test_equals_a_slow_loop(self, block, corpus, unequal_slices, split, query, similarity):
        double = type(block)(block.encoder, block.seeds, {n: w.double() for n, w in block.weights.items()})
        found = retrieve(double, unequal_slices, corpus, split, query=query, similarity=similarity)
        assert found["seed"].tolist() == [0, 1, 2]
        for row, one in enumerate(unequal_slices):
            expected = self.expected(block, row, one, split, corpus, query, similarity)
            assert found.loc[row].drop("seed").to_dict() == pytest.approx(expected), row

    @pytest.mark.parametrize("labels", [False, True])
    def test_phrases_on_both_sides_and_labels(self, labels):
        """Chains a-b, b-c: b asks and is asked for, never itself; with labels a is right for c as well."""
        rng = np.random.default_rng(3)
        words = [f"{a} {b}" for a in "абвгд" for b in "ежзиклмно"]
        frame = pd.DataFrame({"anchor": words[:-1], "positive": words[1:], "label": [w[0] for w in words[:-1]]})
        frame = frame[[a[0] == p[0] for a, p in zip(frame.anchor, frame.positive, strict=True)]]
        frame = pd.concat(
            [frame.assign(anchor=frame.anchor + f" {i}", positive=frame.positive + f" {i}") for i in "123"]
        )
        corpus = index_corpus((frame if labels else frame.drop(columns="label")).reset_index(drop=True))
        slices = slice_corpus(corpus, fractions=(0.4, 0.3, 0.3), negatives=2)
        block = init_block(lambda: MeanEncoder(slices.vocabulary_size, 4, 5).double(), (int(rng.integers(9)),))
        found = retrieve(block, slices, corpus, "test")
        expected = self.expected(block, 0, slices, "test", corpus, "positive", "distance")
        assert found.loc[0].drop("seed").to_dict() == pytest.approx(expected)

    def test_a_sample_of_queries_is_part_of_all(self, corpus, slices):
        everything = search_of(slices, corpus)
        some = search_of(slices, corpus, most_queries=4)
        assert len(some.queries) == 4 < len(everything.queries)
        assert set(some.queries) <= set(everything.queries)
        np.testing.assert_array_equal(some.candidates, everything.candidates)
        for name in ("relevant", "excluded"):
            pairs = [(everything.queries[q], c) for q, c in getattr(everything, name)]
            expected = [(q, c) for q, c in pairs if q in some.queries]
            assert [(some.queries[q], c) for q, c in getattr(some, name)] == expected

    def test_what_reads_the_same_ties_exactly(self):
        tokens = torch.tensor([[2, 1], [3, 0], [2, 1], [0, 0], [3, 0]])
        vectors = torch.rand(5, 3)
        assert torch.equal(unify(vectors, tokens), vectors[[0, 1, 0, 3, 1]])


class TestLabels:
    """All phrases of a label are right for each other: a million pairs of a thousand phrases, which are not listed."""

    def labelled(self, texts, labels=6):
        rows = [
            (f"topic{label} serial{number}", f"class {label}") for label in range(labels) for number in range(texts)
        ]
        pairs = pd.DataFrame(
            [(text, f"{text.split()[0]} serial{(i + 1) % texts}", label) for i, (text, label) in enumerate(rows)],
            columns=["anchor", "positive", "label"],
        )
        corpus = index_corpus(pairs)
        return corpus, slice_corpus(corpus, fractions=(0.34, 0.33, 0.33), negatives=1)

    @pytest.mark.parametrize("query", ["anchor", "positive"])
    @pytest.mark.parametrize("at_once", [1, 200, 2**24])
    def test_ranks_are_those_of_the_pairs(self, query, at_once, monkeypatch):
        monkeypatch.setattr(rlm.evaluation.retrieval, "SCORES_AT_ONCE", at_once)
        corpus, slices = self.labelled(12)
        search = search_of(slices, corpus, "test", query)
        group = corpus.relevance.cluster
        pairs = [
            (row, column)
            for row, one in enumerate(search.queries)
            for column, other in enumerate(search.candidates)
            if one != other and group[one] == group[other]
        ]
        rng = np.random.default_rng(0)
        points = torch.from_numpy(rng.integers(3, size=(len(corpus.phrases), 2)).astype(float))  # many tie
        points[search.queries[0]] = torch.nan
        queries, candidates = points[search.queries], points[search.candidates]
        expected = first_relevant_ranks(queries, candidates, np.array(pairs), search.excluded)
        found = first_relevant_ranks(queries, candidates, search.relevant, search.excluded, search.clusters)
        assert found.tolist() == expected.tolist()
        assert len(set(found.tolist())) > 1

    def test_memory_does_not_grow_with_the_pairs(self):
        corpus, slices = self.labelled(1500)
        tracemalloc.start()
        search = search_of(slices, corpus)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(search.queries) == 3000  # 4.5 million pairs, 72 MB
        assert peak < 5_000_000


class TestCosine:
    def test_evaluate_and_roc_equal_scikit_learn(self, block, slices):
        scores, curves = evaluate(block, slices, similarity="cosine"), roc(block, slices, similarity="cosine")
        pairs, first = np.unique(
            np.concatenate([slices.test[:, [0, 1]], slices.test[:, [0, 2]]]), axis=0, return_index=True
        )
        is_relevant = first < len(slices.test)
        for row, seed in enumerate(block.seeds):
            weights = {name: weight[row] for name, weight in block.weights.items()}
            words = [weights["words.weight"][tokens[tokens > 0]].mean(0) for tokens in slices.tokens[:-1]]
            vectors = torch.stack(words) @ weights["output.weight"].T + weights["output.bias"]
            cosine = cosine_similarity(vectors.double().numpy()).round(5)
            anchor, positive, negative = slices.test.T
            near, far = cosine[anchor, positive], cosine[anchor, negative]
            right = (near > far) + (near == far) / 2
            assert scores.triplet_accuracy[row] == pytest.approx(right.mean(), abs=0.01)
            assert scores.roc_auc[row] == pytest.approx(roc_auc_score(is_relevant, cosine[tuple(pairs.T)]), abs=1e-3)
            area = trapezoid(*curves[curves.seed == seed][["true_positive_rate", "false_positive_rate"]].to_numpy().T)
            assert area == pytest.approx(scores.roc_auc[row])


@st.composite
def scored(draw):
    """Relevance and scores with ties, of both kinds."""
    pairs = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=30))
    is_relevant, score = map(np.array, zip(*pairs, (False, 3), (True, 4), strict=True))
    return is_relevant, score.astype(float)


class TestThresholds:
    @given(scored(), st.sampled_from([0.001, 0.1, 0.29, 0.5, 0.9]))
    def test_at_far_is_the_loosest_that_keeps_it(self, pairs, far):
        is_relevant, score = pairs
        threshold = threshold_at_far(is_relevant, score, far)
        rate = [(score[~is_relevant] > t).mean() for t in (threshold, np.nextafter(threshold, -np.inf))]
        assert rate[0] <= far + 1e-9 < rate[1] + 2e-9
        false_accepts, true_accepts, _ = roc_curve(is_relevant, score, drop_intermediate=False)
        expected = true_accepts[false_accepts <= far + 1e-9].max()
        assert (score[is_relevant] > threshold).mean() == pytest.approx(expected)

    @given(scored())
    def test_best_is_right_most_often(self, pairs):
        is_relevant, score = pairs
        thresholds = [-np.inf, *np.unique(score)]
        right = [((score > threshold) == is_relevant).mean() for threshold in thresholds]
        assert best_threshold(is_relevant, score) == thresholds[int(np.argmax(right))]

    @given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60), st.integers(1, 12))
    def test_calibration_error_equals_scikit_learn(self, pairs, bins):
        is_relevant, probability = map(np.array, zip(*pairs, strict=True))
        share, mean = calibration_curve(is_relevant, probability, n_bins=bins)
        # It leaves out empty bins and does not say how full the others are.
        edges = np.linspace(0, 1, bins + 1)
        full = [((lo < probability) | (lo == 0)) & (probability <= hi) for lo, hi in pairwise(edges)]
        counts = np.array([inside.sum() for inside in full if inside.any()])
        expected = (counts * np.abs(share - mean)).sum() / len(pairs)
        assert expected_calibration_error(is_relevant, probability, bins) == pytest.approx(expected)


class TestVerify:
    def test_equals_a_loop_over_anchors(self, block, slices):
        """With as many folds as anchors every fold is an anchor; thresholds and probabilities are those of the rest."""
        found = verify(block, slices, far=0.1, folds=1000)
        test = slices.test
        pairs, first = np.unique(np.concatenate([test[:, [0, 1]], test[:, [0, 2]]]), axis=0, return_index=True)
        is_relevant = first < len(test)
        with torch.no_grad():
            for row in range(len(block.seeds)):
                weights = {name: weight[row] for name, weight in block.weights.items()}
                vectors = [
                    weights["words.weight"][torch.from_numpy(t[t > 0]).long()].mean(0) @ weights["output.weight"].T
                    for t in slices.tokens[:-1]
                ]
                score = np.array([-((vectors[a] - vectors[b]) ** 2).sum().item() for a, b in pairs])
                accepted, right, probability = (np.empty(len(score)) for _ in range(3))
                for anchor in np.unique(pairs[:, 0]):
                    mine = pairs[:, 0] == anchor
                    irrelevant = np.sort(score[~mine & ~is_relevant])
                    loosest = irrelevant[::-1][int(0.1 * len(irrelevant))]
                    accepted[mine] = score[mine] > loosest
                    values = np.append(-np.inf, np.unique(score[~mine]))
                    best = max(values, key=lambda t: ((score[~mine] > t) == is_relevant[~mine]).sum())
                    right[mine] = (score[mine] > best) == is_relevant[mine]
                    centre, scale = score[~mine].mean(), score[~mine].std()
                    model = LogisticRegression().fit((score[~mine, None] - centre) / scale, is_relevant[~mine])
                    probability[mine] = model.predict_proba((score[mine, None] - centre) / scale)[:, 1]
                expected = {
                    "validation_rate": accepted[is_relevant].mean(),
                    "false_accept_rate": accepted[~is_relevant].mean(),
                    "accuracy": right.mean(),
                    "brier_score": brier_score_loss(is_relevant, probability),
                    "calibration_error": expected_calibration_error(is_relevant, probability),
                }
                assert found.loc[row].drop("seed").to_dict() == pytest.approx(expected, abs=1e-3)

    def test_what_can_be_told_is_told(self):
        """Word vectors that point to the topics, and nothing else."""
        corpus = index_corpus(topic_pairs(np.random.default_rng(0), topics=100, pairs=100))
        slices = slice_corpus(corpus, fractions=(0.4, 0.3, 0.3))
        block = init_block(lambda: MeanEncoder(slices.vocabulary_size, 100, 100), (0,))
        words = block.weights["words.weight"][0].zero_()
        for number, word in enumerate(slices.phrases.words):
            if word.startswith("topic"):
                words[number + 2, int(word.removeprefix("topic"))] = 1
        block.weights["output.weight"][0] = torch.eye(100)
        block.weights["output.bias"].zero_()
        slices = type(slices)(**{**vars(slices), "tokens": slices.phrases.tokens})  # all words are known
        found = verify(block, slices, similarity="cosine").loc[0]
        assert found["validation_rate"] == found["accuracy"] == 1
        assert found["false_accept_rate"] == 0
        assert found["brier_score"] < 0.01
        assert found["calibration_error"] < 0.05
        assert retrieve(block, slices, corpus, similarity="cosine").loc[0, "top_1"] == 1

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"far": 0}, "between 0 and 1, found 0"),
            ({"far": 1.0}, "between 0 and 1, found 1.0"),
            ({"folds": 1}, "at least 2 folds, found 1"),
        ],
    )
    def test_mistakes(self, block, slices, options, words):
        with pytest.raises(InputError, match=words):
            verify(block, slices, **options)
