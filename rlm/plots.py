"""Figures: tables in, axes out. Beyond quantiles and means over seeds nothing is computed here."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from rlm.stats.metrics import Metric, count_failed, find_metric
from rlm.stats.tables import best_so_far
from rlm.variants import ARMS
from rlm.verdict import Verdict

__all__ = ["best_so_far", "differences", "effects", "learning_curves", "pretraining", "roc", "seeds"]

PALETTE = sns.color_palette("colorblind")
CHANCE = {"color": "0.35", "linestyle": ":", "linewidth": 1}


def colours_of(names: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """Choose a colour for each name: an arm has the same one in all figures, other names take what is left."""
    names = list(dict.fromkeys(names))
    of_arms = dict(zip(ARMS, PALETTE, strict=False))
    left = cycle([colour for colour in PALETTE if colour not in [of_arms.get(name) for name in names]])
    return {name: of_arms.get(name) or next(left) for name in names}


def _label(arm: str) -> str:
    """Return a tick label: an arm with its meaning, any other name as it is."""
    name, _, settings = arm.partition(" (")
    told = f"({ARMS[arm].meaning})" if arm in ARMS else f"({settings}" if settings else ""
    arm, lines = (arm if arm in ARMS else name), wrap(told, 20, break_on_hyphens=False)
    return "\n".join([arm.replace("_", " "), *lines]) if lines else arm


def new_axes(width: float | int, height: float | int) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def errors(table: pd.DataFrame, value: str = "value", low: str = "low", high: str = "high") -> list[pd.Series]:
    """Return the distances from the values to the bounds of their intervals, as matplotlib takes them."""
    return [table[value] - table[low], table[high] - table[value]]


def plain_ticks(axis: Axis, numticks: int | None = None) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2, 5, 10, ..."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=numticks))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def seeds(
    results: pd.DataFrame, summary: pd.DataFrame, metric: str | Metric = "test_accuracy", ax: Axes | None = None
) -> Axes:
    """
    Draw every seed under every arm: distribution, paired lines, mean with interval.

    Parameters
    ----------
    results, summary
        As `rlm.run_study` and, for the same metric, `rlm.summarise` return them.
    metric, ax
        The column to draw, and the axes to draw on; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With one position per arm, in the order of `summary`.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> results = pd.DataFrame({"arm": "scratch", "seed": range(3), "test_accuracy": [0.6, 0.7, 0.8]})
    >>> rlm.plots.seeds(results, rlm.summarise(results)).get_title()
    'test accuracy of 3 seeds, a line each'
    """
    ax = ax or new_axes(2.2 + 2.2 * len(summary), 4.5)
    arms, known = list(summary.index), find_metric(metric, results)
    metric, colours, is_failed = known.name, colours_of(arms), results[known.name].isna()
    results = count_failed(results, known)
    style = {"palette": colours, "width": 0.5, "fliersize": 0, "boxprops": {"alpha": 0.3}}
    sns.boxplot(results, x="arm", y=metric, hue="arm", order=arms, legend=False, ax=ax, **style)
    places = {arm: place for place, arm in enumerate(arms)}
    for _, runs in results[results["arm"].isin(arms)].groupby("seed"):
        runs = runs.sort_values("arm", key=lambda arm: arm.map(places))
        ax.plot(runs["arm"].map(places), runs[metric], color="0.55", linewidth=0.7, alpha=0.6, zorder=2)
    for arm, place in places.items():
        for of_these, marker in ((~is_failed, {"s": 18, "edgecolor": "white"}), (is_failed, {"s": 28, "marker": "X"})):
            values = results.loc[(results["arm"] == arm) & of_these, metric]
            ax.scatter([place] * len(values), values, color=colours[arm], linewidth=0.5, zorder=3, **marker)
    style = {"fmt": "D", "color": "black", "capsize": 4, "markersize": 5, "label": "mean, 95 % interval"}
    ax.errorbar(np.arange(len(arms)) + 0.34, summary["mean"], errors(summary, "mean"), zorder=4, **style)
    if is_failed.any():
        counts_as = " to ".join(map(known.spell, sorted({*results.loc[is_failed, metric].agg(["min", "max"])})))
        ax.scatter([], [], s=28, marker="X", color="0.3", label=f"failed: counts as {counts_as}")
    if known.failed == 0.5 and results[metric].min() < 0.55:  # farther away it would squeeze the seeds together
        ax.axhline(0.5, label="chance", **CHANCE)
    ax.set_xticks(range(len(arms)), [_label(arm) for arm in arms])
    ax.set(xlabel="", ylabel=known.label, title=f"{known.label} of {results['seed'].nunique()} seeds, a line each")
    if known.is_share:
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="best", fontsize="small")
    return ax


def effects(effects: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Draw mean paired differences with their intervals against a varied setting, on a logarithmic axis.

    Parameters
    ----------
    effects
        Columns value, low, high, in accuracy (1.0 is 100 points); the index, numbers above 0, is the setting.
    ax
        As in `seeds`.

    Returns
    -------
    matplotlib.axes.Axes
        With the setting on the x axis.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> rlm.plots.effects(pd.DataFrame({"value": 0.2, "low": 0.1, "high": 0.3}, pd.Index([8], name="dim"))).get_xlabel()
    'dim'
    """
    ax = ax or new_axes(6, 4)
    points = 100 * effects
    ax.errorbar(points.index, points["value"], errors(points), fmt="D-", color=PALETTE[0], capsize=4, linewidth=1)
    ax.axhline(0, **CHANCE)
    ax.set(xscale="log", xlabel=effects.index.name, ylabel="mean difference in points")
    ax.set_xticks(list(points.index), [f"{place:g}" for place in points.index])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title("pretrained minus scratch, 95 % intervals, each alone")
    return ax


