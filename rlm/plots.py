"""Figures: tables in, axes out. Beyond quantiles and means over seeds nothing is computed here."""

from collections.abc import Iterable, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from rlm.stats.metrics import count_failed, find_metric

ARM_LABELS = {
    "scratch": "scratch\n(random init)",
    "pretrained": "pretrained\n(new random triplets\nevery epoch)",
    "pretrained_once": "pretrained once\n(one fixed set of\nrandom triplets)",
    "rescaled": "rescaled\n(init with\npre-trained scale)",
    "shuffled": "shuffled\n(pre-trained weights\nin random order)",
}
PALETTE = sns.color_palette("colorblind")
CHANCE = {"color": "0.35", "linestyle": ":", "linewidth": 1}


def colours_of(names: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """
    Choose colours: every arm has its own in all figures, other names take what is left.

    Parameters
    ----------
    names
        Of arms, or of anything else that is told apart by colour.

    Returns
    -------
    dict
        A colour by name.
    """
    names = list(dict.fromkeys(names))
    of_arms = dict(zip(ARM_LABELS, PALETTE, strict=False))
    left = [colour for colour in PALETTE if colour not in [of_arms.get(name) for name in names]]
    others = dict(zip((name for name in names if name not in of_arms), cycle(left), strict=False))
    return {name: of_arms.get(name) or others[name] for name in names}


def plot_seeds(
    results: pd.DataFrame, summary: pd.DataFrame, metric: str = "test_accuracy", ax: Axes | None = None
) -> Axes:
    """
    Accuracy of every seed under every arm: distribution, paired lines, mean with interval.

    Parameters
    ----------
    results
        As `rlm.run_study` returns them.
    summary
        As `rlm.summarise` returns it for the same results and metric.
    metric
        The column to draw.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With one position per arm, in the order of `summary`.
    """
    ax = ax or plt.subplots(figsize=(2.2 + 2.2 * len(summary), 4.5), layout="constrained")[1]
    arms, known = list(summary.index), find_metric(metric)
    colours, is_failed = colours_of(arms), results[metric].isna()
    results = count_failed(results, known)
    sns.boxplot(
        results, x="arm", y=metric, hue="arm", order=arms, palette=colours, width=0.5, fliersize=0,
        boxprops={"alpha": 0.3}, legend=False, ax=ax,
    )  # fmt: skip
    places = {arm: place for place, arm in enumerate(arms)}
    for _, runs in results[results["arm"].isin(arms)].groupby("seed"):
        runs = runs.sort_values("arm", key=lambda arm: arm.map(places))
        ax.plot(runs["arm"].map(places), runs[metric], color="0.55", linewidth=0.7, alpha=0.6, zorder=2)
    for arm, place in places.items():
        for of_these, marker in ((~is_failed, {"s": 18, "edgecolor": "white"}), (is_failed, {"s": 28, "marker": "X"})):
            values = results.loc[(results["arm"] == arm) & of_these, metric]
            ax.scatter([place] * len(values), values, color=colours[arm], linewidth=0.5, zorder=3, **marker)
    half_widths = [summary["mean"] - summary["low"], summary["high"] - summary["mean"]]
    ax.errorbar(
        np.arange(len(arms)) + 0.34, summary["mean"], yerr=half_widths, fmt="D", color="black", capsize=4,
        markersize=5, zorder=4, label="mean, 95 % interval",
    )  # fmt: skip
    if is_failed.any():
        ax.scatter([], [], s=28, marker="X", color="0.3", label=f"failed: counts as {known.spell(known.failed)}")
    if known.failed == 0.5 and results[metric].min() < 0.55:  # farther away it would only press the seeds together
        ax.axhline(0.5, label="chance", **CHANCE)
    ax.set_xticks(range(len(arms)), [ARM_LABELS.get(arm, arm) for arm in arms])
    name, seeds = metric.replace("_", " "), results["seed"].nunique()
    ax.set(xlabel="", ylabel=name, title=f"{name} of {seeds} seeds, a line each")
    if known.is_share:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="best", fontsize="small")
    return ax


