import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import chatterbot_corpus
import numpy as np
import pandas as pd
import pooch
import pytest
import yaml

from rlm.data import datasets
from rlm.data.corpus import index_corpus
from rlm.data.datasets import load, load_chatterbot, load_pqa, make_triplets
from rlm.data.phrases import tokenise
from rlm.errors import InputError

CHATTERBOT = Path(chatterbot_corpus.__file__).parent / "data"
LANGUAGES = sorted(folder.name for folder in CHATTERBOT.iterdir() if folder.is_dir())
SHARED = Path(__file__).parents[3] / "shared" / "data"
FACTS = {"name", "title", "source", "licence", "version", "dropped"}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def distinct_pairs(pairs):
    """Pairs in order of first occurrence by words, without empty phrases and pairs of equal ones: a slow loop."""
    seen, kept = set(), []
    for anchor, positive in pairs:
        key = (tuple(tokenise(anchor)), tuple(tokenise(positive)))
        if key[0] and key[1] and key[0] != key[1] and key not in seen:
            seen.add(key)
            kept.append((anchor, positive))
    return kept


# ChatterBot


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_gives_the_pairs_of_a_slow_loop(language):
    pairs, malformed = [], 0
    for path in sorted((CHATTERBOT / language).glob("*.yml")):
        document = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for conversation in document["conversations"]:
            if type(conversation) is list and len(conversation) >= 2:
                for i in range(len(conversation) - 1):
                    pairs.append((conversation[i], conversation[i + 1]))
            else:
                malformed += 1
    frame = load_chatterbot(language)
    assert list(frame.itertuples(index=False, name=None)) == pairs
    assert frame.attrs["dropped"] == {"malformed conversations": malformed}
    corpus = index_corpus(frame, max_tokens=512)
    texts = np.array(corpus.phrases.texts, dtype=object)[corpus.rows]
    expected = distinct_pairs(pairs)
    assert [tuple(map(tokenise, row)) for row in texts] == [tuple(map(tokenise, row)) for row in expected]
    assert len(corpus.dropped) == len(pairs) - len(expected)


def test_english_is_the_measured_corpus_without_the_characters_of_its_malformed_conversation():
    frame = load_chatterbot()
    assert not frame["anchor"].isin(["I", "n", "a"]).any()
    if metadata.version("chatterbot-corpus") != "1.3.3":
        pytest.skip("the numbers were measured on chatterbot-corpus 1.3.3")
    corpus = index_corpus(frame)
    assert (len(corpus.rows), len(np.unique(corpus.rows[:, 0]))) == (1172, 1010)
    assert frame.attrs["dropped"] == {"malformed conversations": 1}
    assert corpus.dropped["reason"].value_counts().to_dict() == {"repeated": 1132, "same phrase twice": 2}


def test_what_a_corpus_drops_is_counted_by_reason(tmp_path, monkeypatch):
    conversations = [
        ["Hi", "Hello!", "How are you?"],
        ["hi.", "hello"],
        ["Well", "..."],
        ["What?", "what"],
        "Who? - Me",
        ["alone"],
        ["Is 2 even?", True],
    ]
    (tmp_path / "klingon").mkdir()
    write(tmp_path / "klingon" / "talk.yml", yaml.safe_dump({"conversations": conversations}))
    monkeypatch.setattr("chatterbot_corpus.corpus.DATA_DIRECTORY", str(tmp_path))
    frame = load("chatterbot-klingon")
    assert frame.attrs["dropped"] == {"malformed conversations": 3}
    corpus = index_corpus(frame)
    assert len(corpus.rows) == 2
    assert corpus.explain_dropped() == (
        "3 malformed conversations, 1 repeated (row 2), 1 without words (row 3), 1 same phrase twice (row 4)"
    )


def test_unknown_language_names_the_known_ones():
    with pytest.raises(InputError, match=r"unknown language 'klingon'.*bengali.*english.*yoruba"):
        load_chatterbot("klingon")


# Russian premises and questions

