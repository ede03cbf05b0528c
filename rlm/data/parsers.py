"""Text, line by line, cut into rows that know their line."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rlm.data.textfiles import MOST_CHARACTERS, shorten
from rlm.errors import InputError

DELIMITERS = "\t,;|"
MOST_PAIRS = 1_000_000  # of a block: its premises times its questions
Rows = Iterator[tuple[int, Sequence[object]]]  # the line of a row, and its cells
Choose = Callable[[Sequence[str]], Mapping[str, str]]  # from the columns that there are to role -> column


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
        The rows; raises `InputError` at one that has too many or too few cells, is quoted badly or is too long.

    Raises
    ------
    InputError
        If the first line names no columns that can be used.
    """
    first = next(text, "")
    if not first.strip():
        raise InputError("expected a first line of column names, found nothing in it; put them there")
    delimiter = delimiter or max(DELIMITERS, key=first.count)
    is_unquoted = quotechar is None and delimiter == "\t"
    quotechar = ("" if is_unquoted else '"') if quotechar is None else quotechar
    if delimiter == quotechar:
        raise InputError(f"expected different characters as delimiter and quotechar, found {delimiter!r} as both")
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
            "quotation marks enclose no cells, say quotechar='' (--quotechar '')"
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
        hint = ", or, if quotation marks enclose cells, say quotechar='\"' (--quotechar '\"')"

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


def read_blocks(text: io.TextIOBase) -> Iterator[TextBlock]:
    """
    Cut blocks out of a text: lines ``T: premise``, then ``Q: question``, perhaps with ``A: answer``, then an empty one.

    Parameters
    ----------
    text
        Lines.

    Yields
    ------
    TextBlock
        At least one premise and one question. Raises `InputError` at a line that begins otherwise or stands where it
        cannot, or at a block without questions.
    """
    block, line = TextBlock([], []), 0
    for line, content in enumerate(text, 1):
        kind, rest = content[:2], content[2:].strip()
        if not content.strip():
            if block.premises:
                yield _whole(block, line)
            block = TextBlock([], [])
        elif kind == "T:" and block.questions:
            raise InputError(
                f"expected an empty line before the premises of the next block, found {shorten(content)} in line "
                f"{line}; put one there"
            )
        elif kind in ("Q:", "A:") and not block.premises:
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
    if block.premises:
        yield _whole(block, line + 1)


def _whole(block: TextBlock, line: int) -> TextBlock:
    """Refuse a block without questions."""
    if not block.questions:
        raise InputError(
            f"expected a question (Q:) after the premises, found the end of the block in line {line}; add one"
        )
    return block


def blocks(text: io.TextIOBase) -> tuple[list[str], Rows]:
    """
    Premises and questions, see `read_blocks`.

    Parameters
    ----------
    text
        Lines.

    Returns
    -------
    list of str
        The roles anchor (a premise) and positive (a question).
    iterator
        A row for every premise of a question, at the line of the question.
    """
    return ["anchor", "positive"], (
        (line, (premise, question))
        for block in read_blocks(text)
        for line, question in block.questions
        for _, premise in block.premises
    )


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
                raise InputError(
                    f"expected premise|question, found {shorten(content)} in line {line}; correct the line"
                )

    return ["anchor", "positive", "relevance"], rows()
