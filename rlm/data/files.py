"""Files: every usual format and layout, read as a table of text pairs or triplets."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlm.config import READ_AS_IT_IS, ROLES, ReadOptions, Role
from rlm.data.columns import check_labels, choose_columns, choose_texts, make_pairs
from rlm.data.json_records import is_record_table, json_rows, record_rows
from rlm.data.parsers import ROWS_AT_ONCE, Choose, blocks, delimited, groups, irrelevant_pairs, to_frame
from rlm.data.textfiles import COMPRESSIONS, MOST_CHARACTERS, decode, most_bytes, open_bytes, shorten
from rlm.errors import InputError, naming_extras

TEXT_ROLES = ("anchor", "positive", "negative", "text")
RECORDS_AT_ONCE = 1_000  # records have lists of texts
_OTHERS = (".xlsx", ".xls", ".ods", ".pkl", ".feather", ".arrow", ".orc", ".avro", ".npz", ".npy", ".pt", ".h5")
_OTHERS += (".sqlite", ".db", ".xml", ".yml", ".yaml", ".html", ".pdf", ".docx", ".tar")
_ARCHIVES = (".zip", ".7z", ".rar", ".tgz", ".txz", ".tbz2", ".br", ".z", ".lz", ".lzo", ".sz", ".snappy", ".zz")
_FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "delimited"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}


def read(source: str | Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    r"""
    Read text pairs or triplets from a file or a Hugging Face dataset.

    Parameters
    ----------
    source
        Path of a table (``.csv``, ``.tsv``, ``.txt``, ``.jsonl``, ``.parquet``, each also compressed as ``.gz``,
        ``.zst``, ``.bz2``, ``.lz4`` or ``.xz``), folder of a Hugging Face dataset, or its id on the hub (the last two
        need the extra ``hub``).
    **options
        ``anchor="fact", positive="question"``: names of the columns for the roles anchor, positive, negative,
        relevance (1 for a relevant pair, 0 for an irrelevant one), text and label (texts of one label are relevant
        to each other). By default a column has the name of its role. Other options are the fields of `ReadOptions`:
        layout, encoding, delimiter, quotechar, irrelevant, subset, part.

    Returns
    -------
    pandas.DataFrame
        Text columns ``anchor``, ``positive`` and, if the source has them, ``negative``, ``relevance`` or ``label``,
        indexed by line, or by row from 1 if the format has no lines. Empty lines are dropped; repeated texts of a label
        and single texts of a label are dropped and counted in ``attrs["dropped"]``. ``attrs`` also describe the source.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    InputError
        If the source does not have the expected form. The message gives the line.
    pydantic.ValidationError
        If an option is unknown or has an invalid value.

    Warns
    -----
    UserWarning
        If the encoding is a guess.

    Examples
    --------
    >>> import rlm, tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "own.csv")
    >>> _ = path.write_text("id,fact,question\n1,Snow is white,What is white?\n", encoding="utf-8")
    >>> rlm.read(path, anchor="fact", positive="question").reset_index().to_dict("records")
    [{'line': 2, 'anchor': 'Snow is white', 'positive': 'What is white?'}]
    """
    roles = {role: options.pop(role) for role in ROLES if role in options}
    reading = ReadOptions(columns={**options.pop("columns", {}), **roles}, **options)
    path = _locate(source, "triplets or pairs")
    choose = partial(choose_columns, columns=reading.columns)
    try:
        if path.is_file():
            frame = _file(path, reading, choose)
            with path.open("rb") as file:
                version = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        else:
            frame, version = _hub(str(source), reading, choose)
        if "anchor" in frame:
            check_labels(frame)
        classes, dropped = {}, {}
        if "text" in frame:
            frame, dropped = make_pairs(frame)
            classes = {"classes": frame["label"][frame["label"] != ""].nunique()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    frame.attrs = {
        "name": path.name,
        "title": f"{'Triplets' if 'negative' in frame else 'Pairs'} of {path.name}",
        "source": str(source),
        "licence": "not stated",
        "version": version,
        "dropped": dropped,
        **classes,
    }
    return frame if reading.irrelevant is None else add_irrelevant(frame, reading.irrelevant, reading.encoding)


def read_texts(source: str | Path, reading: ReadOptions = READ_AS_IT_IS) -> pd.Series:
    """Read unlabelled texts: lines of a ``.txt`` file, column ``text`` of a table, or the phrases that `read` reads."""
    path = _locate(source, "unlabelled texts")
    try:
        if reading.irrelevant is not None:
            raise InputError("expected no file of irrelevant pairs beside unlabelled texts, found one; drop it")
        is_plain = _suffix(path) == ".txt" and path.is_file()
        if is_plain and not reading.model_dump(exclude={"encoding"}, exclude_defaults=True):
            lines = decode(path, reading.encoding, lambda text: [line.strip() for line in text])
            texts = pd.Series(list(filter(None, lines)), dtype=object)
        else:
            choose = partial(choose_texts, columns=reading.columns)
            frame = _file(path, reading, choose) if path.is_file() else _hub(str(source), reading, choose)[0]
            texts = stack_texts(frame)
        if texts.empty:
            raise InputError("expected at least one text, found none; give at least one")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return texts


def stack_texts(frame: pd.DataFrame) -> pd.Series:
    """Return the texts of a table, one column after the other."""
    return pd.concat([frame[role].astype(object) for role in frame if role in TEXT_ROLES], ignore_index=True)


def _locate(source: str | Path, content: str) -> Path:
    path = Path(source)
    looks_like_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and _suffix(path) not in _FORMATS
    if not path.exists() and not looks_like_id:
        raise FileNotFoundError(f"{path}: expected {content} in a file, found nothing; check the path")
    return path


def add_irrelevant(pairs: pd.DataFrame, path: str | Path, encoding: str | None = None) -> pd.DataFrame:
    """Append the pairs of a file of ``premise|question`` lines, with relevance 0, for manual negatives."""
    path = Path(path)
    if "negative" in pairs:
        raise InputError("expected pairs with a file of irrelevant ones, found triplets; drop the option irrelevant")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of premise|question lines, found nothing; check the path")
    try:
        known = decode(path, encoding, lambda text: to_frame(*irrelevant_pairs(text)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    known.index = [f"{path.name}:{line}" for line in known.index]
    both = pd.concat([pairs.assign(relevance=pairs.get("relevance", "1")), known])
    both.index.name, both.attrs = pairs.index.name, pairs.attrs
    return both


def _suffix(path: Path) -> str:
    """Return the suffix of a name without that of a compression, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _file(path: Path, reading: ReadOptions, choose: Choose) -> pd.DataFrame:
    suffix = _suffix(path)
    kind = _FORMATS.get(suffix)
    if suffix in _ARCHIVES:
        raise InputError(
            f"expected a file, perhaps compressed as {', '.join(COMPRESSIONS)}; compression {suffix[1:]} is "
            "not supported; uncompress the file"
        )
    if suffix in _OTHERS:
        raise InputError(f"expected CSV, TSV, JSON lines or Parquet, found {suffix}; convert the file")
    if reading.subset is not None or reading.part != "train":
        raise InputError("expected no subset or part for a file, found one; drop it: they are of Hugging Face datasets")
    if kind == "json" and reading.layout != "blocks":
        parse = partial(json_rows, choose=choose, is_grouped=reading.layout == "groups")
    elif reading.layout != "columns":
        if reading.columns:
            raise InputError(f"expected no columns for layout {reading.layout}, found some; drop one of the options")
        parse = {"blocks": blocks, "groups": groups}[reading.layout]
    elif kind == "parquet":
        return _parquet(path, choose)
    else:
        parse = partial(delimited, choose=choose, delimiter=reading.delimiter, quotechar=reading.quotechar)
    return decode(path, reading.encoding, lambda text: to_frame(*parse(text)))