def differences(verdicts: Mapping[str, Verdict], ax: Axes | None = None) -> Axes:
    r"""
    Draw the paired difference of every arm to the baseline, with the interval that decides.

    Parameters
    ----------
    verdicts
        Verdicts by name, such as those of `rlm.compare_all`, all of one metric.
    ax
        As in `seeds`.

    Returns
    -------
    matplotlib.axes.Axes
        One row per verdict, with its decision; of too few seeds without an interval. The band around 0 counts as the
        same. The broad lines are intervals for data like these, where a verdict has one.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [(arm, seed, 0.6) for arm in ("scratch", "pretrained") for seed in range(12)]
    >>> verdicts = rlm.compare_all(pd.DataFrame(runs, columns=["arm", "seed", "test_accuracy"]))
    >>> rlm.plots.differences(verdicts).get_yticklabels()[0].get_text()
    'pretrained\nno evidence either way'
    """
    ax = ax or new_axes(7, 1.6 + 0.55 * len(verdicts))
    first = next(iter(verdicts.values()))
    metric, scale = first.metric, first.metric.scale
    if metric.same_within is not None:
        same = scale * metric.same_within
        label = f"the same, within {metric.spell_amount(metric.same_within)}"
        ax.axvspan(-same, same, color="0.93", zorder=0, label=label)
    ax.axvline(0, **CHANCE)
    style = {"fmt": "D", "color": PALETTE[0], "capsize": 4, "linewidth": 1.6}
    for row, found in enumerate(verdicts.values()):
        value, low, high = (scale * number for number in found.judged)
        ends = [[value - low], [high - value]] if np.isfinite(low) and found.decision != "too few seeds" else None
        ax.errorbar([value], [row], xerr=ends, **style, label="with other seeds, 95 %" if ends else None)
        if found.new_data is not None and np.isfinite(found.new_data.difference.low):
            wide = [scale * bound for bound in found.new_data.difference[1:]]
            broad = {"color": PALETTE[0], "alpha": 0.25, "linewidth": 9, "solid_capstyle": "butt"}
            ax.plot(wide, [row, row], label="on data like these, 95 %", **broad)
    names = [f"{name.replace('_', ' ')}\n{found.decision}" for name, found in verdicts.items()]
    ax.set_yticks(range(len(names)), names)
    unit = ", points" if metric.is_share else ""
    ax.set(xlabel=f"{metric.label} above {first.baseline}{unit}", ylim=(len(names) - 0.5, -0.5))
    handles, labels = ax.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2}  # three would be wider than the figure
    style = {"frameon": False, "fontsize": "small", "handlelength": 1.2, "columnspacing": 1}
    ax.legend(shown.values(), shown, **place, **style)
    return ax


