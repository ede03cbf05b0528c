"""Systems, which are encoders with losses: trained side by side on the same splits and seeds, and compared."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
