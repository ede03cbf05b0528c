"""Evaluation of a trained encoder: triplets, retrieval, verification, heads, and the audit of data."""

from .audit import Audit as Audit
from .baselines import overlap_scores as overlap_scores
from .heads import HEADS as HEADS, head_accuracy as head_accuracy, train_head as train_head
from .retrieval import retrieve as retrieve
from .triplets import evaluate as evaluate, roc as roc
from .verification import verify as verify