def sequence(differences: pd.DataFrame, sequence: pd.DataFrame, arms: list[str], above: str, ax: Axes) -> Axes:
    """Draw paired differences (columns arm, pairs, value), with their means and bands (also low, high) so far."""
    alpha = 0.16 / max(len(arms), 1) ** 0.5  # bands overlap
    for arm, colour in colours_of(arms).items():
        pairs, mean = differences[differences["arm"] == arm], sequence[sequence["arm"] == arm]
        ax.scatter(pairs["pairs"], pairs["value"], s=14, color=colour, alpha=0.55, edgecolor="none")
        ax.plot(mean["pairs"], mean["value"], color=colour, label=f"{arm}: mean so far")
        ax.fill_between(mean["pairs"], mean["low"], mean["high"], color=colour, alpha=alpha, linewidth=0)
        now = mean.iloc[-1:]  # one look has neither a line nor a band
        ax.errorbar(now["pairs"], now["value"], errors(now), color=colour, fmt="D", markersize=4, capsize=3)
    ax.axhline(0, **CHANCE)
    values = differences["value"] if len(differences) else pd.Series([-1.0, 1.0])
    spread = values.abs().quantile(0.95)  # early bands would take the whole range
    room = 0.1 * spread or 0.3
    ax.set_ylim(min(values.min(), -spread) - room, max(values.max(), spread) + room)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="paired seeds", ylabel=above, title="difference, band valid at any time")
    ax.legend(loc="best", fontsize="small")
    return ax


def learning_curves(history: pd.DataFrame, metric: str = "validation_accuracy", ax: Axes | None = None) -> Axes:
    """
    Draw learning curves of fine-tuning, one colour per arm; with bands if there are several seeds.

    Parameters
    ----------
    history
        Columns arm, seed, epoch and `metric`: every seed at every epoch, see `best_so_far`, or a single seed.
    metric, ax
        As in `seeds`.

    Returns
    -------
    matplotlib.axes.Axes
        Median over seeds, with bands that hold half and nine tenths of the seeds.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> history = pd.DataFrame({"arm": "scratch", "seed": 0, "epoch": [0, 1], "validation_accuracy": [0.5, 0.7]})
    >>> rlm.plots.learning_curves(history).get_ylabel()
    'validation accuracy'
    """
    ax = ax or new_axes(7, 4)
    shared = {"data": history, "x": "epoch", "y": metric, "hue": "arm", "palette": colours_of(history["arm"]), "ax": ax}
    shared["estimator"], is_banded = "median", history["seed"].nunique() > 1
    if is_banded:
        sns.lineplot(**shared, errorbar=("pi", 90), linewidth=0, err_kws={"alpha": 0.12}, legend=False)
    sns.lineplot(**shared, errorbar=("pi", 50))
    ax.set(xlabel="epoch of fine-tuning", ylabel=metric.replace("_", " "))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.endswith("accuracy"):
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(title="median; half, and nine tenths, of the seeds" * is_banded)
    return ax


