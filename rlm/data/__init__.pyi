"""Data: texts and tables read, checked, and turned into indices."""

from .corpus import Corpus as Corpus, index_corpus as index_corpus
from .datasets import load as load, make_triplets as make_triplets
from .files import ReadOptions as ReadOptions, read as read
