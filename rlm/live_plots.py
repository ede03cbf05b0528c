"""Figures of studies that are watched or compared: tables in, axes out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rlm.plots import CHANCE, PALETTE, colours_of


def plot_sequence(differences: pd.DataFrame, sequence: pd.DataFrame, arms: list[str], ax: Axes | None = None) -> Axes:
    """
    What could be said of the paired differences after each pair of runs.

    Parameters
    ----------
    differences
        Columns arm, pairs (counted from 1) and value: the differences to the baseline, in accuracy.
    sequence
        Columns arm, pairs, value, low, high, see `rlm.stats.confidence_sequence`; bounds may be missing.
    arms
        Of both tables.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Points are pairs; lines their mean so far, with the interval as a band.
    """
    ax = ax or plt.subplots(figsize=(5, 4), layout="constrained")[1]
    alpha = 0.16 / max(len(arms), 1) ** 0.5  # bands lie upon each other
    for arm, colour in colours_of(arms).items():
        pairs, mean = differences[differences["arm"] == arm], sequence[sequence["arm"] == arm]
        ax.scatter(pairs["pairs"], 100 * pairs["value"], s=14, color=colour, alpha=0.55, edgecolor="none")
        ax.plot(mean["pairs"], 100 * mean["value"], color=colour, label=f"{arm}: mean so far")
        ax.fill_between(mean["pairs"], 100 * mean["low"], 100 * mean["high"], color=colour, alpha=alpha, linewidth=0)
    ax.axhline(0, **CHANCE)
    spread = np.abs(100 * differences["value"]).quantile(0.95) if len(differences) else 1.0
    lowest, highest = (100 * differences["value"].agg(["min", "max"])) if len(differences) else (-1.0, 1.0)
    ax.set_ylim(min(lowest, -spread) - 0.3, max(highest, spread) + 0.3)  # early bands are as wide as can be
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="paired seeds", ylabel="points above scratch", title="difference, band valid at any time")
    ax.legend(loc="best", fontsize="small")
    return ax


def plot_differences(effects: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Mean paired differences of several studies, one below the other.

    Parameters
    ----------
    effects
        Columns study, value, low, high, in accuracy; bounds may be missing.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A point with its interval per row, the first above.
    """
    ax = ax or plt.subplots(figsize=(7, 1.1 + 0.5 * len(effects)), layout="constrained")[1]
    points = 100 * effects[["value", "low", "high"]]
    places = np.arange(len(points))
    errors = [points["value"] - points["low"], points["high"] - points["value"]]
    ax.errorbar(points["value"], places, xerr=errors, fmt="D", color=PALETTE[0], capsize=4, linewidth=1.4)
    ax.axvline(0, **CHANCE)
    ax.set_yticks(places, effects["study"])
    ax.set_ylim(len(points) - 0.5, -0.5)
    ax.set(xlabel="mean difference to scratch in points, 95 % interval")
    return ax