def luck(hits: pd.DataFrame, ax: Axes) -> Axes:
    """Draw how many triplets few or many of the seeds get right, see `rlm.stats.variance.count_hits`."""
    for arm, colour in colours_of(hits["arm"]).items():
        mine = hits[hits["arm"] == arm]
        style = {"color": colour, "drawstyle": "steps-mid"}
        ax.plot(mine["share"], mine["triplets"], label=arm, **style)
        ax.plot(mine["share"], mine["independent"], label=f"{arm}, if seeds were independent", linestyle=":", **style)
    ax.set(xlabel="share of the seeds that get a triplet right", ylabel="share of the test triplets")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.legend(fontsize="small")
    return ax


def pretraining(history: pd.DataFrame, margin: float | None, hue: str = "encoder") -> Sequence[Axes]:
    """
    Draw loss against the margin, accuracy against chance and spread against zero: memorising, or collapsing.

    Parameters
    ----------
    history
        As `rlm.pretrain` returns it, with a column named by `hue`; one table may hold several histories.
    margin, hue
        Margin of the triplet loss, None for other losses, and the column that distinguishes the histories.

    Returns
    -------
    sequence of matplotlib.axes.Axes
        Three, with means over seeds and the range over seeds as a band.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> columns = ["encoder", "seed", "epoch", "loss", "seen_accuracy", "unseen_accuracy", "spread"]
    >>> rlm.plots.pretraining(pd.DataFrame([("mean", 0, 0, 0.5, 0.5, 0.5, 2.0)], columns=columns), 0.5)[1].get_title()
    'triplet accuracy'
    """
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    kinds = list(history[hue].unique())
    shared = {"x": "epoch", "hue": hue, "hue_order": kinds, "palette": colours_of(kinds), "errorbar": ("pi", 100)}
    sns.lineplot(history, y="loss", ax=axes[0], **shared)
    if margin is not None:
        axes[0].axhline(margin, label=f"margin = {margin:g}: collapsed", **CHANCE)
    accuracies = history.melt(["seed", "epoch", hue], ["seen_accuracy", "unseen_accuracy"], "triplets", "accuracy")
    accuracies["triplets"] = accuracies["triplets"].str.replace("_accuracy", " random triplets")
    sns.lineplot(accuracies, y="accuracy", style="triplets", ax=axes[1], **shared)
    axes[1].axhline(0.5, label="chance: nothing memorised", **CHANCE)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    sns.lineplot(history, y="spread", ax=axes[2], **shared)
    for ax in (axes[0], axes[2]):
        ax.set_yscale("log")
        plain_ticks(ax.yaxis)
    handles = {}
    for ax, title in zip(axes, ("loss", "triplet accuracy", "mean squared distance of two phrases"), strict=True):
        ax.set(title=title, xlabel="epoch of pre-training", ylabel="")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        ax.get_legend().remove()
    shown = [label for label in handles if label not in (hue, "triplets")]
    figure.legend([handles[label] for label in shown], shown, loc="outside lower center", ncols=4, frameon=False)
    return list(axes)


def roc(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """
    Draw ROC curves, one colour per arm.

    Parameters
    ----------
    curves
        Columns arm, seed, false_positive_rate, true_positive_rate, see `rlm.evaluation.roc`; a curve per arm and seed.
    ax
        As in `seeds`.

    Returns
    -------
    matplotlib.axes.Axes
        A square panel.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> curve = {"arm": "scratch", "seed": 0, "false_positive_rate": [0, 1], "true_positive_rate": [0, 1]}
    >>> rlm.plots.roc(pd.DataFrame(curve)).get_xlim()
    (np.float64(0.0), np.float64(1.0))
    """
    ax = ax or new_axes(4.5, 4.5)
    arms = list(curves["arm"].unique())
    shared = {"hue": "arm", "hue_order": arms, "palette": colours_of(arms), "estimator": None, "units": "seed"}
    sns.lineplot(curves, x="false_positive_rate", y="true_positive_rate", sort=False, ax=ax, **shared)
    ax.axline((0, 0), slope=1, label="chance", **CHANCE)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    ax.legend(title="", loc="lower right")
    return ax
