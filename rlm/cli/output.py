"""Output of the command line: check files before any training, write results as they arrive, end early on Ctrl-C."""

import io
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from rlm.errors import InputError
from rlm.experiment import collect
from rlm.runtime.atomic import whole, write_whole
from rlm.runtime.results import R, Result
from rlm.sentences import escape_markdown

log = logging.getLogger(__name__)


def _write_latex(table: pd.DataFrame, path: Path) -> None:
    r"""Write a tabular with the rules of the LaTeX package booktabs; an empty line in a cell would be a \par."""
    lines = table.map(lambda cell: " ".join(cell.split()) if isinstance(cell, str) else cell)
    lines.to_latex(path, index=False, escape=True, na_rep="", float_format=_DIGITS, encoding="utf-8")


def _write_markdown(table: pd.DataFrame, path: Path) -> None:
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    rules = ["---:" if is_number else "---" for is_number in numeric]
    rows = [map(_markdown_cell, table.columns), rules, *(map(_markdown_cell, row) for row in table.to_numpy(object))]
    path.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")


def _markdown_cell(cell: object) -> str:
    if isinstance(cell, str):
        return escape_markdown(cell)
    if pd.isna(cell):
        return ""
    return _DIGITS(cell) if isinstance(cell, float) else str(cell)


_DIGITS = "{:.4f}".format
_WRITERS = {
    ".csv": partial(pd.DataFrame.to_csv, index=False),
    ".json": partial(pd.DataFrame.to_json, orient="records", indent=2),
    ".md": _write_markdown,
    ".parquet": pd.DataFrame.to_parquet,
    ".tex": _write_latex,
    ".tsv": partial(pd.DataFrame.to_csv, index=False, sep="\t"),
}


_shown: dict[str, Any] = {}  # tables and verdicts of the command that runs, for `as_json`


@contextmanager
def as_json() -> Iterator[None]:
    """Print one JSON object, of tables, verdicts and text, in place of what a command prints meanwhile."""
    _shown.clear()
    code = None
    with redirect_stdout(io.StringIO()) as printed:
        try:
            yield
        except SystemExit as end:
            code = end.code
    print(json.dumps({"command": shlex.join(["rlm", *sys.argv[1:]]), **_shown, "text": printed.getvalue()}, indent=1))
    if code:
        sys.exit(code)


def keep(name: str, table: pd.DataFrame) -> None:
    """Keep a table as records for `as_json`, numbers with all their digits."""
    named = table if table.index.name is None else table.reset_index()
    _shown[name] = json.loads(named.to_json(orient="records", double_precision=15))


def show(name: str, table: pd.DataFrame, digits: int = 3, **settings: Any) -> None:  # noqa: ANN401
    """Print a table, with the settings of pandas, and keep it for `as_json`."""
    keep(name, table)
    print(table.to_string(**{"float_format": f"{{:z,.{digits}f}}".format, "na_rep": ""} | settings))


def show_verdicts(verdicts: Mapping[str, Any]) -> None:
    """Print verdicts, and keep them with their estimates for `as_json`."""
    rows = [(arm, one.baseline, one.metric.name, one.decision, one.text) for arm, one in verdicts.items()]
    keep("verdicts", pd.DataFrame(rows, columns=["arm", "baseline", "metric", "decision", "text"]))
    if verdicts:
        keep("estimates", pd.concat({arm: one.table() for arm, one in verdicts.items()}, names=["arm"]).reset_index())
    wrapped = partial(fill, width=os.get_terminal_size().columns) if sys.stdout.isatty() else str
    for found in verdicts.values():
        print(f"\n{wrapped(found.text)}")
    if not verdicts:
        print("\nNothing is compared: a verdict needs the baseline and another arm.")


def check_out(out: Path | None, db: Path | None = None, option: str = "--out") -> None:
    """Check, before any training, that results can be written to a file, which must not be the store."""
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(
            f"expected a file in an existing folder for {option}, found {out}; name a file, or create the folder first"
        )
    if out.exists() and not out.is_file():
        raise InputError(f"expected a file for {option}, found {out}, which is something else; give another")
    if db is not None and out.resolve() == db.resolve():
        raise InputError(f"expected different files for --out and --db, found {out} for both; give another")
    if out.exists() and not os.access(out, os.W_OK):
        raise InputError(
            f"expected a file that can be written for {option}, found {out}; make it writable or give another"
        )
    _try_to_write(out, option)


def check_table_out(out: Path | None, db: Path | None = None) -> None:
    """Check as `check_out`, and that the name of the file ends in a format of `write_table`."""
    check_out(out, db)
    if out is not None and out.suffix not in _WRITERS:
        raise InputError(f"expected --out FILE ending in {', '.join(_WRITERS)}, found {out}; rename it")


def write_table(out: Path, table: pd.DataFrame) -> None:
    """Write a table in the format of the file's suffix."""
    with whole(out) as temporary:
        _WRITERS[out.suffix](table, temporary)


def check_out_folder(out: Path) -> None:
    """Make a folder, and check before any work that files can be written to it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder for --out, found {out}: {error.strerror}; give another") from error
    _try_to_write(out / "index.html", "--out")


def _try_to_write(path: Path, option: str) -> None:
    """Write as the results will be written, but under another name."""
    attempt = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        attempt.touch()
        attempt.unlink()
    except OSError as error:
        raise InputError(
            f"expected {option} where files can be written, found {path}: {error.strerror}; give another"
        ) from error


def gather(blocks: Iterator[R], arms: Sequence[str], out: Path | None) -> tuple[R, bool]:
    """Run a study as `rlm.experiment.collect`; write the results anew to a CSV file after each block."""
    try:
        return collect(blocks, arms, None if out is None else partial(_write, out))
    except KeyboardInterrupt:
        sys.exit("interrupted before any block of seeds was finished; rlm study --block-size makes smaller ones")


def _write(out: Path, found: Result) -> None:
    try:
        write_whole(out, found.results.to_csv(index=False))
    except OSError as error:
        log.warning("the results cannot be written to %s: %s; the study continues", out, error.strerror or error)


def print_files(found: Result, out: Path | None, db: Path | None) -> None:
    """Write the results a last time, and print where they are."""
    if db is not None:
        print(f"\nstore: {db}")
    if out is None:
        return
    try:
        write_whole(out, found.results.to_csv(index=False))
    except OSError as error:
        kept = "" if db is None else f", or write it from the store: rlm results {shlex.quote(str(db))} --out FILE.csv"
        raise InputError(
            f"expected to write the results to {out}: {error.strerror or error}; make room or give another{kept}"
        ) from error
    print(f"\nresults: {out}")
