"""Views of the studies in a store: words, tables and pictures, made outside the process that shows them."""

import io
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any, NamedTuple, get_args

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rlm import explain, plots
from rlm.config import MARGINS, MetricName, StudyConfig
from rlm.errors import InputError
from rlm.explain import TREATED
from rlm.external.stored import TASK, describe_stored, find_stored_metric, read_any, shorten_errors
from rlm.sentences import count, explain_forecast, explain_metric, spell_seconds
from rlm.stats.anytime import confidence_sequence
from rlm.stats.metrics import Metric, count_failed
from rlm.stats.power import forecast
from rlm.stats.tables import arrange_by_seed, judge_columns
from rlm.stats.variance import count_hits
from rlm.store.pair import read_pair
from rlm.store.read import TRIPLETS, StoredStudy, list_studies
from rlm.store.schema import reading
from rlm.variants import BASELINE, CONTROLS, REDRAW, find_variant
from rlm.verdict import Verdict, compare, compare_all, find_baseline, paired_arms, summarise

RESOLUTION = 144  # dots an inch
CSS_PIXELS = 96  # an inch
_SHARES = ("validation_accuracy", *get_args(MetricName))  # columns of a study's results
DETAILS = ["split", "train_triplets", "test_triplets", "test_anchors", "test_clusters", "chance"]  # of few readers


class Picture(NamedTuple):
    """A figure as a PNG file, what it shows in words, and its width in CSS pixels."""

    png: bytes
    alt: str
    width: int


def shares_of(seen: "View") -> list[str]:
    """List the columns of the results of a study that are shares."""
    return [name for name in _SHARES if name != seen.metric.name or seen.metric.is_share]


class View(NamedTuple):
    """
    What is finished of a study.

    `headline` is the verdict in one sentence and `limits` what limits it. `words` are headings with paragraphs,
    `results` has a row per run, and `estimates` a row per arm and estimate. `metric` is what all of it is about,
    and `plan` what a narrower interval takes. Of a function that somebody else wrote there are no learning curves.
    """

    study: int
    headline: str
    limits: str
    words: list[tuple[str, str]]
    differences: Picture | None
    seeds: Picture
    curves: Picture | None
    luck: Picture | None
    pretraining: Picture | None
    results: pd.DataFrame
    summary: pd.DataFrame
    estimates: pd.DataFrame
    metric: Metric
    plan: str


class Comparison(NamedTuple):
    """
    Several studies side by side.

    `settings` has a row per setting that differs and a column per study. `effects` has a row per study and arm, and one
    for the baseline of every study against that of the first: name, seeds, means, points, verdict; value, low, high.
    `picture` shows the differences, and `seeds` every run of the first two studies.
    """

    settings: pd.DataFrame
    effects: pd.DataFrame
    picture: Picture
    seeds: Picture
    metric: Metric


@contextmanager
def _theme() -> Iterator[None]:
    """Set the look of the figures that are drawn meanwhile."""
    with mpl.rc_context():
        sns.set_theme(style="ticks")
        yield


@_theme()
def view(
    db: Path | Connection, study: int, name: str | None = None, until: float | None = None, processes: int = 1
) -> View:
    """Describe what is finished of a study by a metric, by default its own, and what an interval like `until` takes."""
    stored = read_any(db, study)
    config, results = stored.config, stored.finished.results
    metric = find_stored_metric(stored, name)
    summary, verdicts, baseline = summarise(results, metric), _verdicts(stored, metric), find_baseline(results)
    words = [(f"{arm}, compared with {baseline}", found.text) for arm, found in verdicts.items()]
    nothing = "No pair of runs is finished yet."
    if baseline not in config.arms or len(config.arms) < 2:
        nothing = f"Nothing to compare: a verdict needs the arm {baseline} and another arm."
    seeds = f"{results['seed'].nunique()} seeds of the arms {', '.join(summary.index)}"
    estimates = {arm: found.table() for arm, found in verdicts.items()}
    seen = View(
        study,
        headline=" ".join(found.headline for found in verdicts.values()) or nothing,
        limits=f"Runs of the function {stored.encoder}. {explain_metric(results, metric)}".rstrip(),
        words=words,
        differences=_paint(_differences_figure(verdicts), f"Mean paired differences with intervals, {seeds}")
        if verdicts
        else None,
        seeds=_paint(
            _seeds_figure(results, summary, metric), f"{metric.title} of {seeds}, and the paired differences so far"
        ),
        curves=None,
        luck=None,
        pretraining=None,
        results=shorten_errors(results),
        summary=summary.reset_index(),
        estimates=pd.concat(estimates, names=["arm"]).reset_index() if estimates else pd.DataFrame(),
        metric=metric,
        plan=_plan(stored, metric, until, processes),
    )
    return _add_training(seen, stored, set(verdicts), seeds) if isinstance(config, StudyConfig) else seen


