"""Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?"""

from .alignment import (
    align as align,
    first_layer as first_layer,
    input_covariance as input_covariance,
    misalignment as misalignment,
    misalignment_by_chance as misalignment_by_chance,
)
from .arms import Trained as Trained, train_arms as train_arms
from .auditing import Audit as Audit, audit as audit
from .baselines import overlap_scores as overlap_scores
from .block import Block as Block, init_block as init_block
from .config import StudyConfig as StudyConfig
from .corpus import Corpus as Corpus, index_corpus as index_corpus
from .datasets import (
    load as load,
    load_chatterbot as load_chatterbot,
    load_pqa as load_pqa,
    make_triplets as make_triplets,
)
from .digits import load_digits as load_digits, make_moving_digits as make_moving_digits
from .encoder import (
    ENCODERS as ENCODERS,
    DSSMEncoder as DSSMEncoder,
    MeanEncoder as MeanEncoder,
    new_encoder as new_encoder,
)
from .estimates import Estimate as Estimate
from .evaluation import evaluate as evaluate, roc as roc
from .explain import explain_controls as explain_controls
from .folders import load_image_folder as load_image_folder, load_video_folder as load_video_folder
from .head_training import head_accuracy as head_accuracy, train_head as train_head
from .heads import HEADS as HEADS
from .histories import best_so_far as best_so_far, explain_pretraining as explain_pretraining
from .labels import iter_labels as iter_labels, run_labels as run_labels
from .labels_config import LabelsConfig as LabelsConfig
from .labels_plots import (
    plot_alignment as plot_alignment,
    plot_label_effects as plot_label_effects,
    plot_memorising as plot_memorising,
    plot_shuffles as plot_shuffles,
)
from .labels_stats import (
    epochs_to_reach as epochs_to_reach,
    summarise_shuffles as summarise_shuffles,
    tabulate_effects as tabulate_effects,
    tabulate_speed as tabulate_speed,
)
from .labels_task import LabelsResult as LabelsResult, new_classifiers as new_classifiers
from .labels_words import (
    explain_claim as explain_claim,
    explain_effects as explain_effects,
    explain_shuffles as explain_shuffles,
    explain_speed as explain_speed,
    spell_intervals as spell_intervals,
)
from .limits import explain_labels_settings as explain_labels_settings, explain_limits as explain_limits
from .loss import squared_distance as squared_distance, triplet_loss as triplet_loss
from .markup import escape_markdown as escape_markdown
from .memorising import learn as learn, memorise as memorise
from .metrics import Metric as Metric
from .model import Model as Model, load_model as load_model
from .objective import LOSSES as LOSSES, Objective as Objective, make_objective as make_objective
from .output import WithOutput as WithOutput
from .plots import (
    plot_effects as plot_effects,
    plot_learning_curves as plot_learning_curves,
    plot_pretraining as plot_pretraining,
    plot_roc as plot_roc,
    plot_seeds as plot_seeds,
    plot_systems as plot_systems,
)
from .random_labels import RandomLabels as RandomLabels, tabulate as tabulate
from .reading import Reading as Reading, read as read
from .recurrent import (
    BiLSTMEncoder as BiLSTMEncoder,
    ConvolutionalLSTMEncoder as ConvolutionalLSTMEncoder,
    LSTMEncoder as LSTMEncoder,
    StackedLSTMEncoder as StackedLSTMEncoder,
)
from .retrieval import retrieve as retrieve
from .sampler import RandomTriplets as RandomTriplets, RealTriplets as RealTriplets
from .samples import Parts as Parts, Samples as Samples, divide as divide
from .sequence import confidence_sequence as confidence_sequence
from .slicer import (
    Components as Components,
    Slices as Slices,
    slice_at_random as slice_at_random,
    slice_corpus as slice_corpus,
)
from .spread import Spread as Spread, decompose_spread as decompose_spread
from .standings import (
    compare_systems as compare_systems,
    explain_systems as explain_systems,
    summarise_systems as summarise_systems,
    tabulate_systems as tabulate_systems,
)
from .stats import Verdict as Verdict, compare as compare, compare_all as compare_all, summarise as summarise
from .stored import (
    StoredLabels as StoredLabels,
    StoredStudy as StoredStudy,
    list_studies as list_studies,
    read_labels as read_labels,
    read_study as read_study,
)
from .study import iter_study as iter_study, run_study as run_study
from .synthetic import make_synthetic as make_synthetic
from .systems import run_systems as run_systems
from .task import BlockResult as BlockResult, join as join
from .training import finetune as finetune, pretrain as pretrain
from .verification import verify as verify
from .vision import (
    Classifier as Classifier,
    CNN3DEncoder as CNN3DEncoder,
    CNNEncoder as CNNEncoder,
    MLPEncoder as MLPEncoder,
    transfer as transfer,
)
from .widgets import Explorer as Explorer
