"""Trained models: save, load, search, and query."""

from .model import Model as Model, load_model as load_model
from .search import Index as Index
