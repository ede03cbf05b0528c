"""Parsers: lines of text cut into rows that know their line, and rows made into tables."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from rlm.data.phrases import tokenise
from rlm.data.textfiles import MOST_CHARACTERS, is_text, shorten
from rlm.errors import InputError

ROWS_AT_ONCE = 100_000
MOST_ROWS_WITHOUT_USE = 1_000_000
DELIMITERS = "\t,;|"
MOST_PAIRS = 1_000_000  # of a block: its premises times its questions
Rows = Iterator[tuple[int, Sequence[object]]]  # the line of a row, and its cells
Choose = Callable[[Sequence[str]], Mapping[str, str]]  # from the columns that there are to role -> column


def delimited(
    text: io.TextIOBase, choose: Choose, delimiter: str | None, quotechar: str | None
) -> tuple[list[str], Rows]:
    """Return the chosen roles and the rows of a table; by default with the header's most frequent delimiter."""
    first = next(text, "")
    if not first.strip():
        raise InputError("expected a first line of column names, found nothing in it; put them there")
    delimiter = delimiter or max(DELIMITERS, key=first.count)
    is_unquoted = quotechar is None and delimiter == "\t" and "\t" in first  # a single column may be quoted
    quotechar = ("" if is_unquoted else '"') if quotechar is None else quotechar
    if delimiter == quotechar:
        raise InputError(f"expected different delimiter and quotechar, found {delimiter!r} as both; change one")
    style = {"quotechar": quotechar, "strict": True} if quotechar else {"quoting": csv.QUOTE_NONE}
    size, end = 0, 0

    def bounded() -> Iterator[str]:
        nonlocal size
        line = first
        while line:
            size += len(line)
            if size > MOST_CHARACTERS:
                raise InputError(
                    f"expected rows of at most {MOST_CHARACTERS:,} characters, found more in the row that begins in "
                    f"line {end + 1}; close its quotation mark, or name quotechar"
                )
            yield line
            line = next(text, "")

    def unreadable(line: int, error: csv.Error) -> InputError:
        return InputError(
            f"expected cells separated by {delimiter!r}, found a row at line {line} that cannot be read ({error}); "
            "correct its quotation marks, doubling those inside a quoted cell, or name delimiter and quotechar; if "
            "quotation marks enclose no cells, set quotechar='' (--quotechar '')"
        )

    csv.field_size_limit(max(csv.field_size_limit(), MOST_CHARACTERS))  # Python's own limit is 131,072
    try:
        reader = csv.reader(bounded(), delimiter=delimiter, **style)
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise unreadable(1, error) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError | UnicodeError):
            raise
        raise InputError(f"expected a delimiter and a quotechar of one character each, found: {error}") from error
    chosen = choose(header)
    places = [header.index(name) for name in chosen.values()]
    hint = ", quoting cells that contain the delimiter" if quotechar else ""
    if is_unquoted:
        hint = ", or, if quotation marks enclose cells, set quotechar='\"' (--quotechar '\"')"

    def rows() -> Rows:
        nonlocal size, end
        size, end = 0, reader.line_num
        try:
            for cells in reader:
                line, end, size = end + 1, reader.line_num, 0  # a quoted cell may span lines; the first one counts
                if len(cells) == len(header):
                    yield line, [cells[place] for place in places]
                elif len(cells) > 1 or "".join(cells).strip():
                    raise InputError(
                        f"expected {len(header)} cells as in the first line, found {len(cells)} in line {line}; "
                        f"correct the line{hint}"
                    )
        except csv.Error as error:
            raise unreadable(end + 1, error) from error

    return list(chosen), rows()


class TextBlock(NamedTuple):
    """Premises and questions, each with its line; every premise belongs to every question."""

    premises: list[tuple[int, str]]
    questions: list[tuple[int, str]]


def _lines(text: io.TextIOBase) -> Iterator[tuple[int, str]]:
    """Number the lines, without spaces at their ends and without the byte order marks of files that were joined."""
    return ((number, content.lstrip("\ufeff").strip()) for number, content in enumerate(text, 1))


def _is_separator(content: str) -> bool:
    """Return True for a line of three or more hyphens."""
    return len(content) > 2 and not content.strip("-")


def read_blocks(text: io.TextIOBase) -> Iterator[TextBlock]:
    """
    Yield the blocks of a text: lines ``T: premise``, lines ``Q: question``, perhaps ``A: answer``.

    A line of hyphens ends a block, and so does a ``T:`` after a ``Q:``. An empty line ends it unless a ``Q:`` follows.
    """
    block, line, gap = TextBlock([], []), 0, None  # the line of the first empty line since the last other one
    for line, content in _lines(text):
        kind, rest = content[:2], content[2:].strip()
        if not content:
            gap = gap or line
            continue
        is_separator = _is_separator(content)
        if block.premises and (is_separator or (kind == "T:" and (block.questions or gap))):
            yield _whole(block, gap or line)
            block = TextBlock([], [])
        if is_separator:
            pass
        elif (kind in ("Q:", "A:") and not block.premises) or (kind == "A:" and gap):
            raise InputError(
                f"expected a premise (T:) to begin a block, found {shorten(content)} in line {line}; put one before it"
            )
        elif kind in ("T:", "Q:"):
            (block.premises if kind == "T:" else block.questions).append((line, rest))
            if len(block.premises) * max(1, len(block.questions)) > MOST_PAIRS:
                raise InputError(
                    f"expected at most {MOST_PAIRS:,} pairs of a premise and a question in a block, found more in line "
                    f"{line}; divide it"
                )
        elif kind != "A:":
            raise InputError(
                f"expected T:, Q: or A: to begin a line, found {shorten(content)} in line {line}; correct the line"
            )
        gap = None
    if block.premises:
        yield _whole(block, gap or line + 1)