BLOCKS = """
T: Я жду звонков
Q: ты ждёшь звонков?
A: да

T: Снег белый
Q: какой снег?
A: белый
Q: что белое?
A: снег

T: я жду звонков.
Q: ты ждешь звонков?
A: да
""".encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BLOCKS)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of one file, known to the loader as ``small.txt``, and an empty cache."""
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.asked = BLOCKS, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(datasets, "_PQA_URL", f"http://127.0.0.1:{server.server_port}/QA/")
    monkeypatch.setattr(datasets, "_PQA_SHA256", {"small.txt": hashlib.sha256(BLOCKS).hexdigest()})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RLM_DATA_DIR", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_downloaded_once_and_quietly(server, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])
    frame = load_pqa()
    assert frame.to_numpy().tolist() == [
        ["Я жду звонков", "ты ждёшь звонков?"],
        ["Снег белый", "какой снег?"],
        ["Снег белый", "что белое?"],
        ["я жду звонков.", "ты ждешь звонков?"],
    ]
    assert load_pqa(["small.txt"]).equals(frame)
    assert server.asked == ["/QA/small.txt"]
    assert [path.name for path in (tmp_path / "cache" / "pqa").iterdir()] == ["small.txt"]
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


def test_a_part_of_the_files_is_another_dataset(server, monkeypatch):
    checksum = hashlib.sha256(BLOCKS).hexdigest()
    monkeypatch.setattr(datasets, "_PQA_SHA256", {"small.txt": checksum, "copy.txt": checksum})
    whole, part = load_pqa(), load_pqa(["copy.txt"])
    assert (whole.attrs["name"], part.attrs["name"]) == ("pqa", "pqa (copy.txt)")
    assert (len(whole), len(part)) == (8, 4)
    assert server.asked == ["/QA/small.txt", "/QA/copy.txt"]


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    (tmp_path / "cache" / "pqa").mkdir(parents=True)
    cached = write(tmp_path / "cache" / "pqa" / "small.txt", "T: другое\nQ: что другое?\n")
    assert len(load_pqa()) == 4
    assert cached.read_bytes() == BLOCKS


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (None, "404"),
        (BLOCKS.replace(b"T", b"t"), "hash"),
        (BLOCKS[: len(BLOCKS) // 2], "IncompleteRead"),
    ],
    ids=["404", "wrong file", "server gone half-way"],
)
def test_a_failed_download_says_what_to_do_and_leaves_nothing(server, tmp_path, body, found):
    server.body = body
    folder = tmp_path / "cache" / "pqa"
    advice = rf"expected small.txt with sha256 \w{{64}} from http.*{found}.*network.*{re.escape(str(folder))} by hand"
    with pytest.raises(OSError, match=f"(?s){advice}"):
        load_pqa()
    assert list(folder.iterdir()) == []
    write(folder / "small.txt", BLOCKS)
    assert len(load_pqa()) == 4


def test_without_network_the_error_is_the_same(server, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(datasets, "_PQA_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/")
        with pytest.raises(OSError, match=r"expected small.txt .* refused.*by hand"):
            load_pqa()


@pytest.mark.parametrize(("files", "found"), [(["other.txt"], "other.txt"), ([], "none")])
def test_unknown_files_name_the_known_ones(files, found):
    with pytest.raises(InputError, match=rf"answer4_1s.txt.*answer6.txt; found {found}"):
        load_pqa(files)


@pytest.mark.skipif(not (SHARED / "pqa").is_dir(), reason="the Russian files are not beside the checkout")
def test_the_russian_files_give_the_measured_numbers(monkeypatch):
    monkeypatch.setenv("RLM_DATA_DIR", str(SHARED))
    monkeypatch.setattr(datasets, "_PQA_URL", "http://127.0.0.1:1/nothing-may-be-downloaded/")
    frame = load("pqa")
    corpus = index_corpus(frame)
    assert (len(frame), len(corpus.rows)) == (141_109, 139_501)
    assert frame.index[0] == "premise_question_answer4_1s.txt:3"
    assert [len(np.unique(side)) for side in corpus.rows.T] == [9_870, 121_107]


# By name


def test_load_takes_names_and_paths(tmp_path, server):
    path = write(tmp_path / "own.csv", "anchor,positive\na,b\n")
    loaded = {name: load(name) for name in ("chatterbot-dutch", "pqa", str(path), path)}
    assert loaded["chatterbot-dutch"].equals(load_chatterbot("dutch"))
    assert loaded["pqa"].equals(load_pqa())
    assert loaded[str(path)].equals(loaded[path])
    for name, frame in loaded.items():
        assert set(frame.attrs) == FACTS
        assert json.loads(json.dumps(frame.attrs)) == frame.attrs
        assert all(frame.attrs[fact] for fact in FACTS - {"dropped"})
        assert frame.attrs["name"] == (name if isinstance(name, str) and name != str(path) else "own.csv")


def test_names_take_irrelevant_pairs_and_no_other_option(tmp_path):
    (tmp_path / "irrelevant.txt").write_text("hello|goodbye\n")
    frame = load("chatterbot-dutch", irrelevant=str(tmp_path / "irrelevant.txt"))
    assert frame.iloc[-1].tolist() == ["hello", "goodbye", "0"]
    assert frame.index[-1] == "irrelevant.txt:1"
    with pytest.raises(InputError, match="expected no options for reading chatterbot-dutch, found encoding; drop"):
        load("chatterbot-dutch", encoding="cp1251")


def test_unknown_name_lists_the_known_ones_and_paths():
    with pytest.raises(InputError, match=r"'chatterbot-klingon', and no such file.*pqa, .*chatterbot-yoruba.*path"):
        load("chatterbot-klingon")


# Triplets


def test_triplets_pair_each_query_with_a_phrase_not_known_to_be_relevant():
    pairs = pd.DataFrame({"anchor": list("aabcd"), "positive": ["p", "q", "Q!", "r", "s"]})
    pairs.attrs = {"name": "letters"}
    triplets = make_triplets(pairs, negatives=4, rng=np.random.default_rng(0))
    assert list(triplets.columns) == ["anchor", "positive", "negative"]
    assert len(triplets) == 20
    relevant = {frozenset(pair) for pair in ("ap", "aq", "bq", "cr", "ds")}
    for i, (anchor, positive, negative) in enumerate(triplets.itertuples(index=False)):
        pair = (pairs["anchor"][i // 4], {"Q!": "q"}.get(pairs["positive"][i // 4], pairs["positive"][i // 4]))
        assert (anchor, positive) == (pair if i % 2 == 0 else pair[::-1])
        assert negative in (set("pqrs") if i % 2 == 0 else set("abcd")) - {positive}
        assert frozenset((anchor, negative)) not in relevant
    assert triplets.attrs == {"name": "letters"}
    with_negatives = pairs.assign(negative="not used")
    assert triplets.equals(make_triplets(with_negatives, negatives=4, rng=np.random.default_rng(0)))
    assert not triplets.equals(make_triplets(pairs, negatives=4, rng=np.random.default_rng(1)))


def test_triplets_of_labels_have_no_negative_of_the_same_label():
    rows = [(f"{label} {i}", f"{label} {(i + 1) % 10}", label) for label in "abcdefgh" for i in range(10)]
    triplets = make_triplets(
        pd.DataFrame(rows, columns=["anchor", "positive", "label"]), negatives=6, rng=np.random.default_rng(0)
    )
    assert (triplets["anchor"].str[0] != triplets["negative"].str[0]).all()


def test_impossible_triplets_are_refused():
    pairs = pd.DataFrame({"anchor": ["a", "b"], "positive": ["p", "p"]})
    with pytest.raises(ValueError, match="no negative can be drawn for 'a'"):
        make_triplets(pairs, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 1 negative per pair, found 0"):
        make_triplets(pairs, negatives=0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="column 'positive' not found; the data has: anchor, answer"):
        make_triplets(pairs.rename(columns={"positive": "answer"}), rng=np.random.default_rng(0))
