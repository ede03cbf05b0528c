"""Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?"""

from rlm.audit import Audit, audit
from rlm.block import Block, init_block
from rlm.config import StudyConfig
from rlm.corpus import Corpus, index_corpus
from rlm.datasets import load, load_chatterbot, load_pqa, make_triplets
from rlm.encoder import ENCODERS, DSSMEncoder, MeanEncoder, new_encoder
from rlm.evaluation import evaluate, roc
from rlm.head_training import head_accuracy, train_head
from rlm.heads import HEADS
from rlm.histories import best_so_far, explain_pretraining
from rlm.loss import squared_distance, triplet_loss
from rlm.objective import LOSSES, Objective, make_objective
from rlm.output import WithOutput
from rlm.plots import plot_learning_curves, plot_pretraining, plot_roc, plot_seeds
from rlm.reading import Reading, read
from rlm.recurrent import BiLSTMEncoder, ConvolutionalLSTMEncoder, LSTMEncoder, StackedLSTMEncoder
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.slicer import Components, Slices, slice_at_random, slice_corpus
from rlm.stats import Estimate, Verdict, compare, summarise
from rlm.study import iter_study, run_study, tidy
from rlm.synthetic import make_synthetic
from rlm.training import finetune, pretrain

__all__ = [
    "ENCODERS",
    "HEADS",
    "LOSSES",
    "Audit",
    "BiLSTMEncoder",
    "Block",
    "Components",
    "ConvolutionalLSTMEncoder",
    "Corpus",
    "DSSMEncoder",
    "Estimate",
    "LSTMEncoder",
    "MeanEncoder",
    "Objective",
    "RandomTriplets",
    "Reading",
    "RealTriplets",
    "Slices",
    "StackedLSTMEncoder",
    "StudyConfig",
    "Verdict",
    "WithOutput",
    "audit",
    "best_so_far",
    "compare",
    "evaluate",
    "explain_pretraining",
    "finetune",
    "head_accuracy",
    "index_corpus",
    "init_block",
    "iter_study",
    "load",
    "load_chatterbot",
    "load_pqa",
    "make_objective",
    "make_synthetic",
    "make_triplets",
    "new_encoder",
    "plot_learning_curves",
    "plot_pretraining",
    "plot_roc",
    "plot_seeds",
    "pretrain",
    "read",
    "roc",
    "run_study",
    "slice_at_random",
    "slice_corpus",
    "squared_distance",
    "summarise",
    "tidy",
    "train_head",
    "triplet_loss",
]
