"""Models of sentence-transformers, trained by its trainer with and without random triplets, and judged."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from sklearn.metrics import roc_auc_score
from torch import nn

from rlm.controls import CONTROLS
from rlm.errors import InputError, naming_extras
from rlm.evaluation.held_out import clusters_of_test
from rlm.evaluation.references import is_right
from rlm.external.functions import judge
from rlm.loss import squared_distance
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.slicer import Slices
from rlm.variants import ARMS, REDRAW

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

METRICS = "test_accuracy", "roc_auc"
MARGIN = 0.25  # in cosine distance of unit vectors, half of their squared distance
MakeLoss = Callable[["SentenceTransformer"], nn.Module]


def triplet_loss(model: "SentenceTransformer") -> nn.Module:
    """Return their triplet loss on cosine distances, which is half of `rlm.triplet_loss` for embeddings of length 1."""
    from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric, TripletLoss

    return TripletLoss(model, distance_metric=TripletDistanceMetric.COSINE, triplet_margin=MARGIN)


@dataclass(frozen=True)
class Backbone:
    """A function ``train(arm, seed)`` for `rlm.judge`; `weights` are hashed for its identity, with the versions."""

    model: str
    slices: Slices
    weights: tuple[str, ...]
    epochs: int
    pretrain_epochs: int
    triplets: int | None
    batch_size: int
    learning_rate: float
    loss: MakeLoss
    losses: Mapping[str, MakeLoss]

    def __call__(self, arm: str, seed: int) -> dict[str, Any]:
        model = load_backbone(self.model)
        if arm in REDRAW and self.pretrain_epochs:
            before = {name: weight.clone() for name, weight in model.state_dict().items()}
            size = self.triplets or len(self.slices.train)
            source = RandomTriplets(self.slices.components, seed, size, REDRAW[arm])
            self._fit(model, source, self.pretrain_epochs, self.loss)
            if arm in CONTROLS:
                model.load_state_dict(CONTROLS[arm](before, model.state_dict(), seed))
        source = RealTriplets(self.slices.train, seed, self.triplets)
        self._fit(model, source, self.epochs, self.losses.get(arm, self.loss))
        return measure(model, self.slices)

    def _fit(
        self, model: "SentenceTransformer", source: RealTriplets | RandomTriplets, epochs: int, make_loss: MakeLoss
    ) -> None:
        """Train on triplets in the order of their source; dropout follows from its seed."""
        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from transformers import PrinterCallback

        drawn = [chunk for epoch in range(1, epochs + 1) for chunk in source.epoch(epoch, self.batch_size)]
        if not drawn:
            return
        texts, columns = self.slices.phrases.texts, torch.cat(drawn).T.tolist()
        named = zip(("anchor", "positive", "negative"), columns, strict=True)
        table = Dataset.from_dict({name: [texts[phrase] for phrase in column] for name, column in named})
        quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        with TemporaryDirectory() as folder:
            arguments = SentenceTransformerTrainingArguments(
                folder,
                num_train_epochs=1,  # the source has all epochs
                per_device_train_batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=source.seed % 2**32,
                batch_sampler=in_order,
                dataloader_pin_memory=torch.cuda.is_available(),
                **quiet,
            )
            loss = make_loss(model)
            trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=table, loss=loss)
            trainer.remove_callback(PrinterCallback)
            trainer.train()


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:  # noqa: ANN401
    """Return a batch sampler of sentence-transformers that keeps the order of a table."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    return DefaultBatchSampler(torch.utils.data.SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def load_backbone(model: str) -> "SentenceTransformer":
    """Load a model of sentence-transformers, without its progress bars."""
    with naming_extras():
        import accelerate  # noqa: F401 - their trainer needs both
        import datasets
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    loaded = SentenceTransformer(model)
    loaded.model_card_data.widget = ["none"]  # else every run computes examples for a card that nobody writes
    return loaded


