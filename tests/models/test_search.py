"""Search against scikit-learn, and what its benchmark measures."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.neighbors import NearestNeighbors

import rlm.models.search
from benchmarks import search as benchmark
from rlm.errors import InputError
from rlm.models.search import Index

approximate = pytest.mark.parametrize("method", ["ivf", "hnsw", "lsh"])


def vectors_of(seed, count, dim=8):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


class TestExact:
    @given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 9), st.integers(1, 50), st.integers(1, 200))
    @settings(max_examples=50)
    def test_equals_scikit_learn(self, seed, count, queries, k, at_once):
        vectors, asked = vectors_of(seed, count), vectors_of(seed + 1, queries)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rlm.models.search, "SCORES_AT_ONCE", at_once)
            found = Index(vectors).search(asked, k)
        oracle = NearestNeighbors(n_neighbors=min(k, count), metric="cosine", algorithm="brute").fit(vectors)
        distance, row = oracle.kneighbors(asked)
        np.testing.assert_allclose(found.similarity, 1 - distance, atol=1e-5)
        np.testing.assert_array_equal(found.row, row)

    def test_similarity_is_a_cosine(self):
        vectors = np.array([[3, 0], [0, 2], [-5, 0]], np.float32)
        found = Index(vectors).search(np.array([[0.5, 0.5]], np.float32), 3)
        np.testing.assert_allclose(found.similarity, [[2**-0.5, 2**-0.5, -(2**-0.5)]], rtol=1e-6)
        many = np.full((100, 3), 0.1, np.float32)
        assert (Index(many).search(many).similarity <= 1).all()

    def test_no_queries(self):
        found = Index(vectors_of(0, 5)).search(np.empty((0, 8), np.float32), 3)
        assert found.row.shape == found.similarity.shape == (0, 3)


class TestApproximate:
    @approximate
    def test_finds_most_of_what_there_is(self, method):
        pytest.importorskip("faiss")
        vectors, queries = vectors_of(0, 2000), vectors_of(1, 50)
        exact, found = (Index(vectors, kind).search(queries) for kind in ("exact", method))
        assert (found.row[:, :, None] == exact.row[:, None]).any(axis=2).mean() > 0.95
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (vectors, queries)]
        cosine = (unit[1][:, None] * unit[0][found.row]).sum(axis=2)
        np.testing.assert_allclose(found.similarity, cosine, atol=1e-5)
        assert (np.diff(found.similarity, axis=1) <= 0).all()

    @approximate
    def test_fewer_than_are_wanted(self, method):
        pytest.importorskip("faiss")
        found = Index(vectors_of(0, 3), method).search(vectors_of(1, 2), 10)
        assert np.sort(found.row, axis=1).tolist() == [[0, 1, 2]] * 2

    def test_takes_over_where_there_are_many(self, monkeypatch):
        pytest.importorskip("faiss")
        monkeypatch.setattr(rlm.models.search, "EXACT_UP_TO", 50)
        assert Index(vectors_of(0, 50)).method == "exact"
        assert Index(vectors_of(0, 51)).method == "ivf"

    def test_without_faiss_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        assert Index(vectors_of(0, 5)).method == "exact"
        with pytest.raises(InputError, match=r"package faiss, .*pip install 'rlm\[search\]', or use exact"):
            Index(vectors_of(0, 5), "ivf")


class TestMistakes:
    def test_nothing_to_search(self):
        with pytest.raises(InputError, match="at least one vector to search, found none"):
            Index(np.empty((0, 3), np.float32))

    def test_none_wanted(self):
        with pytest.raises(InputError, match="k of at least 1, found 0"):
            Index(vectors_of(0, 3)).search(vectors_of(0, 1), 0)


class TestBenchmark:
    def test_recall_counts_what_is_as_near(self):
        exact = np.array([[0.9, 0.8, 0.7]])
        assert benchmark.recall(exact, exact) == 1
        assert benchmark.recall(np.array([[0.9, 0.7, 0.6]]), exact) == pytest.approx(2 / 3)

    @pytest.mark.parametrize("method", ["exact", "ivf", "lsh"])
    def test_measures(self, method, tmp_path):
        pytest.importorskip("faiss")
        np.save(tmp_path / "vectors.npy", benchmark.like_embeddings(3000 + benchmark.QUERIES))
        benchmark.measured("exact", tmp_path / "vectors.npy", tmp_path / "exact.npy")
        found = benchmark.measured(method, tmp_path / "vectors.npy", tmp_path / "exact.npy")
        assert found["method"] == method
        assert 0.9 < found["recall@10"] <= 1
        assert min(value for name, value in found.items() if name not in ("method", "MB")) > 0
