"""One seed, with and without pre-training: what lies near a question under each. Only this module uses the method."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from rlm.config import StudyConfig
from rlm.errors import InputError
from rlm.explorer.commands import MODEL, TRIPLETS, start_training
from rlm.runtime.process import Child
from rlm.variants import BASELINE, CONTROLS, REDRAW, Arm

if TYPE_CHECKING:
    from rlm.models.model import Model


class Inside(NamedTuple):
    """The models of one seed by arm, its validation triplets as texts, and embeddings of the phrases to search."""

    seed: int
    models: "dict[Arm, Model]"
    accuracy: dict[Arm, float]
    triplets: pd.DataFrame
    phrases: list[str]
    embeddings: dict[Arm, np.ndarray]

    def nearest(self, question: str, count: int = 8) -> dict[Arm, pd.DataFrame]:
        """List the phrases nearest to a text by squared distance, by arm; the text itself is not among them."""
        found = {}
        for arm, model in self.models.items():
            distances = np.square(self.embeddings[arm] - model.encode([question])).sum(axis=1)
            order = [row for row in np.argsort(distances, kind="stable") if self.phrases[row] != question][:count]
            found[arm] = pd.DataFrame({"phrase": [self.phrases[row] for row in order], "distance": distances[order]})
        return found

    def distances(self, anchor: str, others: list[str]) -> dict[Arm, list[float]]:
        """Return the squared distances of texts from an anchor, by arm."""
        found = {}
        for arm, model in self.models.items():
            first, *rest = model.encode([anchor, *others])
            found[arm] = [float(np.square(one - first).sum()) for one in rest]
        return found


class Probe:
    """Trains one seed of scratch and of the config's first pre-trained arm, side by side, as a study does."""

    def __init__(self, config: StudyConfig, table: pd.DataFrame | None, seed: int) -> None:
        if config.encoder == "dssm" and not config.keeps_unseen_words:
            raise InputError("expected unseen_words kept, to look inside a DSSM: it reads the letters of any word")
        treated = next((arm for arm in config.arms if arm in REDRAW and arm not in CONTROLS), "pretrained")
        self.seed = seed
        self.arms: dict[Arm, Child] = {arm: start_training(config, arm, seed, table) for arm in (BASELINE, treated)}

    @property
    def is_running(self) -> bool:
        """True until both arms are trained, or one has failed."""
        return any(child.is_running for child in self.arms.values()) and not self.problem

    @property
    def problem(self) -> str:
        """Why an arm failed; empty if none has."""
        return next(filter(None, (child.problem for child in self.arms.values())), "")

    def stop(self) -> None:
        """Stop training."""
        for child in self.arms.values():
            child.stop()

    def load(self) -> Inside:
        """Load what was trained; raise InputError if an arm failed."""
        if self.problem:
            raise InputError(self.problem)
        from rlm.models.model import load_model  # takes seconds to import

        folders = {arm: Path(child.folder.name) for arm, child in self.arms.items()}
        models = {arm: load_model(folder / MODEL) for arm, folder in folders.items()}
        triplets = pd.DataFrame(json.loads((folders[BASELINE] / TRIPLETS).read_text()))
        texts, rows = np.unique(triplets.to_numpy(object), return_inverse=True)
        rows = rows.reshape(-1, 3)
        is_searched = np.isin(np.arange(len(texts)), rows[:, 1:])
        phrases = texts[is_searched].tolist()
        accuracy, embeddings = {}, {}
        for arm, model in models.items():
            vectors = model.encode(texts)
            near, far = (np.square(vectors[rows[:, 0]] - vectors[rows[:, column]]).sum(axis=1) for column in (1, 2))
            accuracy[arm] = float(np.mean((near < far) + 0.5 * (near == far)))
            embeddings[arm] = vectors[is_searched]
        return Inside(self.seed, models, accuracy, triplets, phrases, embeddings)


def describe_data(config: StudyConfig, table: pd.DataFrame | None = None) -> dict[str, str]:
    """Describe the data of a config, see `rlm.data.datasets.describe_data`."""
    from rlm.data.datasets import describe_data  # takes seconds to import

    return describe_data(config, table)
