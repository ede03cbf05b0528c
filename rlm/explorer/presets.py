"""Settings to start from."""

from typing import NamedTuple

from rlm.config import Plan, StudyConfig


class Preset(NamedTuple):
    """
    A study that somebody would want to run.

    Attributes
    ----------
    config
        Its settings.
    plan
        Its seeds.
    """

    config: StudyConfig
    plan: Plan


PRESETS = {
    "quick look": Preset(StudyConfig(pretrain_epochs=2, max_epochs=6, patience=2, batching="grouped"), Plan(seeds=20)),
    "the paper's redraw": Preset(StudyConfig(arms=("scratch", "pretrained")), Plan()),
    "one fixed set": Preset(StudyConfig(arms=("scratch", "pretrained_once")), Plan()),
}
