"""Inside one seed: its encoders with and without pre-training, and what lies near a question under each."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from rlm.arms import train_arms
from rlm.config import REDRAW, Arm, StudyConfig
from rlm.data.corpus import index_corpus
from rlm.errors import InputError
from rlm.evaluation.triplets import evaluate
from rlm.explain import CONTROLS
from rlm.models.model import Model
from rlm.runtime.device import resolve_config
from rlm.slicer import Slices
from rlm.study import load_corpus, slice_for
from rlm.verdict import BASELINE


class Inside(NamedTuple):
    """
    One seed of two arms.

    Attributes
    ----------
    seed
        Which.
    models
        By arm.
    accuracy
        Validation accuracy by arm.
    triplets
        Validation triplets: columns anchor, positive, negative, as texts.
    phrases
        The different positives and negatives of those.
    embeddings
        Of `phrases`, by arm: [phrase, dim].
    """

    seed: int
    models: dict[Arm, Model]
    accuracy: dict[Arm, float]
    triplets: pd.DataFrame
    phrases: list[str]
    embeddings: dict[Arm, np.ndarray]

    def nearest(self, question: str, count: int = 8) -> dict[Arm, pd.DataFrame]:
        """
        What lies nearest to a text, under each arm.

        Parameters
        ----------
        question
            Any text.
        count
            How many phrases.

        Returns
        -------
        dict
            By arm: columns phrase and distance (squared, as in training), the nearest first. A phrase that is the text
            itself is left out.
        """
        found = {}
        for arm, model in self.models.items():
            distances = np.square(self.embeddings[arm] - model.encode([question])).sum(axis=1)
            order = [row for row in np.argsort(distances, kind="stable") if self.phrases[row] != question][:count]
            found[arm] = pd.DataFrame({"phrase": [self.phrases[row] for row in order], "distance": distances[order]})
        return found

    def distances(self, anchor: str, others: list[str]) -> dict[Arm, list[float]]:
        """
        How far texts are from an anchor, under each arm.

        Parameters
        ----------
        anchor, others
            Any texts.

        Returns
        -------
        dict
            By arm, squared distances in the order of `others`.
        """
        found = {}
        for arm, model in self.models.items():
            first, *rest = model.encode([anchor, *others])
            found[arm] = [float(np.square(one - first).sum()) for one in rest]
        return found


def train_inside(config: StudyConfig, data: pd.DataFrame | None, seed: int) -> Iterator[str | Inside]:
    """
    Train one seed of scratch and of the config's first pre-trained arm, as a study does.

    Parameters
    ----------
    config
        Of the study.
    data
        Of the study, where the config does not name it.
    seed
        Which.

    Yields
    ------
    str
        The arm that is being trained.
    Inside
        At the end.

    Raises
    ------
    InputError
        If the data cannot be read, or a text cannot be read by such a model.
    """
    if config.encoder == "dssm" and not config.keeps_unseen_words:
        raise InputError("expected unseen_words kept, to look inside a DSSM: it reads the letters of any word")
    torch.set_num_threads(1)  # one seed's tensors are too small to share among cores
    treated = next((arm for arm in config.arms if arm in REDRAW and arm not in CONTROLS), "pretrained")
    corpus = load_corpus(config) if data is None else index_corpus(data, config.max_tokens)
    slices = slice_for(config, corpus, [seed])
    models, accuracy = {}, {}
    for arm in (BASELINE, treated):
        yield arm
        (trained,) = train_arms(resolve_config(config), slices, [arm], [seed])
        models[arm] = Model.of(trained.block, slices[0], config)
        accuracy[arm] = float(evaluate(trained.block, slices, "validation")["triplet_accuracy"].iloc[0])
    triplets, phrases = _texts(slices[0])
    yield Inside(seed, models, accuracy, triplets, phrases, {arm: one.encode(phrases) for arm, one in models.items()})


def _texts(slices: Slices) -> tuple[pd.DataFrame, list[str]]:
    texts = slices.phrases.texts
    triplets = pd.DataFrame(slices.validation, columns=["anchor", "positive", "negative"])
    others = np.unique(slices.validation[:, 1:])
    return triplets.map(texts.__getitem__), [texts[phrase] for phrase in others]
