"""Word vectors from files: word2vec text and binary, GloVe text, fastText text and models."""

import functools
import io
import itertools
import logging
import mmap
import re
import struct
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from rlm.data.phrases import UNKNOWN
from rlm.data.textfiles import COMPRESSIONS, open_bytes, shorten
from rlm.errors import InputError
from rlm.runtime.atomic import sha256_of

log = logging.getLogger(__name__)
FASTTEXT_MAGIC = struct.pack("<i", 793712314)  # the first bytes of a fastText model
LONGEST_LINE = LONGEST_WORD = 10_000_000
LONGEST_VECTOR = 100_000
SAMPLED_LINES = 1000
CHUNK = 2**20
NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")

USED, OTHER = "vectors of words of the data", "vectors of other words"
UNDECODED = "vectors of words that are not UTF-8"
NAMELESS, REPEATED = "vectors without a word", "vectors of a word that has one already"
TOO_LONG, NOT_FINITE = "vectors with more numbers than the others", "vectors with NaN or infinity"


class Found(NamedTuple):
    """Finite vectors by word (the first of repeated ones), their size, and the number of file rows by their use."""

    vectors: dict[str, Float32[np.ndarray, " dim"]]
    dim: int
    counts: Counter[str]


def read_vectors(path: Path, words: Sequence[str]) -> Float32[np.ndarray, "token word_dim"]:
    """
    Read the vectors of words, one row per token (word ``i`` has token ``i + 2``).

    Padding, the unknown word and words without a vector have zeros, as in Koziev's word_embeddings. Unusable rows are
    counted in a warning of the log. In a text file the last numbers of a line are the vector and the rest, which may
    contain spaces, is the word. A ``.bin`` file is word2vec's binary format or a fastText model, which makes vectors of
    unknown words from their character n-grams; other names are text, with or without a first line of counts. All but a
    fastText model may be compressed. Raise if the file cannot be read, is not complete, or has no vector for any word.

    Mikolov et al., "Distributed representations of words and phrases and their compositionality", NeurIPS 2013;
    Pennington et al., "GloVe: global vectors for word representation", EMNLP 2014;
    Bojanowski et al., "Enriching word vectors with subword information", TACL 5, 2017, section 3.2.
    """
    try:
        content = sha256_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return _read(path, tuple(words), content).copy()


@functools.lru_cache(maxsize=2)  # all blocks of seeds ask for the same files, which may change between two studies
def _read(path: Path, words: tuple[str, ...], _content: str) -> Float32[np.ndarray, "token word_dim"]:
    found = scan(path, frozenset(words))
    skipped = [f"{count:,} {reason}" for reason, count in found.counts.items() if reason not in (USED, OTHER)]
    if skipped:
        log.warning("word vectors: skipped in %s: %s", path, ", ".join(skipped))
    if not found.vectors:
        raise InputError(
            f"expected vectors for words of the data, found none of {len(words)} words in {path}; give vectors of the "
            "same language, in lower case"
        )
    log.info("word vectors: %d of %d words are in %s", len(found.vectors), len(words), path)
    table = np.zeros((len(words) + 2, found.dim), np.float32)
    for token, word in enumerate(words, UNKNOWN + 1):
        table[token] = found.vectors.get(word, 0)
    return table


def scan(path: Path, wanted: Set[str]) -> Found:
    """Read the vectors of the wanted words, and count the other rows."""
    try:
        with open_bytes(path) as stream, io.BufferedReader(stream, 2**16) as file:
            if file.peek(4)[:4] == FASTTEXT_MAGIC:
                return _scan_fasttext(path, wanted)
            size = None if path.suffix.lower() in COMPRESSIONS else path.stat().st_size
            # A text with the suffix .bin would be read as wrong numbers.
            is_binary = ".bin" in path.suffixes and NO_TEXT.search(file.peek())
            return (_scan_binary if is_binary else _scan_text)(file, size, wanted)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"expected word vectors in {path} (word2vec text or .bin, GloVe text, fastText .vec or .bin), "
        f"found: {error}; give another file"
    )


