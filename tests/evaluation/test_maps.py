"""A map of phrases: seeds are rotated onto the first one, and only what differs between them is a cloud."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group

import rlm
from rlm.encoder import MeanEncoder
from rlm.errors import InputError
from rlm.evaluation.maps import align_seeds, embedding_map
from rlm.evaluation.plots import draw_map


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def copies(rng, seeds=5, phrases=40, dim=6):
    """One seed, rotated, reflected and moved."""
    one = rng.normal(size=(phrases, dim)) * [5, 3, *[1] * (dim - 2)]
    turns = ortho_group.rvs(dim, size=seeds, random_state=rng)
    return np.stack([one @ turn + rng.normal(size=dim) for turn in turns])


def test_rotated_copies_have_clouds_of_no_width(rng):
    places = align_seeds(copies(rng))
    np.testing.assert_allclose(places, np.broadcast_to(places[0], places.shape), atol=1e-10)


def test_the_first_seed_is_on_its_principal_axes(rng):
    embeddings = copies(rng)
    places = align_seeds(embeddings)[0]
    values, axes = np.linalg.eigh(np.cov(embeddings[0].T))
    expected = (embeddings[0] - embeddings[0].mean(axis=0)) @ axes[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-10)
    np.testing.assert_allclose(places.var(axis=0, ddof=1), values[::-1][:2])


def test_a_plane_agrees_with_scipy_and_keeps_distances(rng):
    first, other = rng.normal(size=(2, 30, 2))
    places = align_seeds(np.stack([first, other]))
    np.testing.assert_allclose(pdist(places[1]), pdist(other))
    # scipy also scales: the same turn gives the same correlation of all coordinates.
    _, _, disparity = procrustes(first, other)
    scaled = [one / np.linalg.norm(one) for one in places]
    assert 1 - np.sum(scaled[0] * scaled[1]) ** 2 == pytest.approx(disparity)


def test_a_planted_spread_is_found(rng):
    spread, phrases = 0.2, 400
    embeddings = copies(rng, seeds=30, phrases=phrases)
    places = align_seeds(embeddings + rng.normal(scale=spread, size=embeddings.shape))
    assert places.std(axis=0, ddof=1).mean() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("wrong", [np.zeros((2, 1, 3)), np.zeros((2, 5, 1)), np.full((2, 5, 3), np.nan)])
def test_what_has_no_plane_is_an_error(wrong):
    with pytest.raises(InputError, match="finite embeddings of at least 2 phrases and 2 dimensions"):
        align_seeds(wrong)


def test_hits_are_those_of_the_evaluation_and_clusters_those_of_the_split(slices):
    block = rlm.init_block(lambda: MeanEncoder(slices.vocabulary_size, 8, 8), seeds=[0, 1, 2])
    points = embedding_map(block, slices, "test")
    triplets = pd.DataFrame(slices.test, columns=["anchor", "positive", "negative"])
    texts = slices.phrases.texts
    assert set(points["phrase"]) == {texts[phrase] for phrase in slices.test.ravel()}
    counts = triplets["anchor"].map(texts.__getitem__).value_counts()
    accuracy = rlm.evaluate(block, slices, "test").set_index("seed")["triplet_accuracy"]
    for seed, mine in points.groupby("seed"):
        mine = mine.set_index("phrase")
        assert (mine["right"].dropna() * counts).sum() / counts.sum() == pytest.approx(accuracy[seed])
        assert mine["right"].notna().sum() == len(counts)
        cluster = mine["cluster"]
        assert all(cluster[texts[a]] == cluster[texts[p]] for a, p in slices.test[:, :2])
    topics = points["phrase"].str.extract(r"(topic\d+)")[0]
    assert points.groupby(topics)["cluster"].nunique().max() >= 1
    assert points.groupby("cluster")["phrase"].apply(lambda one: one.str.extract(r"(topic\d+)")[0].nunique()).max() == 1


@pytest.mark.parametrize("colour", ["right", "cluster"])
def test_the_figure_has_a_dot_per_phrase_and_a_ray_per_seed(rng, colour):
    places = align_seeds(copies(rng, seeds=3, phrases=12))
    rows = [
        {"seed": seed, "phrase": f"p{number}", "x": x, "y": y, "cluster": min(number // 5, 2), "right": number / 12}
        for seed, mine in enumerate(places)
        for number, (x, y) in enumerate(mine)
    ]
    ax = draw_map(pd.DataFrame(rows), colour, clusters=2)
    rays, dots = ax.collections[:2]
    ends = np.array(rays.get_segments())  # of each seed, phrase by phrase
    np.testing.assert_allclose(dots.get_offsets(), places[:, :10].mean(axis=0))  # the third cluster is smaller
    np.testing.assert_allclose(ends[:, 1], places[:, :10].reshape(-1, 2))
    np.testing.assert_allclose(ends[:, 0], np.tile(places[:, :10].mean(axis=0), (3, 1)))
    assert len({tuple(one) for one in dots.get_facecolors()}) == (2 if colour == "cluster" else 10)
    plt.close(ax.figure)
