"""The paper's own experiment: memorise random labels of images, then fine-tune."""

from . import plots as plots
from .alignment import (
    align as align,
    first_layer as first_layer,
    input_covariance as input_covariance,
    misalignment as misalignment,
    misalignment_by_chance as misalignment_by_chance,
)
from .batches import RandomLabels as RandomLabels, tabulate as tabulate
from .config import LabelsConfig as LabelsConfig, explain_settings as explain_settings
from .encoders import new_classifiers as new_classifiers
from .folders import load_image_folder as load_image_folder
from .report import (
    explain as explain,
    explain_effects as explain_effects,
    explain_shuffles as explain_shuffles,
    spell_intervals as spell_intervals,
    summarise_shuffles as summarise_shuffles,
    tabulate_effects as tabulate_effects,
    tabulate_speed as tabulate_speed,
)
from .samples import (
    Samples as Samples,
    divide as divide,
    load_digits as load_digits,
    make_moving_digits as make_moving_digits,
)
from .study import read_labels as read_labels, run_labels as run_labels
from .training import SGD as SGD, memorise as memorise
from .videos import load_video_folder as load_video_folder
