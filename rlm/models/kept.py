"""Weights of a study's runs: models in a folder beside its store."""

import logging
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pandas as pd

from rlm.block import Block
from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.models.model import Model
from rlm.runtime.results import R
from rlm.slicer import Slices

log = logging.getLogger(__name__)
Keep = Literal["best", "all"]


def check_savable(config: StudyConfig) -> None:
    """Raise InputError for an encoder that a saved model could not make anew."""
    if config.encoder == "dssm" and not config.keeps_unseen_words:
        raise InputError("expected --unseen-words kept for a DSSM to be saved: it reads the letters of any word")


def find_folder(db: Path | str | None, key: str, configs: Iterable[StudyConfig], has_own_encoder: bool) -> Path:
    """Return the folder for the weights of a study, which its key in the store names."""
    if db is None or has_own_encoder:
        found = "no db" if db is None else "make_encoder"
        raise InputError(f"expected a db and an encoder of the package to keep weights, found {found}; drop keep")
    for config in configs:
        check_savable(config)
    folder = Path(db).resolve().with_name(f"{Path(db).name}.weights") / key[:8]
    log.info("weights: %s", folder)
    return folder


def save_runs(folder: Path, block: Block, slices: Sequence[Slices], config: StudyConfig, results: pd.DataFrame) -> None:
    """Save the model of each seed that did not diverge, see `rlm.models.Model.save`."""
    has_finished = results["test_accuracy"].notna()
    for one, (arm, seed), is_kept in zip(slices, _runs(results), has_finished, strict=True):
        if is_kept:
            place = _place(folder, arm, seed)
            place.parent.mkdir(parents=True, exist_ok=True)
            Model.of(block, one, config, seed).save(place, overwrite=True)


def keep_weights(blocks: Generator[R], folder: Path, keep: Keep) -> Iterator[R]:
    """Pass blocks on; keep all models, or each arm's best by validation accuracy, and warn of missing ones."""
    runs = pd.DataFrame()
    with closing(blocks):
        for block in blocks:
            runs = pd.concat([runs, block.results]).dropna(subset="test_accuracy")
            if keep == "best":
                ranked = runs.sort_values(["validation_accuracy", "seed"], ascending=[False, True], kind="stable")
                is_worse = ranked.duplicated("arm")
                for run in _runs(ranked[is_worse]):
                    shutil.rmtree(_place(folder, *run), ignore_errors=True)
                runs = ranked[~is_worse]
            yield block
    missing = [run for run in _runs(runs) if not _place(folder, *run).exists()]
    if missing:
        log.warning("%d of %d runs have no weights: they had ended before weights were kept", len(missing), len(runs))


def _runs(results: pd.DataFrame) -> list[tuple[str, int]]:
    return list(results[["arm", "seed"]].itertuples(index=False, name=None))


def _place(folder: Path, arm: str, seed: int) -> Path:
    return folder / quote(arm, safe=" ()=,") / f"seed{seed}"
