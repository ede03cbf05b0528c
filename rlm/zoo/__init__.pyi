"""The other encoders and losses, and the registries of both."""

from .encoders import (
    ENCODERS as ENCODERS,
    BiLSTMEncoder as BiLSTMEncoder,
    ConvolutionalLSTMEncoder as ConvolutionalLSTMEncoder,
    DSSMEncoder as DSSMEncoder,
    LSTMEncoder as LSTMEncoder,
    MeanEncoder as MeanEncoder,
    OutputStep as OutputStep,
    StackedLSTMEncoder as StackedLSTMEncoder,
    new_encoder as new_encoder,
)
from .losses import LOSSES as LOSSES, Objective as Objective, make_objective as make_objective
