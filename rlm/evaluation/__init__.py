"""Evaluation of a trained encoder: triplets, retrieval, verification, heads, and references without an encoder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
