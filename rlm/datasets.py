"""Datasets: loaders that turn packaged, downloaded or own files into pairs and triplets of text."""

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from importlib import metadata
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import yaml
from chatterbot_corpus import corpus as chatterbot
from jaxtyping import Int

from rlm.errors import InputError
from rlm.negatives import draw_negatives
from rlm.phrases import tokenise
from rlm.slicer import COLUMNS, index_corpus

PQA_COMMIT = "85d7cbdf41d8b62bbd385aaab2920bc9c4b4f63f"
_PQA_URL = f"https://raw.githubusercontent.com/Koziev/NLP_Datasets/{PQA_COMMIT}/QA/"
_PQA_SHA256 = {
    "premise_question_answer4_1s.txt": "4cb4fc4cda94b39c032d2ea95d40c2e56caa58cf6ac24888e4ae47fd2585171b",
    "premise_question_answer4_2s.txt": "049b35878b4ae08adc47e7f0e919d8cc95d7af7c3585bfab252baecff58fc5ed",
    "premise_question_answer5_1s.txt": "46871ade89d7a54a803a87e36270cf9b8fd7cfb9e836e9e044488f7d845275ea",
    "premise_question_answer5_2s.txt": "c9a43bb6c5fd48c42d7ed2a5617eaf801c4b166ae912985ab60075648db285b4",
    "premise_question_answer6.txt": "fd66278140e39f9f691a0f661f58761c99135d5383d0e55d698c3ee47d065c79",
}


def load(name: str | Path) -> pd.DataFrame:
    """
    Load a dataset by name.

    Parameters
    ----------
    name
        ``"chatterbot-<language>"``, ``"pqa"``, or the path of a file for `read_triplets`.

    Returns
    -------
    pandas.DataFrame
        Columns ``anchor``, ``positive`` and, where a file has it, ``negative``. Like those of every loader, its
        ``attrs`` say where it is from (``name``, ``title``, ``source``, ``licence``, ``version``), what it holds
        (``pairs`` and ``anchors``: how many different ones) and what was left out and why (``dropped``).

    Raises
    ------
    InputError
        If the name is neither known nor a file, or the file is not as `read_triplets` expects it.
    OSError
        If the Russian files are not in the cache and cannot be downloaded.
    """
    chatterbots = {f"chatterbot-{language}": language for language in _chatterbot_languages()}
    if name in chatterbots:
        return load_chatterbot(chatterbots[name])
    if name == "pqa":
        return load_pqa()
    if Path(name).is_file():
        return read_triplets(name)
    raise InputError(
        f"unknown dataset {str(name)!r}, and no such file; known names: pqa, {', '.join(chatterbots)}. "
        "Give one of them or the path of a file with the columns anchor, positive and, if there are negatives, "
        "negative"
    )


def load_chatterbot(language: str = "english") -> pd.DataFrame:
    """
    Questions and answers of the ChatterBot corpus, which is installed with this package.

    Parameters
    ----------
    language
        A folder of the corpus: ``"english"``, ``"russian"``, …

    Returns
    -------
    pandas.DataFrame
        Columns ``anchor`` and ``positive``: each turn of a conversation with the turn that follows it. A
        conversation that is not a list of at least two texts is skipped and counted in ``attrs["dropped"]``.

    Raises
    ------
    InputError
        If the corpus lacks the language.
    """
    languages = _chatterbot_languages()
    if language not in languages:
        raise InputError(f"unknown language {language!r}; the ChatterBot corpus has: {', '.join(languages)}")
    pairs, malformed = [], 0
    # The compiled parser is ten times faster, but PyYAML can be built without it.
    parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(Path(chatterbot.DATA_DIRECTORY, language).glob("*.yml")):
        for turns in yaml.load(path.read_bytes(), parser)["conversations"]:
            if isinstance(turns, list) and len(turns) > 1 and all(isinstance(turn, str) for turn in turns):
                pairs += pairwise(turns)
            else:
                malformed += 1
    return _clean(
        pairs,
        dropped={"malformed conversations": malformed},
        name=f"chatterbot-{language}",
        title=f"ChatterBot corpus, {language}: questions and answers",
        source="https://github.com/gunthercox/chatterbot-corpus",
        licence="BSD",
        version=metadata.version("chatterbot-corpus"),
    )


def _chatterbot_languages() -> list[str]:
    return sorted({path.parent.name for path in Path(chatterbot.DATA_DIRECTORY).glob("*/*.yml")})