def _add_training(seen: View, stored: StoredStudy, judged: Collection[str], seeds: str) -> View:
    """Add what only a study of triplets has: its limits, pre-training, learning curves, and what luck decides."""
    config, finished, results = stored.config, stored.finished, stored.finished.results
    pretraining, words = finished.pretraining, list(seen.words)
    if find_baseline(results) == BASELINE and TREATED in judged and set(CONTROLS) & set(judged):
        words.append(("Memorisation, or just scale?", explain.controls(results, seen.metric, watched=stored.watched)))
    starts = {arm: find_variant(arm).start for arm in config.arms}
    own = [arm for arm, start in starts.items() if start in REDRAW and start not in CONTROLS]
    words += [
        (f"Pre-training of {arm}", explain.pretraining(mine))
        for arm in own
        if len(mine := pretraining[pretraining["arm"] == arm]) and mine["epoch"].max() > 0
    ]
    hits = count_hits(finished.triplets) if config.split == "fixed" and len(finished.triplets) else None
    if hits is not None:
        words.append(("What luck decides", explain.luck(finished.triplets)))
    limits = explain.limits(config, results, None if stored.encoder == config.encoder else stored.encoder)
    return seen._replace(
        limits=f"{limits} {explain_metric(results, seen.metric)}".rstrip(),
        words=words,
        curves=_paint(_curves_figure(finished.history), f"Best validation accuracy so far by epoch, {seeds}"),
        luck=None if hits is None else paint_luck(hits),
        pretraining=_paint(
            _pretraining_figure(pretraining, config), f"Loss, accuracy and spread during pre-training, {seeds}"
        )
        if len(pretraining)
        else None,
    )


@_theme()
def compare_studies(db: Path, studies: Sequence[int], metric: MetricName = "test_accuracy") -> Comparison:
    """Compare studies of a store, at least one: the settings that differ, and the effects by a metric."""
    with reading(db) as (connection, _):
        stored = {number: read_any(connection, number) for number in studies}
        baseline, pairs = find_baseline(stored[studies[0]].finished.results), []
        for number in studies[1:]:
            with suppress(InputError):  # their data, splits or seeds have nothing in common
                pairs.append(read_pair(connection, studies[0], number, baseline))
    by = {number: find_stored_metric(one, metric) for number, one in stored.items()}
    if len({known.name for known in by.values()}) > 1:
        named = ", ".join(f"{known.name} of #{number}" for number, known in by.items())
        raise InputError(f"expected studies with a metric in common, found {named}; choose others")
    settings = pd.DataFrame({f"#{number}": describe_stored(one) for number, one in stored.items()}).fillna("")
    judged = {
        f"#{number} {arm}": (found, one.finished.results)
        for number, one in stored.items()
        for arm, found in _verdicts(one, by[number]).items()
    }
    for one in pairs:
        first, second = one.results["arm"].unique()
        found = compare(one.results, second, first, metric=by[studies[0]], clusters=one.clusters)
        judged[f"{second} against {first}"] = found, one.results
    if not judged:
        raise InputError("expected studies with pairs of the baseline and another arm, found none; let them run longer")
    effects = pd.DataFrame([_effect(name, *found) for name, found in judged.items()])
    alt = f"Mean paired differences with intervals of the studies {', '.join(f'#{number}' for number in studies)}"
    picture = _paint(_differences_figure({name: found for name, (found, _) in judged.items()}), alt)
    different = settings[settings.nunique(axis=1) > 1]
    pinned = _paint_pinned({number: stored[number].finished.results for number in list(stored)[:2]}, by)
    return Comparison(different, effects, picture, pinned, next(iter(by.values())))


