"""A map of phrases with its uncertainty: principal components of one seed, onto which the other seeds are rotated."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.linalg import orthogonal_procrustes

from rlm.block import Block
from rlm.data.corpus import relevance_clusters
from rlm.engine.accuracy import triplet_scores
from rlm.errors import InputError
from rlm.evaluation.triplets import embedded_split
from rlm.slicer import Slices


def align_seeds(embeddings: Float[np.ndarray, "seed phrase dim"]) -> Float[np.ndarray, "seed phrase 2"]:
    """
    Draw the embeddings of several seeds on one plane.

    Parameters
    ----------
    embeddings
        The same phrases under every seed, at least two phrases, of two dimensions or more.

    Returns
    -------
    numpy.ndarray
        Coordinates on the first two principal axes of the first seed. Each other seed is centred, and rotated or
        reflected so that it comes as near to the first as it can: orthogonal Procrustes, Schönemann 1966. Distances
        within a seed stay as they are, except for what a projection takes away.

    Raises
    ------
    InputError
        If there are fewer phrases or dimensions, or a number is not finite.

    Examples
    --------
    >>> import numpy as np, rlm
    >>> one = np.array([[0.0, 3.0], [0.0, -3.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> places = rlm.evaluation.align_seeds(np.stack([one, one[:, ::-1]]))  # the other seed has the axes swapped
    >>> bool(np.allclose(places[0], places[1]))
    True
    """
    if min(embeddings.shape[1:]) < 2 or not np.isfinite(embeddings).all():
        raise InputError(
            f"expected finite embeddings of at least 2 phrases and 2 dimensions, found {embeddings.shape[1]} phrases "
            f"and {embeddings.shape[2]} dimensions; drop seeds that diverged"
        )
    centred = embeddings - embeddings.mean(axis=1, keepdims=True)
    axes = np.linalg.svd(centred[0], full_matrices=False)[2][:2].T
    return np.stack([mine @ orthogonal_procrustes(mine, centred[0])[0] @ axes for mine in centred])


def embedding_map(block: Block, slices: Slices, split: str = "validation") -> pd.DataFrame:
    """
    Tabulate where every seed of a block puts the phrases of a split, see `align_seeds`.

    Parameters
    ----------
    block
        A block of trained seeds.
    slices
        The split that all of them share.
    split
        ``"train"``, ``"validation"`` or ``"test"``.

    Returns
    -------
    pandas.DataFrame
        One row per seed and phrase: seed, phrase (its text), x, y, cluster (a number), and right: the share of the
        triplets with this anchor that the seed gets right, missing for phrases that are no anchor.

    Raises
    ------
    InputError
        As `align_seeds`.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.slice_corpus(rlm.index_corpus(rlm.load("chatterbot-english")))
    >>> block = rlm.init_block(lambda: rlm.zoo.MeanEncoder(slices.vocabulary_size), seeds=[0, 1])
    >>> points = rlm.evaluation.embedding_map(block, slices)
    >>> list(points), points.groupby("phrase")["seed"].nunique().unique().tolist()
    (['seed', 'phrase', 'x', 'y', 'cluster', 'right'], [2])
    """
    batch, embeddings = embedded_split(block, slices, split, "distance")
    phrases = batch.phrases[0].cpu().numpy()
    places = align_seeds(embeddings.double().cpu().numpy())
    cluster = relevance_clusters(getattr(slices, split)[:, :2], len(slices.phrases))[phrases]
    texts = [slices.phrases.texts[phrase] for phrase in phrases]
    scores, anchors = triplet_scores(embeddings, batch).cpu().numpy(), batch.triplets[..., 0].cpu().numpy()
    tables = []
    for seed, (x, y), score, anchor in zip(block.seeds, places.transpose(0, 2, 1), scores, anchors, strict=True):
        right = pd.Series(score).groupby(anchor).mean().reindex(range(len(phrases)))
        found = {"seed": seed, "phrase": texts, "x": x, "y": y, "cluster": cluster, "right": right.to_numpy()}
        tables.append(pd.DataFrame(found))
    return pd.concat(tables, ignore_index=True)