def measure(model: "SentenceTransformer", slices: Slices) -> dict[str, Any]:
    """Return the accuracy on the test triplets by cluster, and the ROC AUC of their pairs, by distance."""
    used, place = np.unique(slices.test, return_inverse=True)
    texts = [slices.phrases.texts[phrase] for phrase in used]
    vectors = torch.from_numpy(model.encode(texts, show_progress_bar=False)).double()
    place = place.reshape(slices.test.shape)
    if not vectors.isfinite().all():
        return dict.fromkeys(METRICS, np.nan)
    anchor, positive, negative = (vectors[column] for column in place.T)
    right = is_right((squared_distance(anchor, negative) - squared_distance(anchor, positive)).numpy())
    cluster, triplets = clusters_of_test(slices)
    pairs, first = np.unique(np.concatenate([place[:, :2], place[:, ::2]]), axis=0, return_index=True)
    distance = squared_distance(*(vectors[column] for column in pairs.T)).numpy()
    return {
        "test_accuracy": {str(number): right[cluster == number] for number in range(len(triplets))},
        "roc_auc": float(roc_auc_score(first < len(slices.test), -distance)),
    }


def sentence_transformers(
    model: str | Path,
    slices: Slices,
    arms: Sequence[str] = ("scratch", "pretrained"),
    seeds: int | Sequence[int] = 10,
    *,
    losses: Mapping[str, MakeLoss] | None = None,
    loss: MakeLoss = triplet_loss,
    epochs: int = 1,
    pretrain_epochs: int = 1,
    triplets: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 2e-5,
    **settings: Any,  # noqa: ANN401
) -> pd.DataFrame:
    """
    Fine-tune a model of sentence-transformers with its trainer, with and without random triplets before.

    The arms of a seed share the order of the real triplets and the draws of dropout. The last epoch counts, since
    nothing is chosen by validation. Needs ``rlm[sentences]``.

    Parameters
    ----------
    model
        Folder or id of the model. The arm scratch fine-tunes these weights.
    slices
        Triplets for training and test, see `rlm.prepare`.
    arms
        Those of `rlm.StudyConfig`; ``pretrained`` trains on random triplets of `rlm.RandomTriplets` first.
    seeds
        A number of seeds, counted from 0, or the seeds.
    losses
        More arms by name, each with a loss that replaces `loss` in the fine-tuning of the given weights.
    loss
        Makes a loss of sentence-transformers from the model; by default its triplet loss on cosine distances.
    epochs, pretrain_epochs
        Epochs of real and of random triplets, 0 or more; with 0 of these, all arms are scratch.
    triplets
        Per epoch, at least 1, each time a new choice; by default as many as there are for training.
    batch_size, learning_rate
        Of both trainings; the rate falls linearly to 0 in each.
    **settings
        Further settings of `rlm.judge`, such as ``db``. Its ``n_jobs`` is 1 by default, because a run uses all cores.

    Returns
    -------
    pandas.DataFrame
        As `rlm.judge` returns them, with test_accuracy of triplets and roc_auc, both by distance.

    Raises
    ------
    InputError
        If a package is missing, there is no such arm or model, a number is out of range, or as in `rlm.judge`.

    Examples
    --------
    >>> import rlm
    >>> slices = rlm.prepare(rlm.StudyConfig())
    >>> rlm.systems.sentence_transformers("a folder", slices, ["scratch", "best"])
    Traceback (most recent call last):
    rlm.errors.InputError: expected arms of scratch, pretrained, pretrained_once, rescaled, shuffled, ...
    """
    more = dict(losses or {})
    unknown = [arm for arm in arms if arm not in ARMS] or [arm for arm in more if arm in ARMS]
    if unknown:
        raise InputError(f"expected arms of {', '.join(ARMS)}, other names for losses, found {unknown[0]!r}; rename it")
    if (
        min(epochs, pretrain_epochs) < 0
        or min(1 if triplets is None else triplets, batch_size) < 1
        or not learning_rate > 0
    ):
        raise InputError(
            "expected epochs of at least 0, triplets and batch_size of at least 1, and a learning_rate above 0, found "
            f"{epochs}, {pretrain_epochs}, {triplets}, {batch_size} and {learning_rate}; change them"
        )
    try:
        state = load_backbone(str(model)).state_dict()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"expected a model of sentence-transformers, found {model}: {error}; give its folder"
        ) from error
    digest = hashlib.sha256(save({name: weight.cpu().contiguous() for name, weight in state.items()})).hexdigest()
    weights = digest, version("sentence-transformers"), version("transformers")
    numbers = epochs, pretrain_epochs, triplets, batch_size, float(learning_rate)
    train = Backbone(str(model), slices, weights, *numbers, loss, more)
    return judge(train, [*arms, *more], seeds, **{"metrics": METRICS, "n_jobs": 1} | settings)
