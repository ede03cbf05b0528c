"""The encoders of the core, beside those of the zoo."""

from rlm.encoder import ENCODERS, DSSMEncoder, MeanEncoder, new_encoder

__all__ = ["ENCODERS", "DSSMEncoder", "MeanEncoder", "new_encoder"]
