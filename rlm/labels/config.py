"""The config of a study of random labels: every number that decides its results."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlm.config import TRANSFER
from rlm.errors import InputError, Settings
from rlm.labels.samples import FRACTIONS
from rlm.sentences import count
from rlm.variants import CONTROLS, REDRAW, Arm

EPOCHS_TO_MEMORISE = 60
Labelled = Annotated[int, Field(ge=2)] | Literal["all"]


class LabelsConfig(Settings):
    """
    Everything that decides the numbers of a study of random labels, except its seeds and the user's samples.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.LabelsConfig(dataset="moving-digits", until=0.9).shuffle_epochs
    60
    """

    dataset: str = Field(
        "digits",
        min_length=1,
        description="digits (1,797 handwritten), moving-digits (clips of them), or a name for samples that are passed.",
    )
    arms: tuple[Arm, ...] = Field(
        ("scratch", "pretrained"),
        min_length=1,
        description="Ways to reach the weights that fine-tuning starts from: scratch (random init), pretrained (labels "
        "shuffled again and again), pretrained_once (labels dealt once), and controls: "
        f"{', '.join(f'{name} ({meaning})' for name, meaning in CONTROLS.items())}.",
    )
    encoder: Literal["mlp", "cnn", "cnn3d"] | None = Field(
        None, description="mlp (all pixels), cnn (images) or cnn3d (clips); by default the convolutions that fit."
    )
    dim: int = Field(256, ge=1, le=8192, description="Size of an embedding, and of all layers in proportion.")
    random_classes: int | None = Field(
        None, ge=2, le=1_000_000, description="Number of random classes; as many as there are true ones by default."
    )
    group_size: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="In place of random_classes: samples form random groups of this size, each of which is a class.",
    )
    shuffles: int = Field(10, ge=1, le=10_000, description="How often random labels are dealt.")
    shuffle_epochs: int = Field(
        20,
        ge=0,
        le=10_000,
        description="Epochs of a shuffle; with until, the most epochs, 60 by default. 0 is no pre-training.",
    )
    until: float | None = Field(
        None, gt=0, le=1, description="Shuffle as soon as this share of the random labels is memorised."
    )
    new_head: bool = Field(False, description="Draw a new head at each shuffle; the old one is kept by default.")
    transfer: int | None = Field(None, ge=0, description=TRANSFER)
    labelled: tuple[Labelled, ...] = Field(
        ("all",),
        min_length=1,
        description="Number of training samples to fine-tune on; several numbers, or all, share one pre-training.",
    )
    learning_rate: float = Field(1e-3, ge=1e-7, le=1, description="Learning rate of the optimizer.")
    optimizer: Literal["adam", "sgd"] = Field(
        "adam", description="adam, or sgd: stochastic gradient descent, with momentum and weight_decay if given."
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of sgd, added to the gradient.")
    batch_size: int = Field(64, ge=1, le=100_000, description="Samples per step and seed.")
    max_epochs: int = Field(100, ge=0, le=100_000, description="Most epochs of fine-tuning.")
    patience: int = Field(
        20, ge=1, le=100_000, description="A seed stops after this many epochs without a new best validation accuracy."
    )
    fractions: tuple[float, float, float] = Field(
        FRACTIONS, description="Shares of the samples for training, validation and test; their sum is 1."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train; auto takes a GPU where there is one."
    )

    @model_validator(mode="before")
    @classmethod
    def _give_time(cls, given: object) -> object:
        """To memorise a large share takes longer than a shuffle of the default length has."""
        if isinstance(given, dict) and given.get("until") is not None:
            return {"shuffle_epochs": EPOCHS_TO_MEMORISE} | given
        return given

    @model_validator(mode="after")
    def _check(self) -> "LabelsConfig":
        if len(set(self.arms)) < len(self.arms):
            raise InputError(f"expected every arm once, found {', '.join(self.arms)}; drop repeats")
        if len(set(self.labelled)) < len(self.labelled):
            raise InputError(f"expected every number of labelled samples once, found {self.labelled}; drop repeats")
        if self.random_classes is not None and self.group_size is not None:
            raise InputError("expected random_classes or group_size, found both; drop one")
        if self.optimizer == "adam" and (self.momentum or self.weight_decay):
            raise InputError(
                f"expected momentum and weight_decay with the optimizer sgd, found {self.momentum:g} and "
                f"{self.weight_decay:g} with adam; choose sgd, or omit them"
            )
        return self


def explain_settings(config: LabelsConfig, seeds: int) -> str:
    """
    Describe the settings with which random labels were memorised.

    Parameters
    ----------
    config
        Config of the study.
    seeds
        Number of its seeds.

    Returns
    -------
    str
        A line: shuffles, epochs of memorising and of fine-tuning, optimizer unless it is Adam, learning rate and seeds.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.explain_settings(rlm.labels.LabelsConfig(), 10).split("; ")[-1]
    '10 seeds.'
    """
    epochs = count(config.shuffle_epochs, "epoch")
    until = f", {epochs} each"
    if config.until:
        until = f", each until {config.until:.0%} are memorised and for at most {epochs}"
    steps = ""
    if config.optimizer == "sgd":
        steps = f"SGD with momentum {config.momentum:g} and weight decay {config.weight_decay:g}, "
    if config.new_head:
        until += ", each with a new head"
    kinds = {REDRAW[arm] for arm in config.arms if arm in REDRAW}
    dealt = [] if kinds == {"once"} else [f"{count(config.shuffles, 'shuffle')} of the random labels{until}"]
    if "once" in kinds:
        dealt.append(f"random labels dealt once, {count(config.shuffles * config.shuffle_epochs, 'epoch')}")
    return (
        f"{'; '.join(dealt)}; "
        f"at most {count(config.max_epochs, 'epoch')} of fine-tuning; "
        f"{steps}learning rate {config.learning_rate:g}; {count(seeds, 'seed')}."
    )