def _parquet(path: Path, choose: Choose) -> pd.DataFrame:
    try:
        with open_bytes(path) as stream:
            source = pa.BufferReader(stream.read()) if path.suffix.lower() in COMPRESSIONS else path
        with pq.ParquetFile(source) as file:
            schema, most = file.schema_arrow, most_bytes(path)
            _bound_metadata(file.metadata, most)
        if is_record_table(schema.names, choose):
            with pq.ParquetFile(source) as file:
                return _record_frame(_bounded(file.iter_batches(RECORDS_AT_ONCE), most), choose)
        chosen = choose(schema.names)
        # Read as dictionaries, repeated texts take no memory before their full size is checked.
        texts = [name for name in chosen.values() if _is_string(schema.field(name).type)]
        with pq.ParquetFile(source, read_dictionary=texts) as file:
            batches = _bounded(file.iter_batches(ROWS_AT_ONCE, columns=[*chosen.values()]), most)
            tables = [_texts(pa.Table.from_batches([batch]), chosen) for batch in batches]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"expected a Parquet file, found: {error}; get it again") from error
    return _by_row(tables)


def _bound_metadata(metadata: pq.FileMetaData, most: int) -> None:
    """Reject a file whose columns are larger than a file of its size can hold, before they are read."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    for size in (sum(chunk.total_uncompressed_size for chunk in chunks), 8 * sum(chunk.num_values for chunk in chunks)):
        _require_at_most(most, size, f"{metadata.num_rows:,} rows")


def _require_at_most(most: int, size: int, place: str) -> None:
    """Reject data that can only be repetitions."""
    if size > most:
        raise InputError(
            f"expected at most {most:,} bytes of data in a Parquet file of this size, found {size:,} in {place}, "
            "mostly repetitions; drop repeated rows, or write it as CSV"
        )


def _bounded(batches: Iterator[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of rows while their texts are neither too many nor too long."""
    total, row = 0, 0
    for batch in batches:
        for column in batch.columns:
            lengths = _byte_lengths(column)
            longest = pc.max(lengths).as_py() or 0
            if longest > MOST_CHARACTERS:
                number = pc.index(lengths, pa.scalar(longest, lengths.type)).as_py() + 1
                place = f"row {row + number}" if len(lengths) == len(column) else f"the {len(batch)} rows after {row}"
                raise InputError(
                    f"expected cells of at most {MOST_CHARACTERS:,} bytes, found one of {longest:,} in {place}; "
                    "shorten it"
                )
            total += (pc.sum(lengths).as_py() or 0) + 8 * len(lengths)
        row += len(batch)
        _require_at_most(most, total, f"the first {row:,} rows")
        yield batch


