"""Encoders and losses: the defaults, and the registries of all."""

from .encoders import (
    ENCODERS as ENCODERS,
    FrozenEncoder as FrozenEncoder,
    LSTMEncoder as LSTMEncoder,
    MeanEncoder as MeanEncoder,
)
from .losses import LOSSES as LOSSES
from .transformer import Dropout as Dropout, TransformerEncoder as TransformerEncoder
