"""Settings and tables that the command line reads from files, as the panel writes them."""

from pathlib import Path
from typing import Annotated, TypeVar

import pandas as pd
import pydantic
from cyclopts import Parameter

from rlm.config import StudyConfig
from rlm.errors import InputError

C = TypeVar("C", bound=StudyConfig)
ConfigFile = Annotated[Path | None, Parameter(name="--config")]
Table = Annotated[Path | None, Parameter(show=False)]  # Parquet


def complete(config: C, file: Path | None) -> C:
    """Add the settings of a JSON file to those that were given as options, which count first."""
    if file is None:
        return config
    if not file.is_file():
        raise InputError(f"expected settings of a study in {file}, found no such file; check the path")
    given = {name: getattr(config, name) for name in config.model_fields_set}
    try:
        stored = StudyConfig.model_validate_json(file.read_bytes())
        for field in given.keys() & {"reading", "pretrain_reading"}:
            read = {name: getattr(given[field], name) for name in given[field].model_fields_set}
            given[field] = dict(getattr(stored, field)) | read
        return type(config).model_validate(dict(stored) | given)
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(
            f"expected settings of a study in {file}, found other content: {problems}; export them again"
        ) from error


def read_table(file: Path | None) -> pd.DataFrame | None:
    """Read the table of a caller that has one instead of a dataset; it needs no name."""
    return None if file is None else pd.read_parquet(file)
