"""Datasets: text pairs and triplets by name, packaged, downloaded or from a file."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pooch
import yaml
from chatterbot_corpus import corpus as chatterbot

from rlm.config import READ_AS_IT_IS, YOUR_TABLE, ReadOptions, StudyConfig
from rlm.data.corpus import COLUMNS, Corpus, Texts, index_corpus
from rlm.data.files import add_irrelevant, read, read_texts, stack_texts
from rlm.data.negatives import draw_negatives
from rlm.errors import InputError

PQA_COMMIT = "85d7cbdf41d8b62bbd385aaab2920bc9c4b4f63f"
_PQA_URL = f"https://raw.githubusercontent.com/Koziev/NLP_Datasets/{PQA_COMMIT}/QA/"
_PQA_SHA256 = {
    "premise_question_answer4_1s.txt": "4cb4fc4cda94b39c032d2ea95d40c2e56caa58cf6ac24888e4ae47fd2585171b",
    "premise_question_answer4_2s.txt": "049b35878b4ae08adc47e7f0e919d8cc95d7af7c3585bfab252baecff58fc5ed",
    "premise_question_answer5_1s.txt": "46871ade89d7a54a803a87e36270cf9b8fd7cfb9e836e9e044488f7d845275ea",
    "premise_question_answer5_2s.txt": "c9a43bb6c5fd48c42d7ed2a5617eaf801c4b166ae912985ab60075648db285b4",
    "premise_question_answer6.txt": "fd66278140e39f9f691a0f661f58761c99135d5383d0e55d698c3ee47d065c79",
}


def load(name: str | Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    """
    Load a dataset by name.

    Parameters
    ----------
    name
        ``"chatterbot-<language>"``: questions and answers of the ChatterBot corpus, which is installed. ``"pqa"``:
        Russian premises and questions, the data of the first trial of triplet pre-training; downloaded once (14 MB), to
        the cache of the operating system or the folder in the environment variable ``RLM_DATA_DIR``. Or a source for
        `rlm.read`: a file, a folder, an id.
    **options
        Options of `rlm.read`; the named datasets take only ``irrelevant``, with its ``encoding``.

    Returns
    -------
    pandas.DataFrame
        Columns as of `rlm.read`. The ``attrs`` of every loader describe the source (``name``, ``title``, ``source``,
        ``licence``, ``version``) and count what could not be made into rows (``dropped``).

    Raises
    ------
    InputError
        If the name is neither known nor a source, or the source does not have the expected form.
    OSError
        If the Russian files are not in the cache and cannot be downloaded.

    Examples
    --------
    >>> import rlm
    >>> rlm.load("chatterbot-english").attrs["licence"]
    'BSD'
    """
    chatterbots = {f"chatterbot-{language}": language for language in _chatterbot_languages()}
    if is_named(name):
        irrelevant = options.pop("irrelevant", None)
        encoding = options.pop("encoding", None) if irrelevant is not None else None
        given = ReadOptions(**options).model_dump(exclude_defaults=True)
        if given:
            raise InputError(f"expected no options for reading {name}, found {', '.join(given)}; drop them")
        pairs = load_pqa() if name == "pqa" else load_chatterbot(chatterbots[name])
        return pairs if irrelevant is None else add_irrelevant(pairs, irrelevant, encoding)
    if Path(name).exists() or "/" in str(name) or Path(name).suffix:
        return read(name, **options)
    near = get_close_matches(str(name), chatterbots, 1, 0.9)
    known = f"did you mean {near[0]}?" if near else f"known names: pqa, {', '.join(chatterbots)}."
    raise InputError(
        f"unknown dataset {str(name)!r}, and no such file; {known} Give a known name, or the path of a file with the "
        "columns anchor, positive and, if there are negatives, negative"
    )


def is_named(name: str | Path) -> bool:
    """Return True for the name of a dataset that `load` knows."""
    return str(name) in ("pqa", *(f"chatterbot-{language}" for language in _chatterbot_languages()))


def load_texts(name: str, reading: ReadOptions = READ_AS_IT_IS) -> pd.Series:
    """Load unlabelled texts by name: all phrases of a dataset that `load` knows, or what `read_texts` reads."""
    return stack_texts(load(name, **reading.model_dump())) if is_named(name) else read_texts(name, reading)


def load_corpus(config: StudyConfig, data: pd.DataFrame | None = None, pretrain_texts: Texts | None = None) -> Corpus:
    """Load and index the data and texts that a config names, or those that are handed over."""
    if data is None:
        data = load(config.dataset, **config.reading.model_dump())
    if pretrain_texts is None and config.pretrain_texts is not None:
        pretrain_texts = load_texts(config.pretrain_texts, config.pretrain_reading)
    return index_corpus(data, config.max_tokens, pretrain_texts, config.tokenizer)


def name_data(config: StudyConfig, data: pd.DataFrame | None, pretrain_texts: Texts | None) -> StudyConfig:
    """Return the config with names of what is handed over: what it has of other data is not true of these."""
    if data is not None:
        name = config.dataset
        is_another = name == "pqa" or name.startswith("chatterbot-") or os.path.exists(name)  # noqa: PTH110
        dataset = YOUR_TABLE if is_another else name
        config = config.model_copy(update={"dataset": dataset, "reading": READ_AS_IT_IS})
    if pretrain_texts is not None:
        config = config.model_copy(update={"pretrain_texts": YOUR_TABLE, "pretrain_reading": READ_AS_IT_IS})
    return config


def describe_data(config: StudyConfig, data: pd.DataFrame | None = None) -> dict[str, str]:
    """Return title, licence, source and fingerprint of the data that a config names, or of a table instead."""
    if data is None:
        data = load(config.dataset, **config.reading.model_dump())
    known = {"title": config.dataset, "licence": "not stated", "source": None} | data.attrs
    fingerprint = index_corpus(data, config.max_tokens, tokenizer=config.tokenizer).fingerprint
    return {name: str(known[name]) for name in ("title", "licence", "source")} | {"fingerprint": fingerprint}


def load_chatterbot(language: str = "english") -> pd.DataFrame:
    """Load each turn of the ChatterBot conversations in a language with the next turn, with all repetitions."""
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
    frame = pd.DataFrame(pairs, columns=list(COLUMNS[:2]), dtype="str")
    frame.attrs = dict(
        dropped={"malformed conversations": malformed},
        name=f"chatterbot-{language}",
        title=f"ChatterBot corpus, {language}: questions and answers",
        source="https://github.com/gunthercox/chatterbot-corpus",
        licence="BSD",
        version=metadata.version("chatterbot-corpus"),
    )
    return frame


def _chatterbot_languages() -> list[str]:
    return sorted({path.parent.name for path in Path(chatterbot.DATA_DIRECTORY).glob("*/*.yml")})


def load_pqa(files: Sequence[str] | None = None) -> pd.DataFrame:
    """Load premises (anchor) and questions (positive) of some or all of the five Russian files, checked by hashes."""
    names = list(_PQA_SHA256 if files is None else files)
    unknown = [name for name in names if name not in _PQA_SHA256]
    if unknown or not names:
        raise InputError(f"expected files among {', '.join(_PQA_SHA256)}; found {', '.join(unknown) or 'none'}")
    parts = [read(path, layout="blocks") for path in _fetch_pqa(names)]
    frame = pd.concat([part.set_index(part.index.map(f"{part.attrs['name']}:{{}}".format)) for part in parts])
    frame.attrs = dict(
        dropped={},
        name="pqa" if set(names) == set(_PQA_SHA256) else f"pqa ({', '.join(names)})",
        title="Russian premises and questions (Koziev, NLP_Datasets)",
        source=_PQA_URL,
        licence="CC0-1.0",
        version=PQA_COMMIT,
    )
    return frame


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


def make_triplets(pairs: pd.DataFrame, negatives: int = 5, *, rng: np.random.Generator) -> pd.DataFrame:
    """
    Draw random negatives for pairs of texts, see `rlm.data.negatives.draw_negatives`.

    Parameters
    ----------
    pairs
        Columns ``anchor`` and ``positive``; an existing column of negatives is ignored.
    negatives
        Triplets per pair, at least 1.
    rng
        Source of the draws.

    Returns
    -------
    pandas.DataFrame
        Columns ``anchor``, ``positive`` and ``negative``, with the triplets of one pair together.

    Raises
    ------
    InputError
        If `negatives` is not positive, `rlm.index_corpus` rejects `pairs`, or a phrase is relevant to every candidate.

    Examples
    --------
    >>> import numpy as np, pandas as pd, rlm
    >>> pairs = pd.DataFrame({"anchor": ["a cat", "a dog"], "positive": ["it purrs", "it barks"]})
    >>> rlm.data.make_triplets(pairs, 1, rng=np.random.default_rng(0))["negative"].tolist()
    ['it barks', 'it purrs']
    """
    corpus = index_corpus(pairs.drop(columns="negative", errors="ignore"))
    texts = np.array(corpus.phrases.texts, dtype=object)
    triplets, _ = draw_negatives(corpus.rows, negatives, rng, corpus.phrases.texts, relevance=corpus.relevance)
    frame = pd.DataFrame(texts[triplets], columns=list(COLUMNS))
    frame.attrs = pairs.attrs
    return frame
