"""The figure of a map of phrases with its uncertainty."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from rlm.plots import PALETTE, new_axes


def draw_map(
    points: pd.DataFrame, colour: Literal["right", "cluster"] = "right", clusters: int = 8, ax: Axes | None = None
) -> Axes:
    """
    Draw a map of phrases: a dot at the mean over seeds, and a cloud of the places under every seed.

    Parameters
    ----------
    points
        As `rlm.evaluation.embedding_map` returns it.
    colour
        ``"right"``: the share of the triplets with this anchor that are right, over all seeds. ``"cluster"``: one
        colour for each of the largest clusters.
    clusters
        Number of clusters with a colour of their own, at most 10; the phrases of the others are grey.
    ax
        The axes to draw on; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With axes of equal scale. A cloud that is wider than the distance to the next dot means that another seed could
        put the two phrases the other way round.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> points = pd.DataFrame({"seed": [0, 1], "phrase": "a", "x": [0.0, 1.0], "y": 0.0, "cluster": 0, "right": [1, 0]})
    >>> rlm.evaluation.draw_map(points).collections[1].get_offsets().data.tolist()
    [[0.5, 0.0]]
    """
    ax = ax or new_axes(6, 5)
    means = points.groupby("phrase", sort=False)[["x", "y", "cluster", "right"]].mean()
    if colour == "right":
        values = means["right"]
        style = {"cmap": "cividis", "vmin": 0, "vmax": 1, "plotnonfinite": False}
    else:
        largest = means["cluster"].value_counts().index[: min(clusters, len(PALETTE))]
        colours = dict(zip(largest, PALETTE, strict=False))
        values = means["cluster"].map(lambda cluster: colours.get(cluster, (0.8, 0.8, 0.8)))
        style = {}
    cloud = values.loc[points["phrase"]].tolist()
    ax.scatter(points["x"], points["y"], s=7, c=cloud, alpha=0.25, linewidth=0, **style)
    dots = ax.scatter(means["x"], means["y"], s=26, c=values.tolist(), edgecolor="black", linewidth=0.4, **style)
    if colour == "right":
        ax.figure.colorbar(dots, ax=ax, label="triplets of this anchor that are right", format=PercentFormatter(1))
    ax.set(xlabel="first axis of the first seed", ylabel="second axis", aspect="equal")
    return ax
