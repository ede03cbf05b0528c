"""Figures of a study of random labels: tables in, axes out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rlm.plots import CHANCE, PALETTE, colours_of


def plot_memorising(memorising: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Accuracy on the random labels since they were dealt, one line per shuffle, the mean over seeds.

    Parameters
    ----------
    memorising
        Of one arm, see `LabelsResult`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A seed that has memorised its labels keeps its last accuracy in the means that follow.

    References
    ----------
    As figure 1 of arXiv 1811.01640.
    """
    ax = ax or plt.subplots(figsize=(6, 4), layout="constrained")[1]
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


def plot_shuffles(shuffles: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Epochs that memorising takes, shuffle by shuffle.

    Parameters
    ----------
    shuffles
        From `summarise_shuffles`.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Means with 95 % intervals; the dotted line is the first shuffle.
    """
    ax = ax or plt.subplots(figsize=(6, 4), layout="constrained")[1]
    errors = [shuffles["epochs"] - shuffles["low"], shuffles["high"] - shuffles["epochs"]]
    ax.errorbar(shuffles.index, shuffles["epochs"], yerr=errors, fmt="D-", color=PALETTE[0], capsize=4, linewidth=1)
    ax.axhline(shuffles["epochs"].iloc[0], **CHANCE)
    ax.set(xlabel="shuffle", ylabel="epochs until memorised", title="how long memorising takes, 95 % intervals")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    return ax


def plot_label_effects(table: pd.DataFrame, unit: str = "points", ax: Axes | None = None) -> Axes:
    """
    Differences to the baseline for each arm and number of labelled samples.

    Parameters
    ----------
    table
        From `tabulate_effects` or `tabulate_speed`.
    unit
        ``"points"`` of accuracy, or ``"epochs"``.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A mean with its 95 % interval for each.
    """
    ax = ax or plt.subplots(figsize=(6, 4), layout="constrained")[1]
    found = table.dropna(subset=["difference"])
    scale = 100 if unit == "points" else 1
    sizes, arms = (list(dict.fromkeys(found.index.get_level_values(name))) for name in ("labelled", "arm"))
    for number, arm in enumerate(arms):
        mine = found.xs(arm, level="arm").loc[sizes]
        columns = ("difference", "difference_low", "difference_high")
        value, low, high = (scale * mine[name].astype(float) for name in columns)
        places = np.arange(len(sizes)) + 0.14 * (number - (len(arms) - 1) / 2)
        ax.errorbar(places, value, yerr=[value - low, high - value], fmt="D", color=colours_of(arms)[arm], capsize=3,
                    markersize=5, label=arm.replace("_", " "))  # fmt: skip
    ax.axhline(0, **CHANCE)
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set_xlim(-0.5, len(sizes) - 0.5)
    title = "test accuracy minus scratch" if unit == "points" else "epochs minus scratch (fewer is faster)"
    ax.set(xlabel="labelled samples", ylabel=f"mean difference in {unit}", title=f"{title}, 95 % intervals")
    ax.legend(fontsize="small")
    return ax


def plot_alignment(curves: dict[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """
    Spread of first-layer weights along the directions in which the inputs vary.

    Parameters
    ----------
    curves
        From `rlm.labels.align`, by name.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Flat where weights know nothing of the data. Directions in which the data hardly vary are left out.
    """
    ax = ax or plt.subplots(figsize=(6, 4), layout="constrained")[1]
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
