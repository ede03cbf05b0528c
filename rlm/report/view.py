"""What a store shows of its studies: words, tables and pictures, made outside the process that shows them."""

import io
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rlm import explain, plots
from rlm.config import REDRAW, StudyConfig
from rlm.data.corpus import index_corpus
from rlm.data.datasets import load
from rlm.errors import InputError
from rlm.explain import TREATED
from rlm.runtime.results import join
from rlm.sentences import CONTROLS
from rlm.stats.anytime import confidence_sequence
from rlm.stats.metrics import count_failed
from rlm.stats.tables import arrange_by_seed, judge_columns
from rlm.store.read import list_studies
from rlm.store.schema import reading
from rlm.study import StoredStudy, read_study
from rlm.verdict import BASELINE, Verdict, compare_all, paired_arms, summarise
from rlm.zoo.losses import make_objective

RESOLUTION = 144  # dots an inch
CSS_PIXELS = 96  # an inch


class Picture(NamedTuple):
    """
    A figure.

    Attributes
    ----------
    png
        Its file.
    alt
        What it shows, in words.
    width
        In CSS pixels.
    """

    png: bytes
    alt: str
    width: int


class View(NamedTuple):
    """
    What is finished of a study.

    Attributes
    ----------
    study
        Its number.
    headline
        The verdict in one sentence.
    limits
        What limits it, see `rlm.explain.limits`.
    words
        All that follows from the numbers: heading and paragraph.
    seeds, curves, pretraining
        Accuracy of every seed beside the confidence sequence; learning curves; pre-training, where an arm has one.
    results
        One row per run, see `rlm.run_study`.
    summary
        See `rlm.summarise`.
    estimates
        One row per arm and estimate, see `Verdict.table`.
    """

    study: int
    headline: str
    limits: str
    words: list[tuple[str, str]]
    seeds: Picture
    curves: Picture
    pretraining: Picture | None
    results: pd.DataFrame
    summary: pd.DataFrame
    estimates: pd.DataFrame


class Comparison(NamedTuple):
    """
    Several studies side by side.

    Attributes
    ----------
    settings
        What they differ in: one row per setting, one column per study.
    effects
        One row per study and arm: study (its number and the arm), seeds, scratch and with it (mean test
        accuracy), points (the difference, spelt), verdict, and value, low, high (the difference).
    picture
        The differences.
    """

    settings: pd.DataFrame
    effects: pd.DataFrame
    picture: Picture


class Exported(NamedTuple):
    """
    What was written.

    Attributes
    ----------
    page
        HTML.
    config
        JSON of a `StudyConfig`.
    code
        A line of Python that repeats the study.
    """

    page: Path
    config: Path
    code: str


def warm_up() -> None:
    """Do nothing, in a process that has imported what a view takes by then."""


def view(db: Path | sqlite3.Connection, study: int) -> View:
    """
    Describe what is finished of a study.

    Parameters
    ----------
    db
        The store.
    study
        Its number there.

    Returns
    -------
    View
        Words, tables and pictures.

    Raises
    ------
    InputError
        As `rlm.read_study`.
    """
    sns.set_theme(style="ticks")
    stored = read_study(db, study)
    config, (results, _, history, pretraining) = stored.config, join([stored.finished], stored.config.arms)
    summary, verdicts = summarise(results), _verdicts(stored)
    words = [(f"{arm}, compared with {BASELINE}", found.text) for arm, found in verdicts.items()]
    if {BASELINE, TREATED, *CONTROLS} <= set(config.arms) and set(verdicts) >= {TREATED, *CONTROLS}:
        words.append(("Memorisation, or just scale?", explain.controls(results, watched=stored.is_watched)))
    own = [arm for arm in config.arms if arm in REDRAW and arm not in CONTROLS]
    words += [
        (f"Pre-training of {arm}", explain.pretraining(mine))
        for arm in own
        if len(mine := pretraining[pretraining["arm"] == arm]) and mine["epoch"].max() > 0
    ]
    nothing = "No pair of runs is finished yet."
    if BASELINE not in config.arms or len(config.arms) < 2:
        nothing = f"Nothing to compare: a verdict takes the arm {BASELINE} and another."
    headline = " ".join(found.headline for found in verdicts.values()) or nothing
    seeds = f"{results['seed'].nunique()} seeds of the arms {', '.join(summary.index)}"
    estimates = {arm: found.table() for arm, found in verdicts.items()}
    return View(
        study,
        headline,
        explain.limits(config, results, stored.encoder),
        words,
        _paint(_seeds_figure(results, summary), f"Test accuracy of {seeds}, and the paired differences so far"),
        _paint(_curves_figure(history), f"Best validation accuracy so far by epoch, {seeds}"),
        _paint(_pretraining_figure(pretraining, config), f"Loss, accuracy and spread during pre-training, {seeds}")
        if len(pretraining)
        else None,
        results,
        summary.reset_index(),
        pd.concat(estimates, names=["arm"]).reset_index() if estimates else pd.DataFrame(),
    )


