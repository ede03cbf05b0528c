"""Records: JSON files, and the usual layouts of collections of sentence pairs, cut into rows."""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from rlm.config import ROLES
from rlm.data.columns import reject_similar
from rlm.data.parsers import Choose, Rows
from rlm.data.textfiles import MOST_CHARACTERS, shorten
from rlm.errors import InputError

_BLANKS = re.compile(r"\s*")
_ARRAY = re.compile(r"\[\s*[\[{\]]")
_CONTAINER = re.compile(r'\{\s*"[^"]*"\s*:\s*[\[{]')  # perhaps a whole table: DataFrame.to_json writes such


class _Json:
    """Values of a JSON text, one after the other, each with the line where it begins."""

    def __init__(self, text: io.TextIOBase) -> None:
        self.text, self.buffer, self.place, self.line = text, "", 0, 1
        self.decoder = json.JSONDecoder(object_pairs_hook=_once)

    def peek(self, length: int = 1) -> str:
        """Return the next characters after blanks; none at the end."""
        while True:
            blanks = _BLANKS.match(self.buffer, self.place)
            self._pass(blanks.end() if blanks else self.place)
            if self.place + length <= len(self.buffer) or not self._read():
                return self.buffer[self.place : self.place + length]

    def skip(self) -> None:
        self._pass(self.place + 1)

    def value(self) -> object:
        most = 10 * MOST_CHARACTERS if _CONTAINER.match(self.peek(1000)) else MOST_CHARACTERS
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.place)
            except (ValueError, RecursionError) as error:
                is_cut = isinstance(error, json.JSONDecodeError) and (
                    error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - 10
                )
                is_long = len(self.buffer) - self.place > most
                if is_cut and not is_long and self._read():
                    continue
                if is_cut and is_long:
                    raise InputError(
                        f"expected a JSON object of at most {most:,} characters per line, found more in the one that "
                        f"begins in line {self.line}; write one object per line"
                    ) from error
                found = self.buffer[self.place : self.place + 1000].splitlines()[0]
                raise InputError(
                    f"expected one JSON object per line, found {shorten(found)} in line {self.line} ({error}); "
                    "correct it"
                ) from error
            self._pass(end)
            return value

    def _read(self) -> bool:
        some = self.text.read(max(1 << 20, len(self.buffer) - self.place))
        if some.endswith("\r"):
            some += self.text.read(1)
        self.buffer, self.place = self.buffer[self.place :] + some, 0
        return bool(some)

    def _pass(self, end: int) -> None:
        passed = self.place, end
        self.line += self.buffer.count("\n", *passed)
        if "\r" in self.buffer:
            self.line += self.buffer.count("\r", *passed) - self.buffer.count("\r\n", *passed)
        self.place = end


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _json_values(text: io.TextIOBase) -> tuple[str, Iterator[tuple[int, object]]]:
    """Return the unit of the values' numbers, and the values: those of an array by row, others by line."""
    source = _Json(text)
    source.peek()
    is_array = _ARRAY.match(source.peek(1000)) is not None

    return ("row", _elements(source)) if is_array else ("line", _lines(source))


def _elements(source: _Json) -> Iterator[tuple[int, object]]:
    source.skip()
    row = 0
    while row or source.peek() != "]":
        row += 1
        yield row, source.value()
        if source.peek() == "]":
            break
        if source.peek() != ",":
            found = shorten(source.peek(60) or "the end of the file")
            raise InputError(
                f"expected a comma or the end of the array, found {found} in line {source.line}; correct it"
            )
        source.skip()
    source.skip()
    if source.peek():
        raise InputError(
            f"expected the end after the array, found {shorten(source.peek(60))} in line {source.line}; remove it"
        )


def _lines(source: _Json) -> Iterator[tuple[int, object]]:
    while source.peek():
        line = source.line
        yield line, source.value()


