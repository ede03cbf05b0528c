"""Statistics: estimates, intervals and tests. No tensors, no axes, no sentences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
