"""Studies to start from, by name."""

from typing import NamedTuple

from rlm.config import MOST_TRIPLETS, Plan, StudyConfig


class Preset(NamedTuple):
    """A study that a user may want to start from."""

    config: StudyConfig
    plan: Plan


AUTHOR = StudyConfig(
    arms=("scratch", "pretrained_once"),
    negatives=1,
    negative_kinds={"cascade": 1},
    split_by="triplet",
    pretrain_epochs=20,
    random_triplets=1_000_000,
    pretrain_padding="right",
    padding="left",
    test_padding="right",
    initialisation="keras",
    optimizer="nadam",
    learning_rate=0.002,
    keep_moments=True,
    epoch_triplets=MOST_TRIPLETS,
    max_epochs=1000,
    stop_by="loss",
)

PRESETS = {
    "quick look": Preset(StudyConfig(pretrain_epochs=2, max_epochs=6, patience=2, batching="grouped"), Plan(seeds=20)),
    "new triplets every epoch, as in the paper": Preset(StudyConfig(arms=("scratch", "pretrained")), Plan()),
    "one fixed set": Preset(StudyConfig(arms=("scratch", "pretrained_once")), Plan()),
    "the author's setting": Preset(AUTHOR, Plan()),  # of Koziev's nn_relevancy_tripleloss
}
