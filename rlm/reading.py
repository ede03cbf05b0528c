"""Files of your own: every usual format and layout, to a table of text pairs or triplets."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from cyclopts import Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from rlm.errors import InputError
from rlm.phrases import tokenise
from rlm.textfiles import (
    COMPRESSIONS,
    Rows,
    blocks,
    decode,
    delimited,
    groups,
    irrelevant_pairs,
    json_lines,
    open_bytes,
    printable,
    shorten,
)

Role = Literal["anchor", "positive", "negative", "relevance", "text", "label"]
Layout = Literal["columns", "blocks", "groups"]
ROLES: tuple[Role, ...] = ("anchor", "positive", "negative", "relevance", "text", "label")
ROWS_AT_ONCE = 100_000
_OTHERS = (".xlsx", ".xls", ".ods", ".zip", ".7z", ".pkl", ".feather", ".arrow", ".npz", ".pt")
_FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "delimited"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}


def _parse_mapping(given: object) -> object:
    """What a command line says as ``name=value,name=value``; anything else as it is."""
    if not isinstance(given, str):
        return given
    parts = [part.partition("=") for part in given.split(",")]
    if not all(name and equals and value for name, equals, value in parts):
        raise InputError(f"expected name=value,name=value; found {given!r}")
    return {name.strip(): value.strip() for name, _, value in parts}


Value = TypeVar("Value")
Mapped = Annotated[dict[str, Value], BeforeValidator(_parse_mapping), Parameter(accepts_keys=False)]


class Reading(BaseModel):
    """How to read data of your own; `read` takes the same options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Mapped[str] = Field(
        {}, description="What the file calls its columns, as anchor=fact,positive=question,negative=other."
    )
    layout: Layout = Field(
        "columns",
        description="columns: a table. blocks: lines T: premise and Q: question. groups: lines that mean the same, "
        "groups separated by empty lines.",
    )
    encoding: str | None = Field(None, description="Of text, such as cp1251; found out by default.")
    delimiter: str | None = Field(None, pattern=r"^[^\r\n]$", description="Of cells; found out by default.")
    quotechar: str | None = Field(
        None, max_length=1, description='Encloses cells; " by default, and nothing where tabs separate the cells.'
    )
    irrelevant: str | None = Field(
        None, description="File of premise|question lines that are known to be irrelevant, for manual negatives."
    )
    subset: str | None = Field(None, description="Configuration of a Hugging Face dataset.")
    part: str = Field("train", description="Split of a Hugging Face dataset.")

    @field_validator("columns")
    @classmethod
    def _check(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = [role for role in columns if role not in ROLES]
        if unknown:
            raise InputError(f"expected columns for {', '.join(ROLES)}; found {unknown[0]!r}")
        return columns


READ_AS_IT_IS = Reading()


def read(source: str | Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    """
    Read text pairs or triplets of your own.

    Parameters
    ----------
    source
        Path of a table (``.csv``, ``.tsv``, ``.txt``, ``.jsonl``, ``.parquet``, each also compressed as ``.gz``,
        ``.zst``, ``.bz2`` or ``.lz4``), folder of a Hugging Face dataset, or its id on the hub (both take the extra
        ``hub``).
    options
        ``anchor="fact", positive="question"``: names of the columns, for the roles anchor, positive, negative,
        relevance (1 for a relevant pair, 0 for an irrelevant one), text and label (texts of one label are relevant
        to each other). Without them a column has the name of its role. Others are the fields of `Reading`: layout,
        encoding, delimiter, quotechar, irrelevant, subset, part.

    Returns
    -------
    pandas.DataFrame
        Text columns ``anchor``, ``positive`` and, where the source has them, ``negative``, ``relevance`` or
        ``label``, indexed by line (of what has no lines: by row, from 1). Left out are empty lines and, counted in
        ``attrs["dropped"]``, repeated texts of a label and such that are alone with theirs. Which other rows cannot be
        used is said by `rlm.index_corpus`. ``attrs`` also say where the data are from.

    Warns
    -----
    UserWarning
        If the encoding had to be guessed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the source is not as described. The message gives the line.
    pydantic.ValidationError
        If an option is unknown or not as `Reading` has it.
    """
    roles = {role: options.pop(role) for role in ROLES if role in options}
    reading = Reading(columns={**options.pop("columns", {}), **roles}, **options)
    path = Path(source)
    looks_like_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and _format(path) is None
    if not path.exists() and not looks_like_id:
        raise FileNotFoundError(f"{path}: expected triplets or pairs in a file, found nothing; check the path")
    try:
        if path.is_file():
            frame = _file(path, reading)
            with path.open("rb") as file:
                version = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        else:
            frame, version = _hub(str(source), reading)
        frame, dropped = _ring(frame) if "text" in frame else (frame, {})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    frame.attrs = {
        "name": path.name,
        "title": f"{'Triplets' if 'negative' in frame else 'Pairs'} of {path.name}",
        "source": str(source),
        "licence": "not stated",
        "version": version,
        "dropped": dropped,
    }
    return frame if reading.irrelevant is None else add_irrelevant(frame, reading.irrelevant)


def add_irrelevant(pairs: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """
    Add pairs known to be irrelevant, for manual negatives.

    Parameters
    ----------
    pairs
        As of `read`, without negatives.
    path
        Text file with a line ``premise|question`` for every irrelevant pair.

    Returns
    -------
    pandas.DataFrame
        The pairs, and below them, with relevance 0, the irrelevant ones.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If there are negatives already, or a line is no pair.
    """
    path = Path(path)
    if "negative" in pairs:
        raise InputError("expected pairs beside a file of irrelevant ones, found triplets; leave irrelevant out")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of premise|question lines, found nothing; check the path")
    try:
        known = decode(path, None, lambda text: _frame(*irrelevant_pairs(text)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    known.index = [f"{path.name}:{line}" for line in known.index]
    both = pd.concat([pairs.assign(relevance=pairs.get("relevance", "1")), known])
    both.index.name, both.attrs = pairs.index.name, pairs.attrs
    return both


def _format(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1]) if suffixes else None


def _file(path: Path, reading: Reading) -> pd.DataFrame:
    choose = partial(_choose, columns=reading.columns)
    found = _format(path)
    if path.suffix.lower() in _OTHERS:
        raise InputError(f"expected CSV, TSV, JSON lines or Parquet, found {path.suffix}; convert the file")
    if reading.layout != "columns":
        parse = {"blocks": blocks, "groups": groups}[reading.layout]
    elif found == "parquet":
        return _parquet(path, reading)
    elif found == "json":
        parse = partial(json_lines, choose=choose)
    else:
        parse = partial(delimited, choose=choose, delimiter=reading.delimiter, quotechar=reading.quotechar)
    return decode(path, reading.encoding, lambda text: _frame(*parse(text)))


def _choose(names: Sequence[str], columns: Mapping[Role, str]) -> dict[Role, str]:
    """Which column has which role; those that were named must be there."""
    has_labels = "text" in columns or ("text" in names and "anchor" not in {*names, *columns})
    roles = ("text", "label") if has_labels else ("anchor", "positive", "negative", "relevance")
    foreign = [role for role in columns if role not in roles]
    if foreign:
        raise InputError(f"expected columns for {', '.join(roles)}, found {foreign[0]} beside them; leave it out")
    for role in dict.fromkeys([*columns, *roles[:2]]):
        name = columns.get(role, role)
        count = list(names).count(name)
        if count != 1:
            raise InputError(
                f"column {name!r} {f'found {count} times' if count else 'not found'}; the file has: "
                f"{printable(', '.join(names))}. Expected columns anchor, positive and, if there are negatives, "
                "negative, or else text and label; say what the file calls them, such as anchor='fact' "
                "(--columns anchor=fact)"
            )
    chosen = {role: columns.get(role, role) for role in roles if role in columns or role in names}
    if {"negative", "relevance"} <= chosen.keys():
        raise InputError("expected either negatives or relevance, found both columns; rename one of them")
    if len(set(chosen.values())) < len(chosen):
        raise InputError(f"expected a column of its own for every role, found {chosen}")
    return chosen


def _frame(roles: Sequence[str], rows: Rows) -> pd.DataFrame:
    """Rows as Arrow tables, piece by piece: Python objects would take several times the space."""
    pieces, lines = [], []
    while some := list(islice(rows, ROWS_AT_ONCE)):
        numbers, cells = zip(*some, strict=True)
        lines.append(np.asarray(numbers))
        columns = zip(roles, zip(*cells, strict=True), strict=True)
        pieces.append(pa.table({role: _column(role, column, numbers) for role, column in columns}))
    if not pieces:
        raise InputError("expected at least one row, found none; give at least one")
    return pa.concat_tables(pieces).to_pandas().set_index(pd.Index(np.concatenate(lines), name="line"))


def _column(role: str, cells: Sequence[object], lines: Sequence[int]) -> pa.Array:
    if role in ("relevance", "label"):
        cells = [cell if isinstance(cell, str) or _is_missing(cell) else json.dumps(cell) for cell in cells]
        cells = [None if _is_missing(cell) else cell for cell in cells]
    try:
        return pa.array(cells, pa.string())
    except (pa.ArrowException, UnicodeError):
        line, cell = next((line, cell) for line, cell in zip(lines, cells, strict=True) if not _is_text(cell))
        raise InputError(
            f"expected text as {role}, found {shorten(ascii(cell))} in line {line}; mend it"
            + (", it holds half of a character (a lone surrogate)" if isinstance(cell, str) else "")
        ) from None


def _is_missing(cell: object) -> bool:
    return cell is None or cell != cell


def _is_text(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not any("\ud800" <= letter <= "\udfff" for letter in cell))


def _parquet(path: Path, reading: Reading) -> pd.DataFrame:
    try:
        with open_bytes(path) as stream:
            file = pq.ParquetFile(pa.BufferReader(stream.read()) if path.suffix.lower() in COMPRESSIONS else path)
        chosen = _choose(file.schema_arrow.names, reading.columns)
        return _arrow(file.read(list(chosen.values())), chosen)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"expected a Parquet file, found: {error}; get it again") from error


def _hub(source: str, reading: Reading) -> tuple[pd.DataFrame, str]:
    hint = "if this was meant to be a file, check its path"
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "expected the package datasets, which reads folders and ids of Hugging Face datasets: pip install "
            f"'rlm[hub]'; {hint}"
        ) from error
    saved = any(Path(source, name).exists() for name in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            found = datasets.load_from_disk(source)
            found = found[reading.part] if isinstance(found, datasets.DatasetDict) else found
        else:
            found = datasets.load_dataset(source, reading.subset, split=reading.part)
    except (datasets.exceptions.DatasetsError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"expected a Hugging Face dataset with a part {reading.part!r}, found: {shorten(str(error), 300)}; name "
            f"its subset and part, or, {hint}"
        ) from error
    chosen = _choose(found.column_names, reading.columns)
    table = found.select_columns(list(chosen.values())).with_format("arrow")[:]
    return _arrow(table, chosen), f"fingerprint:{found._fingerprint}"


def _arrow(table: pa.Table, chosen: Mapping[Role, str]) -> pd.DataFrame:
    columns = {}
    for role, name in chosen.items():
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not is_text and role not in ("relevance", "label"):
            raise InputError(f"expected text in column {name!r}, found {column.type}; convert it")
        try:
            columns[role] = column.cast(pa.string())
            columns[role].validate(full=True)
        except pa.ArrowException as error:
            raise InputError(f"expected text in column {name!r}, found {column.type} ({error}); convert it") from error
    if not len(table):
        raise InputError("expected at least one row, found none; give at least one")
    return pa.table(columns).to_pandas().set_index(pd.RangeIndex(1, len(table) + 1, name="row"))


def _ring(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Each text with the next one of its label, the last with the first, so that all of a label are connected."""
    has_label = frame["label"].fillna("").str.strip() != ""
    # Texts without words would be dropped later, and the chain would break there.
    has_words = frame["text"].fillna("").map(lambda text: bool(tokenise(text)))
    usable = frame[has_label & has_words]
    texts = usable.drop_duplicates()
    by_label = texts.groupby("label", sort=False)
    size = by_label["text"].transform("size")
    following = by_label["text"].shift(-1).fillna(by_label["text"].transform("first"))
    is_pair = (size > 2) | ((size == 2) & (by_label.cumcount() == 0))  # of two, once is enough
    pairs = pd.DataFrame({"anchor": texts["text"], "positive": following, "label": texts["label"]})[is_pair]
    if pairs.empty:
        raise InputError("expected at least two texts with one label, or in one group; found none")
    dropped = {
        "without label or words": len(frame) - len(usable),
        "repeated with the same label": len(usable) - len(texts),
        "alone with their label": int((size == 1).sum()),
    }
    return pairs, dropped