def _byte_lengths(column: pa.Array) -> pa.Array:
    """Return the bytes of every text, as without a dictionary; zero for other cells."""
    if pa.types.is_dictionary(column.type):
        return _byte_lengths(column.dictionary).take(column.indices)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _byte_lengths(column.flatten())
    if _is_string(column.type):
        return pc.cast(pc.binary_length(column), pa.int64())
    return pa.array(np.zeros(len(column), np.int64))


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _hub(source: str, reading: ReadOptions, choose: Choose) -> tuple[pd.DataFrame, str]:
    """Read a Hugging Face dataset; return also its fingerprint as its version."""
    hint = "if this was meant to be a file, check its path"
    with naming_extras(f", which reads folders and ids of Hugging Face datasets; {hint}"):
        import datasets
    if reading.layout != "columns":
        raise InputError(f"expected layout columns for a Hugging Face dataset, found {reading.layout}; drop it")
    saved = any(Path(source, name).exists() for name in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            found = datasets.load_from_disk(source)
            has_parts = isinstance(found, datasets.DatasetDict)
            if reading.subset is not None or (not has_parts and reading.part != "train"):
                raise InputError("expected no subset or part, found one; drop it: this saved dataset is a single one")
            found = found[reading.part] if has_parts else found
        else:
            found = datasets.load_dataset(source, reading.subset, split=reading.part)
    except InputError:
        raise
    except (datasets.exceptions.DatasetsError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"expected a Hugging Face dataset with a part {reading.part!r}, found: {shorten(str(error), 300)}; name "
            f"its subset and part, or, {hint}"
        ) from error
    version = f"fingerprint:{found._fingerprint}"
    if is_record_table(found.column_names, choose):
        batches = found.with_format("arrow").iter(RECORDS_AT_ONCE)
        return _record_frame(batches, choose), version
    chosen = choose(found.column_names)
    table = found.select_columns(list(chosen.values())).with_format("arrow")[:]
    return _by_row([_texts(table, chosen)]), version


def _record_frame(batches: Iterable[pa.RecordBatch | pa.Table], choose: Choose) -> pd.DataFrame:
    records = enumerate((record for batch in batches for record in batch.to_pylist()), 1)
    return to_frame(*record_rows(records, choose, False, "row"), "row")


def _texts(table: pa.Table, chosen: Mapping[Role, str]) -> pa.Table:
    """Convert the chosen columns to text; raise if they are not text."""
    columns = {}
    for role, name in chosen.items():
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = _is_string(column.type) or pa.types.is_null(column.type) or pa.types.is_string_view(column.type)
        if not is_text and role not in ("relevance", "label"):
            raise InputError(f"expected text in column {name!r}, found {column.type}; convert it")
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)  # NaN is not a class
        try:
            columns[role] = column.cast(pa.large_string())
            columns[role].validate(full=True)
        except pa.ArrowException as error:
            raise InputError(f"expected text in column {name!r}, found {column.type} ({error}); convert it") from error
    return pa.table(columns)


def _by_row(tables: Sequence[pa.Table]) -> pd.DataFrame:
    if not sum(map(len, tables)):
        raise InputError("expected at least one row, found none; give at least one")
    table = pa.concat_tables(tables)
    return table.to_pandas().set_index(pd.RangeIndex(1, len(table) + 1, name="row"))
