"""What a verdict cannot speak of: how long a study trained, and what reaches as much without training."""

import pandas as pd

from rlm.config import StudyConfig
from rlm.labels.config import LabelsConfig
from rlm.sentences import count
from rlm.verdict import BASELINE


def explain_limits(
    config: StudyConfig, results: pd.DataFrame, encoder: str | None = None, overlap: float | None = None
) -> str:
    """
    Say what limits the verdict of a study.

    Parameters
    ----------
    config
        Of the study.
    results
        As `rlm.run_study` returns them.
    encoder
        The name of an encoder of your own; that of the config by default.
    overlap
        Share of the test triplets that the overlap of character trigrams gets right, see
        `rlm.evaluation.overlap_scores`; it is named where it is better than the encoder from scratch.

    Returns
    -------
    str
        Sentences: the encoder, its epochs of pre-training and of fine-tuning, how many runs `max_epochs` cut short, and
        the baseline. A run is cut short if it has all its epochs and early stopping would have let it go on.
    """
    is_pretrained = set(results["arm"]) - {BASELINE}
    before = f"{count(config.pretrain_epochs, 'epoch')} of pre-training and " if is_pretrained else ""
    said = [
        f"The encoder is {encoder or config.encoder}, trained for {before}at most "
        f"{count(config.max_epochs, 'epoch')} of fine-tuning."
    ]
    trained = results[results["validation_accuracy"].notna()]
    is_cut = (trained["epochs"] >= config.max_epochs) & (trained["epochs"] - trained["best_epoch"] < config.patience)
    if config.max_epochs and is_cut.any():
        verb = "was" if is_cut.sum() == 1 else "were"
        number = "Every run was" if is_cut.all() else f"{is_cut.sum():,} of {count(len(trained), 'run')} {verb}"
        said.append(f"{number} cut short by max_epochs, before early stopping; more epochs could change the verdict.")
    scratch = results.loc[results["arm"] == BASELINE, "test_accuracy"].mean()
    if overlap is not None and scratch < overlap:
        said.append(
            f"The overlap of character trigrams, which learns nothing, is right about {overlap:.1%} of the test "
            f"triplets; this encoder from scratch is right about {scratch:.1%}."
        )
    return " ".join(said)


def explain_labels_settings(config: LabelsConfig, seeds: int) -> str:
    """
    Say with which settings random labels were memorised, without which no result of them can be read.

    Parameters
    ----------
    config
        Of the study.
    seeds
        How many it has.

    Returns
    -------
    str
        A line: shuffles, epochs of memorising and of fine-tuning, learning rate and seeds.
    """
    epochs = count(config.shuffle_epochs, "epoch")
    until = (
        f", each until {config.until:.0%} are memorised and for at most {epochs}"
        if config.until
        else f", {epochs} each"
    )
    return (
        f"{count(config.shuffles, 'shuffle')} of the random labels{until}; "
        f"at most {count(config.max_epochs, 'epoch')} of fine-tuning; "
        f"learning rate {config.learning_rate:g}; {count(seeds, 'seed')}."
    )