def _table(value: object, choose: Choose) -> Iterator[tuple[int, object]] | None:
    """Return the rows of a table in one JSON object, in any orientation that `DataFrame.to_json` writes."""
    if not isinstance(value, dict) or not value:
        return None
    columns, rows, names = list(value.values()), value.get("data"), value.get("columns")
    has_lists, has_objects = (all(isinstance(column, kind) for column in columns) for kind in (list, dict))
    if _can_choose(value, choose):
        if not has_lists and not has_objects:
            return None
        labels = [list(column) if has_objects else list(range(len(column))) for column in columns]
        if any(label != labels[0] for label in labels):
            raise InputError("expected columns of the same rows, found different ones; write one object per line")
        cells = zip(*(column.values() if has_objects else column for column in columns), strict=True)
        return enumerate((dict(zip(value, record, strict=True)) for record in cells), 1)
    if isinstance(rows, list) and isinstance(names, list):
        if len({*map(str, names)}) < len(names) or any(len(row) != len(names) for row in rows):
            raise InputError("expected a cell for each row and column, found others; write one object per line")
        rows = [dict(zip(map(str, names), row, strict=True)) for row in rows]
    elif not isinstance(rows, list):
        rows = columns if has_objects and "set" not in value else None
    return None if rows is None else enumerate(rows, 1)


def _can_choose(record: Mapping[str, object], choose: Choose) -> bool:
    """Return True if an object has the columns of a row."""
    try:
        choose(list(record))
    except InputError:
        return False
    return True


def json_rows(text: io.TextIOBase, choose: Choose, is_grouped: bool) -> tuple[list[str], Rows, str]:
    """
    Return roles, rows and the unit of their numbers: line, or row inside an array or a table of `DataFrame.to_json`.

    With `is_grouped` lists are groups of paraphrases instead of pairs or triplets.
    """
    unit, values = _json_values(text)
    head = list(islice(values, 2))
    if not head:
        raise InputError("expected one JSON object per line, found an empty file; give it content")
    if unit == "line" and len(head) == 1 and not is_grouped:
        table = _table(head[0][1], choose)
        if table is not None:
            return *record_rows(table, choose, is_grouped, "row"), "row"
    return *record_rows(chain(head, values), choose, is_grouped, unit), unit


class _Shape(NamedTuple):
    """How records of one kind become rows."""

    kind: Sequence[str]
    roles: Sequence[str]
    expand: Callable[[int, object], Sequence[Sequence[object]]]


def record_rows(
    records: Iterator[tuple[int, object]], choose: Choose, is_grouped: bool, unit: str
) -> tuple[list[str], Rows]:
    """
    Return roles and rows of numbered records of one kind; `unit` is what the numbers count.

    Records are objects with the chosen columns, lists ``[anchor, positive]`` or ``[anchor, positive, negative]``,
    objects ``{"set": [text, ...]}`` of paraphrases, or ``{"query": text, "pos": [text, ...], "neg": [text, ...]}``
    with optional ``neg``: pairs of relevance 1 and 0. The collection embedding-training-data has these layouts.
    """
    first = next(records, None)
    if first is None:
        raise InputError("expected at least one row, found none; give at least one")
    shape = _shape(first[1], choose, is_grouped, f"{unit} {first[0]}")
    return list(shape.roles), _rows(chain([first], records), shape, choose, is_grouped, unit)


def _rows(records: Iterator[tuple[int, object]], shape: _Shape, choose: Choose, is_grouped: bool, unit: str) -> Rows:
    known = set()
    for number, record in records:
        signature = _signature(record)
        if signature not in known:
            _require_shape(record, shape, choose, is_grouped, f"{unit} {number}")
            known.add(signature)
        for cells in shape.expand(number, record):
            yield number, cells


def _signature(record: object) -> object:
    """Return what records of one kind have in common."""
    if isinstance(record, dict):
        return (*record, type(record.get("set")))
    return type(record), len(record) if isinstance(record, list) else 0


