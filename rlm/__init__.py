"""Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?"""

import lazy_loader

# The stub beside this file says what is public, and where it is. It is imported when it is first used: a process that
# only trains needs no figures.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    from rlm.errors import naming_extras  # pydantic takes a while to import

    with naming_extras():
        return _find(name)
