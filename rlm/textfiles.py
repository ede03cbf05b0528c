"""Text files: uncompressed, decoded, and cut into rows that know their line."""

import codecs
import csv
import io
import json
import warnings
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar
from unicodedata import category

import charset_normalizer
import pyarrow as pa

from rlm.errors import InputError

DELIMITERS = "\t,;|"
LINES_FOR_A_GUESS = 10_000
_BOMS = {
    BOM_UTF8: "utf-8-sig",
    BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    BOM_UTF32_BE: "utf-32",
    BOM_UTF16_LE: "utf-16",
    BOM_UTF16_BE: "utf-16",
}
_OBEYED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, bytes that are no text, line and paragraph separators
_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # show letters in another order
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
T = TypeVar("T")
Rows = Iterator[tuple[int, Sequence[object]]]  # the line of a row, and its cells
Choose = Callable[[Sequence[str]], Mapping[str, str]]  # from the columns that there are to role -> column


def open_bytes(path: Path) -> pa.NativeFile:
    """Open a file; the ending of its name says how it is compressed."""
    return pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix.lower()))


def decode(path: Path, encoding: str | None, parse: Callable[[io.TextIOBase], T]) -> T:
    """
    Parse a text file in the encoding that is given, or that its byte order mark says, or as UTF-8, or as it seems.

    Parameters
    ----------
    path
        May be compressed.
    encoding
        Known to Python; none to find it out.
    parse
        Reads the text to its end; called again where the first encoding turns out to be wrong.

    Returns
    -------
    object
        What `parse` returns.

    Warns
    -----
    UserWarning
        If the encoding is a guess.

    Raises
    ------
    InputError
        If the file cannot be uncompressed or decoded.
    """

    def parse_as(encoding: str) -> T:
        with open_bytes(path) as stream, io.TextIOWrapper(io.BufferedReader(stream), encoding, newline="") as text:
            return parse(text)

    try:
        with open_bytes(path) as stream:
            start = stream.read(4)
        mark = next((name for bom, name in _BOMS.items() if start.startswith(bom)), None)
        if encoding and mark and mark.split("-")[:2] == codecs.lookup(encoding).name.split("-")[:2]:
            encoding = mark  # the same, but for the mark, which is no text
        try:
            return parse_as(encoding or mark or "utf-8")
        except UnicodeError as error:
            if encoding or mark:
                raise InputError(
                    f"expected {encoding or mark}, found something else ({error}); name its encoding"
                ) from error
        guess = _guess(path)
        try:
            found = parse_as(guess)
        except UnicodeError as error:
            raise InputError(f"expected UTF-8, found what begins like {guess} ({error}); name its encoding") from error
    except LookupError as error:
        raise InputError(f"expected an encoding that Python knows, such as cp1251; found {encoding!r}") from error
    except (OSError, EOFError) as error:
        raise InputError(f"expected a whole file, found: {error}; get it again") from error
    warnings.warn(
        f"{path} is not UTF-8 and was read as {guess}, a guess; name its encoding to be sure: encoding={guess!r}",
        stacklevel=4,
    )
    return found


def _guess(path: Path) -> str:
    """The encoding of a file that is not UTF-8."""
    is_utf8 = False
    with open_bytes(path) as stream:
        lines = io.BufferedReader(stream)
        for number, line in enumerate(lines, 1):
            try:
                is_utf8 |= len(line.decode()) < len(line)
            except UnicodeDecodeError:
                bad, sample = number, line + b"".join(islice(lines, LINES_FOR_A_GUESS))
                break
        else:
            raise AssertionError("called for a file that is UTF-8")
    # After lines that are UTF-8 and no ASCII this is damage, not another encoding.
    best = None if is_utf8 else charset_normalizer.from_bytes(sample).best()
    if best is None:
        raise InputError(
            f"expected UTF-8, found other bytes in line {bad}; mend the line, convert the file, or name its "
            "encoding, such as encoding='cp1251'"
        )
    return best.encoding


def delimited(
    text: io.TextIOBase, choose: Choose, delimiter: str | None, quotechar: str | None
) -> tuple[list[str], Rows]:
    """
    Rows of a table whose first line names the columns.

    Parameters
    ----------
    text
        Lines.
    choose
        Says which columns to read.
    delimiter
        By default that one of tab, comma, semicolon and ``|`` which the first line has most of.
    quotechar
        Encloses cells; by default ``"``, or nothing where tabs separate the cells.

    Returns
    -------
    list of str
        The chosen roles.
    iterator
        The rows; raises `InputError` at one that has too many or too few cells or is quoted badly.

    Raises
    ------
    InputError
        If the first line names no columns that can be used.
    """
    first = text.readline()
    if not first.strip():
        raise InputError("expected a first line of column names, found nothing in it; put them there")
    delimiter = delimiter or max(DELIMITERS, key=first.count)
    quotechar = ("" if delimiter == "\t" else '"') if quotechar is None else quotechar
    style = {"quotechar": quotechar, "strict": True} if quotechar else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(chain([first], text), delimiter=delimiter, **style)

    def unreadable(line: int, error: csv.Error) -> InputError:
        return InputError(
            f"expected cells separated by {delimiter!r}, found a row at line {line} that cannot be read ({error}); "
            "mend its quotation marks, doubling those inside a quoted cell, or name delimiter and quotechar"
        )

    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise unreadable(1, error) from error
    chosen = choose(header)
    places = [header.index(name) for name in chosen.values()]

    def rows() -> Rows:
        end = reader.line_num
        try:
            for cells in reader:
                line, end = end + 1, reader.line_num  # a quoted cell may span lines; its row is known by the first
                if len(cells) == len(header):
                    yield line, [cells[place] for place in places]
                elif cells:
                    raise InputError(
                        f"expected {len(header)} cells as in the first line, found {len(cells)} in line {line}; "
                        f"mend the line{', quoting cells that contain the delimiter' if quotechar else ''}"
                    )
        except csv.Error as error:
            raise unreadable(end + 1, error) from error

    return list(chosen), rows()


