"""Systems, which are encoders with losses: trained side by side on the same splits and seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from rlm.config import Loss, StudyConfig
from rlm.errors import InputError
from rlm.evaluation.references import OVERLAP, overlap_scores
from rlm.runtime.results import join
from rlm.study import iter_study, load_corpus, slice_for
from rlm.systems.tables import SYSTEM, UNTRAINED
from rlm.zoo.encoders import ENCODERS
from rlm.zoo.losses import LOSSES


class System(NamedTuple):
    """An encoder and the loss that it is trained with."""

    encoder: str
    loss: Loss


# The author's loss with every encoder, his encoder with every loss, and the combinations of other sources.
ALL = (
    *(System(encoder, "triplet") for encoder in ENCODERS if encoder != "transformer"),  # slow
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
    results.attrs |= tables[0].attrs | {"watched": any(table.attrs["watched"] for table in tables)}
    return results.assign(dataset=config.dataset)[[*SYSTEM, *results.columns.difference(SYSTEM, sort=False)]]


def _untrained(config: StudyConfig, seeds: Sequence[int]) -> pd.DataFrame:
    corpus = load_corpus(config)
    slices = slice_for(config, corpus, seeds)
    different = {id(one): one for one in slices}  # only one if the split is fixed
    scores = {key: overlap_scores(corpus, one) for key, one in different.items()}
    rows = pd.DataFrame([scores[id(one)] for one in slices])
    return rows.assign(seed=seeds, encoder=OVERLAP, loss="none", arm=UNTRAINED)