def _require_shape(record: object, shape: _Shape, choose: Choose, is_grouped: bool, place: str) -> None:
    if shape.kind[0] == "object":
        if not isinstance(record, dict):
            raise InputError(
                f"expected a JSON object, found {shorten(json.dumps(record))} in {place}; correct the line"
            )
        lacking = [name for name in shape.kind[1:] if name not in record]
        if lacking:
            raise InputError(
                f"expected {lacking[0]!r} in every line, found {', '.join(record) or 'nothing'} in {place}; "
                "correct the line, with null for unknown values"
            )
    found = _shape(record, choose, is_grouped, place)
    if found.kind != shape.kind:
        raise InputError(
            f"expected {', '.join(shape.roles)} as in the lines before, found {', '.join(found.roles)} in {place}; "
            "give every line the same keys, with null for unknown values"
        )


def _shape(record: object, choose: Choose, is_grouped: bool, place: str) -> _Shape:
    if isinstance(record, list):
        return _list_shape(record, choose, is_grouped, place)
    if not isinstance(record, dict):
        raise InputError(f"expected a JSON object, found {shorten(json.dumps(record))} in {place}; correct the line")
    has_roles = not record.keys().isdisjoint(ROLES)
    if "set" in record and not has_roles:
        inside = record["set"]
        if isinstance(inside, dict):
            kind, roles, expand = _shape(inside, choose, is_grouped, place)
            return _Shape(("set", *kind), roles, lambda number, value: expand(number, value["set"]))
        if not isinstance(inside, list):
            raise InputError(f"expected texts as set, found {shorten(json.dumps(inside))} in {place}; give a list")
        roles = [*choose(["text", "label"])]
        return _Shape(("set",), roles, lambda number, value: _expand_set(number, value["set"]))
    if is_grouped:
        raise InputError(f"expected a list of texts, or one as set, found {', '.join(record)} in {place}; give a list")
    if is_record_table([*record], choose):
        reject_similar([*record], {"query", "pos", "neg"}, place)
        return _Shape(("query",), [*choose(["anchor", "positive", "relevance"])], _expand_query)
    try:
        chosen = choose(list(record))
    except InputError as error:
        raise InputError(f"{error} (in {place})") from error
    names = [*chosen.values()]
    return _Shape(("object", *names), [*chosen], lambda _, value: [[value[name] for name in names]])


def _list_shape(record: Sequence[object], choose: Choose, is_grouped: bool, place: str) -> _Shape:
    """Choose how a list of texts is read: by position, or as a group."""
    if is_grouped:
        return _Shape(("set",), [*choose(["text", "label"])], _expand_set)
    if len(record) not in (2, 3):
        raise InputError(
            f"expected lists of two texts (pairs) or three (triplets), found {len(record)} in {place}; if the texts of "
            "a list mean the same, set layout='groups' (--layout groups)"
        )
    roles = [*choose(["anchor", "positive", "negative"][: len(record)])]
    return _Shape(("list", *roles), roles, lambda _, cells: [cells])


def is_record_table(names: Sequence[str], choose: Choose) -> bool:
    """Return True if the columns are those of a layout with lists of texts."""
    has_lists = "set" in names or {"query", "pos"} <= {*names}
    return has_lists and {*names}.isdisjoint(ROLES) and not _can_choose(dict.fromkeys(names), choose)


def _expand_set(number: int, texts: Sequence[object]) -> Sequence[Sequence[object]]:
    """Return a row for each text of a group; if it is empty, one without text, so that it is counted."""
    return [[text, str(number)] for text in texts or [None]]


def _expand_query(_: int, record: Mapping[str, object]) -> Sequence[Sequence[object]]:
    """Return pairs of relevance 1 and 0; if there are none, one without text, so that it is counted."""
    rows = []
    for key, relevance in (("pos", "1"), ("neg", "0")):
        texts = record.get(key)
        texts = [] if texts is None else texts if isinstance(texts, list) else [texts]
        rows += [[record["query"], text, relevance] for text in texts]
    return rows or [[record["query"], None, "1"]]