def load_pqa(files: Sequence[str] | None = None) -> pd.DataFrame:
    """
    Russian premises and questions about them: the data on which triplet pre-training was first tried.

    The files are downloaded once (14 MB), checked, and kept in the folder ``pqa`` of the cache: that of the
    operating system, or the folder that the environment variable ``RLM_DATA_DIR`` names.

    Parameters
    ----------
    files
        Names of some of the five files; all by default.

    Returns
    -------
    pandas.DataFrame
        Columns ``anchor`` (premise) and ``positive`` (question); the answers are not used.

    Raises
    ------
    InputError
        If a file name is unknown or there is none.
    OSError
        If a file is not in the cache and its download fails or is not the file that it should be.
    """
    names = list(_PQA_SHA256 if files is None else files)
    unknown = [name for name in names if name not in _PQA_SHA256]
    if unknown or not names:
        raise InputError(f"expected files among {', '.join(_PQA_SHA256)}; found {', '.join(unknown) or 'none'}")
    pairs, premise = [], ""
    for path in _fetch_pqa(names):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.startswith("T:"):
                premise = line[2:].strip()
            elif line.startswith("Q:"):
                pairs.append((premise, line[2:].strip()))
    return _clean(
        pairs,
        dropped={},
        name="pqa" if set(names) == set(_PQA_SHA256) else f"pqa ({', '.join(names)})",
        title="Russian premises and questions (Koziev, NLP_Datasets)",
        source=_PQA_URL,
        licence="CC0-1.0",
        version=PQA_COMMIT,
    )


def _fetch_pqa(names: Sequence[str]) -> list[Path]:
    folder = Path(os.environ.get("RLM_DATA_DIR") or pooch.os_cache("rlm"), "pqa")
    store = pooch.create(folder, _PQA_URL, registry=_PQA_SHA256)
    pooch.get_logger().setLevel("WARNING")
    paths = []
    for name in names:
        try:
            paths.append(Path(store.fetch(name)))
        except (OSError, ValueError) as error:
            raise OSError(
                f"expected {name} with sha256 {_PQA_SHA256[name]} from {store.get_url(name)}, found: {error}. "
                f"Check the network and try again, or put the file into {store.abspath} by hand"
            ) from error
    return paths


