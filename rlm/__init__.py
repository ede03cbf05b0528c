"""Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?"""

from typing import TYPE_CHECKING, Any

from rlm.arms import Trained, train_arms
from rlm.audit import Audit, audit
from rlm.block import Block, init_block
from rlm.config import StudyConfig
from rlm.corpus import Corpus, index_corpus
from rlm.datasets import load, load_chatterbot, load_pqa, make_triplets
from rlm.encoder import ENCODERS, DSSMEncoder, MeanEncoder, new_encoder
from rlm.estimates import Estimate
from rlm.evaluation import evaluate, roc
from rlm.explain import explain_controls
from rlm.head_training import head_accuracy, train_head
from rlm.heads import HEADS
from rlm.histories import best_so_far, explain_pretraining
from rlm.loss import squared_distance, triplet_loss
from rlm.model import Model, load_model
from rlm.objective import LOSSES, Objective, make_objective
from rlm.output import WithOutput
from rlm.plots import plot_effects, plot_learning_curves, plot_pretraining, plot_roc, plot_seeds, plot_systems
from rlm.reading import Reading, read
from rlm.recurrent import BiLSTMEncoder, ConvolutionalLSTMEncoder, LSTMEncoder, StackedLSTMEncoder
from rlm.retrieval import retrieve
from rlm.sampler import RandomTriplets, RealTriplets
from rlm.sequence import confidence_sequence
from rlm.slicer import Components, Slices, slice_at_random, slice_corpus
from rlm.spread import Spread, decompose_spread
from rlm.standings import compare_systems, explain_systems, summarise_systems, tabulate_systems
from rlm.stats import Verdict, compare, compare_all, summarise
from rlm.stored import list_studies, read_study
from rlm.study import iter_study, run_study
from rlm.synthetic import make_synthetic
from rlm.systems import run_systems
from rlm.task import BlockResult, join
from rlm.training import finetune, pretrain
from rlm.verification import verify

if TYPE_CHECKING:
    from rlm.widgets import Explorer

__all__ = [
    "ENCODERS",
    "HEADS",
    "LOSSES",
    "Audit",
    "BiLSTMEncoder",
    "Block",
    "BlockResult",
    "Components",
    "ConvolutionalLSTMEncoder",
    "Corpus",
    "DSSMEncoder",
    "Estimate",
    "Explorer",
    "LSTMEncoder",
    "MeanEncoder",
    "Model",
    "Objective",
    "RandomTriplets",
    "Reading",
    "RealTriplets",
    "Slices",
    "Spread",
    "StackedLSTMEncoder",
    "StudyConfig",
    "Trained",
    "Verdict",
    "WithOutput",
    "audit",
    "best_so_far",
    "compare",
    "compare_all",
    "compare_systems",
    "confidence_sequence",
    "decompose_spread",
    "evaluate",
    "explain_controls",
    "explain_pretraining",
    "explain_systems",
    "finetune",
    "head_accuracy",
    "index_corpus",
    "init_block",
    "iter_study",
    "join",
    "list_studies",
    "load",
    "load_chatterbot",
    "load_model",
    "load_pqa",
    "make_objective",
    "make_synthetic",
    "make_triplets",
    "new_encoder",
    "plot_effects",
    "plot_learning_curves",
    "plot_pretraining",
    "plot_roc",
    "plot_seeds",
    "plot_systems",
    "pretrain",
    "read",
    "read_study",
    "retrieve",
    "roc",
    "run_study",
    "run_systems",
    "slice_at_random",
    "slice_corpus",
    "squared_distance",
    "summarise",
    "summarise_systems",
    "tabulate_systems",
    "train_arms",
    "train_head",
    "triplet_loss",
    "verify",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "Explorer":  # the widgets take a second to import, and training in other processes needs none
        from rlm.widgets import Explorer

        return Explorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
