"""Text files: uncompress, decode and bound them."""

import codecs
import io
import lzma
import os
import re
import warnings
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar
from unicodedata import category

import charset_normalizer
import pyarrow as pa
from tqdm.auto import tqdm

from rlm.errors import InputError

MOST_CHARACTERS = 10_000_000  # of a line, a row or a JSON value
# What a file may hold once it is uncompressed. Text becomes 3 to 30 times smaller; more than 100 is a bomb.
ENOUGH_BYTES, MOST_TIMES = 64_000_000, 100
SECONDS_WITHOUT_BAR = 3.0
BYTES_FOR_A_GUESS = 100_000
_BOMS = {
    BOM_UTF8: "utf-8-sig",
    BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    BOM_UTF32_BE: "utf-32",
    BOM_UTF16_LE: "utf-16",
    BOM_UTF16_BE: "utf-16",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4", ".xz": "xz", ".lzma": "xz"}
_NO_TEXT = {
    b"\x1f\x8b": "gzip; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "zstd; let its name end in .zst",
    b"BZh91AY&SY": "bzip2; let its name end in .bz2",
    b"\x04\x22\x4d\x18": "LZ4; let its name end in .lz4",
    b"\xfd7zXZ\0": "xz; let its name end in .xz",
    b"PK\x03\x04": "a ZIP archive, such as .xlsx; convert it",
    b"PAR1\x15": "Parquet; let its name end in .parquet, and drop the layout",
    b"SQLite format 3\0": "an SQLite database; export its table as CSV",
    b"\x89HDF\r\n": "HDF5; convert it",
    b"%PDF-": "PDF; convert it",
}
_OBEYED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph separators
_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # show letters in another order
_BROKEN = re.compile("[\ud800-\udfff]")
T = TypeVar("T")


class _Bytes(io.RawIOBase):
    """The uncompressed bytes of a file, with a progress bar; bounded, see `most_bytes`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        kind = COMPRESSIONS.get(path.suffix.lower())
        opened = {None: lambda: self._file, "xz": lambda: _Xz(self._file)}
        self._stream = opened.get(kind, lambda: pa.CompressedInputStream(self._file, kind))()
        self._most = None if kind is None else most_bytes(path)
        self._count = 0
        self._bar = tqdm(
            total=os.fstat(self._file.fileno()).st_size,
            desc=f"reading {path.name}",
            unit="B",
            unit_scale=True,
            delay=SECONDS_WITHOUT_BAR,
            mininterval=1,
            leave=False,
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:
        found = self._stream.read(len(buffer))
        buffer[: len(found)] = found
        self._count += len(found)
        self._bar.update(self._file.tell() - self._bar.n)
        if self._most is not None and self._count > self._most:
            raise InputError(
                f"expected at most {MOST_TIMES} times the size of the compressed file, found more than "
                f"{self._count:,} bytes in it, mostly repetitions; uncompress it yourself if they are meant"
            )
        return len(found)

    def close(self) -> None:
        if not self.closed:
            self._bar.close()
            self._file.close()
        super().close()


class _Xz:
    """Reader of xz files that detects damage after a whole stream, which `lzma` ignores."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._decompressor, self._rest = file, lzma.LZMADecompressor(), b""
        self._is_new = True

    def read(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                self._rest, self._decompressor = self._decompressor.unused_data.lstrip(b"\0"), lzma.LZMADecompressor()
                self._is_new = True
            if self._decompressor.needs_input:
                self._rest = self._rest or self._file.read(1 << 16)
                if self._is_new:
                    self._rest = self._rest.lstrip(b"\0")  # padding between streams
                if not self._rest and self._is_new:
                    return b""
                if not self._rest:
                    raise EOFError("Truncated compressed stream")
            try:
                found = self._decompressor.decompress(self._rest, size)
            except lzma.LZMAError as error:
                raise OSError(f"xz: {error}") from error
            self._rest, self._is_new = b"", False
            if found:
                return found


class _Text(io.TextIOWrapper):
    """Text whose lines are bounded."""

    _number = 0

    def __next__(self) -> str:
        line = self.readline(MOST_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) > MOST_CHARACTERS:
            raise InputError(
                f"expected lines of at most {MOST_CHARACTERS:,} characters, found more in line {self._number}, which "
                f"begins with {shorten(line[:100])}; shorten it"
            )
        return line


def most_bytes(path: Path) -> int:
    """Return the largest plausible size of the content: more can only be repetitions, which would fill the memory."""
    return max(ENOUGH_BYTES, MOST_TIMES * path.stat().st_size)


def open_bytes(path: Path) -> io.RawIOBase:
    """Open a file, compressed as its suffix indicates."""
    return _Bytes(path)


def decode(path: Path, encoding: str | None, parse: Callable[[io.TextIOBase], T]) -> T:
    """
    Parse a text file; `parse` reads it to the end and is called again if the first encoding is wrong.

    The encoding is the given one, that of the byte order mark, UTF-8, or a guess. A guess is a UserWarning, and so is
    another encoding that is given for a file in UTF-8.
    """
    warning = None
    try:
        with open_bytes(path) as stream, io.BufferedReader(stream, 1 << 16) as bytes_:
            start = bytes_.read(1 << 16)
        mark, warning = _look_at(start, encoding)
        try:
            found = _parse(path, mark or encoding or "utf-8", parse)
        except UnicodeError as error:
            if encoding or mark:
                raise InputError(
                    f"expected {mark or encoding}, found something else ({error}); name its encoding"
                ) from error
            guess = _guess(path)
            warning = f"is not UTF-8 and was read as {guess}, a guess; name its encoding to be sure: encoding={guess!r}"
            try:
                found = _parse(path, guess, parse)
            except UnicodeError as error:
                raise InputError(
                    f"expected UTF-8, found what begins like {guess} ({error}); name its encoding"
                ) from error
    except (OSError, EOFError) as error:
        raise InputError(f"expected a whole file, found: {error}; get it again") from error
    if warning:
        warnings.warn(f"{path} {warning}", stacklevel=4)
    return found


def _parse(path: Path, encoding: str, parse: Callable[[io.TextIOBase], T]) -> T:
    with open_bytes(path) as stream, _Text(io.BufferedReader(stream, 1 << 20), encoding, newline="") as text:
        return parse(text)


def _look_at(start: bytes, encoding: str | None) -> tuple[str | None, str | None]:
    """Reject what is not text; return the encoding of the byte order mark, and a warning about the given one."""
    kind = next((kind for magic, kind in _NO_TEXT.items() if start.startswith(magic)), None)
    if kind is not None:
        raise InputError(f"expected text, found {kind}")
    mark = next((name for bom, name in _BOMS.items() if start.startswith(bom)), None)
    if encoding is None:
        if mark is None and (like := _unmarked_utf16(start)):
            raise InputError(f"expected UTF-8, found what looks like {like}; name its encoding: encoding={like!r}")
        return mark, None
    try:
        "".encode(encoding)
        family = codecs.lookup(encoding).name.split("-")[:2]
    except (LookupError, ValueError) as error:
        raise InputError(f"expected an encoding that Python knows, such as cp1251; found {encoding!r}") from error
    if mark:
        if mark.split("-")[:2] != family:
            raise InputError(f"expected {encoding}, found the byte order mark of {mark}; drop encoding")
        return mark, None  # the same encoding, without the mark
    if family[0] != "utf" and not start.isascii() and _is_utf8(start):
        return None, f"was read as {encoding}, as named, but seems to be UTF-8; drop encoding if it is"
    return None, None


def _is_utf8(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def _unmarked_utf16(start: bytes) -> str | None:
    """Detect UTF-16 without a byte order mark: every line feed has a zero byte on the same side."""
    zeros, feeds = (_places(start, byte) for byte in (0, 10))
    for name, odd, side in (("utf-16-le", 1, 1), ("utf-16-be", 0, -1)):
        if feeds and zeros and all(zero % 2 == odd for zero in zeros) and {feed + side for feed in feeds} <= zeros:
            return name
    return None


def _places(content: bytes, byte: int) -> set[int]:
    return {match.start() for match in re.finditer(bytes([byte]), content)}


def _guess(path: Path) -> str:
    is_utf8, number = False, 0
    with open_bytes(path) as stream, io.BufferedReader(stream, 1 << 20) as lines:
        while line := lines.readline(4 * MOST_CHARACTERS):
            number += 1
            try:
                is_utf8 |= len(line.decode()) < len(line)
            except UnicodeDecodeError:
                following = lines.read(BYTES_FOR_A_GUESS)
                sample = line[-BYTES_FOR_A_GUESS:] + following[: following.rfind(b"\n") + 1]  # no half of a character
                break
        else:
            raise AssertionError("called for a file that is UTF-8")
    # After lines that are UTF-8 and no ASCII this is damage, not another encoding.
    best = None if is_utf8 else charset_normalizer.from_bytes(sample).best()
    if best is None:
        raise InputError(
            f"expected UTF-8, found other bytes in line {number}; correct the line, convert the file, or name its "
            "encoding, such as encoding='cp1251'"
        )
    return best.encoding


def printable(text: str, length: int = 300) -> str:
    """Replace the control characters in a text from the data, and shorten it with an ellipsis."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return "".join("?" if category(letter) in _OBEYED or letter in _OVERRIDES else letter for letter in text)


def shorten(text: str, length: int = 60) -> str:
    """Quote, escape and shorten a text from the data for a message."""
    text = text.strip()
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def is_text(cell: object) -> bool:
    """Return True for a missing cell, and for text that a file can store: without half a character (lone surrogate)."""
    return cell is None or (isinstance(cell, str) and (cell.isascii() or _BROKEN.search(cell) is None))