def plot_effects(effects: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Mean paired differences against something that was varied.

    Parameters
    ----------
    effects
        Columns value, low, high, in accuracy (1.0 is 100 points); the index, numbers above 0, is what was varied.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A point with its 95 % interval for each row, on a logarithmic axis.
    """
    ax = ax or plt.subplots(figsize=(6, 4), layout="constrained")[1]
    points = 100 * effects
    errors = [points["value"] - points["low"], points["high"] - points["value"]]
    ax.errorbar(points.index, points["value"], yerr=errors, fmt="D-", color=PALETTE[0], capsize=4, linewidth=1)
    ax.axhline(0, **CHANCE)
    ax.set_xscale("log")
    ax.set_xticks(list(points.index), [f"{place:g}" for place in points.index])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(
        xlabel=effects.index.name,
        ylabel="mean difference in points",
        title="pretrained minus scratch, 95 % intervals, each alone",
    )
    return ax


def plot_learning_curves(history: pd.DataFrame, metric: str = "validation_accuracy", ax: Axes | None = None) -> Axes:
    """
    Learning curves of fine-tuning, one colour per arm; bands where there are several seeds.

    Parameters
    ----------
    history
        Columns arm, seed, epoch and `metric`, every seed at every epoch, as `rlm.histories.best_so_far` gives them; or
        a single seed's history.
    metric
        The column to draw.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Median over seeds, with bands that hold half and nine tenths of the seeds.
    """
    ax = ax or plt.subplots(figsize=(7, 4), layout="constrained")[1]
    arms = list(history["arm"].unique())
    shared = {"data": history, "x": "epoch", "y": metric, "hue": "arm", "hue_order": arms, "estimator": "median"}
    palette = colours_of(arms)
    if history["seed"].nunique() > 1:
        sns.lineplot(
            **shared, palette=palette, errorbar=("pi", 90), linewidth=0, err_kws={"alpha": 0.12}, legend=False, ax=ax
        )
    sns.lineplot(**shared, palette=palette, errorbar=("pi", 50), ax=ax)
    ax.set(xlabel="epoch of fine-tuning", ylabel=metric.replace("_", " "))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.endswith("accuracy"):
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(title="")
    return ax


def plot_pretraining(history: pd.DataFrame, margin: float | None, hue: str = "encoder") -> Sequence[Axes]:
    """
    What tells memorising from collapsing: loss against the margin, accuracy against chance, spread against zero.

    Parameters
    ----------
    history
        As `rlm.pretrain` returns it, with a column named by `hue`; several histories may stand in one table.
    margin
        Of the triplet loss: where a collapsed encoder ends; None for a loss without.
    hue
        Column that tells the histories apart.

    Returns
    -------
    sequence of matplotlib.axes.Axes
        Three panels, of mean values over seeds with the range over seeds as a band.
    """
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    kinds = list(history[hue].unique())
    shared = {"x": "epoch", "hue": hue, "hue_order": kinds, "palette": colours_of(kinds), "errorbar": ("pi", 100)}
    sns.lineplot(history, y="loss", ax=axes[0], **shared)
    if margin is not None:
        axes[0].axhline(margin, label=f"margin = {margin:g}: collapsed", **CHANCE)
    axes[0].set(title="loss", yscale="log")
    accuracies = history.melt(["seed", "epoch", hue], ["seen_accuracy", "unseen_accuracy"], "triplets", "accuracy")
    accuracies["triplets"] = accuracies["triplets"].str.replace("_accuracy", " random triplets")
    sns.lineplot(accuracies, y="accuracy", style="triplets", ax=axes[1], **shared)
    axes[1].axhline(0.5, label="chance: nothing memorised", **CHANCE)
    axes[1].set(title="triplet accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    sns.lineplot(history, y="spread", ax=axes[2], **shared)
    axes[2].set(title="mean squared distance of two phrases", yscale="log")
    for ax in (axes[0], axes[2]):
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    handles = {}
    for ax in axes:
        ax.set(xlabel="epoch of pre-training", ylabel="")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        ax.get_legend().remove()
    shown = [label for label in handles if label not in (hue, "triplets")]
    figure.legend([handles[label] for label in shown], shown, loc="outside lower center", ncols=4, frameon=False)
    return list(axes)


def plot_roc(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    ROC curves, one colour per arm.

    Parameters
    ----------
    curves
        Columns arm, seed, false_positive_rate, true_positive_rate, see `rlm.evaluation.roc`; a curve per arm and seed.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A square panel.
    """
    ax = ax or plt.subplots(figsize=(4.5, 4.5), layout="constrained")[1]
    arms = list(curves["arm"].unique())
    sns.lineplot(
        curves, x="false_positive_rate", y="true_positive_rate", hue="arm", hue_order=arms,
        palette=colours_of(arms), estimator=None, units="seed", sort=False, ax=ax,
    )  # fmt: skip
    ax.axline((0, 0), slope=1, label="chance", **CHANCE)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    ax.legend(title="", loc="lower right")
    return ax


def plot_systems(summary: pd.DataFrame) -> Sequence[Axes]:
    """
    Every system under every arm beside the untrained baseline: accuracy, ROC AUC, top-1 and time.

    Parameters
    ----------
    summary
        As of `rlm.standings.summarise_systems`.

    Returns
    -------
    sequence of matplotlib.axes.Axes
        A row of four for each dataset; systems from above in the order of the summary, means with intervals, arms apart
        in colour and marker, and the baseline as a line.
    """
    is_untrained = summary["arm"] == "untrained"
    named = summary.assign(system=summary["encoder"] + " + " + summary["loss"])
    by_dataset = {name: rows["system"].unique() for name, rows in named[~is_untrained].groupby("dataset", sort=False)}
    arms = list(named.loc[~is_untrained, "arm"].unique())
    titles = {"test_accuracy": "test triplet accuracy", "roc_auc": "ROC AUC", "top_1": "top-1 accuracy"}
    titles |= {"seconds": "seconds per seed"}
    heights = [len(systems) + 1 for systems in by_dataset.values()]
    figure, axes = plt.subplots(
        len(heights), 4, figsize=(12, 1.3 + 0.36 * sum(heights)), height_ratios=heights, squeeze=False,
        sharey="row", layout="constrained",
    )  # fmt: skip
    for (name, systems), row in zip(by_dataset.items(), axes, strict=True):
        place = {system: number for number, system in enumerate(systems)}
        for ax, metric in zip(row, titles, strict=True):
            mine = named[(named["dataset"] == name) & (named["metric"] == metric)]
            for number, arm in enumerate(arms):
                of_arm = mine[mine["arm"] == arm]
                ax.errorbar(
                    of_arm["mean"], of_arm["system"].map(place) + 0.26 * (number - (len(arms) - 1) / 2),
                    xerr=[of_arm["mean"] - of_arm["low"], of_arm["high"] - of_arm["mean"]],
                    fmt="osD^v"[number], markersize=4.5, color=colours_of(arms)[arm], capsize=2, linewidth=1.2,
                    label=arm,
                )  # fmt: skip
            if metric != "seconds":
                ax.axvline(mine.loc[mine["arm"] == "untrained", "mean"].iloc[0], color="0.35", linestyle="--",
                           linewidth=1.2, label="trigram overlap, untrained")  # fmt: skip
            ax.grid(axis="x", color="0.9")
            ax.set_axisbelow(True)
        row[0].set_yticks(range(len(systems)), systems)
        row[0].set_ylim(len(systems) - 0.5, -0.5)
        row[0].set_ylabel(name, fontweight="bold")
        row[0].xaxis.set_major_formatter(PercentFormatter(1))
        row[2].xaxis.set_major_formatter(PercentFormatter(1))
        row[3].set_xscale("log")
        row[3].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        row[3].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        row[3].xaxis.set_minor_formatter(NullFormatter())
    for ax, title in zip(axes[0], titles.values(), strict=True):
        ax.set_title(title)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return list(axes.flat)
