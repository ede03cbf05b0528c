"""The error that a user can correct."""


class InputError(ValueError):
    """
    Data or settings that cannot be used.

    Its text says what was expected, what was found and what to do. Everything else that is raised is a bug of ours.
    """