def _whole(block: TextBlock, line: int) -> TextBlock:
    if not block.questions:
        raise InputError(
            f"expected a question (Q:) after the premises, found the end of the block in line {line}; add one"
        )
    return block


def blocks(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """Return the roles anchor and positive, and a row for every premise and question of a block."""
    return ["anchor", "positive"], (
        (line, (premise, question))
        for block in read_blocks(text)
        for line, question in block.questions
        for _, premise in block.premises
    )


def groups(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """
    Return the roles text, label and relevance, and a row per line; the label of a group is the line before it.

    Empty lines and lines of hyphens separate groups. A text marked ``(-)`` has relevance 0: it does not mean the same
    as the others of its group, which may be marked ``(+)``.
    """

    def rows() -> Rows:
        group, counts = 0, {"1": 0, "0": 0}
        for line, content in _lines(text):
            if not content or _is_separator(content):
                group, counts = line, {"1": 0, "0": 0}
                continue
            relevance = "0" if content.startswith("(-)") else "1"
            counts[relevance] += 1
            if counts["1"] * counts["0"] > MOST_PAIRS:
                raise InputError(
                    f"expected at most {MOST_PAIRS:,} pairs of a (+) and a (-) text in a group, found more in line "
                    f"{line}; divide it"
                )
            yield line, (content.removeprefix("(+)").removeprefix("(-)").strip(), str(group), relevance)

    return ["text", "label", "relevance"], rows()


def irrelevant_pairs(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """Return the roles of a pair and relevance, and a row of relevance 0 for every line ``premise|question``."""

    def rows() -> Rows:
        for line, content in _lines(text):
            parts = [part.strip() for part in content.split("|")]
            if len(parts) == 2:
                yield line, (*parts, "0")
            elif content:
                raise InputError(
                    f"expected premise|question, found {shorten(content)} in line {line}; correct the line"
                )

    return ["anchor", "positive", "relevance"], rows()


def to_frame(roles: Sequence[str], rows: Rows, unit: str = "line") -> pd.DataFrame:
    """Collect rows in Arrow tables, piece by piece: Python objects would take several times the memory."""
    pieces, lines, count, is_usable = [], [], 0, False
    while some := list(islice(rows, ROWS_AT_ONCE)):
        numbers, cells = zip(*some, strict=True)
        columns = dict(zip(roles, zip(*cells, strict=True), strict=True))
        lines.append(np.asarray(numbers))
        pieces.append(pa.table({role: _column(role, column, numbers, unit) for role, column in columns.items()}))
        count += len(some)
        is_usable = is_usable or _has_phrases(columns)
        if count >= MOST_ROWS_WITHOUT_USE and not is_usable:
            raise InputError(
                f"expected rows with two different texts, found none in the first {count:,}; drop these, or "
                "give other data"
            )
    if not pieces:
        raise InputError("expected at least one row, found none; give at least one")
    return pa.concat_tables(pieces).to_pandas().set_index(pd.Index(np.concatenate(lines), name=unit))


def _has_phrases(columns: Mapping[str, Sequence[str | None]]) -> bool:
    """Return True if a row has two different phrases, or if there are two different texts."""
    if "text" in columns:
        found = filter(None, (tuple(tokenise(text)) for text in dict.fromkeys(columns["text"]) if text))
        first = next(found, None)
        return any(other != first for other in found)
    pairs = dict.fromkeys(zip(columns["anchor"], columns["positive"], strict=True))
    return any(a and b and a != b and [] != tokenise(a) != tokenise(b) != [] for a, b in pairs)


def _column(role: str, cells: Sequence[object], lines: Sequence[int], unit: str) -> pa.Array:
    """Convert the cells of a role to text; raise for a cell that is not text."""
    if role in ("relevance", "label"):
        cells = [None if cell != cell else cell for cell in cells]  # NaN
        cells = [cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells]
    try:
        return pa.array(cells, pa.string())
    except (pa.ArrowException, UnicodeError):
        line, cell = next((line, cell) for line, cell in zip(lines, cells, strict=True) if not is_text(cell))
        raise InputError(
            f"expected text as {role}, found {shorten(ascii(cell))} in {unit} {line}; correct it"
            + (", it holds half of a character (a lone surrogate)" if isinstance(cell, str) else "")
        ) from None
