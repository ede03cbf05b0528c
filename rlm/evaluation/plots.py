"""The figure of a map of phrases with its uncertainty."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.ticker import PercentFormatter

from rlm.plots import PALETTE, new_axes


def draw_map(
    points: pd.DataFrame, colour: Literal["right", "cluster"] = "right", clusters: int = 6, ax: Axes | None = None
) -> Axes:
    """
    Draw a map of phrases: a dot at the mean over seeds, and a star that ends at the places under every seed.

    Parameters
    ----------
    points
        As `rlm.evaluation.embedding_map` returns it.
    colour
        ``"cluster"``, or ``"right"``: the share of the triplets with this anchor that are right, over all seeds. A
        phrase that is no anchor is white.
    clusters
        Number of the largest clusters, at most 10, whose phrases are drawn; all phrases would hide each other.
    ax
        The axes to draw on; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With axes of equal scale. If a star reaches beyond the next dot, another seed may put the two phrases the other
        way round.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> points = pd.DataFrame({"seed": [0, 1], "phrase": "a", "x": [0.0, 1.0], "y": 0.0, "cluster": 0, "right": [1, 0]})
    >>> rlm.evaluation.draw_map(points).collections[1].get_offsets().data.tolist()
    [[0.5, 0.0]]
    """
    ax = ax or new_axes(6, 5)
    means = points.groupby("phrase", sort=False)[["x", "y", "cluster", "right"]].mean()
    largest = means["cluster"].value_counts().index[: min(clusters, len(PALETTE))]
    means = means[means["cluster"].isin(largest)]
    if colour == "right":
        shades = ScalarMappable(Normalize(0, 1), "cividis")
        ax.figure.colorbar(shades, ax=ax, label="right triplets of this anchor", format=PercentFormatter(1), shrink=0.7)
        colours = [shades.to_rgba(share) if share == share else (1, 1, 1, 1) for share in means["right"]]
    else:
        of_cluster = dict(zip(largest, PALETTE, strict=False))
        colours = [of_cluster[cluster] for cluster in means["cluster"]]
    centres = means[["x", "y"]].add_suffix("_mean").assign(colour=colours)
    ends = points.join(centres, on="phrase", how="inner")
    rays = [[(one.x_mean, one.y_mean), (one.x, one.y)] for one in ends.itertuples()]
    ax.add_collection(LineCollection(rays, colors=ends["colour"].tolist(), linewidths=0.8, alpha=0.4))
    ax.scatter(means["x"], means["y"], s=34, c=colours, edgecolor="black", linewidth=0.5, zorder=3)
    ax.set(xlabel="first axis of the first seed", ylabel="second axis", aspect="equal")
    ax.autoscale_view()
    return ax