def _effect(name: str, found: Verdict, results: pd.DataFrame) -> dict[str, Any]:
    known = found.metric
    means = _by_seed(results, known)[[found.baseline, found.arm]].dropna().mean()  # of the pairs of the difference
    difference = {"points" if known.is_share else "difference": found.judged.format(known.scale, "+")}
    row = {"study": name, "seeds": found.pairs, "baseline": means[found.baseline], "with it": means[found.arm]}
    return row | {**difference, "verdict": found.decision} | found.judged._asdict()


def _paint_pinned(pinned: Mapping[int, pd.DataFrame], by: Mapping[int, Metric]) -> Picture:
    """Draw every run of some studies side by side, by one scale."""
    summaries = {number: summarise(results, by[number]) for number, results in pinned.items()}
    widths = [0.8 + 1.7 * len(summary) for summary in summaries.values()]
    figure = Figure(figsize=(sum(widths), 4), layout="constrained")
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    for (number, results), ax in zip(pinned.items(), axes, strict=True):
        seeds = f"#{number}, {results['seed'].nunique()} seeds"
        plots.seeds(results, summaries[number], by[number], ax).set_title(seeds)
    return _paint(figure, f"Every run of the studies {', '.join(f'#{number}' for number in pinned)}, side by side")


def look(
    db: Path, study: int, metric: MetricName, until: float | None = None, processes: int = 1
) -> tuple[View, dict[int, str]]:
    """Describe a study by a metric, see `view`, and list all studies that have results, a line for each by number."""
    with reading(db) as (connection, _):
        listed = list_studies(connection, None).fillna("")
        listed = listed[listed["experiment"].isin([TRIPLETS, TASK]) & (listed["seeds"] > 0)]
        named = listed[["name", "settings", "dataset", "encoder", "loss", "arms"]].apply(_join, axis=1)
        ends = listed["seeds"].astype(str) + " seeds" + listed["tags"].map(lambda tags: f" [{tags}]" if tags else "")
        lines = {int(number): f"#{number} {named[number]}: {ends[number]}" for number in listed.index}
        return view(connection, study, metric, until, processes), lines


def _join(texts: pd.Series) -> str:
    return ", ".join(filter(None, texts))


def about_data(
    config: StudyConfig, fingerprint: str, describe: Callable[[StudyConfig], Mapping[str, str]]
) -> Mapping[str, str] | None:
    """
    Return title, licence and source of the data that a config names, by `describe`.

    None if the study had other data than these: a table, or a file that has changed since or cannot be read any more.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            about = describe(config)
    except (InputError, OSError):
        return None
    return about if about["fingerprint"] == fingerprint else None


def _verdicts(stored: StoredStudy, metric: Metric) -> dict[str, Verdict]:
    """Judge the arms that have pairs."""
    results = stored.finished.results
    known = paired_arms(results)
    arms = [arm for arm in stored.config.arms if arm in known]
    return compare_all(results, metric=metric, arms=arms, watched=stored.watched, clusters=stored.finished.clusters)


def _plan(stored: StoredStudy, metric: Metric, until: float | None, processes: int) -> str:
    """State what an interval as narrow as `until` takes, or one of what counts as the same; empty if it is unknown."""
    results, clusters = stored.finished.results, stored.finished.clusters
    within = until / 2 if until else metric.same_within or 0.0
    try:
        found = forecast(results, within, find_baseline(results), metric, watched=stored.watched, clusters=clusters)
    except InputError:  # fewer than two pairs, or equal ones
        return ""
    each = results.groupby("arm")["seconds"].mean().sum() / processes
    more = max(0, found.pairs - found.pilot)
    left = f"That is {count(more, 'pair')} more, {spell_seconds(more * each)}." if more else "These pairs are enough."
    return f"{explain_forecast(found, [each * pairs for pairs in (found.pairs, found.enough)])} {left}"


def _by_seed(results: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return a row per seed and a column per arm; a diverged run counts as in the verdict, a future one is missing."""
    return arrange_by_seed(count_failed(results, metric), metric.name)