def compare_studies(db: Path, studies: Sequence[int]) -> Comparison:
    """
    Put several studies of a store side by side.

    Parameters
    ----------
    db
        The store.
    studies
        Their numbers, at least one.

    Returns
    -------
    Comparison
        Settings that differ, and effects.

    Raises
    ------
    InputError
        As `rlm.read_study`.
    """
    sns.set_theme(style="ticks")
    with reading(db) as (connection, _):
        stored = {number: read_study(connection, number) for number in studies}
    settings = pd.DataFrame(
        {f"#{number}": one.config.model_dump(mode="json") | {"encoder": one.encoder} for number, one in stored.items()}
    ).map(lambda value: ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    rows = []
    for number, one in stored.items():
        accuracy = _accuracy_by_seed(one.finished.results)
        for arm, found in _verdicts(one).items():
            means = accuracy[[BASELINE, arm]].dropna().mean()  # of the pairs, whose difference stands beside them
            judged = found.judged
            row = {"study": f"#{number} {arm}", "seeds": found.pairs, "scratch": means[BASELINE], "with it": means[arm]}
            rows.append(row | {"points": judged.format(100, "+"), "verdict": found.decision} | judged._asdict())
    if not rows:
        raise InputError(f"expected studies with pairs of {BASELINE} and another arm, found none; let them run longer")
    effects = pd.DataFrame(rows)
    figure = plots.differences(effects).figure
    alt = f"Mean paired differences with intervals of the studies {', '.join(f'#{number}' for number in studies)}"
    return Comparison(settings[settings.nunique(axis=1) > 1], effects, _paint(figure, alt))


def look(db: Path, study: int) -> tuple[View, dict[int, str]]:
    """
    Describe a study, and what else there is.

    Parameters
    ----------
    db, study
        As of `view`.

    Returns
    -------
    View
        Of the study.
    dict
        A line for each study that has results, by its number.
    """
    with reading(db) as (connection, _):
        return _look(connection, study)


def _look(connection: sqlite3.Connection, study: int) -> tuple[View, dict[int, str]]:
    listed = list_studies(connection)
    lines = {
        int(one.Index): f"#{one.Index} {one.dataset}, {one.encoder}, {one.loss}, {one.arms}: {one.seeds} seeds"
        for one in listed[listed["seeds"] > 0].itertuples()
    }
    return view(connection, study), lines


def about_data(config: StudyConfig, fingerprint: str) -> Mapping[str, str] | None:
    """
    Say what data a study is of.

    Parameters
    ----------
    config
        Of the study.
    fingerprint
        Of its data, as the store has it.

    Returns
    -------
    Mapping or None
        Title, licence and source of the data that the config names; None where the study had others, which were handed
        over as a table, or are not there any more.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            data = load(config.dataset, **config.reading.model_dump())
            is_named = index_corpus(data, config.max_tokens).fingerprint == fingerprint
    except (InputError, OSError):
        return None
    known = {"title": config.dataset, "licence": "not stated", **data.attrs}
    return {name: str(known.get(name)) for name in ("title", "licence", "source")} if is_named else None


def _verdicts(stored: StoredStudy) -> dict[str, Verdict]:
    """Of the arms that have pairs."""
    results = stored.finished.results
    known = paired_arms(results)
    arms = [arm for arm in stored.config.arms if arm in known]
    return compare_all(results, arms=arms, watched=stored.is_watched)


def _accuracy_by_seed(results: pd.DataFrame) -> pd.DataFrame:
    """One row per seed, one column per arm; a run that diverged counts as in the verdict, one to come is missing."""
    return arrange_by_seed(count_failed(results), "test_accuracy")


def _seeds_figure(results: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    accuracy = _accuracy_by_seed(results)
    others = [arm for arm in summary.index if arm != BASELINE and BASELINE in accuracy]
    width = 0.8 + 1.7 * len(summary)  # narrow, since a panel shrinks what is wider than itself, its text too
    figure, axes = plt.subplots(1, 2 if others else 1, figsize=(width + 4 * bool(others), 4), squeeze=False,
                                width_ratios=[width, 4] if others else [1], layout="constrained")  # fmt: skip
    plots.seeds(results, summary, ax=axes[0, 0])
    if others:
        differences = {arm: (accuracy[arm] - accuracy[BASELINE]).dropna().reset_index(drop=True) for arm in others}
        differences = {arm: found for arm, found in differences.items() if len(found)}
        pairs = [
            pd.DataFrame({"arm": arm, "pairs": found.index + 1, "value": found}) for arm, found in differences.items()
        ]
        # The bands end where the verdict's intervals are, which are wider for several arms.
        judged = judge_columns(accuracy[[BASELINE, *others]], BASELINE, watched=True)
        sequences = [
            confidence_sequence(found.to_numpy()).table_at(judged[arm].level).assign(arm=arm)
            for arm, found in differences.items()
        ]
        empty = pd.DataFrame(columns=["arm", "pairs", "value", "low", "high"])
        found = [pd.concat(tables) if tables else empty for tables in (pairs, sequences)]
        plots.sequence(*found, others, axes[0, 1])
    return figure


def _curves_figure(history: pd.DataFrame) -> Figure:
    return plots.learning_curves(plots.best_so_far(history), "best_validation_accuracy").figure


def _pretraining_figure(pretraining: pd.DataFrame, config: StudyConfig) -> Figure:
    objective = make_objective(config.loss, config.margin, config.mining)
    mine = pretraining[~pretraining["arm"].isin(set(CONTROLS))]
    return plots.pretraining(mine if len(mine) else pretraining, objective.margin, hue="arm")[0].figure


def _paint(figure: Figure, alt: str) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=RESOLUTION)
    plt.close(figure)
    return Picture(file.getvalue(), alt, round(CSS_PIXELS * figure.get_figwidth()))


def export(db: Path, study: int, folder: Path) -> Exported:
    """
    Write what is finished of a study, see `rlm.report.study_page.export_study`.

    Parameters
    ----------
    db, study, folder
        As there.

    Returns
    -------
    Exported
        What was written.
    """
    from rlm.report.study_page import export_study  # what writes notebooks takes seconds to import

    return export_study(db, study, folder)