def read_triplets(path: str | Path) -> pd.DataFrame:
    """
    Read triplets, or pairs, from a file of your own.

    Parameters
    ----------
    path
        UTF-8 text whose first line names the columns: ``anchor``, ``positive`` and, for triplets, ``negative``;
        other columns are ignored. Where the first line holds a tab, tabs separate the cells and quotation marks
        are ordinary characters; otherwise the cells are separated by commas and may be quoted.

    Returns
    -------
    pandas.DataFrame
        The rows as text, without exact repetitions, which are counted in ``attrs["dropped"]``. Without a column
        ``negative`` these are pairs.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file is empty, not UTF-8, lacks a column or rows, or if a row has too many or too few cells, a cell
        without a word, or the same phrase twice. The message gives the line, counted from 1.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"{path}: expected a file of triplets or pairs, found {found}; check the path")
    content = path.read_bytes()
    try:
        frame = _parse(content)
        numbers = _number_phrases(frame)
        _require_usable(frame, numbers)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    repeated = frame.duplicated().to_numpy()
    return _describe(
        frame[~repeated].reset_index(drop=True),
        numbers[~repeated],
        dropped={"duplicates": int(repeated.sum())},
        name=path.name,
        title=f"{'Triplets' if 'negative' in frame else 'Pairs'} of {path.name}",
        source=str(path),
        licence="not stated",
        version=f"sha256:{hashlib.sha256(content).hexdigest()}",
    )


def _parse(content: bytes) -> pd.DataFrame:
    """Cells of the known columns, indexed by line number."""
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"expected UTF-8, found the byte 0x{content[error.start]:02x} at position {error.start} (line {line}); "
            "convert the file to UTF-8"
        ) from error
    if not text.strip():
        raise InputError("expected a line of column names and rows, found an empty file; give it content")
    has_tab = "\t" in text.splitlines()[0]
    # pandas would fill short rows with NaN and read the phrase "null" as missing.
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if has_tab else {"strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), **style)
    rows: dict[int, list[str]] = {}
    end = 0
    try:
        header = [name.strip() for name in next(reader)]
        missing = [column for column in COLUMNS[:2] if column not in header]
        if missing:
            raise InputError(
                f"column {missing[0]!r} not found; the file has: {', '.join(header)}. Let its first line name "
                "the columns anchor, positive and, if there are negatives, negative"
            )
        columns = [column for column in COLUMNS if column in header]
        end = reader.line_num
        for cells in reader:
            # A quoted cell may span lines; its row is known by the first.
            line, end = end + 1, reader.line_num
            if cells and len(cells) != len(header):
                raise InputError(
                    f"expected {len(header)} cells as in the first line, found {len(cells)} in line {line}; "
                    "mend the line" + ("" if has_tab else ", quoting cells that contain commas")
                )
            if cells:
                rows[line] = [cells[header.index(column)] for column in columns]
    except csv.Error as error:
        raise InputError(
            f"expected comma-separated cells, found bad quoting in the row of line {end + 1} ({error}); "
            "mend the quotation marks, doubling those inside a quoted cell"
        ) from error
    if not rows:
        raise InputError("expected rows below the column names, found none; give at least one")
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _require_usable(frame: pd.DataFrame, numbers: Int[np.ndarray, "row column"]) -> None:
    # index_corpus would refuse these rows as well, but it cannot say in which line of the file they are.
    wordless = np.argwhere(numbers < 0)
    if len(wordless):
        row, column = wordless[0]
        raise InputError(
            f"expected at least one word in every cell, found {frame.iloc[row, column]!r} in line "
            f"{frame.index[row]}, column {frame.columns[column]!r} ({len(wordless)} such cells); fill the cell or "
            "remove the row"
        )
    for i, j in combinations(range(len(frame.columns)), 2):
        same = numbers[:, i] == numbers[:, j]
        if same.any():
            row = int(np.argmax(same))
            raise InputError(
                f"expected different phrases in a row, found the {frame.columns[j]} equal to the "
                f"{frame.columns[i]} in line {frame.index[row]}: {frame.iloc[row, i]!r} ({same.sum()} such rows); "
                "remove these rows"
            )


def make_triplets(pairs: pd.DataFrame, negatives: int = 5, *, rng: np.random.Generator) -> pd.DataFrame:
    """
    Give pairs random negatives, as text; `rlm.negatives.draw_negatives` says which.

    Parameters
    ----------
    pairs
        Columns ``anchor`` and ``positive``; negatives that it brings are not used.
    negatives
        Triplets per pair, at least 1.
    rng
        Source of the draws.

    Returns
    -------
    pandas.DataFrame
        Columns ``anchor``, ``positive`` and ``negative``; those of one pair together. It keeps the ``attrs`` of
        `pairs`.

    Raises
    ------
    InputError
        If `negatives` is not positive, `pairs` is not as `rlm.slicer.index_corpus` expects it, or a phrase is
        relevant to every candidate.
    """
    corpus = index_corpus(pairs.drop(columns="negative", errors="ignore"))
    texts = np.array(corpus.phrases.texts, dtype=object)
    triplets = draw_negatives(corpus.rows, negatives, rng, corpus.phrases.texts)
    frame = pd.DataFrame(texts[triplets], columns=list(COLUMNS))
    frame.attrs = pairs.attrs
    return frame


def _clean(pairs: Sequence[tuple[str, str]], dropped: dict[str, int], **about: str) -> pd.DataFrame:
    """Keep the first of the pairs with the same words, drop those that no model could learn from."""
    frame = pd.DataFrame(pairs, columns=list(COLUMNS[:2]))
    numbers = _number_phrases(frame)
    wordless = (numbers < 0).any(axis=1)
    same = ~wordless & (numbers[:, 0] == numbers[:, 1])
    repeated = ~wordless & ~same & pd.DataFrame(numbers).duplicated().to_numpy()
    kept = ~(wordless | same | repeated)
    counts = {"without words": wordless, "same phrase twice": same, "duplicates": repeated}
    dropped = dropped | {reason: int(rows.sum()) for reason, rows in counts.items()}
    return _describe(frame[kept].reset_index(drop=True), numbers[kept], dropped, **about)


def _number_phrases(frame: pd.DataFrame) -> Int[np.ndarray, "row column"]:
    """One number per phrase, the same for the same words; -1 where a cell has no word."""
    text_of_cell, texts = pd.factorize(frame.to_numpy(object).ravel())
    keys = np.array([" ".join(tokenise(text)) or None for text in texts], dtype=object)
    return pd.factorize(keys)[0][text_of_cell].reshape(frame.shape)


def _describe(
    frame: pd.DataFrame, numbers: Int[np.ndarray, "row column"], dropped: dict[str, int], **about: str
) -> pd.DataFrame:
    frame.attrs = {
        **about,
        "pairs": len(np.unique(numbers[:, :2], axis=0)),
        "anchors": len(np.unique(numbers[:, 0])),
        "dropped": dropped,
    }
    return frame
