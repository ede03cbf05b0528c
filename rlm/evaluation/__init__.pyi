"""Evaluation of a trained encoder: triplets, retrieval, verification, heads, maps, references without an encoder."""

from .heads import HEADS as HEADS, train_head as train_head
from .held_out import list_triplets as list_triplets
from .maps import align_seeds as align_seeds, embedding_map as embedding_map
from .plots import draw_map as draw_map
from .references import overlap_scores as overlap_scores
from .retrieval import retrieve as retrieve
from .triplets import evaluate as evaluate, roc as roc
from .verification import verify as verify
