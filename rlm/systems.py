"""Systems, which are encoders with losses: trained side by side on the same splits and seeds, and compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from rlm import verdict
from rlm.config import Loss, StudyConfig
from rlm.errors import InputError
from rlm.evaluation.references import OVERLAP, overlap_scores
from rlm.runtime.results import join
from rlm.sentences import escape_markdown
from rlm.stats.estimates import FEWEST_PAIRS, LEVEL, Estimate, holm, spell_p
from rlm.stats.judging import pairs_to_judge
from rlm.stats.metrics import count_failed, find_metric
from rlm.stats.tables import describe
from rlm.study import iter_study, load_corpus, slice_for
from rlm.verdict import BASELINE, is_watched
from rlm.zoo.encoders import ENCODERS
from rlm.zoo.losses import LOSSES

__all__ = ["compare", "explain", "run", "summarise", "tabulate"]

METRICS = ("test_accuracy", "roc_auc", "top_1", "seconds")
UNTRAINED, SYSTEM = "untrained", ["dataset", "encoder", "loss"]
# Column of the table, factor of its numbers, decimals.
SHOWN = {
    "test_accuracy": ("test accuracy, %", 100, 1),
    "roc_auc": ("ROC AUC", 1, 3),
    "top_1": ("top-1, %", 100, 1),
    "seconds": ("seconds per seed", 1, 1),
}
NOT_SHOWN = "not shown after correction"


class System(NamedTuple):
    """An encoder and the loss that it is trained with."""

    encoder: str
    loss: Loss


# The author's loss with every encoder, his encoder with every loss, and the combinations of other sources.
ALL = (
    *(System(encoder, "triplet") for encoder in ENCODERS),
    *(System("lstm", loss) for loss in LOSSES if loss != "triplet"),
    System("lstm(cnn)", "lossless"),  # its values are in (0, 1) already, as Arsenault requires
    System("mean", "in_batch"),  # Henderson et al. embed bags of words
    System("dssm", "dssm"),
)
QUICK = (
    System("mean", "triplet"),
    System("lstm", "triplet"),
    System("lstm", "facenet"),
    System("mean", "in_batch"),
    System("dssm", "dssm"),
)
CHOICES: dict[str, Sequence[System]] = {"quick": QUICK, "all": ALL}


def run(
    config: StudyConfig,
    systems: str | Sequence[Sequence[str]] = "quick",
    seeds: int | Sequence[int] = 10,
    *,
    db: Path | str | None = None,
    n_jobs: int = -1,
    progress: bool = True,
) -> pd.DataFrame:
    """
    Run one study per system, with the same splits and seeds.

    Parameters
    ----------
    config
        Dataset, arms and training. Encoder and loss are those of each system, margin and mining their defaults.
    systems
        Different pairs of an encoder and a loss, or a predefined choice: ``"quick"``, a few fast ones, or ``"all"``
        that a source uses, and those that vary encoder or loss alone.
    seeds, db, n_jobs
        As in `rlm.run_study`.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per system, arm and seed: dataset, encoder, loss, and the columns of `rlm.run_study`. Then one row per
        seed of the overlap of character trigrams, arm ``"untrained"``: test_accuracy, roc_auc and top_1.

    Raises
    ------
    InputError
        If there is no such choice, system or data, or as in `rlm.run_study`.

    Examples
    --------
    >>> import rlm
    >>> config = rlm.StudyConfig(word_dim=2, dim=2, pretrain_epochs=0, max_epochs=0, negatives=1)
    >>> results = rlm.systems.run(config, [("mean", "triplet")], 1, n_jobs=1, progress=False)
    >>> results[["encoder", "loss", "arm"]].values.tolist()[::2]
    [['mean', 'triplet', 'scratch'], ['trigram overlap', 'none', 'untrained']]
    """
    chosen = CHOICES.get(systems, [systems]) if isinstance(systems, str) else systems
    is_pair = [not isinstance(one, str) and len(one) == 2 for one in chosen]
    if not chosen or not all(is_pair) or len(set(map(tuple, chosen))) < len(chosen):
        raise InputError(
            f"expected systems {' or '.join(CHOICES)}, or different pairs such as ('lstm', 'facenet'), found "
            f"{systems!r}; choose one of them"
        )
    settings = dict(config) | {"margin": None, "mining": None}
    configs = [StudyConfig(**settings | {"encoder": encoder, "loss": loss}) for encoder, loss in chosen]
    tables = []
    for one in tqdm(configs, desc="systems", unit="system", disable=not progress):
        blocks = list(iter_study(one, seeds, db=db, n_jobs=n_jobs, progress=False))
        tables.append(join(blocks, one.arms).results.assign(encoder=one.encoder, loss=one.loss))
    results = pd.concat([*tables, _untrained(config, tables[0]["seed"].unique().tolist())], ignore_index=True)
    results.attrs["watched"] = any(table.attrs["watched"] for table in tables)
    return results.assign(dataset=config.dataset)[[*SYSTEM, *results.columns.difference(SYSTEM, sort=False)]]


def _untrained(config: StudyConfig, seeds: Sequence[int]) -> pd.DataFrame:
    corpus = load_corpus(config)
    slices = slice_for(config, corpus, seeds)
    different = {id(one): one for one in slices}  # only one if the split is fixed
    scores = {key: overlap_scores(corpus, one) for key, one in different.items()}
    rows = pd.DataFrame([scores[id(one)] for one in slices])
    return rows.assign(seed=seeds, encoder=OVERLAP, loss="none", arm=UNTRAINED)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """
    Describe each system under each arm.

    Parameters
    ----------
    results
        As `run` returns them, for one dataset or several. A diverged seed counts as `rlm.stats.count_failed` says.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, arm, metric, seeds, mean, low, high (95 % interval over seeds) and sd (ddof 1).
        The untrained baseline, which has no seeds, has only the mean; so have seconds, which the seeds of a block
        share. Systems are in descending order of the mean test accuracy of their first arm.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("pqa", encoder, "triplet", "scratch", 0, score) for encoder, score in [("mean", 0.6), ("lstm", 0.7)]]
    >>> results = pd.DataFrame(runs, columns=["dataset", "encoder", "loss", "arm", "seed", "test_accuracy"])
    >>> rlm.systems.summarise(results.assign(roc_auc=0.5, top_1=0.1, seconds=1))["encoder"].unique().tolist()
    ['lstm', 'mean']
    """
    columns = ["seeds", "mean", "low", "high", "sd"]
    rows = []
    for (*system, arm), runs in results.groupby([*SYSTEM, "arm"], sort=False):
        for metric in METRICS:
            described = dict.fromkeys(columns, np.nan)
            if arm == UNTRAINED or metric == "seconds":
                described |= {"seeds": 0 if arm == UNTRAINED else len(runs), "mean": runs[metric].mean()}
            else:
                described = describe(count_failed(runs, metric)[metric], find_metric(metric))
            rows.append((*system, arm, metric, *(described[column] for column in columns)))
    summary = pd.DataFrame(rows, columns=[*SYSTEM, "arm", "metric", *columns])
    first = summary[summary["metric"] == METRICS[0]].drop_duplicates(SYSTEM)
    ranked = first.sort_values("mean", ascending=False, kind="stable")[SYSTEM]
    return pd.concat([ranked[ranked["dataset"] == name] for name in results["dataset"].unique()]).merge(summary)


def tabulate(summary: pd.DataFrame) -> pd.DataFrame:
    """
    Format the estimates, one row per system and arm.

    Parameters
    ----------
    summary
        As `summarise` returns it.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, arm, seeds, and by metric the mean with its interval.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> columns = ["dataset", "encoder", "loss", "arm", "metric", "seeds", "mean", "low", "high"]
    >>> summary = pd.DataFrame([("pqa", "mean", "triplet", "scratch", "roc_auc", 9, 0.7, 0.6, 0.8)], columns=columns)
    >>> rlm.systems.tabulate(summary)["ROC AUC"].item()
    '0.700 [0.600, 0.800]'
    """

    def spell(row: Any) -> str:  # noqa: ANN401
        _, scale, digits = SHOWN[row.metric]
        estimate = Estimate(row.mean, row.low, row.high)
        return "" if np.isnan(row.mean) else estimate.format(scale, digits=digits, missing="")

    keys = [*SYSTEM, "arm", "seeds"]
    shown = summary.assign(shown=[spell(row) for row in summary.itertuples()]).set_index([*keys, "metric"])["shown"]
    table = shown.unstack().reindex(shown.index.droplevel("metric").unique())[summary["metric"].unique()].reset_index()
    return table.rename(columns={metric: heading for metric, (heading, *_) in SHOWN.items()}).rename_axis(columns=None)


def compare(results: pd.DataFrame, arm: str = "pretrained") -> pd.DataFrame:
    """
    Compare an arm with scratch in every system, by test accuracy.

    Parameters
    ----------
    results
        As `run` returns them.
    arm
        The arm to compare.

    Returns
    -------
    pandas.DataFrame
        Columns dataset, encoder, loss, pairs, difference, low, high (those that decide in `rlm.compare`: of the
        confidence sequence if the results were watched), points (these as text), p (of the system alone), holm_p
        (corrected over the systems of a dataset) and decision: that of `rlm.compare`, but ``"not shown after
        correction"`` where the corrected test does not agree, and ``"too few seeds"`` where it never could.

    Raises
    ------
    InputError
        If an arm is missing.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> runs = [("pqa", "mean", "triplet", arm, seed, 0.6) for arm in ("scratch", "pretrained") for seed in range(2)]
    >>> results = pd.DataFrame(runs, columns=["dataset", "encoder", "loss", "arm", "seed", "test_accuracy"])
    >>> rlm.systems.compare(results)["decision"].tolist()
    ['too few seeds']
    """
    watched, trained = is_watched(results, None), results[results["arm"] != UNTRAINED]
    rows = []
    for _, of_dataset in trained.groupby("dataset", sort=False):
        groups = of_dataset.groupby(SYSTEM, sort=False)
        verdicts = {system: verdict.compare(runs, arm, watched=watched) for system, runs in groups}
        corrected = holm({system: found.judged_p for system, found in verdicts.items()})
        for system, found in verdicts.items():
            holm_p, decision = corrected[system][0], found.decision
            if found.pairs < pairs_to_judge(len(verdicts), watched=watched):
                decision = "too few seeds"
            elif decision in ("helps", "hurts") and holm_p >= LEVEL:
                decision = NOT_SHOWN
            points = found.judged.format(100, "+")
            rows.append((*system, found.pairs, *found.judged, points, found.judged_p, holm_p, decision))
    if not rows:
        raise InputError(f"expected systems with the arms {BASELINE} and {arm}, found none; see rlm.systems.run")
    columns = [*SYSTEM, "pairs", "difference", "low", "high", "points", "p", "holm_p", "decision"]
    return pd.DataFrame(rows, columns=columns)


def explain(results: pd.DataFrame) -> str:
    """
    Explain which systems beat the untrained baseline, how their stability differs, and which gain from pre-training.

    Parameters
    ----------
    results
        As `run` returns them, with the arms scratch and pretrained.

    Returns
    -------
    str
        Markdown, a list for each dataset.

    Examples
    --------
    >>> import pandas as pd, rlm
    >>> systems = [("mean", "scratch"), ("mean", "pretrained"), ("trigram overlap", "untrained")]
    >>> runs = [("pqa", encoder, "triplet", arm, 0, 0.6, 0.5, 0.1, 1) for encoder, arm in systems]
    >>> columns = ["dataset", "encoder", "loss", "arm", "seed", *rlm.systems.METRICS]
    >>> rlm.systems.explain(pd.DataFrame(runs, columns=columns)).splitlines()[-1].split(": ")[-1]
    'mean + triplet +0.0 [no interval] points.'
    """
    compared, summary = compare(results), summarise(results)
    parts = []
    for name, verdicts in compared.groupby("dataset", sort=False):
        accuracy = summary[(summary["dataset"] == name) & (summary["metric"] == "test_accuracy")]
        sentences = [
            _beside_untrained(accuracy),
            _stability(results[results["dataset"] == name], accuracy),
            *_gains(verdicts, is_watched(results, None)),
        ]
        parts.append("\n".join([f"**{escape_markdown(name)}**", "", *(f"- {sentence}" for sentence in sentences)]))
    return "\n\n".join(parts)


def _beside_untrained(accuracy: pd.DataFrame) -> str:
    overlap = accuracy.loc[accuracy["arm"] == UNTRAINED, "mean"].iloc[0]
    scratch = accuracy[(accuracy["arm"] == BASELINE) & (accuracy["seeds"] >= FEWEST_PAIRS)]
    above, below = (
        ", ".join(_names(scratch[is_apart])) or "none"
        for is_apart in (scratch["low"] > overlap, scratch["high"] < overlap)
    )
    return (
        f"The overlap of character trigrams, which learns nothing, is right about {overlap:.1%} of the test triplets. "
        f"From scratch, whole intervals of {FEWEST_PAIRS} seeds or more above that: {above}; below: {below}."
    )


def _stability(results: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    enough = accuracy[(accuracy["arm"] == BASELINE) & (accuracy["seeds"] >= FEWEST_PAIRS)].sort_values("sd")
    if len(enough) < 2:
        return f"Stability: too few systems with {FEWEST_PAIRS} seeds or more to compare their spread."
    counted = count_failed(results[results["arm"] == BASELINE])
    scratch = counted.set_index(["encoder", "loss"])["test_accuracy"]
    p = stats.levene(*(scratch.loc[row.encoder, row.loss] for row in enough.itertuples())).pvalue
    spreads = _names(enough.assign(points=(100 * enough["sd"]).map("{:.1f}".format)), "points")
    finding = "the spreads differ" if p < LEVEL else "no evidence that the spreads differ"
    return (
        f"Stability: the standard deviation over seeds from scratch, in points, goes from {spreads[0]} to "
        f"{spreads[-1]}; {finding} (Brown-Forsythe test of all {len(enough)} systems, p {spell_p(p)})."
    )


def _gains(verdicts: pd.DataFrame, watched: bool) -> list[str]:
    pairs = pairs_to_judge(len(verdicts), watched=watched)
    told = {
        "helps": "Gains from random-triplet pre-training",
        "hurts": "Loses by it",
        NOT_SHOWN: f"Not shown after correction over {len(verdicts)} systems (found when tested alone)",
        "no evidence either way": "No evidence either way",
        "too few seeds": f"Too few seeds for a verdict (fewer than the {pairs} pairs that it takes here)",
    }
    found = dict(tuple(verdicts.groupby("decision")))
    corrected = f" P values are Holm-corrected over {len(verdicts)} systems." if len(verdicts) > 1 else ""
    sentences = [
        f"{words}: {', '.join(_names(found[decision], 'points'))} points."
        for decision, words in told.items()
        if decision in found
    ]
    if found.keys() - {"helps", "too few seeds"} and "helps" not in found:
        sentences.insert(0, "No system is shown to gain from random-triplet pre-training.")
    return [*sentences[:-1], sentences[-1] + corrected]


def _names(rows: pd.DataFrame, *columns: str) -> list[str]:
    """Name each system, followed by the values of these columns."""
    systems = rows["encoder"] + " + " + rows["loss"]
    return systems.str.cat([rows[column] for column in columns], sep=" ").tolist()