class _Collection:
    """Collect the vectors of the wanted words, row by row."""

    def __init__(self, wanted: Set[str], dim: int) -> None:
        self.wanted, self.found = wanted, Found({}, dim, Counter())

    def add(self, word: bytes, parse: Callable[[], Float[np.ndarray, " dim"]]) -> None:
        """Add a row; parse its vector only if it is wanted."""
        text = word.decode(errors="replace")  # word2vec cuts words at a byte, within a letter
        self.found.counts[self._reason(text, parse)] += 1

    def _reason(self, text: str, parse: Callable[[], Float[np.ndarray, " dim"]]) -> str:
        if not text.strip():
            return NAMELESS
        if text not in self.wanted:
            return UNDECODED if "\ufffd" in text else OTHER
        if text in self.found.vectors:
            return REPEATED
        with np.errstate(over="ignore", invalid="ignore"):
            vector = np.asarray(parse()).astype(np.float32)
        if not np.isfinite(vector).all():
            return NOT_FINITE
        self.found.vectors[text] = vector
        return USED


def _check_claim(count: int, dim: int, size: int | None, least: int) -> None:
    """Compare the counts of the first line with the size of the file, before memory is allocated."""
    if not 1 <= dim <= LONGEST_VECTOR:
        raise ValueError(f"a first line that claims vectors of {dim:,} numbers; 1 to {LONGEST_VECTOR:,} are possible")
    if size is not None and count * least > size:
        raise ValueError(
            f"a first line that claims {count:,} vectors of {dim:,} numbers, which take at least {count * least:,} "
            f"bytes, in {size:,} bytes; the file may be cut off"
        )


def _check_count(claimed: int, found: int) -> None:
    if claimed != found:
        raise ValueError(
            f"{found:,} vectors where the first line claims {claimed:,}; the file may be cut off, or the line is wrong"
        )


def _scan_text(file: io.BufferedReader, size: int | None, wanted: Set[str]) -> Found:
    if file.peek(2)[:2] in (BOM_UTF16_LE, BOM_UTF16_BE):
        raise ValueError("UTF-16; UTF-8 is needed")
    if file.peek(3)[:3] == BOM_UTF8:
        file.read(3)
    lines = _lines(file)
    sample = list(itertools.islice(lines, SAMPLED_LINES))
    claim = _claim(sample[0][1]) if sample else None
    dim = _usual_size(sample[claim is not None :])
    if claim and dim == 1 != claim[1]:  # not counts, but a number as a word, with a vector of one number
        claim = None
    if claim:
        _check_claim(*claim, size, least=2 * claim[1])
    if claim and dim != claim[1]:
        raise ValueError(f"vectors of {dim} numbers where the first line claims {claim[1]:,}")
    collection = _Collection(wanted, dim)
    for number, line in itertools.chain(sample[claim is not None :], lines):
        fields = line.split()  # of bytes: at ASCII white space only, since words may have other spaces
        if len(fields) == dim and line[:1].isspace():
            fields.insert(0, b"")
        if len(fields) <= dim or not _is_number(fields[-dim]):
            raise ValueError(f"no word with {dim} numbers in line {number:,}: {shorten(line.decode(errors='replace'))}")
        if len(fields) > dim + 1 and all(map(_is_number, fields[1:])):
            collection.found.counts[TOO_LONG] += 1
            continue
        try:
            collection.add(b" ".join(fields[:-dim]), lambda fields=fields: np.array([float(x) for x in fields[-dim:]]))
        except ValueError as error:
            raise ValueError(f"text that is not a number in line {number:,} ({error})") from error
    if claim:
        _check_count(claim[0], collection.found.counts.total())
    return collection.found


def _lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE)
        if not line:
            return
        if len(line) == LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE:,} bytes, line {number:,}")
        if line.strip():
            yield number, line


def _claim(line: bytes) -> tuple[int, int] | None:
    """Return number and size of the vectors if the first line has them."""
    fields = line.split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 and all(map(bytes.isdigit, fields)) else None


