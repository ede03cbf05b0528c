"""The other encoders and losses, and the registries of both."""

from .core import (
    ENCODERS as ENCODERS,
    DSSMEncoder as DSSMEncoder,
    MeanEncoder as MeanEncoder,
    new_encoder as new_encoder,
)
from .encoders import (
    BiLSTMEncoder as BiLSTMEncoder,
    ConvolutionalLSTMEncoder as ConvolutionalLSTMEncoder,
    LSTMEncoder as LSTMEncoder,
    StackedLSTMEncoder as StackedLSTMEncoder,
)
from .objective import LOSSES as LOSSES, Objective as Objective, make_objective as make_objective
from .output import WithOutput as WithOutput
