"""Figures of a study of random labels: tables in, axes out."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rlm.plots import CHANCE, PALETTE, colours_of, errors, new_axes
from rlm.stats.tables import DIFFERENCE, check_one_arm

__all__ = ["alignment", "effects", "memorising", "shuffles"]


def memorising(memorising: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Draw the accuracy on random labels by epochs since they were drawn, one line per shuffle, the mean over seeds.

    `memorising` is the history of one arm that `rlm.labels.run_labels` returns. As figure 1 of arXiv 1811.01640; a seed
    that has memorised its labels keeps its last accuracy in later means.
    """
    check_one_arm(memorising)
    ax = ax or new_axes(6, 4)
    by_epoch = memorising.set_index(["shuffle", "seed", "shuffle_epoch"])["accuracy"].unstack("shuffle_epoch")
    means = by_epoch.ffill(axis=1).groupby("shuffle").mean()
    colours = sns.color_palette("viridis", len(means))
    longest = memorising.groupby("shuffle")["shuffle_epoch"].max()
    for shuffle, colour in zip(means.index, colours, strict=True):
        curve = means.loc[shuffle, : longest[shuffle]]
        ax.plot(curve.index, curve, color=colour, linewidth=1.5, label=f"{shuffle + 1}")
    seeds = memorising["seed"].nunique()
    ax.set(xlabel="epochs since the labels were dealt", ylabel="accuracy on random labels")
    ax.set_title(f"memorising, mean of {seeds} seeds")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(title="shuffle", fontsize="small", ncols=-(-len(means) // 5))
    return ax


def shuffles(shuffles: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the epochs that memorising takes, shuffle by shuffle; `shuffles` is from `summarise_shuffles`."""
    ax = ax or new_axes(6, 4)
    style = {"fmt": "D-", "color": PALETTE[0], "capsize": 4, "linewidth": 1}
    ax.errorbar(shuffles.index, shuffles["epochs"], errors(shuffles, "epochs"), **style)
    ax.axhline(shuffles["epochs"].iloc[0], **CHANCE)
    ax.set(xlabel="shuffle", ylabel="epochs until memorised", title="how long memorising takes, 95 % intervals")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    return ax


def effects(table: pd.DataFrame, unit: str = "points", ax: Axes | None = None) -> Axes:
    """
    Draw the differences to scratch for each arm and number of labelled samples, with 95 % intervals.

    `table` is from `tabulate_effects`, or from `tabulate_speed` with ``"epochs"`` as `unit`.
    """
    ax = ax or new_axes(6, 4)
    found = table.dropna(subset=["difference"])
    scale = 100 if unit == "points" else 1
    sizes, arms = (list(dict.fromkeys(found.index.get_level_values(name))) for name in ("labelled", "arm"))
    for number, arm in enumerate(arms):
        mine = scale * found.xs(arm, level="arm").loc[sizes, DIFFERENCE]
        places = np.arange(len(sizes)) + 0.14 * (number - (len(arms) - 1) / 2)
        style = {"fmt": "D", "color": colours_of(arms)[arm], "capsize": 3, "markersize": 5}
        ax.errorbar(places, mine["difference"], errors(mine, *DIFFERENCE), label=arm.replace("_", " "), **style)
    ax.axhline(0, **CHANCE)
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set_xlim(-0.5, len(sizes) - 0.5)
    title = "test accuracy minus scratch" if unit == "points" else "epochs minus scratch (fewer is faster)"
    ax.set(xlabel="labelled samples", ylabel=f"mean difference in {unit}", title=f"{title}, 95 % intervals")
    ax.legend(fontsize="small")
    return ax


def alignment(curves: dict[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """
    Draw the spread of first-layer weights along the directions in which the inputs vary, by name; see `align`.

    It is flat for weights that do not depend on the data. Directions in which the data hardly vary are dropped.
    """
    ax = ax or new_axes(6, 4)
    colours = colours_of(curves)
    for name, curve in curves.items():
        shown = curve[curve["data_sd"] > 1e-3 * curve["data_sd"].max()]
        ax.plot(shown["data_sd"], shown["weight_sd"], "o-", color=colours[name], markersize=3, linewidth=1, label=name)
    ax.set(xscale="log", xlabel="standard deviation of the inputs along an eigenvector",
           ylabel="standard deviation of the weights",
           title="first layer: weights along the data's eigenvectors")  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.legend(fontsize="small")
    return ax
