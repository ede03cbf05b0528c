"""Data: texts and tables read, checked, and turned into indices."""

from .corpus import Corpus as Corpus, index_corpus as index_corpus
from .datasets import (
    load as load,
    load_chatterbot as load_chatterbot,
    load_pqa as load_pqa,
    make_triplets as make_triplets,
)
from .files import ReadOptions as ReadOptions, read as read
