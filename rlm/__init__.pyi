"""Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?"""

from . import (
    arms as arms,
    block as block,
    controls as controls,
    data as data,
    evaluation as evaluation,
    explain as explain,
    external as external,
    labels as labels,
    loss as loss,
    models as models,
    plots as plots,
    presets as presets,
    report as report,
    slicer as slicer,
    stats as stats,
    study as study,
    systems as systems,
    zoo as zoo,
)
from .block import init_block as init_block
from .config import Recipe as Recipe, StudyConfig as StudyConfig
from .data.corpus import index_corpus as index_corpus
from .data.datasets import load as load
from .data.files import read as read
from .errors import InputError as InputError
from .evaluation.audit import audit as audit
from .evaluation.triplets import evaluate as evaluate
from .explorer.explorer import Explorer as Explorer
from .external.functions import judge as judge
from .loss import triplet_loss as triplet_loss
from .models.model import load_model as load_model
from .presets import PRESETS as PRESETS
from .report.markup import show as show
from .sampler import RandomTriplets as RandomTriplets, RealTriplets as RealTriplets
from .slicer import prepare as prepare, slice_corpus as slice_corpus
from .store.read import list_studies as list_studies, read_study as read_study
from .study import (
    iter_study as iter_study,
    run_study as run_study,
)
from .training import finetune as finetune, pretrain as pretrain
from .verdict import Verdict as Verdict, compare as compare, compare_all as compare_all, summarise as summarise
