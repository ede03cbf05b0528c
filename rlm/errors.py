"""The error that a user can correct."""


class InputError(ValueError):
    """
    Data or settings that cannot be used.

    The message gives what was expected, what was found and what to do. Any other exception is a bug of this package.

    Examples
    --------
    >>> import rlm
    >>> try:
    ...     rlm.init_block(lambda: None, seeds=[])
    ... except rlm.InputError as error:
    ...     print(error)
    expected at least one seed, found none
    """