def json_lines(text: io.TextIOBase, choose: Choose) -> tuple[list[str], Rows]:
    """
    Rows of a file with one JSON object per line; see `delimited`.

    Parameters
    ----------
    text
        Lines.
    choose
        Says which of the first object's keys to read.

    Returns
    -------
    list of str
        The chosen roles.
    iterator
        The rows; raises `InputError` at one that lacks a key or is no object.

    Raises
    ------
    InputError
        If there is no object, or the first has no keys that can be used.
    """

    def objects() -> Iterator[tuple[int, dict[str, object]]]:
        for line, content in enumerate(text, 1):
            try:
                value = json.loads(content) if content.strip() else None
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"expected one JSON object per line, found {shorten(content)} in line {line} ({error}); mend it"
                ) from error
            if isinstance(value, dict):
                yield line, value
            elif content.strip():
                raise InputError(f"expected a JSON object, found {shorten(content)} in line {line}; mend the line")

    found = objects()
    first = next(found, None)
    if first is None:
        raise InputError("expected one JSON object per line, found an empty file; give it content")
    chosen = choose(list(first[1]))

    def rows() -> Rows:
        for line, value in chain([first], found):
            lacking = [name for name in chosen.values() if name not in value]
            if lacking:
                raise InputError(
                    f"expected {lacking[0]!r} in every line, found {', '.join(value) or 'nothing'} in line {line}; "
                    "mend the line"
                )
            yield line, [value[name] for name in chosen.values()]

    return list(chosen), rows()


def blocks(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """
    Premises and questions: lines ``T: premise``, then ``Q: question`` and ``A: answer`` as often as there are any.

    Parameters
    ----------
    text
        Lines.

    Returns
    -------
    list of str
        The roles anchor (the premise) and positive (a question).
    iterator
        A row per question; raises `InputError` at a line that begins otherwise, or at a question without premise.
    """

    def rows() -> Rows:
        premise = None
        for line, content in enumerate(text, 1):
            kind, rest = content[:2], content[2:].strip()
            if kind == "T:":
                premise = rest
            elif kind == "Q:" and premise is not None:
                yield line, (premise, rest)
            elif kind == "Q:":
                raise InputError(
                    f"expected a premise (T:) before any question, found {shorten(content)} in line {line}"
                )
            elif kind != "A:" and content.strip():
                raise InputError(f"expected T:, Q: or A: to begin a line, found {shorten(content)} in line {line}")

    return ["anchor", "positive"], rows()


def groups(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """
    Paraphrases: lines that mean the same, groups of them separated by empty lines.

    Parameters
    ----------
    text
        Lines.

    Returns
    -------
    list of str
        The roles text and label (the line before the group).
    iterator
        A row per line.
    """

    def rows() -> Rows:
        group = 0
        for line, content in enumerate(text, 1):
            if content.strip():
                yield line, (content.strip(), str(group))
            else:
                group = line

    return ["text", "label"], rows()


def irrelevant_pairs(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """
    Pairs known to be irrelevant: lines ``premise|question``.

    Parameters
    ----------
    text
        Lines.

    Returns
    -------
    list of str
        The roles anchor and positive, as of relevant pairs, and relevance.
    iterator
        A row per line, of relevance 0; raises `InputError` at a line that is no pair.
    """

    def rows() -> Rows:
        for line, content in enumerate(text, 1):
            parts = [part.strip() for part in content.split("|")]
            if len(parts) == 2:
                yield line, (*parts, "0")
            elif content.strip():
                raise InputError(f"expected premise|question, found {shorten(content)} in line {line}; mend the line")

    return ["anchor", "positive", "relevance"], rows()


def printable(text: str, length: int = 300) -> str:
    """A text from the data as it is, but for what a terminal would obey; what is too long ends with an ellipsis."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return "".join("?" if category(letter) in _OBEYED or letter in _OVERRIDES else letter for letter in text)


def shorten(text: str, length: int = 60) -> str:
    """A text from the data as it can stand in a message: quoted, escaped, and not too long."""
    text = text.strip()
    return repr(text if len(text) <= length else text[: length - 1] + "…")