def _usual_size(sample: Sequence[tuple[int, bytes]]) -> int:
    """Return the most frequent number of numbers at the end of a line."""
    sizes: Counter[int] = Counter()
    for _, line in sample:
        fields = line.split()
        sizes[sum(1 for _ in itertools.takewhile(_is_number, reversed(fields[1:])))] += 1
    if not sizes:
        raise ValueError("no vector")
    (dim, _), *_ = sizes.most_common(1)
    if not dim:
        raise ValueError(
            f"no word with numbers in line {sample[0][0]:,}: {shorten(sample[0][1].decode(errors='replace'))}"
        )
    return dim


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _scan_binary(file: io.BufferedReader, size: int | None, wanted: Set[str]) -> Found:
    claim = _claim(file.readline(100))
    if claim is None:
        raise ValueError("no first line with the number and the size of vectors")
    count, dim = claim
    _check_claim(count, dim, size, least=4 * dim + 1)
    collection = _Collection(wanted, dim)
    for word, vector in _binary_rows(file, 4 * dim):
        collection.add(word, lambda vector=vector: np.frombuffer(vector, "<f4"))
    _check_count(count, collection.found.counts.total())
    return collection.found


def _binary_rows(file: io.BufferedReader, width: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield words and the bytes of their vectors; a word ends at a space, line ends before it are optional."""
    held = b""
    while chunk := file.read(CHUNK):
        held, start = held + chunk, 0
        while (end := held.find(b" ", start)) >= 0 and (stop := end + 1 + width) <= len(held):
            yield held[start:end].lstrip(b"\n"), held[end + 1 : stop]
            start = stop
        held = held[start:]
        if len(held) > LONGEST_WORD + width:
            raise ValueError(f"a word of more than {LONGEST_WORD:,} bytes")
    if held.strip(b"\n"):
        raise ValueError(f"{len(held):,} bytes at the end that are no whole vector")


def _scan_fasttext(path: Path, wanted: Set[str]) -> Found:
    """Read a fastText model, mapped into memory so that only the rows of these words are read."""
    if path.suffix.lower() in COMPRESSIONS:
        raise ValueError("a compressed fastText model; decompress it")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _, _, dim, *_, bucket, least, most, _, _ = struct.unpack_from("<2i12id", content)
        at = struct.calcsize("<2i12id")
        size, count, labels, _, pruned = struct.unpack_from("<3i2q", content, at)
        at += struct.calcsize("<3i2q")
        if labels or size != count:
            raise ValueError("a supervised fastText model, whose vectors are those of a classifier")
        if min(size, bucket, dim, least, most) < 0 or size * 10 > len(content):
            raise ValueError("a fastText model with impossible sizes")
        place: dict[bytes, int] = {}
        for number in range(size):
            end = content.find(b"\0", at)
            if end < 0:
                raise ValueError("a fastText model that is cut off")
            place.setdefault(content[at:end], number)
            at = end + 10  # its count and its type follow the word
        (is_quantised, rows, columns), at = struct.unpack_from("<?2q", content, at), at + 17
        if pruned > 0 or is_quantised:
            raise ValueError("a quantised fastText model (.ftz); give the model that it was made from")
        if (rows, columns) != (size + bucket, dim) or at + 4 * rows * columns + 17 > len(content):
            raise ValueError("a fastText model that is cut off or has impossible sizes")
        _, others, columns = struct.unpack_from("<?2q", content, at + 4 * rows * dim)
        if len(content) != at + 4 * rows * dim + 17 + 4 * others * columns:
            raise ValueError("a fastText model that is cut off or has impossible sizes")
        collection = _Collection(wanted, dim)
        for word in sorted(wanted):
            known = [place[word.encode()]] if word.encode() in place else []
            of_word = known + [size + number for number in ngram_hashes(word, least, most, bucket)]
            starts = [at + 4 * dim * row for row in of_word]
            if starts:
                collection.add(word.encode(), lambda starts=starts: _mean_row(content, dim, starts))
        return collection.found


def _mean_row(content: mmap.mmap, dim: int, starts: Sequence[int]) -> Float[np.ndarray, " dim"]:
    return np.mean([np.frombuffer(content, "<f4", dim, start).astype(float) for start in starts], axis=0)


def ngram_hashes(word: str, least: int, most: int, bucket: int) -> list[int]:
    """Hash a word's character n-grams as ``Dictionary::computeSubwords`` of fastText: FNV-1a with signed bytes."""
    marked = f"<{word}>"
    found = []
    for size in range(max(least, 1), min(most, len(marked)) + 1) if bucket else ():
        for start in range(len(marked) - size + 1):
            if size == 1 and start in (0, len(marked) - 1):
                continue
            hashed = 2166136261
            for byte in marked[start : start + size].encode():
                hashed = ((hashed ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * 16777619) & 0xFFFFFFFF
            found.append(hashed % bucket)
    return found
