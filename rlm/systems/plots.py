"""The figure of systems: a summary in, axes out."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from rlm.plots import CHANCE, PALETTE, colours_of, errors, new_axes, plain_ticks


def draw(summary: pd.DataFrame) -> Sequence[Axes]:
    """
    Draw every system under every arm beside the untrained reference: accuracy, ROC AUC, top-1 and time.

    Parameters
    ----------
    summary
        As `rlm.systems.summarise` returns it.

    Returns
    -------
    sequence of matplotlib.axes.Axes
        Four for each dataset, with the systems in the order of the summary.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> columns = ["dataset", "encoder", "loss", "arm", "metric", "mean", "low", "high"]
    >>> pairs = [(arm, metric) for arm in ("scratch", "untrained") for metric in rlm.systems.METRICS]
    >>> rows = [("pqa", "mean", "triplet", *pair, 0.6, 0.5, 0.7) for pair in pairs]
    >>> len(rlm.systems.draw(pd.DataFrame(rows, columns=columns)))
    4
    """
    named = summary.assign(system=summary["encoder"] + " + " + summary["loss"])
    trained = named[named["arm"] != "untrained"]
    by_dataset = trained.groupby("dataset", sort=False)["system"].unique()
    arms = list(trained["arm"].unique())
    metrics = ["test_accuracy", "roc_auc", "top_1", "seconds"]
    titles = ["test triplet accuracy", "ROC AUC", "top-1 accuracy", "seconds per seed"]
    heights = [len(systems) + 1 for systems in by_dataset]
    shape = {"figsize": (12, 1.3 + 0.36 * sum(heights)), "height_ratios": heights, "sharey": "row"}
    figure, axes = plt.subplots(len(heights), 4, squeeze=False, layout="constrained", **shape)
    for (name, systems), row in zip(by_dataset.items(), axes, strict=True):
        place = dict(zip(systems, range(len(systems)), strict=True))
        for ax, metric, title in zip(row, metrics, titles, strict=True):
            ax.set_title(title if row[0] is axes[0, 0] else "")
            mine = named[(named["dataset"] == name) & (named["metric"] == metric)]
            for number, arm in enumerate(arms):
                of_arm = mine[mine["arm"] == arm]
                shift = 0.26 * (number - (len(arms) - 1) / 2)
                ax.errorbar(
                    of_arm["mean"], of_arm["system"].map(place) + shift, xerr=errors(of_arm, "mean"), label=arm,
                    fmt="osD^vP*X"[number], markersize=4.5, color=colours_of(arms)[arm], capsize=2, linewidth=1.2,
                )  # fmt: skip
            if metric != "seconds":
                untrained = mine.loc[mine["arm"] == "untrained", "mean"].iloc[0]
                ax.axvline(untrained, color="0.35", linestyle="--", linewidth=1.2, label="trigram overlap, untrained")
            if metric in ("test_accuracy", "top_1"):
                ax.xaxis.set_major_formatter(PercentFormatter(1))
            ax.grid(axis="x", color="0.9")
            ax.set_axisbelow(True)
        row[0].set_yticks(range(len(systems)), systems)
        row[0].set_ylim(len(systems) - 0.5, -0.5)
        row[0].set_ylabel(name, fontweight="bold")
        row[3].set_xscale("log")
        plain_ticks(row[3].xaxis, numticks=8)
    entries = axes[0, 0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=len(entries[0]), frameon=False)
    return list(axes.flat)


def draw_sweep(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    r"""
    Draw the difference of every setting of a sweep to the best, with its confidence sequence.

    Parameters
    ----------
    table
        `Sweep.table`.
    ax
        The axes to draw on; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        One row per setting, the best first; settings that were dropped are grey.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> table = pd.DataFrame({"seeds": [9, 9], "difference": [0, -0.1], "low": [0, -0.2], "high": [0, 0]})
    >>> table = table.assign(result=["best so far", "dropped"]).set_axis(["dim=8", "dim=2"])
    >>> [label.get_text() for label in rlm.systems.draw_sweep(table).get_yticklabels()]
    ['dim=8\n9 seeds', 'dim=2\n9 seeds']
    """
    ax = ax or new_axes(7, 1.2 + 0.5 * len(table))
    scaled = table[["difference", "low", "high"]] * 100
    colours = {True: "0.6", False: PALETTE[0]}
    for row, (is_out, one) in enumerate(zip(table["result"] == "dropped", scaled.itertuples(), strict=True)):
        ends = [[one.difference - one.low], [one.high - one.difference]]
        ax.errorbar([one.difference], [row], xerr=ends, fmt="D", color=colours[is_out], capsize=4, linewidth=1.6)
    ax.axvline(0, **CHANCE)
    names = [f"{setting}\n{seeds} seeds" for setting, seeds in table["seeds"].items()]
    ax.set_yticks(range(len(table)), names)
    ax.set(xlabel="validation accuracy above the best, points; grey: dropped", ylim=(len(table) - 0.5, -0.5))
    return ax