def _differences_figure(verdicts: Mapping[str, Verdict]) -> Figure:
    figure = Figure(figsize=(7, 1.6 + 0.55 * len(verdicts)), layout="constrained")
    plots.differences(verdicts, figure.subplots())
    return figure


def _seeds_figure(results: pd.DataFrame, summary: pd.DataFrame, metric: Metric) -> Figure:
    values, baseline = _by_seed(results, metric), find_baseline(results)
    others = [arm for arm in summary.index if arm != baseline and baseline in values]
    width = max(4, 0.8 + 1.7 * len(summary))  # room for the title; a panel shrinks what is wider than itself
    figure = Figure(figsize=(width + 4 * bool(others), 4), layout="constrained")
    widths = [width, 4] if others else [width]
    axes = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)
    plots.seeds(results, summary, metric, axes[0, 0])
    if others:
        differences = {arm: (values[arm] - values[baseline]).dropna().reset_index(drop=True) for arm in others}
        differences = {arm: found for arm, found in differences.items() if len(found)}
        pairs = [
            pd.DataFrame({"arm": arm, "pairs": found.index + 1, "value": found}) for arm, found in differences.items()
        ]
        # The bands end where the verdict's intervals are, which are wider for several arms.
        judged = judge_columns(values[[baseline, *others]], baseline, metric.reach, watched=True)
        sequences = [
            confidence_sequence(found.to_numpy(), metric.reach).table_at(judged[arm].level).assign(arm=arm)
            for arm, found in differences.items()
        ]
        empty = pd.DataFrame(columns=["arm", "pairs", "value", "low", "high"])
        found = [pd.concat(tables) if tables else empty for tables in (pairs, sequences)]
        found = [table.assign(**metric.scale * table.filter(["value", "low", "high"])) for table in found]
        above = f"{'points' if metric.is_share else metric.label} above {baseline}"
        plots.sequence(*found, others, above, axes[0, 1])
    return figure


@_theme()
def paint_seeds(results: pd.DataFrame, summary: pd.DataFrame, metric: Metric) -> Picture:
    """Draw every run by any metric."""
    figure = Figure(figsize=(1.5 + 1.7 * len(summary), 4), layout="constrained")
    plots.seeds(results, summary, metric, figure.subplots())
    return _paint(figure, f"{metric.label} of {results['seed'].nunique()} seeds of the arms {', '.join(summary.index)}")


@_theme()
def paint_luck(hits: pd.DataFrame) -> Picture:
    """Draw how many of the seeds get the test triplets right."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    plots.luck(hits, figure.subplots())
    return _paint(figure, "Share of the test triplets that few or many of the seeds get right")


def _curves_figure(history: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    plots.learning_curves(plots.best_so_far(history), "best_validation_accuracy", figure.subplots())
    return figure


def _pretraining_figure(pretraining: pd.DataFrame, config: StudyConfig) -> Figure:
    margin = MARGINS.get(config.loss) if config.margin is None else config.margin
    mine = pretraining[[find_variant(arm).start not in CONTROLS for arm in pretraining["arm"]]]
    return plots.pretraining(mine if len(mine) else pretraining, margin, hue="arm")[0].figure


def _paint(figure: Figure, alt: str) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=RESOLUTION)
    plt.close(figure)  # one that pyplot made
    return Picture(file.getvalue(), alt, round(CSS_PIXELS * figure.get_figwidth()))
